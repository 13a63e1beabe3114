use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use netlink::inventory::DefaultTarget;

use super::{Backend, Facts, Finding};

/// What VirtualBox's NAT gives to every guest: Vagrant's first interface.
const VIRTUALBOX_NAT: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 2, 15));

pub(super) fn findings(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    if own_addresses(facts).contains(&VIRTUALBOX_NAT) {
        findings.push(Finding::error(
            "interface.nat",
            format!(
                "this node tells its peers the address {VIRTUALBOX_NAT}, which every VirtualBox guest has"
            ),
            "give flanneld --iface with the interface that the nodes share, on every node",
        ));
    }
    findings.extend(shared_addresses(facts));
    findings.extend(shared_lease(facts));
    findings.extend(lost_address(facts));
    let spread = facts
        .inventory
        .default_routes_v4
        .first()
        .and_then(|route| match &route.target {
            DefaultTarget::Several(hops) => {
                Some(hops.iter().map(|hop| hop.link.as_str()).collect::<BTreeSet<_>>())
            }
            DefaultTarget::Single(_) => None,
        });
    if let Some(links) = spread.filter(|links| links.len() > 1) {
        let links: Vec<_> = links.into_iter().collect();
        findings.push(Finding::note(
            "interface.ecmp",
            format!("the default route spreads over {}", links.join(" and ")),
            "give flanneld --iface, if the first of them by name is not the right one",
        ));
    }
    findings
}

/// The outer addresses of this node, as far as they are known.
fn own_addresses(facts: &Facts) -> BTreeSet<IpAddr> {
    let lease = facts.status().and_then(|status| status.node.lease.as_ref());
    let local = facts.device().and_then(|device| device.local);
    lease
        .and_then(|lease| lease.public_ip)
        .into_iter()
        .chain(local)
        .collect()
}

/// Another host has this node's public address and took its lease for its own.
fn shared_lease(facts: &Facts) -> Option<Finding> {
    let lease = facts.status()?.node.lease.as_ref()?;
    let device = lease.shared_with.as_ref()?;
    Some(Finding::error(
        "interface.shared-lease",
        format!(
            "another host announces the lease {} of this node, with {device}: peers send to that one",
            lease.subnet
        ),
        "two hosts have one public address: give each its own with --iface or --public-ip",
    ))
}

/// What peers send to, and the tunnel's packets leave from, is an address that the host had when flanneld started.
fn lost_address(facts: &Facts) -> Option<Finding> {
    let (who, local) = match facts.backend()? {
        Backend::Vxlan | Backend::Ipip => {
            let device = facts.device()?;
            (format!("{} sends from", device.name), device.local?)
        }
        Backend::HostGw => {
            let lease = facts.status()?.node.lease.as_ref()?;
            ("peers send to".to_owned(), lease.public_ip?)
        }
        // Peers hear a WireGuard device from wherever it sends, and answer there.
        Backend::Wireguard | Backend::Alloc | Backend::Other => return None,
    };
    let mut links = facts.inventory.links.iter().peekable();
    links.peek()?;
    let is_held = links.any(|link| link.addrs.iter().any(|held| held.addr.ip() == local));
    (!is_held).then(|| {
        Finding::error(
            "interface.address-lost",
            format!("{who} {local}, which is no address of this host any more: no other node is reachable"),
            "give the host its address back, or another one to the interface that flanneld's flags choose, which it then \
             follows",
        )
    })
}

fn shared_addresses(facts: &Facts) -> Vec<Finding> {
    let own = facts.status().and_then(|status| status.node.lease.as_ref());
    let own = own.and_then(|lease| Some((lease.public_ip?, lease.subnet.as_str())));
    let peers = facts
        .peers()
        .iter()
        .filter_map(|peer| Some((peer.public_ip?, peer.subnet.as_str())));
    let mut holders: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (ip, subnet) in own.into_iter().chain(peers) {
        holders.entry(ip).or_default().push(subnet);
    }
    holders.retain(|_, subnets| subnets.len() > 1);
    let shared = holders.into_iter().map(|(ip, subnets)| {
        Finding::error(
            "interface.shared-address",
            format!("the public address {ip} is in the leases {}", subnets.join(", ")),
            "nodes that chose the wrong interface need --iface or --public-ip; else one lease is a left-over: remove it \
             from the store",
        )
    });
    shared.collect()
}
