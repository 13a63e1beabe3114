//! A small file for each attachment, for plugins that must know later what they did: `<container id>_<interface>.json`,
//! or with a `:` in the middle, in a directory that all networks share. What it tells is gone after a power cut, so it is
//! not flushed.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cni_types::{NetworkName, Target};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::ser::{PrettyFormatter, Serializer};
use statefile::{Action, Durability, Error};

/// Modes of directory and files.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Between container and interface in the names of the reference's files. Both may have it in their own names: the files
/// of two attachments can be the same.
const OF_REFERENCE: char = '_';

/// As [`OF_REFERENCE`], for files that the reference doesn't know: neither container nor interface has it in its name.
pub(crate) const UNAMBIGUOUS: char = ':';

/// What a file holds.
pub(crate) trait Content: Serialize + DeserializeOwned {
    /// What stands between container and interface in the file's name.
    const SEPARATOR: char = OF_REFERENCE;

    /// The network of the attachment, if the file tells.
    fn network(&self) -> Option<&str>;
}

/// The file of an attachment by the reference's name for it.
pub(crate) fn path(dir: &Path, target: &Target) -> PathBuf {
    named(dir, target, OF_REFERENCE)
}

/// The file of an attachment with such a content.
pub(crate) fn path_of<T: Content>(dir: &Path, target: &Target) -> PathBuf {
    named(dir, target, T::SEPARATOR)
}

fn named(dir: &Path, target: &Target, separator: char) -> PathBuf {
    dir.join(format!(
        "{}{separator}{}.json",
        target.container_id, target.ifname
    ))
}

/// Writes the file of an attachment, in place of an earlier one.
pub(crate) fn write<T: Content>(dir: &Path, target: &Target, content: &T) -> Result<(), Error> {
    statefile::ensure_dir(dir, DIR_MODE)?;
    let path = path_of::<T>(dir, target);
    statefile::replace(&path, &text(content), FILE_MODE, Durability::Crash)
}

/// The content as the reference's plugins write theirs, indented by one space.
pub(crate) fn text(content: &impl Content) -> Vec<u8> {
    let mut text = Vec::new();
    let format = PrettyFormatter::with_indent(b" ");
    // Neither a struct of plain members nor memory can refuse.
    content
        .serialize(&mut Serializer::with_formatter(&mut text, format))
        .unwrap_or_default();
    text
}

