//! Who has which lease, by the name of its Node, and what has changed for whoever knows leases by their subnets.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use flannel_types::{Lease, NetConf};
use net_types::SubnetKey;
use tracing::warn;

use super::lease::{Reading, own_key, read};
use super::node::Node;
use crate::LeaseEvent;

#[cfg(test)]
mod tests;

/// Of more Nodes than this no problem is told.
const MAX_WARNINGS: usize = 100;

/// The leases of a cluster.
///
/// This node's own lease counts as held whatever its Node's annotations say, because it is this node that writes them;
/// only another subnet in the Node's specification takes it away.
#[derive(Debug)]
pub(super) struct Roster {
    own_name: String,
    own: Lease,
    /// By which the own lease was acquired.
    conf: NetConf,
    /// Which the snapshots tell of.
    told_conf: NetConf,
    known: BTreeMap<String, Lease>,
    /// What a reading in full has brought so far.
    fresh: Option<BTreeMap<String, Lease>>,
    lost_own: bool,
    warned: BTreeSet<String>,
}

impl Roster {
    pub(super) fn new(own_name: String, own: Lease, conf: NetConf) -> Self {
        Self {
            own_name,
            own,
            told_conf: conf.clone(),
            conf,
            known: BTreeMap::new(),
            fresh: None,
            lost_own: false,
            warned: BTreeSet::new(),
        }
    }

    /// Begins a reading in full.
    pub(super) fn begin(&mut self) {
        self.fresh = Some(BTreeMap::new());
        self.lost_own = false;
    }

    /// Takes another network configuration. The own lease is still the one of before: whoever hears of it may acquire
    /// another one. Told at once, unless the Nodes are just read in full.
    pub(super) fn reconfigure(&mut self, conf: NetConf) -> Option<LeaseEvent> {
        self.told_conf = conf;
        self.fresh.is_none().then(|| self.complete())
    }

    /// Takes what a Node is.
    pub(super) fn put(&mut self, node: &Node) -> Vec<LeaseEvent> {
        if node.name == self.own_name {
            return self.put_own(node);
        }
        let Reading { lease, problem } = read(node);
        match problem {
            Some(problem) => self.warn_once(&node.name, &problem),
            None => drop(self.warned.remove(&node.name)),
        }
        if let Some(fresh) = &mut self.fresh {
            if let Some(lease) = lease {
                fresh.insert(node.name.clone(), lease);
            }
            return Vec::new();
        }
        self.change(&node.name, lease)
    }

    /// Takes the news that a Node is gone.
    pub(super) fn gone(&mut self, name: &str) -> Vec<LeaseEvent> {
        self.warned.remove(name);
        if let Some(fresh) = &mut self.fresh {
            fresh.remove(name);
            return Vec::new();
        }
        self.change(name, None)
    }

    /// Ends a reading in full: the Nodes that it did not bring are gone.
    pub(super) fn complete(&mut self) -> LeaseEvent {
        if let Some(fresh) = self.fresh.take() {
            self.known = fresh;
        }
        let mut leases = BTreeMap::new();
        if !self.lost_own {
            leases.insert(self.own.key, self.own.clone());
        }
        let mut doubles = Vec::new();
        for (name, lease) in &self.known {
            match leases.entry(lease.key) {
                Entry::Vacant(free) => {
                    free.insert(lease.clone());
                }
                Entry::Occupied(_) => doubles.push((name.clone(), lease.key)),
            }
        }
        for (name, key) in doubles {
            self.warn_of_double(&name, key);
        }
        LeaseEvent::Snapshot {
            config: self.told_conf.clone(),
            leases,
        }
    }

    /// The leases by the names of their Nodes, this node's left out.
    pub(super) const fn peers(&self) -> &BTreeMap<String, Lease> {
        &self.known
    }

    fn put_own(&mut self, node: &Node) -> Vec<LeaseEvent> {
        // A Node that was made anew has no subnet for a moment.
        let moved = own_key(node, &self.conf).is_ok_and(|key| key != self.own.key);
        if !moved {
            return Vec::new();
        }
        warn!(
            node = self.own_name,
            subnet = %self.own.key,
            cidrs = node.pod_cidrs.join(", "),
            "the node was given another pod CIDR"
        );
        self.lost_own = true;
        if self.fresh.is_some() {
            return Vec::new();
        }
        vec![LeaseEvent::Remove(self.own.key)]
    }

    fn change(&mut self, name: &str, lease: Option<Lease>) -> Vec<LeaseEvent> {
        let before = match &lease {
            Some(lease) => self.known.insert(name.to_owned(), lease.clone()),
            None => self.known.remove(name),
        };
        if before == lease {
            return Vec::new();
        }
        let left = before.filter(|before| lease.as_ref().is_none_or(|lease| lease.key != before.key));
        let mut events: Vec<_> = left
            .and_then(|before| self.left(before.key))
            .into_iter()
            .collect();
        let Some(lease) = lease else {
            return events;
        };
        match self.holder(lease.key) {
            Some(holder) if holder == name => events.push(LeaseEvent::Put(lease)),
            Some(_) | None => self.warn_of_double(name, lease.key),
        }
        events
    }

    /// What becomes of a subnet that a Node has left.
    fn left(&self, key: SubnetKey) -> Option<LeaseEvent> {
        if key == self.own.key {
            return None;
        }
        let next = self.holder(key).and_then(|holder| self.known.get(holder));
        Some(match next {
            Some(lease) => LeaseEvent::Put(lease.clone()),
            None => LeaseEvent::Remove(key),
        })
    }

    /// Of the Nodes that claim a subnet, the one that has it: the first by name. `None` where this node has it itself.
    fn holder(&self, key: SubnetKey) -> Option<&str> {
        if key == self.own.key {
            return None;
        }
        let mut claims = self.known.iter().filter(|(_, lease)| lease.key == key);
        claims.next().map(|(name, _)| name.as_str())
    }

    fn warn_of_double(&mut self, name: &str, key: SubnetKey) {
        self.warn_once(name, &format!("another node has its subnet {key} already"));
    }

    fn warn_once(&mut self, name: &str, problem: &str) {
        if self.warned.len() < MAX_WARNINGS && self.warned.insert(name.to_owned()) {
            warn!(node = name, problem, "a node is no peer, or not in both families");
        }
    }
}
