//! Runs the program, and reads its report.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use conformance::lab::Binaries;
use serde_json::Value;

/// What a run of the judge gave.
pub(crate) struct Run {
    /// Whether it ended with status 0.
    pub(crate) good: bool,
    pub(crate) table: String,
    pub(crate) report: Value,
}

/// The program, which finds the programs under test where this test does.
pub(crate) fn program() -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_conformance"));
    program.env("FLANNEL_BIN_DIR", Binaries::find().unwrap().dir());
    program
}

/// Runs a suite to its end.
pub(crate) fn run_suite(suite: &str, mut program: Command, arguments: &[&str]) -> Run {
    let files = tempfile::tempdir().unwrap();
    let json = files.path().join("report.json");
    let output = program
        .arg(suite)
        .arg("--json")
        .arg(&json)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // A busy machine is waited for.
    let is_patience = |line: &str| line.starts_with("waiting for ");
    assert!(said.lines().all(is_patience), "{said}");
    Run {
        good: output.status.success(),
        table: String::from_utf8(output.stdout).unwrap(),
        report: serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap(),
    }
}

/// The cases that ended so, each as the texts of some members.
pub(crate) fn ended_so(report: &Value, outcome: &str, members: &[&str]) -> BTreeSet<String> {
    let cases = report["cases"].as_array().unwrap().iter();
    let ended = cases.filter(|case| case["outcome"] == outcome);
    let text = |case: &Value| {
        let texts: Vec<_> = members.iter().map(|key| case[key].as_str().unwrap()).collect();
        texts.join(" ")
    };
    ended.map(text).collect()
}

/// What is wrong by a report.
pub(crate) fn told(report: &Value) -> String {
    let cases = report["cases"].as_array().unwrap().iter();
    let bad = cases.filter(|case| !["passed", "skipped"].contains(&case["outcome"].as_str().unwrap()));
    bad.map(|case| format!("{case:#}")).collect::<Vec<_>>().join("\n")
}
