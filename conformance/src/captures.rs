//! What the reference wrote: the captures of `data/captures`, or others in the same form.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

macro_rules! captures {
    ($configuration:literal: $($file:literal),*) => {
        (
            $configuration,
            &[$((
                $file,
                include_str!(concat!("../data/captures/", $configuration, "/", $file)),
            )),*],
        )
    };
}

/// The captures that are built in, by configuration and file.
const BUILT_IN: &[(&str, &[(&str, &str)])] = &[
    captures!("cni-dualstack-ports": "add-result.json", "after-del.txt", "host-sysctl.txt", "kernel.txt", "pod-sysctl.txt", "rules.txt", "state-after-add.txt"),
    captures!("cni-v4": "add-result.json", "after-del.txt", "host-sysctl.txt", "kernel.txt", "pod-sysctl.txt", "rules.txt", "state-after-add.txt"),
    captures!("cni-v4-ports": "add-result.json", "after-del.txt", "host-sysctl.txt", "kernel.txt", "pod-sysctl.txt", "rules.txt", "state-after-add.txt"),
    captures!("host-gw": "etcd-keys.txt", "node1-after-sigterm.txt", "node1-iptables-save.txt", "node1-kernel.txt", "node1-subnet.env", "node1-sysctl-device-nondefault.txt", "node2-iptables-save.txt", "node2-kernel.txt", "node2-subnet.env", "node3-iptables-save.txt", "node3-kernel.txt", "node3-subnet.env"),
    captures!("vxlan-directrouting": "etcd-keys.txt", "node1-after-sigterm.txt", "node1-iptables-save.txt", "node1-kernel.txt", "node1-subnet.env", "node1-sysctl-device-nondefault.txt", "node2-iptables-save.txt", "node2-kernel.txt", "node2-subnet.env", "node3-iptables-save.txt", "node3-kernel.txt", "node3-subnet.env"),
    captures!("vxlan-dualstack-iptables": "etcd-keys.txt", "node1-after-sigterm.txt", "node1-ip6tables-save.txt", "node1-iptables-save.txt", "node1-kernel.txt", "node1-subnet.env", "node1-sysctl-device-nondefault.txt", "node2-ip6tables-save.txt", "node2-iptables-save.txt", "node2-kernel.txt", "node2-subnet.env", "node3-ip6tables-save.txt", "node3-iptables-save.txt", "node3-kernel.txt", "node3-subnet.env"),
    captures!("vxlan-dualstack-nftables": "etcd-keys.txt", "node1-after-sigterm.txt", "node1-kernel.txt", "node1-nft-ruleset.txt", "node1-subnet.env", "node1-sysctl-device-nondefault.txt", "node2-kernel.txt", "node2-nft-ruleset.txt", "node2-subnet.env", "node3-kernel.txt", "node3-nft-ruleset.txt", "node3-subnet.env"),
    captures!("vxlan-iptables": "etcd-keys.txt", "node1-after-sigterm.txt", "node1-iptables-save.txt", "node1-kernel.txt", "node1-subnet.env", "node1-sysctl-device-nondefault.txt", "node2-iptables-save.txt", "node2-kernel.txt", "node2-subnet.env", "node3-iptables-save.txt", "node3-kernel.txt", "node3-subnet.env"),
    captures!("vxlan-nftables": "etcd-keys.txt", "node1-after-sigterm.txt", "node1-kernel.txt", "node1-nft-ruleset.txt", "node1-subnet.env", "node1-sysctl-device-nondefault.txt", "node2-kernel.txt", "node2-nft-ruleset.txt", "node2-subnet.env", "node3-kernel.txt", "node3-nft-ruleset.txt", "node3-subnet.env"),
];

/// Captures of one kind of programs, a folder for each configuration in which they ran.
#[derive(Debug, Clone)]
pub struct Captures(BTreeMap<String, BTreeMap<String, String>>);

impl Captures {
    /// Those of the reference, flannel v0.28.9 and plugins v1.9.1.
    #[must_use]
    pub fn built_in() -> Self {
        let own = |(name, text): &(&str, &str)| ((*name).to_owned(), (*text).to_owned());
        let folder = |(name, files): &(&str, &[(&str, &str)])| {
            let files = files.iter().map(own).collect();
            ((*name).to_owned(), files)
        };
        Self(BUILT_IN.iter().map(folder).collect())
    }

