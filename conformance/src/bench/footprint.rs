//! What the programs weigh: on disk, in memory, and in processor time when nothing happens.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::aim::Aim;
use super::baseline;
use super::report::{Figure, Peer, Plot, Section};
use super::start::start_all;
use super::stats::Summary;
use super::usage::Usage;
use super::{BenchConfig, progress};
use crate::lab::{Lab, LabConfig};

/// How long the daemons are left alone before they are looked at, and between the two looks.
const SETTLE: Duration = Duration::from_secs(5);
const IDLE: Duration = Duration::from_secs(20);

/// Measures the daemon's and the plugin's footprint.
///
/// # Errors
/// Fails when a lab cannot be made, or a program does not do its work.
pub(super) fn measure(config: &BenchConfig) -> Result<Section> {
    let mut figures = idle(config)?;
    figures.extend(sizes(config)?);
    Ok(Section {
        title: "Footprint".to_owned(),
        short: "footprint",
        notes: vec![
            format!(
                "idle: each of three nodes' daemons, after {} s, over {} s in which nothing happens",
                SETTLE.as_secs(),
                IDLE.as_secs()
            ),
            baseline::DAEMON_NOTE.to_owned(),
            "* reference chain = spec baseline: four programs on disk; three of them in memory at once"
                .to_owned(),
        ],
        tail: 95,
        plot: Plot::None,
        figures,
    })
}

/// What three idle daemons use.
fn idle(config: &BenchConfig) -> Result<Vec<Figure>> {
    progress(&format!("daemon, idle for {} s", (SETTLE + IDLE).as_secs()))?;
    let lab = Lab::new(&LabConfig {
        nodes: 3,
        binaries: config.binaries.clone(),
    })?;
    let daemons = start_all(&lab)?;
    let look = || {
        daemons
            .iter()
            .map(|daemon| Usage::of(daemon.process.pid()))
            .collect::<Result<Vec<_>>>()
    };
    thread::sleep(SETTLE);
    let before = look()?;
    thread::sleep(IDLE);
    let after = look()?;
    drop(daemons);
    let of = |part: &dyn Fn(&Usage, &Usage) -> f64| {
        let pairs = before.iter().zip(&after);
        Summary::of(pairs.map(|(before, after)| part(before, after)).collect())
    };
    let per_minute = 60.0 / IDLE.as_secs_f64();
    let rss = of(&|_, after| mebibytes(after.rss_kib * 1024));
    let pss = of(&|_, after| mebibytes(after.pss_kib * 1024));
    let threads = of(&|_, after| f64::from(after.threads));
    let cpu = of(&|before, after| after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e3 * per_minute);
    let waits = of(&|before, after| small(after.waits.saturating_sub(before.waits)) * per_minute);
    Ok(vec![
        Figure::low("flanneld RSS, idle", "MiB", rss, vec![baseline::RSS]),
        Figure::low("flanneld PSS, idle", "MiB", pss, vec![baseline::PSS]),
        Figure::low("flanneld threads", "", threads, vec![baseline::THREADS]),
        Figure::low("flanneld CPU, idle", "ms/min", cpu, baseline::IDLE_CPU.to_vec()),
        Figure::low("flanneld waits (wake-ups), idle", "/min", waits, Vec::new()),
    ])
}

fn sizes(config: &BenchConfig) -> Result<Vec<Figure>> {
    let ours = |name: &str| size(config.binaries.dir(), &[name]).map(Summary::single);
    let mut plugins = Vec::new();
    if let Some(dir) = &config.peer_dir {
        let theirs = Summary::single(size(dir, &["bridge", "host-local"])?);
        plugins.push(Peer::paired("peer bridge + host-local", theirs));
    }
    plugins.push(baseline::PLUGIN_SIZE);
    Ok(vec![
        Figure::low("flannel on disk", "MiB", ours("flannel")?, plugins).with(vec![Aim::Most(3.0)]),
        Figure::low("flanneld on disk", "MiB", ours("flanneld")?, Vec::new()),
    ])
}

fn size(dir: &Path, names: &[&str]) -> Result<f64> {
    let mut bytes = 0;
    for name in names {
        let path = dir.join(name);
        bytes += fs::metadata(&path)
            .with_context(|| format!("reading {}", path.display()))?
            .len();
    }
    Ok(mebibytes(bytes))
}

pub(super) fn mebibytes(bytes: u64) -> f64 {
    small(bytes / 1024) / 1024.0
}

/// A number far below the precision of a float.
fn small(number: u64) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}
