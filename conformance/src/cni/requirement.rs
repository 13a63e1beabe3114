//! What is asked of a plugin, as a table: `requirements.txt`.

use anyhow::{Context, Result, bail};

use crate::report::{Asked, Level};

/// The published versions of the specification, the oldest first.
pub(super) const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The table itself.
pub(super) const TABLE: &str = include_str!("requirements.txt");

/// A range of versions of the specification, by their places in [`VERSIONS`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Versions {
    first: usize,
    last: usize,
}

impl Versions {
    /// Reads `0.4.0-` or `0.1.0-0.4.0`.
    fn parse(text: &str) -> Result<Self> {
        let (first, last) = text
            .split_once('-')
            .with_context(|| format!("{text:?} is no range of versions"))?;
        let last = if last.is_empty() {
            VERSIONS.len() - 1
        } else {
            place(last)?
        };
        Ok(Self {
            first: place(first)?,
            last,
        })
    }

    pub(super) fn has(self, version: &str) -> bool {
        place(version).is_ok_and(|place| (self.first..=self.last).contains(&place))
    }

    /// The range in words.
    pub(super) fn text(self) -> String {
        let name = |place: usize| VERSIONS.get(place).copied().unwrap_or_default();
        match (self.first, self.last) {
            (0, last) if last == VERSIONS.len() - 1 => "all".to_owned(),
            (first, last) if last == VERSIONS.len() - 1 => format!("{} and later", name(first)),
            (first, last) if first == last => name(first).to_owned(),
            (first, last) => format!("{} to {}", name(first), name(last)),
        }
    }
}

/// The place of a version among all.
///
/// # Errors
/// Fails for a version that was never published.
pub(super) fn place(version: &str) -> Result<usize> {
    VERSIONS
        .iter()
        .position(|known| *known == version)
        .with_context(|| format!("{version:?} is no version of the specification"))
}

/// One requirement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Requirement {
    pub(super) id: &'static str,
    pub(super) level: Level,
    pub(super) versions: Versions,
    /// Where it is written; § is a section of the specification 1.1.0.
    pub(super) section: &'static str,
    pub(super) text: &'static str,
}

impl Requirement {
    /// The requirement as a report tells it.
    pub(super) fn asked(&self) -> Asked {
        Asked {
            id: self.id,
            level: self.level,
            section: self.section,
            text: self.text,
            versions: Some(self.versions.text()),
        }
    }

    fn parse(line: &'static str) -> Result<Self> {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        let &[id, level, versions, section, text] = cells.as_slice() else {
            bail!("{line:?} has not five cells");
        };
        Ok(Self {
            id,
            level: Level::of_letter(level).with_context(|| format!("{level:?} is no level"))?,
            versions: Versions::parse(versions)?,
            section,
            text,
        })
    }
}

/// All requirements, in the order of the table.
///
/// # Errors
/// Fails when the table is not well-formed, which a test excludes.
pub(super) fn all() -> Result<Vec<Requirement>> {
    let lines = TABLE
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(Requirement::parse).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_table_is_well_formed_and_names_each_requirement_once() {
        let all = all().unwrap();
        let ids: BTreeSet<_> = all.iter().map(|requirement| requirement.id).collect();
        assert_eq!(ids.len(), all.len());
        assert_eq!(all.len(), 117);
    }

    #[test]
    fn ranges_have_both_ends() {
        let of = |text| Versions::parse(text).unwrap();
        assert!(of("0.4.0-").has("1.1.0") && of("0.4.0-").has("0.4.0") && !of("0.4.0-").has("0.3.1"));
        assert!(!of("0.1.0-0.4.0").has("1.0.0") && !of("0.1.0-").has("2.0.0"));
        assert_eq!(of("0.1.0-").text(), "all");
        assert_eq!(of("1.0.0-1.0.0").text(), "1.0.0");
        assert_eq!(of("1.0.0-").text(), "1.0.0 and later");
        assert_eq!(of("0.1.0-0.2.0").text(), "0.1.0 to 0.2.0");
        assert!(Versions::parse("1.2.0-").is_err() && Versions::parse("x").is_err());
    }
}
