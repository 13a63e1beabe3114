use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::absence::{Absence, Part};
use super::remote::Remote;
use crate::report::{Checked, Stop};

/// A node as an inventory hands it over.
pub(super) struct Host {
    pub(super) name: String,
    /// The agent on it, or why there is none.
    pub(super) agent: Result<Remote, String>,
    /// What others call it by, where there is no agent to ask.
    pub(super) told: Vec<IpAddr>,
    /// Its pods; `None` where the agent has to make them.
    pub(super) pods: Option<Vec<OwnPod>>,
}

/// A pod with an agent of its own, which sees nothing but the pod.
pub(super) struct OwnPod {
    pub(super) agent: Remote,
    /// As those who made it tell them.
    pub(super) addresses: Vec<IpAddr>,
    pub(super) has_host_port: bool,
}

impl Host {
    /// A host whose agent makes the pods.
    pub(super) fn with_agent(agent: Remote) -> Self {
        Self {
            name: agent.name().to_owned(),
            agent: Ok(agent),
            told: Vec::new(),
            pods: None,
        }
    }
}

/// A Node of which there is nothing but what the Kubernetes API has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Newcomer {
    /// Its subnets, one of each family at most.
    pub(super) pod_cidrs: Vec<String>,
    pub(super) annotations: BTreeMap<String, String>,
}

/// Where nodes come from, and how an agent is started on each. All else is the agent's.
pub(super) trait Inventory: Sync {
    /// What is judged, in a few words.
    fn title(&self) -> String;

    /// Starts an agent on every node, in the order of the nodes, and pods where that is not the agent's to do.
    ///
    /// # Errors
    /// Fails when one cannot be started.
    fn start(&self, pods_per_node: u8) -> Result<Vec<Host>>;

    /// Restarts the node daemon of a node, and returns when it is ready again, or when who looks after it was told.
    ///
    /// # Errors
    /// Skips the case when the inventory does not know how to.
    fn restart_daemon(&self, node: usize, agent: &Remote) -> Checked<()>;

    /// How long after a restart or a start has returned the new process may take to be there.
    fn restart_limit(&self) -> Duration {
        Duration::from_secs(5)
    }

    /// How a part of the network is away for this long, in whole seconds; the agent is that of the node that it is about.
    ///
    /// # Errors
    /// Skips the case where the inventory cannot do that, or was not told how.
    fn away<'a>(&'a self, part: Part, agent: &'a Remote, time: Duration) -> Checked<Absence<'a>>;

    /// How many times slower than a machine of today the nodes are, at least 1: cases wait so much longer, and send so
    /// much less.
    fn slowdown(&self) -> u32 {
        1
    }

    /// Whether these are all nodes of their network.
    fn is_whole(&self) -> bool;

    /// Whether things may be broken on the nodes to see them repaired.
    fn may_break(&self) -> bool;

    /// A node as the Kubernetes API has it.
    ///
    /// # Errors
    /// Skips the case where there is no API.
    fn node_object(&self, _name: &str) -> Checked<Value> {
        Err(Stop::Skip(NO_API.to_owned()))
    }

    /// All nodes as the Kubernetes API has them, with those that are not judged.
    ///
    /// # Errors
    /// Skips the case where there is no API.
    fn node_objects(&self) -> Checked<Vec<Value>> {
        Err(Stop::Skip(NO_API.to_owned()))
    }

    /// A pod as the Kubernetes API has it.
    ///
    /// # Errors
    /// Skips the case where there is no API.
    fn pod_object(&self, _name: &str) -> Checked<Value> {
        Err(Stop::Skip(NO_API.to_owned()))
    }

    /// Lets the Kubernetes API have one Node more, and returns its name. It goes by [`Self::leave`], and at the latest when the
    /// run ends, whatever ends it.
    ///
    /// # Errors
    /// Skips the case where there is no API, or where it refuses.
    fn join(&self, _newcomer: &Newcomer) -> Checked<String> {
        Err(Stop::Skip(NO_API.to_owned()))
    }

    /// Removes the Node that joined, and returns when the Kubernetes API has it no more.
    ///
    /// # Errors
    /// Skips the case where there is no API.
    fn leave(&self) -> Checked<()> {
        Err(Stop::Skip(NO_API.to_owned()))
    }
}

const NO_API: &str = "these nodes were not named by a Kubernetes API (--kubeconfig)";
