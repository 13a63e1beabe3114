use std::fmt::Write as _;

use crate::report::markup::escaped;
use crate::report::{Outcome, Report, Row};

/// The report as JUnit XML, in the form that Jenkins, GitLab and GitHub's actions read. A known difference counts as
/// skipped there, because the form has no other word for what is no news. What is asked stands in each case's properties,
/// under the names that JSON has for it.
pub(in crate::report) fn junit(report: &Report) -> String {
    let counts = report.counts();
    let mut text = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n");
    let head = format!(
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"{}\" skipped=\"{}\" time=\"{:.3}\">\n",
        escaped(&format!("{} of {}", report.suite.title, report.of)),
        report.rows.len(),
        counts.failed + counts.stale,
        counts.broken,
        counts.skipped + counts.known,
        report.took.as_secs_f64()
    );
    text.push_str(&head);
    report
        .rows
        .iter()
        .for_each(|row| case(&mut text, report.suite.name, row));
    text.push_str("  </testsuite>\n</testsuites>\n");
    text
}

fn case(text: &mut String, suite: &str, row: &Row) {
    let name = format!("{} {} [{}]", row.asked.id, row.case, row.subject);
    // Writing to a string cannot fail.
    write!(
        text,
        "    <testcase classname=\"{suite}.{}\" name=\"{}\" time=\"{:.3}\"",
        escaped(row.asked.id),
        escaped(&name),
        row.took.as_secs_f64()
    )
    .ok();
    text.push_str(">\n");
    properties(text, row);
    let inside = match &row.outcome {
        Outcome::Passed => None,
        Outcome::Failed { expected, observed } => {
            let body = format!("expected: {expected}\nobserved: {observed}\n");
            Some(format!(
                "<failure message=\"{}\">{}</failure>",
                escaped(expected),
                escaped(&body)
            ))
        }
        Outcome::Stale { reason } => Some(format!(
            "<failure message=\"passes, but is listed as known\">{}</failure>",
            escaped(reason)
        )),
        Outcome::Known { reason, .. } => Some(format!(
            "<skipped message=\"known difference: {}\"/>",
            escaped(reason)
        )),
        Outcome::Skipped { reason } => Some(format!("<skipped message=\"{}\"/>", escaped(reason))),
        Outcome::Broken { reason } => Some(format!("<error message=\"{}\"/>", escaped(reason))),
    };
    if let Some(inside) = inside {
        writeln!(text, "      {inside}").ok();
    }
    text.push_str("    </testcase>\n");
}

fn properties(text: &mut String, row: &Row) {
    let optional = [
        ("versions", row.asked.versions.as_deref()),
        ("cniVersion", row.version.as_deref()),
    ];
    let known = [
        ("requirement", row.asked.text),
        ("level", row.asked.level.name()),
        ("section", row.asked.section),
    ];
    let given = optional
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)));
    text.push_str("      <properties>\n");
    for (name, value) in known.into_iter().chain(given) {
        writeln!(
            text,
            "        <property name=\"{name}\" value=\"{}\"/>",
            escaped(value)
        )
        .ok();
    }
    text.push_str("      </properties>\n");
}