    /// Those of a directory that has folders of this form.
    ///
    /// # Errors
    /// Fails when they cannot be read.
    pub fn in_dir(dir: &Path) -> Result<Self> {
        let mut folders = BTreeMap::new();
        for (name, path) in listed(dir)?.into_iter().filter(|(_, path)| path.is_dir()) {
            let read = |(file, path): (String, PathBuf)| {
                ensure!(path.is_file(), "{} is no file", path.display());
                let text =
                    fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
                // What is cut off would pass as what the reference has not.
                ensure!(!text.trim().is_empty(), "{} is empty", path.display());
                Ok((file, text))
            };
            let files = listed(&path)?.into_iter().map(read).collect::<Result<_>>()?;
            folders.insert(name, files);
        }
        Ok(Self(folders))
    }

    /// Whether there are any of a configuration.
    #[must_use]
    pub fn has(&self, configuration: &str) -> bool {
        self.0.contains_key(configuration)
    }

    /// A file of a configuration.
    ///
    /// # Errors
    /// Fails when there is none.
    pub fn text(&self, configuration: &str, file: &str) -> Result<&str> {
        let found = self.0.get(configuration).and_then(|files| files.get(file));
        found
            .map(String::as_str)
            .with_context(|| format!("there is no capture {configuration}/{file}"))
    }

    /// What etcd held in a configuration.
    ///
    /// # Errors
    /// Fails when the file cannot be read.
    pub fn etcd(&self, configuration: &str) -> Result<Vec<Entry>> {
        Ok(entries(self.text(configuration, "etcd-keys.txt")?))
    }
}

/// What is in a directory, by name.
fn listed(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let named = entries.flatten().map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        (name, entry.path())
    });
    Ok(named.collect())
}

/// A key of etcd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Below Flannel's prefix: `config`, or as in `subnets/10.5.57.0-24`.
    pub name: String,
    /// Its value.
    pub value: String,
    /// How long etcd was told to keep it, in seconds; `None` where it does not end.
    pub ttl_secs: Option<u64>,
}

/// Reads keys and values, and the lines that `etcdctl lease timetolive --keys` prints.
fn entries(text: &str) -> Vec<Entry> {
    let lines: Vec<_> = text.lines().collect();
    let ttl = |name: &str| {
        let attached = format!("/{name}])");
        let line = lines
            .iter()
            .find(|line| line.starts_with("lease ") && line.ends_with(&attached))?;
        let (_, rest) = line.split_once("TTL(")?;
        rest.split_once("s)")?.0.parse().ok()
    };
    let pairs = lines.windows(2).filter_map(|pair| {
        let &[key, value] = pair else { return None };
        let name = key.strip_prefix("/coreos.com/network/")?;
        Some(Entry {
            name: name.to_owned(),
            value: value.to_owned(),
            ttl_secs: ttl(name),
        })
    });
    pairs.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_with_their_values_and_ends() {
        let entries = Captures::built_in().etcd("vxlan-dualstack-nftables").unwrap();
        let names: Vec<_> = entries.iter().map(|entry| entry.name.as_str()).collect();
        assert_eq!(
            names[..2],
            ["config", "subnets/10.244.25.0-24&fd00:10:244:63::-64"]
        );
        assert_eq!(entries.len(), 4);
        assert_eq!(entries[0].ttl_secs, None);
        assert_eq!(entries[3].ttl_secs, Some(86_400));
        assert!(entries[3].value.contains("\"fd00:77::13\""));
    }

    #[test]
    fn all_captures_are_built_in() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/captures");
        let mut on_disk = Captures::in_dir(&dir).unwrap().0;
        // Of these there is too little to compare programs with (the folder's README).
        for name in ["ipip", "udp"] {
            assert!(on_disk.remove(name).is_some(), "{name}");
        }
        let built_in = Captures::built_in().0;
        let names = |all: &BTreeMap<String, BTreeMap<String, String>>| -> Vec<String> {
            let files = all
                .iter()
                .flat_map(|(folder, files)| files.keys().map(move |file| format!("{folder}/{file}")));
            files.collect()
        };
        assert_eq!(names(&on_disk), names(&built_in));
        assert!(on_disk == built_in, "a file's text is another's");
    }

    #[test]
    fn what_is_not_there_is_named() {
        let missing = Captures::built_in()
            .text("host-gw", "node9-kernel.txt")
            .unwrap_err();
        assert!(missing.to_string().contains("host-gw/node9-kernel.txt"));
    }
}
