//! The store on Node objects, against an API server that answers as a real one was measured to.
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
mod faults;
mod leases;
mod net_conf;
mod own_node;
mod scale;
mod start;
mod support;
mod watch;
