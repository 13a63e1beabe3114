//! The part of a node that only exists while it holds its lease.

use std::collections::BTreeMap;

use flannel_types::{SubnetEnv, gateway_v4};
use netstate::Prune;
use tracing::{info, warn};

use super::Now;
use crate::desired::{self, Peers, VxlanDevice};
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
    ip_masq: bool,
    /// What the engine's goal was made from, besides the peers; `None` when it must be made anew.
    goal_made_for: Option<(SubnetFile, Prune)>,
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
    pub(super) fn new(device: VxlanDevice, keeper: LeaseKeeper, view: LeaseView, ip_masq: bool) -> Self {
        Self {
            device,
            keeper,
            view,
            peers: Peers::default(),
            file: SubnetFile::NotReady,
            ip_masq,
            goal_made_for: None,
        }
    }

    /// The goal, if it may differ from the one made last.
    pub(super) fn new_goal(&mut self, now: Now) -> Option<Goal> {
        let made_for = (self.file, self.view.prune(now.monotonic));
        if self.goal_made_for.replace(made_for) == Some(made_for) {
            return None;
        }
        let scope = desired::scope(&self.device);
        if self.file == SubnetFile::NotReady {
            // The device first: pods of this node wait for it, and its peers are not known yet.
            return Some(Goal {
                desired: desired::desired(&self.device, &BTreeMap::new()),
                scope,
                prune: Prune::Addrs,
            });
        }
        let desired = desired::desired(&self.device, &self.peers.accepted);
        Some(Goal {
            desired,
            scope,
            prune: made_for.1,
        })
    }

    /// Divides the leases of the view anew.
    pub(super) fn divide(&mut self) {
        let peers = Peers::divide(&self.device, self.view.peers(), &self.peers);
        for (key, problem) in peers.new_problems(&self.peers) {
            warn!(lease = %key, %problem, "a lease is not programmed");
        }
        log_changes(&self.peers, &peers);
        if self.peers.accepted != peers.accepted {
            self.goal_made_for = None;
        }
        self.peers = peers;
    }

    pub(super) fn subnet_env(&self) -> SubnetEnv {
        let subnet = self.device.subnet;
        SubnetEnv {
            networks: vec![self.device.network],
            subnet: Some(gateway_v4(subnet)),
            ipv6_networks: Vec::new(),
            ipv6_subnet: None,
            mtu: self.device.mtu_bytes,
            ip_masq: self.ip_masq,
        }
    }
}

/// One line a peer while they are few; a whole cluster's at once is one line, and the rest for those who debug.
fn log_changes(before: &Peers, after: &Peers) {
    let changed: Vec<_> = after
        .accepted
        .iter()
        .filter(|(key, peer)| before.accepted.get(*key) != Some(*peer))
        .collect();
    let removed: Vec<_> = before
        .accepted
        .keys()
        .filter(|key| !after.accepted.contains_key(*key))
        .collect();
    if changed.len() + removed.len() > MAX_LOGGED_CHANGES {
        info!(
            changed = changed.len(),
            removed = removed.len(),
            peers = after.accepted.len(),
            "peers changed"
        );
        return;
    }
    for (key, peer) in changed {
        info!(lease = %key, public_ip = %peer.public_ip, vtep_mac = %peer.vtep_mac, "peer added or changed");
    }
    for key in removed {
        info!(lease = %key, "peer removed");
    }
}
