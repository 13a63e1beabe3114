use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::statfs::{NSFS_MAGIC, fstatfs};
use rustix::fs::{Mode, OFlags};

/// The caller's own namespace; `/proc/self` would be that of the main thread.
const CURRENT: &str = "/proc/thread-self/ns/net";

/// How often a thread tries to come back; it fails only when the kernel has no memory for a moment.
const RETURN_ATTEMPTS: u32 = 3;

/// A network namespace, held open: it lives at least as long as this value.
#[derive(Debug)]
pub struct Netns {
    file: File,
    path: PathBuf,
    identity: (u64, u64),
}

/// Why a network namespace cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetnsError {
    /// Nothing is at the path.
    #[error("network namespace {} does not exist", .0.display())]
    NotFound(PathBuf),
    /// Something else is at the path.
    #[error("{} is not a network namespace", .0.display())]
    NotNetns(PathBuf),
    /// The path cannot be opened or examined.
    #[error("cannot open network namespace {}", path.display())]
    Open {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The namespace is there, but a thread cannot enter it.
    #[error("cannot enter network namespace {}", path.display())]
    Enter {
        /// The path that it was opened by.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The thread cannot come back from a namespace.
    #[error("cannot return to the own network namespace")]
    Return(#[source] io::Error),
}

impl Netns {
    /// Opens the namespace that a path such as `/run/netns/a` or `/proc/123/ns/net` names.
    ///
    /// # Errors
    /// Nothing is there, it is no namespace, or it cannot be opened. A namespace of another kind is found out when it
    /// is entered.
    pub fn open(path: &Path) -> Result<Self, NetnsError> {
        let opened = open(path);
        let failed = |source: io::Error| NetnsError::Open {
            path: path.to_owned(),
            source,
        };
        let file = match opened {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(NetnsError::NotFound(path.to_owned()));
            }
            Err(e) => return Err(failed(e)),
        };
        let kind = fstatfs(&file).map_err(|e| failed(e.into()))?;
        if kind.filesystem_type() != NSFS_MAGIC {
            return Err(NetnsError::NotNetns(path.to_owned()));
        }
        let meta = file.metadata().map_err(failed)?;
        Ok(Self {
            identity: (meta.dev(), meta.ino()),
            path: path.to_owned(),
            file,
        })
    }

    /// Opens the namespace of the calling thread.
    ///
    /// # Errors
    /// `/proc` is not mounted.
    pub fn current() -> Result<Self, NetnsError> {
        Self::open(Path::new(CURRENT))
    }

    /// Opens the same namespace once more.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn try_clone(&self) -> Result<Self, NetnsError> {
        let file = self.file.try_clone().map_err(|source| NetnsError::Open {
            path: self.path.clone(),
            source,
        })?;
        Ok(Self {
            file,
            path: self.path.clone(),
            identity: self.identity,
        })
    }

    /// Whether both are the same namespace, by device and inode number.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        self.identity == other.identity
    }

    /// The number that tells the namespace from all others that exist.
    #[must_use]
    pub const fn inode(&self) -> u64 {
        self.identity.1
    }

    /// Runs a closure with the calling thread inside the namespace, and returns its value. The thread comes back,
    /// also from a panic.
    ///
    /// It is not done on a thread of its own, which costs more than all of a container's addresses and routes
    /// (measured: 12 system calls and a stack's page faults).
    ///
    /// # Errors
    /// The namespace cannot be entered, or is not one of networks; the closure did not run. Or the thread cannot come
    /// back, for want of memory: what the closure did is done, and the thread is of no use for its own namespace.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, NetnsError> {
        let mut home = Home::of_this_thread()?;
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|e| self.cannot_enter(e))?;
        home.is_left = true;
        let done = work();
        home.come_back()?;
        Ok(done)
    }

    fn cannot_enter(&self, errno: Errno) -> NetnsError {
        if errno == Errno::EINVAL {
            return NetnsError::NotNetns(self.path.clone());
        }
        NetnsError::Enter {
            path: self.path.clone(),
            source: errno.into(),
        }
    }
}

/// One system call, where the C library musl makes two. A path may name a FIFO, which would block.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let opened = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags, Mode::empty()));
    Ok(opened?.into())
}

/// The namespace that a thread came from.
struct Home {
    file: File,
    is_left: bool,
}

impl Home {
    fn of_this_thread() -> Result<Self, NetnsError> {
        let file = open(Path::new(CURRENT)).map_err(|source| NetnsError::Open {
            path: CURRENT.into(),
            source,
        })?;
        Ok(Self { file, is_left: false })
    }

    fn come_back(&mut self) -> Result<(), NetnsError> {
        let mut result = Ok(());
        for _ in 0..RETURN_ATTEMPTS {
            result = setns(&self.file, CloneFlags::CLONE_NEWNET);
            if result.is_ok() {
                self.is_left = false;
                break;
            }
        }
        result.map_err(|errno| NetnsError::Return(errno.into()))
    }
}

impl Drop for Home {
    /// After a panic of the closure; it is what the caller gets to see.
    fn drop(&mut self) {
        if self.is_left {
            drop(self.come_back());
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl AsRawFd for Netns {
    fn as_raw_fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }
}
