//! What a node costs and how fast it is in a cluster of thousands.
//!
//! The peers exist in etcd only, as leases that no daemon renews. Sizes take turns neither with each other nor with the
//! reference, which is not on this machine; each start takes turns with the kernel's own floor.

mod cluster;
mod figures;
mod floor;
pub(super) mod kube;
mod peers;
mod tables;

use std::thread;
use std::time::Duration;

use anyhow::Result;
use nix::sys::signal::Signal;

use super::aim::Aim;
use super::footprint::mebibytes;
use super::report::{Figure, Plot, Section};
use super::stats::Summary;
use super::usage::Usage;
use super::{BenchConfig, progress};
use cluster::Cluster;
use peers::{Backend, StorePeer};

/// The size that the others are compared with.
const FEW: u16 = 3;
/// How long a daemon is left alone before it is looked at.
const SETTLE: Duration = Duration::from_secs(2);
/// Longer than the time between two audits of a daemon that looks at everything once a minute.
const QUIET: Duration = Duration::from_secs(61);
/// The same where only little time is to be spent; no audit need be in it.
const QUICK_QUIET: Duration = Duration::from_secs(10);
/// Before a change that is timed, so that it is a first change after quiet.
const QUIET_BEFORE_CHANGE: Duration = Duration::from_millis(250);
/// Single changes, and full observations, of each size.
const CHANGES: u8 = 20;
const LOOKS: u8 = 20;
/// The size at which leases are changed all at once, again and again, and how often.
const CHURNING: u16 = 1000;
const CHURNS: u32 = 100;
const QUICK_CHURNS: u32 = 10;
/// Peers of the backend host-gw: as many as the reference was measured with.
const HOST_GW_PEERS: u16 = 3000;
/// A number of peers, and how often a daemon is started among them.
#[derive(Debug, Clone, Copy)]
struct Size {
    peers: u16,
    starts: u8,
}

const SIZES: [Size; 4] = [size(FEW, 20), size(CHURNING, 20), size(5000, 20), size(10_000, 5)];
const QUICK_SIZES: [Size; 2] = [size(FEW, 5), size(CHURNING, 5)];

const fn size(peers: u16, starts: u8) -> Size {
    Size { peers, starts }
}

/// What was measured at one size.
struct Measured {
    peers: u16,
    cluster: Cluster,
    ready: Vec<Duration>,
    programmed: Vec<Duration>,
    floor: Vec<Duration>,
    put_floor: Vec<Duration>,
    put: Vec<Duration>,
    gone: Vec<Duration>,
    looks: Vec<Duration>,
    rss_mib: f64,
    peak_mib: f64,
    log_kib: f64,
    quiet_ms: f64,
}

/// Measures the daemon at each size.
///
/// # Errors
/// Fails when a lab cannot be made, or when the daemon does not do in time what is measured.
pub(super) fn measure(config: &BenchConfig) -> Result<Vec<Section>> {
    let (sizes, quiet, churns): (&[Size], _, _) = if config.quick {
        (&QUICK_SIZES, QUICK_QUIET, QUICK_CHURNS)
    } else {
        (&SIZES, QUIET, CHURNS)
    };
    let mut all = Vec::new();
    for size in sizes {
        all.push(at_size(config, *size)?);
    }
    progress(&format!("all sizes at once, quiet for {} s", quiet.as_secs()))?;
    leave_alone(&mut all, quiet)?;
    let mut sections: Vec<_> = all
        .iter()
        .map(|measured| figures::section(measured, all.first(), quiet))
        .collect();
    let churned = all
        .into_iter()
        .find(|measured| measured.peers == CHURNING)
        .map(|measured| measured.cluster);
    if let Some(cluster) = churned {
        sections.push(churn(cluster, churns)?);
    }
    sections.push(host_gw(config)?);
    Ok(sections)
}

/// Starts a daemon of the backend host-gw again and again, in turn with the kernel's own floor.
fn host_gw(config: &BenchConfig) -> Result<Section> {
    let (peers, starts) = (HOST_GW_PEERS, if config.quick { 5 } else { 20 });
    progress(&format!("scale, host-gw, {peers} peers: {starts} starts"))?;
    let mut cluster = Cluster::new(config, Backend::HostGw, peers)?;
    let made_up = StorePeer::all(peers, 0);
    let (mut ready, mut programmed, mut floors) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..starts {
        floors.push(floor::program(Backend::HostGw, &made_up, StorePeer::one_more(peers))?.all);
        cluster.make_cold()?;
        let start = cluster.start()?;
        ready.push(start.ready);
        programmed.push(start.programmed);
    }
    Ok(figures::host_gw(ready, programmed, floors))
}

