use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::super::BenchConfig;
use super::super::peer_watch::{Change, PeerWatch};
use super::super::start::{self, Started};
use super::super::usage::{Usage, peak_rss_kib};
use super::QUIET_BEFORE_CHANGE;
use super::peers::{Backend, PUBLIC_IPS, StorePeer};
use super::tables::Tables;
use crate::lab::{BIN_DIR, Lab, LabConfig, NODE_LINK, Node, SUBNET_FILE, Store, TUNNEL};

/// No start among thousands of peers may take longer, nor a change of all of them.
pub(super) const LIMIT: Duration = Duration::from_secs(60);
/// The protocol of the routes of the backend host-gw.
const OUR_ROUTES: &str = "102";
/// After a signal, until the daemon is idle again.
const LOOK: Duration = Duration::from_millis(300);

/// One node with a daemon, and peers that are there in etcd only.
pub(super) struct Cluster {
    // Fields are dropped in this order: the daemon is reaped before the lab waits for its processes to end.
    daemon: Option<Started>,
    lab: Lab,
    backend: Backend,
    peers: u16,
}

/// What a start took.
pub(super) struct Start {
    pub(super) ready: Duration,
    pub(super) programmed: Duration,
}

impl Cluster {
    /// Makes a lab whose etcd holds the leases of some peers.
    ///
    /// # Errors
    /// Fails when there is no lab or no etcd to be had.
    pub(super) fn new(config: &BenchConfig, backend: Backend, peers: u16) -> Result<Self> {
        let lab = LabConfig {
            nodes: 1,
            binaries: config.binaries.clone(),
        };
        let lab = Lab::on(Store::Etcd, &lab)?;
        lab.put_in_etcd("config", &backend.net_conf(), None)?;
        let cluster = Self {
            daemon: None,
            lab,
            backend,
            peers,
        };
        if backend == Backend::HostGw {
            // As if all peers were on the node's own link, without which the kernel takes none as a gateway.
            cluster
                .node()?
                .ip(&["route", "add", PUBLIC_IPS, "dev", NODE_LINK])?;
        }
        cluster.put(&StorePeer::all(peers, 0))?;
        Ok(cluster)
    }

    fn node(&self) -> Result<&Node> {
        self.lab.node(1)
    }

    fn put(&self, peers: &[StorePeer]) -> Result<()> {
        let named = |peer: &StorePeer| {
            let (name, value) = peer.lease(self.backend);
            (format!("subnets/{name}"), Some(value))
        };
        let leases: Vec<_> = peers.iter().map(named).collect();
        self.lab.change_in_etcd(&leases)
    }

    /// Ends the daemon if it runs, and takes everything of it off the node and its lease out of the store.
    ///
    /// # Errors
    /// Fails when something stays.
    pub(super) fn make_cold(&mut self) -> Result<()> {
        let Some(daemon) = self.daemon.take() else {
            return Ok(());
        };
        let (subnet, length) = self.node()?.subnet()?;
        daemon.stop()?;
        self.lab.remove_lease_from_etcd(&format!("{subnet}-{length}"))?;
        take_off(self.node()?)
    }

    /// Starts the daemon and waits until all peers are programmed.
    ///
    /// # Errors
    /// Fails when it does not get so far in time.
    pub(super) fn start(&mut self) -> Result<Start> {
        let mut started = start::start(self.node()?)?;
        let ready = started.ready(self.node()?)?;
        let tables = Tables::open(self.node()?, self.backend)?;
        let done = tables.await_all(&StorePeer::all(self.peers, 0), LIMIT)?;
        let programmed = done.duration_since(started.at);
        self.daemon = Some(started);
        Ok(Start { ready, programmed })
    }

    /// Puts the lease of one more peer and removes it; returns how long the daemon took to follow.
    ///
    /// # Errors
    /// Fails when it does not follow.
    pub(super) fn change_one(&self) -> Result<(Duration, Duration)> {
        let one = StorePeer::one_more(self.peers);
        let (name, watch) = (one.lease(self.backend).0, PeerWatch::new(self.node()?)?);
        thread::sleep(QUIET_BEFORE_CHANGE);
        let begun = Instant::now();
        self.put(&[one])?;
        let made = watch.all(&one.keys(), Change::Made)?.duration_since(begun);
        thread::sleep(QUIET_BEFORE_CHANGE);
        watch.drain()?;
        let begun = Instant::now();
        self.lab.remove_lease_from_etcd(&name)?;
        let gone = watch.all(&one.keys(), Change::Gone)?.duration_since(begun);
        Ok((made, gone))
    }

    /// Changes the lease of every peer, and waits until the kernel shows it.
    ///
    /// # Errors
    /// Fails when the daemon does not follow.
    pub(super) fn change_all(&mut self, generation: u32) -> Result<()> {
        let peers = StorePeer::all(self.peers, generation);
        self.put(&peers)?;
        let tables = Tables::open(self.node()?, self.backend)?;
        tables.await_all(&peers, LIMIT).map(drop)
    }

    /// The processor time that the daemon spends on a signal.
    ///
    /// # Errors
    /// Fails when it does not run.
    pub(super) fn cpu_of_signal(&self, signal: Signal) -> Result<Duration> {
        let before = self.usage()?;
        self.daemon()?.process.signal(signal)?;
        thread::sleep(LOOK);
        Ok(self.usage()?.cpu.saturating_sub(before.cpu))
    }

    fn daemon(&self) -> Result<&Started> {
        self.daemon.as_ref().context("the daemon does not run")
    }

    /// What the daemon uses.
    ///
    /// # Errors
    /// Fails when it does not run.
    pub(super) fn usage(&self) -> Result<Usage> {
        Usage::of(self.daemon()?.process.pid())
    }

    /// The most memory that the daemon had resident, in KiB.
    ///
    /// # Errors
    /// Fails when it does not run.
    pub(super) fn peak_rss_kib(&self) -> Result<u64> {
        peak_rss_kib(self.daemon()?.process.pid())
    }

    /// How much the daemon has logged since its start.
    ///
    /// # Errors
    /// Fails when it has no log.
    pub(super) fn log_bytes(&self) -> Result<u64> {
        let node = self.node()?;
        let log =
            fs::metadata(node.file(&node.log_file("flanneld"))).context("looking at the daemon's log")?;
        Ok(log.len())
    }
}

/// Takes everything of a daemon that has ended off its node.
///
/// # Errors
/// Fails when something stays.
pub(super) fn take_off(node: &Node) -> Result<()> {
    let program = format!("{BIN_DIR}/flanneld");
    let cleanup = node.exec(&[&program, "cleanup"])?;
    let left = node
        .exec(&["ip", "link", "show", "dev", TUNNEL])?
        .status
        .success()
        || !node
            .ip(&["route", "show", "proto", OUR_ROUTES])?
            .trim()
            .is_empty()
        || node.file(SUBNET_FILE).exists();
    if left || !cleanup.status.success() {
        bail!(
            "`flanneld cleanup` left something: {}",
            String::from_utf8_lossy(&cleanup.stdout).trim()
        );
    }
    fs::remove_file(node.file(&node.log_file("flanneld"))).context("removing the daemon's log")
}
