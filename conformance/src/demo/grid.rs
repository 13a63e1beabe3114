use std::time::Duration;

use anyhow::Result;

use super::screen::Screen;
use crate::counted::counted;
use crate::lab::matrix::Matrix;

/// More pods than this are summarised in blocks of nodes.
const MAX_COLUMNS: usize = 12;
/// Blocks of a summary side by side: seven of them and the labels fit into 100 columns.
const BLOCKS_PER_PANEL: usize = 7;
/// The width of a block in columns.
const BLOCK_WIDTH: usize = 12;
/// As many failed pairs as are named.
const MAX_NAMED: usize = 20;

/// Shows the matrix: each round-trip time of a small one, the median and maximum of each pair of nodes of a large one.
pub(super) fn show(screen: &mut Screen, matrix: &Matrix) -> Result<()> {
    if matrix.targets.len() <= MAX_COLUMNS {
        each(screen, matrix)
    } else {
        blocks(screen, matrix)
    }
}

/// The closing lines: which pings failed, and how many of how many.
pub(super) fn closing(screen: &mut Screen, total: usize, failures: &[(&str, &str)]) -> Result<()> {
    screen.line("")?;
    for (from, to) in failures.iter().take(MAX_NAMED) {
        screen.line(&screen.bad(&format!("no answer: {from} → {to}")))?;
    }
    let more = failures.len().saturating_sub(MAX_NAMED);
    if more > 0 {
        screen.line(&format!("… and {more} more pairs without an answer"))?;
    }
    let summary = format!("{}, {} failed", counted(total, "ping"), failures.len());
    screen.line(&if failures.is_empty() {
        screen.good(&summary)
    } else {
        screen.bad(&summary)
    })
}

fn each(screen: &mut Screen, matrix: &Matrix) -> Result<()> {
    screen.heading("Ping matrix: round-trip times in ms, from the row to the column")?;
    let header: String = matrix
        .targets
        .iter()
        .map(|target| format!("{:>7}", target.name))
        .collect();
    screen.line(&screen.dim(&format!("  {:<8}{header}", "")))?;
    for (source, row) in matrix.sources.iter().zip(&matrix.round_trips) {
        let cell = |rtt: &Option<Duration>| match rtt {
            Some(rtt) => format!("{:>7.3}", millis(*rtt)),
            None => screen.bad(&format!("{:>7}", "FAIL")),
        };
        let cells: String = row.iter().map(cell).collect();
        screen.line(&format!("  {:<8}{cells}", source.name))?;
    }
    Ok(())
}

fn blocks(screen: &mut Screen, matrix: &Matrix) -> Result<()> {
    screen.heading(
        "Ping matrix, summarised: median/maximum round-trip time in ms, from the row's node and its pods",
    )?;
    screen.line("to the column's pods; `n FAIL` counts the pings without an answer")?;
    let mut numbers: Vec<u8> = matrix.targets.iter().map(|target| target.node_number).collect();
    numbers.dedup();
    for panel in numbers.chunks(BLOCKS_PER_PANEL) {
        let header: String = panel
            .iter()
            .map(|number| format!("{:>BLOCK_WIDTH$}", format!("node{number}")))
            .collect();
        screen.line(&screen.dim(&format!("  {:<8}{header}", "")))?;
        for from in &numbers {
            let cells: String = panel.iter().map(|to| block(screen, matrix, *from, *to)).collect();
            screen.line(&format!("  {:<8}{cells}", format!("node{from}")))?;
        }
    }
    Ok(())
}

/// One pair of nodes.
fn block(screen: &Screen, matrix: &Matrix, from: u8, to: u8) -> String {
    let rows = matrix
        .sources
        .iter()
        .zip(&matrix.round_trips)
        .filter(|(source, _)| source.node_number == from);
    let cells = rows
        .flat_map(|(_, row)| matrix.targets.iter().zip(row))
        .filter(|(target, _)| target.node_number == to);
    let cells: Vec<_> = cells.map(|(_, rtt)| *rtt).collect();
    let failed = cells.iter().filter(|rtt| rtt.is_none()).count();
    let mut times: Vec<_> = cells.into_iter().flatten().collect();
    times.sort_unstable();
    match (times.get(times.len() / 2), times.last()) {
        (Some(median), Some(max)) if failed == 0 => {
            format!(
                "{:>BLOCK_WIDTH$}",
                format!("{:.3}/{:.2}", millis(*median), millis(*max))
            )
        }
        _ => screen.bad(&format!("{:>BLOCK_WIDTH$}", format!("{failed} FAIL"))),
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests;
