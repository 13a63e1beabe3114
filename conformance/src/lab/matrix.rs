//! Pings from every place of a lab to every pod.

use std::net::Ipv4Addr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

use super::iproute::Ip;
use super::namespaces::Namespaces;
use super::ping::{Patience, ping_all};
use super::{Node, Pod};

/// Sources that ping at the same time; more than the processors of a small machine would measure the scheduler.
const WORKERS: usize = 2;
/// Half of the kernel's default limit of neighbour entries, which all namespaces together share (`gc_thresh3` = 1024,
/// linux net/ipv4/arp.c).
const NEIGHBOUR_BUDGET: usize = 512;

/// A source or a target of pings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The pod's or the node's name.
    pub name: String,
    /// The number of the node that it is on.
    pub node_number: u8,
    /// Whether it is a pod.
    pub is_pod: bool,
}

/// Who reached whom, and how fast.
#[derive(Debug, Clone)]
pub struct Matrix {
    /// The rows: each node, followed by its pods.
    pub sources: Vec<Place>,
    /// The columns: the pods.
    pub targets: Vec<Place>,
    /// A row for each source, in it a round-trip time for each target; `None` where no answer came.
    pub round_trips: Vec<Vec<Option<Duration>>>,
}

impl Matrix {
    /// Pings from every node and every pod to every pod.
    ///
    /// # Errors
    /// Fails when a namespace cannot be entered or a socket not be opened; an answer that does not come is no error.
    pub fn measure(nodes: &[Node], pods: &[Pod], patience: Patience) -> Result<Self> {
        let addresses: Vec<_> = pods.iter().map(Pod::address).collect();
        let mut matrix = Self {
            sources: Vec::new(),
            targets: pods.iter().map(pod_place).collect(),
            round_trips: Vec::new(),
        };
        for node in nodes {
            let own: Vec<_> = pods
                .iter()
                .filter(|pod| pod.node_number() == node.number())
                .collect();
            let namespaces: Vec<_> = [node.namespaces()]
                .into_iter()
                .chain(own.iter().map(|pod| pod.namespaces()))
                .collect();
            matrix.sources.push(node_place(node));
            matrix.sources.extend(own.iter().map(|pod| pod_place(pod)));
            matrix
                .round_trips
                .extend(ping_from_each(&namespaces, &addresses, patience)?);
            if pods.len() * (own.len() + 1) > NEIGHBOUR_BUDGET {
                forget_neighbours(&own)?;
            }
        }
        Ok(matrix)
    }

    /// The number of pings.
    #[must_use]
    pub fn total(&self) -> usize {
        self.round_trips.iter().map(Vec::len).sum()
    }

    /// The pairs of names between which no ping was answered.
    #[must_use]
    pub fn failures(&self) -> Vec<(&str, &str)> {
        let rows = self.sources.iter().zip(&self.round_trips);
        let cells =
            rows.flat_map(|(source, row)| self.targets.iter().zip(row).map(move |cell| (source, cell)));
        let failed = cells.filter(|(_, (_, rtt))| rtt.is_none());
        failed
            .map(|(source, (target, _))| (source.name.as_str(), target.name.as_str()))
            .collect()
    }
}

/// Pings every target from each of the namespaces, a few of them at a time.
fn ping_from_each(
    sources: &[&Namespaces],
    targets: &[Ipv4Addr],
    patience: Patience,
) -> Result<Vec<Vec<Option<Duration>>>> {
    let next = AtomicUsize::new(0);
    let rows = Mutex::new(vec![Vec::new(); sources.len()]);
    let work = || -> Result<()> {
        while let Some((index, source)) = take(&next, sources) {
            source.net_only()?.enter()?;
            let row = ping_all(targets, patience)?;
            let mut rows = rows.lock().map_err(|_| anyhow!("a pinging thread panicked"))?;
            *rows.get_mut(index).context("a row that was not asked for")? = row;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let threads: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .try_for_each(|thread| thread.join().map_err(|_| anyhow!("a pinging thread panicked"))?)
    })?;
    rows.into_inner()
        .map_err(|_| anyhow!("a pinging thread panicked"))
}

fn take<'a>(next: &AtomicUsize, sources: &[&'a Namespaces]) -> Option<(usize, &'a Namespaces)> {
    let index = next.fetch_add(1, Ordering::Relaxed);
    sources.get(index).map(|source| (index, *source))
}

/// Empties the pods' caches of resolved neighbours. A real node has the kernel's whole table for itself; the nodes of a
/// large lab have to share it.
fn forget_neighbours(pods: &[&Pod]) -> Result<()> {
    pods.iter()
        .try_for_each(|pod| pod.namespaces().ip(&["neighbour", "flush", "all"]).map(drop))
}

fn node_place(node: &Node) -> Place {
    Place {
        name: node.name(),
        node_number: node.number(),
        is_pod: false,
    }
}

fn pod_place(pod: &Pod) -> Place {
    Place {
        name: pod.name().to_owned(),
        node_number: pod.node_number(),
        is_pod: true,
    }
}
