use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::inventory::{Host, Inventory, OwnPod};
use super::protocol::{Attached, Place, Request};
use super::remote::{Remote, side_by_side};
use crate::lab::runtime::HostPort;
use crate::report::CannotRun;

/// The port of the node that leads to the first pod of each: below the range of Kubernetes' node ports (30000 to 32767,
/// kube-apiserver `--service-node-port-range`) and that from which kernels take ports for clients (linux
/// `ip_local_port_range`).
pub(super) const HOST_PORT: u16 = 28_377;
/// The port of the server in pods, which a host port leads to.
pub(super) const POD_PORT: u16 = 8_377;

/// An IP family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    pub(super) fn has(self, ip: IpAddr) -> bool {
        match self {
            Self::V4 => ip.is_ipv4(),
            Self::V6 => ip.is_ipv6(),
        }
    }

    pub(super) fn first_of(self, addresses: &[IpAddr]) -> Option<IpAddr> {
        addresses.iter().copied().find(|ip| self.has(*ip))
    }
}

/// A node with its agent.
pub(super) struct Node {
    pub(super) name: String,
    /// Why there is none, where there is none.
    agent: Result<Remote, String>,
    /// All of its addresses, of whatever link.
    pub(super) addresses: Vec<IpAddr>,
    /// One of each family at which other nodes reach it.
    pub(super) outward: Vec<IpAddr>,
    /// Of the server on it, if there is an agent to serve.
    port: Option<u16>,
}

/// A pod that the run made.
pub(super) struct Pod {
    pub(super) name: String,
    /// Its own agent; `None` where its node's enters it.
    own: Option<Remote>,
    /// The place of its node among all.
    pub(super) node: usize,
    pub(super) addresses: Vec<IpAddr>,
    /// Of the server in it.
    port: u16,
    /// Whether the node's [`HOST_PORT`] leads to it.
    pub(super) has_host_port: bool,
}

/// All nodes, with pods on them, and a server on each node and in each pod.
pub(super) struct Bed {
    pub(super) nodes: Vec<Node>,
    pub(super) pods: Vec<Pod>,
}

/// Where a packet comes from or goes to.
#[derive(Clone, Copy)]
pub(super) enum End<'a> {
    Node(usize),
    Pod(&'a Pod),
}

impl Bed {
    /// Starts agents, pods and servers; what there is of them ends when this fails.
    ///
    /// # Errors
    /// Fails when a host cannot be reached, a pod not be attached, or when two nodes or two pods have the same address.
    pub(super) fn make(inventory: &dyn Inventory, pods_per_node: u8) -> Result<Self> {
        let hosts = inventory.start(pods_per_node)?;
        let mut bed = Self {
            nodes: Vec::new(),
            pods: Vec::new(),
        };
        for (node, pods) in side_by_side(hosts, |host| node_of(host, pods_per_node))? {
            let index = bed.nodes.len();
            bed.pods
                .extend(pods.into_iter().map(|pod| Pod { node: index, ..pod }));
            bed.nodes.push(node);
        }
        told_apart(bed.nodes.iter().map(|node| (&*node.name, &*node.outward)))?;
        told_apart(bed.pods.iter().map(|pod| (&*pod.name, &*pod.addresses)))?;
        Ok(bed)
    }

    /// Detaches all pods and ends all agents.
    ///
    /// # Errors
    /// Fails with the first agent with which that did not go well, after all were tried.
    pub(super) fn end(self) -> Result<()> {
        let of_pods = self.pods.into_iter().filter_map(|pod| pod.own);
        let of_nodes = self.nodes.into_iter().filter_map(|node| node.agent.ok());
        let all: Vec<_> = of_pods.chain(of_nodes).collect();
        side_by_side(all, Remote::end).map(drop)
    }

    /// The families that every pod has.
    pub(super) fn families(&self) -> Vec<Family> {
        let everywhere = |family: &Family| {
            self.pods
                .iter()
                .all(|pod| family.first_of(&pod.addresses).is_some())
        };
        Family::BOTH.into_iter().filter(everywhere).collect()
    }

    /// The agent that does what is asked of an end: its own, or of a pod its node's.
    ///
    /// # Errors
    /// Fails when there is no such node, or skips the case when there is no such agent.
    pub(super) fn agent<'a>(&'a self, end: End<'a>) -> Result<&'a Remote> {
        match end {
            End::Node(index) => self.node(index)?.agent(),
            End::Pod(pod) => match &pod.own {
                Some(own) => Ok(own),
                None => self.node(pod.node)?.agent(),
            },
        }
    }

