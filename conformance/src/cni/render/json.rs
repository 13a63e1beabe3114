use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::cni::outcome::{Outcome, Report, Row};

/// The report as JSON; docs/conformance.md tells its members.
///
/// # Errors
/// Fails when it cannot be written as text.
pub(in crate::cni) fn json(report: &Report) -> Result<String> {
    let counts = report.counts();
    let plugins: Vec<_> = report
        .plugins
        .iter()
        .map(|(name, versions)| json!({"type": name, "versions": versions}))
        .collect();
    let not_covered: Vec<_> = report
        .not_covered
        .iter()
        .map(
            |(requirement, reason)| json!({"id": requirement.id, "text": requirement.text, "reason": reason}),
        )
        .collect();
    let document = json!({
        "pluginDir": report.plugin_dir,
        "network": report.network,
        "plugins": plugins,
        "summary": {
            "passed": counts.passed, "failed": counts.failed, "known": counts.known, "stale": counts.stale,
            "skipped": counts.skipped, "errors": counts.broken, "seconds": report.took.as_secs_f64(),
        },
        "cases": report.rows.iter().map(row).collect::<Vec<_>>(),
        "notCovered": not_covered,
    });
    let text = serde_json::to_string_pretty(&document).context("writing the report as JSON")?;
    Ok(text + "\n")
}

fn row(row: &Row) -> Value {
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
    let mut value = json!({
        "id": row.requirement.id, "requirement": row.requirement.text, "level": row.requirement.level.name(),
        "section": row.requirement.section, "versions": row.requirement.versions.text(),
        "case": row.case, "plugin": row.plugin, "cniVersion": row.version, "seconds": row.took.as_secs_f64(),
    });
    if let (Some(members), Value::Object(more)) = (value.as_object_mut(), outcome) {
        members.extend(more);
    }
    value
}
