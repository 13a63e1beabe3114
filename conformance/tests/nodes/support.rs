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

pub(crate) fn judge(mut program: Command, arguments: &[&str]) -> Run {
    let files = tempfile::tempdir().unwrap();
    let json = files.path().join("report.json");
    let output = program
        .arg("nodes")
        .arg("--json")
        .arg(&json)
        .args(arguments)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.is_empty(), "{said}");
    Run {
        good: output.status.success(),
        table: String::from_utf8(output.stdout).unwrap(),
        report: serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap(),
    }
}

/// The cases that ended so, as id, family and name.
pub(crate) fn outcomes(report: &Value, outcome: &str) -> BTreeSet<String> {
    let cases = report["cases"].as_array().unwrap().iter();
    let ended = cases.filter(|case| case["outcome"] == outcome);
    let text = |case: &Value, key: &str| case[key].as_str().unwrap().to_owned();
    ended
        .map(|case| {
            format!(
                "{} {} {}",
                text(case, "id"),
                text(case, "family"),
                text(case, "case")
            )
        })
        .collect()
}

/// What is wrong by a report.
pub(crate) fn told(report: &Value) -> String {
    let cases = report["cases"].as_array().unwrap().iter();
    let bad = cases.filter(|case| !["passed", "skipped"].contains(&case["outcome"].as_str().unwrap()));
    bad.map(|case| format!("{case:#}")).collect::<Vec<_>>().join("\n")
}