    /// A node by its place.
    ///
    /// # Errors
    /// Fails when there is no such node.
    pub(super) fn node(&self, index: usize) -> Result<&Node> {
        self.nodes.get(index).context("a node that there is not")
    }

    /// What an end is called in reports.
    pub(super) fn name(&self, end: End<'_>) -> String {
        match end {
            End::Node(index) => self
                .nodes
                .get(index)
                .map_or("?", |node| node.name.as_str())
                .to_owned(),
            End::Pod(pod) => pod.name.clone(),
        }
    }

    /// An end's address.
    ///
    /// # Errors
    /// Fails when it has none of the family.
    pub(super) fn address(&self, end: End<'_>, family: Family) -> Result<IpAddr> {
        let found = match end {
            End::Node(index) => family.first_of(&self.node(index)?.outward),
            End::Pod(pod) => family.first_of(&pod.addresses),
        };
        found.with_context(|| format!("{} has no address of {}", self.name(end), family.name()))
    }

    /// Where an end's server is.
    ///
    /// # Errors
    /// Fails when it has no address of the family.
    pub(super) fn server(&self, end: End<'_>, family: Family) -> Result<SocketAddr> {
        let port = match end {
            End::Node(index) => {
                let node = self.node(index)?;
                // Without an agent there is no server.
                node.agent()?;
                node.port.context("a node without a server")?
            }
            End::Pod(pod) => pod.port,
        };
        Ok(SocketAddr::new(self.address(end, family)?, port))
    }
}

impl Node {
    /// Its agent.
    ///
    /// # Errors
    /// Skips the case when there is none.
    pub(super) fn agent(&self) -> Result<&Remote> {
        let because = |why: &String| CannotRun(format!("{}: {why}", self.name)).into();
        self.agent.as_ref().map_err(because)
    }
}

impl Pod {
    /// Whether an agent of its own is in it, to which the pod's files are all that there is.
    pub(super) fn has_own_agent(&self) -> bool {
        self.own.is_some()
    }
}

impl End<'_> {
    /// The same for its agent, to which the pod that it is in itself is all that there is.
    pub(super) fn place(self) -> Place {
        match self {
            Self::Pod(pod) if pod.own.is_none() => Place::Pod(pod.name.clone()),
            Self::Node(_) | Self::Pod(_) => Place::Node,
        }
    }

    /// The place of its node among all.
    pub(super) fn node(self) -> usize {
        match self {
            Self::Node(index) => index,
            Self::Pod(pod) => pod.node,
        }
    }
}

/// A node of the bed and its pods, which are made where they are not there yet; servers are started.
fn node_of(host: Host, pods_per_node: u8) -> Result<(Node, Vec<Pod>)> {
    let Host {
        name,
        agent,
        told,
        pods,
    } = host;
    let pods = match (pods, &agent) {
        (Some(own), _) => own.into_iter().map(own_pod).collect::<Result<_>>()?,
        (None, Ok(agent)) => (1..=pods_per_node)
            .map(|number| add_pod(agent, number))
            .collect::<Result<_>>()?,
        (None, Err(why)) => bail!("{name} cannot have pods: {why}"),
    };
    // After the pods, because the first one brings the node addresses.
    let (addresses, outward, port) = match &agent {
        Ok(agent) => about(agent).map(|(all, outward, port)| (all, outward, Some(port)))?,
        Err(_) => (told.clone(), told, None),
    };
    let node = Node {
        name,
        agent,
        addresses,
        outward,
        port,
    };
    Ok((node, pods))
}

/// A pod that is there already, in which the server is started.
fn own_pod(pod: OwnPod) -> Result<Pod> {
    let port = pod.agent.ask(Request::Listen {
        place: Place::Node,
        port: POD_PORT,
    })?;
    Ok(Pod {
        name: pod.agent.name().to_owned(),
        own: Some(pod.agent),
        node: 0,
        addresses: pod.addresses,
        port,
        has_host_port: pod.has_host_port,
    })
}

