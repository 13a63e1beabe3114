use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use cni_types::{Code, NetworkName, Target};
use ipnetwork::IpNetwork;
use serde::{Deserialize, Serialize};
use statefile::{Error, Lock};

use crate::error::CniError;
use crate::plugins::attachment_file::{self, Content};

const LOCK_NAME: &str = "lock";
const LOCK_MODE: u32 = 0o600;
const DIR_MODE: u32 = 0o700;

/// How long other calls may work on iptables, each of which runs programs.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// Which addresses of an attachment have rules in iptables: those tell no container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Note {
    network: String,
    hosts: Vec<IpAddr>,
}

impl Note {
    /// The addresses, as networks of one.
    pub(super) fn hosts(&self) -> impl Iterator<Item = IpNetwork> {
        self.hosts.iter().map(|host| IpNetwork::from(*host))
    }
}

impl Content for Note {
    const SEPARATOR: char = attachment_file::UNAMBIGUOUS;

    fn network(&self) -> Option<&str> {
        Some(&self.network)
    }
}

/// The notes of all attachments, locked: whoever removes an address's rules knows that no other attachment has it.
pub(super) struct Notes {
    dir: PathBuf,
    _lock: Lock,
}

/// A note cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("firewall's notes of its rules in iptables")]
pub(super) struct NoteError(#[source] Error);

impl CniError for NoteError {
    fn code(&self) -> Code {
        if matches!(self.0, Error::LockTimeout { .. }) {
            Code::TRY_LATER
        } else {
            Code::IO
        }
    }
}

impl Notes {
    /// Locks the notes; makes the directory if there is none.
    pub(super) fn lock(dir: &Path) -> Result<Self, NoteError> {
        statefile::ensure_dir(dir, DIR_MODE).map_err(NoteError)?;
        let lock = Lock::acquire(&dir.join(LOCK_NAME), LOCK_MODE, LOCK_TIMEOUT);
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock.map_err(NoteError)?,
        })
    }

    /// Notes the addresses of an attachment.
    pub(super) fn write(
        &self,
        network: &NetworkName,
        target: &Target,
        hosts: &[IpNetwork],
    ) -> Result<(), NoteError> {
        let note = Note {
            network: network.as_str().to_owned(),
            hosts: hosts.iter().map(IpNetwork::ip).collect(),
        };
        attachment_file::write(&self.dir, target, &note).map_err(NoteError)
    }

    /// The file of an attachment.
    pub(super) fn path(&self, target: &Target) -> PathBuf {
        attachment_file::path_of::<Note>(&self.dir, target)
    }

    /// What is noted of an attachment, and where: in its file, and in one of the name that former versions gave it. By
    /// that name the file may also be tuning's, which tells no address.
    pub(super) fn of(&self, target: &Target) -> Result<Vec<(PathBuf, Note)>, NoteError> {
        let paths = [self.path(target), attachment_file::path(&self.dir, target)];
        let mut found = Vec::new();
        for path in paths {
            let note = attachment_file::read(&path).map_err(NoteError)?;
            found.extend(note.map(|note| (path, note)));
        }
        Ok(found)
    }

    /// The addresses in a file; none if nothing is noted there.
    pub(super) fn hosts(&self, path: &Path) -> Result<Vec<IpNetwork>, NoteError> {
        let note: Option<Note> = attachment_file::read(path).map_err(NoteError)?;
        Ok(note.iter().flat_map(Note::hosts).collect())
    }

    /// Those of these addresses that no attachment has but those of these files.
    pub(super) fn free(
        &self,
        hosts: &[IpNetwork],
        given_up: &[PathBuf],
    ) -> Result<Vec<IpNetwork>, NoteError> {
        let mut all = attachment_file::all::<Note>(&self.dir).map_err(NoteError)?;
        all.retain(|(path, _)| !given_up.contains(path));
        let is_free = |host: &&IpNetwork| !all.iter().any(|(_, note)| note.hosts.contains(&host.ip()));
        Ok(hosts.iter().filter(is_free).copied().collect())
    }

    /// The files of a network's attachments that are not valid.
    pub(super) fn stale<'a>(
        &self,
        network: &NetworkName,
        valid: impl IntoIterator<Item = &'a Target>,
    ) -> Result<Vec<(PathBuf, Note)>, NoteError> {
        attachment_file::stale(&self.dir, network, valid).map_err(NoteError)
    }

    pub(super) fn remove(&self, path: &Path) -> Result<(), NoteError> {
        attachment_file::remove(path).map_err(NoteError)
    }
}

/// Whether anything was ever noted.
pub(super) fn is_dir(dir: &Path) -> Result<bool, NoteError> {
    statefile::is_dir(dir).map_err(NoteError)
}

/// Removes the notes in preparation that nobody is at work on.
pub(super) fn remove_abandoned(dir: &Path) -> Result<(), NoteError> {
    statefile::remove_abandoned(dir).map_err(NoteError)
}
