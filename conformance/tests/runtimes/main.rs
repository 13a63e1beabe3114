//! Real container runtimes on the lab's nodes: Debian's containerd with runc, driven over the interface that kubelet uses,
//! and podman with CNI; and the images of `scripts/image`, run as the manifest has it.
//!
//! A runtime has its files below a node's `/run`. It needs to make control groups; the node has cgroup2 for that.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod containerd;
mod cri;
mod image;
mod manifest;
mod podman;
mod support;
