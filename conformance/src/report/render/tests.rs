use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{html, json, junit, table};
use crate::report::markup::check::is_well_formed;
use crate::report::{Asked, Level, Outcome, Report, Row, Suite};

/// A text with everything that must not be taken for markup.
const HOSTILE: &str = "</failure><script>alert('\"&\u{1b}')</script>";

const IDS: [&str; 6] = ["ENV-01", "ENV-02", "ENV-03", "ENV-04", "ENV-05", "ENV-06"];

fn asked(id: &'static str) -> Asked {
    Asked {
        id,
        level: Level::Must,
        section: "§2",
        text: "it does it well",
        versions: Some("all".to_owned()),
    }
}

fn report() -> Report {
    let outcomes = [
        Outcome::Passed,
        Outcome::Failed {
            expected: "a".to_owned(),
            observed: HOSTILE.to_owned(),
        },
        Outcome::Known {
            reason: "old".to_owned(),
            expected: "b".to_owned(),
            observed: "c".to_owned(),
        },
        Outcome::Stale {
            reason: "mended".to_owned(),
        },
        Outcome::Skipped {
            reason: "none there".to_owned(),
        },
        Outcome::Broken {
            reason: "no memory".to_owned(),
        },
    ];
    let rows = outcomes.into_iter().zip(IDS).map(|(outcome, id)| Row {
        asked: asked(id),
        case: "it does it",
        subject: "bridge".to_owned(),
        version: Some("1.0.0".to_owned()),
        measured: vec!["3 µs".to_owned()],
        outcome,
        took: Duration::from_millis(1500),
    });
    Report {
        suite: Suite {
            name: "cni",
            title: "CNI conformance",
            subject: "plugin",
            column: "Plugin",
        },
        of: HOSTILE.to_owned(),
        headline: format!("network {HOSTILE}"),
        parts: vec![("bridge".to_owned(), "1.0.0".to_owned())],
        facts: Map::from_iter([("network".to_owned(), json!(HOSTILE))]),
        rows: rows.collect(),
        not_covered: vec![(asked("ENV-10"), "nobody can see it")],
        took: Duration::from_secs(2),
    }
}

#[test]
fn the_table_tells_each_case_and_sums_up() {
    let text = table(&report());
    assert!(
        text.contains(
            "FAIL   ENV-02  bridge  1.0.0  it does it\n       measured: 3 µs\n       expected: a\n"
        ),
        "{text}"
    );
    assert!(
        text.contains("skipped: none there") && text.contains("ENV-10"),
        "{text}"
    );
    let sum = "1 passed, 1 failed, 1 known differences, 1 listed as known but passed, 1 skipped, \
               1 errors of the runner in 2.0 s";
    assert!(text.trim_end().ends_with(sum), "{text}");
}

#[test]
fn markup_in_texts_stays_text() {
    for text in [junit(&report()), html(&report())] {
        assert!(!text.contains("<script>") && !text.contains('\u{1b}'), "{text}");
        assert!(text.contains("&lt;script&gt;"), "{text}");
    }
}

#[test]
fn junit_counts_what_it_holds() {
    let text = junit(&report());
    assert!(
        text.contains("tests=\"6\" failures=\"2\" errors=\"1\" skipped=\"2\""),
        "{text}"
    );
    let count = |part: &str| text.matches(part).count();
    assert_eq!(
        (
            count("<testcase "),
            count("<failure "),
            count("<error "),
            count("<skipped ")
        ),
        (6, 2, 1, 2)
    );
    assert_eq!(count("</testcase>"), 6);
}

#[test]
fn each_form_tells_where_a_case_is_asked_for_and_of_which_versions() {
    let text = junit(&report());
    for (name, value) in [
        ("requirement", "it does it well"),
        ("level", "must"),
        ("section", "§2"),
        ("versions", "all"),
        ("cniVersion", "1.0.0"),
    ] {
        let property = format!("<property name=\"{name}\" value=\"{value}\"/>");
        assert_eq!(text.matches(&property).count(), 6, "{property} in {text}");
    }
    for text in [table(&report()), html(&report())] {
        assert!(text.contains("§2 (must, versions: all)"), "{text}");
    }
    let document: Value = serde_json::from_str(&json(&report()).unwrap()).unwrap();
    assert_eq!(document["cases"][0]["section"], "§2");
}

#[test]
fn what_a_suite_has_not_is_no_property() {
    let mut report = report();
    for row in &mut report.rows {
        row.version = None;
        row.asked.versions = None;
    }
    let text = junit(&report);
    let names: Vec<_> = ["versions", "cniVersion", "section"]
        .map(|name| text.matches(&format!("name=\"{name}\"")).count())
        .into();
    assert_eq!(names, [0, 0, 6], "{text}");
}

#[test]
fn the_page_is_well_formed_and_needs_no_other_file() {
    let text = html(&report());
    assert_eq!(is_well_formed(&text), Ok(()), "{text}");
    for part in ["http:", "https:", "src=", "href=", "<link", "@import", "url("] {
        assert!(!text.contains(part), "{part}");
    }
}

#[test]
fn json_has_every_case_with_its_outcome() {
    let document: Value = serde_json::from_str(&json(&report()).unwrap()).unwrap();
    let outcomes: Vec<_> = document["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| case["outcome"].clone())
        .collect();
    assert_eq!(
        outcomes,
        ["passed", "failed", "known", "stale", "skipped", "error"]
    );
    assert_eq!(document["cases"][1]["observed"], HOSTILE);
    assert_eq!(document["cases"][1]["plugin"], "bridge");
    assert_eq!(document["cases"][1]["cniVersion"], "1.0.0");
    assert_eq!(document["cases"][1]["versions"], "all");
    assert_eq!(document["network"], HOSTILE);
    assert_eq!(document["summary"]["failed"], 1);
    assert!(!report().is_good());
}
