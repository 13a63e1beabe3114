//! How soon a daemon is ready, how soon its node's pods reach others, how soon it ends, and how soon it follows a lease.

use std::fs;
use std::net::Ipv4Addr;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::baseline;
use super::echo::first_answer;
use super::leases::{self, MadeUp};
use super::peer_watch::{Change, PeerWatch};
use super::report::{Figure, Plot, Section};
use super::sample::millis;
use super::start::{LIMIT, Started, start, start_all};
use super::{BenchConfig, progress};
use crate::lab::ping::{Patience, ping_all};
use crate::lab::{Lab, LabConfig, Node, Pod, SUBNET_FILE, TUNNEL, wait_until};

/// Between two changes of a lease, so that each is a first change after quiet.
const QUIET: Duration = Duration::from_millis(300);

/// Three nodes; the first one's daemon is the one that is measured.
struct Bed {
    // Fields are dropped in this order: the daemons are reaped before the lab waits for its processes to end.
    measured: Option<Started>,
    _others: Vec<Started>,
    lab: Lab,
    exits: Vec<Duration>,
}

/// Measures the daemon.
///
/// # Errors
/// Fails when a lab cannot be made, or when the daemon does not do in time what is measured.
pub(super) fn measure(config: &BenchConfig) -> Result<Section> {
    let mut bed = Bed::new(config)?;
    let runs = config.runs;
    progress(&format!("daemon, {runs} cold starts"))?;
    let cold = (0..runs).map(|_| bed.cold()).collect::<Result<Vec<_>>>()?;
    progress(&format!("daemon, {runs} warm starts"))?;
    let warm = (0..runs).map(|_| bed.warm()).collect::<Result<Vec<_>>>()?;
    progress(&format!("daemon, {runs} starts until the first ping"))?;
    let (from, to) = (bed.node()?.add_pod("from")?, bed.lab.node(2)?.add_pod("to")?);
    let pings = (0..runs)
        .map(|_| bed.first_ping(&from, to.address()))
        .collect::<Result<Vec<_>>>()?;
    progress(&format!("daemon, {runs} leases put and removed"))?;
    let (put, gone) = follow_leases(&bed, runs)?;
    let figure = |name: &str, times, peers| Figure::low(name, "ms", millis(times), peers);
    Ok(Section {
        short: "daemon",
        title: format!("flanneld: {runs} runs, three nodes, the other two running"),
        notes: vec![
            "from exec; the subnet file is looked for every 0.1 ms, pings go out every 0.1 ms, the kernel's own notices are taken"
                .to_owned(),
            "cold: no device, no lease, no subnet file; warm: device and lease there; ping: pod to pod, lease there, no device"
                .to_owned(),
            baseline::DAEMON_NOTE.to_owned(),
        ],
        tail: 95,
        plot: Plot::Distributions,
        figures: vec![
            figure("start → subnet.env, cold", cold, vec![baseline::READY]),
            figure("start → subnet.env, warm", warm, vec![baseline::READY]),
            figure("start → first cross-node ping", pings, Vec::new()),
            figure("SIGTERM → exit", bed.exits, Vec::new()),
            figure(
                "lease put → route, neighbour, FDB",
                put,
                vec![baseline::LEASE_PUT],
            ),
            figure("lease removed → all gone", gone, vec![baseline::LEASE_GONE]),
        ],
    })
}

impl Bed {
    fn new(config: &BenchConfig) -> Result<Self> {
        let lab = Lab::new(&LabConfig {
            nodes: 3,
            binaries: config.binaries.clone(),
        })?;
        let mut daemons = start_all(&lab)?;
        let measured = Some(daemons.remove(0));
        Ok(Self {
            measured,
            _others: daemons,
            lab,
            exits: Vec::new(),
        })
    }

    fn node(&self) -> Result<&Node> {
        self.lab.node(1)
    }

    /// From nothing on the node, and nothing of it at the others.
    fn cold(&mut self) -> Result<Duration> {
        let (subnet, _) = self.node()?.subnet()?;
        self.stop()?;
        let node = self.node()?;
        node.ip(&["link", "delete", TUNNEL])?;
        fs::remove_file(leases::file_of(&self.lab, node)?).context("removing the node's lease")?;
        self.await_route(subnet, false)?;
        let took = self.restart()?;
        let (subnet, _) = self.node()?.subnet()?;
        self.await_route(subnet, true)?;
        Ok(took)
    }

    /// With everything there.
    fn warm(&mut self) -> Result<Duration> {
        self.stop()?;
        self.restart()
    }

    /// As after the node's reboot, with its pods there already.
    fn first_ping(&mut self, from: &Pod, target: Ipv4Addr) -> Result<Duration> {
        from.namespaces().run(|| ping_all(&[target], Patience::MATRIX))?;
        self.stop()?;
        let node = self.node()?;
        node.ip(&["link", "delete", TUNNEL])?;
        let (begun, begins) = channel();
        let (started, answered) = thread::scope(|scope| {
            let pinger = scope.spawn(move || from.namespaces().run(|| first_answer(target, &begun)));
            begins.recv().context("waiting for the first request")?;
            let started = start(node)?;
            let answered = pinger.join().map_err(|_| anyhow!("the pinger panicked"))?;
            anyhow::Ok((started, answered?))
        })?;
        let took = answered.duration_since(started.at);
        self.measured.insert(started).ready(self.lab.node(1)?)?;
        Ok(took)
    }

    /// Ends the daemon and takes its subnet file away, as `/run` is empty after a reboot.
    fn stop(&mut self) -> Result<()> {
        let running = self.measured.take().context("the daemon is not running")?;
        self.exits.push(running.stop()?);
        fs::remove_file(self.node()?.file(SUBNET_FILE)).context("removing the subnet file")
    }

    fn restart(&mut self) -> Result<Duration> {
        let started = start(self.node()?)?;
        self.measured.insert(started).ready(self.lab.node(1)?)
    }

    /// Waits until the other nodes have a route to a subnet, or have none.
    fn await_route(&self, subnet: Ipv4Addr, wanted: bool) -> Result<()> {
        for node in self.lab.nodes().iter().skip(1) {
            wait_until("the other nodes to follow a lease", LIMIT, || {
                Ok(has_route(node, subnet)? == wanted)
            })?;
        }
        Ok(())
    }
}

fn has_route(node: &Node, subnet: Ipv4Addr) -> Result<bool> {
    let routes = node.json(&["ip", "-j", "route", "show", &format!("{subnet}/24")])?;
    Ok(!routes.is_empty())
}

/// Puts and removes a lease again and again; returns what the measured daemon took to follow.
fn follow_leases(bed: &Bed, runs: u8) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let node = bed.node()?;
    let (peer, watch) = (MadeUp::choose(&bed.lab)?, PeerWatch::new(node)?);
    let (mut puts, mut removals) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        peer.draft()?;
        thread::sleep(QUIET);
        watch.drain()?;
        let begun = std::time::Instant::now();
        peer.put()?;
        puts.push(watch.all(peer.keys(), Change::Made)?.duration_since(begun));
        let there = has_route(node, peer.keys().subnet)?;
        thread::sleep(QUIET);
        watch.drain()?;
        let begun = std::time::Instant::now();
        peer.remove()?;
        removals.push(watch.all(peer.keys(), Change::Gone)?.duration_since(begun));
        if !there || has_route(node, peer.keys().subnet)? {
            return Err(anyhow!("iproute2 does not see what the kernel's notices told"));
        }
    }
    Ok((puts, removals))
}
