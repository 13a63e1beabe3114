//! What attaching, checking and detaching a pod takes: ours, the other plugins with the same configuration, and the
//! kernel alone, taking turns.

use std::collections::BTreeMap;
use std::fs;
use std::process::{Command, Stdio};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::net::if_::if_nametoindex;
use serde_json::Value;

use super::aim::{self, Aim};
use super::baseline;
use super::cost;
use super::report::{Figure, Peer, Plot, Section};
use super::sample::{Sample, millis};
use super::side::{Chain, Load, Operation, PROOF, PodSeat, Side, netns};
use super::stats::Summary;
use super::{BenchConfig, progress};
use crate::lab::ping::{Patience, ping_all};
use crate::lab::{Lab, LabConfig, Namespaces, POD_LINK};

/// The fewest pods of each side, one after another.
pub(super) const MIN_PODS: u8 = 200;
/// How often each side has its turn when many pods are handled at once, with how many pods, and how many at once.
const TURNS: usize = 3;
const PARALLEL_PODS: u8 = 100;
const WIDTHS: [u8; 2] = [10, 50];
/// The kernel takes the last turn's namespaces down after their end; its work shall not count for the next side.
const SETTLE: Duration = Duration::from_millis(300);

/// In the order in which they are done to every pod.
const OPERATIONS: [Operation; 4] = [
    Operation::Version,
    Operation::Add,
    Operation::Check,
    Operation::Del,
];

/// Where strace writes, as the node sees it.
const TRACE: &str = "/run/bench/trace";

/// What was measured, by side and operation.
type Samples = BTreeMap<(usize, &'static str), Vec<Sample>>;

/// A node with pods to be, for one side.
pub(super) struct Stand {
    // The lab ends with this value.
    lab: Lab,
    chain: Chain,
    side: Side,
    seats: Vec<PodSeat>,
}

/// What one operation on all pods of a stand took.
struct Round {
    samples: Vec<Sample>,
    wall: Duration,
}

/// Everything of the plugin, load by load.
///
/// # Errors
/// Fails when a lab cannot be made or a plugin answers with an error.
pub(super) fn measure(config: &BenchConfig) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    let loads = loads(config)?;
    for load in &loads {
        sections.push(sequential(config, *load)?);
    }
    let many = if loads.contains(&Load::Chain) {
        Load::Chain
    } else {
        Load::Plain
    };
    sections.push(parallel(config, many)?);
    sections.push(cost::measure(config, &loads)?);
    Ok(sections)
}

/// The loads that our program can be measured with.
pub(super) fn loads(config: &BenchConfig) -> Result<Vec<Load>> {
    let program = config.binaries.dir().join("flannel");
    let mut asked = Command::new(&program);
    asked.arg("portmap").env("CNI_COMMAND", "VERSION");
    asked
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let has_portmap = asked
        .status()
        .with_context(|| format!("starting {}", program.display()))?
        .success();
    let mut loads = Load::ALL.to_vec();
    loads.retain(|load| has_portmap || !load.has_portmap());
    Ok(loads)
}

/// The sides of a load; the floor is of a pod with one address.
pub(super) fn sides(config: &BenchConfig, load: Load) -> Vec<Side> {
    let mut sides = vec![Side::Ours, Side::Peer, Side::Floor];
    sides.retain(|side| *side != Side::Peer || config.peer_dir.is_some());
    sides.retain(|side| *side != Side::Floor || matches!(load, Load::Plain | Load::Chain));
    sides
}

