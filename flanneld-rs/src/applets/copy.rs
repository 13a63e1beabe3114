use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use net_types::sentence;
use statefile::{Action, Durability};

/// No program or configuration is larger.
const MAX_LEN_BYTES: u64 = 256 << 20;
/// The bits of a file's mode that a copy keeps.
const MODE_BITS: u32 = 0o777;

pub(super) const INSTALL_CONF_USAGE: &str = "usage: install-conf SOURCE TARGET";
pub(super) const CP_USAGE: &str = "usage: cp [-f] SOURCE TARGET (this cp copies one file)";

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error("{0} is not a file, or has more than 256 MiB")]
    NotAFile(PathBuf),
    #[error(transparent)]
    File(#[from] statefile::Error),
}

/// `install-conf SRC DST`: replaces the file DST by a copy of SRC, with its mode (flannel `images/Dockerfile`).
pub(super) fn install_conf(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    match args.into_iter().collect::<Vec<_>>().as_slice() {
        [source, target] => copy(Path::new(source), Path::new(target)),
        _ => Err(INSTALL_CONF_USAGE.to_owned()),
    }
}

/// `cp [-f] SRC DST`: the same; DST may be a directory, as cp(1) has it.
pub(super) fn cp(args: impl IntoIterator<Item = OsString>) -> Result<(), String> {
    let mut args: Vec<_> = args.into_iter().collect();
    args.retain(|arg| arg != "-f");
    match args.as_slice() {
        [source, target] if !source.as_encoded_bytes().starts_with(b"-") => {
            let (source, target) = (Path::new(source), Path::new(target));
            match source.file_name().filter(|_| target.is_dir()) {
                Some(name) => copy(source, &target.join(name)),
                None => copy(source, target),
            }
        }
        _ => Err(CP_USAGE.to_owned()),
    }
}

fn copy(source: &Path, target: &Path) -> Result<(), String> {
    let copied = read(source)
        .and_then(|(bytes, mode)| Ok(statefile::replace(target, &bytes, mode, Durability::PowerCut)?));
    copied.map_err(|err| sentence(&err))
}

fn read(source: &Path) -> Result<(Vec<u8>, u32), CopyError> {
    let failed = || statefile::Error::of(Action::Read, source);
    // Looked at before it is opened: opening a named pipe would wait.
    let metadata = fs::metadata(source).map_err(failed())?;
    if !metadata.is_file() || metadata.len() > MAX_LEN_BYTES {
        return Err(CopyError::NotAFile(source.to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(source).map_err(failed())?;
    file.take(MAX_LEN_BYTES)
        .read_to_end(&mut bytes)
        .map_err(failed())?;
    Ok((bytes, metadata.permissions().mode() & MODE_BITS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &[&Path]) -> Vec<OsString> {
        words.iter().map(|word| word.as_os_str().to_owned()).collect()
    }

    #[test]
    fn a_copy_replaces_the_file_and_keeps_the_sources_mode() {
        let dir = tempfile::tempdir().unwrap();
        let (source, target) = (dir.path().join("conf"), dir.path().join("10-x.conflist"));
        fs::write(&source, "new").unwrap();
        fs::set_permissions(&source, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(&target, "old").unwrap();
        let old = File::open(&target).unwrap();
        install_conf(args(&[&source, &target])).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "new");
        assert_eq!(
            fs::metadata(&target).unwrap().permissions().mode() & 0o7777,
            0o640
        );
        let mut kept = String::new();
        (&old).read_to_string(&mut kept).unwrap();
        assert_eq!(kept, "old", "who has the old file open keeps it");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn cp_takes_a_directory_as_its_target() {
        let dir = tempfile::tempdir().unwrap();
        let source = dir.path().join("flannel");
        fs::write(&source, "program").unwrap();
        fs::create_dir(dir.path().join("bin")).unwrap();
        cp(args(&[Path::new("-f"), &source, &dir.path().join("bin")])).unwrap();
        assert_eq!(
            fs::read_to_string(dir.path().join("bin/flannel")).unwrap(),
            "program"
        );
    }

    #[test]
    fn what_cannot_be_copied_leaves_the_target_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        fs::write(&target, "old").unwrap();
        let absent = dir.path().join("absent");
        let said = install_conf(args(&[&absent, &target])).unwrap_err();
        assert!(said.contains("absent"), "{said}");
        for source in [dir.path(), Path::new("/dev/zero")] {
            let said = cp(args(&[source, &target])).unwrap_err();
            assert!(said.contains("is not a file"), "{said}");
        }
        for words in [&[][..], &[target.as_path()], &[Path::new("-r"), &target, &target]] {
            assert!(cp(args(words)).unwrap_err().contains("usage"));
            assert!(install_conf(args(words)).is_err());
        }
        assert_eq!(fs::read_to_string(&target).unwrap(), "old");
    }
}
