//! What is asked of a pod network, as a table: `requirements.txt`.

use anyhow::{Context, Result, bail};

use crate::report::{Asked, Level};

const TABLE: &str = include_str!("requirements.txt");

/// All requirements, in the order of the table.
///
/// # Errors
/// Fails when the table is not well-formed, which a test excludes.
pub(super) fn all() -> Result<Vec<Asked>> {
    let lines = TABLE
        .lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(parse).collect()
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
