use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cni_types::{Code, ContainerId, NetConf, Object, Target};
use net_types::IfName;
use serde_json::Value;
use statefile::{Action, Durability};

use crate::error::CniError;
use crate::plugins::host_local::Holder;

/// Modes of the reference's directory and files.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Separates container id and interface name in the name of a further interface's file; neither can contain it.
const SEPARATOR: char = ':';

/// The delegate's configuration as an ADD stored it.
#[derive(Debug)]
pub(crate) enum Stored {
    /// There is none.
    Missing,
    /// A file is there that is no configuration.
    Garbage,
    Conf(Box<NetConf>),
}

/// The state files of one container, in the reference's directory: `<container id>` for its first interface, so that
/// the reference finds it; `<container id>:<interface>` for a further one of the same network.
#[derive(Debug)]
pub(crate) struct StateFiles {
    dir: PathBuf,
    container_id: String,
    ifname: IfName,
}

/// Whose a state file is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StateName<'a> {
    container_id: &'a str,
    /// `None` for the container's first interface, whichever that is.
    ifname: Option<&'a str>,
}

impl<'a> StateName<'a> {
    /// Reads the name of a file; `None` if it is no state file.
    pub(crate) fn parse(name: &'a str) -> Option<Self> {
        let (container_id, ifname) = match name.split_once(SEPARATOR) {
            Some((id, ifname)) => (id, Some(ifname)),
            None => (name, None),
        };
        ContainerId::new(container_id).ok()?;
        Some(Self { container_id, ifname })
    }

    /// Whether the file may be of the interface that holds an address; either may leave open which interface it is.
    pub(crate) fn may_be_of(&self, holder: &Holder) -> bool {
        let is_same = |ifname: &str| holder.ifname.as_deref().is_none_or(|other| other == ifname);
        self.container_id == holder.container_id && self.ifname.is_none_or(is_same)
    }
}

/// A state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StateError {
    #[error("flannel's state of the container")]
    File(#[source] statefile::Error),
    #[error("the delegate's configuration has {0} bytes; no more than {max} can be kept for the container's DEL",
        max = statefile::MAX_BYTES)]
    TooLarge(usize),
}

impl CniError for StateError {
    fn code(&self) -> Code {
        match self {
            Self::File(_) => Code::IO,
            Self::TooLarge(_) => Code::BAD_CONFIG,
        }
    }
}

impl StateFiles {
    pub(crate) fn of(dir: &Path, target: &Target) -> Self {
        Self {
            dir: dir.to_owned(),
            container_id: target.container_id.as_str().to_owned(),
            ifname: target.ifname.clone(),
        }
    }

    /// The file of the container's first interface.
    pub(crate) fn first(&self) -> PathBuf {
        self.dir.join(&self.container_id)
    }

    /// The file of this interface, if it is a further one.
    pub(crate) fn further(&self) -> PathBuf {
        self.further_of(&self.ifname)
    }

    /// The file of an interface, if it is a further one.
    fn further_of(&self, ifname: &IfName) -> PathBuf {
        self.dir.join(format!("{}{SEPARATOR}{ifname}", self.container_id))
    }

    /// Whether the first file is another interface's: one that holds an address and has no file of its own.
    pub(crate) fn is_first_of_another(&self, holders: &[IfName]) -> bool {
        let mut others = holders.iter().filter(|ifname| **ifname != self.ifname);
        others.any(|ifname| !self.further_of(ifname).exists())
    }

    /// How many state files the directory holds, of all containers.
    pub(crate) fn count(&self) -> Result<usize, StateError> {
        let failed = |error| StateError::File(statefile::Error::of(Action::Read, &self.dir)(error));
        let mut count = 0;
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            count += usize::from(name.to_str().and_then(StateName::parse).is_some());
        }
        Ok(count)
    }

    /// Removes what a killed writer of these files left.
    pub(crate) fn discard_unfinished(&self) -> Result<(), StateError> {
        for path in [self.first(), self.further()] {
            statefile::remove_unfinished(&path).map_err(StateError::File)?;
        }
        Ok(())
    }

    /// Writes a configuration, atomically; returns what was there before.
    pub(crate) fn write(&self, path: &Path, conf: &Object) -> Result<Option<Vec<u8>>, StateError> {
        let text = Value::Object(conf.as_map().clone()).to_string();
        // A larger one could not be read back.
        if u64::try_from(text.len()).map_or(true, |bytes| bytes > statefile::MAX_BYTES) {
            return Err(StateError::TooLarge(text.len()));
        }
        statefile::ensure_dir(&self.dir, DIR_MODE).map_err(StateError::File)?;
        let before = statefile::read_optional(path).map_err(StateError::File)?;
        put(path, text.as_bytes())?;
        Ok(before)
    }
}

/// Puts back what [`StateFiles::write`] found.
pub(crate) fn restore(path: &Path, before: Option<&[u8]>) -> Result<(), StateError> {
    match before {
        Some(text) => put(path, text),
        None => remove(path),
    }
}

/// How to detach a container is of no use without the container, which does not outlive a power cut.
fn put(path: &Path, text: &[u8]) -> Result<(), StateError> {
    statefile::replace(path, text, FILE_MODE, Durability::Crash).map_err(|error| {
        // One that failed before it was locked is still there. The container's lock keeps other writers away.
        drop(statefile::remove_unfinished(path));
        StateError::File(error)
    })
}

/// Removes the files in preparation that nobody is at work on. Their networks are unknown, but they are nobody's.
pub(crate) fn remove_abandoned(dir: &Path) -> Result<(), StateError> {
    statefile::remove_abandoned(dir).map_err(StateError::File)
}

/// Removes a state file.
pub(crate) fn remove(path: &Path) -> Result<(), StateError> {
    let removed = statefile::remove(path, Durability::Crash);
    removed.map(drop).map_err(StateError::File)
}

/// Reads a state file. One from which nothing can be detached is garbage, even if it is JSON.
pub(crate) fn read(path: &Path) -> Result<Stored, StateError> {
    match statefile::read_optional(path) {
        Ok(None) => Ok(Stored::Missing),
        Ok(Some(text)) => {
            let usable = NetConf::parse(&text).ok().filter(detaches);
            Ok(usable.map_or(Stored::Garbage, |conf| Stored::Conf(Box::new(conf))))
        }
        Err(statefile::Error::TooLarge(_) | statefile::Error::NotText(_)) => Ok(Stored::Garbage),
        // No plugin made it, so it says nothing of the container.
        Err(statefile::Error::NotAFile(_)) => Ok(Stored::Missing),
        // A path with a plain file where the directory should be holds nothing.
        Err(error) if error.io().is_some_and(|e| e.kind() == ErrorKind::NotADirectory) => Ok(Stored::Missing),
        Err(error) => Err(StateError::File(error)),
    }
}

/// Whether a configuration has what a DEL needs, in the types that it needs: who attached the container, and who gave
/// the addresses from which store.
fn detaches(conf: &NetConf) -> bool {
    let plugin = conf.object.string("type").is_ok_and(|name| name != Some(""));
    let ipam = conf.ipam().map(Option::unwrap_or_default);
    plugin && ipam.is_ok_and(|ipam| ipam.string("type").is_ok() && ipam.string("dataDir").is_ok())
}
