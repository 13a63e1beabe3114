//! Differences from the captures that are decided, each with its reason; what is not among them fails.

use anyhow::{Context, Result, bail};

use super::compare::Compared;
use super::diff::{Change, changes};
use crate::report::Outcome;

/// The decided differences of this project's programs.
pub(super) const OF_THIS_PROJECT: &str = include_str!("deviations.txt");

/// A decided difference.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Deviation {
    name: String,
    ids: Vec<String>,
    configurations: Vec<String>,
    reason: String,
    changes: Vec<Change>,
}

/// All that are listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Deviations(Vec<Deviation>);

impl Deviations {
    /// Reads a list: `= name`, then `ids`, `in` and `why` with a colon, then lines that are missing behind `- ` and lines
    /// that are there instead behind `+ `. Lines that begin with `#` are comments.
    ///
    /// # Errors
    /// Fails when the list is not of this form.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let mut all: Vec<Deviation> = Vec::new();
        for line in text
            .lines()
            .filter(|line| !line.starts_with('#') && !line.trim().is_empty())
        {
            if let Some(name) = line.strip_prefix("= ") {
                all.push(Deviation {
                    name: name.to_owned(),
                    ids: Vec::new(),
                    configurations: Vec::new(),
                    reason: String::new(),
                    changes: Vec::new(),
                });
                continue;
            }
            let current = all
                .last_mut()
                .with_context(|| format!("{line:?} stands before the first `= name`"))?;
            current.take(line)?;
        }
        match all.iter().find(|one| !one.is_whole()) {
            Some(one) => bail!("{:?} needs `ids`, `in`, `why`, and lines that differ", one.name),
            None => Ok(Self(all)),
        }
    }

    /// How a comparison ended: passed without a difference, known with nothing but decided ones, failed with any other,
    /// and stale when one that is decided is not there.
    pub(super) fn judge(&self, id: &str, configuration: &str, compared: &[Compared]) -> Outcome {
        let listed: Vec<_> = self
            .0
            .iter()
            .filter(|one| one.is_about(id, configuration))
            .collect();
        let found: Vec<_> = compared
            .iter()
            .flat_map(|one| {
                let changes = changes(&one.expected, &one.observed);
                changes.into_iter().map(|change| (one.place.as_str(), change))
            })
            .collect();
        let is_listed = |change: &Change| listed.iter().any(|one| one.changes.contains(change));
        let unexplained: Vec<_> = found.iter().filter(|(_, change)| !is_listed(change)).collect();
        if !unexplained.is_empty() {
            let (expected, observed) = sides(unexplained.into_iter());
            return Outcome::Failed { expected, observed };
        }
        let is_there = |change: &Change| found.iter().any(|(_, other)| other == change);
        let stale = listed.iter().find_map(|one| {
            let gone = one.changes.iter().find(|change| !is_there(change))?;
            Some(format!(
                "{}: {}; not found: {}",
                one.name,
                one.reason,
                gone.line()
            ))
        });
        if let Some(reason) = stale {
            return Outcome::Stale { reason };
        }
        if listed.is_empty() {
            return Outcome::Passed;
        }
        let reasons: Vec<_> = listed
            .iter()
            .map(|one| format!("{}: {}", one.name, one.reason))
            .collect();
        let (expected, observed) = sides(found.iter());
        Outcome::Known {
            reason: reasons.join("; "),
            expected,
            observed,
        }
    }
}

impl Deviation {
    fn take(&mut self, line: &str) -> Result<()> {
        let list = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        if let Some(text) = line.strip_prefix("- ") {
            self.changes.push(Change::Missing(text.to_owned()));
        } else if let Some(text) = line.strip_prefix("+ ") {
            self.changes.push(Change::Extra(text.to_owned()));
        } else {
            match line.split_once(": ") {
                Some(("ids", ids)) => self.ids = list(ids),
                Some(("in", names)) => self.configurations = list(names),
                Some(("why", reason)) => reason.clone_into(&mut self.reason),
                Some(_) | None => bail!("{line:?} of {:?} is none of ids, in, why, - and +", self.name),
            }
        }
        Ok(())
    }

