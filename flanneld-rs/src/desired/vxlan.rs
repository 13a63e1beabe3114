//! The VXLAN backend (flannel `pkg/backend/vxlan`): one device, and one neighbour, forwarding entry and route a peer.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};
use net_types::registry::{RT_TABLE_MAIN, RTPROT_BOOT};
use net_types::{IfName, MacAddr, Vni};
use netstate::{
    Addr, AddrKey, AdminState, FdbKey, Link, LinkKind, LinkScope, Neigh, NeighKey, Nexthop, Route, RouteKey,
    RouteKind, Scope, State, SysctlKey, Vxlan,
};

use super::Peer;

#[cfg(test)]
mod tests;

/// The VXLAN device of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanDevice {
    /// Its name, `flannel.<vni>`.
    pub name: IfName,
    /// Network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// Whether it learns forwarding entries.
    pub learning: bool,
    /// Whether it has the group-based policy extension.
    pub gbp: bool,
    /// Hardware address, as the lease announces it to the peers.
    pub mac: MacAddr,
    /// Its own MTU in bytes, the outer headers already subtracted.
    pub mtu_bytes: u32,
    /// The interface that carries the outer packets.
    pub parent: IfName,
    /// Outer source address, one that this node holds.
    pub local: Ipv4Addr,
    /// The address at which the peers reach this node, as its lease announces it.
    pub public_ip: Ipv4Addr,
    /// The whole pod network.
    pub network: Ipv4Network,
    /// The subnet of this node.
    pub subnet: Ipv4Network,
}

/// Adds the device with its address: the subnet's first one, with the longest prefix, so that the kernel makes no
/// route of its own for the subnet.
pub(super) fn add_device(state: &mut State, device: &VxlanDevice) {
    let vxlan = Vxlan {
        vni: device.vni,
        port: device.port,
        local: Some(IpAddr::V4(device.local)),
        parent: Some(device.parent.clone()),
        learning: device.learning,
        gbp: device.gbp,
    };
    let link = Link {
        kind: LinkKind::Vxlan(vxlan),
        mac: Some(device.mac),
        mtu_bytes: Some(device.mtu_bytes),
        admin: AdminState::Up,
        port: None,
    };
    state.links.insert(device.name.clone(), link);
    let own = AddrKey {
        link: device.name.clone(),
        addr: IpNetwork::from(IpAddr::V4(device.subnet.network())),
    };
    state.addrs.insert(own, Addr::default());
    state.sysctls.insert(accept_ra(&device.name), "0".to_owned());
}

/// Adds what carries packets to one peer: the route gives the next hop, the neighbour its inner MAC address, and the
/// forwarding entry the node that this address belongs to.
pub(super) fn add_peer(state: &mut State, device: &VxlanDevice, subnet: Ipv4Network, peer: &Peer) {
    let gateway = IpAddr::V4(subnet.network());
    let link = || device.name.clone();
    state.fdb.insert(FdbKey {
        link: link(),
        mac: peer.vtep_mac,
        remote: IpAddr::V4(peer.public_ip),
    });
    state.neighs.insert(
        NeighKey {
            link: link(),
            ip: gateway,
        },
        Neigh { mac: peer.vtep_mac },
    );
    let nexthop = Nexthop {
        link: link(),
        gateway: Some(gateway),
        onlink: true,
    };
    let route = Route {
        kind: RouteKind::Unicast(nexthop),
        protocol: RTPROT_BOOT,
        source: None,
        mtu_bytes: None,
        advmss_bytes: None,
        scope: None,
    };
    state.routes.insert(
        RouteKey {
            table: RT_TABLE_MAIN,
            dst: IpNetwork::V4(subnet),
            metric: 0,
        },
        route,
    );
}

/// On the device, every permanent entry and every route is ours, and every address inside the pod network; of IPv6
/// every address that the kernel did not make.
pub(super) fn scope(device: &VxlanDevice) -> Scope {
    let any_v6 = Ipv6Network::new(Ipv6Addr::UNSPECIFIED, 0).map(IpNetwork::V6);
    let own = [IpNetwork::V4(device.network)];
    let mut scope = Scope::default();
    let link = LinkScope {
        addrs_inside: any_v6.into_iter().chain(own).collect(),
        neighs: true,
        fdb: true,
        routes: true,
        ..LinkScope::default()
    };
    scope.links.insert(device.name.clone(), link);
    scope.sysctls.insert(accept_ra(&device.name));
    scope
}

fn accept_ra(name: &IfName) -> SysctlKey {
    SysctlKey::of_link("ipv6", name, "accept_ra")
}
