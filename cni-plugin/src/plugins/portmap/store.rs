use std::fs;
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_types::{Code, ContainerId, NetworkName, Target, hashed_name};
use statefile::{Durability, Lock};

use super::attachment::Attachment;
use crate::error::CniError;

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// How long other calls may keep the rules locked. Fifty at once with iptables take a second, but each of the two
/// families of legacy iptables may wait 20 s for another program's lock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);

/// Digits of the digests in a file's name. Two attachments of one name would have to agree in 128 bits.
const DIGITS: usize = 32;

/// The attachments with mapped ports, a file each, so that their rules can be removed without knowing them and put
/// back when something flushed them.
///
/// A file is written before the rules and removed after them. Its name follows from the attachment: a digest of the
/// container id, then one of network and interface.
#[derive(Debug)]
pub(crate) struct Store {
    dir: PathBuf,
}

/// The store, locked by this process and the programs that it runs: one that outlives a killed call still changes
/// rules, which the next call must not meet half-way.
#[derive(Debug)]
pub(crate) struct Held {
    _lock: Lock,
    _inherited: OwnedFd,
}

/// The stored attachments cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("state of the mapped ports")]
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

impl Store {
    /// Opens the store; `None` if nothing was ever stored.
    pub(crate) fn open(dir: &Path) -> Result<Option<Self>, StoreError> {
        let store = Self { dir: dir.to_owned() };
        Ok(statefile::is_dir(dir).map_err(StoreError)?.then_some(store))
    }

    /// Opens the store, or makes it.
    pub(crate) fn open_or_create(dir: &Path) -> Result<Self, StoreError> {
        statefile::ensure_dir(dir, DIR_MODE).map_err(StoreError)?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Keeps other calls away from the store and from the rules.
    pub(crate) fn lock(&self) -> Result<Held, StoreError> {
        let lock = Lock::acquire(&self.dir.join("lock"), FILE_MODE, LOCK_TIMEOUT).map_err(StoreError)?;
        let inherited = lock.inheritable().map_err(StoreError)?;
        Ok(Held {
            _lock: lock,
            _inherited: inherited,
        })
    }

    /// The attachment, if it is stored; one that cannot be read is none.
    pub(crate) fn get(
        &self,
        network: &NetworkName,
        target: &Target,
    ) -> Result<Option<Attachment>, StoreError> {
        let found = read(&self.path(network, target))?;
        Ok(found.filter(|found| found.network == *network && found.target == *target))
    }

    pub(crate) fn put(&self, attachment: &Attachment) -> Result<(), StoreError> {
        let path = self.path(&attachment.network, &attachment.target);
        // The rules are gone with the power as well, and so are the containers.
        let text = attachment.to_text();
        statefile::replace(&path, text.as_bytes(), FILE_MODE, Durability::Crash).map_err(StoreError)
    }

    /// Forgets an attachment; one that is not stored is fine.
    pub(crate) fn remove(&self, network: &NetworkName, target: &Target) -> Result<(), StoreError> {
        let path = self.path(network, target);
        statefile::remove_unfinished(&path).map_err(StoreError)?;
        remove(&path)
    }

    /// The attachments of a container.
    pub(crate) fn of_container(&self, container_id: &ContainerId) -> Result<Vec<Attachment>, StoreError> {
        let prefix = digest(container_id.as_str());
        let mut found = self.read_where(|name| name.starts_with(&prefix))?;
        found.retain(|attachment| attachment.target.container_id == *container_id);
        Ok(found)
    }

    /// All attachments, in the order of their containers.
    pub(crate) fn all(&self) -> Result<Vec<Attachment>, StoreError> {
        self.read_where(|_| true)
    }

    /// Removes the files that no attachment can be read from: a crash of the machine, or a killed call, left them.
    pub(crate) fn remove_unreadable(&self) -> Result<(), StoreError> {
        statefile::remove_abandoned(&self.dir).map_err(StoreError)?;
        for path in self.files(|_| true)? {
            if read(&path)?.is_none() {
                remove(&path)?;
            }
        }
        Ok(())
    }

    fn read_where(&self, is_meant: impl Fn(&str) -> bool) -> Result<Vec<Attachment>, StoreError> {
        let mut found = Vec::new();
        for path in self.files(is_meant)? {
            found.extend(read(&path)?);
        }
        Ok(found)
    }

    /// The files of attachments in the order of their names.
    fn files(&self, is_meant: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, StoreError> {
        let failed = |source| {
            StoreError(statefile::Error::Io {
                action: statefile::Action::Read,
                path: self.dir.clone(),
                source,
            })
        };
        let mut paths = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let name = name.to_str().filter(|name| is_name(name) && is_meant(name));
            paths.extend(name.map(|name| self.dir.join(name)));
        }
        paths.sort();
        Ok(paths)
    }

    fn path(&self, network: &NetworkName, target: &Target) -> PathBuf {
        // Neither part can contain the slash.
        let attachment = format!("{network}/{}", target.ifname);
        let name = format!("{}-{}", digest(target.container_id.as_str()), digest(&attachment));
        self.dir.join(name)
    }
}

fn is_name(name: &str) -> bool {
    let mut parts = name.split('-');
    let is_digest = |part: Option<&str>| {
        part.is_some_and(|part| part.len() == DIGITS && part.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    is_digest(parts.next()) && is_digest(parts.next()) && parts.next().is_none()
}

fn digest(text: &str) -> String {
    hashed_name("", DIGITS, text)
}

fn remove(path: &Path) -> Result<(), StoreError> {
    statefile::remove(path, Durability::Crash)
        .map(drop)
        .map_err(StoreError)
}

/// Reads a file; `None` if it is gone or tells no attachment.
fn read(path: &Path) -> Result<Option<Attachment>, StoreError> {
    match statefile::read_optional(path) {
        Ok(text) => Ok(text.and_then(|text| Attachment::parse(&text).ok())),
        Err(statefile::Error::TooLarge(_) | statefile::Error::NotAFile(_)) => Ok(None),
        Err(error) if error.io().is_some_and(|e| e.kind() == ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(StoreError(error)),
    }
}

#[cfg(test)]
mod tests;
