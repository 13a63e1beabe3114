use anyhow::{Context, Result};
use serde_json::Value;

use super::principles::Principle;
use super::screen::Screen;
use crate::lab::{BIN_DIR, Flanneld, Node, Pod, TUNNEL, text};

/// As many pods as are listed one by one.
const MAX_LISTED: usize = 30;

/// Shows each node's lease and its end of the tunnel.
pub(super) fn nodes(screen: &mut Screen, nodes: &[Node], daemons: &[Flanneld]) -> Result<()> {
    screen.heading("Nodes")?;
    let mut rows = vec![row(["node", "lease", "public IP", "VTEP MAC", "MTU", "flanneld"])];
    for (node, daemon) in nodes.iter().zip(daemons) {
        let links = node.json(&["ip", "-j", "link", "show", "dev", TUNNEL])?;
        let link = links.first().context("there is no flannel.1")?;
        let (subnet, length) = node.subnet()?;
        rows.push(vec![
            node.name(),
            format!("{subnet}/{length}"),
            node.address().to_string(),
            text(link, "address").to_owned(),
            link.get("mtu")
                .and_then(Value::as_u64)
                .map(|mtu| mtu.to_string())
                .unwrap_or_default(),
            format!("pid {}, {:.1} MB", daemon.pid(), mebibytes(daemon.rss_kib()?)),
        ]);
    }
    table(screen, &rows)
}

/// Shows the pods: all of a small lab, the first ones of a large lab.
pub(super) fn pods(screen: &mut Screen, pods: &[Pod]) -> Result<()> {
    screen.heading("Pods")?;
    let mut rows = vec![row(["pod", "address", "node", "host veth"])];
    for pod in pods.iter().take(MAX_LISTED) {
        rows.push(vec![
            pod.name().to_owned(),
            pod.address().to_string(),
            format!("node{}", pod.node_number()),
            pod.host_link().to_owned(),
        ]);
    }
    table(screen, &rows)?;
    let more = pods.len().saturating_sub(MAX_LISTED);
    if more > 0 {
        screen.line(&format!("  … and {more} more"))
    } else {
        Ok(())
    }
}

/// Shows the principles, each with its evidence.
pub(super) fn principles(screen: &mut Screen, principles: &[Principle]) -> Result<()> {
    screen.heading("The three principles")?;
    for (number, principle) in (1..).zip(principles) {
        if principle.observations == 0 {
            screen.line(&format!(
                "  {number}. {}: not looked at, there is one pod alone",
                principle.claim
            ))?;
            continue;
        }
        let verdict = if principle.failures.is_empty() {
            screen.good("holds")
        } else {
            screen.bad("DOES NOT HOLD")
        };
        screen.line(&format!("  {number}. {}: {verdict}", principle.claim))?;
        screen.line(&format!(
            "     looked at: {} ({}), for example",
            principle.observations, principle.looked_at
        ))?;
        screen.line(&format!("     {}", screen.dim(&principle.example)))?;
        for failure in &principle.failures {
            screen.line(&format!("     {}", screen.bad(failure)))?;
        }
    }
    Ok(())
}

/// Tells how to get into the nodes and pods of a lab that stays up.
pub(super) fn ways_in(screen: &mut Screen, nodes: &[Node], pods: &[Pod]) -> Result<()> {
    screen.heading("The lab stays up")?;
    for node in nodes.iter().take(3) {
        screen.line(&format!(
            "  enter {}:  nsenter -t {} -m -n -p",
            node.name(),
            node.holder_pid()
        ))?;
        let Some(pod) = pods.iter().find(|pod| pod.node_number() == node.number()) else {
            continue;
        };
        let name = pod.name();
        let pid = node.holder_pid();
        screen.line(&format!(
            "  enter {name}:  nsenter -t {pid} -m -n -p ip netns exec {name} bash"
        ))?;
        screen.line(&format!(
            "  flanneld's log:  less {}",
            node.file(&node.log_file("flanneld")).display()
        ))?;
    }
    screen.line(&format!(
        "  the programs under test are in {BIN_DIR} on each node, such as:  {BIN_DIR}/flanneld status"
    ))?;
    screen.line("  remove it:  scripts/demo --down")
}

/// Shows rows in columns; the first row is the heading.
pub(super) fn table(screen: &mut Screen, rows: &[Vec<String>]) -> Result<()> {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<_> = (0..columns)
        .map(|column| width(column).unwrap_or_default())
        .collect();
    for (number, row) in rows.iter().enumerate() {
        let cells = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"));
        let line = format!("  {}", cells.collect::<Vec<_>>().join("  "));
        let line = line.trim_end();
        screen.line(&if number == 0 {
            screen.dim(line)
        } else {
            line.to_owned()
        })?;
    }
    Ok(())
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

/// For display only; a memory size is far below what an f64 holds exactly.
fn mebibytes(kib: u64) -> f64 {
    f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0
}
