use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_types::{Code, ContainerId, Target};
use statefile::{Action, Durability, Lock};

use super::boot::{Boot, Origin};
use crate::error::CniError;

/// How long another process may hold the store; each holds it for milliseconds.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// Modes of the reference's files.
const DIR_MODE: u32 = 0o755;
const LOCK_MODE: u32 = 0o750;
const FILE_MODE: u32 = 0o600;

const LOCK_NAME: &str = "lock";
const LAST_RESERVED_PREFIX: &str = "last_reserved_ip.";

/// The reservations of one network, locked: one file for each address, named by it, in the reference's layout (flannel
/// and reference plugins share it, spec: containernetworking/plugins host-local `backend/disk`).
///
/// A reservation appears with its whole content, so one that is empty or without an id is what a crash of another
/// writer left: it counts as absent and is removed. Something else than a small file keeps its address from being given
/// out, as it does with the reference, and is left alone.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
    _lock: Lock,
}

/// A reservation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reservation {
    pub(crate) ip: IpAddr,
    /// `None` when what has the address's name is no reservation.
    pub(crate) holder: Option<Holder>,
}

impl Reservation {
    /// Whether the address is reserved for this attachment.
    pub(crate) fn is_of(&self, target: &Target) -> bool {
        self.holder.as_ref().is_some_and(|holder| holder.is(target))
    }
}