/// Pods one after another, on a node for each side; with every pod the sides take turns.
fn sequential(config: &BenchConfig, load: Load) -> Result<Section> {
    let sides = sides(config, load);
    let pods = config.runs.max(MIN_PODS);
    let new = |side: &Side| Stand::new(config, *side, load, pods);
    let mut stands = sides.iter().map(new).collect::<Result<Vec<_>>>()?;
    let mut samples = Samples::new();
    for operation in OPERATIONS {
        progress(&format!(
            "CNI {}, {} of {pods} pods a side",
            load.name(),
            operation.name()
        ))?;
        for pod in 0..usize::from(pods) {
            // Nobody always follows the same one.
            for step in 0..sides.len() {
                let index = (pod + step) % sides.len();
                let stand = stands.get_mut(index).context("a side without a stand")?;
                if let Some(sample) = stand.one(operation, pod)? {
                    samples.entry((index, operation.name())).or_default().push(sample);
                }
            }
        }
        stands.iter().try_for_each(|stand| stand.prove(operation))?;
    }
    let figures = OPERATIONS.map(|operation| sequential_figures(&sides, &samples, operation, load));
    Ok(Section {
        title: format!(
            "CNI {}, {pods} pods a side, the sides taking turns with every pod",
            load.name()
        ),
        short: load.name(),
        notes: notes(config),
        tail: 95,
        plot: Plot::Distributions,
        figures: figures.into_iter().flatten().collect(),
    })
}

fn sequential_figures(sides: &[Side], samples: &Samples, operation: Operation, load: Load) -> [Figure; 2] {
    let of = |side: Side, part: fn(&Sample) -> Duration| {
        let index = sides.iter().position(|other| *other == side)?;
        let taken = samples.get(&(index, operation.name()))?;
        Some(millis(taken.iter().map(part)))
    };
    let figure = |what: &str, part: fn(&Sample) -> Duration, known: Peer| {
        let measured = [(Side::Peer, aim::PEER), (Side::Floor, aim::FLOOR)]
            .into_iter()
            .filter_map(|(side, name)| Some(Peer::paired(name, of(side, part)?)));
        // The reference's figures are of its whole chain.
        let known = (load == Load::Chain).then_some(known);
        let ours = of(Side::Ours, part).unwrap_or_else(|| Summary::of(Vec::new()));
        let name = format!("{} {what}", operation.name());
        Figure::low(name, "ms", ours, measured.chain(known).collect())
    };
    let [wall, cpu] = aims(operation, load);
    [
        figure("time", |sample| sample.wall, baseline::wall(operation)).with(wall),
        figure("CPU", |sample| sample.cpu, baseline::cpu(operation)).with(cpu),
    ]
}

/// What time and processor time are meant to reach.
fn aims(operation: Operation, load: Load) -> [Vec<Aim>; 2] {
    let peer = Aim::times_peer;
    let tail = |least| Aim::TailRatio {
        peer: aim::PEER,
        least,
    };
    match (load, operation) {
        (Load::Plain, Operation::Add) => [vec![Aim::times_floor(1.3)], vec![]],
        (Load::Plain, Operation::Del) => [vec![Aim::times_floor(1.1)], vec![]],
        (Load::Chain, Operation::Add) => [vec![Aim::times_floor(1.7), peer(5.0)], vec![peer(8.0)]],
        (Load::Chain, Operation::Check) => [vec![peer(4.0)], vec![]],
        (Load::Chain, Operation::Del) => [vec![], vec![peer(8.0)]],
        (Load::Port, Operation::Add) => [vec![peer(10.0)], vec![]],
        (Load::Port, Operation::Del) => [vec![peer(4.0)], vec![]],
        (Load::DualStack, Operation::Add) => [vec![tail(20.0)], vec![]],
        (Load::Plain | Load::DualStack, Operation::Check)
        | (Load::DualStack, Operation::Del)
        | (Load::Port, Operation::Check)
        | (_, Operation::Version) => [vec![], vec![]],
    }
}

