use std::fmt::Write as _;

use crate::report::markup::{escaped, page};
use crate::report::{Report, Row};

/// The report as one HTML page, which needs no other file.
pub(in crate::report) fn html(report: &Report) -> String {
    let mut text = format!(
        "<p><strong>{}</strong></p>\n<p>{}</p>\n<ul>\n",
        escaped(&report.summary()),
        escaped(&report.headline),
    );
    // Writing to a string cannot fail.
    for (part, words) in &report.parts {
        writeln!(text, "<li><code>{}</code> {}</li>", escaped(part), escaped(words)).ok();
    }
    text.push_str("</ul>\n");
    let bad: Vec<_> = report.rows.iter().filter(|row| row.outcome.is_bad()).collect();
    if !bad.is_empty() {
        section(&mut text, report, "Failures", bad.into_iter());
    }
    section(&mut text, report, "All cases", report.rows.iter());
    not_covered(&mut text, report);
    page(&format!("{} of {}", report.suite.title, report.of), "", &text)
}

fn section<'a>(text: &mut String, report: &Report, title: &str, rows: impl Iterator<Item = &'a Row>) {
    let column = escaped(report.suite.column);
    let head = format!("<thead><tr><th>Outcome</th><th>Id</th><th>{column}</th><th>Case</th></tr></thead>");
    write!(text, "<h2>{}</h2>\n<table>\n{head}\n<tbody>\n", escaped(title)).ok();
    rows.for_each(|one| row(text, one));
    text.push_str("</tbody>\n</table>\n");
}

fn row(text: &mut String, row: &Row) {
    let asked = &row.asked;
    let class = match row.outcome.name() {
        "pass" => "pass",
        "known" => "known",
        "skip" => "skip",
        _ => "bad",
    };
    write!(
        text,
        "<tr><td class=\"{class}\">{}</td><td>{}</td><td>{} {}</td><td>{}<div class=\"small\">{}: {}</div>",
        escaped(row.outcome.name()),
        escaped(asked.id),
        escaped(&row.subject),
        escaped(row.version()),
        escaped(row.case),
        escaped(&asked.by()),
        escaped(asked.text)
    )
    .ok();
    let details = row.details();
    if !details.is_empty() {
        text.push_str("<dl>");
        for (heading, detail) in details {
            write!(
                text,
                "<dt>{}</dt><dd><code>{}</code></dd>",
                escaped(heading),
                escaped(detail)
            )
            .ok();
        }
        text.push_str("</dl>");
    }
    text.push_str("</td></tr>\n");
}

fn not_covered(text: &mut String, report: &Report) {
    if report.not_covered.is_empty() {
        return;
    }
    text.push_str("<h2>Not covered</h2>\n<ul>\n");
    for (asked, reason) in &report.not_covered {
        let (id, what) = (escaped(asked.id), escaped(asked.text));
        writeln!(text, "<li>{id} {what}: {}</li>", escaped(reason)).ok();
    }
    text.push_str("</ul>\n");
}
