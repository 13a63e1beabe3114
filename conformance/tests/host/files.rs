use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The bits of a mode that tell what it is of, and those of a regular file (inode(7)).
const FORMAT: u32 = 0o170_000;
const REGULAR: u32 = 0o100_000;

/// Everything below some places of a system.
pub(crate) type Files = BTreeMap<String, Entry>;

/// What is told of a file or directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its inode, which tells a new file from an old one.
    pub(crate) number: u64,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    /// What a file holds or a link leads to; of a directory nothing.
    pub(crate) content: Vec<u8>,
}

impl Entry {
    pub(crate) fn is_file(&self) -> bool {
        self.mode & FORMAT == REGULAR
    }
}

/// Reads places below a root; one that is not there has nothing.
pub(crate) fn files(root: &Path, places: &[&str]) -> Files {
    let mut found = Files::new();
    let mut left: Vec<_> = places.iter().map(|place| root.join(place)).collect();
    while let Some(path) = left.pop() {
        let metadata = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata,
            Err(err) if err.kind() == io::ErrorKind::NotFound => continue,
            Err(err) => panic!("{}: {err}", path.display()),
        };
        let content = if metadata.is_dir() {
            left.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            Vec::new()
        } else if metadata.is_symlink() {
            fs::read_link(&path)
                .unwrap()
                .into_os_string()
                .into_encoded_bytes()
        } else if metadata.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
        let entry = Entry {
            number: metadata.ino(),
            mode: metadata.mode(),
            owner: (metadata.uid(), metadata.gid()),
            content,
        };
        found.insert(name, entry);
    }
    found
}

/// The names of what differs between two looks, be it written anew or not.
pub(crate) fn differences(one: &Files, other: &Files) -> Vec<String> {
    let told = |entry: &Entry| Entry {
        number: 0,
        ..entry.clone()
    };
    let names = one.keys().chain(other.keys());
    let mut different: Vec<_> = names
        .filter(|name| one.get(*name).map(told) != other.get(*name).map(told))
        .cloned()
        .collect();
    different.sort();
    different.dedup();
    different
}
