use std::fs::{self, File, Metadata};
use std::io;
use std::path::Path;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use crate::error::{Action, Error};

/// What a file is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    /// To be emptied and written anew: a link in its place would have somebody else's file emptied, and is refused.
    ReadWrite,
}

/// Opens a regular file, and nothing else: a named pipe or a device that somebody put in its place is an error at
/// once, where an ordinary call would wait for its other end.
pub(crate) fn open_regular(path: &Path, access: Access) -> Result<(File, Metadata), Error> {
    let access = match access {
        Access::Read => OFlags::RDONLY,
        Access::ReadWrite => OFlags::RDWR | OFlags::NOFOLLOW,
    };
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = open(path, flags, Mode::empty()).map_err(|err| refused(path, err))?;
    let found = file.metadata().map_err(Error::of(Action::Read, path))?;
    if found.is_file() {
        Ok((file, found))
    } else {
        Err(Error::NotAFile(path.to_owned()))
    }
}

/// Creates a regular file that must not exist, for reading and writing, with this mode less the umask.
pub(crate) fn create_exclusively(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    open(path, flags, Mode::from_raw_mode(mode))
}

/// One system call, where the C library musl makes two: it does not trust the kernel to close the file for programs.
fn open(path: &Path, flags: OFlags, mode: Mode) -> io::Result<File> {
    let opened = rustix::io::retry_on_intr(|| rustix::fs::open(path, flags | OFlags::CLOEXEC, mode));
    Ok(opened?.into())
}

/// Sockets, directories, devices without a driver and links that are not followed, or never end, answer the opening with
/// errors of their own.
fn refused(path: &Path, err: io::Error) -> Error {
    let is_link = err.raw_os_error() == Some(Errno::LOOP.raw_os_error());
    let is_there = err.kind() != io::ErrorKind::NotFound;
    if is_link || is_there && fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Error::NotAFile(path.to_owned());
    }
    Error::of(Action::Open, path)(err)
}
