//! A Kubernetes cluster, by its API alone. In a namespace of its own a run makes a privileged pod on each node, from which
//! the agent gets onto the node, and the pods to be judged, in each of which runs an agent of its own; the program gets
//! there through the input of an exec. A Node of which there is nothing but the object joins and leaves for one case. Both
//! go when the run ends, also by SIGINT, SIGTERM or SIGHUP.

mod api;
mod exec;
mod made;
mod manifest;
mod patience;
mod run;
mod wait;

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::absence::{Absence, Part};
use super::carry::{self, carry};
use super::hosts::restart_by;
use super::inventory::{Host, Inventory, Newcomer, OwnPod};
use super::remote::{Remote, side_by_side};
use crate::counted::counted;
use crate::refused::Refused;
use crate::report::{Checked, Stop};
use api::{Api, is_forbidden};
use exec::Execs;
use made::{Kind, Made};
use manifest::Role;
use patience::repeat;
use wait::{Pods, Unready, events_in_words, is_ready};

pub(in crate::nodes) use run::judge;
pub(in crate::nodes) use wait::{addresses, condition};

/// How often the pods are looked at while they start.
const PAUSE: Duration = Duration::from_secs(1);
/// How long a kubelet may take to start a daemon's container again that was killed: it waits after the second end in a row
/// (kubelet, `CrashLoopBackOff`: 10 s, twice as long each time).
const RESTART_LIMIT: Duration = Duration::from_secs(60);

/// What is asked of a cluster.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) kubeconfig: PathBuf,
    pub(super) context: Option<String>,
    /// What the pods are made of: anything with `sh`, `sleep`, `mktemp`, `head` and, for nodes, `nsenter`.
    pub(super) image: String,
    /// No privileged pods are made, so that nothing is asked of the nodes themselves.
    pub(super) unprivileged: bool,
    /// How long the pods may take to be ready.
    pub(super) ready_limit: Duration,
    /// The program and arguments that restart a node's daemon.
    pub(super) restart: Vec<String>,
    pub(super) may_break: bool,
}

/// A cluster, and what a run has made in it.
pub(super) struct Cluster {
    api: Api,
    options: Options,
    /// The namespace of the pods, and the Node that joins.
    made: Made,
    nodes: Vec<Node>,
    /// How many nodes the cluster has, with those that are not judged.
    all_nodes: usize,
    execs: Execs,
    /// The names of pods in the API by those in the report.
    names: Mutex<BTreeMap<String, String>>,
}

/// A node on which pods are made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Node {
    name: String,
    addresses: Vec<IpAddr>,
}

impl Cluster {
    /// Looks for the nodes: those that run Linux, are ready, and take pods.
    ///
    /// # Errors
    /// Fails when the API cannot be reached or refuses, or when there is no such node.
    pub(super) fn find(options: Options) -> Result<Self> {
        let api = Api::new(&options.kubeconfig, options.context.clone()).map_err(Refused::from)?;
        let list = api
            .wait(api.get("/api/v1/nodes"))
            .context("asking the Kubernetes API for its nodes")?;
        let items = list.get("items").and_then(Value::as_array);
        let all: Vec<_> = items.into_iter().flatten().collect();
        let nodes: Vec<_> = all
            .iter()
            .filter(|node| takes_pods(node))
            .map(|node| Node::of(node))
            .collect();
        if nodes.is_empty() {
            bail!(
                "none of {}'s {} nodes runs Linux, is ready and takes pods",
                api.name,
                all.len()
            );
        }
        // Of two runs at the same time neither may meet the other's.
        let random = RandomState::new().hash_one(std::process::id());
        Ok(Self {
            all_nodes: all.len(),
            made: Made::new(format!("flannel-conformance-{:08x}", random & 0xffff_ffff)),
            api,
            options,
            nodes,
            execs: Execs::default(),
            names: Mutex::default(),
        })
    }

    async fn make_namespace(&self) -> Result<()> {
        let object = manifest::namespace(self.made.name(), self.options.unprivileged);
        self.made.make(&self.api, Kind::Namespace, &object).await
    }

    fn pods_path(&self) -> String {
        format!("/api/v1/namespaces/{}/pods", self.made.name())
    }

