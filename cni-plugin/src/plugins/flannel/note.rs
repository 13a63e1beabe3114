//! What an ADD gave, noted on its state file, so that DEL need not search the reservations of all containers.
//!
//! The note is an extended attribute: the file's contents are the reference's, and a note is gone with its file. It may
//! be missing, on a file system without such attributes or after a killed call; then DEL searches. What it says is
//! checked before it is believed.

use std::net::IpAddr;
use std::path::Path;

use cni_types::Target;

/// The note's name.
const NOTE: &str = "flannel.attachment";

/// Notes whose the file is and which addresses the attachment has.
pub(super) fn write(path: &Path, target: &Target, addresses: &[IpAddr]) {
    let mut text = target.ifname.as_str().to_owned();
    for address in addresses {
        text = format!("{text} {address}");
    }
    // Without it DEL searches.
    let _noted = statefile::mark(path, NOTE, &text);
}

/// The addresses of the attachment; none if the file has no note, or another interface's.
pub(super) fn read(path: &Path, target: &Target) -> Vec<IpAddr> {
    let text = statefile::mark_of(path, NOTE).unwrap_or_default();
    let mut words = text.split(' ');
    if words.next() != Some(target.ifname.as_str()) {
        return Vec::new();
    }
    let addresses: Option<_> = words.map(|word| word.parse().ok()).collect();
    addresses.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use cni_types::ContainerId;
    use net_types::IfName;

    use super::*;

    #[test]
    fn a_note_is_read_back_for_its_own_interface_only_and_goes_with_the_file() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a");
        std::fs::write(&path, "{}").unwrap();
        let target = |ifname: &str| Target {
            container_id: ContainerId::new("a").unwrap(),
            ifname: IfName::new(ifname).unwrap(),
        };
        let given: [IpAddr; 2] = ["10.244.7.2".parse().unwrap(), "fd00::2".parse().unwrap()];
        assert!(read(&path, &target("eth0")).is_empty());
        write(&path, &target("eth0"), &given);
        assert_eq!(read(&path, &target("eth0")), given);
        assert!(read(&path, &target("eth1")).is_empty());
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "{}").unwrap();
        assert!(read(&path, &target("eth0")).is_empty());
    }
}
