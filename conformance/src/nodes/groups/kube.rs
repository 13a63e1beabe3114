//! What the Kubernetes API says of nodes and pods, against what they are.

use std::net::IpAddr;

use anyhow::{Context, Result};
use serde_json::Value;

use super::newcomer::joins_and_leaves;
use super::peers::peer;
use super::subnets::{Subnet, masked, overlap, parse};
use crate::nodes::bed::{End, Family, Node, is_link_local};
use crate::nodes::case::{Case, Look, case};
use crate::nodes::cluster::{addresses, condition};
use crate::nodes::protocol::Request;
use crate::report::{Checked, Stop, differs, expect};

/// The end of the annotation that flanneld marks its Node with, whatever its prefix (flannel
/// pkg/subnet/kube/annotations.go).
const MARK: &str = "kube-subnet-manager";
/// Why a case is skipped that is about Flannel.
pub(super) const NOT_FLANNELS: &str = "no node has annotations of Flannel's";

pub(super) const CASES: &[Case] = &[
    case(
        "KUB-01",
        "each node has a podCIDR that overlaps no other's, and its pods have addresses of it",
        pod_cidrs,
    ),
    case(
        "KUB-02",
        "each pod's status has the addresses that the pod has, and no other",
        pod_status,
    ),
    case(
        "KUB-03",
        "each node's annotations tell where its tunnel is, and what it is",
        annotations,
    ),
    case(
        "KUB-04",
        "each node's condition NetworkUnavailable is false, because of flanneld",
        network_available,
    ),
    case(
        "KUB-05",
        "a Node that joins becomes a peer of each node, and leaves no trace when it is deleted",
        joins_and_leaves,
    ),
];

fn pod_cidrs(look: &Look<'_>) -> Checked<()> {
    let mut known: Vec<(&str, Subnet)> = Vec::new();
    let mut without = Vec::new();
    let objects = look
        .bed
        .nodes
        .iter()
        .map(|node| look.inventory.node_object(&node.name));
    let objects = objects.collect::<Checked<Vec<_>>>()?;
    if !objects.iter().any(is_flannels) {
        return Err(Stop::Skip(format!(
            "{NOT_FLANNELS}: other networks need not give pods addresses of podCIDR"
        )));
    }
    for (index, (node, object)) in look.bed.nodes.iter().zip(&objects).enumerate() {
        let Some(own) = pod_cidr(object, look.family)? else {
            without.push(&*node.name);
            continue;
        };
        if let Some((other, _)) = known.iter().find(|(_, other)| overlap(own, *other)) {
            return differs(
                "a podCIDR of its own",
                format!("{} and {other} overlap at {}/{}", node.name, own.0, own.1),
            );
        }
        known.push((&node.name, own));
        for pod in look.bed.pods.iter().filter(|pod| pod.node == index) {
            let ip = look.bed.address(End::Pod(pod), look.family)?;
            expect(
                masked(ip, own.1) == own.0,
                format!("{}: an address of {}/{}", pod.name, own.0, own.1),
                ip.to_string(),
            )?;
        }
    }
    if known.is_empty() {
        let family = look.family.name();
        return Err(Stop::Skip(format!("no node has a podCIDR of {family}")));
    }
    expect(
        without.is_empty(),
        "a podCIDR on every node",
        format!("{} have none", without.join(", ")),
    )
}

/// A node's subnet of a family, and that the older member of one subnet agrees (Kubernetes `core/v1/types.go`, `NodeSpec`).
pub(super) fn pod_cidr(node: &Value, family: Family) -> Checked<Option<Subnet>> {
    let text = |path: &str| node.pointer(path).and_then(Value::as_str);
    let (first, only) = (text("/spec/podCIDRs/0"), text("/spec/podCIDR"));
    expect(
        first == only,
        "podCIDR is the first of podCIDRs",
        format!("{} and {}", only.unwrap_or("none"), first.unwrap_or("none")),
    )?;
    let all = node.pointer("/spec/podCIDRs").and_then(Value::as_array);
    let texts = all.into_iter().flatten().filter_map(Value::as_str);
    let subnets = texts.map(|text| parse(text).with_context(|| format!("the podCIDR {text}")));
    let subnets = subnets.collect::<Result<Vec<_>>>()?;
    Ok(subnets.into_iter().find(|(ip, _)| family.has(*ip)))
}

