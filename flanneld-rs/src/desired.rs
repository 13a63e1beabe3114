//! What the kernel of this node should hold: a pure function of the device and its peers.

use std::collections::BTreeMap;

use net_types::{IfName, SubnetKey};
use netstate::{Scope, State};

pub use peers::{BACKEND_TYPE, Peer, PeerProblem, Peers};
pub use vxlan::VxlanDevice;

mod peers;
mod vxlan;

/// Returns what the kernel should hold for the device and its peers.
#[must_use]
pub fn desired(device: &VxlanDevice, peers: &BTreeMap<SubnetKey, Peer>) -> State {
    let mut state = State::default();
    vxlan::add_device(&mut state, device);
    for (key, peer) in peers {
        vxlan::add_peer(&mut state, device, key.v4(), peer);
    }
    state
}

/// Returns what is ours on this node.
#[must_use]
pub fn scope(device: &VxlanDevice) -> Scope {
    vxlan::scope(device)
}

/// The scope before anything but the device's name is known: just the link itself.
#[must_use]
pub fn scope_of_link(name: &IfName) -> Scope {
    vxlan::scope_inside(name, &[])
}
