use std::time::Duration;

use anyhow::Result;

use super::screen::Screen;
use crate::counted::counted;
use crate::lab::matrix::Matrix;

/// More pods than this are summarised in blocks of nodes.
const MAX_COLUMNS: usize = 12;
/// Blocks of a summary side by side: seven of them and the labels fit into 100 columns.
const BLOCKS_PER_PANEL: usize = 7;
/// The width of a block in columns, after the blank that keeps it off the one before.
const BLOCK_WIDTH: usize = 11;
/// The width of a single time, after its blank.
const CELL_WIDTH: usize = 6;
/// As wide as a time may get before it loses decimals: two of them and a stroke fit into a block.
const TIME_WIDTH: usize = 5;
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
        .map(|target| format!(" {:>CELL_WIDTH$}", target.name))
        .collect();
    screen.line(&screen.dim(&format!("  {:<8}{header}", "")))?;
    for (source, row) in matrix.sources.iter().zip(&matrix.round_trips) {
        let cell = |rtt: &Option<Duration>| match rtt {
            Some(rtt) => format!(" {:>CELL_WIDTH$}", millis(*rtt, 3)),
            None => screen.bad(&format!(" {:>CELL_WIDTH$}", "FAIL")),
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
            .map(|number| format!(" {:>BLOCK_WIDTH$}", format!("node{number}")))
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
            let times = format!("{}/{}", millis(*median, 3), millis(*max, 2));
            format!(" {times:>BLOCK_WIDTH$}")
        }
        _ => screen.bad(&format!(" {:>BLOCK_WIDTH$}", format!("{failed} FAIL"))),
    }
}

/// A time in milliseconds, with so many decimals or as many as there is room for.
fn millis(time: Duration, decimals: usize) -> String {
    let text = |decimals| format!("{:.decimals$}", time.as_secs_f64() * 1e3);
    let fitting = (0..=decimals)
        .rev()
        .map(text)
        .find(|text| text.len() <= TIME_WIDTH);
    fitting.unwrap_or_else(|| text(0))
}

#[cfg(test)]
mod tests;