    /// Makes all pods.
    async fn make_pods(&self, pods_per_node: u8) -> Result<()> {
        let path = self.pods_path();
        for (index, node) in self.nodes.iter().enumerate() {
            for (name, role) in self.roles(index, pods_per_node) {
                let pod = manifest::pod(&name, &node.name, &self.options.image, role);
                self.api.create(&path, &pod).await?;
            }
        }
        Ok(())
    }

    /// The pods of a node, by their names in the API.
    fn roles(&self, index: usize, pods_per_node: u8) -> Vec<(String, Role)> {
        let node = (!self.options.unprivileged).then(|| (node_pod(index), Role::Node));
        let pods = (1..=pods_per_node).map(|number| {
            let role = if self.options.unprivileged {
                Role::PlainPod
            } else {
                Role::Pod {
                    has_host_port: number == 1,
                }
            };
            (pod_name(index, number), role)
        });
        node.into_iter().chain(pods).collect()
    }

    /// Waits until every pod is ready, and returns them all by their names.
    async fn ready_pods(&self, count: usize) -> Result<BTreeMap<String, Vec<IpAddr>>> {
        let (limit, path) = (self.options.ready_limit, self.pods_path());
        let mut seen = Pods::default();
        let ended = repeat(limit, PAUSE, async || {
            seen = Pods::of(&self.api.get(&path).await?);
            Ok(seen.over.is_some() || seen.ready.len() == count)
        });
        let secs = limit.as_secs();
        let in_time = ended
            .await
            .with_context(|| format!("asking for the pods, which may take {secs} s to be ready"))?;
        if let Some(over) = &seen.over {
            bail!("{}", self.told(over).await);
        }
        if in_time {
            return Ok(seen.ready);
        }
        let Some(late) = &seen.late else {
            bail!("of {count} pods only {} are there", seen.ready.len());
        };
        bail!("{} after {secs} s", self.told(late).await)
    }

    /// What is wrong with a pod, with what its events say; who may not read them gets the rest.
    async fn told(&self, pod: &Unready) -> String {
        let Unready { name, node, why } = pod;
        let path = format!(
            "/api/v1/namespaces/{}/events?fieldSelector=involvedObject.name={name}",
            self.made.name()
        );
        let events = self.api.get(&path).await.unwrap_or_default();
        let events = events_in_words(&events);
        let separator = if events.is_empty() { "" } else { "; " };
        format!("the pod {name} on {node} is not ready: {why}{separator}{events}")
    }

    /// Starts the agents of a node and its pods.
    fn host(
        &self,
        index: usize,
        pods_per_node: u8,
        ready: &BTreeMap<String, Vec<IpAddr>>,
        program: &[u8],
    ) -> Result<Host> {
        let node = self.nodes.get(index).context("a node that there is not")?;
        let script = carry(program.len(), &["agent"]);
        let start = |name: &str, pod: &str, way: &[&str]| {
            let argv = [way, &["sh", "-c", &script]].concat();
            let argv: Vec<_> = argv.into_iter().map(str::to_owned).collect();
            let connection = self.execs.start(&self.api, self.made.name(), pod, &argv)?;
            Remote::start(name, connection, program)
        };
        let mut host = Host {
            name: node.name.clone(),
            agent: Err("no privileged pod was to be made there (--unprivileged)".to_owned()),
            told: node.addresses.clone(),
            pods: None,
        };
        let mut pods = Vec::new();
        for (pod, role) in self.roles(index, pods_per_node) {
            match role {
                // Into the network and the files of the node's first process.
                Role::Node => {
                    let way = ["nsenter", "-t", "1", "-m", "-n", "--"];
                    host.agent = Ok(start(&node.name, &pod, &way)?);
                }
                Role::Pod { .. } | Role::PlainPod => {
                    let name = format!("{}/{pod}", node.name);
                    let agent = start(&name, &pod, &[])?;
                    let addresses = ready.get(&pod).cloned().unwrap_or_default();
                    self.names
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .insert(name, pod);
                    pods.push(OwnPod {
                        agent,
                        addresses,
                        has_host_port: role == Role::Pod { has_host_port: true },
                    });
                }
            }
        }
        host.pods = Some(pods);
        Ok(host)
    }

    /// Ends all agents and removes what was made; there may be nothing.
    async fn remove(&self) -> Result<()> {
        self.execs.end().await;
        self.made.remove_all(&self.api).await
    }
}