    fn is_whole(&self) -> bool {
        !(self.ids.is_empty()
            || self.configurations.is_empty()
            || self.reason.is_empty()
            || self.changes.is_empty())
    }

    fn is_about(&self, id: &str, configuration: &str) -> bool {
        self.ids.iter().any(|one| one == id) && self.configurations.iter().any(|one| one == configuration)
    }
}

/// The lines that are missing and those that are there instead, each once with the places where that is so.
fn sides<'a>(found: impl Iterator<Item = &'a (&'a str, Change)>) -> (String, String) {
    let (mut missing, mut extra): (Vec<Told<'_>>, Vec<Told<'_>>) = (Vec::new(), Vec::new());
    for (place, change) in found {
        let (side, line) = match change {
            Change::Missing(line) => (&mut missing, line),
            Change::Extra(line) => (&mut extra, line),
        };
        match side.iter_mut().find(|(other, _)| other == line) {
            Some((_, places)) if !places.contains(place) => places.push(place),
            Some(_) => {}
            None => side.push((line, vec![place])),
        }
    }
    (side_text(&missing), side_text(&extra))
}

/// A line, and the places where it differs.
type Told<'a> = (&'a str, Vec<&'a str>);

fn side_text(lines: &[Told<'_>]) -> String {
    if lines.is_empty() {
        return "no such line".to_owned();
    }
    let texts: Vec<_> = lines
        .iter()
        .map(|(line, places)| format!("{} ({})", line, places.join(", ")))
        .collect();
    texts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::interop::{golden, mixed};

    #[test]
    fn this_projects_list_is_about_comparisons_that_there_are() {
        let Deviations(listed) = Deviations::parse(OF_THIS_PROJECT).unwrap();
        let pairs = listed.iter().flat_map(|one| {
            one.ids
                .iter()
                .flat_map(|id| one.configurations.iter().map(move |name| (id, name)))
        });
        for (id, name) in pairs {
            let ids = if [mixed::NAME, mixed::ENDED_BY_OTHERS].contains(&name.as_str()) {
                &mixed::IDS
            } else {
                golden::named(name).unwrap().ids
            };
            assert!(ids.contains(&id.as_str()), "{id} in {name}");
        }
    }

    const LIST: &str = "# c\n= one\nids: A-1 A-2\nin: x y\nwhy: because\n- a\n+ b\n";

    fn judged(configuration: &str, expected: &[&str], observed: &[&str]) -> Outcome {
        let lines = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let compared = Compared {
            place: "node1".to_owned(),
            expected: lines(expected),
            observed: lines(observed),
        };
        Deviations::parse(LIST)
            .unwrap()
            .judge("A-1", configuration, &[compared])
    }

    #[test]
    fn a_difference_is_known_where_it_is_listed_and_fails_elsewhere() {
        let known = Outcome::Known {
            reason: "one: because".to_owned(),
            expected: "a (node1)".to_owned(),
            observed: "b (node1)".to_owned(),
        };
        assert_eq!(judged("x", &["a", "c"], &["b", "c"]), known);
        let failed = Outcome::Failed {
            expected: "a (node1)".to_owned(),
            observed: "b (node1)".to_owned(),
        };
        assert_eq!(judged("z", &["a"], &["b"]), failed);
        assert_eq!(judged("z", &["a"], &["a"]), Outcome::Passed);
    }

    #[test]
    fn another_difference_fails_beside_a_known_one() {
        let failed = Outcome::Failed {
            expected: "no such line".to_owned(),
            observed: "d (node1)".to_owned(),
        };
        assert_eq!(judged("x", &["a"], &["b", "d"]), failed);
    }

    #[test]
    fn a_listed_difference_that_is_not_there_is_told() {
        let stale = Outcome::Stale {
            reason: "one: because; not found: a".to_owned(),
        };
        assert_eq!(judged("x", &["a"], &["a"]), stale);
    }

    #[test]
    fn a_list_in_another_form_is_refused() {
        for wrong in ["- a\n", "= one\nids: A\nin: x\n- a\n", "= one\nfrom: x\n"] {
            assert!(Deviations::parse(wrong).is_err(), "{wrong}");
        }
    }
}
