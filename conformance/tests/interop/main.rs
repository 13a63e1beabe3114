//! The comparison with the reference's captures is judged: by programs that write the same, by captures that were spoiled,
//! and by programs that were. So is the mixing with others.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod golden;
mod mixed;
#[path = "../shared/report.rs"]
mod report;
mod support;
