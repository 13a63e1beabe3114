use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;

use rustix::fs::{StatVfsMountFlags, statvfs};

use crate::error::{Action, Error};

/// Fails if a directory, which may be yet to be made, cannot take new files.
///
/// # Errors
/// Its file system, or that of the nearest directory above it that is there, can only be read, or has no block or no
/// inode left; or something else stands where a directory should.
pub fn require_room(dir: &Path) -> Result<(), Error> {
    let Some(present) = dir.ancestors().find(|dir| fs::symlink_metadata(dir).is_ok()) else {
        return Ok(());
    };
    let refused = |kind: ErrorKind| Err(Error::of(Action::Create, dir)(kind.into()));
    if !present.is_dir() {
        return refused(ErrorKind::NotADirectory);
    }
    let found = statvfs(present).map_err(io::Error::from);
    let found = found.map_err(Error::of(Action::Read, present))?;
    if found.f_flag.contains(StatVfsMountFlags::RDONLY) {
        return refused(ErrorKind::ReadOnlyFilesystem);
    }
    // Without a total there is no limit.
    let is_full = |total: u64, free: u64| total != 0 && free == 0;
    if is_full(found.f_blocks, found.f_bfree) || is_full(found.f_files, found.f_ffree) {
        return refused(ErrorKind::StorageFull);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_yet_to_be_made_needs_a_place() {
        let dir = tempfile::tempdir().unwrap();
        require_room(&dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a"), "").unwrap();
        let refused = require_room(&dir.path().join("a/b")).unwrap_err();
        assert_eq!(refused.io().unwrap().kind(), ErrorKind::NotADirectory);
    }
}
