//! A minute of the soak, with a seed of the moment, which it prints; the same seed makes the same things happen again.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use conformance::lab::{Binaries, copy_program};

/// Runs the soak, and returns what it printed.
fn soak(store: &str, arguments: &[&str]) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_conformance"));
    program.env("FLANNEL_BIN_DIR", Binaries::find().unwrap().dir());
    program.args(["soak", "--store", store]).args(arguments);
    let output = program.output().unwrap();
    let (out, err) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{out}{err}");
    assert!(
        out.starts_with("seed ") && out.contains("everything held"),
        "{out}{err}"
    );
    out
}

#[test]
fn half_a_minute_of_random_things_with_leases_in_a_directory_leaves_everything_right() {
    println!("{}", soak("directory", &["--seconds=30"]));
}

#[test]
fn half_a_minute_of_random_things_with_leases_in_etcd_leaves_everything_right() {
    println!("{}", soak("etcd", &["--seconds=30", "--nodes=3"]));
}

#[test]
fn the_same_seed_makes_the_same_things_happen() {
    let first_rounds = || {
        let text = soak("directory", &["--seconds=2", "--seed=7", "--nodes=3"]);
        let rounds = text.lines().filter_map(|line| line.split_once("round 1: "));
        let told = rounds.map(|(_, rest)| rest.split(": right").next().unwrap().to_owned());
        told.collect::<Vec<_>>()
    };
    let rounds = first_rounds();
    assert_eq!(rounds.len(), 1);
    assert_eq!(rounds, first_rounds());
}

#[test]
fn one_round_is_told_as_one() {
    // There is a round in any case.
    let text = soak("directory", &["--seconds=0", "--nodes=2"]);
    let closing = text.lines().last().unwrap();
    assert!(closing.starts_with("1 round, "), "{closing}");
}

/// A plugin that frees nothing, and says that all is well.
const LEAKS: &str =
    "#!/bin/bash\n[ \"$CNI_COMMAND\" = DEL ] && exit 0\nexec -a flannel /opt/cni/bin/flannel-right\n";

#[test]
fn a_plugin_that_frees_nothing_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let right = Binaries::find().unwrap();
    for (from, to) in [("flanneld", "flanneld"), ("flannel", "flannel-right")] {
        copy_program(&right.dir().join(from), &dir.path().join(to)).unwrap();
    }
    fs::write(dir.path().join("flannel"), LEAKS).unwrap();
    fs::set_permissions(dir.path().join("flannel"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut program = Command::new(env!("CARGO_BIN_EXE_conformance"));
    program.args([
        "soak",
        "--seconds=60",
        "--settle-seconds=5",
        "--nodes=2",
        "--seed=5",
        "--bin-dir",
    ]);
    let output = program.arg(dir.path()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("seed 5, round ") && said.contains("are reserved"),
        "{said}"
    );
}
