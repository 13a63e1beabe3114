//! From measurements to the report.

use anyhow::{Context, Result};

use super::Wire;
use super::backend::Backend;
use super::iperf::{Carried, LOADS, SECONDS};
use crate::bench::report::{Figure, Peer, Plot, Section};
use crate::bench::stats::Summary;
use crate::counted::counted;

/// The names of the peers.
const PLAIN: &str = "plain commands";
const UNDERLAY: &str = "underlay";
const AGAIN: &str = "the same again";

/// One measurement of throughput.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Flow {
    gbit_per_second: f64,
    /// Processor time of the whole machine for each gigabit that arrived.
    cpu_millis_per_gigabit: f64,
}

impl Flow {
    /// From what arrived and how many seconds processors were busy meanwhile.
    pub(super) fn of(carried: Carried, busy_seconds: f64) -> Self {
        Self {
            gbit_per_second: carried.gigabits / carried.seconds,
            cpu_millis_per_gigabit: busy_seconds * 1e3 / carried.gigabits,
        }
    }
}

/// All measurements of a path, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Of each of [`LOADS`].
    flows: [Vec<Flow>; LOADS.len()],
    pub(super) udp_micros: Vec<f64>,
    pub(super) tcp_micros: Vec<f64>,
}

impl Taken {
    /// Notes a measurement of one of [`LOADS`].
    ///
    /// # Errors
    /// Fails when there is no such load.
    pub(super) fn add(&mut self, load: usize, flow: Flow) -> Result<()> {
        let flows = self.flows.get_mut(load);
        flows
            .with_context(|| format!("there is no load {load}"))?
            .push(flow);
        Ok(())
    }

    /// One summary for each of [`MEASURES`].
    fn summaries(&self) -> Vec<Summary> {
        let part = |flows: &[Flow], part: fn(&Flow) -> f64| Summary::of(flows.iter().map(part).collect());
        let flows = self.flows.iter().flat_map(|flows| {
            [
                part(flows, |flow| flow.gbit_per_second),
                part(flows, |flow| flow.cpu_millis_per_gigabit),
            ]
        });
        let round_trips = [&self.udp_micros, &self.tcp_micros].map(|micros| Summary::of(micros.clone()));
        flows.chain(round_trips).collect()
    }
}

/// Names a wire and how much is measured on it.
pub(super) fn title(wire: Wire, rounds: u8) -> String {
    let (family, mtu, rounds) = (wire.family.name(), wire.mtu, counted(rounds, "round"));
    format!("Data plane, {family}, underlay MTU {mtu}: {rounds} of {SECONDS} s")
}

/// The report of a wire: the noise first, then each backend that runs, then those that cannot.
pub(super) fn section(
    title: String,
    underlay: &Taken,
    again: &Taken,
    measured: &[(Backend, Taken, Option<Taken>)],
    missing: &[Backend],
) -> Section {
    let mut figures = rows("underlay", underlay, &[(AGAIN, again)]);
    for (backend, ours, plain) in measured {
        let plain = plain.iter().map(|plain| (PLAIN, plain));
        let peers: Vec<_> = plain.chain([(UNDERLAY, underlay)]).collect();
        figures.extend(rows(backend.name(), ours, &peers));
    }
    figures.extend(missing.iter().map(|backend| {
        let name = format!("{}: this kernel has no driver", backend.name());
        Figure::low(name, "", Summary::of(Vec::new()), Vec::new())
    }));
    Section {
        title,
        short: "data plane",
        notes: vec![
            "pod to pod over two nodes; underlay: node to node, without any rules; both ends and the wire on this machine".to_owned(),
            "plain commands: the same VXLAN devices with their entries, routes to pods, rules in their order, bridge and pod links as ours (no sysctls), compared before, made by ip, bridge and iptables, with no daemon running".to_owned(),
            "the same again: the underlay at the other end of each round, so that its ratios are the noise of this run".to_owned(),
            "×1, ×8: flows at once; Gbit/s: what arrived; CPU: milliseconds of the whole machine's processors for a gigabit that arrived, others' work included".to_owned(),
            "flows: each end on a processor of its own; round trip: 64 bytes and their answer, both ends on one processor".to_owned(),
        ],
        tail: 95,
        plot: Plot::Ratios,
        figures,
    }
}

