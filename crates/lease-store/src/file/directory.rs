use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

use flannel_types::{Lease, LeaseAttrs, NetConf, NetConfError, PublicAddrs};
use net_types::SubnetKey;
use statefile::{Durability, Lock};

use super::scan::{Malformed, Scanner};
use super::{Clock, entry};
use crate::allocation::{AllocationInput, Decision, allocate, nobody_s};
use crate::error::StoreError;
use crate::{LEASE_TTL, LeaseRequest};

/// How long a writer waits for the others; each holds the lock for milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// Only the store's writers may hold up each other.
const LOCK_MODE: u32 = 0o600;
const LEASE_MODE: u32 = 0o644;
const SUBNETS_MODE: u32 = 0o755;

/// The directory of a file store, and what is done in it.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    clock: Clock,
}

pub(super) fn config_path(dir: &Path) -> PathBuf {
    dir.join("config")
}

pub(super) fn subnets_path(dir: &Path) -> PathBuf {
    dir.join("subnets")
}

/// Reads and checks the configuration, as etcd's subnet manager does.
pub(super) fn parse_config(dir: &Path) -> Result<NetConf, StoreError> {
    let path = config_path(dir);
    let place = path.display().to_string();
    let text = statefile::read_text(&path).map_err(|err| file_error(&path, err))?;
    let Some(text) = text else {
        return Err(match dir.try_exists() {
            Ok(false) => StoreError::DirectoryMissing {
                place: dir.display().to_string(),
            },
            Ok(true) | Err(_) => StoreError::ConfigMissing { place },
        });
    };
    let parsed = NetConf::parse(&text).and_then(|conf| conf.validated().map(|_| conf));
    parsed.map_err(|source| StoreError::BadConfig { place, source })
}

/// Tells what may heal by itself from what a person must change.
pub(super) fn io_error(path: &Path, err: io::Error) -> StoreError {
    classify(path, err.kind(), err.into())
}

pub(super) fn file_error(path: &Path, err: statefile::Error) -> StoreError {
    use statefile::Error::{NotAFile, NotText, TooLarge};
    if matches!(err, NotAFile(_) | TooLarge(_) | NotText(_)) {
        let place = path.display().to_string();
        return StoreError::Unusable {
            place,
            source: err.into(),
        };
    }
    let kind = err.io().map_or(ErrorKind::Other, io::Error::kind);
    classify(path, kind, err.into())
}

fn classify(path: &Path, kind: ErrorKind, source: Box<dyn std::error::Error + Send + Sync>) -> StoreError {
    let place = path.display().to_string();
    let denied = [
        ErrorKind::PermissionDenied,
        ErrorKind::ReadOnlyFilesystem,
        ErrorKind::NotADirectory,
    ];
    if denied.contains(&kind) {
        return StoreError::Denied { place, source };
    }
    StoreError::Unreachable { place, source }
}

