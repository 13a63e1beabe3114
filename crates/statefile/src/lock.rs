use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::{Action, Error};
use crate::open::{Access, create_exclusively, open_regular};

/// The first pause between two attempts to get a lock; each pause doubles the last.
const FIRST_PAUSE: Duration = Duration::from_micros(100);
/// How often a lock file is looked for that vanishes and appears.
const ATTEMPTS: u32 = 3;
/// The longest pause between two attempts.
const LONGEST_PAUSE: Duration = Duration::from_millis(10);

/// An exclusive lock (`flock`) on a lock file, released when dropped or when the process ends.
///
/// It excludes every other holder of an open file of its own, in this process as well, and the reference plugins,
/// which use the same system call.
#[derive(Debug)]
pub struct Lock {
    file: File,
    path: PathBuf,
}

impl Lock {
    /// Waits for the lock until the time-out; creates the lock file with this mode, whatever the umask, if it is
    /// absent.
    ///
    /// # Errors
    /// The file cannot be created or opened, is no regular file, or another process keeps the lock for longer than the
    /// time-out.
    pub fn acquire(path: &Path, mode: u32, timeout: Duration) -> Result<Self, Error> {
        let (file, _) = open_locked(path, timeout, || open_or_create(path, mode))?;
        let path = path.to_owned();
        Ok(Self { file, path })
    }

    /// A second handle, which programs inherit that are run while it exists: the lock then lasts until the last of them
    /// has ended, even if this process is killed before.
    ///
    /// # Errors
    /// The process has no file descriptor left.
    pub fn inheritable(&self) -> Result<OwnedFd, Error> {
        // Descriptors that the standard library makes are closed when a program begins.
        nix::unistd::dup(&self.file).map_err(|errno| Error::of(Action::Lock, &self.path)(errno.into()))
    }
}

/// Opens a lock file that is never removed, for locks that some hold together; creates it with this mode, whatever the
/// umask, if it is absent. It is not locked yet.
///
/// # Errors
/// The file cannot be created or opened, or is no regular file.
pub fn lock_file(path: &Path, mode: u32) -> Result<File, Error> {
    // Another process may create it between the two looks at it.
    for _ in 1..ATTEMPTS {
        if let Some(file) = open_or_create(path, mode)? {
            return Ok(file);
        }
    }
    open_regular(path, Access::Read).map(|(file, _)| file)
}

/// Opens or creates a regular file by `open` and locks it; the locked file is the one that the path names. Tells what
/// it is.
pub(crate) fn open_locked(
    path: &Path,
    timeout: Duration,
    open: impl Fn() -> Result<Option<File>, Error>,
) -> Result<(File, Metadata), Error> {
    let start = Instant::now();
    loop {
        if let Some(file) = open()? {
            wait(&file, path, start, timeout)?;
            // Its last holder may have renamed or removed the file; a lock on it would then exclude nobody.
            if let Some(found) = found_at(&file, path)? {
                return Ok((file, found));
            }
        } else if leads_nowhere(path) {
            return Err(Error::NotAFile(path.to_owned()));
        } else {
            thread::sleep(FIRST_PAUSE);
        }
        if start.elapsed() >= timeout {
            return Err(Error::LockTimeout {
                path: path.to_owned(),
                waited: timeout,
            });
        }
    }
}

/// Opens and locks a regular file that is there; `None` if somebody else has it locked, or has just replaced it.
pub(crate) fn open_locked_existing(path: &Path) -> Result<Option<File>, Error> {
    let (file, _) = open_regular(path, Access::Read)?;
    match file.try_lock() {
        Ok(()) => Ok(found_at(&file, path)?.map(|_| file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(err)) => Err(Error::of(Action::Lock, path)(err)),
    }
}

/// Opens a lock file, or creates it; `None` if it appeared or vanished meanwhile.
fn open_or_create(path: &Path, mode: u32) -> Result<Option<File>, Error> {
    match open_regular(path, Access::Read) {
        Ok((file, _)) => return Ok(Some(file)),
        Err(err) if err.io().is_some_and(|io| io.kind() == ErrorKind::NotFound) => {}
        Err(err) => return Err(err),
    }
    let Some(file) = create(path, mode)? else {
        return Ok(None);
    };
    let permissions = Permissions::from_mode(mode);
    file.set_permissions(permissions)
        .map_err(Error::of(Action::SetMode, path))?;
    Ok(Some(file))
}

/// Creates a file that is hardly ever there, or opens it for reading and writing; `None` if it appeared or vanished
/// meanwhile. The mode is less the umask, if it was created.
pub(crate) fn create_or_open(path: &Path, mode: u32) -> Result<Option<File>, Error> {
    if let Some(file) = create(path, mode)? {
        return Ok(Some(file));
    }
    match open_regular(path, Access::ReadWrite) {
        Ok((file, _)) => Ok(Some(file)),
        Err(err) if err.io().is_some_and(|io| io.kind() == ErrorKind::NotFound) => Ok(None),
        Err(err) => Err(err),
    }
}

/// Whether a symbolic link is there, and nothing where it leads.
fn leads_nowhere(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.is_symlink())
        && fs::metadata(path).is_err_and(|err| err.kind() == ErrorKind::NotFound)
}

/// Creates a file; `None` if there is one.
fn create(path: &Path, mode: u32) -> Result<Option<File>, Error> {
    match create_exclusively(path, mode) {
        Ok(file) => Ok(Some(file)),
        Err(err) if err.kind() == ErrorKind::AlreadyExists => Ok(None),
        Err(err) => Err(Error::of(Action::Create, path)(err)),
    }
}

fn wait(file: &File, path: &Path, start: Instant, timeout: Duration) -> Result<(), Error> {
    let mut pause = FIRST_PAUSE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(err)) => return Err(Error::of(Action::Lock, path)(err)),
        }
        let left = timeout.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(Error::LockTimeout {
                path: path.to_owned(),
                waited: timeout,
            });
        }
        thread::sleep(pause.min(left));
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// What an open file is, if the path still names it.
fn found_at(file: &File, path: &Path) -> Result<Option<Metadata>, Error> {
    let ours = file.metadata().map_err(Error::of(Action::Read, path))?;
    match fs::metadata(path) {
        Ok(named) if (named.dev(), named.ino()) == (ours.dev(), ours.ino()) => Ok(Some(ours)),
        Ok(_) => Ok(None),
        Err(err) if err.kind() == ErrorKind::NotFound => Ok(None),
        Err(err) => Err(Error::of(Action::Read, path)(err)),
    }
}