/// Whom an address is reserved for, as the file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Holder {
    pub(crate) container_id: String,
    /// `None` in files of versions that wrote only the id.
    pub(crate) ifname: Option<String>,
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("host-local")]
pub(crate) struct StoreError(#[source] statefile::Error);

impl CniError for StoreError {
    fn code(&self) -> Code {
        if matches!(self.0, statefile::Error::LockTimeout { .. }) {
            Code::TRY_LATER
        } else {
            Code::IO
        }
    }
}

/// The wrapper for an answer of the system.
fn io_error(action: Action, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let failed = statefile::Error::of(action, path);
    move |source| StoreError(failed(source))
}

/// The wrapper for a file that was not written: one that failed before it was locked is still in preparation. The
/// store is locked, so it is nobody else's.
fn not_written(path: &Path) -> impl FnOnce(statefile::Error) -> StoreError {
    move |error| {
        drop(statefile::remove_unfinished(path));
        StoreError(error)
    }
}

impl Store {
    /// Locks the store, creating its directory if needed.
    pub(crate) fn open_or_create(dir: &Path) -> Result<Self, StoreError> {
        match Self::open(dir)? {
            Some(store) => Ok(store),
            None => {
                statefile::ensure_dir(dir, DIR_MODE).map_err(StoreError)?;
                Self::lock(dir)
            }
        }
    }

    /// Locks the store; `None` if there is none, in which case nothing is reserved.
    pub(crate) fn open(dir: &Path) -> Result<Option<Self>, StoreError> {
        match fs::metadata(dir) {
            Ok(meta) if meta.is_dir() => Self::lock(dir).map(Some),
            Ok(_) => Err(io_error(Action::Open, dir)(ErrorKind::NotADirectory.into())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(io_error(Action::Open, dir)(e)),
        }
    }

    fn lock(dir: &Path) -> Result<Self, StoreError> {
        let lock = Lock::acquire(&dir.join(LOCK_NAME), LOCK_MODE, LOCK_TIMEOUT);
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock.map_err(StoreError)?,
        })
    }

    /// The addresses that are taken, by the names of the files alone: perhaps by what crashed writers left.
    pub(crate) fn names(&self) -> Result<BTreeSet<IpAddr>, StoreError> {
        let mut found = BTreeSet::new();
        for entry in fs::read_dir(&self.dir).map_err(io_error(Action::Read, &self.dir))? {
            let name = entry.map_err(io_error(Action::Read, &self.dir))?.file_name();
            found.extend(name.to_str().and_then(|name| name.parse::<IpAddr>().ok()));
        }
        Ok(found)
    }

    /// Whether an address is reserved for an attachment.
    pub(crate) fn holds(&self, ip: IpAddr, target: &Target) -> Result<bool, StoreError> {
        let content = self.read(&ip.to_string())?;
        Ok(matches!(content, Content::Holder(holder) if holder.is(target)))
    }

    /// Reads all reservations and removes what crashed writers left.
    pub(crate) fn reservations(&self) -> Result<Vec<Reservation>, StoreError> {
        let mut found = Vec::new();
        let read = fs::read_dir(&self.dir).map_err(io_error(Action::Read, &self.dir))?;
        for entry in read {
            let entry = entry.map_err(io_error(Action::Read, &self.dir))?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            if statefile::is_unfinished(name) {
                // Writers hold the lock that we hold.
                if entry.file_type().is_ok_and(|kind| kind.is_file()) {
                    self.remove(name)?;
                }
                continue;
            }
            let Ok(ip) = name.parse::<IpAddr>() else { continue };
            let holder = match self.read(name)? {
                Content::Holder(holder) => Some(holder),
                Content::Foreign => None,
                Content::Unfinished => {
                    self.remove(name)?;
                    continue;
                }
                Content::Gone => continue,
            };
            found.push(Reservation { ip, holder });
        }
        Ok(found)
    }

    /// Frees what was reserved in an earlier run of the machine, but for `own`. See [`super::boot`].
    pub(crate) fn reclaim(&self, boot: &Boot, own: Option<&Target>) -> Result<(), StoreError> {
        if boot.has_marked(&self.dir) {
            return Ok(());
        }
        for reservation in self.reservations()? {
            let is_own = own.is_some_and(|target| reservation.is_of(target));
            let is_reservation = reservation.holder.is_some();
            if is_reservation && !is_own && boot.origin(&self.path(reservation.ip)) == Origin::EarlierBoot {
                self.release(reservation.ip)?;
            }
        }
        boot.mark(&self.dir);
        Ok(())
    }

    /// The file of an address.
    pub(crate) fn path(&self, ip: IpAddr) -> PathBuf {
        self.dir.join(ip.to_string())
    }

    fn read(&self, name: &str) -> Result<Content, StoreError> {
        match statefile::read_optional(&self.dir.join(name)) {
            Ok(Some(bytes)) => Ok(Holder::parse(&bytes).map_or(Content::Unfinished, Content::Holder)),
            Ok(None) => Ok(Content::Gone),
            Err(statefile::Error::NotAFile(_) | statefile::Error::TooLarge(_)) => Ok(Content::Foreign),
            Err(e) => Err(StoreError(e)),
        }
    }

    /// Reserves an address that is not reserved.
    pub(crate) fn reserve(&self, ip: IpAddr, target: &Target) -> Result<(), StoreError> {
        let content = format!("{}\r\n{}", target.container_id, target.ifname);
        let path = self.path(ip);
        let created = statefile::create_new(&path, content.as_bytes(), FILE_MODE, Durability::Crash);
        created.map_err(not_written(&path))
    }

    /// Frees an address.
    pub(crate) fn release(&self, ip: IpAddr) -> Result<(), StoreError> {
        self.remove(&ip.to_string())
    }

    fn remove(&self, name: &str) -> Result<(), StoreError> {
        let removed = statefile::remove(&self.dir.join(name), Durability::Crash);
        removed.map(drop).map_err(StoreError)
    }

    /// The address last given out of a set. An unreadable file only makes the search begin at the start.
    pub(crate) fn last_reserved(&self, set: usize) -> Option<IpAddr> {
        let text = statefile::read_text(&self.last_reserved_path(set)).ok()??;
        text.trim().parse().ok()
    }

    /// Notes the address last given out of a set.
    pub(crate) fn set_last_reserved(&self, set: usize, ip: IpAddr) -> Result<(), StoreError> {
        let path = self.last_reserved_path(set);
        let text = ip.to_string();
        let replaced = statefile::replace(&path, text.as_bytes(), FILE_MODE, Durability::Crash);
        replaced.map_err(not_written(&path))
    }

    fn last_reserved_path(&self, set: usize) -> PathBuf {
        self.dir.join(format!("{LAST_RESERVED_PREFIX}{set}"))
    }
}

enum Content {
    Holder(Holder),
    /// What a crash of another writer left.
    Unfinished,
    /// Something that no host-local makes, such as a directory or a named pipe.
    Foreign,
    Gone,
}

impl Holder {
    /// Reads `id CR LF ifname`, or only the id, with any white space around; `None` when there is no id.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.split_whitespace();
        let container_id = ContainerId::new(lines.next()?).ok()?.as_str().to_owned();
        Some(Self {
            container_id,
            ifname: lines.next().map(str::to_owned),
        })
    }

    /// An attachment as the holder of its addresses.
    pub(crate) fn of(target: &Target) -> Self {
        Self {
            container_id: target.container_id.as_str().to_owned(),
            ifname: Some(target.ifname.as_str().to_owned()),
        }
    }

    /// Whether the reservation is of this attachment; one without interface name is of any of its container.
    pub(crate) fn is(&self, target: &Target) -> bool {
        let ifname = self.ifname.as_deref();
        self.container_id == target.container_id.as_str()
            && ifname.is_none_or(|name| name == target.ifname.as_str())
    }
}

/// The addresses of reservations.
pub(crate) fn addresses(reservations: &[Reservation]) -> BTreeSet<IpAddr> {
    reservations.iter().map(|reservation| reservation.ip).collect()
}

#[cfg(test)]
mod tests;
