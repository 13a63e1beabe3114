use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::IfName;
use net_types::registry::{IPTABLES_FORWARD_CHAIN, IPTABLES_POSTROUTING_CHAIN, NFT_TABLE_V4, RTPROT_BOOT};
use netstate::{NeighKey, RouteKind};

use super::{BRIDGE, Facts, Finding};

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
    let is_known = facts.told_devices().next().is_some() || facts.daemon.is_ok() && facts.is_routed();
    if !is_known {
        return Vec::new();
    }
    let is_own = |name: &IfName| facts.told_devices().any(|own| name.as_str() == own.name);
    let others = facts.vxlans().filter(|(name, ..)| !is_own(name));
    let finding = |name: &IfName| {
        Finding::warning(
            "leftover.device",
            format!("{name} is not the device of this flanneld, but has such a name"),
            format!("if no other flanneld uses it, run ip link del {name}"),
        )
    };
    others.map(|(name, ..)| finding(name)).collect()
}

/// Routes of an earlier host-gw backend, or of somebody else, that take pods' traffic past the tunnel.
fn foreign_routes(facts: &Facts) -> Vec<Finding> {
    let Some(env) = facts.subnet_env() else {
        return Vec::new();
    };
    let device = facts.device().map(|(name, ..)| name.as_str());
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
            format!("the route to {dst} leads through {link}, past flannel's device"),
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
    let Some((device, ..)) = facts.device() else {
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
    let in_nft = facts
        .rules
        .get("nft")
        .is_some_and(|text| text.contains(&format!("table ip {NFT_TABLE_V4} ")));
    let in_iptables = facts.rules.iter().any(|(program, text)| {
        program.ends_with("-save")
            && text.lines().any(|line| {
                line.starts_with(&format!("-A {IPTABLES_FORWARD_CHAIN} "))
                    || line.starts_with(&format!("-A {IPTABLES_POSTROUTING_CHAIN} "))
            })
    });
    (in_nft && in_iptables).then(|| {
        Finding::warning(
            "leftover.rules",
            "there are rules of flannel's in nftables and in iptables at once".to_owned(),
            "restart flanneld, which removes those of the mode that it does not use",
        )
    })
}
