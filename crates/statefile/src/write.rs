use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::error::{Action, Error};
use crate::lock::{create_or_open, open_locked, open_locked_existing};

/// How long a writer waits for another writer of the same name.
const WRITER_TIMEOUT: Duration = Duration::from_secs(10);
/// Mode of a file in preparation.
const PREPARING_MODE: u32 = 0o600;
/// The bits of a file's mode that say who may do what.
const MODE_BITS: u32 = 0o7777;
/// Longest name of a file, in bytes (linux `limits.h`, `NAME_MAX`).
const NAME_MAX_BYTES: usize = 255;
/// What a file in preparation is called by: around the name of the file that it becomes.
const UNFINISHED: (&str, &str) = (".", ".tmp");

/// What a change must outlive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// The end of the machine: contents and name are flushed to the disk.
    PowerCut,
    /// The end of the process: other processes never see a part, but nothing is flushed. It is for what is gone with
    /// the power as well, such as how to detach a running container; its readers take an empty file for none. A flush
    /// would take longer than everything else of such a change (measured on ext4: 22 ms of 25).
    Crash,
}

/// Replaces a file's contents, or creates it, with exactly this mode: readers see the old file or the whole new one.
///
/// # Errors
/// The path names a directory, a device or the like, the directory cannot be written, the disk is full and so on. The
/// old file is then in place and no temporary file is left; only if the very last step fails, flushing the directory,
/// the new file is in place already.
pub fn replace(path: &Path, contents: &[u8], mode: u32, durability: Durability) -> Result<(), Error> {
    if fs::symlink_metadata(path).is_ok_and(|found| !(found.is_file() || found.is_symlink())) {
        return Err(Error::NotAFile(path.to_owned()));
    }
    let mut prepared = Prepared::write(path, contents, mode, durability)?;
    fs::rename(&prepared.path, path).map_err(Error::of(Action::Rename, path))?;
    prepared.in_place = true;
    sync(parent(path), durability)
}

/// Creates a file that must not exist, with exactly this mode; it appears with its whole contents, or not at all.
///
/// # Errors
/// [`Error::Exists`] if there is such a file, which is then unchanged; else as [`replace`].
pub fn create_new(path: &Path, contents: &[u8], mode: u32, durability: Durability) -> Result<(), Error> {
    let mut prepared = Prepared::write(path, contents, mode, durability)?;
    match rename_exclusively(&prepared.path, path) {
        Ok(()) => prepared.in_place = true,
        Err(err) if err.kind() == ErrorKind::AlreadyExists => return Err(Error::Exists(path.to_owned())),
        Err(err) => return Err(Error::of(Action::Create, path)(err)),
    }
    sync(parent(path), durability)
}

/// Gives a file a name that nothing must have.
fn rename_exclusively(from: &Path, to: &Path) -> io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Some file systems cannot, such as NFS (rename(2)).
        Err(Errno::INVAL | Errno::NOSYS) => rename_if_absent(from, to),
        renamed => Ok(renamed?),
    }
}

/// The same by two steps: this crate's other writers of the name are kept away by the lock, and every caller has its
/// directory to itself.
fn rename_if_absent(from: &Path, to: &Path) -> io::Result<()> {
    match fs::symlink_metadata(to) {
        Ok(_) => Err(ErrorKind::AlreadyExists.into()),
        Err(err) if err.kind() == ErrorKind::NotFound => fs::rename(from, to),
        Err(err) => Err(err),
    }
}

fn is_missing(path: &Path) -> bool {
    fs::symlink_metadata(path).is_err_and(|err| is_absent(err.kind()))
}

/// Removes a file; `false` if there was none.
///
/// # Errors
/// The file cannot be removed.
pub fn remove(path: &Path, durability: Durability) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(err) if is_absent(err.kind()) || err.kind() == ErrorKind::NotADirectory => return Ok(false),
        // A file system that cannot be written says so before it looks whether there is such a file.
        Err(err) if err.kind() == ErrorKind::ReadOnlyFilesystem && is_missing(path) => {
            return Ok(false);
        }
        // Nobody's file: an empty directory gives way, and one that holds something is left.
        Err(err) if err.kind() == ErrorKind::IsADirectory => {
            drop(fs::remove_dir(path));
            return Ok(false);
        }
        Err(err) => return Err(Error::of(Action::Remove, path)(err)),
    }
    sync(parent(path), durability).map(|()| true)
}

/// Removes what a killed writer of a file left beside it; nothing but a file can be that. The caller keeps other
/// writers of the name away.
///
/// # Errors
/// It cannot be removed.
pub fn remove_unfinished(path: &Path) -> Result<(), Error> {
    remove(&unfinished_name(path)?, Durability::Crash).map(drop)
}

