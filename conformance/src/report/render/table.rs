use std::fmt::Write as _;

use crate::report::{Report, Row};

/// The report as a table for a terminal.
pub(in crate::report) fn table(report: &Report) -> String {
    let mut text = format!("{}\n", report.headline);
    // Writing to a string cannot fail.
    for (part, words) in &report.parts {
        writeln!(text, "  {part}: {words}").ok();
    }
    let widest = |length: fn(&Row) -> usize| report.rows.iter().map(length).max().unwrap_or(0);
    let widths = (
        widest(|row| row.subject.chars().count()),
        widest(|row| row.version().chars().count()),
    );
    text.push('\n');
    report.rows.iter().for_each(|row| line(&mut text, widths, row));
    if !report.not_covered.is_empty() {
        text.push_str("\nnot covered:\n");
    }
    for (asked, reason) in &report.not_covered {
        writeln!(text, "  {:<6}  {}: {reason}", asked.id, asked.text).ok();
    }
    writeln!(text, "\n{}", report.summary()).ok();
    text
}

fn line(text: &mut String, (width, version_width): (usize, usize), row: &Row) {
    let outcome = row.outcome.name();
    let (id, subject, case) = (row.asked.id, &row.subject, row.case);
    let version = match version_width {
        0 => String::new(),
        width => format!("{:<width$}  ", row.version()),
    };
    writeln!(text, "{outcome:<5}  {id:<6}  {subject:<width$}  {version}{case}").ok();
    for (heading, detail) in row.details() {
        writeln!(text, "       {heading}: {}", detail.replace('\n', "\n         ")).ok();
    }
    if row.outcome.is_bad() {
        writeln!(text, "       asked by {}: {}", row.asked.by(), row.asked.text).ok();
    }
}
