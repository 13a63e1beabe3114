//! The store in etcd v3, with Flannel's keys and values, so that upstream's daemons and ours share one cluster.
//!
//! ```text
//! PREFIX/config                   the network configuration (net-conf.json)
//! PREFIX/subnets/10.5.57.0-24     the value of a lease, attached to an etcd lease of 24 hours
//! ```
//! etcd ends leases by itself, so a lease that is there has not expired, and only the own one's end is ever asked for.
//! A key without an etcd lease is a reservation. A key of another form is ignored, and a value that cannot be read
//! keeps its subnet from being handed out; both are logged once.
//!
//! The own lease is extended by letting its etcd lease live on, and written only when its value differs: nothing is
//! left to expire, and the other nodes hear nothing of it. Every write is conditional, so that no lease of another node
//! is ever overwritten.

mod keys;
mod listing;
mod own;
mod watch;

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use ::etcd::messages::RangeRequest;
use ::etcd::{Client, Error, Options};
use flannel_types::{Lease, NetConf, PublicAddrs};

use crate::error::StoreError;
use crate::{Clock, LEASE_TTL, LeaseRequest, LeaseStore};
use keys::Keys;
use listing::Listing;

pub use watch::EtcdWatch;

/// A lease store in an etcd cluster. Clones share one connection.
///
/// Its calls need tokio's runtime; each ends within seconds, whatever the cluster does. A call that is dropped may or
/// may not have been carried out.
#[derive(Debug, Clone)]
pub struct EtcdStore(Arc<Store>);

#[derive(Debug)]
struct Store {
    client: Client,
    keys: Keys,
    lease_ttl: Duration,
    clock: Clock,
    /// What was read for the first of two questions that follow each other: thousands of leases take tens of
    /// milliseconds.
    recent: Mutex<Option<(Instant, Listing)>>,
}

impl EtcdStore {
    /// Names the cluster and the key under which the network lives; whether they can be used shows when they are.
    #[must_use]
    pub fn new(options: Options, prefix: &str) -> Self {
        Self::with_lease_ttl(options, prefix, LEASE_TTL)
    }

    /// The same with leases of another life.
    #[must_use]
    pub fn with_lease_ttl(options: Options, prefix: &str, lease_ttl: Duration) -> Self {
        Self(Arc::new(Store {
            client: Client::new(options),
            keys: Keys::new(prefix),
            lease_ttl,
            clock: Clock::system(),
            recent: Mutex::default(),
        }))
    }
}

impl LeaseStore for EtcdStore {
    type Watch = EtcdWatch;

    async fn read_config(&self) -> Result<NetConf, StoreError> {
        let store = &self.0;
        let key = store.keys.config();
        let request = RangeRequest {
            key: key.clone().into_bytes(),
            ..RangeRequest::default()
        };
        let answer = store.client.range(request).await;
        let answer = answer.map_err(|err| store_error(&key, err))?;
        let Some(found) = answer.kvs.first() else {
            return Err(store.config_missing());
        };
        store.parse_config(found)
    }

    async fn find(&self, node: PublicAddrs) -> Result<Option<Lease>, StoreError> {
        let listing = self.0.list().await?;
        let mut leases = listing.leases.values();
        // The one that will be used: the first, as in the choice of a subnet.
        let own = leases
            .find(|lease| lease.attrs.addrs().is_same_node(node))
            .cloned();
        // Who looks for the own lease acquires it next.
        self.0.keep(listing);
        Ok(own)
    }

    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        self.0.acquire(request).await
    }

    async fn renew(&self, lease: &Lease) -> Result<Lease, StoreError> {
        self.0.hold(lease.key, &lease.attrs).await
    }

    async fn readdress(&self, lease: &Lease, to: PublicAddrs) -> Result<Lease, StoreError> {
        self.0.readdress(lease, to).await
    }

    fn watch(&self) -> Result<EtcdWatch, StoreError> {
        Ok(EtcdWatch::begin(Arc::clone(&self.0)))
    }
}

/// Tells what may heal by itself from what a person must change.
fn store_error(key: &str, err: Error) -> StoreError {
    if let Error::TlsFile { path, .. } = &err {
        let place = path.display().to_string();
        return StoreError::Unusable {
            place,
            source: err.into(),
        };
    }
    let place = format!("{key} in etcd");
    if err.is_denial() {
        return StoreError::Denied {
            place,
            source: err.into(),
        };
    }
    StoreError::Unreachable {
        place,
        source: err.into(),
    }
}

/// A number that is not foreseen.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
