//! A node that joins the cluster and leaves it, of which there is nothing but its Node: how the others take it up, and
//! whether they forget it.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde_json::Value;

use super::kube::{NOT_FLANNELS, address_and_data, annotation, pod_cidr, prefix};
use super::peers::{Peer, keys, peer, subnet, subnet_env};
use super::subnets::{free_subnet, last_free, masked};
use super::tables::{by_the_tunnel, flag, tunnel};
use super::tools::json;
use crate::lab::text;
use crate::nodes::bed::{End, Family, Node};
use crate::nodes::case::Look;
use crate::nodes::inventory;
use crate::report::{Checked, Stop, differs};

/// How soon every node has to follow: fifteen times this project's own aim.
const LIMIT: Duration = Duration::from_secs(15);
/// Between two looks at the nodes.
const PAUSE: Duration = Duration::from_millis(50);
/// Addresses that are nobody's (RFC 5737 §3, RFC 3849 §2, RFC 9637 §3), unless a lab has given itself some of them.
const DOCUMENTATION: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 254)),
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 0xfffe)),
    IpAddr::V6(Ipv6Addr::new(0x3fff, 0xfff, 0xffff, 0, 0, 0, 0, 0xfffe)),
];

/// Lets a Node join and leave, and looks at every node meanwhile. It has all families that the others have: upstream's
/// daemons do not take up one that lacks one.
pub(super) fn joins_and_leaves(look: &Look<'_>) -> Checked<()> {
    let objects = look.inventory.node_objects()?;
    let model = objects.iter().find(|object| prefix(object).is_some());
    let model = model.ok_or_else(|| Stop::Skip(NOT_FLANNELS.to_owned()))?;
    let backend = Backend::of(model)?;
    let mac = random_mac();
    let mut object = inventory::Newcomer {
        pod_cidrs: Vec::new(),
        annotations: shared_annotations(model),
    };
    let mut judged = None;
    for family in families_of(look, model)? {
        let peer = Peer {
            mac: mac.clone(),
            ..place(look, &objects, model, family, backend)?
        };
        object.pod_cidrs.push(peer.subnet());
        object.annotations.extend(annotations_of(model, family, &peer));
        if family == look.family {
            judged = Some(Traces { peer, backend });
        }
    }
    let Some(judged) = judged else {
        let family = look.family.name();
        return Err(Stop::Skip(format!("Flannel's nodes have no podCIDR of {family}")));
    };
    judged.can_be_seen(look)?;
    judge(look, &object, &judged)
}

fn judge(look: &Look<'_>, object: &inventory::Newcomer, newcomer: &Traces) -> Checked<()> {
    let name = look.inventory.join(object).inspect_err(|stop| {
        if !matches!(stop, Stop::Skip(_)) {
            // It may have joined all the same; why that is not known says more than why it does not leave.
            look.inventory.leave().ok();
        }
    })?;
    let known = newcomer.seen_everywhere(look, &newcomer.asked());
    let known = known.map_err(|stop| newcomer.why_not_known(look, &name, stop));
    // Whatever came of it, and as a failure of it says more than one of this, before that is told.
    let left = look.inventory.leave();
    let known = known?;
    left?;
    let forgotten = newcomer.seen_everywhere(look, &BTreeSet::new())?;
    look.measured(format!(
        "a peer of all nodes after {:.0} ms, forgotten after {:.0} ms",
        known.as_secs_f64() * 1e3,
        forgotten.as_secs_f64() * 1e3
    ));
    Ok(())
}

/// What the daemons do with a peer, as far as tables tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Backend {
    /// A route, a neighbour and a forwarding entry of a tunnel.
    Vxlan,
    /// A route by the peer's own address.
    Route,
}

impl Backend {
    fn of(node: &Value) -> Checked<Self> {
        match annotation(node, "backend-type").unwrap_or_default() {
            "vxlan" => Ok(Self::Vxlan),
            "host-gw" | "ipip" => Ok(Self::Route),
            other => Err(Stop::Skip(format!(
                "routes and neighbours do not tell the peers of the backend {other:?}"
            ))),
        }
    }
}

/// What is to be seen of the newcomer on the other nodes.
struct Traces {
    peer: Peer,
    backend: Backend,
}

impl Traces {
    /// What each node has to have.
    fn asked(&self) -> BTreeSet<String> {
        let peer = &self.peer;
        match self.backend {
            Backend::Vxlan => [peer.route(), peer.neighbour(), peer.forwarding()].into(),
            Backend::Route => [format!("{} via {}", peer.subnet(), peer.outer)].into(),
        }
    }

