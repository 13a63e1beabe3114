use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::libc::{O_NOCTTY, O_NONBLOCK};

use crate::error::{Action, Error};

/// Opens a regular file, and nothing else: a named pipe or a device that somebody put in its place is an error at
/// once, where an ordinary call would wait for its other end.
pub(crate) fn open_regular(path: &Path, options: &OpenOptions) -> Result<(File, Metadata), Error> {
    let mut options = options.clone();
    let file = match options.custom_flags(O_NONBLOCK | O_NOCTTY).open(path) {
        Ok(file) => file,
        Err(err) => return Err(refused(path, err)),
    };
    let found = file.metadata().map_err(Error::of(Action::Read, path))?;
    if found.is_file() {
        Ok((file, found))
    } else {
        Err(Error::NotAFile(path.to_owned()))
    }
}

/// Sockets, directories and devices without a driver answer the opening itself with errors of their own.
fn refused(path: &Path, err: io::Error) -> Error {
    let is_there = err.kind() != io::ErrorKind::NotFound;
    if is_there && fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Error::NotAFile(path.to_owned());
    }
    Error::of(Action::Open, path)(err)
}
