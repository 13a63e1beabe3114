//! Subnet leases: who holds which subnet, where that is written, and how a node gets its own.
//!
//! A [`LeaseStore`] hands out one subnet a node and tells every node of all the others. Where the leases are kept,
//! in a directory, in etcd or in Kubernetes' nodes, stays behind the trait; whoever consumes [`LeaseEvent`]s sees
//! only plain data. A store never reports a lease as gone that it merely cannot read: it says [`LeaseEvent::Unsynced`]
//! or keeps the last good value.
//!
//! Start at [`LeaseStore`]; [`allocate`] is the pure choice of a subnet, [`FileStore`] the embedded store,
//! `EtcdStore` (feature `etcd`) and `KubeStore` (feature `kube`) those for clusters, and [`MemoryStore`] the one for tests and simulations.

mod allocation;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod file;
#[cfg(feature = "kube")]
mod kube;
mod memory;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use flannel_types::{Lease, LeaseAttrs, NetConf, PreviousSubnets, PublicAddrs};
use net_types::SubnetKey;

pub use allocation::{Allocation, AllocationError, AllocationInput, Decision, allocate};
pub use error::{ErrorClass, StoreError};
#[cfg(feature = "etcd")]
pub use etcd::{EtcdStore, EtcdWatch};
pub use file::{Clock, FileStore, FileWatch};
#[cfg(feature = "kube")]
pub use kube::{
    AnnotationPrefix, AnnotationPrefixError, ApiSource, KubeOptions, KubeStore, KubeWatch, NodeIdentity,
};
pub use memory::{MemoryStore, MemoryWatch, Reach};

/// How long a lease lives unless it is renewed (flannel `pkg/subnet/etcd/local_manager.go`, `subnetTTL`).
pub const LEASE_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// A place where the leases of a pod network are kept.
pub trait LeaseStore {
    /// The stream of this store's events.
    type Watch: LeaseWatch;

    /// Reads the network configuration, and checks it as far as this store needs.
    ///
    /// # Errors
    /// The store is out of reach, holds no configuration, or one that cannot be used.
    fn read_config(&self) -> impl Future<Output = Result<NetConf, StoreError>>;

    /// Looks for the lease of the node with these public addresses, an expired one only for want of another. It tells a
    /// node that lost its devices which MAC addresses its peers know.
    ///
    /// # Errors
    /// The store is out of reach, or an entry is malformed.
    fn find(&self, node: PublicAddrs) -> impl Future<Output = Result<Option<Lease>, StoreError>>;

    /// Gets the node's lease: the one that it holds already, where it still fits, or else a new one.
    ///
    /// # Errors
    /// The store is out of reach or not writable, an entry is malformed, or no subnet is free.
    fn acquire(&self, request: &LeaseRequest) -> impl Future<Output = Result<Lease, StoreError>>;

    /// Extends the node's lease, and publishes its attributes as given; a reservation stays without an end.
    ///
    /// # Errors
    /// [`StoreError::Lost`] if the lease is gone or another node's; else as [`Self::acquire`].
    fn renew(&self, lease: &Lease) -> impl Future<Output = Result<Lease, StoreError>>;

    /// Gives the node's lease, which must still be as given, other public addresses: the node has moved. Its peers learn
    /// where to from this.
    ///
    /// # Errors
    /// [`StoreError::Lost`] if the lease is gone, or is not as given; else as [`Self::acquire`].
    fn readdress(&self, lease: &Lease, to: PublicAddrs) -> impl Future<Output = Result<Lease, StoreError>>;

    /// Begins to watch all leases and the configuration. A lease that was acquired before is in the first snapshot,
    /// unless somebody removed it since.
    ///
    /// # Errors
    /// The watch cannot be set up for want of resources. A store out of reach is no error but an event.
    fn watch(&self) -> Result<Self::Watch, StoreError>;

    /// Asks for the addresses that the store's administrator gave this node to announce; they come before those of the
    /// command line.
    ///
    /// # Errors
    /// The store is out of reach.
    fn public_addrs(&self) -> impl Future<Output = Result<PublicAddrs, StoreError>> {
        std::future::ready(Ok(PublicAddrs { v4: None, v6: None }))
    }

    /// Takes the news that pods of this node can use the network from now on, for a store that tells others.
    fn network_is_up(&self) {}
}

/// A stream of events that does not end.
pub trait LeaseWatch {
    /// Waits for the next event; dropping the future loses none.
    fn next_event(&mut self) -> impl Future<Output = LeaseEvent>;
}

/// What a node asks of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRequest {
    /// The configuration, as [`LeaseStore::read_config`] returned it.
    pub conf: NetConf,
    /// What peers must know of this node; the public addresses also tell which leases are its own.
    pub attrs: LeaseAttrs,
    /// The subnets of an earlier run, preferred where free.
    pub previous: PreviousSubnets,
}

/// What a watch reports. Before the first snapshot, leases may be told of one by one that an earlier run knew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeaseEvent {
    /// All that the store holds, in place of everything reported before.
    Snapshot {
        /// The network configuration.
        config: NetConf,
        /// The leases that have not expired. A store that ends leases by itself does not say when others' end.
        leases: BTreeMap<SubnetKey, Lease>,
    },
    /// A lease is new or has changed.
    Put(Lease),
    /// A lease is gone.
    Remove(SubnetKey),
    /// The store is out of reach or cannot be read in full: what was reported last still counts, and nothing may be
    /// concluded from what is missing. Ends with the next snapshot.
    Unsynced {
        /// Why, for people.
        reason: String,
    },
}