/// Many pods at once.
fn parallel(config: &BenchConfig, load: Load) -> Result<Section> {
    let sides = sides(config, load);
    let mut rounds: BTreeMap<(u8, &str, usize), Vec<Round>> = BTreeMap::new();
    for turn in 1..=TURNS {
        for (index, side) in sides.iter().enumerate() {
            progress(&format!("CNI, many at once, turn {turn} of {TURNS}"))?;
            let mut stand = Stand::new(config, *side, load, PARALLEL_PODS)?;
            for width in WIDTHS {
                for operation in [Operation::Add, Operation::Del] {
                    let round = stand.all(operation, width)?;
                    let key = (width, operation.name(), index);
                    rounds.entry(key).or_default().push(round);
                }
            }
        }
    }
    let mut figures = Vec::new();
    for width in WIDTHS {
        for operation in [Operation::Add, Operation::Del] {
            let of = |side: Side| {
                let index = sides.iter().position(|other| *other == side)?;
                rounds.get(&(width, operation.name(), index)).map(Vec::as_slice)
            };
            figures.extend(parallel_figures(operation, width, &of));
        }
    }
    Ok(Section {
        title: format!(
            "CNI {}, many at once: {TURNS} turns of {PARALLEL_PODS} pods a side",
            load.name()
        ),
        short: load.name(),
        notes: notes(config),
        tail: 99,
        plot: Plot::Distributions,
        figures,
    })
}

fn parallel_figures<'a>(
    operation: Operation,
    width: u8,
    of: &dyn Fn(Side) -> Option<&'a [Round]>,
) -> Vec<Figure> {
    let Some(ours) = of(Side::Ours) else {
        return Vec::new();
    };
    let peers = |summary: fn(&[Round]) -> Summary, known: Option<Peer>| {
        let measured = [(Side::Peer, aim::PEER), (Side::Floor, aim::FLOOR)]
            .into_iter()
            .filter_map(|(side, name)| Some(Peer::paired(name, summary(of(side)?))));
        measured.chain(known).collect::<Vec<_>>()
    };
    let name = |what: &str| format!("{} {width} at once, {what}", operation.name());
    let rates = peers(rate, baseline::rate(operation, width));
    let walls = peers(wall, baseline::parallel_wall(operation, width));
    let (rate_aims, wall_aims) = if operation == Operation::Add && width == 50 {
        (vec![Aim::times_peer(5.0)], vec![Aim::TailMost(300.0)])
    } else {
        (Vec::new(), Vec::new())
    };
    vec![
        Figure::high(name("rate"), "pods/s", rate(ours), rates).with(rate_aims),
        Figure::low(name("time"), "ms", wall(ours), walls).with(wall_aims),
    ]
}

/// Pods a second, of each round.
fn rate(rounds: &[Round]) -> Summary {
    let rates = rounds.iter().map(|round| {
        let pods = u32::try_from(round.samples.len()).unwrap_or(u32::MAX);
        f64::from(pods) / round.wall.as_secs_f64()
    });
    Summary::of(rates.collect())
}

/// What each operation of all rounds took.
fn wall(rounds: &[Round]) -> Summary {
    let samples = rounds.iter().flat_map(|round| &round.samples);
    millis(samples.map(|sample| sample.wall))
}

fn notes(config: &BenchConfig) -> Vec<String> {
    let mut notes = vec![
        "peer: bridge + host-local, and portmap where it is part of the list; without flannel".to_owned(),
        "portmap 1.1.1 fails its CHECK of a port, for want of a rule of IPv6 that it does not make"
            .to_owned(),
        "floor: a bare program that makes the same links, addresses and routes, once, without portmap"
            .to_owned(),
        baseline::CHAIN_NOTE.to_owned(),
    ];
    if config.peer_dir.is_none() {
        notes.insert(0, "no other plugins to compare with on this machine".to_owned());
    }
    notes
}

