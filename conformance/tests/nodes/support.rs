//! Runs the judge of networks, and reads its report.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

pub(crate) use crate::report::{Run, program, told};
use crate::report::{ended_so, run_suite};

pub(crate) fn judge(program: Command, arguments: &[&str]) -> Run {
    run_suite("nodes", program, arguments)
}

/// The cases that ended so, as id, family and name.
pub(crate) fn outcomes(report: &Value, outcome: &str) -> BTreeSet<String> {
    ended_so(report, outcome, &["id", "family", "case"])
}
