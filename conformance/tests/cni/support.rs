//! Runs the program, and reads its report.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use conformance::lab::{Binaries, copy_program};
use serde_json::Value;
use tempfile::TempDir;

/// Debian's containernetworking-plugins 1.1.1.
pub(crate) const REFERENCE: &str = "/usr/lib/cni";
/// What is known of them.
pub(crate) const KNOWN: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/known/containernetworking-plugins-1.1.1.txt"
);

/// What a run of the judge gave.
pub(crate) struct Run {
    /// Whether it ended with status 0.
    pub(crate) good: bool,
    pub(crate) table: String,
    pub(crate) report: Value,
}

pub(crate) fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_conformance"))
}

pub(crate) fn judge(dir: &Path, arguments: &[&str]) -> Run {
    assert!(dir.exists(), "install containernetworking-plugins");
    let files = tempfile::tempdir().unwrap();
    let json = files.path().join("report.json");
    let mut judge = program();
    judge
        .arg("cni")
        .arg("--plugin-dir")
        .arg(dir)
        .arg("--json")
        .arg(&json)
        .args(arguments);
    let output = judge.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.is_empty(), "{said}");
    let table = String::from_utf8(output.stdout).unwrap();
    let closing = format!("report written to {}", json.display());
    assert!(table.lines().last().unwrap().starts_with(&closing), "{table}");
    Run {
        good: output.status.success(),
        table,
        report: serde_json::from_str(&fs::read_to_string(json).unwrap()).unwrap(),
    }
}

/// Our binary under the names of its plugins.
pub(crate) fn ours() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let binary = Binaries::find().unwrap().dir().join("flannel");
    copy_program(&binary, &dir.path().join("flannel")).unwrap();
    for name in [
        "bridge",
        "host-local",
        "loopback",
        "portmap",
        "bandwidth",
        "firewall",
        "tuning",
    ] {
        symlink("flannel", dir.path().join(name)).unwrap();
    }
    dir
}

/// The cases that ended so.
pub(crate) fn cases<'a>(report: &'a Value, outcome: &str) -> Vec<&'a Value> {
    report["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["outcome"] == outcome)
        .collect()
}

/// The names of the cases that ended so.
pub(crate) fn names(report: &Value, outcome: &str) -> BTreeSet<String> {
    let name = |case: &Value| {
        format!(
            "{} {}",
            case["id"].as_str().unwrap(),
            case["case"].as_str().unwrap()
        )
    };
    cases(report, outcome).into_iter().map(name).collect()
}

/// What is wrong by a report.
pub(crate) fn told(report: &Value) -> String {
    let bad = ["failed", "stale", "error"]
        .into_iter()
        .flat_map(|outcome| cases(report, outcome));
    bad.map(|case| format!("{case:#}")).collect::<Vec<_>>().join("\n")
}
