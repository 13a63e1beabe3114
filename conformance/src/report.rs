//! How cases end, and the report of a run in the forms in which people and programs read it: whatever is judged, the
//! forms are the same. A suite fills a [`Report`]; [`write()`] shows it.

mod known;
pub(crate) mod markup;
mod outcome;
mod output;
mod render;
mod requirement;

use std::time::Duration;

use serde_json::{Map, Value};

pub(crate) use known::Known;
pub(crate) use outcome::{CannotRun, Checked, Outcome, Stop, differs, expect};
pub(crate) use output::{Written, arguments, check_files, only, only_argument, write};
pub(crate) use requirement::requirements;

/// How binding a requirement is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// The specification says MUST, or requires it.
    Must,
    /// The specification says SHOULD.
    Should,
    /// The specification is silent or softer, but programs or people depend on it.
    DeFacto,
}

impl Level {
    /// The level in words.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Must => "must",
            Self::Should => "should",
            Self::DeFacto => "de facto",
        }
    }

    /// Reads the letter by which tables of requirements name it.
    pub(crate) fn of_letter(letter: &str) -> Option<Self> {
        match letter {
            "M" => Some(Self::Must),
            "S" => Some(Self::Should),
            "D" => Some(Self::DeFacto),
            _ => None,
        }
    }
}

/// A requirement as a report tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Asked {
    pub(crate) id: &'static str,
    pub(crate) level: Level,
    /// Where it is written.
    pub(crate) section: &'static str,
    pub(crate) text: &'static str,
    /// The versions of the specification that ask it, where there are several.
    pub(crate) versions: Option<String>,
}

impl Asked {
    /// Where and how bindingly it is asked, in words.
    fn by(&self) -> String {
        let versions = self
            .versions
            .as_deref()
            .map(|versions| format!(", versions: {versions}"));
        format!(
            "{} ({}{})",
            self.section,
            self.level.name(),
            versions.unwrap_or_default()
        )
    }
}

/// What a suite judges, and how its report calls that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Suite {
    /// The suite's name, as on the command line.
    pub(crate) name: &'static str,
    /// The name in titles.
    pub(crate) title: &'static str,
    /// What a case is run on, as the JSON member is called.
    pub(crate) subject: &'static str,
    /// The same at the head of a column.
    pub(crate) column: &'static str,
}

/// One case on one subject.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) asked: Asked,
    pub(crate) case: &'static str,
    /// What it was run on, such as a plugin's type.
    pub(crate) subject: String,
    /// The version that the subject was called with; empty where it was not, `None` where there are no versions.
    pub(crate) version: Option<String>,
    /// What was measured on the way, however it ended.
    pub(crate) measured: Vec<String>,
    pub(crate) outcome: Outcome,
    pub(crate) took: Duration,
}

impl Row {
    /// What there is to say, as pairs of a heading and a text.
    fn details(&self) -> Vec<(&'static str, &str)> {
        let measured = self.measured.iter().map(|text| ("measured", text.as_str()));
        measured.chain(self.outcome.details()).collect()
    }

    fn version(&self) -> &str {
        self.version.as_deref().unwrap_or_default()
    }
}

/// All that a run found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    pub(crate) suite: Suite,
    /// What was judged, in a few words for the title.
    pub(crate) of: String,
    /// The same in a line.
    pub(crate) headline: String,
    /// Its parts, each with what is to be said of it.
    pub(crate) parts: Vec<(String, String)>,
    /// Further members of the JSON form.
    pub(crate) facts: Map<String, Value>,
    pub(crate) rows: Vec<Row>,
    /// Requirements without a case, each with the reason.
    pub(crate) not_covered: Vec<(Asked, &'static str)>,
    pub(crate) took: Duration,
}

/// How many cases ended in which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Counts {
    passed: usize,
    failed: usize,
    known: usize,
    stale: usize,
    skipped: usize,
    broken: usize,
}

impl Report {
    fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for row in &self.rows {
            match row.outcome {
                Outcome::Passed => counts.passed += 1,
                Outcome::Failed { .. } => counts.failed += 1,
                Outcome::Known { .. } => counts.known += 1,
                Outcome::Stale { .. } => counts.stale += 1,
                Outcome::Skipped { .. } => counts.skipped += 1,
                Outcome::Broken { .. } => counts.broken += 1,
            }
        }
        counts
    }

    /// Whether every case passed, was skipped, or failed as it is known to.
    pub(crate) fn is_good(&self) -> bool {
        !self.rows.iter().any(|row| row.outcome.is_bad())
    }

    /// The numbers in one line.
    fn summary(&self) -> String {
        let Counts {
            passed,
            failed,
            known,
            stale,
            skipped,
            broken,
        } = self.counts();
        let mut parts = vec![format!("{passed} passed"), format!("{failed} failed")];
        let others = [
            (known, "known differences"),
            (stale, "listed as known but passed"),
            (skipped, "skipped"),
            (broken, "errors of the runner"),
        ];
        parts.extend(
            others
                .iter()
                .filter(|(count, _)| *count > 0)
                .map(|(count, what)| format!("{count} {what}")),
        );
        format!("{} in {:.1} s", parts.join(", "), self.took.as_secs_f64())
    }
}
