//! The host-gw backend (flannel `pkg/backend/hostgw`): one route a peer, through the interface that the nodes share.
//! The backends vxlan and ipip have the same for peers that `DirectRouting` leaves out of the tunnel.

use net_types::IfName;
use net_types::registry::RTPROT_FLANNEL;
use netstate::{Nexthop, State};

use super::{Peer, route};
use ipnetwork::IpNetwork;

#[cfg(test)]
mod tests;

/// Adds what carries packets to one peer: its own address is the next hop, which must be on the link. No device marks
/// the route as ours, so that its protocol does.
pub(super) fn add_peer(state: &mut State, link: &IfName, subnet: IpNetwork, peer: &Peer) {
    let hop = Nexthop {
        link: link.clone(),
        gateway: Some(peer.public_ip),
        onlink: false,
    };
    let (key, route) = route(subnet, hop, RTPROT_FLANNEL);
    state.routes.insert(key, route);
}
