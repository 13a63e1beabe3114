//! Special ways: through a node's port, to oneself, many at a time; and what each way costs.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Result;

use super::tools::{across, beside};
use crate::nodes::bed::{End, HOST_PORT, Pod};
use crate::nodes::case::{Case, Look, case};
use crate::nodes::protocol::{Check, Request, Seen, Sent, Transport};
use crate::report::{Checked, Stop, differs, expect};

/// Connections that are open at the same time; agents usually may have 1,024 descriptors (systemd `DefaultLimitNOFILE`).
const CONNECTIONS: u16 = 200;
/// How often a byte goes to and fro.
const TURNS: u32 = 500;
/// What is sent to see how fast it goes, in bytes.
const FLOW: u64 = 64 << 20;
/// How often.
const FLOWS: u8 = 3;
/// How much slower than from node to node a way between pods may be at most; anything slower is broken rather than slow.
const MAX_RATIO: f64 = 10.0;
/// A latency at which no ratio matters.
const FINE: Duration = Duration::from_millis(2);

pub(super) const CASES: &[Case] = &[
    case(
        "HPT-01",
        "a node's port leads to its pod, from every node and from pods elsewhere",
        host_ports,
    ),
    case("HPT-02", "a pod reaches itself through its node's port", |look| {
        with_ports(look)?
            .into_iter()
            .try_for_each(|pod| through_port(look, End::Pod(pod), pod, Transport::Tcp))
    }),
    case(
        "CON-01",
        "200 connections from node to node are open at the same time, and each answers",
        many_connections,
    ),
    case(
        "PTH-01",
        "a byte goes to a pod and back nearly as fast as to a node",
        latency,
    ),
    case("PTH-02", "pods send nearly as much as nodes", throughput),
];

/// The pods to which ports of their nodes lead.
fn with_ports<'a>(look: &Look<'a>) -> Checked<Vec<&'a Pod>> {
    let pods: Vec<_> = look.bed.pods.iter().filter(|pod| pod.has_host_port).collect();
    if pods.is_empty() {
        return Err(Stop::Skip(
            "no plugin of the configuration takes portMappings".to_owned(),
        ));
    }
    Ok(pods)
}

fn host_ports(look: &Look<'_>) -> Checked<()> {
    let mut ways = 0;
    for pod in with_ports(look)? {
        let nodes = (0..look.bed.nodes.len()).map(End::Node);
        let elsewhere = look
            .bed
            .pods
            .iter()
            .filter(|other| other.node != pod.node)
            .map(End::Pod);
        for from in nodes.chain(elsewhere) {
            for transport in [Transport::Tcp, Transport::Udp] {
                through_port(look, from, pod, transport)?;
                ways += 1;
            }
        }
    }
    look.measured(format!("{ways} ways"));
    Ok(())
}

fn through_port(look: &Look<'_>, from: End<'_>, pod: &Pod, transport: Transport) -> Checked<()> {
    let bed = look.bed;
    let target = SocketAddr::new(bed.address(End::Node(pod.node), look.family)?, HOST_PORT);
    let seen: Vec<Result<Seen, String>> = bed.agent(from)?.ask(Request::Ask {
        place: from.place(),
        transport,
        targets: vec![target],
        size: 64,
    })?;
    match seen.into_iter().next() {
        Some(Ok(_)) => Ok(()),
        Some(Err(words)) => differs(
            format!("{} answers at {target}", pod.name),
            format!("{} over {transport:?}: {words}", bed.name(from)),
        ),
        None => Err(anyhow::anyhow!("an agent left a target out").into()),
    }
}

fn many_connections(look: &Look<'_>) -> Checked<()> {
    for (from, to) in across(look)? {
        let end = End::Pod(from);
        let answered: Result<u16> = look.bed.agent(end)?.ask(Request::Connections {
            place: end.place(),
            target: look.bed.server(End::Pod(to), look.family)?,
            count: CONNECTIONS,
        });
        let names = format!("{} → {}", from.name, to.name);
        match answered {
            Ok(answered) => expect(
                answered == CONNECTIONS,
                format!("{CONNECTIONS} answers"),
                format!("{names}: {answered}"),
            )?,
            Err(error) => {
                return differs(
                    format!("{CONNECTIONS} connections"),
                    format!("{names}: {error:#}"),
                );
            }
        }
    }
    Ok(())
}

/// The ways whose cost is compared: the first is from node to node.
fn ways<'a>(look: &Look<'a>) -> Checked<Vec<(&'static str, End<'a>, End<'a>)>> {
    let pairs = across(look)?;
    let Some((one, two)) = pairs.first() else {
        return Err(Stop::Skip("there is one node only".to_owned()));
    };
    let mut ways = vec![
        ("node to node", End::Node(one.node), End::Node(two.node)),
        ("pod to pod across nodes", End::Pod(one), End::Pod(two)),
    ];
    if let Some((one, two)) = beside(look) {
        ways.push(("pod to pod on one node", End::Pod(one), End::Pod(two)));
    }
    Ok(ways)
}

fn latency(look: &Look<'_>) -> Checked<()> {
    let mut first = None;
    for (name, from, to) in ways(look)? {
        let mut times: Vec<Duration> = look.bed.agent(from)?.ask(Request::RoundTrips {
            place: from.place(),
            target: look.bed.server(to, look.family)?,
            count: TURNS,
        })?;
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default();
        let (median, p99) = (at(50), at(99));
        let base = *first.get_or_insert(median);
        let ratio = median.as_secs_f64() / base.as_secs_f64().max(1e-9);
        look.measured(format!(
            "{name}: median {:.0} µs, p99 {:.0} µs, x{ratio:.2}",
            median.as_secs_f64() * 1e6,
            p99.as_secs_f64() * 1e6
        ));
        expect(
            ratio <= MAX_RATIO || median <= FINE * look.inventory.slowdown(),
            format!("at most {MAX_RATIO} times what it takes from node to node"),
            format!("{name}: x{ratio:.2}"),
        )?;
    }
    Ok(())
}

fn throughput(look: &Look<'_>) -> Checked<()> {
    let mut first = None;
    for (name, from, to) in ways(look)? {
        let seconds = fastest(look, name, from, to)?;
        let base = *first.get_or_insert(seconds);
        let ratio = base / seconds;
        let gigabits = f64::from(u32::try_from(flow(look)).unwrap_or(u32::MAX)) * 8e-9 / seconds;
        look.measured(format!("{name}: {gigabits:.2} Gbit/s, x{ratio:.2}"));
        expect(
            ratio * MAX_RATIO >= 1.0,
            format!("at least a {MAX_RATIO}th of what goes from node to node"),
            format!("{name}: x{ratio:.2}"),
        )?;
    }
    Ok(())
}

/// What is sent, in bytes.
fn flow(look: &Look<'_>) -> u64 {
    FLOW / u64::from(look.inventory.slowdown().max(1))
}

/// The shortest of several times in which everything arrived, in seconds: what else the machines do makes it longer.
fn fastest(look: &Look<'_>, name: &str, from: End<'_>, to: End<'_>) -> Checked<f64> {
    let (mut best, flow) = (f64::INFINITY, flow(look));
    for _ in 0..FLOWS {
        let sent: Sent = look.bed.agent(from)?.ask(Request::Send {
            place: from.place(),
            target: look.bed.server(to, look.family)?,
            size: flow,
            check: Check::Amount,
        })?;
        expect(
            sent.arrived == flow,
            format!("{flow} bytes arrive"),
            format!("{name}: {}", sent.arrived),
        )?;
        best = best.min(sent.took.as_secs_f64().max(1e-9));
    }
    Ok(best)
}
