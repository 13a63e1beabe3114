use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why a state file could not be written, read or locked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused an action.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was attempted.
        action: Action,
        /// On which file or directory.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// A file that was to be created exists.
    #[error("{} exists already", .0.display())]
    Exists(PathBuf),
    /// The path ends without a file name.
    #[error("{} does not name a file", .0.display())]
    NoName(PathBuf),
    /// The path names a directory, a device or the like.
    #[error("{} is not a regular file", .0.display())]
    NotAFile(PathBuf),
    /// The file is larger than any state file.
    #[error("{} is too large for a state file", .0.display())]
    TooLarge(PathBuf),
    /// The file is not UTF-8 text.
    #[error("{} is not UTF-8 text", .0.display())]
    NotText(PathBuf),
    /// Another process held the lock for too long.
    #[error("{} is still locked by another process after {} ms", .path.display(), .waited.as_millis())]
    LockTimeout {
        /// The lock file.
        path: PathBuf,
        /// How long the lock was waited for.
        waited: Duration,
    },
}

/// What was attempted on a file or directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Create it.
    Create,
    /// Open it.
    Open,
    /// Read it.
    Read,
    /// Write its contents.
    Write,
    /// Set its mode.
    SetMode,
    /// Lock it.
    Lock,
    /// Flush it to the disk.
    Sync,
    /// Put it in its place.
    Rename,
    /// Remove it.
    Remove,
}

impl Error {
    /// The system's answer, for callers that treat its kinds differently.
    #[must_use]
    pub const fn io(&self) -> Option<&io::Error> {
        match self {
            Self::Io { source, .. } => Some(source),
            Self::Exists(_)
            | Self::NoName(_)
            | Self::NotAFile(_)
            | Self::TooLarge(_)
            | Self::NotText(_)
            | Self::LockTimeout { .. } => None,
        }
    }

    /// Makes the wrapper for an answer of the system.
    pub fn of(action: Action, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io {
            action,
            path: path.to_owned(),
            source,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create",
            Self::Open => "open",
            Self::Read => "read",
            Self::Write => "write",
            Self::SetMode => "set the mode of",
            Self::Lock => "lock",
            Self::Sync => "flush",
            Self::Rename => "replace",
            Self::Remove => "remove",
        })
    }
}
