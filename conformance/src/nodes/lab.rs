use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;

use super::absence::{Absence, Part, of_link};
use super::bed::Family;
use super::connection::Connection;
use super::groups::device as tunnel;
use super::inventory::{Host, Inventory};
use super::remote::{Remote, side_by_side};
use crate::counted::counted;
use crate::lab::runtime::install_conflist;
use crate::lab::{
    Binaries, CNI_BIN_DIR, Flanneld, Lab, LabConfig, NODE_LINK, Namespaces, Node, Store, TUNNEL, command,
    copy_program,
};
use crate::report::{Checked, Stop};

/// Both families, so that every case can be run.
pub(super) const NET_CONF: &str = r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
    "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#;
/// As in Flannel's manifest.
pub(super) const DAEMON_FLAGS: [&str; 1] = ["--ip-masq"];
/// The agent's program, below the directory that all nodes of a lab share.
const AGENT: &str = "bin/conformance";
const AGENT_ON_NODE: &str = "/run/lab/bin/conformance";
/// How long a daemon may take to end.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// Nodes as namespaces of this machine, with the programs of this project on them.
pub(super) struct LabNodes {
    // Fields are dropped in this order: the daemons are reaped before the lab waits for its processes to end.
    daemons: Mutex<Vec<Flanneld>>,
    lab: Lab,
    store: Store,
    flaw: OnceLock<Flaw>,
}

impl LabNodes {
    /// Makes a lab of nodes that have both families, with a daemon on each; the network configuration is one of both
    /// families and VXLAN, unless another is given.
    ///
    /// # Errors
    /// Fails without root or without the programs, and when a daemon does not start.
    pub(super) fn start(
        nodes: u8,
        store: Store,
        bin_dir: Option<PathBuf>,
        net_conf: Option<&str>,
    ) -> Result<Self> {
        let binaries = bin_dir.as_deref().map_or_else(Binaries::find, Binaries::in_dir)?;
        let lab = Lab::on(store, &LabConfig { nodes, binaries })?;
        let net_conf = net_conf.unwrap_or(NET_CONF);
        match store {
            Store::Directory => fs::write(lab.shared_file("leases/config"), net_conf)
                .context("writing the network configuration")?,
            Store::Etcd => lab.put_in_etcd("config", net_conf, None)?,
            Store::Kube => bail!("a lab's leases are in a directory or in etcd"),
        }
        let this = std::env::current_exe().context("finding the running program's own path")?;
        copy_program(&this, &lab.shared_file(AGENT))?;
        for node in lab.nodes() {
            node.use_ipv6()?;
        }
        // Host ports are portmap's, which is the same program.
        symlink("flannel", lab.shared_file("bin/portmap"))
            .or_else(already_there)
            .context("adding portmap")?;
        lab.nodes().iter().try_for_each(install_conflist)?;
        let daemons = side_by_side(lab.nodes(), |node| node.start_flanneld(&DAEMON_FLAGS))?;
        Ok(Self {
            daemons: Mutex::new(daemons),
            lab,
            store,
            flaw: OnceLock::new(),
        })
    }

    /// The lab's nodes.
    pub(super) fn nodes(&self) -> &[Node] {
        self.lab.nodes()
    }
}

fn already_there(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == ErrorKind::AlreadyExists {
        Ok(())
    } else {
        Err(error)
    }
}

impl Inventory for LabNodes {
    fn title(&self) -> String {
        format!("a lab of {}", counted(self.nodes().len(), "node"))
    }

    fn start(&self, _pods_per_node: u8) -> Result<Vec<Host>> {
        side_by_side(self.nodes(), |node| {
            let mut agent = command(&[AGENT_ON_NODE, "agent", "--plugin-dir", CNI_BIN_DIR])?;
            agent
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            let agent = Connection::of_child(node.namespaces().spawn(agent)?)?;
            Remote::start(&node.name(), agent, b"").map(Host::with_agent)
        })
    }

    fn restart_daemon(&self, node: usize, _agent: &Remote) -> Checked<()> {
        let mut daemons = self.daemons.lock().unwrap_or_else(PoisonError::into_inner);
        let daemon = daemons.get_mut(node).context("a node without a daemon")?;
        let (_, status) = daemon.stop(STOP_LIMIT)?;
        if !status.success() {
            return Err(anyhow::anyhow!("flanneld ended with {status}").into());
        }
        Ok(self.start_daemon(daemon, node)?)
    }

    fn away<'a>(&'a self, part: Part, agent: &'a Remote, time: Duration) -> Checked<Absence<'a>> {
        Ok(match (part, self.store) {
            (Part::Store, Store::Etcd) => Box::new(move || Ok(self.etcd_away(time)?)),
            (Part::Store, Store::Directory | Store::Kube) => {
                return Err(Stop::Skip(
                    "a directory does not go away: give the lab a server with --store etcd".to_owned(),
                ));
            }
            (Part::Link(_), _) => Box::new(move || of_link(agent, NODE_LINK, time)),
            (Part::Daemon(node), _) => Box::new(move || Ok(self.daemon_away(node, time)?)),
        })
    }

    fn is_whole(&self) -> bool {
        true
    }

    fn may_break(&self) -> bool {
        true
    }
}

