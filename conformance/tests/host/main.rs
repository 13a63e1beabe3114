//! Hosts without Kubernetes: `scripts/install` on a system in a directory, the unit that it leaves under a real systemd in
//! namespaces of its own, and the Debian package in a minimal Debian and under systemd.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod chroot;
mod files;
mod install;
mod machine;
mod package;
mod unit;

use std::time::Duration;

/// The machine may be busy.
const LONG: Duration = Duration::from_secs(60);
const PROJECT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
