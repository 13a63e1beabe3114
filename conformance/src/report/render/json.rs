use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use crate::report::{Outcome, Report, Row};

/// The report as JSON; docs/conformance.md tells its members.
///
/// # Errors
/// Fails when it cannot be written as text.
pub(in crate::report) fn json(report: &Report) -> Result<String> {
    let counts = report.counts();
    let not_covered: Vec<_> = report
        .not_covered
        .iter()
        .map(|(asked, reason)| json!({"id": asked.id, "text": asked.text, "reason": reason}))
        .collect();
    let mut document = report.facts.clone();
    let mut insert = |name: &str, value| document.insert(name.to_owned(), value);
    insert(
        "summary",
        json!({
            "passed": counts.passed, "failed": counts.failed, "known": counts.known, "stale": counts.stale,
            "skipped": counts.skipped, "errors": counts.broken, "seconds": report.took.as_secs_f64(),
        }),
    );
    let cases = report.rows.iter().map(|one| row(report.suite.subject, one));
    insert("cases", cases.collect());
    insert("notCovered", Value::Array(not_covered));
    let text = serde_json::to_string_pretty(&document).context("writing the report as JSON")?;
    Ok(text + "\n")
}

fn row(subject: &str, row: &Row) -> Value {
    let outcome = match &row.outcome {
        Outcome::Passed => json!({"outcome": "passed"}),
        Outcome::Failed { expected, observed } => {
            json!({"outcome": "failed", "expected": expected, "observed": observed})
        }
        Outcome::Known {
            reason,
            expected,
            observed,
        } => {
            json!({"outcome": "known", "reason": reason, "expected": expected, "observed": observed})
        }
        Outcome::Stale { reason } => json!({"outcome": "stale", "reason": reason}),
        Outcome::Skipped { reason } => json!({"outcome": "skipped", "reason": reason}),
        Outcome::Broken { reason } => json!({"outcome": "error", "reason": reason}),
    };
    let mut members = Map::new();
    let mut insert = |name: &str, value| members.insert(name.to_owned(), value);
    insert("id", json!(row.asked.id));
    insert("requirement", json!(row.asked.text));
    insert("level", json!(row.asked.level.name()));
    insert("section", json!(row.asked.section));
    insert("case", json!(row.case));
    insert(subject, json!(row.subject));
    insert("seconds", json!(row.took.as_secs_f64()));
    if let Some(versions) = &row.asked.versions {
        insert("versions", json!(versions));
    }
    if let Some(version) = &row.version {
        insert("cniVersion", json!(version));
    }
    if !row.measured.is_empty() {
        insert("measured", json!(row.measured));
    }
    if let Value::Object(more) = outcome {
        members.extend(more);
    }
    Value::Object(members)
}