fn pod_status(look: &Look<'_>) -> Checked<()> {
    for pod in &look.bed.pods {
        let (object, end) = (look.inventory.pod_object(&pod.name)?, End::Pod(pod));
        let told = addresses(&object);
        let first = object.pointer("/status/podIP").and_then(Value::as_str);
        expect(
            first.map(str::to_owned) == told.first().map(ToString::to_string),
            "podIP is the first of podIPs",
            format!("{}: {} and {told:?}", pod.name, first.unwrap_or("none")),
        )?;
        let inside: Vec<(String, IpAddr)> = look
            .bed
            .agent(end)?
            .ask(Request::Addresses { place: end.place() })?;
        let of_family = |all: Vec<IpAddr>| -> Vec<IpAddr> {
            let mine = all
                .into_iter()
                .filter(|ip| look.family.has(*ip) && !is_link_local(*ip));
            mine.collect()
        };
        let (told, inside) = (
            of_family(told),
            of_family(inside.into_iter().map(|(_, ip)| ip).collect()),
        );
        let (expected, observed) = (
            format!("{}: the status has {inside:?}, as the pod itself", pod.name),
            format!("{told:?}"),
        );
        expect(told == inside, expected, observed)?;
    }
    Ok(())
}

/// What the names of Flannel's annotations begin with on a node that is Flannel's.
pub(super) fn prefix(node: &Value) -> Option<&str> {
    let all = node.pointer("/metadata/annotations")?.as_object()?;
    let marked = all
        .iter()
        .find_map(|(name, value)| Some((name.strip_suffix(MARK)?, value)));
    marked
        .filter(|(_, value)| *value == "true")
        .map(|(prefix, _)| prefix)
}

/// One of Flannel's annotations of a node, by the end of its name.
pub(super) fn annotation<'a>(node: &'a Value, name: &str) -> Option<&'a str> {
    let all = node.pointer("/metadata/annotations")?;
    all.get(format!("{}{name}", prefix(node)?))?.as_str()
}

/// The ends of the names of the annotations that tell of a family.
pub(super) fn address_and_data(family: Family) -> (&'static str, &'static str) {
    match family {
        Family::V4 => ("public-ip", "backend-data"),
        Family::V6 => ("public-ipv6", "backend-v6-data"),
    }
}

fn is_flannels(node: &Value) -> bool {
    prefix(node).is_some()
}

fn annotations(look: &Look<'_>) -> Checked<()> {
    let mut without = Vec::new();
    for node in &look.bed.nodes {
        let object = look.inventory.node_object(&node.name)?;
        if is_flannels(&object) {
            annotations_of(look, node, &object)?;
        } else {
            without.push(&*node.name);
        }
    }
    if without.len() == look.bed.nodes.len() {
        return Err(Stop::Skip(NOT_FLANNELS.to_owned()));
    }
    expect(
        without.is_empty(),
        format!("an annotation {MARK} on every node"),
        format!("{} have none", without.join(", ")),
    )
}

fn annotations_of(look: &Look<'_>, node: &Node, object: &Value) -> Checked<()> {
    let (ip_key, data_key) = address_and_data(look.family);
    let told = annotation(object, ip_key).unwrap_or_default();
    let ip: Option<IpAddr> = told.parse().ok().filter(|ip| look.family.has(*ip));
    // Without an agent on each node only those addresses are known that the API has.
    for node in &look.bed.nodes {
        node.agent()?;
    }
    let nodes = look.bed.nodes.iter();
    let known = nodes.map(|node| (&*node.name, &*node.addresses));
    let owner = ip.map(|ip| owner(ip, &node.name, known));
    // What an administrator says is the address may be a router's (flannel pkg/subnet/kube/kube.go).
    let is_overwritten = annotation(object, &format!("{ip_key}-overwrite")).is_some();
    let observed = match owner {
        Some(Owner::Other(other)) if !is_overwritten => format!("{told:?}, which is {other}'s"),
        _ => format!("{told:?}"),
    };
    expect(
        ip.is_some() && (is_overwritten || !matches!(owner, Some(Owner::Other(_)))),
        format!("{}: {ip_key} is an address of it", node.name),
        observed,
    )?;
    if owner == Some(Owner::Nobody) {
        look.measured(format!(
            "{}: {ip_key} {told} is no node's: a router's?",
            node.name
        ));
    }
    if annotation(object, "backend-type") != Some("vxlan") {
        return Ok(());
    }
    let data: Value =
        serde_json::from_str(annotation(object, data_key).unwrap_or_default()).unwrap_or_default();
    let mac = data.get("VtepMAC").and_then(Value::as_str).unwrap_or_default();
    let tunnel = peer(look, node)?;
    expect(
        mac == tunnel.mac,
        format!(
            "{}: {data_key} has the tunnel's MAC address {}",
            node.name, tunnel.mac
        ),
        data.to_string(),
    )
}

