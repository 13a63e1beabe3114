//! The list of known differences: cases that are expected to fail, each with the reason.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::case::Case;

/// Cases that are known to fail. A line of the file is `ID | plugin | case | reason`; the plugin `*` is any, and lines
/// that begin with `#` are comments.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    id: String,
    plugin: String,
    case: String,
    reason: String,
}

impl Known {
    /// Reads the list.
    ///
    /// # Errors
    /// Fails when it cannot be read, or names a case that there is not.
    pub(super) fn load(file: &Path, cases: &[Case]) -> Result<Self> {
        let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
        Self::parse(&text, cases).with_context(|| format!("reading {}", file.display()))
    }

    fn parse(text: &str, cases: &[Case]) -> Result<Self> {
        let lines = text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty());
        let entries = lines.map(|line| {
            let cells: Vec<_> = line.split('|').map(str::trim).collect();
            let &[id, plugin, case, reason] = cells.as_slice() else {
                bail!("a line is `ID | plugin | case | reason`, not {line:?}");
            };
            if !cases.iter().any(|known| known.id == id && known.name == case) {
                bail!("there is no case {case:?} of {id}");
            }
            if reason.is_empty() {
                bail!("{line:?} has no reason");
            }
            let [id, plugin, case, reason] = [id, plugin, case, reason].map(str::to_owned);
            Ok(Entry {
                id,
                plugin,
                case,
                reason,
            })
        });
        entries.collect::<Result<_>>().map(Self)
    }

    /// Why a case is known to fail on a plugin, if it is.
    pub(super) fn reason(&self, case: &Case, plugin: &str) -> Option<&str> {
        let is_it = |entry: &&Entry| {
            entry.id == case.id && entry.case == case.name && (entry.plugin == "*" || entry.plugin == plugin)
        };
        self.0.iter().find(is_it).map(|entry| entry.reason.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cni::case::{About, case};

    const CASES: [Case; 1] = [case("ENV-01", "it works", About::First, |_| Ok(()))];

    #[test]
    fn differences_are_known_by_case_and_plugin() {
        let known = Known::parse("# x\n\nENV-01 | bridge | it works | because\n", &CASES).unwrap();
        assert_eq!(known.reason(&CASES[0], "bridge"), Some("because"));
        assert_eq!(known.reason(&CASES[0], "ptp"), None);
        let any = Known::parse("ENV-01 | * | it works | because", &CASES).unwrap();
        assert_eq!(any.reason(&CASES[0], "ptp"), Some("because"));
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
