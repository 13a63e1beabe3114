//! What the kernel of this node should hold: a pure function of this node's part of the overlay and its peers.
//!
//! Each family is by itself: a [`Side`] with the peers that can be reached in this family. What happens to a peer's
//! IPv6 never touches its IPv4, and the reverse.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::registry::RTPROT_FLANNEL;
use net_types::{IfName, SubnetKey};
use netstate::{LinkScope, Scope, State};

pub use own_subnets::blackholes;
pub use peers::{BACKEND_TYPE, Peer, PeerChanges, PeerProblem, Peers, is_usable_public_ip};
pub use rules::{FilterMode, Masquerade, Network, RuleSettings, rules, rules_scope, rules_scope_of};
pub use vxlan::VxlanDevice;

mod own_subnets;
mod peers;
mod rules;
mod vxlan;

/// This node's part of the overlay in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The whole pod network.
    pub network: IpNetwork,
    /// The subnet of this node.
    pub subnet: IpNetwork,
    /// Outer source address, one that this node holds.
    pub local: IpAddr,
    /// The address at which the peers reach this node, as its lease announces it.
    pub public_ip: IpAddr,
    /// What carries the packets.
    pub carrier: Carrier,
}

/// What carries packets to the peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// VXLAN tunnels.
    Vxlan(VxlanDevice),
}

impl Side {
    /// Whether this is IPv6's side.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// The subnet that a lease has in this family.
    #[must_use]
    pub fn subnet_of(&self, lease: SubnetKey) -> Option<IpNetwork> {
        lease.subnets().find(|subnet| subnet.is_ipv6() == self.is_ipv6())
    }
}

/// Returns what the kernel should hold for one family.
#[must_use]
pub fn desired(side: &Side, peers: &BTreeMap<IpNetwork, Peer>) -> State {
    let mut state = State::default();
    match &side.carrier {
        Carrier::Vxlan(device) => vxlan::add_device(&mut state, side, device),
    }
    for (subnet, peer) in peers {
        add_peer(&mut state, side, *subnet, peer);
    }
    state
}

/// Returns what the kernel should hold for one peer alone.
#[must_use]
pub fn of_peer(side: &Side, subnet: IpNetwork, peer: &Peer) -> State {
    let mut state = State::default();
    add_peer(&mut state, side, subnet, peer);
    state
}

fn add_peer(state: &mut State, side: &Side, subnet: IpNetwork, peer: &Peer) {
    match &side.carrier {
        Carrier::Vxlan(device) => vxlan::add_peer(state, device, subnet, peer),
    }
}

/// Returns what is ours on this node in some families.
#[must_use]
pub fn scope<'a>(sides: impl IntoIterator<Item = &'a Side>) -> Scope {
    let mut scope = Scope::default();
    for side in sides {
        match &side.carrier {
            Carrier::Vxlan(device) => vxlan::add_scope(&mut scope, side, device),
        }
    }
    scope.blackholes_of = Some(RTPROT_FLANNEL);
    scope
}

/// What a node looks at before it knows more than its devices' names: the links, and the routes through them.
#[must_use]
pub fn first_look<'a>(names: impl IntoIterator<Item = &'a IfName>) -> Scope {
    let routes_only = LinkScope {
        routes: true,
        ..LinkScope::default()
    };
    let links = names.into_iter().map(|name| (name.clone(), routes_only.clone()));
    Scope {
        links: links.collect(),
        ..Scope::default()
    }
}