/// A node's addresses, those at which others reach it, and the port of its server.
fn about(agent: &Remote) -> Result<(Vec<IpAddr>, Vec<IpAddr>, u16)> {
    let place = Place::Node;
    let addresses: Vec<(String, IpAddr)> = agent.ask(Request::Addresses { place: place.clone() })?;
    let chosen: Vec<IpAddr> = agent.ask(Request::Outward { place: place.clone() })?;
    let port = agent.ask(Request::Listen { place, port: 0 })?;
    let outward = outward(&addresses, &chosen);
    Ok((addresses.into_iter().map(|(_, ip)| ip).collect(), outward, port))
}

/// The addresses that the kernel chose for packets to the outside. Where it has no such way in a family, the one on the
/// same link as the other family's.
fn outward(addresses: &[(String, IpAddr)], chosen: &[IpAddr]) -> Vec<IpAddr> {
    let links: Vec<_> = addresses
        .iter()
        .filter(|(_, ip)| chosen.contains(ip))
        .map(|(link, _)| link)
        .collect();
    let beside = addresses
        .iter()
        .filter(|(link, ip)| links.contains(&link) && !is_link_local(*ip))
        .map(|(_, ip)| *ip);
    chosen.iter().copied().chain(beside).collect()
}

/// Fails when two are asked at the same address, of whichever family: either might answer for the other.
fn told_apart<'a>(all: impl Iterator<Item = (&'a str, &'a [IpAddr])>) -> Result<()> {
    let mut known = BTreeMap::new();
    for (name, addresses) in all {
        for ip in Family::BOTH
            .iter()
            .filter_map(|family| family.first_of(addresses))
        {
            if let Some(other) = known.insert(ip, name) {
                bail!("{other} and {name} have the same address {ip}: neither can be told from the other");
            }
        }
    }
    Ok(())
}

/// Whether an address is good on its link alone.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Attaches a pod and starts its server; the first one of a node has a host port, where the plugins make such.
fn add_pod(agent: &Remote, number: u8) -> Result<Pod> {
    let name = format!("{}/pod{number}", agent.name());
    let ports = if number == 1 {
        vec![HostPort {
            host_port: HOST_PORT,
            pod_port: POD_PORT,
        }]
    } else {
        Vec::new()
    };
    let attached: Attached = agent.ask(Request::AddPod {
        name: name.clone(),
        ports,
    })?;
    let port = agent.ask(Request::Listen {
        place: Place::Pod(name.clone()),
        port: POD_PORT,
    })?;
    Ok(Pod {
        addresses: addresses_in(&attached.result)?,
        name,
        own: None,
        node: 0,
        port,
        has_host_port: number == 1 && attached.takes_ports,
    })
}

/// The addresses of a plugin's result (CNI SPEC 1.1.0 §ADD Success).
fn addresses_in(result: &Value) -> Result<Vec<IpAddr>> {
    let ips = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    let texts = ips.filter_map(|ip| ip.get("address")?.as_str()?.split('/').next());
    let found = texts.map(|text| text.parse().with_context(|| format!("{text:?} is no address")));
    let found: Vec<_> = found.collect::<Result<_>>()?;
    found
        .first()
        .with_context(|| format!("the plugins gave no address: {result}"))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_without_a_way_out_is_looked_for_beside_the_other() {
        let all = [
            "lo6 fe80::1",
            "eth0 10.0.0.1",
            "eth0 fe80::2",
            "eth0 fd00::1",
            "cni0 fd01::1",
        ];
        let all = all.map(|text| text.split_once(' ').unwrap());
        let all = all.map(|(link, ip)| (link.to_owned(), ip.parse().unwrap()));
        let found = outward(&all, &["10.0.0.1".parse().unwrap()]);
        assert_eq!(Family::V4.first_of(&found), Some("10.0.0.1".parse().unwrap()));
        assert_eq!(Family::V6.first_of(&found), Some("fd00::1".parse().unwrap()));
    }

    #[test]
    fn two_that_have_the_same_address_are_no_bed() {
        let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        let one = ips(&["10.0.0.1", "fd00::1", "10.0.0.9"]);
        let judged = |texts: &[&str]| told_apart([("one", &*one), ("other", &*ips(texts))].into_iter());
        judged(&["10.0.0.2", "fd00::2", "10.0.0.9"]).unwrap();
        for wrong in [["10.0.0.1", "fd00::2"], ["10.0.0.2", "fd00::1"]] {
            let error = judged(&wrong).unwrap_err().to_string();
            assert!(error.contains("one and other have the same address"), "{error}");
        }
    }
}
