use std::fs::{File, TryLockError};
use std::io;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use cni_types::Code;
use netlink::{Netns, NetnsError};

use crate::error::CniError;
use crate::locks::{Guarded, lock_file};

/// How long another call may work on the same container.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// Pause between two attempts to get the lock.
const LOCK_PAUSE: Duration = Duration::from_millis(2);

/// A container's network namespace, held open and locked: calls for one container come one after the other, so that
/// none mistakes another's half-made attachment for what a crash left.
pub(crate) struct Sandbox {
    /// The path as the runtime gave it.
    pub(crate) path: String,
    pub(crate) netns: Netns,
    /// It ends with the process.
    _lock: Option<File>,
}

/// Why a container's network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("failed to open netns {path:?}")]
    Open {
        path: String,
        #[source]
        source: NetnsError,
    },
    #[error("failed to open the plugin's own network namespace")]
    Own(#[source] NetnsError),
    #[error(
        "CNI_NETNS {0:?} is the plugin's own network namespace; set CNI_NETNS_OVERRIDE=1 if that is meant"
    )]
    IsOwn(String),
    #[error("cannot lock network namespace {path:?}")]
    Lock {
        path: String,
        #[source]
        source: statefile::Error,
    },
    #[error("another call for the container of network namespace {0:?} is still at work; try again")]
    Busy(String),
}

impl CniError for SandboxError {
    fn code(&self) -> Code {
        match self {
            Self::Open { .. } | Self::Own(_) | Self::IsOwn(_) => Code::BAD_NETNS,
            Self::Lock { .. } => Code::IO,
            Self::Busy(_) => Code::TRY_LATER,
        }
    }
}

impl Sandbox {
    /// Opens and locks a namespace, which must not be the plugin's own unless that is allowed.
    pub(crate) fn open(path: &str, own_allowed: bool) -> Result<Self, SandboxError> {
        let netns = Netns::open(Path::new(path)).map_err(|source| SandboxError::Open {
            path: path.to_owned(),
            source,
        })?;
        let is_own = netns.is_same(&Netns::current().map_err(SandboxError::Own)?);
        if is_own && !own_allowed {
            return Err(SandboxError::IsOwn(path.to_owned()));
        }
        // The own namespace's lock guards its bridges.
        let lock = if is_own { None } else { Some(lock(path, &netns)?) };
        Ok(Self {
            path: path.to_owned(),
            netns,
            _lock: lock,
        })
    }

    /// Opens a namespace that may be gone: `None` when nothing, or something else, is at the path. The plugin's own is
    /// something else: a process of the host got the number that the container's had.
    pub(crate) fn open_remaining(path: &str, own_allowed: bool) -> Result<Option<Self>, SandboxError> {
        match Self::open(path, own_allowed) {
            Ok(sandbox) => Ok(Some(sandbox)),
            Err(SandboxError::Open {
                source: NetnsError::NotFound(_) | NetnsError::NotNetns(_),
                ..
            }) => Ok(None),
            Err(SandboxError::IsOwn(_)) => Ok(None),
            // Of a process that is gone, below a file where a directory was, or a path that cannot name anything.
            Err(SandboxError::Open {
                source: NetnsError::Open { source, .. },
                ..
            }) if is_gone(&source) => Ok(None),
            Err(e) => Err(e),
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidFilename, NotADirectory, NotFound};
    /// `ESRCH` (linux `errno-base.h`).
    const NO_SUCH_PROCESS: i32 = 3;
    /// `ELOOP` (linux `errno.h`).
    const TOO_MANY_LINKS: i32 = 40;
    matches!(error.kind(), NotFound | NotADirectory | InvalidFilename)
        || matches!(error.raw_os_error(), Some(NO_SUCH_PROCESS | TOO_MANY_LINKS))
}

fn lock(path: &str, netns: &Netns) -> Result<File, SandboxError> {
    let failed = |source| SandboxError::Lock {
        path: path.to_owned(),
        source,
    };
    let file = lock_file(netns, Guarded::Container).map_err(failed)?;
    match lock_within(LOCK_TIMEOUT, || file.try_lock()) {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SandboxError::Busy(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(statefile::Error::of(
            statefile::Action::Lock,
            Path::new(path),
        )(source))),
    }
}

/// Attempts to get a lock until it is there or the time is over, which is `WouldBlock`.
pub(crate) fn lock_within(
    timeout: Duration,
    mut attempt: impl FnMut() -> Result<(), TryLockError>,
) -> Result<(), TryLockError> {
    let deadline = Instant::now() + timeout;
    loop {
        match attempt() {
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => sleep(LOCK_PAUSE),
            outcome => return outcome,
        }
    }
}
