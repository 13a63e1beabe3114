//! What is asked, as a table in a text: `ID | level | where it is written | text`, and comments behind `#`.

use anyhow::{Context, Result, bail};

use super::{Asked, Level};

/// All requirements of a table, in its order.
///
/// # Errors
/// Fails when the table is not well-formed, which a test of the suite excludes.
pub(crate) fn requirements(table: &'static str) -> Result<Vec<Asked>> {
    lines(table).map(parse).collect()
}

fn lines(table: &'static str) -> impl Iterator<Item = &'static str> {
    table
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
}

/// The ids of a table, in its order; they stand in the first cell, whatever follows.
pub(super) fn ids(table: &'static str) -> impl Iterator<Item = &'static str> {
    lines(table).filter_map(|line| line.split('|').next().map(str::trim))
}

/// Ids in a few words: each group from its first to its last.
pub(super) fn in_words<'a>(ids: impl Iterator<Item = &'a str>) -> String {
    let mut groups: Vec<(&str, &str)> = Vec::new();
    for id in ids {
        match groups.last_mut() {
            Some((first, last)) if group_of(first) == group_of(id) => *last = id,
            Some(_) | None => groups.push((id, id)),
        }
    }
    let texts = groups.iter().map(|(first, last)| {
        if first == last {
            (*first).to_owned()
        } else {
            format!("{first} to {last}")
        }
    });
    texts.collect::<Vec<_>>().join(", ")
}

fn group_of(id: &str) -> &str {
    id.split('-').next().unwrap_or(id)
}

fn parse(line: &'static str) -> Result<Asked> {
    let cells: Vec<_> = line.split('|').map(str::trim).collect();
    let &[id, level, section, text] = cells.as_slice() else {
        bail!("{line:?} has not four cells");
    };
    Ok(Asked {
        id,
        level: Level::of_letter(level).with_context(|| format!("{level:?} is no level"))?,
        section,
        text,
        versions: None,
    })
}
