//! The bare program that makes the objects of a pod's attachment, and what it finds on a node.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use conformance_floor::{BRIDGE, GATEWAY, MTU};

use crate::lab::Node;

/// The program's name; it is beside the one that measures.
pub(super) const NAME: &str = "conformance-floor";

/// Where the program is.
///
/// # Errors
/// Fails when it is not beside the own program.
pub(super) fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("looking for the own program")?;
    let path = own.with_file_name(NAME);
    ensure!(
        path.is_file(),
        "there is no program {}: scripts/bench builds it (as does `cargo build --release -p {NAME}`)",
        path.display()
    );
    Ok(path)
}

/// Gives a node what the program takes as given.
///
/// # Errors
/// Fails when the kernel refuses.
pub(super) fn prepare(node: &Node) -> Result<()> {
    node.ip(&["link", "add", BRIDGE, "mtu", &MTU.to_string(), "type", "bridge"])?;
    node.ip(&["address", "add", &format!("{GATEWAY}/24"), "dev", BRIDGE])?;
    node.ip(&["link", "set", BRIDGE, "up"]).map(drop)
}
