//! The CNI specification, requirement by requirement: on the real binary, and on Debian's reference plugins (1.1.1)
//! where they implement the requirement, which proves the case itself. Where both differ, the case says why.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

#[path = "../common/mod.rs"]
mod common;

mod arguments;
mod chains;
mod configuration;
mod environment;
mod index;
mod results;
mod table;
mod verbs;
