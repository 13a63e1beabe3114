//! Whose programs a node has, and how a runtime there calls the plugins.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{Side, Terms};
use crate::lab::runtime::{install_conflist, list_of, write_conflist};
use crate::lab::{BIN_DIR, CNI_BIN_DIR, Lab, Node, copy_program};

/// The plugins that are needed of a side.
const PLUGINS: [&str; 5] = ["flannel", "bridge", "host-local", "portmap", "loopback"];
/// The directory of both sides' programs: below the one that nodes share, and as they see it.
const SIDES: &str = "sides";
const SIDES_ON_NODE: &str = "/run/lab/sides";
/// The port of the node that leads to its newest pod.
const HOST_PORT: u16 = 28_377;

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
    let mut with = list.clone();
    if let Some(Value::Object(portmap)) = with.pointer_mut("/plugins/1") {
        let mapping = json!({"hostPort": HOST_PORT, "containerPort": 80, "protocol": "tcp"});
        portmap.insert("runtimeConfig".to_owned(), json!({"portMappings": [mapping]}));
    }
    write_conflist(node, &with)?;
    let result = call();
    write_conflist(node, &list)?;
    result
}
