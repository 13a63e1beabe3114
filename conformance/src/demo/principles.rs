use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::lab::{Namespaces, Node, Pod, text};

/// How long a connection may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

/// One of the rules of the pod network (kubernetes.io, "The Kubernetes network model"), and how it fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principle {
    /// The rule in words.
    pub claim: &'static str,
    /// What was looked at, in words.
    pub looked_at: &'static str,
    /// How many of these there were; none where there is nobody to look from or at, and then nothing is proven.
    pub observations: usize,
    /// One case in words; empty where there was none.
    pub example: String,
    /// The cases in which the rule did not hold, in words.
    pub failures: Vec<String>,
}

/// A connection as its two ends saw it.
struct Connection {
    /// The client's address as the server saw it.
    seen: Ipv4Addr,
    /// The client's address as the client saw it.
    own: Ipv4Addr,
}

/// Proves the three principles on a running lab: with a TCP connection from each pod to a pod elsewhere, from each node
/// to each first pod of a node, and with each pod's own interface.
///
/// # Errors
/// Fails when a namespace cannot be entered; a refused connection is a failure of the principle.
pub fn prove(nodes: &[Node], pods: &[Pod]) -> Result<Vec<Principle>> {
    Ok(vec![
        pods_reach_pods(nodes, pods),
        nodes_reach_pods(nodes, pods)?,
        pods_see_themselves(pods)?,
    ])
}

fn pods_reach_pods(nodes: &[Node], pods: &[Pod]) -> Principle {
    let looked_at = if nodes.len() == 1 {
        "TCP connections, one from each pod, all within the only node"
    } else {
        "TCP connections, one from each pod"
    };
    let mut principle = Principle::new("pods reach pods on every node without NAT", looked_at);
    for client in pods {
        let elsewhere = pods.iter().find(|pod| follows(pod, client, pods));
        let Some(server) = elsewhere.or_else(|| pods.iter().find(|pod| pod.name() != client.name())) else {
            continue;
        };
        let names = format!(
            "{} {} → {} {}",
            client.name(),
            client.address(),
            server.name(),
            server.address()
        );
        principle.look(&names, connect(client.namespaces(), server), |connection| {
            let seen = format!("the server saw {}", connection.seen);
            (
                connection.seen == client.address() && connection.own == client.address(),
                seen,
            )
        });
    }
    principle
}

/// Whether a pod is on the node after the client's, so that every node is server and client once.
fn follows(pod: &Pod, client: &Pod, pods: &[Pod]) -> bool {
    let last = pods.iter().map(Pod::node_number).max().unwrap_or_default();
    let next = if client.node_number() == last {
        1
    } else {
        client.node_number() + 1
    };
    pod.node_number() == next && next != client.node_number()
}

fn nodes_reach_pods(nodes: &[Node], pods: &[Pod]) -> Result<Principle> {
    let mut principle = Principle::new(
        "nodes reach pods at the pods' own addresses, without NAT",
        "TCP connections, from each node to one pod of every node",
    );
    for node in nodes {
        let own = addresses_of(node)?;
        let here = |pod: &&Pod| pod.node_number() == node.number();
        let elsewhere = first_of_each_node(pods).filter(|pod| !here(pod));
        for server in elsewhere.chain(first_of_each_node(pods).filter(here)) {
            let names = format!("{} → {} {}", node.name(), server.name(), server.address());
            principle.look(&names, connect(node.namespaces(), server), |connection| {
                let seen = format!("the server saw {}, an address of the node", connection.seen);
                (
                    connection.seen == connection.own && own.contains(&connection.seen),
                    seen,
                )
            });
        }
    }
    Ok(principle)
}

fn pods_see_themselves(pods: &[Pod]) -> Result<Principle> {
    let mut principle = Principle::new("a pod sees itself at the address that others reach it at", "pods");
    for pod in pods {
        let own = pod.kernel_addresses()?;
        let name = format!("{}, reached at {}", pod.name(), pod.address());
        principle.look(&name, Ok(own), |own| {
            let words = own.iter().map(Ipv4Addr::to_string).collect::<Vec<_>>();
            let words = if words.is_empty() {
                "no address".to_owned()
            } else {
                words.join(", ")
            };
            (*own == [pod.address()], format!("its own `ip addr` says {words}"))
        });
    }
    Ok(principle)
}

impl Principle {
    fn new(claim: &'static str, looked_at: &'static str) -> Self {
        Self {
            claim,
            looked_at,
            observations: 0,
            example: String::new(),
            failures: Vec::new(),
        }
    }

    /// Takes in one case; the judge says whether it held, and in words what was seen.
    fn look<T>(&mut self, case: &str, observed: Result<T>, judge: impl FnOnce(&T) -> (bool, String)) {
        self.observations += 1;
        let (held, words) = match &observed {
            Ok(observed) => judge(observed),
            Err(error) => (false, format!("{error:#}")),
        };
        let words = format!("{case}: {words}");
        if !held {
            self.failures.push(words.clone());
        }
        if self.example.is_empty() {
            self.example = words;
        }
    }
}

/// Connects to a server that listens in a pod.
fn connect(client: &Namespaces, server: &Pod) -> Result<Connection> {
    let listener = server.namespaces().run(|| {
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))
            .with_context(|| format!("listening in {}", server.name()))
    })?;
    let port = listener.local_addr().context("asking for the port")?.port();
    let target = SocketAddr::from((server.address(), port));
    let stream = client.run(|| {
        TcpStream::connect_timeout(&target, CONNECT_LIMIT).with_context(|| format!("connecting to {target}"))
    })?;
    // The connection is made, so that it waits in the listener's queue: this does not block.
    let (_accepted, seen) = listener.accept().context("accepting the connection")?;
    Ok(Connection {
        seen: ipv4(seen)?,
        own: ipv4(stream.local_addr().context("asking for the own address")?)?,
    })
}

fn ipv4(address: SocketAddr) -> Result<Ipv4Addr> {
    match address.ip() {
        IpAddr::V4(ip) => Ok(ip),
        IpAddr::V6(ip) => anyhow::bail!("an IPv6 address, {ip}, on an IPv4 connection"),
    }
}

/// Every IPv4 address of a node, as iproute2 tells.
fn addresses_of(node: &Node) -> Result<Vec<Ipv4Addr>> {
    let links = node.json(&["ip", "-j", "-4", "address", "show"])?;
    let infos = links
        .iter()
        .filter_map(|link| link.get("addr_info")?.as_array())
        .flatten();
    Ok(infos
        .filter_map(|info| text(info, "local").parse().ok())
        .collect())
}

fn first_of_each_node(pods: &[Pod]) -> impl Iterator<Item = &Pod> {
    let mut last = None;
    pods.iter()
        .filter(move |pod| last.replace(pod.node_number()) != Some(pod.node_number()))
}
