//! What was measured at one size, as a section of the report.

use std::time::Duration;

use super::super::aim::{Aim, FLOOR};
use super::super::baseline;
use super::super::report::{Figure, Peer, Plot, Section};
use super::super::sample::millis;
use super::super::stats::Summary;
use super::{FEW, Measured};

/// What the same daemon of the same run is called where it has few peers.
const AMONG_FEW: &str = "among 3";

/// The section of a size; `few` is what was measured at the smallest one.
pub(super) fn section(measured: &Measured, few: Option<&Measured>, quiet: Duration) -> Section {
    let (short, title) = match measured.peers {
        FEW => ("3 peers", "Scale: 3 peers"),
        1000 => ("1,000 peers", "Scale: 1,000 peers"),
        5000 => ("5,000 peers", "Scale: 5,000 peers"),
        _ => ("10,000 peers", "Scale: 10,000 peers"),
    };
    let few = few.filter(|few| few.peers != measured.peers);
    let mut figures = Vec::from(starts(measured));
    figures.extend(changes(measured, few));
    figures.extend(costs(measured));
    Section {
        title: title.to_owned(),
        short,
        notes: if few.is_some() { Vec::new() } else { notes(quiet) },
        tail: 95,
        plot: Plot::Size(measured.peers),
        figures,
    }
}

fn notes(quiet: Duration) -> Vec<String> {
    vec![
            "leases in etcd, one node, iptables mode; cold: no device, no rules, no lease of the node's; dumps show when all is there"
                .to_owned(),
            format!(
                "{FLOOR}: this program makes the same routes, neighbours and entries, 300 a send, without a store; quiet: {} s, all sizes at once",
                quiet.as_secs()
            ),
            baseline::SCALE_NOTE.to_owned(),
        ]
}

/// How soon a daemon is ready that begins with nothing.
fn starts(measured: &Measured) -> [Figure; 2] {
    let [reference, ..] = baseline::at_scale(measured.peers);
    let mut peers = vec![Peer::paired(FLOOR, millis(measured.floor.iter().copied()))];
    peers.extend(reference);
    let ready = millis(measured.ready.iter().copied());
    let programmed = millis(measured.programmed.iter().copied());
    [
        Figure::low("start → subnet.env", "ms", ready, vec![baseline::READY])
            .with(most(measured, &[(FEW, 25.0)])),
        Figure::low("start → all peers programmed", "ms", programmed, peers)
            .with(most(measured, &[(1000, 140.0), (5000, 900.0)])),
    ]
}

/// The section of the backend host-gw.
pub(super) fn host_gw(ready: Vec<Duration>, programmed: Vec<Duration>, floor: Vec<Duration>) -> Section {
    let peers = vec![Peer::paired(FLOOR, millis(floor)), baseline::HOST_GW_PROGRAMMED];
    Section {
        title: "Scale: host-gw, 3,000 peers".to_owned(),
        short: "host-gw, 3,000 peers",
        notes: vec![format!(
            "leases in etcd, cold, all peers' addresses on the node's link; {FLOOR}: this program makes the same routes"
        )],
        tail: 95,
        plot: Plot::Distributions,
        figures: vec![
            Figure::low("start → subnet.env", "ms", millis(ready), vec![baseline::READY]),
            Figure::low("start → all routes", "ms", millis(programmed), peers).with(vec![Aim::Most(600.0)]),
        ],
    }
}

/// How soon single changes are followed, and what it costs to look at everything.
fn changes(measured: &Measured, few: Option<&Measured>) -> [Figure; 3] {
    let figure = |name: &str, of: fn(&Measured) -> &[Duration], others: Vec<Peer>| {
        let times = |measured| millis(of(measured).iter().copied());
        let among_few = few.map(|few| Peer::paired(AMONG_FEW, times(few)));
        let peers = among_few.into_iter().chain(others).collect();
        Figure::low(name, "ms", times(measured), peers)
    };
    let as_among_few = Aim::Ratio {
        peer: AMONG_FEW,
        least: 0.8,
    };
    let aims = if measured.peers == 5000 {
        vec![as_among_few]
    } else {
        Vec::new()
    };
    let put = figure(
        "lease put → route, neighbour, FDB",
        |measured| &measured.put,
        vec![
            Peer::paired(FLOOR, millis(measured.put_floor.iter().copied())),
            baseline::LEASE_PUT,
        ],
    );
    [
        put.with(aims),
        figure(
            "lease removed → all gone",
            |measured| &measured.gone,
            vec![baseline::LEASE_GONE],
        ),
        figure(
            "full observation and diff, CPU",
            |measured| &measured.looks,
            Vec::new(),
        ),
    ]
}

/// Memory, processor time and log.
fn costs(measured: &Measured) -> [Figure; 4] {
    let [_, peak, log] = baseline::at_scale(measured.peers);
    let (rss, log_peers) = (peak.unwrap_or(baseline::RSS), log.into_iter().collect());
    let figure = |name: &str, unit, value, peers| Figure::low(name, unit, Summary::single(value), peers);
    let quiet = baseline::IDLE_CPU.to_vec();
    [
        figure("RSS", "MiB", measured.rss_mib, vec![rss.clone()])
            .with(most(measured, &[(FEW, 8.0), (5000, 15.0)])),
        figure("peak RSS", "MiB", measured.peak_mib, vec![rss]),
        figure(
            "CPU, quiet, with drift detection",
            "ms/min",
            measured.quiet_ms,
            quiet,
        )
        .with(most(measured, &[(FEW, 20.0), (1000, 20.0), (5000, 20.0)])),
        figure("log, start and all peers", "KiB", measured.log_kib, log_peers)
            .with(most(measured, &[(5000, 1000.0)])),
    ]
}

/// The aims that a size has.
fn most(measured: &Measured, aims: &[(u16, f64)]) -> Vec<Aim> {
    let own = aims.iter().filter(|(peers, _)| *peers == measured.peers);
    own.map(|(_, most)| Aim::Most(*most)).collect()
}