impl Directory {
    pub(super) const fn new(path: PathBuf, clock: Clock) -> Self {
        Self { path, clock }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn clock(&self) -> &Clock {
        &self.clock
    }

    pub(super) fn read_config(&self) -> Result<NetConf, StoreError> {
        parse_config(&self.path)
    }

    pub(super) fn find(&self, node: PublicAddrs) -> Result<Option<Lease>, StoreError> {
        if !subnets_path(&self.path).exists() && self.path.exists() {
            return Ok(None);
        }
        let scan = Scanner::default().leases(&self.path)?;
        let own = scan
            .leases
            .into_values()
            .filter(|lease| lease.attrs.addrs().is_same_node(node));
        // A reservation outlasts every end.
        Ok(own.max_by_key(|lease| (lease.expires.is_none(), lease.expires)))
    }

    pub(super) fn acquire(&self, request: &LeaseRequest) -> Result<Lease, StoreError> {
        let valid = request
            .conf
            .validated()
            .map_err(|source| self.bad_config(source))?;
        let _lock = self.lock()?;
        let subnets = subnets_path(&self.path);
        statefile::ensure_dir(&subnets, SUBNETS_MODE).map_err(|err| file_error(&subnets, err))?;
        let scan = Scanner::default().leases(&self.path)?;
        let node = request.attrs.addrs();
        let mut leases = scan.leases;
        let mut own = leases
            .values()
            .filter(|lease| lease.attrs.addrs().is_same_node(node));
        let may_be_own = |file: &&Malformed| request.previous.has_of(file.key);
        if own.next().is_none()
            && let Some(file) = scan.malformed.iter().find(may_be_own)
        {
            // In another subnet the node's pods would be cut off.
            return Err(file.error());
        }
        leases.extend(
            scan.malformed
                .into_iter()
                .map(|file| (file.key, nobody_s(file.key))),
        );
        let input = AllocationInput {
            conf: &valid,
            leases: &leases,
            node,
            previous: &request.previous,
            now: self.clock.now(),
        };
        let allocation = allocate(&input, &mut || RandomState::new().build_hasher().finish())?;
        for key in allocation.remove {
            self.remove(key)?;
        }
        let is_reservation = |key| leases.get(&key).is_some_and(|lease| lease.expires.is_none());
        match allocation.decision {
            Decision::Reuse(key) => {
                let lease = self.lease(key, &request.attrs, is_reservation(key));
                self.replace(&lease)?;
                Ok(lease)
            }
            Decision::Create(key) => self.create(self.lease(key, &request.attrs, false)),
            Decision::Move { from, to } => {
                // The new name before the old one goes: no reader ever sees neither.
                let lease = self.create(self.lease(to, &request.attrs, is_reservation(from)))?;
                self.remove(from)?;
                Ok(lease)
            }
        }
    }

    fn create(&self, lease: Lease) -> Result<Lease, StoreError> {
        let path = self.lease_path(lease.key);
        let text = entry::render(&lease);
        match statefile::create_new(&path, text.as_bytes(), LEASE_MODE, Durability::PowerCut) {
            Ok(()) => Ok(lease),
            Err(statefile::Error::Exists(_)) => Err(StoreError::Conflict(lease.key)),
            Err(err) => Err(file_error(&path, err)),
        }
    }

    fn remove(&self, key: SubnetKey) -> Result<(), StoreError> {
        let path = self.lease_path(key);
        statefile::remove(&path, Durability::PowerCut)
            .map(drop)
            .map_err(|err| file_error(&path, err))
    }

    pub(super) fn renew(&self, lease: &Lease) -> Result<Lease, StoreError> {
        let is_own = |stored: &LeaseAttrs| stored.addrs().is_same_node(lease.attrs.addrs());
        self.rewrite(lease.key, &lease.attrs, is_own)
    }

    pub(super) fn readdress(&self, lease: &Lease, to: PublicAddrs) -> Result<Lease, StoreError> {
        self.rewrite(lease.key, &lease.attrs.at(to), |stored| *stored == lease.attrs)
    }

    /// Writes a lease anew that is the node's own.
    fn rewrite(
        &self,
        key: SubnetKey,
        attrs: &LeaseAttrs,
        is_own: impl FnOnce(&LeaseAttrs) -> bool,
    ) -> Result<Lease, StoreError> {
        let _lock = self.lock()?;
        let path = self.lease_path(key);
        let text = statefile::read_text(&path).map_err(|err| file_error(&path, err))?;
        let Some(text) = text else {
            return Err(StoreError::Lost { key, holder: None });
        };
        let stored = entry::parse(key, &text).map_err(|why| StoreError::Malformed {
            place: path.display().to_string(),
            why,
        })?;
        if !is_own(&stored.attrs) {
            let holder = stored.attrs.addrs().first();
            return Err(StoreError::Lost { key, holder });
        }
        let rewritten = self.lease(key, attrs, stored.expires.is_none());
        self.replace(&rewritten)?;
        Ok(rewritten)
    }

    fn lock(&self) -> Result<Lock, StoreError> {
        let path = self.path.join("lock");
        Lock::acquire(&path, LOCK_MODE, LOCK_TIMEOUT).map_err(|err| file_error(&path, err))
    }

    fn lease(&self, key: SubnetKey, attrs: &LeaseAttrs, reservation: bool) -> Lease {
        let expires = (!reservation).then(|| self.clock.now().plus(LEASE_TTL));
        Lease {
            key,
            attrs: attrs.clone(),
            expires,
        }
    }

    fn replace(&self, lease: &Lease) -> Result<(), StoreError> {
        let path = self.lease_path(lease.key);
        let replaced = statefile::replace(
            &path,
            entry::render(lease).as_bytes(),
            LEASE_MODE,
            Durability::PowerCut,
        );
        replaced.map_err(|err| file_error(&path, err))
    }

    fn lease_path(&self, key: SubnetKey) -> PathBuf {
        subnets_path(&self.path).join(key.to_string())
    }

    fn bad_config(&self, source: NetConfError) -> StoreError {
        StoreError::BadConfig {
            place: config_path(&self.path).display().to_string(),
            source,
        }
    }
}
