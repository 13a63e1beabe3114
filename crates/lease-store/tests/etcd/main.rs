//! The store in etcd, on real servers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    unreachable_pub,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod access;
mod admin;
mod certificates;
mod cluster;
mod faults;
mod leases;
mod member;
mod scale;
mod support;
mod watch;
