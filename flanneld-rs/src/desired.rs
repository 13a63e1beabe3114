//! What the kernel of this node should hold: a pure function of the device and its peers.

use std::collections::BTreeMap;

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

/// Returns what the kernel should hold for the device and its peers.
#[must_use]
pub fn desired(device: &VxlanDevice, peers: &BTreeMap<SubnetKey, Peer>) -> State {
    let mut state = desired_peers(device, peers);
    vxlan::add_device(&mut state, device);
    state
}

fn desired_peers<'a>(
    device: &VxlanDevice,
    peers: impl IntoIterator<Item = (&'a SubnetKey, &'a Peer)>,
) -> State {
    let mut state = State::default();
    for (key, peer) in peers {
        if let Some(subnet) = key.v4() {
            vxlan::add_peer(&mut state, device, subnet, peer);
        }
    }
    state
}

/// Returns what the kernel should hold for one peer alone.
#[must_use]
pub fn of_peer(device: &VxlanDevice, key: SubnetKey, peer: &Peer) -> State {
    desired_peers(device, [(&key, peer)])
}

/// Returns what is ours on this node.
#[must_use]
pub fn scope(device: &VxlanDevice) -> Scope {
    let mut scope = vxlan::scope(device);
    scope.blackholes_of = Some(RTPROT_FLANNEL);
    scope
}

/// What a node looks at before it knows more than its device's name: the link, and the routes through it.
#[must_use]
pub fn first_look(name: &IfName) -> Scope {
    let mut scope = Scope::default();
    let routes_only = LinkScope {
        routes: true,
        ..LinkScope::default()
    };
    scope.links.insert(name.clone(), routes_only);
    scope
}
