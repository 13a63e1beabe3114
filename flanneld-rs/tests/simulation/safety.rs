//! What must hold after every step.
//!
//! A packet for a pod subnet never arrives at a node that never held the lease of that subnet, unless a stranger's
//! entry misleads it. (A subnet that changes hands may lead to its former holder until the news has spread.)
//! Elsewhere: no plan removes what [`crate::ledger`] forbids, applying changes nothing foreign and timers do not run
//! hot ([`crate::daemon`]).

use std::collections::BTreeSet;
use std::net::IpAddr;

use fake_kernel::{Delivery, FakeKernel};
use ipnetwork::Ipv4Network;
use netstate::{Neigh, NeighKey, Op, Route, RouteKey};

use crate::kernel_view::{pod_of, public_ip};
use crate::world::{MemberId, World};

/// A stranger's entry that sends packets for a subnet to the wrong node.
pub(crate) struct Misled {
    pub(crate) subnet: Ipv4Network,
    pub(crate) entry: Entry,
}

/// An entry that can mislead.
#[derive(Clone)]
pub(crate) enum Entry {
    Neigh(NeighKey, Neigh),
    Route(RouteKey, Route),
}

impl Entry {
    /// The change that makes it.
    pub(crate) fn op(self) -> Op {
        match self {
            Self::Neigh(key, neigh) => Op::SetNeigh(key, neigh),
            Self::Route(key, route) => Op::ReplaceRoute(key, route),
        }
    }

    fn is_in(&self, kernel: &FakeKernel) -> bool {
        let state = kernel.dump();
        match self {
            Self::Neigh(key, neigh) => state.neighs.get(key) == Some(neigh),
            Self::Route(key, route) => state.routes.get(key) == Some(route),
        }
    }
}

/// Looks for a packet that goes astray because of what a node's kernel holds.
pub(crate) fn misdelivery(world: &mut World, changed: MemberId) -> Option<String> {
    for member in &mut world.members {
        if !member.misled.is_empty() {
            let kernel = &world.fabric.nodes[&member.name];
            member.misled.retain(|misled| misled.entry.is_in(kernel));
        }
    }
    let senders = 0..world.members.len();
    let pairs = senders.flat_map(|from| world.holders.iter().map(move |entry| (from, entry)));
    let mut concerned = pairs.filter(|(from, (_, holders))| *from == changed || holders.contains(&changed));
    concerned.find_map(|(from, (subnet, holders))| goes_astray(world, from, *subnet, holders))
}

fn goes_astray(
    world: &World,
    from: MemberId,
    subnet: Ipv4Network,
    holders: &BTreeSet<MemberId>,
) -> Option<String> {
    let sender = &world.members[from];
    if sender.misled.iter().any(|misled| misled.subnet == subnet) {
        return None;
    }
    let source = sender.subnet.map_or(IpAddr::V4(public_ip(sender.number)), pod_of);
    let arrived_at = match world.fabric.deliver(&sender.name, source, pod_of(subnet)) {
        Delivery::Dropped { .. } => return None,
        Delivery::Delivered { node } | Delivery::Misdelivered { node } => node,
    };
    let mut right = holders.iter().map(|id| &world.members[*id].name);
    let name = &sender.name;
    (!right.any(|holder| *holder == arrived_at))
        .then(|| format!("a packet from {name} to {subnet} arrives at {arrived_at}"))
}
