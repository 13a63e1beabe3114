//! The demonstration: from nothing to pods that ping across nodes, with the evidence on the screen.

mod grid;
mod principles;
mod screen;
mod tables;
mod trace;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::counted::counted;
use crate::lab::keep::Record;
use crate::lab::matrix::Matrix;
use crate::lab::ping::Patience;
use crate::lab::{Binaries, Flanneld, Lab, LabConfig, Node, Pod, Store};

pub use principles::{Principle, prove};
use screen::Screen;
pub use trace::{Hop, trace};

/// As the shipped unit runs it: the proof that addresses stay is worth more where somebody masquerades.
const DAEMON_FLAGS: [&str; 1] = ["--ip-masq"];

/// What a demonstration is made of.
#[derive(Debug, Clone)]
pub struct DemoConfig {
    /// The number of nodes.
    pub nodes: u8,
    /// The number of pods on each node.
    pub pods: u8,
    /// Where the daemons keep their leases.
    pub store: Store,
    /// Whether the lab stays up.
    pub keep: bool,
    /// Whether only a kept lab is to be removed.
    pub down: bool,
    /// The directory of the programs under test; found near the running program by default.
    pub bin_dir: Option<PathBuf>,
    /// The file that notes a kept lab.
    pub record: PathBuf,
}

/// A lab with its daemons running and its pods attached.
struct Stage {
    // Fields are dropped in this order: the daemons are reaped before the lab waits for its processes to end.
    daemons: Vec<Flanneld>,
    pods: Vec<Pod>,
    lab: Lab,
}

/// Runs the demonstration; returns whether every ping was answered and every principle held.
///
/// # Errors
/// Fails when the lab cannot be made, or when a daemon or a plugin fails in it.
pub fn run(config: &DemoConfig) -> Result<bool> {
    let mut screen = Screen::stdout();
    let removed = Record::remove(&config.record)?;
    if config.down {
        screen.line(if removed {
            "The kept lab is gone."
        } else {
            "There is no kept lab."
        })?;
        return Ok(true);
    }
    if removed {
        screen.line("Removed the lab that an earlier run had kept.")?;
    }
    let mut stage = set_up(config, &mut screen)?;
    let held = show(&stage, &mut screen)?;
    if config.keep {
        Record::of(&stage.lab)?.write(&config.record)?;
        stage.daemons.iter_mut().for_each(|daemon| daemon.detach());
        stage.lab.keep()?;
        tables::ways_in(&mut screen, stage.lab.nodes(), &stage.pods)?;
    }
    Ok(held)
}

fn set_up(config: &DemoConfig, screen: &mut Screen) -> Result<Stage> {
    let binaries = config
        .bin_dir
        .as_deref()
        .map_or_else(Binaries::find, Binaries::in_dir)?;
    let nodes = config.nodes;
    let start = Instant::now();
    let with = match config.store {
        Store::Directory => "",
        Store::Etcd => " with etcd",
        Store::Kube => " with the API of Kubernetes",
    };
    screen.begin(&format!(
        "[1/4] making {} on an underlay{with}",
        counted(nodes, "node")
    ))?;
    let lab = Lab::on(config.store, &LabConfig { nodes, binaries })?;
    screen.end(&format!("{} ms", start.elapsed().as_millis()))?;
    let mut stage = Stage {
        daemons: Vec::new(),
        pods: Vec::new(),
        lab,
    };
    for node in stage.lab.nodes() {
        screen.begin(&format!("[2/4] starting flanneld on {}", node.name()))?;
        let daemon = node.start_flanneld(&DAEMON_FLAGS)?;
        screen.end(&format!(
            "ready in {:.1} ms",
            daemon.ready_after().as_secs_f64() * 1e3
        ))?;
        stage.daemons.push(daemon);
    }
    for node in stage.lab.nodes() {
        screen.begin(&format!(
            "[3/4] adding {} on {}",
            counted(config.pods, "pod"),
            node.name()
        ))?;
        let start = Instant::now();
        for number in 1..=config.pods {
            stage
                .pods
                .push(node.add_pod(&format!("n{}-p{number}", node.number()))?);
        }
        screen.end(&format!("{} ms", start.elapsed().as_millis()))?;
    }
    Ok(stage)
}

fn show(stage: &Stage, screen: &mut Screen) -> Result<bool> {
    let (nodes, pods): (&[Node], &[Pod]) = (stage.lab.nodes(), &stage.pods);
    screen.begin("[4/4] pinging every pod from every node and every pod")?;
    let start = Instant::now();
    let matrix = Matrix::measure(nodes, pods, Patience::MATRIX)?;
    screen.end(&format!(
        "{} in {}",
        counted(matrix.total(), "ping"),
        in_words(start.elapsed())
    ))?;
    tables::nodes(screen, nodes, &stage.daemons)?;
    tables::pods(screen, pods)?;
    grid::show(screen, &matrix)?;
    let principles = prove(nodes, pods)?;
    tables::principles(screen, &principles)?;
    let led_there = show_trace(screen, nodes, pods)?;
    let failures = matrix.failures();
    grid::closing(screen, matrix.total(), &failures)?;
    let principles_hold = principles.iter().all(|principle| principle.failures.is_empty());
    Ok(failures.is_empty() && principles_hold && led_there)
}

/// A time in milliseconds below a second, in seconds from there on.
fn in_words(time: Duration) -> String {
    if time < Duration::from_secs(1) {
        format!("{} ms", time.as_millis())
    } else {
        format!("{:.1} s", time.as_secs_f64())
    }
}

/// Shows the way from the first pod to the first one on another node, and returns whether it leads there; in a lab of
/// one node there is no such way.
fn show_trace(screen: &mut Screen, nodes: &[Node], pods: &[Pod]) -> Result<bool> {
    let Some(from) = pods.first() else { return Ok(true) };
    let Some(to) = pods.iter().find(|pod| pod.node_number() != from.node_number()) else {
        return Ok(true);
    };
    screen.heading(&format!(
        "The way from {} to {}, as the kernel decides it",
        from.name(),
        to.name()
    ))?;
    let hops = match trace(nodes, from, to) {
        Ok(hops) => hops,
        Err(error) => {
            let words = format!("  it does not lead there: {error:#}");
            screen.line(&screen.bad(&words))?;
            return Ok(false);
        }
    };
    for hop in hops {
        screen.line(&format!(
            "  {} {}",
            screen.bold(&hop.place),
            screen.dim(&hop.role)
        ))?;
        for (what, decision) in &hop.decisions {
            screen.line(&format!("    │ {what:<9} {decision}"))?;
        }
        if !hop.leaves_by.is_empty() {
            screen.line(&format!("    ▼ {}", hop.leaves_by))?;
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_time_is_told_in_milliseconds() {
        for (millis, words) in [
            (0, "0 ms"),
            (46, "46 ms"),
            (999, "999 ms"),
            (1000, "1.0 s"),
            (61_250, "61.2 s"),
        ] {
            assert_eq!(in_words(Duration::from_millis(millis)), words);
        }
    }
}
