//! Small files that need not outlive a power cut.
//!
//! What they describe, a pod's addresses and how to detach it, is gone with the power as well, and readers take an
//! empty file for none. So they are written whole or not at all as other processes see it, but nothing is flushed: on
//! a disk that would take longer than everything else of an ADD (measured on ext4: 22 ms of 25). The caller's lock
//! keeps other writers of the same name away.

use std::fs::{self, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use statefile::{Action, Error};

/// Mode of the reference's files.
const MODE: u32 = 0o600;

/// Replaces a file, or creates it.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> Result<(), Error> {
    place(path, contents, |prepared| fs::rename(prepared, path))
}

/// Creates a file that must not exist.
pub(crate) fn create_new(path: &Path, contents: &[u8]) -> Result<(), Error> {
    place(path, contents, |prepared| {
        fs::hard_link(prepared, path)?;
        fs::remove_file(prepared)
    })
}

/// Removes a file; one that is absent is fine.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(failed(Action::Remove, path)(e))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Removes what a killed writer of a file left beside it.
pub(crate) fn remove_unfinished(path: &Path) -> Result<(), Error> {
    remove(&prepared_name(path))
}

/// Whether a file of this name is one in preparation.
pub(crate) fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

/// The wrapper for an answer of the system.
pub(crate) fn failed(action: Action, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

fn place(path: &Path, contents: &[u8], put: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), Error> {
    let prepared = prepared_name(path);
    let placed =
        write(&prepared, contents).and_then(|()| put(&prepared).map_err(failed(Action::Create, path)));
    if placed.is_err() {
        // The next writer of this name takes it over if this fails, too.
        drop(fs::remove_file(&prepared));
    }
    placed
}

fn write(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(MODE);
    let mut file = options.open(path).map_err(failed(Action::Create, path))?;
    file.write_all(contents).map_err(failed(Action::Write, path))
}

/// `.name.tmp` beside the file, as `statefile` calls its own.
fn prepared_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_created_once_and_removed_without_a_trace() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a:b");
        create_new(&path, b"one").unwrap();
        assert!(create_new(&path, b"two").is_err());
        assert_eq!(fs::read(&path).unwrap(), b"one");
        replace(&path, b"three").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"three");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_in_preparation_is_taken_over_even_if_it_is_another_ones_second_name() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        fs::write(temp.path().join(".a.tmp"), "left by a crash").unwrap();
        replace(&path, b"new").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        // A writer was killed between giving the file its name and removing the one in preparation.
        fs::hard_link(&path, temp.path().join(".a.tmp")).unwrap();
        remove_unfinished(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert!(is_unfinished(".a.tmp") && !is_unfinished("a"));
    }

    #[test]
    fn a_directory_that_cannot_be_written_keeps_the_old_file() {
        let temp = tempfile::tempdir().unwrap();
        fs::create_dir(temp.path().join("a")).unwrap();
        assert!(replace(&temp.path().join("a"), b"x").is_err());
        assert!(replace(&temp.path().join("none/a"), b"x").is_err());
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1);
    }
}
