//! Health, metrics and the status of a real daemon on a real kernel, in a network namespace of the test's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod check;
mod cni_conf;
mod http;
mod kube;
mod neighbours;
mod node;
mod notify;
mod privilege;
mod status;
