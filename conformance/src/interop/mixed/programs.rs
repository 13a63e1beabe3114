//! Whose programs a node has, and how a runtime there calls the plugins.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Side, Terms};
use crate::lab::runtime::{HostPort, install_conflist, list_of, with_ports, write_conflist};
use crate::lab::{BIN_DIR, CNI_BIN_DIR, Lab, Node, copy_program};

/// The plugins that are needed of a side.
const PLUGINS: [&str; 5] = ["flannel", "bridge", "host-local", "portmap", "loopback"];
/// The directory of both sides' programs: below the one that nodes share, and as they see it.
const SIDES: &str = "sides";
const SIDES_ON_NODE: &str = "/run/lab/sides";
/// The port of the node that leads to its newest pod.
const MAPPED: HostPort = HostPort {
    host_port: 28_377,
    pod_port: 80,
};
/// The directory in which this project's portmap records the ports that it mapped.
const OWN_RECORD: &[u8] = b"flannel-portmap";

/// Looks whether a directory has the plugins that a side is made of: those without which there is neither a pod's link
/// nor a port of the node for it. What `flannel` runs may be in itself.
///
/// # Errors
/// Names the ones that are missing.
pub(super) fn check(dir: &Path) -> Result<()> {
    let lacks = |name: &&str| !dir.join(name).is_file();
    let main = lacks(&"flannel")
        .then_some(["bridge", "host-local"])
        .into_iter()
        .flatten();
    let missing: Vec<_> = main.chain(["portmap"]).filter(lacks).collect();
    if !missing.is_empty() {
        bail!(
            "{} has no {}: a side takes portmap, and either flannel or bridge and host-local",
            dir.display(),
            missing.join(", no ")
        );
    }
    Ok(())
}

/// Puts a side's programs where the lab's are looked for.
///
/// # Errors
/// Fails when the mount does.
pub(super) fn install(node: &Node, side: Side) -> Result<()> {
    let dir = format!("{SIDES_ON_NODE}/{}", side.name());
    for place in [BIN_DIR, CNI_BIN_DIR] {
        let output = node.exec(&["mount", "--bind", &dir, place])?;
        if !output.status.success() {
            bail!(
                "giving {} other programs: {}",
                node.name(),
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
    }
    Ok(())
}

/// Collects a side's programs in the lab: the ones that are given, and one's own where there are none.
///
/// # Errors
/// Fails when a program cannot be copied.
pub(super) fn gather(lab: &Lab, side: Side, flanneld: Option<&Path>, plugins: Option<&Path>) -> Result<()> {
    let dir = lab.shared_file(SIDES).join(side.name());
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let own = |name: &str| lab.shared_file("bin").join(name);
    let daemon = flanneld.map_or_else(|| own("flanneld"), Path::to_owned);
    copy_program(&daemon, &dir.join("flanneld"))?;
    match plugins {
        Some(given) => {
            for name in PLUGINS.into_iter().filter(|name| given.join(name).is_file()) {
                copy_program(&given.join(name), &dir.join(name))?;
            }
        }
        None => {
            copy_program(&own("flannel"), &dir.join("flannel"))?;
            for name in PLUGINS.into_iter().filter(|name| *name != "flannel") {
                symlink("flannel", dir.join(name)).with_context(|| format!("adding {name}"))?;
            }
        }
    }
    Ok(())
}

/// Whether a portmap keeps this project's record of mapped ports, as former releases do, and so ends it with the pod.
///
/// # Errors
/// Fails when the program cannot be read.
pub(super) fn keeps_own_record(portmap: &Path) -> Result<bool> {
    if !portmap.is_file() {
        return Ok(false);
    }
    let program = fs::read(portmap).with_context(|| format!("reading {}", portmap.display()))?;
    Ok(program.windows(OWN_RECORD.len()).any(|part| part == OWN_RECORD))
}

/// Writes kube-flannel's list, or where the other side has no flannel, one that does the same by what the daemon wrote.
/// Ports are mapped by iptables, which all plugins know.
///
/// # Errors
/// Fails when the node has no subnet file yet, or the list cannot be written.
pub(super) fn write_list(node: &Node, terms: &Terms) -> Result<()> {
    install_conflist(node)?;
    let mut list = list_of(node)?;
    let lacks_flannel = terms
        .plugins
        .as_ref()
        .is_some_and(|dir| !dir.join("flannel").is_file());
    if lacks_flannel {
        let (subnet, length) = node.subnet()?;
        let mtu: u32 = node
            .subnet_env("FLANNEL_MTU")?
            .parse()
            .context("reading the MTU")?;
        let ipam = json!({
            "type": "host-local",
            "ranges": [[{"subnet": format!("{subnet}/{length}")}]],
            "routes": [{"dst": node.subnet_env("FLANNEL_NETWORK")?}],
        });
        let bridge = json!({"type": "bridge", "bridge": "cni0", "mtu": mtu, "hairpinMode": true, "ipMasq": false,
            "isGateway": true, "isDefaultGateway": true, "ipam": ipam});
        if let Some(first) = list.pointer_mut("/plugins/0") {
            *first = bridge;
        }
    }
    if let Some(Value::Object(portmap)) = list.pointer_mut("/plugins/1") {
        portmap.insert("backend".to_owned(), json!("iptables"));
    }
    write_conflist(node, &list)
}

/// Calls plugins with a port of the node's for the pod.
///
/// # Errors
/// Fails with the call's own error, or when the list cannot be written.
pub(super) fn with_port<T>(node: &Node, call: impl FnOnce() -> Result<T>) -> Result<T> {
    let list = list_of(node)?;
    write_conflist(node, &with_ports(list.clone(), &[MAPPED]))?;
    let result = call();
    write_conflist(node, &list)?;
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_needs_a_plugin_for_links_and_one_for_ports() {
        let dir = tempfile::tempdir().unwrap();
        let said = || check(dir.path()).unwrap_err().to_string();
        assert!(
            said().contains("has no bridge, no host-local, no portmap"),
            "{}",
            said()
        );
        fs::write(dir.path().join("flannel"), "").unwrap();
        assert!(said().contains("has no portmap"), "{}", said());
        fs::write(dir.path().join("portmap"), "").unwrap();
        assert!(check(dir.path()).is_ok());
        fs::rename(dir.path().join("flannel"), dir.path().join("bridge")).unwrap();
        assert!(said().contains("has no host-local"), "{}", said());
        fs::write(dir.path().join("host-local"), "").unwrap();
        assert!(check(dir.path()).is_ok());
    }

    #[test]
    fn a_portmap_is_this_projects_if_it_names_its_record() {
        let dir = tempfile::tempdir().unwrap();
        let portmap = dir.path().join("portmap");
        assert!(!keeps_own_record(&portmap).unwrap());
        for (program, expected) in [
            ("\0/run/cni/flannel-portmap\0", true),
            ("\0/run/cni/portmap\0", false),
        ] {
            fs::write(&portmap, program).unwrap();
            assert_eq!(keeps_own_record(&portmap).unwrap(), expected, "{program:?}");
        }
    }
}
