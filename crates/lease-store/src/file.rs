//! The embedded store: a directory with the configuration and one file a lease.
//!
//! ```text
//! DIR/config                      the network configuration (net-conf.json)
//! DIR/subnets/10.5.57.0-24        the value that etcd would hold, with its expiry as last member
//! DIR/lock                        flock of whoever writes
//! ```
//! Writers hold the lock and replace whole files; readers need no lock. The directory may be shared between hosts:
//! notices of changes come from inotify, which sees only this host, and every two seconds from a look of one's own.

mod directory;
mod entry;
mod notices;
mod scan;
mod watch;

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use flannel_types::{Lease, NetConf, PublicAddrs, UnixTime};

use crate::error::StoreError;
use crate::{LeaseRequest, LeaseStore};
use directory::Directory;

pub use watch::FileWatch;

/// A lease store in a directory.
///
/// Its calls run on tokio's blocking threads, so that a slow disk or a hanging network file system delays nothing
/// else; a call that is dropped runs to its end there.
#[derive(Debug, Clone)]
pub struct FileStore {
    directory: Arc<Directory>,
}

/// Where a store takes the present from.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> UnixTime + Send + Sync>);

impl Clock {
    /// The host's clock.
    #[must_use]
    pub fn system() -> Self {
        Self::new(|| SystemTime::now().into())
    }

    /// A clock of one's own, for tests.
    #[must_use]
    pub fn new(now: impl Fn() -> UnixTime + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// The present.
    #[must_use]
    pub fn now(&self) -> UnixTime {
        (self.0)()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now().secs())
    }
}

impl FileStore {
    /// Names the directory; whether it can be used shows when it is.
    #[must_use]
    pub fn open(dir: impl Into<PathBuf>) -> Self {
        Self::with_clock(dir, Clock::system())
    }

    /// Names the directory, and takes the time from elsewhere.
    #[must_use]
    pub fn with_clock(dir: impl Into<PathBuf>, clock: Clock) -> Self {
        Self {
            directory: Arc::new(Directory::new(dir.into(), clock)),
        }
    }

    async fn run<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Directory) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let directory = Arc::clone(&self.directory);
        let place = directory.path().display().to_string();
        let done = tokio::task::spawn_blocking(move || call(&directory)).await;
        done.unwrap_or_else(|err| {
            Err(StoreError::Unreachable {
                place,
                source: err.into(),
            })
        })
    }
}

impl LeaseStore for FileStore {
    type Watch = FileWatch;

    async fn read_config(&self) -> Result<NetConf, StoreError> {
        self.run(Directory::read_config).await
    }

    async fn find(&self, node: PublicAddrs) -> Result<Option<Lease>, StoreError> {
        self.run(move |directory| directory.find(node)).await
    }

    async fn acquire(&self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        let request = request.clone();
        self.run(move |directory| directory.acquire(&request)).await
    }

    async fn renew(&self, lease: &Lease) -> Result<Lease, StoreError> {
        let lease = lease.clone();
        self.run(move |directory| directory.renew(&lease)).await
    }

    async fn readdress(&self, lease: &Lease, to: PublicAddrs) -> Result<Lease, StoreError> {
        let lease = lease.clone();
        self.run(move |directory| directory.readdress(&lease, to)).await
    }

    fn watch(&self) -> Result<FileWatch, StoreError> {
        FileWatch::begin(&self.directory)
    }
}
