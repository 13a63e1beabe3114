//! The ipip backend (flannel `pkg/backend/ipip`): one device of IP in IP, of IPv4 only, and one route a peer, whose next
//! hop the kernel takes for the outer destination. There is nothing else to a peer: no neighbour, no forwarding entry.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::IfName;
use net_types::registry::RTPROT_BOOT;
use netstate::{AdminState, Ipip, Link, LinkKind, LinkScope, Nexthop, Scope, State};

use super::{Peer, Side, add_own_addr, route};

#[cfg(test)]
mod tests;

/// The device of IP in IP of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IpipDevice {
    /// Its name.
    pub name: IfName,
    /// Its own MTU in bytes, the outer header already subtracted.
    pub mtu_bytes: u32,
}

/// Adds the device with its address. A side of IPv6, which settings refuse with this backend, has none: without a local
/// address a device would take whatever comes by this protocol.
pub(super) fn add_device(state: &mut State, side: &Side, device: &IpipDevice) {
    let IpAddr::V4(local) = side.local else {
        return;
    };
    let link = Link {
        kind: LinkKind::Ipip(Ipip { local: Some(local) }),
        mac: None,
        mtu_bytes: Some(device.mtu_bytes),
        admin: AdminState::Up,
        port: None,
    };
    state.links.insert(device.name.clone(), link);
    add_own_addr(state, side, &device.name);
}

/// Adds what carries packets to one peer.
pub(super) fn add_peer(state: &mut State, device: &IpipDevice, subnet: IpNetwork, peer: &Peer) {
    let hop = Nexthop {
        link: device.name.clone(),
        gateway: Some(peer.public_ip),
        onlink: true,
    };
    let (key, route) = route(subnet, hop, RTPROT_BOOT);
    state.routes.insert(key, route);
}

/// On the device every route is ours, and every address inside the pod network.
pub(super) fn add_scope(scope: &mut Scope, side: &Side, device: &IpipDevice) {
    let link = LinkScope {
        addrs_inside: vec![side.network],
        routes: true,
        ..LinkScope::default()
    };
    scope.links.insert(device.name.clone(), link);
}
