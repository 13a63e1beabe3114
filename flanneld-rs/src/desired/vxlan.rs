//! The VXLAN backend (flannel `pkg/backend/vxlan`): one device a family, and one neighbour, forwarding entry and route a
//! peer.

use std::net::Ipv6Addr;

use ipnetwork::{IpNetwork, Ipv6Network};
use net_types::registry::RTPROT_BOOT;
use net_types::{IfName, MacAddr, Vni};
use netstate::{
    AdminState, FdbKey, Link, LinkKind, LinkScope, Neigh, NeighKey, Nexthop, Scope, State, SysctlKey, Vxlan,
};

use super::{Peer, Side, add_own_addr, route};

#[cfg(test)]
mod tests;

/// A VXLAN device of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VxlanDevice {
    /// Its name, `flannel.<vni>`, for IPv6 `flannel-v6.<vni>`.
    pub name: IfName,
    /// Network identifier.
    pub vni: Vni,
    /// UDP destination port.
    pub port: u16,
    /// Whether it learns forwarding entries.
    pub learning: bool,
    /// Whether it has the group-based policy extension.
    pub gbp: bool,
    /// Whether it may leave checksums to the hardware; `None` leaves it as it is.
    pub tx_checksum: Option<bool>,
    /// Hardware address, as the lease announces it to the peers.
    pub mac: MacAddr,
    /// Its own MTU in bytes, the outer headers already subtracted.
    pub mtu_bytes: u32,
    /// The interface that carries the outer packets.
    pub parent: IfName,
}

/// Adds the device with its address.
pub(super) fn add_device(state: &mut State, side: &Side, device: &VxlanDevice) {
    let vxlan = Vxlan {
        vni: device.vni,
        port: device.port,
        local: Some(side.local),
        parent: Some(device.parent.clone()),
        learning: device.learning,
        gbp: device.gbp,
        tx_checksum: device.tx_checksum,
    };
    let link = Link {
        kind: LinkKind::Vxlan(vxlan),
        mac: Some(device.mac),
        mtu_bytes: Some(device.mtu_bytes),
        admin: AdminState::Up,
        port: None,
    };
    state.links.insert(device.name.clone(), link);
    add_own_addr(state, side, &device.name);
    state.sysctls.insert(accept_ra(&device.name), "0".to_owned());
}

/// Adds what carries packets to one peer: the route gives the next hop, the neighbour its inner MAC address, and the
/// forwarding entry the node that this address belongs to.
pub(super) fn add_peer(state: &mut State, device: &VxlanDevice, subnet: IpNetwork, peer: &Peer) {
    // Without one the lease is refused.
    let Some(mac) = peer.vtep_mac else { return };
    let gateway = subnet.network();
    let link = || device.name.clone();
    state.fdb.insert(FdbKey {
        link: link(),
        mac,
        remote: peer.public_ip,
    });
    let neigh = NeighKey {
        link: link(),
        ip: gateway,
    };
    state.neighs.insert(neigh, Neigh { mac });
    let nexthop = Nexthop {
        link: link(),
        gateway: Some(gateway),
        onlink: true,
    };
    let (key, route) = route(subnet, nexthop, RTPROT_BOOT);
    state.routes.insert(key, route);
}

/// On the device, every permanent entry and every route is ours, and every address inside the pod network; of IPv6
/// every address that the kernel did not make.
pub(super) fn add_scope(scope: &mut Scope, side: &Side, device: &VxlanDevice) {
    let any_v6 = Ipv6Network::new(Ipv6Addr::UNSPECIFIED, 0).map(IpNetwork::V6);
    let link = LinkScope {
        addrs_inside: any_v6.into_iter().chain([side.network]).collect(),
        neighs: true,
        fdb: true,
        tx_checksum: device.tx_checksum.is_some(),
        routes: true,
        ..LinkScope::default()
    };
    scope.links.insert(device.name.clone(), link);
    scope.sysctls.insert(accept_ra(&device.name));
}

fn accept_ra(name: &IfName) -> SysctlKey {
    SysctlKey::of_link("ipv6", name, "accept_ra")
}
