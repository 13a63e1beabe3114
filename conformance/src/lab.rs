//! A laboratory: nodes as namespaces on an underlay, with the real daemon and the real plugin on them.
//!
//! A [`Lab`] owns a network, a mount and a process namespace; each [`Node`] has a network and a mount namespace of its
//! own inside. When the process that made the lab ends, however it ends, the kernel takes everything down. Start at
//! [`Lab::new`], then [`Node::start_flanneld`] and [`Node::add_pod`].

mod base64;
mod binaries;
mod etcd;
pub mod faults;
mod flanneld;
mod holder;
mod http;
mod iproute;
pub mod keep;
mod kube;
pub mod matrix;
mod mounts;
mod namespaces;
mod node;
pub mod observe;
pub mod ping;
mod pod;
mod process;
pub mod rules;
pub mod runtime;
pub mod traffic;
mod underlay;
mod wait;

use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::sync::Mutex;

use anyhow::{Context, Result, bail};

pub use binaries::{BIN_DIR_VARIABLE, Binaries, copy_program};
pub use flanneld::{Attempt, Flanneld, SUBNET_FILE, TUNNEL};
pub use iproute::{Ip, text};
pub use kube::{bare_kube_node, kube_service, kube_url};
pub use mounts::{BIN_DIR, CNI_BIN_DIR, CNI_CONF_DIR, LEASE_DIR, LOG_DIR};
pub use namespaces::Namespaces;
pub use node::Node;
pub use pod::{POD_LINK, Pod};
pub use process::Process;
pub use underlay::{GATEWAY, MAX_NODES, NODE_LINK};
pub use wait::wait_until;

pub(crate) use base64::{base64, base64_bytes};
pub(crate) use etcd::endpoint as etcd_endpoint;
pub(crate) use iproute::printed;
pub(crate) use mounts::{STAGE_PLUGINS, STAGE_VAR_LIB, prepare_stage};
pub(crate) use namespaces::{command, on_own_thread};

use crate::refused::Refused;
use holder::Holder;

/// The network configuration that a lab starts with (flannel's Documentation/configuration.md).
pub const NET_CONF: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// What a lab is made of.
#[derive(Debug, Clone)]
pub struct LabConfig {
    /// The number of nodes, from 1 to [`MAX_NODES`].
    pub nodes: u8,
    /// The programs under test.
    pub binaries: Binaries,
}

/// Where the daemons of a lab keep their leases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    /// In a directory that all nodes share.
    Directory,
    /// In an etcd server on the underlay's gateway.
    Etcd,
    /// On the Nodes of a Kubernetes API server on the underlay's gateway.
    Kube,
}

/// A running laboratory; everything in it ends when this value is dropped.
#[derive(Debug)]
pub struct Lab {
    holder: Holder,
    nodes: Vec<Node>,
    node_holders: Vec<Child>,
    etcd: Mutex<Option<Process>>,
    api: Option<Process>,
}

impl Lab {
    /// Makes the underlay, the nodes, the lease directory with its network configuration, and the runtime's
    /// configuration on each node. No daemon runs yet.
    ///
    /// # Errors
    /// Fails without root, or when the kernel or iproute2 refuses something; nothing is left behind then.
    pub fn new(config: &LabConfig) -> Result<Self> {
        Self::on(Store::Directory, config)
    }

    /// As [`Lab::new`], with the leases in this store: an etcd server runs and holds the configuration, or an API server
    /// has a Node for each node, on which the configuration is mounted.
    ///
    /// # Errors
    /// As [`Lab::new`], and when there is no program `etcd`, or none `fake-apiserver`.
    pub fn on(store: Store, config: &LabConfig) -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!(Refused("a lab needs root, to make network namespaces".to_owned()));
        }
        if !(1..=MAX_NODES).contains(&config.nodes) {
            bail!("a lab has 1 to {MAX_NODES} nodes, not {}", config.nodes);
        }
        let holder = Holder::start(&config.binaries)?;
        let mut lab = Self {
            holder,
            nodes: Vec::new(),
            node_holders: Vec::new(),
            etcd: Mutex::default(),
            api: None,
        };
        underlay::make_bridge(lab.holder.namespaces())?;
        for number in 1..=config.nodes {
            let (node, child) = Node::start(lab.holder.namespaces(), number, store)?;
            lab.node_holders.push(child);
            runtime::install_conflist(&node)?;
            lab.nodes.push(node);
        }
        match store {
            Store::Directory => {
                let net_conf = lab.shared_file("leases/config");
                fs::write(&net_conf, NET_CONF).with_context(|| format!("writing {}", net_conf.display()))?;
            }
            Store::Etcd => {
                lab.start_etcd()?;
                lab.configure_etcd()?;
            }
            Store::Kube => {
                lab.start_api()?;
                lab.make_kube_nodes()?;
            }
        }
        Ok(lab)
    }

    /// All nodes, in the order of their numbers.
    #[must_use]
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node with a number, from 1.
    ///
    /// # Errors
    /// Fails when the lab has no such node.
    pub fn node(&self, number: u8) -> Result<&Node> {
        let index = usize::from(number).checked_sub(1);
        index
            .and_then(|index| self.nodes.get(index))
            .with_context(|| format!("the lab has no node {number}"))
    }

    /// The lab's own namespaces, in which the underlay is and whose processes end with it.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        self.holder.namespaces()
    }

    /// Where a file that all nodes share (below `/run/lab`) is reached from the host's side.
    #[must_use]
    pub fn shared_file(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{}", self.holder.pid(), mounts::SHARED_DIR)).join(name)
    }

    /// The process id, as the host sees it, of the process whose end is the lab's end.
    #[must_use]
    pub fn holder_pid(&self) -> u32 {
        self.holder.pid()
    }

    /// Lets the lab live on after this process; daemons must be detached too. [`keep::Record`] finds it again.
    ///
    /// # Errors
    /// Fails when the lab's first process is gone.
    pub fn keep(&mut self) -> Result<()> {
        self.etcd().iter_mut().for_each(Process::detach);
        self.api.iter_mut().for_each(Process::detach);
        self.holder.keep()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // They are children of ours, and the lab's own end waits until they are reaped.
        drop(self.etcd().take());
        self.api = None;
        self.holder.end(&mut self.node_holders);
    }
}
