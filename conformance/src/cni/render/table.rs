use std::fmt::Write as _;

use crate::cni::outcome::{Report, Row};

/// The report as a table for a terminal.
pub(in crate::cni) fn table(report: &Report) -> String {
    let mut text = format!(
        "network {}, programs in {}\n",
        report.network,
        report.plugin_dir.display()
    );
    // Writing to a string cannot fail.
    for (plugin, versions) in &report.plugins {
        writeln!(text, "  {plugin}: {}", versions.join(" ")).ok();
    }
    let width = report
        .rows
        .iter()
        .map(|row| row.plugin.chars().count())
        .max()
        .unwrap_or(0);
    text.push('\n');
    report.rows.iter().for_each(|row| line(&mut text, width, row));
    if !report.not_covered.is_empty() {
        text.push_str("\nnot covered:\n");
    }
    for (requirement, reason) in &report.not_covered {
        writeln!(text, "  {:<6}  {}: {reason}", requirement.id, requirement.text).ok();
    }
    writeln!(text, "\n{}", report.summary()).ok();
    text
}

fn line(text: &mut String, width: usize, row: &Row) {
    let outcome = row.outcome.name();
    let (id, plugin, version) = (row.requirement.id, &row.plugin, &row.version);
    writeln!(
        text,
        "{outcome:<5}  {id:<6}  {plugin:<width$}  {version:<5}  {}",
        row.case
    )
    .ok();
    for (heading, detail) in row.outcome.details() {
        writeln!(text, "       {heading}: {}", detail.replace('\n', "\n         ")).ok();
    }
    if row.outcome.is_bad() {
        let requirement = row.requirement;
        writeln!(
            text,
            "       asked by {} ({}, versions: {}): {}",
            requirement.section,
            requirement.level.name(),
            requirement.versions.text(),
            requirement.text
        )
        .ok();
    }
}