impl Node {
    fn of(object: &Value) -> Self {
        let name = object.pointer("/metadata/name").and_then(Value::as_str);
        let all = object.pointer("/status/addresses").and_then(Value::as_array);
        let internal = all
            .into_iter()
            .flatten()
            .filter(|one| one.get("type").and_then(Value::as_str) == Some("InternalIP"));
        let texts = internal.filter_map(|one| one.get("address")?.as_str());
        Self {
            name: name.unwrap_or_default().to_owned(),
            addresses: texts.filter_map(|text| text.parse().ok()).collect(),
        }
    }
}

fn takes_pods(node: &Value) -> bool {
    let os = node
        .pointer("/metadata/labels/kubernetes.io~1os")
        .and_then(Value::as_str);
    let is_cordoned = node.pointer("/spec/unschedulable") == Some(&Value::Bool(true));
    is_ready(node) && !is_cordoned && os.is_none_or(|os| os == "linux")
}

fn node_pod(index: usize) -> String {
    format!("node-{}", index + 1)
}

fn pod_name(index: usize, number: u8) -> String {
    format!("pod-{}-{number}", index + 1)
}

impl Inventory for Cluster {
    fn title(&self) -> String {
        let (judged, name) = (self.nodes.len(), &self.api.name);
        if self.is_whole() {
            format!("{} of {name}", counted(judged, "node"))
        } else {
            format!("{judged} of {} of {name}", counted(self.all_nodes, "node"))
        }
    }

    fn start(&self, pods_per_node: u8) -> Result<Vec<Host>> {
        let program = carry::program()?;
        let per_node = self.roles(0, pods_per_node).len();
        let ready = self.api.wait(async {
            self.make_namespace().await?;
            self.make_pods(pods_per_node).await?;
            self.ready_pods(per_node * self.nodes.len()).await
        })?;
        side_by_side(0..self.nodes.len(), |index| {
            self.host(index, pods_per_node, &ready, &program)
        })
    }

    fn restart_daemon(&self, _node: usize, agent: &Remote) -> Checked<()> {
        restart_by(&self.options.restart, agent)
    }

    fn away<'a>(&'a self, _part: Part, _agent: &'a Remote, _time: Duration) -> Checked<Absence<'a>> {
        Err(Stop::Skip(
            "agents are spoken to by the API and live in pods: neither may be away, and what would bring something back \
             might end with its pod"
                .to_owned(),
        ))
    }

    fn restart_limit(&self) -> Duration {
        RESTART_LIMIT
    }

    fn is_whole(&self) -> bool {
        self.nodes.len() == self.all_nodes
    }

    fn may_break(&self) -> bool {
        self.options.may_break
    }

    fn node_object(&self, name: &str) -> Checked<Value> {
        Ok(self.api.wait(self.api.get(&format!("/api/v1/nodes/{name}")))?)
    }

    fn pod_object(&self, name: &str) -> Checked<Value> {
        let own = self
            .names
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .cloned();
        let own = own.with_context(|| format!("{name} is no pod of ours"))?;
        Ok(self
            .api
            .wait(self.api.get(&format!("{}/{own}", self.pods_path())))?)
    }
    fn node_objects(&self) -> Checked<Vec<Value>> {
        let list = self.api.wait(self.api.get("/api/v1/nodes"))?;
        let items = list.get("items").and_then(Value::as_array);
        Ok(items.cloned().unwrap_or_default())
    }

    fn join(&self, newcomer: &Newcomer) -> Checked<String> {
        let name = self.made.name();
        let made = self.api.wait(async {
            // Who may make one and not delete it shall not find that out afterwards.
            self.made.may_be_removed(&self.api, Kind::Node).await?;
            let node = manifest::node(name, newcomer);
            self.made.make(&self.api, Kind::Node, &node).await
        });
        match made {
            Err(error) if is_forbidden(&error) => Err(Stop::Skip(format!(
                "it takes the verbs create and delete of nodes: {error:#}"
            ))),
            made => Ok(made.map(|()| name.to_owned())?),
        }
    }

    fn leave(&self) -> Checked<()> {
        Ok(self.api.wait(self.made.remove(&self.api, Kind::Node))?)
    }
}
