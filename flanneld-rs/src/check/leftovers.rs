use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::IfName;
use net_types::registry::{IPTABLES_FORWARD_CHAIN, IPTABLES_POSTROUTING_CHAIN, NFT_TABLE_V4, RTPROT_BOOT};
use netstate::{NeighKey, RouteKind};

use super::{BRIDGE, Backend, Device, DeviceKind, Facts, Finding};

/// Of left-overs of one kind, so many are named.
const MAX_NAMED: usize = 5;

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = devices(facts);
    findings.extend(foreign_routes(facts));
    findings.extend(lone_routes(facts));
    findings.extend(rules(facts));
    findings
}

fn devices(facts: &Facts) -> Vec<Finding> {
    // A daemon that holds no lease yet has not told its device.
    if facts.told_devices().next().is_none() && facts.told_backend().is_none_or(|told| told == Backend::Vxlan)
    {
        return Vec::new();
    }
    let is_own = |name: &IfName| facts.told_devices().any(|own| name.as_str() == own.name);
    let vxlans = facts.vxlans().map(|(name, ..)| name);
    let wireguards = facts.wireguards().map(|(name, _)| name);
    let named = vxlans
        .chain(wireguards)
        .chain(facts.ipip().map(|(name, ..)| name));
    let others = named.filter(|name| !is_own(name));
    let finding = |name: &IfName| {
        Finding::warning(
            "leftover.device",
            format!("{name} is not the device of this flanneld, but has such a name"),
            format!("if no other flanneld uses it, run ip link del {name}"),
        )
    };
    others.map(finding).collect()
}

/// Routes of an earlier backend, or of somebody else, that take pods' traffic past this node's own ones.
fn foreign_routes(facts: &Facts) -> Vec<Finding> {
    let past = match facts.backend() {
        Some(Backend::Vxlan | Backend::Wireguard | Backend::Ipip) => "past flannel's device",
        Some(Backend::HostGw) => "and is not one of flanneld's",
        // The routes are the administrator's.
        Some(Backend::Alloc | Backend::Other) | None => return Vec::new(),
    };
    let Some(env) = facts.subnet_env() else {
        return Vec::new();
    };
    let device = facts.device().map(|device| device.name.as_str());
    let inside = |dst: &IpNetwork| match dst {
        IpNetwork::V4(dst) => env
            .networks
            .iter()
            .any(|network| network.contains(dst.network()) && network.prefix() <= dst.prefix()),
        IpNetwork::V6(_) => false,
    };
    let routes = facts.state.routes.iter().filter(|(key, route)| {
        let link = route.kind.link().map(IfName::as_str);
        inside(&key.dst) && route.protocol == RTPROT_BOOT && link != device && link != Some(BRIDGE)
    });
    let finding = |dst: &IpNetwork, link: &str| {
        Finding::warning(
            "leftover.route",
            format!("the route to {dst} leads through {link}, {past}"),
            format!("if nobody else made it on purpose, run ip route del {dst} dev {link}"),
        )
    };
    routes
        .filter_map(|(key, route)| Some((key, route.kind.link()?)))
        .take(MAX_NAMED)
        .map(|(key, link)| finding(&key.dst, link.as_str()))
        .collect()
}

/// Without a daemon nobody knows the leases, but a route whose gateway has no neighbour entry cannot work.
fn lone_routes(facts: &Facts) -> Vec<Finding> {
    if facts.daemon.is_ok() {
        return Vec::new();
    }
    let is_vxlan = |device: &Device<'_>| matches!(device.kind, DeviceKind::Vxlan { .. });
    let vxlan = facts.device().filter(is_vxlan);
    let Some(Device { name: device, .. }) = vxlan else {
        return Vec::new();
    };
    let gateway = |kind: &RouteKind| match kind {
        RouteKind::Unicast(hop) if hop.link == *device => hop.gateway,
        RouteKind::Unicast(_) | RouteKind::Blackhole => None,
    };
    let lone = |ip: &IpAddr| {
        let key = NeighKey {
            link: device.clone(),
            ip: *ip,
        };
        let mac = facts.state.neighs.get(&key).map(|neigh| neigh.mac);
        !facts
            .state
            .fdb
            .iter()
            .any(|entry| entry.link == *device && Some(entry.mac) == mac)
    };
    let routes = facts
        .state
        .routes
        .iter()
        .filter_map(|(key, route)| Some((key, gateway(&route.kind)?)));
    let finding = |dst: &IpNetwork| {
        Finding::warning(
            "leftover.incomplete-peer",
            format!("the route to {dst} has no neighbour or forwarding entry: what is sent there is lost"),
            "start flanneld, which completes or removes it",
        )
    };
    routes
        .filter(|(_, ip)| lone(ip))
        .take(MAX_NAMED)
        .map(|(key, _)| finding(&key.dst))
        .collect()
}

fn rules(facts: &Facts) -> Option<Finding> {
    let places: BTreeSet<_> = facts
        .rules
        .iter()
        .filter_map(|(program, text)| place(program, text))
        .collect();
    (places.len() > 1).then(|| {
        let places: Vec<_> = places.into_iter().collect();
        Finding::warning(
            "leftover.rules",
            format!("there are rules of flannel's in {} at once", places.join(" and in ")),
            "restart flanneld, which removes those of the mode that it does not use; legacy iptables it sees as root or \
             with CAP_NET_RAW",
        )
    })
}

/// Where rules of flannel's are, if a program shows some.
fn place(program: &str, text: &str) -> Option<&'static str> {
    let in_chain = |line: &str| {
        [IPTABLES_FORWARD_CHAIN, IPTABLES_POSTROUTING_CHAIN]
            .iter()
            .any(|chain| line.starts_with(&format!("-A {chain} ")))
    };
    if !program.ends_with("-save") {
        let table = format!("table ip {NFT_TABLE_V4} ");
        return text.contains(&table).then_some("nftables");
    }
    // The plain name stands for either variant; only that of nf_tables says which it is.
    let is_legacy = program.contains("legacy") || !text.contains("(nf_tables)");
    let place = if is_legacy { "legacy iptables" } else { "iptables" };
    text.lines().any(in_chain).then_some(place)
}
