use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use flannel_types::{Lease, LeaseAttrs, NetConf, PublicAddrs, UnixTime};
use net_types::SubnetKey;
use tokio::sync::watch;

use crate::allocation::{AllocationInput, Decision, allocate};
use crate::error::StoreError;
use crate::{LEASE_TTL, LeaseEvent, LeaseRequest, LeaseStore, LeaseWatch};

/// A lease store in memory, for tests and simulations: its time and its chance are given, and it fails on demand.
///
/// Clones are the same store.
#[derive(Debug, Clone)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
    changes: Arc<watch::Sender<()>>,
}

/// The events of a [`MemoryStore`].
#[derive(Debug)]
pub struct MemoryWatch {
    store: MemoryStore,
    changes: watch::Receiver<()>,
    reported: Option<LeaseEvent>,
}

#[derive(Debug)]
struct State {
    config: Option<NetConf>,
    leases: BTreeMap<SubnetKey, Lease>,
    now: UnixTime,
    reach: Reach,
    random: u64,
}

/// Whether a [`MemoryStore`] answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// It does.
    Reachable,
    /// Every call fails, and watches are told once.
    Unreachable,
}

impl MemoryStore {
    /// An empty store without a configuration; the seed decides which free subnets are chosen.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let state = State {
            config: None,
            leases: BTreeMap::new(),
            now: UnixTime::from_secs(0),
            reach: Reach::Reachable,
            random: seed,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            changes: Arc::new(watch::Sender::new(())),
        }
    }

    /// Sets or removes the configuration.
    pub fn set_config(&self, config: Option<NetConf>) {
        self.change(|state| state.config = config);
    }

    /// Sets the present; leases that end by then are gone.
    pub fn set_now(&self, now: UnixTime) {
        self.change(|state| {
            state.now = now;
            state
                .leases
                .retain(|_, lease| lease.expires.is_none_or(|end| end > now));
        });
    }

    /// Makes the store answer or fail.
    pub fn set_reach(&self, reach: Reach) {
        self.change(|state| state.reach = reach);
    }

    /// Puts a lease, as another node or a person would.
    pub fn put(&self, lease: Lease) {
        self.change(|state| drop(state.leases.insert(lease.key, lease)));
    }

    /// Removes a lease.
    pub fn remove(&self, key: SubnetKey) {
        self.change(|state| drop(state.leases.remove(&key)));
    }

    /// All leases.
    #[must_use]
    pub fn leases(&self) -> BTreeMap<SubnetKey, Lease> {
        self.lock().leases.clone()
    }

    /// As [`LeaseStore::find`], without waiting.
    ///
    /// # Errors
    /// The store is out of reach.
    pub fn find_now(&self, node: PublicAddrs) -> Result<Option<Lease>, StoreError> {
        let state = self.lock();
        state.check_reach()?;
        Ok(state
            .leases
            .values()
            .find(|lease| lease.attrs.addrs().is_same_node(node))
            .cloned())
    }

    /// As [`LeaseStore::acquire`], without waiting.
    ///
    /// # Errors
    /// The store is out of reach, the configuration cannot be used, or no subnet is free.
    pub fn acquire_now(&self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        self.change(|state| state.acquire(request))
    }

    /// As [`LeaseStore::renew`], without waiting.
    ///
    /// # Errors
    /// The store is out of reach, or the lease is lost.
    pub fn renew_now(&self, lease: &Lease) -> Result<Lease, StoreError> {
        self.change(|state| state.renew(lease))
    }

    /// What a watch that begins now is told first.
    #[must_use]
    pub fn snapshot(&self) -> LeaseEvent {
        self.lock().snapshot()
    }

    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changes.send_replace(());
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No change leaves the state half done, so a panic elsewhere spoils nothing.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LeaseStore for MemoryStore {
    type Watch = MemoryWatch;

    fn read_config(&self) -> impl Future<Output = Result<NetConf, StoreError>> {
        std::future::ready(self.lock().read_config())
    }

    fn find(&self, node: PublicAddrs) -> impl Future<Output = Result<Option<Lease>, StoreError>> {
        std::future::ready(self.find_now(node))
    }

    fn acquire(&self, request: &LeaseRequest) -> impl Future<Output = Result<Lease, StoreError>> {
        std::future::ready(self.acquire_now(request))
    }

    fn renew(&self, lease: &Lease) -> impl Future<Output = Result<Lease, StoreError>> {
        std::future::ready(self.renew_now(lease))
    }

    fn readdress(&self, lease: &Lease, to: PublicAddrs) -> impl Future<Output = Result<Lease, StoreError>> {
        let is_own = |stored: &LeaseAttrs| *stored == lease.attrs;
        let moved = self.change(|state| state.rewrite(lease.key, &lease.attrs.at(to), is_own));
        std::future::ready(moved)
    }

    fn watch(&self) -> Result<MemoryWatch, StoreError> {
        Ok(MemoryWatch {
            store: self.clone(),
            changes: self.changes.subscribe(),
            reported: None,
        })
    }
}

