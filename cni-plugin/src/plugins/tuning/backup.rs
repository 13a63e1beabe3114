use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use cni_types::{Code, NetworkName, Target};
use net_types::MacAddr;
use netlink::{LinkSetting, LinkSettings};
use serde::{Deserialize, Serialize};
use serde_json::ser::{PrettyFormatter, Serializer};
use statefile::{Action, Durability};

use crate::error::CniError;

/// Mode of the directory; the reference gives 0600, which is as closed but lets root alone enter it.
const DIR_MODE: u32 = 0o700;

/// Mode of the reference's files.
const FILE_MODE: u32 = 0o600;

/// What an interface was set to before, so far as it was changed, in the reference's form.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Backup {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mac: Option<MacAddr>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    promisc: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mtu: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allmulti: Option<bool>,
    #[serde(default, rename = "txQLen", skip_serializing_if = "Option::is_none")]
    tx_queue_len: Option<u32>,
    /// Whose attachment it is; the reference has no such member and passes over it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    network: Option<String>,
}

/// A file with what must be put back cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("what tuning must put back")]
pub(crate) struct BackupError(#[source] statefile::Error);

impl CniError for BackupError {
    fn code(&self) -> Code {
        Code::IO
    }
}

impl Backup {
    /// What `wanted` is going to change.
    pub(crate) fn of(before: &LinkSettings, wanted: &[LinkSetting], network: &NetworkName) -> Self {
        let mut backup = Self {
            network: Some(network.as_str().to_owned()),
            ..Self::default()
        };
        for setting in wanted {
            match setting {
                LinkSetting::Mac(_) => backup.mac = before.mac,
                LinkSetting::MtuBytes(_) => backup.mtu = Some(before.mtu_bytes),
                LinkSetting::Promiscuous(_) => backup.promisc = Some(before.promiscuous),
                LinkSetting::AllMulticast(_) => backup.allmulti = Some(before.all_multicast),
                LinkSetting::TxQueueLen(_) => backup.tx_queue_len = Some(before.tx_queue_len),
            }
        }
        backup
    }

    /// What puts it back, in the reference's order; nothing that is so already, because setting an equal hardware
    /// address would flush the neighbours.
    pub(crate) fn settings(&self, now: &LinkSettings) -> Vec<LinkSetting> {
        let all = [
            self.mtu.map(LinkSetting::MtuBytes),
            self.mac.map(LinkSetting::Mac),
            self.promisc.map(LinkSetting::Promiscuous),
            self.allmulti.map(LinkSetting::AllMulticast),
            self.tx_queue_len.map(LinkSetting::TxQueueLen),
        ];
        all.into_iter()
            .flatten()
            .filter(|setting| !now.has(*setting))
            .collect()
    }

    /// Writes the file of an attachment.
    pub(crate) fn write(&self, dir: &Path, target: &Target) -> Result<(), BackupError> {
        statefile::ensure_dir(dir, DIR_MODE).map_err(BackupError)?;
        statefile::replace(&path(dir, target), &self.text(), FILE_MODE, Durability::Crash)
            .map_err(BackupError)
    }

    fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let format = PrettyFormatter::with_indent(b" ");
        // Neither a struct of plain members nor memory can refuse.
        self.serialize(&mut Serializer::with_formatter(&mut text, format))
            .unwrap_or_default();
        text
    }
}

/// Reads the file of an attachment; `None` when there is nothing to put back, or nothing that can be read.
pub(crate) fn read(dir: &Path, target: &Target) -> Result<Option<Backup>, BackupError> {
    read_file(&path(dir, target))
}

fn read_file(path: &Path) -> Result<Option<Backup>, BackupError> {
    match statefile::read_optional(path) {
        Ok(text) => Ok(text.and_then(|text| serde_json::from_slice(&text).ok())),
        Err(statefile::Error::TooLarge(_) | statefile::Error::NotAFile(_)) => Ok(None),
        // No file can have such a name, or be in such a place.
        Err(e) if e.io().is_some_and(|e| cannot_exist(e.kind())) => Ok(None),
        Err(error) => Err(BackupError(error)),
    }
}

fn cannot_exist(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
}

