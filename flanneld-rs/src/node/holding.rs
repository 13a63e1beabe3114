//! The part of a node that only exists while it holds its lease.

use std::collections::BTreeMap;

use flannel_types::{SubnetEnv, gateway_v4};
use ipnetwork::IpNetwork;
use net_types::SubnetKey;
use netstate::{Prune, State};
use tracing::{info, warn};

use super::Now;
use crate::desired::{self, Peer, PeerChanges, Peers, VxlanDevice};
use crate::lease_keeper::LeaseKeeper;
use crate::lease_view::LeaseView;
use crate::reconciler::Goal;

/// Of more changed peers than this at once, only the number is logged.
const MAX_LOGGED_CHANGES: usize = 20;

/// A node that holds its lease.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) device: VxlanDevice,
    pub(super) keeper: LeaseKeeper,
    pub(super) view: LeaseView,
    pub(super) peers: Peers,
    pub(super) file: SubnetFile,
    wants: Wants,
    /// What the engine's goal was made from, besides the peers.
    goal_made_for: Option<(SubnetFile, Prune)>,
    /// The peers that changed since the goal was made, as they were in it.
    changed: BTreeMap<SubnetKey, Option<Peer>>,
}

/// What this node does for its own subnet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wants {
    /// Whether its traffic is masqueraded.
    pub(super) ip_masq: bool,
    /// Whether packets to addresses that no pod has are dropped.
    pub(super) blackhole: bool,
}

/// How a goal differs from the one before.
#[derive(Debug)]
pub(super) enum NewGoal {
    Same,
    Whole(Goal),
    /// Only in what some peers need.
    Some {
        gone: State,
        wanted: State,
    },
}

/// How far the subnet file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SubnetFile {
    /// The device is not ready yet.
    NotReady,
    Writing,
    Written,
}

impl Holding {
    pub(super) fn new(device: VxlanDevice, keeper: LeaseKeeper, view: LeaseView, wants: Wants) -> Self {
        Self {
            device,
            keeper,
            view,
            peers: Peers::default(),
            file: SubnetFile::NotReady,
            wants,
            goal_made_for: None,
            changed: BTreeMap::new(),
        }
    }

    /// How the goal may differ from the one made last.
    pub(super) fn new_goal(&mut self, now: Now) -> NewGoal {
        let made_for = (self.file, self.view.prune(now.monotonic));
        let is_same = self.goal_made_for.replace(made_for) == Some(made_for);
        if is_same && (self.changed.is_empty() || self.file == SubnetFile::NotReady) {
            return NewGoal::Same;
        }
        let changed = std::mem::take(&mut self.changed);
        if is_same {
            return self.change_of_goal(&changed);
        }
        let none = BTreeMap::new();
        // The device first: pods of this node wait for it, and its peers are not known yet.
        let (peers, prune) = match self.file {
            SubnetFile::NotReady => (&none, Prune::Addrs),
            SubnetFile::Writing | SubnetFile::Written => (&self.peers.accepted, made_for.1),
        };
        let mut desired = desired::desired(&self.device, peers);
        if self.wants.blackhole {
            desired.absorb(desired::blackholes(&[IpNetwork::V4(self.device.subnet)]));
        }
        NewGoal::Whole(Goal {
            desired,
            scope: desired::scope(&self.device),
            prune,
        })
    }

    fn change_of_goal(&self, changed: &BTreeMap<SubnetKey, Option<Peer>>) -> NewGoal {
        let (mut gone, mut wanted) = (State::default(), State::default());
        for (key, before) in changed {
            let objects = |peer: &Peer| desired::of_peer(&self.device, *key, peer);
            gone.absorb(before.as_ref().map(objects).unwrap_or_default());
            wanted.absorb(self.peers.accepted.get(key).map(objects).unwrap_or_default());
        }
        NewGoal::Some { gone, wanted }
    }

    /// Divides the leases of the view anew.
    pub(super) fn divide(&mut self) {
        let changes = self.peers.divide_anew(&self.device, self.view.peers());
        self.take_changes(changes);
    }

    /// Takes over what the view says of one lease.
    pub(super) fn divide_one(&mut self, key: SubnetKey) {
        let lease = |key: &SubnetKey| self.view.peer(key);
        let changes = self.peers.change(&self.device, key, lease);
        self.take_changes(changes);
    }

    fn take_changes(&mut self, changes: PeerChanges) {
        let problems = changes.new_problems.iter();
        for (key, problem) in problems.filter_map(|key| self.peers.refused.get_key_value(key)) {
            warn!(lease = %key, %problem, "a lease is not programmed");
        }
        self.log_changes(&changes.before);
        for (key, before) in changes.before {
            self.changed.entry(key).or_insert(before);
        }
    }

    /// One line a peer while they are few; a whole cluster's at once is one line.
    fn log_changes(&self, before: &BTreeMap<SubnetKey, Option<Peer>>) {
        let accepted = &self.peers.accepted;
        if before.len() > MAX_LOGGED_CHANGES {
            let changed = before.keys().filter(|key| accepted.contains_key(*key)).count();
            info!(
                changed,
                removed = before.len() - changed,
                peers = accepted.len(),
                "peers changed"
            );
            return;
        }
        for key in before.keys() {
            match accepted.get(key) {
                Some(peer) => {
                    info!(lease = %key, public_ip = %peer.public_ip, vtep_mac = %peer.vtep_mac, "peer added or changed");
                }
                None => info!(lease = %key, "peer removed"),
            }
        }
    }

    pub(super) fn subnet_env(&self) -> SubnetEnv {
        let subnet = self.device.subnet;
        SubnetEnv {
            networks: vec![self.device.network],
            subnet: Some(gateway_v4(subnet)),
            ipv6_networks: Vec::new(),
            ipv6_subnet: None,
            mtu: self.device.mtu_bytes,
            ip_masq: self.wants.ip_masq,
        }
    }
}