impl LeaseWatch for MemoryWatch {
    async fn next_event(&mut self) -> LeaseEvent {
        loop {
            self.changes.mark_unchanged();
            let present = self.store.snapshot();
            let event = difference(self.reported.as_ref(), &present);
            self.reported = Some(present);
            if let Some(event) = event {
                return event;
            }
            // The sender lives as long as this watch's own store.
            drop(self.changes.changed().await);
        }
    }
}

/// What tells a consumer of the one state about the other: a single lease's change is reported alone.
fn difference(old: Option<&LeaseEvent>, new: &LeaseEvent) -> Option<LeaseEvent> {
    let (
        Some(LeaseEvent::Snapshot {
            config: old_config,
            leases: old_leases,
        }),
        LeaseEvent::Snapshot { config, leases },
    ) = (old, new)
    else {
        let unsynced = |event: &LeaseEvent| matches!(event, LeaseEvent::Unsynced { .. });
        return (!(old.is_some_and(unsynced) && unsynced(new))).then(|| new.clone());
    };
    let put = leases
        .values()
        .filter(|lease| old_leases.get(&lease.key) != Some(lease));
    let mut put = put.map(|lease| LeaseEvent::Put(lease.clone()));
    let removed = old_leases.keys().filter(|key| !leases.contains_key(key));
    let mut removed = removed.map(|key| LeaseEvent::Remove(*key));
    match (put.next(), put.next(), removed.next(), removed.next()) {
        (None, _, None, _) if config == old_config => None,
        (Some(single), None, None, _) | (None, _, Some(single), None) if config == old_config => Some(single),
        _ => Some(new.clone()),
    }
}

impl State {
    fn check_reach(&self) -> Result<(), StoreError> {
        match self.reach {
            Reach::Reachable => Ok(()),
            Reach::Unreachable => Err(StoreError::Unreachable {
                place: place(),
                source: "it is switched off".into(),
            }),
        }
    }

    fn read_config(&self) -> Result<NetConf, StoreError> {
        self.check_reach()?;
        self.config
            .clone()
            .ok_or_else(|| StoreError::ConfigMissing { place: place() })
    }

    fn snapshot(&self) -> LeaseEvent {
        match self.read_config() {
            Ok(config) => LeaseEvent::Snapshot {
                config,
                leases: self.leases.clone(),
            },
            Err(err) => LeaseEvent::Unsynced {
                reason: err.to_string(),
            },
        }
    }

    fn acquire(&mut self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        self.check_reach()?;
        let conf = request.conf.validated().map_err(|source| StoreError::BadConfig {
            place: place(),
            source,
        })?;
        let input = AllocationInput {
            conf: &conf,
            leases: &self.leases,
            node: request.attrs.addrs(),
            previous: &request.previous,
            now: self.now,
        };
        let mut random = self.random;
        let allocation = allocate(&input, &mut || split_mix(&mut random))?;
        self.random = random;
        for key in allocation.remove {
            self.leases.remove(&key);
        }
        let key = match allocation.decision {
            Decision::Reuse(key) | Decision::Create(key) => key,
            Decision::Move { from, to } => {
                self.leases
                    .remove(&from)
                    .map(|lease| self.leases.insert(to, Lease { key: to, ..lease }));
                to
            }
        };
        Ok(self.write(key, &request.attrs))
    }

    fn renew(&mut self, lease: &Lease) -> Result<Lease, StoreError> {
        let is_own = |stored: &LeaseAttrs| stored.addrs().is_same_node(lease.attrs.addrs());
        self.rewrite(lease.key, &lease.attrs, is_own)
    }

    /// Writes a lease anew that is the node's own.
    fn rewrite(
        &mut self,
        key: SubnetKey,
        attrs: &LeaseAttrs,
        is_own: impl FnOnce(&LeaseAttrs) -> bool,
    ) -> Result<Lease, StoreError> {
        self.check_reach()?;
        let stored = self.leases.get(&key).map(|stored| &stored.attrs);
        if !stored.is_some_and(is_own) {
            let holder = stored.and_then(|stored| stored.addrs().first());
            return Err(StoreError::Lost { key, holder });
        }
        Ok(self.write(key, attrs))
    }

    /// Writes a lease with a new end, but keeps a reservation one.
    fn write(&mut self, key: SubnetKey, attrs: &LeaseAttrs) -> Lease {
        let reservation = self
            .leases
            .get(&key)
            .is_some_and(|stored| stored.expires.is_none());
        let expires = (!reservation).then(|| self.now.plus(LEASE_TTL));
        let lease = Lease {
            key,
            attrs: attrs.clone(),
            expires,
        };
        self.leases.insert(key, lease.clone());
        lease
    }
}

fn place() -> String {
    "the store in memory".to_owned()
}

/// The next number of the sequence `SplitMix64` (Steele, Lea, Flood: Fast splittable pseudorandom number generators,
/// 2014).
const fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests;