/// Removes the file of an attachment, and what a killed writer left of it.
pub(crate) fn remove(dir: &Path, target: &Target) -> Result<(), BackupError> {
    let path = path(dir, target);
    let file = statefile::remove(&path, Durability::Crash).map(drop);
    for removed in [file, statefile::remove_unfinished(&path)] {
        match removed {
            Err(e) if !e.io().is_some_and(|e| cannot_exist(e.kind())) => return Err(BackupError(e)),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// The files of a network's attachments that are not among these. A file of the reference's tells no network and is
/// nobody's to remove but its own container's.
pub(crate) fn stale<'a>(
    dir: &Path,
    network: &NetworkName,
    valid: impl IntoIterator<Item = &'a Target>,
) -> Result<Vec<PathBuf>, BackupError> {
    let kept: Vec<_> = valid.into_iter().map(|target| path(dir, target)).collect();
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        Err(source) => {
            return Err(BackupError(statefile::Error::Io {
                action: Action::Read,
                path: dir.to_owned(),
                source,
            }));
        }
    };
    let mut found = Vec::new();
    for path in entries.flatten().map(|entry| entry.path()) {
        if kept.contains(&path) || path.extension().is_none_or(|end| end != "json") {
            continue;
        }
        let backup = read_file(&path)?;
        if backup.is_some_and(|backup| backup.network.as_deref() == Some(network.as_str())) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes a file that [`stale`] found.
pub(crate) fn remove_file(path: &Path) -> Result<(), BackupError> {
    statefile::remove(path, Durability::Crash)
        .map(drop)
        .map_err(BackupError)
}

/// Removes the files in preparation that nobody is at work on.
pub(crate) fn remove_abandoned(dir: &Path) -> Result<(), BackupError> {
    statefile::remove_abandoned(dir).map_err(BackupError)
}

/// `<container id>_<interface>.json`, as the reference names it.
fn path(dir: &Path, target: &Target) -> PathBuf {
    dir.join(format!("{}_{}.json", target.container_id, target.ifname))
}

#[cfg(test)]
mod tests {
    use cni_types::ContainerId;
    use net_types::IfName;

    use super::*;

    fn target(id: &str) -> Target {
        Target {
            container_id: ContainerId::new(id).unwrap(),
            ifname: IfName::new("eth0").unwrap(),
        }
    }

    fn network(name: &str) -> NetworkName {
        NetworkName::new(name).unwrap()
    }

    const BEFORE: LinkSettings = LinkSettings {
        mac: Some(MacAddr::new([0x4a, 0x3f, 0x0c, 0x39, 0x58, 0x49])),
        mtu_bytes: 1500,
        promiscuous: false,
        all_multicast: false,
        tx_queue_len: 1000,
    };

    #[test]
    fn the_file_is_the_references_with_one_member_more() {
        let wanted = [
            LinkSetting::Mac(MacAddr::new([2; 6])),
            LinkSetting::Promiscuous(true),
            LinkSetting::MtuBytes(1400),
            LinkSetting::AllMulticast(false),
        ];
        let backup = Backup::of(&BEFORE, &wanted, &network("cbr0"));
        let recorded = "{\n \"mac\": \"4a:3f:0c:39:58:49\",\n \"promisc\": false,\n \"mtu\": 1500,\n \"allmulti\": false\n}";
        let ours = String::from_utf8(backup.text()).unwrap();
        assert_eq!(ours.replace(",\n \"network\": \"cbr0\"", ""), recorded);
        let read: Backup = serde_json::from_str(recorded).unwrap();
        assert_eq!(
            read,
            Backup {
                network: None,
                ..backup
            }
        );
    }

    #[test]
    fn only_what_was_changed_and_still_differs_is_put_back() {
        let wanted = [LinkSetting::MtuBytes(1400), LinkSetting::TxQueueLen(5)];
        let backup = Backup::of(&BEFORE, &wanted, &network("a"));
        let now = LinkSettings {
            mtu_bytes: 1400,
            promiscuous: true,
            ..BEFORE
        };
        assert_eq!(backup.settings(&now), [LinkSetting::MtuBytes(1500)]);
    }

    #[test]
    fn files_are_read_back_removed_and_found_by_network() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("made/by");
        assert_eq!(read(&dir, &target("a")).unwrap(), None);
        assert!(stale(&dir, &network("net"), []).unwrap().is_empty());
        let backup = Backup::of(&BEFORE, &[LinkSetting::MtuBytes(9)], &network("net"));
        for id in ["a", "b"] {
            backup.write(&dir, &target(id)).unwrap();
        }
        let foreign = Backup::of(&BEFORE, &[], &network("other"));
        foreign.write(&dir, &target("c")).unwrap();
        fs::write(dir.join("d_eth0.json"), r#"{"mtu":1500}"#).unwrap();
        fs::write(dir.join("e_eth0.json"), "garbage").unwrap();
        assert_eq!(read(&dir, &target("a")).unwrap(), Some(backup));
        assert_eq!(read(&dir, &target("e")).unwrap(), None);

        let found = stale(&dir, &network("net"), [&target("a")]).unwrap();

        assert_eq!(found, [path(&dir, &target("b"))]);
        remove(&dir, &target("a")).unwrap();
        remove(&dir, &target("a")).unwrap();
        assert_eq!(read(&dir, &target("a")).unwrap(), None);
    }

    #[test]
    fn a_name_that_no_file_can_have_has_no_file() {
        let temp = tempfile::tempdir().unwrap();
        let long = target(&"a".repeat(300));
        assert_eq!(read(temp.path(), &long).unwrap(), None);
        remove(temp.path(), &long).unwrap();
    }
}
