//! What is asked, as a table in a text: `ID | level | where it is written | text`, and comments behind `#`.

use anyhow::{Context, Result, bail};

use super::{Asked, Level};

/// All requirements of a table, in its order.
///
/// # Errors
/// Fails when the table is not well-formed, which a test of the suite excludes.
pub(crate) fn requirements(table: &'static str) -> Result<Vec<Asked>> {
    let lines = table
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