impl LabNodes {
    fn start_daemon(&self, daemon: &mut Flanneld, node: usize) -> Result<()> {
        if self.has(Flaw::NoStart) {
            return Ok(());
        }
        let node = self.nodes().get(node).context("a daemon without a node")?;
        *daemon = node.start_flanneld(&DAEMON_FLAGS)?;
        Ok(())
    }

    /// Kills a node's daemon, and starts it after this long.
    fn daemon_away(&self, node: usize, time: Duration) -> Result<()> {
        let mut daemons = self.daemons.lock().unwrap_or_else(PoisonError::into_inner);
        let daemon = daemons.get_mut(node).context("a node without a daemon")?;
        daemon.signal(Signal::SIGKILL)?;
        daemon.wait(STOP_LIMIT)?;
        thread::sleep(time);
        self.start_daemon(daemon, node)
    }

    /// Kills etcd, and starts it after this long.
    fn etcd_away(&self, time: Duration) -> Result<()> {
        self.lab.kill_etcd()?;
        let begin = Instant::now();
        while self.has(Flaw::OutageFlush) && begin.elapsed() < time {
            self.forget_peers()?;
            thread::sleep(Duration::from_millis(100));
        }
        thread::sleep(time.saturating_sub(begin.elapsed()));
        self.lab.start_etcd()
    }

    /// Has the first node forget the routes to its peers, in both families.
    fn forget_peers(&self) -> Result<()> {
        let first = self.nodes().first().context("a lab without nodes")?;
        for family in Family::BOTH {
            let flag = if family == Family::V4 { "-4" } else { "-6" };
            let argv = [
                "ip",
                flag,
                "route",
                "flush",
                "proto",
                "boot",
                "dev",
                tunnel(family),
            ];
            run(first.namespaces(), &argv)?;
        }
        Ok(())
    }

    fn has(&self, flaw: Flaw) -> bool {
        self.flaw.get() == Some(&flaw)
    }
}

/// Rules that hide pods from pods elsewhere, whatever the tunnel is called.
pub(super) const HIDING: &str = "table ip flaw { chain postrouting { type nat hook postrouting priority 0; \
    ip saddr 10.244.0.0/16 ip daddr 10.244.0.0/16 oifname \"flannel*\" masquerade; }; }";

/// Something that is wrong with the lab's network on purpose, to see that it is noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The first node hides its pods behind its own address on the way to pods elsewhere.
    Masquerade,
    /// The first node's link to the underlay drops what is longer than 1400 bytes, in silence.
    BlackHole,
    /// The first node's tunnel does not know where the last node is, and its daemon does not run.
    NoFdb,
    /// A daemon that has ended is not started again.
    NoStart,
    /// The first node's daemon is stopped where it is (SIGSTOP), and mends nothing.
    Frozen,
    /// While the lease store is away the first node forgets its peers' routes.
    OutageFlush,
}

impl Flaw {
    /// All of them, by the names that they are asked for by.
    pub(super) const ALL: [(&str, Self); 6] = [
        ("masquerade", Self::Masquerade),
        ("black-hole", Self::BlackHole),
        ("no-fdb", Self::NoFdb),
        ("no-start", Self::NoStart),
        ("frozen", Self::Frozen),
        ("outage-flush", Self::OutageFlush),
    ];

    /// The flaw of a name.
    pub(super) fn named(name: &str) -> Option<Self> {
        let found = Self::ALL.into_iter().find(|(known, _)| *known == name);
        found.map(|(_, flaw)| flaw)
    }
}

impl LabNodes {
    /// Spoils the network.
    ///
    /// # Errors
    /// Fails when a program does that it takes.
    pub(super) fn spoil(&self, flaw: Flaw) -> Result<()> {
        self.flaw.get_or_init(|| flaw);
        let (Some(first), Some(last)) = (self.nodes().first(), self.nodes().last()) else {
            bail!("a lab without nodes");
        };
        match flaw {
            // They show later.
            Flaw::NoStart | Flaw::OutageFlush => Ok(()),
            Flaw::Frozen => {
                let daemons = self.daemons.lock().unwrap_or_else(PoisonError::into_inner);
                let daemon = daemons.first().context("a node without a daemon")?;
                daemon.signal(Signal::SIGSTOP)
            }
            Flaw::Masquerade => run(first.namespaces(), &["nft", HIDING]),
            Flaw::BlackHole => {
                let port = format!("port{}", first.number());
                let lab = self.lab.namespaces();
                run(lab, &["ip", "link", "set", &port, "mtu", "1400"])
            }
            Flaw::NoFdb => {
                let mut daemons = self.daemons.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(daemon) = daemons.first_mut() {
                    daemon.stop(STOP_LIMIT)?;
                }
                let (mac, outer) = (last.vtep_mac()?, last.address().to_string());
                let argv = [
                    "bridge", "fdb", "delete", &mac, "dev", TUNNEL, "dst", &outer, "self",
                ];
                run(first.namespaces(), &argv)
            }
        }
    }
}

fn run(namespaces: &Namespaces, argv: &[&str]) -> Result<()> {
    let output = namespaces.output(argv)?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("`{}` failed: {}", argv.join(" "), words.trim());
    }
    Ok(())
}