    /// What a node has.
    fn on(&self, look: &Look<'_>, node: &Node) -> Checked<BTreeSet<String>> {
        let subnet = self.peer.subnet();
        match self.backend {
            Backend::Vxlan => {
                let marks = [&*subnet, &*self.peer.vtep.to_string(), &*self.peer.mac].map(str::to_owned);
                let is_of_it =
                    |entry: &String| entry.split(' ').any(|word| marks.iter().any(|mark| mark == word));
                Ok(tunnel(look, node)?.into_iter().filter(is_of_it).collect())
            }
            Backend::Route => {
                let argv = ["ip", "-j", flag(look.family), "route", "show", "exact", &subnet];
                let routes = json(node.agent()?, &argv)?;
                let told = routes
                    .iter()
                    .map(|route| format!("{} via {}", text(route, "dst"), text(route, "gateway")));
                Ok(told.collect())
            }
        }
    }

    /// Skips the case where a node has no such tables, or none of this family.
    fn can_be_seen(&self, look: &Look<'_>) -> Checked<()> {
        let [_, key] = keys(look.family);
        look.bed.nodes.iter().try_for_each(|node| match self.backend {
            Backend::Vxlan => peer(look, node).map(drop),
            Backend::Route => subnet(node, key).map(drop),
        })
    }

    /// Waits until every node has these traces and no other, and returns how long the last one took.
    fn seen_everywhere(&self, look: &Look<'_>, asked: &BTreeSet<String>) -> Checked<Duration> {
        let (start, limit) = (Instant::now(), LIMIT * look.inventory.slowdown());
        let mut waiting: Vec<&Node> = look.bed.nodes.iter().collect();
        loop {
            let mut late = Vec::new();
            for node in waiting {
                let there = self.on(look, node)?;
                if there != *asked {
                    late.push((node, there));
                }
            }
            if late.is_empty() {
                return Ok(start.elapsed());
            }
            if start.elapsed() >= limit {
                let observed = late
                    .iter()
                    .map(|(node, there)| format!("{} has {}", node.name, listed(there)));
                return differs(
                    format!("on every node within {} s: {}", limit.as_secs(), listed(asked)),
                    observed.collect::<Vec<_>>().join("\n"),
                );
            }
            waiting = late.into_iter().map(|(node, _)| node).collect();
            thread::sleep(PAUSE);
        }
    }

    /// Why the newcomer is no peer, where that is not the fault of those that are judged.
    fn why_not_known(&self, look: &Look<'_>, name: &str, stop: Stop) -> Stop {
        let reason = || -> Checked<()> {
            let objects = look.inventory.node_objects()?;
            let is_it =
                |object: &Value| object.pointer("/metadata/name").and_then(Value::as_str) == Some(name);
            if !objects.iter().any(is_it) {
                return Err(Stop::Skip(format!(
                    "somebody has deleted the Node {name}, as clouds do with those that have no machine"
                )));
            }
            match self.backend {
                Backend::Vxlan => {
                    let mut nodes = look.bed.nodes.iter();
                    nodes.try_for_each(|node| by_the_tunnel(look, node, &self.peer))
                }
                Backend::Route => Ok(()),
            }
        };
        match (&stop, reason()) {
            (Stop::Differs { .. }, Err(reason @ Stop::Skip(_))) => reason,
            _ => stop,
        }
    }
}

/// Entries in words.
fn listed(entries: &BTreeSet<String>) -> String {
    if entries.is_empty() {
        return "nothing of it".to_owned();
    }
    entries.iter().cloned().collect::<Vec<_>>().join(", ")
}

/// The families in which the daemons have a network and the nodes have subnets, in the order of the latter.
fn families_of(look: &Look<'_>, model: &Value) -> Checked<Vec<Family>> {
    let mut found = Vec::new();
    for family in Family::BOTH {
        let [key, _] = keys(family);
        let has_network = subnet_env(look.bed.node(0)?, key)?.is_some();
        if has_network && pod_cidr(model, family)?.is_some() {
            found.push(family);
        }
    }
    let first = model.pointer("/spec/podCIDR").and_then(Value::as_str);
    if first.is_some_and(|cidr| cidr.contains(':')) {
        found.reverse();
    }
    Ok(found)
}

/// A subnet that no node has, and an address that is nobody's.
fn place(
    look: &Look<'_>,
    objects: &[Value],
    model: &Value,
    family: Family,
    backend: Backend,
) -> Checked<Peer> {
    let [key, _] = keys(family);
    let network = subnet(look.bed.node(0)?, key)?;
    let taken = objects.iter().map(|object| pod_cidr(object, family));
    let taken: Vec<_> = taken
        .collect::<Checked<Vec<_>>>()?
        .into_iter()
        .flatten()
        .collect();
    let (_, length) = pod_cidr(model, family)?.context("a node without a subnet")?;
    let (vtep, length) = free_subnet(network, length, &taken).ok_or_else(|| {
        let (ip, long) = network;
        Stop::Skip(format!(
            "no subnet of {ip}/{long} with the length {length} is free"
        ))
    })?;
    let outer = match backend {
        Backend::Vxlan => documented(look, family),
        Backend::Route => beside(look, family)?,
    };
    let outer = outer.ok_or_else(|| {
        let family = family.name();
        Stop::Skip(format!("no address of {family} is known that is nobody's"))
    })?;
    Ok(Peer {
        vtep,
        length,
        mac: String::new(),
        outer: outer.to_string(),
    })
}