/// Whose address it is that a node gives as its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owner<'a> {
    Itself,
    Other(&'a str),
    /// No node's, as that of a router which translates (`--public-ip`).
    Nobody,
}

fn owner<'a>(ip: IpAddr, own: &str, nodes: impl Iterator<Item = (&'a str, &'a [IpAddr])>) -> Owner<'a> {
    let mut having: Vec<_> = nodes
        .filter(|(_, all)| all.contains(&ip))
        .map(|(name, _)| name)
        .collect();
    if having.contains(&own) {
        return Owner::Itself;
    }
    having.pop().map_or(Owner::Nobody, Owner::Other)
}

fn network_available(look: &Look<'_>) -> Checked<()> {
    let mut looked = 0;
    for node in &look.bed.nodes {
        let object = look.inventory.node_object(&node.name)?;
        let Some((status, reason)) = condition(&object, "NetworkUnavailable") else {
            continue;
        };
        looked += 1;
        let is_right = status == "False" && (reason == "FlannelIsUp" || !is_flannels(&object));
        expect(
            is_right,
            format!(
                "{}: False, with the reason FlannelIsUp where it is Flannel's",
                node.name
            ),
            format!("{status} {reason}"),
        )?;
    }
    if looked == 0 {
        return Err(Stop::Skip(
            "no node has the condition NetworkUnavailable".to_owned(),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_node_has_a_subnet_of_each_family_and_both_members_agree() {
        let node = json!({"spec": {"podCIDR": "10.1.0.0/24", "podCIDRs": ["10.1.0.0/24", "fd00:1::/64"]}});
        let of = |node: &Value, family| {
            pod_cidr(node, family)
                .unwrap()
                .map(|(ip, length)| format!("{ip}/{length}"))
        };
        assert_eq!(of(&node, Family::V4).as_deref(), Some("10.1.0.0/24"));
        assert_eq!(of(&node, Family::V6).as_deref(), Some("fd00:1::/64"));
        assert_eq!(of(&json!({}), Family::V4), None);
        let odd = json!({"spec": {"podCIDR": "10.2.0.0/24", "podCIDRs": ["10.1.0.0/24"]}});
        assert!(matches!(pod_cidr(&odd, Family::V4), Err(Stop::Differs { .. })));
    }

    #[test]
    fn annotations_are_found_whatever_their_prefix() {
        let node = |prefix: &str, mark: &str| {
            json!({"metadata": {"annotations": {"a.example/public-ip": "192.0.2.1", (format!("{prefix}{MARK}")): mark,
                (format!("{prefix}public-ip")): "192.0.2.2"}}})
        };
        for prefix in ["flannel.alpha.coreos.com/", "b.example/mine-"] {
            let node = node(prefix, "true");
            assert_eq!(annotation(&node, "public-ip"), Some("192.0.2.2"));
            assert_eq!(annotation(&node, "public-ipv6"), None);
        }
        assert_eq!(annotation(&node("b.example/", "false"), "public-ip"), None);
        assert!(!is_flannels(&json!({})));
    }

    #[test]
    fn an_address_is_its_own_nodes_before_it_is_anothers() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let (shared, first, second) = (ip("172.17.0.1"), ip("192.0.2.1"), ip("192.0.2.2"));
        let nodes = [("node1", vec![first, shared]), ("node2", vec![second, shared])];
        let of = |ip| owner(ip, "node1", nodes.iter().map(|(name, all)| (*name, &**all)));
        assert_eq!(of(first), Owner::Itself);
        assert_eq!(of(shared), Owner::Itself);
        assert_eq!(of(second), Owner::Other("node2"));
        assert_eq!(of(ip("203.0.113.9")), Owner::Nobody);
    }
}
