//! What attaching, checking and detaching a pod takes: ours, the other plugins with the same configuration, and the
//! kernel alone, taking turns.

use std::collections::BTreeMap;
use std::fs;
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use nix::net::if_::if_nametoindex;
use serde_json::Value;

use super::baseline;
use super::report::{Figure, Peer, Section};
use super::sample::{Sample, millis};
use super::side::{Operation, PROOF, Plugin, PodSeat, Ready, Side, netns};
use super::stats::Summary;
use super::{BenchConfig, progress};
use crate::lab::ping::{Patience, ping_all};
use crate::lab::{Lab, LabConfig, Namespaces, POD_LINK};

/// The fewest pods of each side, one after another.
const MIN_PODS: u8 = 100;
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

/// What was measured, by side and operation.
type Samples = BTreeMap<(usize, &'static str), Vec<Sample>>;

/// A node with pods to be, for one side.
pub(super) struct Stand {
    // The lab ends with this value.
    lab: Lab,
    ready: Ready,
    seats: Vec<PodSeat>,
}

/// What one operation on all pods of a stand took.
struct Round {
    samples: Vec<Sample>,
    wall: Duration,
}

/// Pods one after another, on a node for each side; with every pod the sides take turns.
///
/// # Errors
/// Fails when a lab cannot be made or a plugin answers with an error.
pub(super) fn sequential(config: &BenchConfig) -> Result<Section> {
    let sides = sides(config);
    let pods = config.runs.max(MIN_PODS);
    let new = |side: &Side| Stand::new(config, *side, pods);
    let mut stands = sides.iter().map(new).collect::<Result<Vec<_>>>()?;
    let mut samples = Samples::new();
    for operation in OPERATIONS {
        progress(&format!("CNI, {} of {pods} pods a side", operation.name()))?;
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
    let figures = |side, others: &[Side], reference| {
        // Our program starts the same under either name.
        OPERATIONS
            .into_iter()
            .filter(|operation| side == Side::OurFlannel || *operation != Operation::Version)
            .flat_map(|operation| sequential_figures(&sides, &samples, operation, side, others, reference))
            .collect::<Vec<_>>()
    };
    let mut all = figures(
        Side::OurFlannel,
        &[Side::PeerBridge, Side::Floor],
        Reference::Shown,
    );
    all.extend(figures(
        Side::OurBridge,
        &[Side::PeerBridge, Side::Floor],
        Reference::Left,
    ));
    Ok(Section {
        title: format!(
            "CNI, one pod after another: {pods} pods a side, the sides taking turns with every pod"
        ),
        notes: notes(config),
        tail: 95,
        figures: all,
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reference {
    Shown,
    Left,
}

fn sequential_figures(
    sides: &[Side],
    samples: &Samples,
    operation: Operation,
    side: Side,
    others: &[Side],
    reference: Reference,
) -> [Figure; 2] {
    let of = |side: Side, part: fn(&Sample) -> Duration| {
        let index = sides.iter().position(|other| *other == side)?;
        let taken = samples.get(&(index, operation.name()))?;
        Some(millis(taken.iter().map(part)))
    };
    let figure = |what: &str, part: fn(&Sample) -> Duration, known: Peer| {
        let measured = others
            .iter()
            .filter_map(|other| Some(Peer::paired(peer_name(*other), of(*other, part)?)));
        let known = (reference == Reference::Shown).then_some(known);
        let ours = of(side, part).unwrap_or_else(|| Summary::of(Vec::new()));
        let name = format!("{} {what}, {}", operation.name(), side.name());
        Figure::low(name, "ms", ours, measured.chain(known).collect())
    };
    [
        figure("time", |sample| sample.wall, baseline::wall(operation)),
        figure("CPU", |sample| sample.cpu, baseline::cpu(operation)),
    ]
}

/// Many pods at once.
///
/// # Errors
/// Fails when a lab cannot be made or a plugin answers with an error.
pub(super) fn parallel(config: &BenchConfig) -> Result<Section> {
    let sides = sides(config);
    let mut rounds: BTreeMap<(u8, &str, usize), Vec<Round>> = BTreeMap::new();
    for turn in 1..=TURNS {
        for (index, side) in sides.iter().enumerate() {
            progress(&format!(
                "CNI, many at once, turn {turn} of {TURNS}: {}",
                side.name()
            ))?;
            let mut stand = Stand::new(config, *side, PARALLEL_PODS)?;
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
            "CNI, many pods at once: {TURNS} turns of {PARALLEL_PODS} pods a side, the sides taking turns"
        ),
        notes: notes(config),
        tail: 99,
        figures,
    })
}

fn parallel_figures<'a>(
    operation: Operation,
    width: u8,
    of: &dyn Fn(Side) -> Option<&'a [Round]>,
) -> Vec<Figure> {
    let mut figures = Vec::new();
    for side in [Side::OurFlannel, Side::OurBridge] {
        let Some(ours) = of(side) else { continue };
        let others = [Side::PeerBridge, Side::Floor];
        let peers = |summary: fn(&[Round]) -> Summary, known: Option<Peer>| {
            let measured = others
                .into_iter()
                .filter_map(|other| Some(Peer::paired(peer_name(other), summary(of(other)?))));
            measured
                .chain(known.filter(|_| side == Side::OurFlannel))
                .collect::<Vec<_>>()
        };
        let name = |what: &str| format!("{} {width} at once, {what}, {}", operation.name(), side.name());
        let rates = peers(rate, baseline::rate(operation, width));
        let walls = peers(wall, baseline::parallel_wall(operation, width));
        figures.push(Figure::high(name("rate"), "pods/s", rate(ours), rates));
        figures.push(Figure::low(name("time"), "ms", wall(ours), walls));
    }
    figures
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

fn sides(config: &BenchConfig) -> Vec<Side> {
    let mut sides = vec![Side::OurFlannel, Side::PeerBridge, Side::OurBridge, Side::Floor];
    sides.retain(|side| *side != Side::PeerBridge || config.peer_dir.is_some());
    sides
}

fn peer_name(side: Side) -> &'static str {
    match side {
        Side::PeerBridge => "peer bridge + host-local",
        Side::Floor => "kernel floor",
        Side::OurFlannel | Side::OurBridge => side.name(),
    }
}

fn notes(config: &BenchConfig) -> Vec<String> {
    let mut notes = vec![
        "flannel chain: our flannel with bridge's and host-local's part; bridge conf: what it hands on, our binary as bridge"
            .to_owned(),
        "kernel floor: the same links, addresses and routes in one thread, without process, files or looks".to_owned(),
        "VERSION: nothing but the start and the end of the program, of the peer's bridge alone".to_owned(),
        baseline::CHAIN_NOTE.to_owned(),
    ];
    if config.peer_dir.is_none() {
        notes.insert(
            0,
            "no bridge and host-local to compare with on this machine".to_owned(),
        );
    }
    notes
}

impl Stand {
    /// Makes a fresh node with a side's programs and empty network namespaces for its pods.
    ///
    /// # Errors
    /// Fails when a lab cannot be made or a program is missing.
    pub(super) fn new(config: &BenchConfig, side: Side, pods: u8) -> Result<Self> {
        thread::sleep(SETTLE);
        let lab = Lab::new(&LabConfig {
            nodes: 1,
            binaries: config.binaries.clone(),
        })?;
        let node = lab.node(1)?;
        fs::create_dir_all(node.file("/run/bench")).context("making /run/bench")?;
        let ready = Ready::prepare(side, node, config.peer_dir.as_deref())?;
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
            ready,
            seats: (0..pods).map(seat).collect(),
        })
    }

    pub(super) fn lab(&self) -> &Lab {
        &self.lab
    }

    /// The program of the side, unless it is the bare kernel.
    pub(super) fn plugin(&self) -> Option<&Plugin> {
        match &self.ready {
            Ready::Plugin(plugin) => Some(plugin),
            Ready::Floor(_) => None,
        }
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
        let (ready, seats) = (&self.ready, &mut self.seats);
        let round = at_once(node.namespaces(), ready, operation, seats, width)?;
        self.prove(operation)?;
        Ok(round)
    }

    /// Does an operation on one pod; `None` when the side has no such operation.
    fn one(&mut self, operation: Operation, pod: usize) -> Result<Option<Sample>> {
        let seat = self.seats.get_mut(pod).context("a stand with too few pods")?;
        let node = self.lab.node(1)?;
        match (&self.ready, operation) {
            (Ready::Floor(_), Operation::Version | Operation::Check) => Ok(None),
            (ready, _) => node.namespaces().run(|| ready.run(operation, seat)).map(Some),
        }
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
    ready: &Ready,
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
            samples.push(ready.run(operation, seat)?);
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
