//! What this node believes the leases are, and whether it may remove what they no longer name.
//!
//! A store can be out of reach, come back empty, or lose half of its content; pods must not pay for it. So leases
//! that vanish all at once are held for a grace time, and nothing is removed from the kernel before a snapshot that
//! counts: one that holds this node's own lease.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use flannel_types::{Lease, PublicAddrs};
use ipnetwork::IpNetwork;
use net_types::SubnetKey;
use netstate::Prune;

#[cfg(test)]
mod tests;

/// A snapshot that loses fewer leases than this is believed at once.
const MASS_LOSS_MIN: usize = 10;

/// What a snapshot led to, where a person should know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SnapshotOutcome {
    /// The leases are known in full.
    Synced,
    /// This node's own lease is gone, or another's; the snapshot does not count.
    OwnLeaseGone,
    /// More than half of the leases, and ten or more, vanished at once; they are held.
    MassLoss {
        /// How many vanished.
        lost: usize,
        /// Of how many.
        known: usize,
    },
}

/// The leases of all nodes, this one's included, as far as they are known.
#[derive(Debug)]
pub struct LeaseView {
    own: SubnetKey,
    node: PublicAddrs,
    grace: Duration,
    known: BTreeMap<SubnetKey, Lease>,
    /// Leases that vanished in a mass, each until when it is kept.
    held: BTreeMap<SubnetKey, Duration>,
    /// Subnets of peers that the kernel held when this run began; empty after the first snapshot that counts.
    adopted: BTreeSet<IpNetwork>,
    /// Whether the last snapshot counts and the store has been in reach since.
    synced: bool,
    no_prune_until: Duration,
}

impl LeaseView {
    /// Begins with nothing but this node's lease and the peers' subnets that the kernel holds from an earlier life.
    #[must_use]
    pub const fn new(own: &Lease, adopted: BTreeSet<IpNetwork>, grace: Duration) -> Self {
        Self {
            own: own.key,
            node: own.attrs.addrs(),
            grace,
            known: BTreeMap::new(),
            held: BTreeMap::new(),
            adopted,
            synced: false,
            no_prune_until: Duration::ZERO,
        }
    }

    /// Removes nothing from the kernel until the grace time has passed: the store did not know this node although the
    /// kernel shows that it had been a member, so the store may have lost the others as well.
    pub fn distrust_store(&mut self, now: Duration) {
        if !self.adopted.is_empty() {
            self.no_prune_until = now + self.grace;
        }
    }

    /// Takes all leases that the store holds.
    pub fn snapshot(&mut self, now: Duration, mut leases: BTreeMap<SubnetKey, Lease>) -> SnapshotOutcome {
        if !leases.get(&self.own).is_some_and(|own| self.is_ours(own)) {
            self.synced = false;
            return SnapshotOutcome::OwnLeaseGone;
        }
        self.synced = true;
        let adopted = std::mem::take(&mut self.adopted);
        let subnets: BTreeSet<_> = leases.keys().flat_map(SubnetKey::subnets).collect();
        let lost_adopted = adopted.difference(&subnets).count();
        let lost: Vec<_> = self
            .trusted()
            .filter(|key| !leases.contains_key(*key))
            .copied()
            .collect();
        let known = self.trusted().count();
        let mut outcome = SnapshotOutcome::Synced;
        if is_mass_loss(lost_adopted, adopted.len()) {
            self.no_prune_until = now + self.grace;
            outcome = SnapshotOutcome::MassLoss {
                lost: lost_adopted,
                known: adopted.len(),
            };
        }
        if is_mass_loss(lost.len(), known) {
            self.held.extend(lost.iter().map(|key| (*key, now + self.grace)));
            outcome = SnapshotOutcome::MassLoss {
                lost: lost.len(),
                known,
            };
        }
        let held = &self.held;
        self.known
            .retain(|key, _| held.contains_key(key) && !leases.contains_key(key));
        self.held.retain(|key, _| !leases.contains_key(key));
        // Makes the tree anew, with full nodes.
        self.known.append(&mut leases);
        outcome
    }

    /// Takes one lease that was made or changed; true when another node took this node's own.
    pub fn put(&mut self, lease: Lease) -> bool {
        let taken = lease.key == self.own && !self.is_ours(&lease);
        self.held.remove(&lease.key);
        self.known.insert(lease.key, lease);
        taken
    }

    /// Takes the news that one lease was removed; true when it was this node's own.
    pub fn remove(&mut self, key: &SubnetKey) -> bool {
        self.held.remove(key);
        self.known.remove(key);
        *key == self.own
    }

    /// Takes the news that the store is out of reach: what is known stays, and nothing is removed.
    pub const fn unsynced(&mut self) {
        self.synced = false;
    }

    /// Forgets the held leases whose time is over; true when there were any.
    pub fn expire(&mut self, now: Duration) -> bool {
        let expired: Vec<_> = self
            .held
            .iter()
            .filter(|(_, until)| **until <= now)
            .map(|(key, _)| *key)
            .collect();
        for key in &expired {
            self.held.remove(key);
            self.known.remove(key);
        }
        !expired.is_empty()
    }

    /// The leases of the other nodes, those that are held included.
    pub fn peers(&self) -> impl Iterator<Item = &Lease> {
        self.known.values().filter(|lease| lease.key != self.own)
    }

    /// The lease of another node, one that is held included.
    #[must_use]
    pub fn peer(&self, key: &SubnetKey) -> Option<&Lease> {
        self.known.get(key).filter(|lease| lease.key != self.own)
    }

    /// This node's own lease, as the store told it last.
    #[must_use]
    pub fn own(&self) -> Option<&Lease> {
        self.known.get(&self.own)
    }

    /// Whether the last snapshot counts and the store has been in reach since.
    #[must_use]
    pub const fn is_synced(&self) -> bool {
        self.synced
    }

    /// How many leases are known, this node's own included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    /// Whether no lease is known, as before the first snapshot.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// How many leases vanished in a mass and are held for the grace time.
    #[must_use]
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Whether what no lease names may be removed from the kernel. Addresses may be at any time, because they follow
    /// from the own lease alone; a stale one would make the kernel refuse the route of the peer that has it.
    #[must_use]
    pub fn prune(&self, now: Duration) -> Prune {
        if self.synced && self.no_prune_until <= now {
            Prune::Remove
        } else {
            Prune::Addrs
        }
    }

    /// When [`Self::expire`] or [`Self::prune`] will next answer differently by itself.
    #[must_use]
    pub fn wake_at(&self, now: Duration) -> Option<Duration> {
        let unprunable = Some(self.no_prune_until).filter(|until| *until > now);
        self.held.values().copied().chain(unprunable).min()
    }

    fn is_ours(&self, lease: &Lease) -> bool {
        lease.attrs.addrs().is_same_node(self.node)
    }

    fn trusted(&self) -> impl Iterator<Item = &SubnetKey> {
        self.known.keys().filter(|key| !self.held.contains_key(*key))
    }
}

const fn is_mass_loss(lost: usize, known: usize) -> bool {
    lost >= MASS_LOSS_MIN && lost * 2 > known
}