impl Stand {
    /// Makes a fresh node with a side's programs and empty network namespaces for its pods.
    ///
    /// # Errors
    /// Fails when a lab cannot be made or a program is missing.
    pub(super) fn new(config: &BenchConfig, side: Side, load: Load, pods: u8) -> Result<Self> {
        thread::sleep(SETTLE);
        let lab = Lab::new(&LabConfig {
            nodes: 1,
            binaries: config.binaries.clone(),
        })?;
        let node = lab.node(1)?;
        fs::create_dir_all(node.file("/run/bench")).context("making /run/bench")?;
        let chain = Chain::prepare(side, load, node, config.peer_dir.as_deref())?;
        let names: String = (0..pods)
            .map(|number| format!("netns add pod{number}\n"))
            .collect();
        fs::write(node.file("/run/bench/pods"), names).context("naming the pods")?;
        node.ip(&["-batch", "/run/bench/pods"])?;
        let seat = |number| PodSeat {
            number,
            result: Value::Null,
        };
        Ok(Self {
            lab,
            chain,
            side,
            seats: (0..pods).map(seat).collect(),
        })
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    pub(super) fn seats(&self) -> &[PodSeat] {
        &self.seats
    }

    /// Does an operation on every pod, so many at once.
    fn all(&mut self, operation: Operation, width: u8) -> Result<Round> {
        let node = self.lab.node(1)?;
        if operation == Operation::Add {
            self.seats.iter_mut().for_each(|seat| seat.result = Value::Null);
        }
        let (chain, seats) = (&self.chain, &mut self.seats);
        let round = at_once(node.namespaces(), chain, operation, seats, width)?;
        self.prove(operation)?;
        Ok(round)
    }

    /// Does an operation on one pod; `None` when the side has no such operation.
    fn one(&mut self, operation: Operation, pod: usize) -> Result<Option<Sample>> {
        let seat = self.seats.get_mut(pod).context("a stand with too few pods")?;
        let node = self.lab.node(1)?;
        if !self.chain.has(self.side, operation) {
            return Ok(None);
        }
        let chain = &self.chain;
        node.namespaces().run(|| chain.run(operation, seat)).map(Some)
    }

    /// Does an operation on one pod under strace and returns the log.
    pub(super) fn traced(&mut self, operation: Operation, pod: usize, options: &[&str]) -> Result<String> {
        let seat = self.seats.get_mut(pod).context("a stand with too few pods")?;
        let (node, chain) = (self.lab.node(1)?, &self.chain);
        let options = [options, &["-f", "-qq", "-o", TRACE, "-A"]].concat();
        node.namespaces()
            .run(|| chain.traced(operation, seat, &options))?;
        let log = node.file(TRACE);
        let text = fs::read_to_string(&log).context("reading what strace saw")?;
        fs::remove_file(log).context("removing what strace saw")?;
        Ok(text)
    }

    /// An ADD counts only if the last pod reaches its gateway, a DEL only if the pod has lost its link.
    fn prove(&self, operation: Operation) -> Result<()> {
        let seat = self.seats.last().context("a stand without pods")?;
        let pod = Namespaces::of_netns_file(&self.lab.node(1)?.file(&netns(seat.number)))?;
        let holds = match operation {
            Operation::Version | Operation::Check => true,
            Operation::Add => pod
                .run(|| ping_all(&[PROOF], Patience::MATRIX))?
                .iter()
                .all(Option::is_some),
            Operation::Del => pod.run(|| Ok(if_nametoindex(POD_LINK)))?.is_err(),
        };
        if !holds {
            bail!("{} did not do its work on pod {}", operation.name(), seat.number);
        }
        Ok(())
    }
}

/// Workers take pod after pod. Each enters the node before the clock starts: a thread in the lab's process namespace
/// can start programs but no threads.
fn at_once(
    node: &Namespaces,
    chain: &Chain,
    operation: Operation,
    seats: &mut [PodSeat],
    width: u8,
) -> Result<Round> {
    let (queue, start) = (Mutex::new(seats.iter_mut()), Barrier::new(usize::from(width) + 1));
    let work = || {
        let entered = node.enter();
        start.wait();
        entered?;
        let mut samples = Vec::new();
        loop {
            let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(seat) = next else { return Ok(samples) };
            samples.push(chain.run(operation, seat)?);
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..width).map(|_| scope.spawn(work)).collect();
        start.wait();
        let begun = Instant::now();
        let mut samples = Vec::new();
        for worker in workers {
            let taken: Result<Vec<Sample>> = worker.join().map_err(|_| anyhow!("a worker panicked"))?;
            samples.extend(taken?);
        }
        let wall = begun.elapsed();
        Ok(Round { samples, wall })
    })
}
