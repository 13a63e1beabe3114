//! Kernel parameters of a network namespace.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// The families' parameters, of which devices' are a part.
const ROOTS: [&str; 2] = ["/proc/sys/net/ipv4", "/proc/sys/net/ipv6"];

/// Parameters and their values, named as by sysctl(8): a device's dot is a slash.
pub(super) type Sysctls = BTreeMap<String, String>;

/// Reads the calling thread's; what may not be read is left out.
///
/// # Errors
/// Fails when a folder cannot be read.
pub(super) fn all() -> Result<Sysctls> {
    let mut found = Sysctls::new();
    for root in ROOTS {
        read(Path::new(root), root.trim_start_matches("/proc/sys/"), &mut found)?;
    }
    Ok(found)
}

fn read(dir: &Path, name: &str, found: &mut Sysctls) -> Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    for entry in entries.flatten() {
        let own = entry.file_name().to_string_lossy().replace('.', "/");
        let name = format!("{}.{own}", name.replace("net/", "net."));
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            read(&entry.path(), &name, found)?;
        } else if let Ok(value) = fs::read_to_string(entry.path()) {
            found.insert(name, value.trim().replace('\t', " "));
        }
    }
    Ok(())
}

/// The parameters of devices that differ from the kernel's default, as in `net.ipv6.conf.a/1.mtu = 1450 (default 1280)`.
pub(super) fn beside_default(all: &Sysctls, is_device: impl Fn(&str) -> bool) -> Vec<String> {
    let own = all.iter().filter_map(|(name, value)| {
        let (head, device, parameter) = of_device(name)?;
        let default = all.get(&format!("{head}.default.{parameter}"))?;
        (is_device(device) && value != default).then(|| format!("{name} = {value} (default {default})"))
    });
    own.collect()
}

/// What changed, and what new devices have that differs from the kernel's default.
pub(super) fn changes(before: &Sysctls, after: &Sysctls) -> Vec<String> {
    let changed = after.iter().filter_map(|(name, value)| {
        let old = before.get(name).filter(|old| *old != value)?;
        Some(format!("changed {name}: {old} -> {value}"))
    });
    let is_new = |device: &str| {
        !before
            .keys()
            .any(|name| of_device(name).is_some_and(|(_, old, _)| old == device))
    };
    let new = beside_default(after, is_new);
    changed
        .chain(new.into_iter().map(|line| format!("new {line}")))
        .collect()
}

/// Divides `net.ipv4.conf.DEVICE.PARAMETER`.
fn of_device(name: &str) -> Option<(&str, &str, &str)> {
    let (head, parameter) = name.rsplit_once('.')?;
    let (head, device) = head.rsplit_once('.')?;
    head.ends_with(".conf")
        .then_some((head, device, parameter))
        .filter(|(_, device, _)| !["all", "default"].contains(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_and_new_devices_parameters_are_told() {
        let table = |rows: &[(&str, &str)]| -> Sysctls {
            rows.iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect()
        };
        let before = table(&[
            ("net.ipv4.ip_forward", "0"),
            ("net.ipv4.conf.default.x", "0"),
            ("net.ipv4.conf.lo.x", "7"),
        ]);
        let mut after = before.clone();
        after.extend(table(&[
            ("net.ipv4.ip_forward", "1"),
            ("net.ipv4.conf.a/1.x", "3"),
        ]));
        let expected = [
            "changed net.ipv4.ip_forward: 0 -> 1",
            "new net.ipv4.conf.a/1.x = 3 (default 0)",
        ];
        assert_eq!(changes(&before, &after), expected);
    }

    #[test]
    fn the_kernels_parameters_are_named_as_by_sysctl() {
        let found = all().unwrap();
        assert!(found.contains_key("net.ipv4.ip_forward"));
        assert!(found.contains_key("net.ipv4.conf.lo.forwarding"));
    }
}
