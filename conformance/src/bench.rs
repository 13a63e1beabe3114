//! The measurements: how long the work takes and what it costs, paired with whom it can be compared with.
//!
//! Whoever is on this machine takes turns with ours in the same run, on the same kernel state, with the same
//! configuration; the reference, which is not, stands beside with the figures of another sitting, marked as such.
//! No sample is left out. Times are taken around the programs alone: namespaces are entered before. All state is in
//! memory on either side.

mod aim;
mod baseline;
pub(crate) mod cli;
mod cni;
mod cost;
mod daemon;
mod echo;
mod floor;
mod footprint;
mod guest;
mod leases;
mod machine;
mod memory;
mod net;
mod page;
mod peer_watch;
mod plot;
mod profile;
mod report;
mod sample;
mod scale;
mod side;
mod start;
mod stats;
mod table;
mod usage;

use std::io::Write;
use std::path::PathBuf;

use anyhow::{Context, Result};

use crate::lab::Binaries;
use crate::report::Written;
use machine::Machine;
use report::{Section, as_json};

/// The bounds of the number of runs: fewer have no 95th percentile, and more pods don't fit into a node's subnet.
pub const MIN_RUNS: u8 = 20;
/// See [`MIN_RUNS`].
pub const MAX_RUNS: u8 = 200;

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subject {
    /// The plugin.
    Cni,
    /// The daemon's reactions.
    Daemon,
    /// Sizes and idle costs.
    Footprint,
    /// The daemon among thousands of peers.
    Scale,
    /// The daemon among thousands of Nodes of Kubernetes.
    Kube,
    /// The data plane.
    Net,
}

/// What a run of measurements is made of.
#[derive(Debug, Clone)]
pub struct BenchConfig {
    /// What is measured, in this order.
    pub subjects: Vec<Subject>,
    /// Samples of each of the daemon's figures; the plugin's have more, the data plane's fewer. From [`MIN_RUNS`] to
    /// [`MAX_RUNS`].
    pub runs: u8,
    /// The programs that are ours.
    pub binaries: Binaries,
    /// The directory of the `bridge`, `host-local` and `portmap` that ours take turns with, where there are such.
    pub peer_dir: Option<PathBuf>,
    /// Where the report is written as JSON, too.
    pub json: Option<PathBuf>,
    /// Where it is written as a page of HTML, too.
    pub html: Option<PathBuf>,
    /// The commit that ours were built from, where that is known.
    pub commit: Option<String>,
    /// Instead of measuring the plugin, show what its time is spent on.
    pub profile: bool,
    /// Measure the data plane in a guest with Debian's kernel; nothing else can be measured there.
    pub in_guest: bool,
    /// Measure scale at the smaller sizes, the data plane on one wire, and both in fewer runs.
    pub quick: bool,
}

/// Measures, and prints the report on standard output; progress goes to standard error.
///
/// # Errors
/// Fails when something cannot be measured; there is no report then.
pub fn run(config: &BenchConfig) -> Result<bool> {
    if config.profile {
        let text = profile::measure(config)?;
        std::io::stdout()
            .write_all(text.as_bytes())
            .context("writing the profile")?;
        return Ok(true);
    }
    if config.in_guest {
        return guest::measure(config);
    }
    let (bin_dir, peer_dir) = (config.binaries.dir(), config.peer_dir.as_deref());
    let mut machine = Machine::look(bin_dir, peer_dir, config.commit.as_deref());
    let mut sections: Vec<Section> = Vec::new();
    for subject in &config.subjects {
        match subject {
            Subject::Cni => sections.extend(cni::measure(config)?),
            Subject::Daemon => sections.push(daemon::measure(config)?),
            Subject::Footprint => sections.push(footprint::measure(config)?),
            Subject::Scale => sections.extend(scale::measure(config)?),
            Subject::Kube => sections.push(scale::kube::measure(config)?),
            Subject::Net => sections.extend(net::measure(config)?),
        }
    }
    machine.finish();
    let written = Written::of([
        (
            config.json.as_ref(),
            format!("{:#}\n", as_json(&machine, &sections)),
        ),
        (config.html.as_ref(), page::html(&machine, &sections)),
    ]);
    let drawn: String = sections.iter().map(table::draw).collect();
    let head = "ratio: how many times better ours is than the peer, by the medians";
    let aims = aim::draw(&sections);
    let text = format!("{}{aims}{head}\n{drawn}", machine.text());
    written.show(&text)?;
    Ok(true)
}

/// Tells on standard error what is being measured.
fn progress(text: &str) -> Result<()> {
    writeln!(std::io::stderr(), "measuring {text} …").context("writing to the standard error")
}
