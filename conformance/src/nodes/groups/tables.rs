//! What an administrator would look at: the subnet file, and the kernel's tables of each node, which must have all that
//! the other nodes' own words ask for, and nothing else.

use std::collections::BTreeSet;

use serde_json::Value;

use super::peers::{Peer, device, keys, peer, subnet, subnet_env};
use super::subnets::masked;
use super::tools::{json, pod_mtus};
use crate::lab::text;
use crate::nodes::bed::{End, Family, Node};
use crate::nodes::case::{Case, Look, case};
use crate::nodes::protocol::Request;
use crate::report::{Checked, Stop, differs, expect};

pub(super) const CASES: &[Case] = &[
    case(
        "TAB-01",
        "each node's subnet file fits its pods and the other nodes' subnets",
        subnet_files,
    ),
    case(
        "TAB-02",
        "each node has a route to each other node's subnet by the tunnel, and no other",
        |look| {
            equal(look, |node, peers| {
                Ok((routes(look, node)?, peers.iter().map(Peer::route).collect()))
            })
        },
    ),
    case(
        "TAB-03",
        "each node has a neighbour for each other node's tunnel, and no other",
        |look| {
            equal(look, |node, peers| {
                Ok((
                    neighbours(look, node)?,
                    peers.iter().map(Peer::neighbour).collect(),
                ))
            })
        },
    ),
    case(
        "TAB-04",
        "each node has a forwarding entry for each other node's tunnel, and no other",
        |look| {
            equal(look, |node, peers| {
                Ok((
                    forwarding(look, node)?,
                    peers.iter().map(Peer::forwarding).collect(),
                ))
            })
        },
    ),
    case(
        "TAB-05",
        "each node whose subnet file tells of it hides pods from the outside",
        masquerading,
    ),
    case("TAB-06", "each node forwards packets", |look| {
        let path = match look.family {
            Family::V4 => "/proc/sys/net/ipv4/ip_forward",
            Family::V6 => "/proc/sys/net/ipv6/conf/all/forwarding",
        };
        for node in &look.bed.nodes {
            let value: Option<String> = node.agent()?.ask(Request::Read {
                path: path.to_owned(),
            })?;
            let value = value.unwrap_or_default();
            let (expected, observed) = (format!("{path} is 1"), format!("{}: {value:?}", node.name));
            expect(value.trim() == "1", expected, observed)?;
        }
        Ok(())
    }),
];

fn subnet_files(look: &Look<'_>) -> Checked<()> {
    let [network_key, subnet_key] = keys(look.family);
    let mtus = pod_mtus(look)?;
    let mut subnets = BTreeSet::new();
    for (index, node) in look.bed.nodes.iter().enumerate() {
        let name = &node.name;
        let (network, network_length) = subnet(node, network_key)?;
        let (own, length) = subnet(node, subnet_key)?;
        let inside = length >= network_length && masked(own, network_length) == network;
        expect(
            inside,
            format!("a subnet of {network}/{network_length}"),
            format!("{name}: {own}/{length}"),
        )?;
        let (expected, observed) = (
            "a subnet of its own",
            format!("{name} has {own}/{length}, as another node"),
        );
        expect(subnets.insert(own), expected, observed)?;
        let mtu = subnet_env(node, "FLANNEL_MTU")?.unwrap_or_default();
        for (pod, pod_mtu) in look
            .bed
            .pods
            .iter()
            .zip(&mtus)
            .filter(|(pod, _)| pod.node == index)
        {
            let ip = look.bed.address(End::Pod(pod), look.family)?;
            expect(
                masked(ip, length) == own && pod_mtu.to_string() == mtu,
                format!("{}: an address of {own}/{length} and an MTU of {mtu}", pod.name),
                format!("{ip} and {pod_mtu}"),
            )?;
        }
    }
    Ok(())
}

/// Ends the case unless each node has exactly what its peers ask for; hosts may have peers that were not named.
fn equal(
    look: &Look<'_>,
    sides: impl Fn(&Node, &[Peer]) -> Checked<(BTreeSet<String>, BTreeSet<String>)>,
) -> Checked<()> {
    let all = look.bed.nodes.iter().map(|node| peer(look, node));
    let all = all.collect::<Checked<Vec<_>>>()?;
    let mut wrong = Vec::new();
    for (index, node) in look.bed.nodes.iter().enumerate() {
        let others = all.iter().enumerate().filter(|(other, _)| *other != index);
        let others: Vec<_> = others.map(|(_, peer)| peer.clone()).collect();
        others
            .iter()
            .try_for_each(|peer| by_the_tunnel(look, node, peer))?;
        let (there, asked) = sides(node, &others)?;
        let name = &node.name;
        wrong.extend(
            asked
                .difference(&there)
                .map(|entry| format!("{name} lacks {entry}")),
        );
        let excess: Vec<_> = there
            .difference(&asked)
            .map(|entry| format!("{name} has {entry}, which no node asks for"))
            .collect();
        if look.inventory.is_whole() {
            wrong.extend(excess);
        } else if !excess.is_empty() {
            let count = excess.len();
            look.measured(format!("{name}: {count} entries that no named node asks for"));
        }
    }
    if wrong.is_empty() {
        Ok(())
    } else {
        differs(
            "what the other nodes' subnet files and tunnels ask for",
            wrong.join("\n"),
        )
    }
}