/// Reads a file; `None` if there is none, or none that tells anything.
pub(crate) fn read<T: Content>(path: &Path) -> Result<Option<T>, Error> {
    match statefile::read_optional(path) {
        Ok(text) => Ok(text.and_then(|text| serde_json::from_slice(&text).ok())),
        Err(Error::TooLarge(_) | Error::NotAFile(_)) => Ok(None),
        Err(e) if is_impossible(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Removes a file, and what a killed writer left of it.
pub(crate) fn remove(path: &Path) -> Result<(), Error> {
    let file = statefile::remove(path, Durability::Crash).map(drop);
    for removed in [file, statefile::remove_unfinished(path)] {
        match removed {
            Err(e) if !is_impossible(&e) => return Err(e),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// All files that tell something. Those with a name of [`UNAMBIGUOUS`] are of plugins that use it, those with the
/// reference's of any.
pub(crate) fn all<T: Content>(dir: &Path) -> Result<Vec<(PathBuf, T)>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(source) => {
            return Err(Error::Io {
                action: Action::Read,
                path: dir.to_owned(),
                source,
            });
        }
    };
    let paths = entries.flatten().map(|entry| entry.path());
    let mut found = Vec::new();
    let is_of_content = |path: &PathBuf| {
        let name = path.file_name().map(OsStr::to_string_lossy);
        let may_be = |name: &str| T::SEPARATOR == UNAMBIGUOUS || !name.contains(UNAMBIGUOUS);
        name.is_some_and(|name| name.ends_with(".json") && may_be(&name))
    };
    for path in paths.filter(is_of_content) {
        if let Some(content) = read(&path)? {
            found.push((path, content));
        }
    }
    Ok(found)
}

/// The files of a network's attachments that are not among these, by either name. One that tells no network, as the
/// reference writes them, is nobody's to remove but its own container's.
pub(crate) fn stale<'a, T: Content>(
    dir: &Path,
    network: &NetworkName,
    valid: impl IntoIterator<Item = &'a Target>,
) -> Result<Vec<(PathBuf, T)>, Error> {
    let names = |target| [path_of::<T>(dir, target), path(dir, target)];
    let kept: Vec<_> = valid.into_iter().flat_map(names).collect();
    let mut found = all::<T>(dir)?;
    found.retain(|(path, content)| !kept.contains(path) && content.network() == Some(network.as_str()));
    Ok(found)
}

/// Whether no file can have such a name, or be in such a place.
fn is_impossible(error: &Error) -> bool {
    let kind = error.io().map(std::io::Error::kind);
    kind.is_some_and(|kind| matches!(kind, ErrorKind::NotADirectory | ErrorKind::InvalidFilename))
}

#[cfg(test)]
mod tests {
    use cni_types::ContainerId;
    use net_types::IfName;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
    struct Note {
        network: Option<String>,
        number: u32,
    }

    impl Content for Note {
        fn network(&self) -> Option<&str> {
            self.network.as_deref()
        }
    }

    fn target(id: &str) -> Target {
        Target {
            container_id: ContainerId::new(id).unwrap(),
            ifname: IfName::new("eth0").unwrap(),
        }
    }

    fn note(network: &str) -> Note {
        Note {
            network: Some(network.to_owned()),
            number: 5,
        }
    }

    #[test]
    fn files_are_written_read_found_by_network_and_removed() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("made/by");
        let network = NetworkName::new("net").unwrap();
        assert_eq!(read::<Note>(&path(&dir, &target("a"))).unwrap(), None);
        assert!(stale::<Note>(&dir, &network, []).unwrap().is_empty());
        for (id, network) in [("a", "net"), ("b", "net"), ("c", "other")] {
            write(&dir, &target(id), &note(network)).unwrap();
        }
        fs::write(dir.join("d_eth0.json"), r#"{"number":1}"#).unwrap();
        fs::write(dir.join("e_eth0.json"), "garbage").unwrap();
        fs::write(dir.join("lock"), "").unwrap();
        assert_eq!(read(&path(&dir, &target("a"))).unwrap(), Some(note("net")));
        assert_eq!(read::<Note>(&path(&dir, &target("e"))).unwrap(), None);

        let found = stale::<Note>(&dir, &network, [&target("a")]).unwrap();

        assert_eq!(found, [(path(&dir, &target("b")), note("net"))]);
        assert_eq!(all::<Note>(&dir).unwrap().len(), 4);
        for _ in 0..2 {
            remove(&path(&dir, &target("a"))).unwrap();
            assert_eq!(all::<Note>(&dir).unwrap().len(), 3);
        }
    }

    #[derive(Serialize, Deserialize)]
    struct Unambiguous(Note);

    impl Content for Unambiguous {
        const SEPARATOR: char = UNAMBIGUOUS;

        fn network(&self) -> Option<&str> {
            self.0.network()
        }
    }

    #[test]
    fn a_separator_that_no_name_has_tells_any_two_attachments_and_plugins_apart() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path();
        let [a, b] = [("a_b", "c"), ("a", "b_c")].map(|(id, ifname)| Target {
            container_id: ContainerId::new(id).unwrap(),
            ifname: IfName::new(ifname).unwrap(),
        });
        assert_eq!(path(dir, &a), path(dir, &b));
        for target in [&a, &b] {
            write(dir, target, &Unambiguous(note("net"))).unwrap();
        }
        assert!(all::<Note>(dir).unwrap().is_empty());
        assert_eq!(all::<Unambiguous>(dir).unwrap().len(), 2);
        // A file of former versions is kept with its attachment, and found without.
        write(dir, &b, &note("net")).unwrap();
        let network = NetworkName::new("net").unwrap();
        let stale = |valid: &[&Target]| {
            let found = stale::<Unambiguous>(dir, &network, valid.iter().copied()).unwrap();
            let mut paths: Vec<_> = found.into_iter().map(|(path, _)| path).collect();
            paths.sort();
            paths
        };
        let [of_a, of_b] = [&a, &b].map(|target| path_of::<Unambiguous>(dir, target));
        assert_eq!(stale(&[&b]), std::slice::from_ref(&of_a));
        assert_eq!(stale(&[]), [of_b, of_a, path(dir, &b)]);
    }

    #[test]
    fn a_name_that_no_file_can_have_has_no_file() {
        let temp = tempfile::tempdir().unwrap();
        let long = path(temp.path(), &target(&"a".repeat(300)));
        assert_eq!(read::<Note>(&long).unwrap(), None);
        remove(&long).unwrap();
    }
}
