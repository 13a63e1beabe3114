use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::path::Path;

use crate::error::{Action, Error};
use crate::open::{Access, open_regular};
use crate::write::is_absent;

/// The size in bytes that no state file exceeds; a larger one is an error instead of an allocation.
pub const MAX_BYTES: u64 = 1 << 20;

/// Reads a file; `None` if there is none, nor can be by this path.
///
/// # Errors
/// The path names something else than a regular file, or one of more than [`MAX_BYTES`], or it cannot be read.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    read_within(path, MAX_BYTES)
}

fn read_within(path: &Path, max_bytes: u64) -> Result<Option<Vec<u8>>, Error> {
    let (file, found) = match open_regular(path, Access::Read) {
        Ok(opened) => opened,
        Err(err) if err.io().is_some_and(|io| is_absent(io.kind())) => return Ok(None),
        Err(err) => return Err(err),
    };
    let size = usize::try_from(found.len().min(max_bytes)).unwrap_or_default();
    let contents = read_to_end(&file, size, max_bytes).map_err(Error::of(Action::Read, path))?;
    contents.map(Some).ok_or_else(|| Error::TooLarge(path.to_owned()))
}

/// Reads a regular file of about this size; `None` if it is too large. A read that comes back short has met the end, so
/// that most files take one.
fn read_to_end(mut file: &File, size: usize, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut contents = vec![0; size.saturating_add(1)];
    let mut filled = 0;
    loop {
        let room = contents.get_mut(filled..).unwrap_or_default();
        let count = match file.read(room) {
            Ok(count) => count,
            Err(err) if err.kind() == ErrorKind::Interrupted => continue,
            Err(err) => return Err(err),
        };
        let is_end = count < room.len();
        filled += count;
        if u64::try_from(filled).map_or(true, |filled| filled > max_bytes) {
            return Ok(None);
        }
        if is_end {
            contents.truncate(filled);
            return Ok(Some(contents));
        }
        contents.resize(filled.saturating_mul(2), 0);
    }
}

/// Reads a text file; `None` if there is none.
///
/// # Errors
/// As [`read_optional`], and for contents that are not UTF-8.
pub fn read_text(path: &Path) -> Result<Option<String>, Error> {
    read_text_within(path, MAX_BYTES)
}

/// Reads a text file of a kind that may be larger than state files usually are; `None` if there is none.
///
/// # Errors
/// As [`read_text`], with this limit.
pub fn read_text_within(path: &Path, max_bytes: u64) -> Result<Option<String>, Error> {
    let Some(contents) = read_within(path, max_bytes)? else {
        return Ok(None);
    };
    String::from_utf8(contents)
        .map(Some)
        .map_err(|_| Error::NotText(path.to_owned()))
}

/// Whether there is such a directory. That it cannot be found out is no answer: who took it for none would forget what
/// the directory holds.
///
/// # Errors
/// The system does not tell.
pub fn is_dir(path: &Path) -> Result<bool, Error> {
    match std::fs::metadata(path) {
        Ok(found) => Ok(found.is_dir()),
        Err(err) if is_absent(err.kind()) || err.kind() == ErrorKind::NotADirectory => Ok(false),
        Err(err) => Err(Error::of(Action::Read, path)(err)),
    }
}
