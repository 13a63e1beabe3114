use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::super::Managers;
use super::text;

/// Reads which programs manage the network of the host whose files are below `root`, and how.
pub(super) fn read(root: &Path) -> Managers {
    let runs = |path: &str| root.join(path).exists();
    Managers {
        networkd_removes_routes: runs("run/systemd/netif").then(|| networkd_removes_routes(root)),
        network_manager_leaves_alone: runs("run/NetworkManager").then(|| network_manager_leaves_alone(root)),
        mac_policy: runs("run/udev").then(|| mac_policy(root)).flatten(),
    }
}

/// `networkd.conf(5)`: the main file, then drop-ins in the order of their names; the last value counts, yes is the
/// default.
fn networkd_removes_routes(root: &Path) -> bool {
    let dirs = ["usr/lib", "run", "etc"].map(|dir| root.join(dir).join("systemd/networkd.conf.d"));
    let main = root.join("etc/systemd/networkd.conf");
    let files = std::iter::once(main).chain(by_name(&dirs, "conf"));
    let mut values = files.filter_map(|file| value(&text(file)?, "ManageForeignRoutes"));
    let last = values.next_back().unwrap_or_default().to_ascii_lowercase();
    !matches!(last.as_str(), "no" | "false" | "off" | "0" | "n" | "f")
}

/// `NetworkManager.conf(5)`: a list of unmanaged devices that names flannel's.
fn network_manager_leaves_alone(root: &Path) -> bool {
    let dirs = ["usr/lib", "run", "etc"].map(|dir| root.join(dir).join("NetworkManager/conf.d"));
    let main = root.join("etc/NetworkManager/NetworkManager.conf");
    let files = std::iter::once(main).chain(by_name(&dirs, "conf"));
    let mut lists = files.filter_map(|file| value(&text(file)?, "unmanaged-devices"));
    lists.any(|list| list.contains("interface-name:flannel"))
}

/// `systemd.link(5)`: of all files in the order of their names the first that matches counts.
fn mac_policy(root: &Path) -> Option<String> {
    let dirs = ["usr/lib", "run", "etc"].map(|dir| root.join(dir).join("systemd/network"));
    let files = by_name(&dirs, "link").into_iter().filter_map(text);
    let mut matching = files.filter(|link| {
        let names = value(link, "OriginalName").unwrap_or_default();
        names
            .split_whitespace()
            .any(|name| name == "*" || name.starts_with("flannel"))
    });
    value(&matching.next()?, "MACAddressPolicy")
}

/// The files of several directories in the order of their names; of equal names the later directory's counts.
fn by_name(dirs: &[PathBuf], extension: &str) -> Vec<PathBuf> {
    let mut files = BTreeMap::new();
    for entry in dirs
        .iter()
        .filter_map(|dir| fs::read_dir(dir).ok())
        .flatten()
        .flatten()
    {
        let path = entry.path();
        if path.extension().is_some_and(|found| found == extension) {
            files.insert(entry.file_name(), path);
        }
    }
    files.into_values().collect()
}

/// The last value of a key in a file of lines `key=value`.
fn value(text: &str, key: &str) -> Option<String> {
    let mut values = text.lines().filter_map(|line| {
        let (name, value) = line.split_once('=')?;
        (name.trim() == key).then(|| value.trim().to_owned())
    });
    values.next_back()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_any_of_them_has_none() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(read(root.path()), Managers::default());
    }

    #[test]
    fn defaults_are_what_the_programs_do_by_themselves() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["run/systemd/netif", "run/NetworkManager", "run/udev"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        write(
            root.path(),
            "usr/lib/systemd/network/99-default.link",
            "[Match]\nOriginalName=*\n\n[Link]\nMACAddressPolicy=persistent\n",
        );
        let expected = Managers {
            networkd_removes_routes: Some(true),
            network_manager_leaves_alone: Some(false),
            mac_policy: Some("persistent".to_owned()),
        };
        assert_eq!(read(root.path()), expected);
    }

    /// The files that we ship, where their first lines say that they belong.
    #[test]
    fn the_files_that_are_shipped_are_what_is_looked_for() {
        let root = tempfile::tempdir().unwrap();
        for dir in ["run/systemd/netif", "run/NetworkManager", "run/udev"] {
            fs::create_dir_all(root.path().join(dir)).unwrap();
        }
        write(
            root.path(),
            "usr/lib/systemd/network/99-default.link",
            "[Match]\nOriginalName=*\n\n[Link]\nMACAddressPolicy=persistent\n",
        );
        for (path, shipped) in [
            (
                "etc/systemd/networkd.conf.d/flannel.conf",
                include_str!("../../../../deploy/systemd/networkd-flannel.conf"),
            ),
            (
                "etc/NetworkManager/conf.d/flannel.conf",
                include_str!("../../../../deploy/systemd/networkmanager-flannel.conf"),
            ),
            (
                "etc/systemd/network/10-flannel.link",
                include_str!("../../../../deploy/systemd/10-flannel.link"),
            ),
        ] {
            assert!(
                shipped.lines().next().unwrap().contains(&format!("/{path}")),
                "{path}"
            );
            write(root.path(), path, shipped);
        }
        let expected = Managers {
            networkd_removes_routes: Some(false),
            network_manager_leaves_alone: Some(true),
            mac_policy: Some("none".to_owned()),
        };
        assert_eq!(read(root.path()), expected);
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
}