fn at_size(config: &BenchConfig, size: Size) -> Result<Measured> {
    let Size { peers, starts } = size;
    progress(&format!(
        "scale, {peers} peers: {starts} starts, {CHANGES} changes"
    ))?;
    let mut cluster = Cluster::new(config, Backend::Vxlan, peers)?;
    let (mut ready, mut programmed) = (Vec::new(), Vec::new());
    let (mut floors, mut put_floors) = (Vec::new(), Vec::new());
    let made_up = StorePeer::all(peers, 0);
    for _ in 0..starts {
        let floor = floor::program(Backend::Vxlan, &made_up, StorePeer::one_more(peers))?;
        floors.push(floor.all);
        put_floors.push(floor.one_more);
        cluster.make_cold()?;
        let start = cluster.start()?;
        ready.push(start.ready);
        programmed.push(start.programmed);
    }
    thread::sleep(SETTLE);
    let usage = cluster.usage()?;
    let (peak_kib, log_bytes) = (cluster.peak_rss_kib()?, cluster.log_bytes()?);
    let (mut put, mut gone, mut looks) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..CHANGES {
        let (made, removed) = cluster.change_one()?;
        put.push(made);
        gone.push(removed);
    }
    for _ in 0..LOOKS {
        looks.push(cluster.cpu_of_signal(Signal::SIGHUP)?);
    }
    Ok(Measured {
        peers,
        cluster,
        ready,
        programmed,
        floor: floors,
        put_floor: put_floors,
        put,
        gone,
        looks,
        rss_mib: mebibytes(usage.rss_kib * 1024),
        peak_mib: mebibytes(peak_kib * 1024),
        log_kib: mebibytes(log_bytes) * 1024.0,
        quiet_ms: 0.0,
    })
}

/// Looks what the daemons of all sizes use while nothing happens.
fn leave_alone(all: &mut [Measured], quiet: Duration) -> Result<()> {
    let look = |all: &[Measured]| -> Result<Vec<Usage>> {
        all.iter().map(|measured| measured.cluster.usage()).collect()
    };
    thread::sleep(SETTLE);
    let before = look(all)?;
    thread::sleep(quiet);
    let after = look(all)?;
    for (measured, (before, after)) in all.iter_mut().zip(before.iter().zip(&after)) {
        let used = after.cpu.saturating_sub(before.cpu).as_secs_f64();
        measured.quiet_ms = used * 1e3 * 60.0 / quiet.as_secs_f64();
    }
    Ok(())
}

/// Changes every lease of a cluster again and again, and follows the daemon's memory.
fn churn(mut cluster: Cluster, rounds: u32) -> Result<Section> {
    let changes = rounds * u32::from(CHURNING);
    progress(&format!("scale, {changes} lease changes among {CHURNING} peers"))?;
    let log_before = cluster.log_bytes()?;
    let before = cluster.usage()?;
    let mut rss_kib = Vec::new();
    for round in 1..=rounds {
        cluster.change_all(round)?;
        rss_kib.push(cluster.usage()?.rss_kib);
    }
    let after = cluster.usage()?;
    let log_bytes = cluster.log_bytes()?.saturating_sub(log_before);
    // Memory is at its height after some rounds; only growth from there on would go on for ever.
    let warm = usize::try_from(rounds / 5).unwrap_or(0);
    let in_mib = |kib: Option<u64>| mebibytes(kib.unwrap_or(0) * 1024);
    let highest_of = |part: &[u64]| in_mib(part.iter().copied().max());
    let (early, late) = rss_kib.split_at_checked(warm).unwrap_or((&rss_kib, &[]));
    let growth = highest_of(late) - highest_of(early);
    let cpu_micros = after.cpu.saturating_sub(before.cpu).as_secs_f64() * 1e6 / f64::from(changes);
    let all: Vec<f64> = rss_kib.iter().map(|kib| in_mib(Some(*kib))).collect();
    let figure = |name: &str, unit, summary| Figure::low(name, unit, summary, Vec::new());
    Ok(Section {
        title: format!("Scale: {changes} lease changes among {CHURNING} peers"),
        short: "lease changes",
        notes: vec![format!(
            "all leases get another public IP, {rounds} times, each time waited for; growth: from the highest of the first fifth to the highest of the rest"
        )],
        tail: 95,
        plot: Plot::Course,
        figures: vec![
            figure("RSS after each thousand", "MiB", Summary::of(all)),
            figure("growth of RSS", "MiB", Summary::single(growth)).with(vec![Aim::Most(1.0)]),
            figure("CPU a change", "µs", Summary::single(cpu_micros)),
            figure("log", "KiB", Summary::single(mebibytes(log_bytes) * 1024.0)),
        ],
    })
}
