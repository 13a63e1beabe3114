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
    /// Those of the known whose subnet another one had before them.
    rivals: BTreeSet<String>,
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
            rivals: BTreeSet::new(),
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
        let mut leases = BTreeMap::new();
        if !self.lost_own {
            leases.insert(self.own.key, self.own.clone());
        }
        let known = self.fresh.take().unwrap_or_else(|| self.known.clone());
        let had = |name: &String, lease: &Lease| {
            let before = self.known.get(name);
            before.is_some_and(|before| before.key == lease.key) && !self.rivals.contains(name)
        };
        // Who had a subnet keeps it; of the others the first by name gets it.
        let (holders, others): (Vec<_>, Vec<_>) = known.iter().partition(|(name, lease)| had(name, lease));
        let mut rivals = BTreeSet::new();
        for (name, lease) in holders.into_iter().chain(others) {
            match leases.entry(lease.key) {
                Entry::Vacant(free) => {
                    free.insert(lease.clone());
                }
                Entry::Occupied(_) => {
                    rivals.insert(name.clone());
                }
            }
        }
        self.known = known;
        for name in &rivals {
            self.warn_of_rival(name);
        }
        self.rivals = rivals;
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
        let was_rival = self.rivals.contains(name);
        let stays = before
            .as_ref()
            .zip(lease.as_ref())
            .is_some_and(|(before, lease)| before.key == lease.key);
        let Some(lease) = lease.filter(|_| stays) else {
            return self.moved(name, before.map(|before| before.key));
        };
        if was_rival {
            return Vec::new();
        }
        vec![LeaseEvent::Put(lease)]
    }

    /// What follows when a Node leaves a subnet, takes one, or both.
    fn moved(&mut self, name: &str, from: Option<SubnetKey>) -> Vec<LeaseEvent> {
        let was_rival = self.rivals.remove(name);
        let mut events = Vec::new();
        if let Some(from) = from.filter(|_| !was_rival) {
            events.push(match self.next_holder(from) {
                Some(lease) => LeaseEvent::Put(lease),
                None => LeaseEvent::Remove(from),
            });
        }
        let Some(lease) = self.known.get(name).cloned() else {
            return events;
        };
        let has_it = |(other, known): (&String, &Lease)| known.key == lease.key && other != name;
        if lease.key == self.own.key || self.known.iter().any(has_it) {
            self.warn_of_rival(name);
            self.rivals.insert(name.to_owned());
        } else {
            events.push(LeaseEvent::Put(lease));
        }
        events
    }

    /// Gives a subnet that was left to the first by name of those that claim it.
    fn next_holder(&mut self, key: SubnetKey) -> Option<Lease> {
        let claims = |name: &&String| self.known.get(*name).is_some_and(|lease| lease.key == key);
        let next = self.rivals.iter().find(claims)?.clone();
        self.rivals.remove(&next);
        self.known.get(&next).cloned()
    }

    fn warn_of_rival(&mut self, name: &str) {
        if let Some(lease) = self.known.get(name) {
            let problem = format!("another node has its subnet {} already", lease.key);
            self.warn_once(name, &problem);
        }
    }

    fn warn_once(&mut self, name: &str, problem: &str) {
        if self.warned.len() < MAX_WARNINGS && self.warned.insert(name.to_owned()) {
            warn!(node = name, problem, "a node is no peer, or not in both families");
        }
    }
}