fn rows(who: &str, ours: &Taken, peers: &[(&str, &Taken)]) -> Vec<Figure> {
    let mut peers: Vec<_> = peers
        .iter()
        .map(|(name, taken)| (*name, taken.summaries().into_iter()))
        .collect();
    let mut figures = Vec::new();
    for (make, summary) in measures().into_iter().zip(ours.summaries()) {
        let theirs = peers
            .iter_mut()
            .filter_map(|(name, summaries)| Some(Peer::paired(name, summaries.next()?)));
        figures.push(make.figure(who, summary, theirs.collect()));
    }
    figures
}

/// A quantity of every path.
struct Measure {
    name: String,
    unit: &'static str,
    is_rate: bool,
}

impl Measure {
    fn figure(&self, who: &str, ours: Summary, peers: Vec<Peer>) -> Figure {
        let name = format!("{who}, {}", self.name);
        if self.is_rate {
            Figure::high(name, self.unit, ours, peers)
        } else {
            Figure::low(name, self.unit, ours, peers)
        }
    }
}

/// What [`Taken::summaries`] has, in its order.
fn measures() -> Vec<Measure> {
    let measure = |name, unit, is_rate| Measure { name, unit, is_rate };
    let flows = LOADS.iter().flat_map(|load| {
        [
            measure(load.name(), "Gbit/s", true),
            measure(format!("{} CPU", load.name()), "ms/Gb", false),
        ]
    });
    let round_trips = ["UDP", "TCP"].map(|protocol| measure(format!("{protocol} round trip"), "µs", false));
    flows.chain(round_trips).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::table;

    fn taken(gigabits: f64) -> Taken {
        let mut taken = Taken::default();
        for load in 0..LOADS.len() {
            let carried = Carried {
                gigabits,
                seconds: 2.0,
            };
            taken.add(load, Flow::of(carried, 1.5)).unwrap();
        }
        taken.udp_micros = vec![gigabits; 20];
        taken.tcp_micros = vec![gigabits];
        taken
    }

    #[test]
    fn each_backend_stands_beside_its_twin_and_the_underlay_and_what_cannot_run_is_named() {
        let measured = [
            (Backend::Vxlan, taken(10.0), Some(taken(10.0))),
            (Backend::Ipip, taken(16.0), None),
        ];
        let section = section(
            "Wire".to_owned(),
            &taken(20.0),
            &taken(25.0),
            &measured,
            &[Backend::WireGuard],
        );
        let drawn = table::draw(&section);
        let lines: Vec<_> = drawn.lines().skip(7).collect();
        assert_eq!(lines.len(), 1 + 10 + 20 + 10 + 1);
        for (number, line) in [
            (
                1,
                "  ×0.80  underlay, TCP ×1                      Gbit/s     10.0        –    1      12.5        –  the same again",
            ),
            (
                2,
                "  ×0.80  underlay, TCP ×1 CPU                  ms/Gb      75.0        –    1      60.0        –  the same again",
            ),
            (
                11,
                "  ×1.00  vxlan, TCP ×1                         Gbit/s     5.00        –    1      5.00        –  plain commands",
            ),
            (
                12,
                "  ×0.50                                                                           10.0        –  underlay",
            ),
            (
                27,
                "  ×1.00  vxlan, UDP round trip                 µs         10.0     10.0   20      10.0     10.0  plain commands",
            ),
            (
                31,
                "  ×0.80  ipip, TCP ×1                          Gbit/s     8.00        –    1      10.0        –  underlay",
            ),
            (
                41,
                "         wireguard: this kernel has no driver                –        –    0",
            ),
        ] {
            assert_eq!(lines[number], line, "line {number} of\n{drawn}");
        }
    }
}