/// An address for documentation that is on no node's links.
fn documented(look: &Look<'_>, family: Family) -> Option<IpAddr> {
    let length = match family {
        Family::V4 => 24,
        Family::V6 => 32,
    };
    let known: Vec<_> = look.bed.nodes.iter().flat_map(|node| &node.addresses).collect();
    let is_free = |ip: &IpAddr| {
        let mut all = known.iter().filter(|other| family.has(***other));
        family.has(*ip) && all.all(|other| masked(**other, length) != masked(*ip, length))
    };
    DOCUMENTATION.into_iter().find(is_free)
}

/// An address on the link by which the first node is reached that is no node's, from the last one on. Nothing is sent there.
fn beside(look: &Look<'_>, family: Family) -> Checked<Option<IpAddr>> {
    let own = look.bed.address(End::Node(0), family)?;
    let links = json(
        look.bed.node(0)?.agent()?,
        &["ip", "-j", flag(family), "addr", "show"],
    )?;
    let addresses = links
        .iter()
        .filter_map(|link| link.get("addr_info")?.as_array())
        .flatten();
    let length = addresses
        .filter(|one| text(one, "local") == own.to_string())
        .find_map(|one| u8::try_from(one.get("prefixlen")?.as_u64()?).ok());
    let length = length.context("a node without the address at which it is reached")?;
    let known: Vec<_> = look.bed.nodes.iter().flat_map(|node| &node.addresses).collect();
    Ok(last_free(own, length, &known))
}

/// A unicast address of those that everybody may give (IEEE 802, as `02:…`).
fn random_mac() -> String {
    let [_, _, first, rest @ ..] = RandomState::new().hash_one(()).to_be_bytes();
    let rest = rest.map(|byte| format!(":{byte:02x}")).concat();
    format!("{:02x}{rest}", first & 0xfc | 0x02)
}

/// What is the same on all nodes.
fn shared_annotations(model: &Value) -> BTreeMap<String, String> {
    let names = ["kube-subnet-manager", "backend-type"].into_iter();
    names
        .filter_map(|name| named(model, name, annotation(model, name)?.to_owned()))
        .collect()
}

/// What a daemon of the model's kind would write of itself in a family.
fn annotations_of(model: &Value, family: Family, peer: &Peer) -> impl Iterator<Item = (String, String)> {
    let (ip_key, data_key) = address_and_data(family);
    let data = annotation(model, data_key).map(|data| {
        let mut parsed: Value = serde_json::from_str(data).unwrap_or_default();
        match parsed.get_mut("VtepMAC") {
            Some(mac) => {
                *mac = Value::from(&*peer.mac);
                parsed.to_string()
            }
            None => data.to_owned(),
        }
    });
    let address = named(model, ip_key, peer.outer.clone());
    address
        .into_iter()
        .chain(data.and_then(|data| named(model, data_key, data)))
}

/// An annotation under its whole name.
fn named(model: &Value, name: &str, value: String) -> Option<(String, String)> {
    Some((format!("{}{name}", prefix(model)?), value))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mac_address_is_a_unicast_one_that_everybody_may_give() {
        for _ in 0..100 {
            let mac = random_mac();
            let bytes: Vec<_> = mac
                .split(':')
                .map(|byte| u8::from_str_radix(byte, 16).unwrap())
                .collect();
            assert_eq!((bytes.len(), bytes[0] & 3), (6, 2), "{mac}");
        }
    }

    #[test]
    fn a_newcomer_writes_what_the_others_do() {
        let model = |backend: &str, data: &str| {
            json!({"metadata": {"annotations": {"a.example/kube-subnet-manager": "true", "other": "x",
                "a.example/backend-type": backend, "a.example/backend-data": data, "a.example/public-ip": "10.0.0.1"}}})
        };
        let peer = Peer {
            vtep: "10.244.255.0".parse().unwrap(),
            length: 24,
            mac: "02:00:00:00:00:01".to_owned(),
            outer: "192.0.2.254".to_owned(),
        };
        for (backend, data, own) in [
            (
                "vxlan",
                r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:99"}"#,
                r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:01"}"#,
            ),
            ("host-gw", "null", "null"),
        ] {
            let model = model(backend, data);
            let mut all = shared_annotations(&model);
            all.extend(annotations_of(&model, Family::V4, &peer));
            let expected = [
                ("a.example/backend-data", own),
                ("a.example/backend-type", backend),
                ("a.example/kube-subnet-manager", "true"),
                ("a.example/public-ip", "192.0.2.254"),
            ];
            let all: Vec<_> = all.iter().map(|(name, value)| (&**name, &**value)).collect();
            assert_eq!(all, expected);
        }
        assert!(Backend::of(&model("wireguard", "null")).is_err());
    }
}
