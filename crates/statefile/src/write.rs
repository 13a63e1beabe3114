use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Action, Error};
use crate::lock::open_locked;

/// How long a writer waits for another writer of the same name.
const WRITER_TIMEOUT: Duration = Duration::from_secs(10);
/// Mode of a file in preparation.
const PREPARING_MODE: u32 = 0o600;

/// Replaces a file's contents, or creates it, with exactly this mode: readers see the old file or the whole new one,
/// also after a power cut.
///
/// # Errors
/// The path names a directory, a device or the like, the directory cannot be written, the disk is full and so on. The old file is then in place and no temporary
/// file is left; only if the very last step fails, flushing the directory, the new file is in place already.
pub fn replace(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    if fs::symlink_metadata(path).is_ok_and(|found| !(found.is_file() || found.is_symlink())) {
        return Err(Error::NotAFile(path.to_owned()));
    }
    let mut prepared = Prepared::write(path, contents, mode)?;
    fs::rename(&prepared.path, path).map_err(Error::of(Action::Rename, path))?;
    prepared.in_place = true;
    sync(parent(path))
}

/// Creates a file that must not exist, with exactly this mode; it appears with its whole contents, or not at all.
///
/// # Errors
/// [`Error::Exists`] if there is such a file, which is then unchanged; else as [`replace`].
pub fn create_new(path: &Path, contents: &[u8], mode: u32) -> Result<(), Error> {
    let prepared = Prepared::write(path, contents, mode)?;
    match fs::hard_link(&prepared.path, path) {
        Ok(()) => {}
        Err(err) if err.kind() == ErrorKind::AlreadyExists => return Err(Error::Exists(path.to_owned())),
        Err(err) => return Err(Error::of(Action::Create, path)(err)),
    }
    drop(prepared);
    sync(parent(path))
}

/// Removes a file durably; `false` if there was none.
///
/// # Errors
/// The file cannot be removed.
pub fn remove(path: &Path) -> Result<bool, Error> {
    match fs::remove_file(path) {
        Ok(()) => {}
        Err(err) if err.kind() == ErrorKind::NotFound => return Ok(false),
        Err(err) => return Err(Error::of(Action::Remove, path)(err)),
    }
    sync(parent(path)).map(|()| true)
}

/// Creates a directory and those above it with this mode, less the umask, where they are absent.
///
/// # Errors
/// A directory cannot be created.
pub fn ensure_dir(path: &Path, mode: u32) -> Result<(), Error> {
    let created = DirBuilder::new().recursive(true).mode(mode).create(path);
    created.map_err(Error::of(Action::Create, path))
}

/// A complete file under its temporary name, locked; removed when dropped unless it was put in place.
struct Prepared {
    path: PathBuf,
    file: File,
    in_place: bool,
}

impl Prepared {
    fn write(target: &Path, contents: &[u8], mode: u32) -> Result<Self, Error> {
        let path = temporary_name(target)?;
        let prepared = Self {
            file: open_alone(&path)?,
            path,
            in_place: false,
        };
        let (mut file, path) = (&prepared.file, &prepared.path);
        set_mode(file, PREPARING_MODE, path)?;
        file.set_len(0).map_err(Error::of(Action::Write, path))?;
        file.write_all(contents).map_err(Error::of(Action::Write, path))?;
        set_mode(file, mode, path)?;
        file.sync_all().map_err(Error::of(Action::Sync, path))?;
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

/// Locks the temporary file, and makes sure that it has no other name.
fn open_alone(path: &Path) -> Result<File, Error> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    loop {
        let file = open_locked(path, &options, PREPARING_MODE, WRITER_TIMEOUT)?;
        let metadata = file.metadata().map_err(Error::of(Action::Read, path))?;
        if !metadata.is_file() {
            return Err(Error::NotAFile(path.to_owned()));
        }
        if metadata.nlink() == 1 {
            return Ok(file);
        }
        // A writer crashed between giving the file its name and removing the temporary one: the file in place must
        // not be written through its second name.
        fs::remove_file(path).map_err(Error::of(Action::Remove, path))?;
    }
}

fn temporary_name(target: &Path) -> Result<PathBuf, Error> {
    let name = target
        .file_name()
        .ok_or_else(|| Error::NoName(target.to_owned()))?;
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".tmp");
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

fn sync(dir: &Path) -> Result<(), Error> {
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(Error::of(Action::Sync, dir))
}
