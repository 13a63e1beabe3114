//! What the data plane carries and costs: pod to pod across two nodes, in each backend, against the plain underlay and
//! against the same kernel objects made by plain commands.
//!
//! Packets never pass through our programs, so that nothing can be won here: what is to be seen is that nothing is lost.
//! Both ends, the nodes and the wire share this machine's processors. Figures of two kinds of path compare; no figure
//! tells what a real network carries.

mod backend;
mod bed;
mod cpu;
mod figures;
mod iperf;
mod plain;
mod round_trip;
mod twin;

use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};

use super::report::Section;
use super::{BenchConfig, progress};
use backend::{Backend, Family};
use bed::Bed;
use figures::{Flow, Taken};
use iperf::{LOADS, Load};

/// Rounds of the short form.
const QUICK_ROUNDS: u8 = 1;
/// So many of the daemon's samples are one round here, which takes half a minute.
const RUNS_A_ROUND: u8 = 4;

/// How often a server is asked that has not yet done with its last client, and the pause before each.
const TRIES: u8 = 50;
const PAUSE: Duration = Duration::from_millis(100);

/// The wire that the nodes are on, and what is sent over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wire {
    family: Family,
    mtu: u16,
    /// The payload of a UDP packet in bytes, the same on every path: it fits into a pod's MTU in each of them.
    udp_bytes: u16,
}

const PLAIN_V4: Wire = wire(Family::V4, 1500, 1350);
const PLAIN_V6: Wire = wire(Family::V6, 1500, 1350);
const JUMBO_V4: Wire = wire(Family::V4, 9000, 8800);
const WIRES: &[Wire] = &[PLAIN_V4, PLAIN_V6, JUMBO_V4];
const QUICK_WIRES: &[Wire] = &[PLAIN_V4];

const fn wire(family: Family, mtu: u16, udp_bytes: u16) -> Wire {
    Wire {
        family,
        mtu,
        udp_bytes,
    }
}

/// A backend that runs, with its twin where plain commands can make one.
struct Pair {
    backend: Backend,
    ours: Bed,
    plain: Option<Bed>,
}

/// Measures the data plane on each wire.
///
/// # Errors
/// Fails without iperf3, when a lab cannot be made, when the plain commands do not make the same as the daemon, or when
/// a path carries nothing.
pub(super) fn measure(config: &BenchConfig) -> Result<Vec<Section>> {
    iperf::look()?;
    let (wires, rounds) = if config.quick {
        (QUICK_WIRES, QUICK_ROUNDS)
    } else {
        (WIRES, config.runs / RUNS_A_ROUND)
    };
    wires.iter().map(|wire| on_wire(config, *wire, rounds)).collect()
}

fn on_wire(config: &BenchConfig, wire: Wire, rounds: u8) -> Result<Section> {
    let title = figures::title(wire, rounds);
    progress(&title)?;
    let underlay = Bed::underlay(config, wire)?;
    let (mut pairs, mut missing) = (Vec::new(), Vec::new());
    for backend in Backend::of(wire.family) {
        if underlay.lacks_driver(backend)? {
            missing.push(backend);
            continue;
        }
        let ours = Bed::ours(config, backend, wire)?;
        let plain = backend
            .has_twin()
            .then(|| Bed::plain(config, &ours, backend, wire))
            .transpose()?;
        pairs.push(Pair { backend, ours, plain });
    }
    // The underlay is first and last of each turn: how far its two figures are apart is the noise of the run.
    let mut beds = vec![&underlay];
    for pair in &pairs {
        beds.push(&pair.ours);
        beds.extend(&pair.plain);
    }
    beds.push(&underlay);
    let mut taken: Vec<_> = beds.iter().map(|_| Taken::default()).collect();
    for round in 0..rounds {
        progress(&format!("{title}, round {}", u16::from(round) + 1))?;
        take_turns(&beds, wire, round % 2 == 1, &mut taken)?;
    }
    for pair in &mut pairs {
        pair.ours.assert_running()?;
    }
    let mut taken = taken.into_iter();
    let first = taken.next().unwrap_or_default();
    let measured: Vec<_> = pairs
        .iter()
        .map(|pair| {
            let ours = taken.next().unwrap_or_default();
            let plain = pair.plain.as_ref().and_then(|_| taken.next());
            (pair.backend, ours, plain)
        })
        .collect();
    let again = taken.next().unwrap_or_default();
    Ok(figures::section(title, &first, &again, &measured, &missing))
}

/// One measurement of each kind on each bed; who is compared is measured within seconds.
fn take_turns(beds: &[&Bed], wire: Wire, backwards: bool, taken: &mut [Taken]) -> Result<()> {
    let mut turns: Vec<_> = beds.iter().zip(taken).collect();
    if backwards {
        turns.reverse();
    }
    for (index, load) in LOADS.iter().enumerate() {
        for (bed, taken) in &mut turns {
            let flow = one_flow(bed, *load, wire)?;
            taken.add(index, flow)?;
        }
    }
    for (bed, taken) in &mut turns {
        taken.udp_micros.extend(bed.udp_round_trips()?);
        taken.tcp_micros.extend(bed.tcp_round_trips()?);
    }
    Ok(())
}

fn one_flow(bed: &Bed, load: Load, wire: Wire) -> Result<Flow> {
    for _ in 0..TRIES {
        let before = cpu::busy()?;
        if let Some(carried) = bed.carry(load, wire.udp_bytes)? {
            return Ok(Flow::of(carried, cpu::busy()? - before));
        }
        thread::sleep(PAUSE);
    }
    bail!("iperf3 did not get ready for {}", load.name())
}
