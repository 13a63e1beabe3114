//! The list of known differences: cases that are expected to fail, each with the reason.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

/// Cases that are known to fail. A line of the file is `ID | subject | case | reason`, the subject being a plugin or a
/// family; `*` is any, and lines that begin with `#` are comments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Known(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: String,
    subject: String,
    case: String,
    reason: String,
}

impl Known {
    /// Reads the list, if there is one; a case is its requirement's id and its name.
    ///
    /// # Errors
    /// Fails when it cannot be read, or names a case that there is not.
    pub(crate) fn load(file: Option<&Path>, cases: &[(&str, &str)]) -> Result<Self> {
        let Some(file) = file else {
            return Ok(Self::default());
        };
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Self::parse(&text, cases).with_context(|| format!("reading {}", file.display()))
    }

    fn parse(text: &str, cases: &[(&str, &str)]) -> Result<Self> {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let entries = lines.map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let &[id, subject, case, reason] = cells.as_slice() else {
                bail!("a line is `ID | subject | case | reason`, not {line:?}");
            };
            if !cases.contains(&(id, case)) {
                bail!("there is no case {case:?} of {id}");
            }
            if reason.is_empty() {
                bail!("{line:?} has no reason");
            }
            let [id, subject, case, reason] = [id, subject, case, reason].map(str::to_owned);
            Ok(Entry {
                id,
                subject,
                case,
                reason,
            })
        });
        entries.collect::<Result<_>>().map(Self)
    }

    /// Why a case is known to fail on a subject, if it is.
    pub(crate) fn reason(&self, id: &str, case: &str, subject: &str) -> Option<&str> {
        let is_it = |entry: &&Entry| {
            entry.id == id && entry.case == case && (entry.subject == "*" || entry.subject == subject)
        };
        self.0.iter().find(is_it).map(|entry| entry.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CASES: [(&str, &str); 1] = [("ENV-01", "it works")];

    #[test]
    fn differences_are_known_by_case_and_subject() {
        let known = Known::parse("# x\n\nENV-01 | bridge | it works | because\n", &CASES).unwrap();
        assert_eq!(known.reason("ENV-01", "it works", "bridge"), Some("because"));
        assert_eq!(known.reason("ENV-01", "it works", "ptp"), None);
        let any = Known::parse("ENV-01 | * | it works | because", &CASES).unwrap();
        assert_eq!(any.reason("ENV-01", "it works", "ptp"), Some("because"));
    }

    #[test]
    fn a_list_that_names_no_case_or_no_reason_is_refused() {
        for wrong in [
            "ENV-01 | * | it sings | because",
            "ENV-01 | * | it works |",
            "ENV-01 it works",
        ] {
            assert!(Known::parse(wrong, &CASES).is_err(), "{wrong}");
        }
    }
}