/// Removes the files in preparation of a directory that killed writers left; those of living ones stay.
///
/// # Errors
/// The directory cannot be read, or a file cannot be opened or removed; the others are removed all the same.
pub fn remove_abandoned(dir: &Path) -> Result<(), Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(err) if is_absent(err.kind()) || err.kind() == ErrorKind::NotADirectory => return Ok(()),
        Err(err) => return Err(Error::of(Action::Read, dir)(err)),
    };
    let mut outcome = Ok(());
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_some_and(is_unfinished) {
            outcome = outcome.and(remove_if_abandoned(&entry.path()));
        }
    }
    outcome
}

fn remove_if_abandoned(unfinished: &Path) -> Result<(), Error> {
    match open_locked_existing(unfinished) {
        // Whoever opens it meanwhile finds that it has lost its name, and begins anew.
        Ok(Some(_locked)) => remove(unfinished, Durability::Crash).map(drop),
        Ok(None) => Ok(()),
        // Nothing but a file can be one in preparation.
        Err(Error::NotAFile(_)) => Ok(()),
        Err(err) if err.io().is_some_and(|io| io.kind() == ErrorKind::NotFound) => Ok(()),
        Err(err) => Err(err),
    }
}

/// Whether a file of this name is one in preparation.
#[must_use]
pub fn is_unfinished(name: &str) -> bool {
    name.starts_with(UNFINISHED.0) && name.ends_with(UNFINISHED.1)
}

/// Creates a directory and those above it with this mode, less the umask, where they are absent.
///
/// # Errors
/// A directory cannot be created.
pub fn ensure_dir(path: &Path, mode: u32) -> Result<(), Error> {
    let created = DirBuilder::new().recursive(true).mode(mode).create(path);
    created.map_err(Error::of(Action::Create, path))
}

/// Whether the system's answer means that there is no such file, or can be none because its name is too long.
pub(crate) fn is_absent(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotFound | ErrorKind::InvalidFilename)
}

/// A complete file under its temporary name, locked; removed when dropped unless it was put in place.
struct Prepared {
    path: PathBuf,
    file: File,
    in_place: bool,
}

impl Prepared {
    fn write(target: &Path, contents: &[u8], mode: u32, durability: Durability) -> Result<Self, Error> {
        let path = unfinished_name(target)?;
        let open = || create_or_open(&path, PREPARING_MODE);
        let (file, found) = open_locked(&path, WRITER_TIMEOUT, open)?;
        let prepared = Self {
            file,
            path,
            in_place: false,
        };
        let (mut file, path) = (&prepared.file, &prepared.path);
        if found.mode() & MODE_BITS != PREPARING_MODE {
            set_mode(file, PREPARING_MODE, path)?;
        }
        if found.len() > 0 {
            file.set_len(0).map_err(Error::of(Action::Write, path))?;
        }
        file.write_all(contents).map_err(Error::of(Action::Write, path))?;
        if mode != PREPARING_MODE {
            set_mode(file, mode, path)?;
        }
        match durability {
            Durability::PowerCut => file.sync_all().map_err(Error::of(Action::Sync, path))?,
            Durability::Crash => {}
        }
        Ok(prepared)
    }
}

impl Drop for Prepared {
    /// The lock is still held here, so the name is this writer's to remove.
    fn drop(&mut self) {
        if !self.in_place {
            // A file that cannot be removed is taken over by the next writer of this name.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// `.name.tmp` beside the file; a name that leaves no room for that is told by a digest. Two long names of equal
/// digest would have their writers wait for each other, and no more.
fn unfinished_name(target: &Path) -> Result<PathBuf, Error> {
    let name = target
        .file_name()
        .ok_or_else(|| Error::NoName(target.to_owned()))?;
    let (before, after) = UNFINISHED;
    let mut hidden = OsString::from(before);
    if before.len() + name.len() + after.len() <= NAME_MAX_BYTES {
        hidden.push(name);
    } else {
        let mut digest = DefaultHasher::new();
        name.as_bytes().hash(&mut digest);
        hidden.push(format!("{:016x}", digest.finish()));
    }
    hidden.push(after);
    Ok(target.with_file_name(hidden))
}

fn set_mode(file: &File, mode: u32, path: &Path) -> Result<(), Error> {
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(Error::of(Action::SetMode, path))
}

fn parent(path: &Path) -> &Path {
    path.parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

fn sync(dir: &Path, durability: Durability) -> Result<(), Error> {
    match durability {
        Durability::PowerCut => {
            let synced = File::open(dir).and_then(|dir| dir.sync_all());
            synced.map_err(Error::of(Action::Sync, dir))
        }
        Durability::Crash => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_only_if_nothing_has_it_by_either_way() {
        for rename in [rename_exclusively, rename_if_absent] {
            let dir = tempfile::tempdir().unwrap();
            let path = |name: &str| dir.path().join(name);
            fs::write(path("new"), "new").unwrap();
            fs::write(path("file"), "old").unwrap();
            std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
            for taken in ["file", "link"] {
                let refused = rename(&path("new"), &path(taken)).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
            }
            assert_eq!(fs::read(path("file")).unwrap(), b"old");
            rename(&path("new"), &path("free")).unwrap();
            assert_eq!(fs::read(path("free")).unwrap(), b"new");
            assert!(!path("new").exists());
        }
    }
}