/// Skips the case where a node reaches a peer's subnet by the peer's own address instead of the tunnel.
pub(super) fn by_the_tunnel(look: &Look<'_>, node: &Node, peer: &Peer) -> Checked<()> {
    let subnet = peer.subnet();
    let argv = ["ip", "-j", flag(look.family), "route", "show", "exact", &subnet];
    let routes = json(node.agent()?, &argv)?;
    let is_direct =
        |route: &&Value| text(route, "gateway") == peer.outer && text(route, "dev") != device(look.family);
    match routes.iter().find(is_direct) {
        None => Ok(()),
        Some(route) => Err(Stop::Skip(format!(
            "{} reaches {subnet} by {} and not by the tunnel (DirectRouting)",
            node.name,
            text(route, "dev")
        ))),
    }
}

pub(super) fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// The routes by the tunnel that lead elsewhere: those without a gateway are its own subnet's.
pub(super) fn routes(look: &Look<'_>, node: &Node) -> Checked<BTreeSet<String>> {
    let argv = [
        "ip",
        "-j",
        flag(look.family),
        "route",
        "show",
        "dev",
        device(look.family),
    ];
    let routes = json(node.agent()?, &argv)?;
    let beyond = routes.iter().filter(|route| !text(route, "gateway").is_empty());
    Ok(beyond
        .map(|route| format!("{} via {}", text(route, "dst"), text(route, "gateway")))
        .collect())
}

/// The permanent neighbours on the tunnel.
pub(super) fn neighbours(look: &Look<'_>, node: &Node) -> Checked<BTreeSet<String>> {
    let family = flag(look.family);
    let argv = [
        "ip",
        "-j",
        family,
        "neighbour",
        "show",
        "nud",
        "permanent",
        "dev",
        device(look.family),
    ];
    let entries = json(node.agent()?, &argv)?;
    Ok(entries
        .iter()
        .map(|entry| format!("{} is {}", text(entry, "dst"), text(entry, "lladdr")))
        .collect())
}

/// The forwarding entries of the tunnel that lead to another node.
pub(super) fn forwarding(look: &Look<'_>, node: &Node) -> Checked<BTreeSet<String>> {
    let entries = json(
        node.agent()?,
        &["bridge", "-j", "fdb", "show", "dev", device(look.family)],
    )?;
    let beyond = entries.iter().filter(|entry| !text(entry, "dst").is_empty());
    Ok(beyond
        .map(|entry| format!("{} behind {}", text(entry, "mac"), text(entry, "dst")))
        .collect())
}

/// What a table of a node has.
pub(super) type Table = fn(&Look<'_>, &Node) -> Checked<BTreeSet<String>>;

/// All of a tunnel's tables.
pub(super) fn tunnel(look: &Look<'_>, node: &Node) -> Checked<BTreeSet<String>> {
    let tables: [Table; 3] = [routes, neighbours, forwarding];
    let all = tables.into_iter().map(|table| table(look, node));
    Ok(all.collect::<Checked<Vec<_>>>()?.into_iter().flatten().collect())
}

fn masquerading(look: &Look<'_>) -> Checked<()> {
    let [network_key, _] = keys(look.family);
    let mut looked = 0;
    for node in &look.bed.nodes {
        if subnet_env(node, "FLANNEL_IPMASQ")?.as_deref() != Some("true") {
            continue;
        }
        let (network, length) = subnet(node, network_key)?;
        expect(
            !hiding_rules(look, node)?.is_empty(),
            format!("a rule that masquerades {network}/{length}"),
            format!("{}: none among all rules", node.name),
        )?;
        looked += 1;
    }
    if looked == 0 {
        return Err(Stop::Skip(
            "no node's subnet file has FLANNEL_IPMASQ=true".to_owned(),
        ));
    }
    Ok(())
}

/// The rules of a node that masquerade its network.
pub(super) fn hiding_rules(look: &Look<'_>, node: &Node) -> Checked<BTreeSet<String>> {
    hiding(look, node, &rules(look.family, node)?)
}

/// Those of some rules that masquerade the node's network.
pub(super) fn hiding(look: &Look<'_>, node: &Node, rules: &str) -> Checked<BTreeSet<String>> {
    let [network_key, _] = keys(look.family);
    let (network, length) = subnet(node, network_key)?;
    let network = format!("{network}/{length}");
    let hides = |line: &&str| line.to_lowercase().contains("masquerade") && line.contains(&network);
    Ok(rules
        .lines()
        .filter(hides)
        .map(|line| line.trim().to_owned())
        .collect())
}

/// All rules of a node, in the words of the programs that it has.
fn rules(family: Family, node: &Node) -> Checked<String> {
    let save = match family {
        Family::V4 => "iptables-save",
        Family::V6 => "ip6tables-save",
    };
    let listings = [&["nft", "--stateless", "list", "ruleset"][..], &[save]];
    let mut outputs = Vec::new();
    for argv in listings {
        let output = node.agent()?.run(argv)?;
        if output.status == Some(0) {
            outputs.push(output.stdout);
        }
    }
    if outputs.is_empty() {
        return Err(Stop::Skip(format!("{} has neither nft nor {save}", node.name)));
    }
    Ok(outputs.concat())
}
