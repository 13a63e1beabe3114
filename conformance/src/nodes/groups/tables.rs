//! What an administrator would look at: the subnet file, and the kernel's tables of each node, which must have all that
//! the other nodes' own words ask for, and nothing else.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};
use serde_json::Value;

use super::tools::{json, pod_mtus};
use crate::lab::{SUBNET_FILE, text};
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
            let value: Option<String> = node.agent.ask(Request::Read {
                path: path.to_owned(),
            })?;
            let value = value.unwrap_or_default();
            let (expected, observed) = (
                format!("{path} is 1"),
                format!("{}: {value:?}", node.agent.name()),
            );
            expect(value.trim() == "1", expected, observed)?;
        }
        Ok(())
    }),
];

/// A node's own words about itself, in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Peer {
    /// The first address of its subnet, which its tunnel has.
    pub(super) vtep: IpAddr,
    pub(super) length: u8,
    /// Its tunnel's MAC address, and where its tunnel is reached.
    pub(super) mac: String,
    pub(super) outer: String,
}

impl Peer {
    /// Its subnet as routes name it.
    pub(super) fn subnet(&self) -> String {
        format!("{}/{}", self.vtep, self.length)
    }

    /// The route to it, as [`routes`] tells it.
    pub(super) fn route(&self) -> String {
        format!("{} via {}", self.subnet(), self.vtep)
    }

    /// Its neighbour entry, as [`neighbours`] tells it.
    pub(super) fn neighbour(&self) -> String {
        format!("{} is {}", self.vtep, self.mac)
    }

    /// Its forwarding entry, as [`forwarding`] tells it.
    pub(super) fn forwarding(&self) -> String {
        format!("{} behind {}", self.mac, self.outer)
    }
}

/// The value of a key in a node's subnet file.
fn subnet_env(node: &Node, key: &str) -> Checked<Option<String>> {
    let path = SUBNET_FILE.to_owned();
    let text: Option<String> = node.agent.ask(Request::Read { path })?;
    let Some(text) = text else {
        return Err(Stop::Skip(format!(
            "{} has no {SUBNET_FILE}: it is no node of Flannel's",
            node.agent.name()
        )));
    };
    let found = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| *name == key);
    Ok(found.map(|(_, value)| value.to_owned()))
}

/// The names of the keys of a family (flannel pkg/subnet/subnet.go).
fn keys(family: Family) -> [&'static str; 2] {
    match family {
        Family::V4 => ["FLANNEL_NETWORK", "FLANNEL_SUBNET"],
        Family::V6 => ["FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET"],
    }
}

fn subnet(node: &Node, key: &str) -> Checked<(IpAddr, u8)> {
    let value = subnet_env(node, key)?;
    let name = node.agent.name();
    let value = value.ok_or_else(|| Stop::Skip(format!("{name}'s subnet file has no {key}")))?;
    Ok(parse(&value).with_context(|| format!("{name}: {key}={value}"))?)
}

/// The first address and the length of a subnet, whichever address of it the text names.
fn parse(text: &str) -> Result<(IpAddr, u8)> {
    let (ip, length) = text.split_once('/').context("no subnet")?;
    let (ip, length): (IpAddr, u8) = (
        ip.parse().context("no address")?,
        length.parse().context("no length")?,
    );
    Ok((masked(ip, length), length))
}

fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX
                .checked_shl(32_u32.saturating_sub(length.into()))
                .unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(length.into()))
                .unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

fn subnet_files(look: &Look<'_>) -> Checked<()> {
    let [network_key, subnet_key] = keys(look.family);
    let mtus = pod_mtus(look)?;
    let mut subnets = BTreeSet::new();
    for (index, node) in look.bed.nodes.iter().enumerate() {
        let name = node.agent.name();
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

/// The tunnel's device in a family (flannel pkg/backend/vxlan, VNI 1).
pub(super) fn device(family: Family) -> &'static str {
    match family {
        Family::V4 => "flannel.1",
        Family::V6 => "flannel-v6.1",
    }
}

/// What a node tells of itself.
///
/// # Errors
/// Skips the case where there is no tunnel.
pub(super) fn peer(look: &Look<'_>, node: &Node) -> Checked<Peer> {
    let (name, device) = (node.agent.name(), device(look.family));
    let [_, subnet_key] = keys(look.family);
    let (vtep, length) = subnet(node, subnet_key)?;
    let links = json(&node.agent, &["ip", "-j", "-d", "link", "show", "type", "vxlan"])?;
    let link = links.iter().find(|link| text(link, "ifname") == device);
    let link = link.ok_or_else(|| {
        Stop::Skip(format!(
            "{name} has no {device}: its backend is not VXLAN with VNI 1"
        ))
    })?;
    let data = |key: &str| link.pointer(&format!("/linkinfo/info_data/{key}"));
    let outer = data("local").or_else(|| data("local6")).and_then(Value::as_str);
    Ok(Peer {
        vtep,
        length,
        mac: text(link, "address").to_owned(),
        outer: outer
            .with_context(|| format!("{name}: {device} has no local address"))?
            .to_owned(),
    })
}

/// Ends the case unless each node has exactly what its peers ask for.
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
        let (there, asked) = sides(node, &others)?;
        let name = node.agent.name();
        wrong.extend(
            asked
                .difference(&there)
                .map(|entry| format!("{name} lacks {entry}")),
        );
        wrong.extend(
            there
                .difference(&asked)
                .map(|entry| format!("{name} has {entry}, which no node asks for")),
        );
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

fn flag(family: Family) -> &'static str {
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
    let routes = json(&node.agent, &argv)?;
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
    let entries = json(&node.agent, &argv)?;
    Ok(entries
        .iter()
        .map(|entry| format!("{} is {}", text(entry, "dst"), text(entry, "lladdr")))
        .collect())
}

/// The forwarding entries of the tunnel that lead to another node.
pub(super) fn forwarding(look: &Look<'_>, node: &Node) -> Checked<BTreeSet<String>> {
    let entries = json(
        &node.agent,
        &["bridge", "-j", "fdb", "show", "dev", device(look.family)],
    )?;
    let beyond = entries.iter().filter(|entry| !text(entry, "dst").is_empty());
    Ok(beyond
        .map(|entry| format!("{} behind {}", text(entry, "mac"), text(entry, "dst")))
        .collect())
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
            format!("{}: none among all rules", node.agent.name()),
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
    let [network_key, _] = keys(look.family);
    let (network, length) = subnet(node, network_key)?;
    let network = format!("{network}/{length}");
    let hides = |line: &&str| line.to_lowercase().contains("masquerade") && line.contains(&network);
    let rules = rules(look.family, node)?;
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
    let outputs: Vec<_> = listings
        .iter()
        .filter_map(|argv| node.agent.run(argv).ok())
        .filter(|output| output.status == Some(0))
        .map(|output| output.stdout)
        .collect();
    if outputs.is_empty() {
        return Err(Stop::Skip(format!(
            "{} has neither nft nor {save}",
            node.agent.name()
        )));
    }
    Ok(outputs.concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_the_same_whichever_address_names_it() {
        let net = |text: &str| parse(text).map(|(ip, length)| format!("{ip}/{length}"));
        assert_eq!(net("10.5.57.1/24").unwrap(), "10.5.57.0/24");
        assert_eq!(net("10.5.57.1/0").unwrap(), "0.0.0.0/0");
        assert_eq!(net("fd00:10:5:46::1/64").unwrap(), "fd00:10:5:46::/64");
        for wrong in ["10.5.57.1", "x/24", "10.5.57.1/x", ""] {
            assert!(net(wrong).is_err(), "{wrong}");
        }
    }
}
