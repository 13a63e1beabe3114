//! The kernel in memory and the real kernel give the same answers and hold the same state.
//!
//! Random sequences of changes in a small world, sequences that once showed a difference (`fake_parity/*.ops`), and
//! one test for each fact that planning relies on. Where the two differ, the real kernel is right.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "test code: a panic is a failed test"
)]

mod common;
#[path = "fake_parity/facts.rs"]
mod facts;
#[path = "fake_parity/twin.rs"]
mod twin;

use std::fs;
use std::sync::mpsc;

use fake_kernel::strategy::world_ops;
use netstate::Op;
use proptest::prelude::*;
use proptest::test_runner::{Config, FileFailurePersistence, TestError, TestRunner};
use twin::Twin;

const REGRESSIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake_parity");
const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fake_parity/seeds.txt");

#[test]
fn random_changes_have_equal_results() {
    let cases = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    let mut runner = TestRunner::new(Config {
        cases: cases.unwrap_or(250),
        max_shrink_iters: 2000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(SEEDS))),
        ..Config::default()
    });
    let result = runner.run(&world_ops(0..45), |ops| {
        compare_in_netns(ops).map_err(TestCaseError::fail)
    });
    match result {
        Ok(()) => {}
        Err(TestError::Fail(why, ops)) => {
            let lines: Vec<String> = ops.iter().map(Op::to_string).collect();
            let lines = lines.join("\n");
            panic!("{why}\nafter these changes (keep them as fake_parity/<fact>.ops):\n{lines}");
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn sequences_that_once_differed_have_equal_results() {
    let mut count = 0;
    for entry in fs::read_dir(REGRESSIONS).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "ops") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let ops = lines.map(twin::change).collect();
        if let Err(why) = compare_in_netns(ops) {
            panic!("{}: {why}", path.display());
        }
        count += 1;
    }
    assert!(count > 0, "no sequence found in {REGRESSIONS}");
}

fn compare_in_netns(ops: Vec<Op>) -> Result<(), String> {
    let (sender, receiver) = mpsc::channel();
    common::in_netns(move || sender.send(compare(&ops)).unwrap());
    receiver.recv().map_err(|e| e.to_string())?
}

/// Applies changes one by one to both kernels; describes the first difference.
fn compare(ops: &[Op]) -> Result<(), String> {
    let mut twin = Twin::new();
    ops.iter().try_for_each(|op| twin.step(op))
}
