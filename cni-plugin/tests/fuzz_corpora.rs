//! The fuzz targets' corpora, replayed: bytes that once led to new places in the code.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    unreachable_pub,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

#[path = "../../fuzz/src/calls.rs"]
mod calls;
#[path = "../../fuzz/src/place.rs"]
#[expect(dead_code, reason = "a fuzzing process enters in another way")]
mod place;

use std::fs;
use std::path::Path;

/// Replays one target's corpus, on a thread of its own as the place cannot be left.
fn replay(target: &'static str) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let entries = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
    let mut cases: Vec<_> = entries.map(|path| (fs::read(&path).unwrap(), path)).collect();
    cases.sort();
    assert!(!cases.is_empty(), "{} is empty", dir.display());
    let thread = std::thread::spawn(move || {
        place::enter(None);
        for (data, path) in cases {
            let calls = std::panic::catch_unwind(|| calls::run(target, &data));
            assert!(calls.is_ok(), "{} fails", path.display());
        }
    });
    thread.join().unwrap();
}

#[test]
fn hostile_configurations_are_answered_without_a_panic() {
    replay("configuration");
}

#[test]
fn hostile_environments_are_answered_without_a_panic() {
    replay("environment");
}

#[test]
fn hostile_subnet_files_are_answered_without_a_panic() {
    replay("subnet_file");
}

#[test]
fn hostile_state_files_are_answered_without_a_panic() {
    replay("state_file");
}

#[test]
fn hostile_lease_directories_are_answered_without_a_panic() {
    replay("leases");
}

#[test]
fn hostile_previous_results_are_answered_without_a_panic() {
    replay("prev_result");
}
