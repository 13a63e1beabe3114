//! What must hold whatever happened, once things have had time to settle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::world::{Member, World};
use crate::lab::ping::{Patience, ping_all};
use crate::lab::{BIN_DIR, Namespaces, Node, TUNNEL, text};

/// Where host-local keeps what it gave away (plugins pkg/ipam/host-local/backend/disk), by the network's name.
const RESERVED: &str = "/var/lib/cni/networks/cbr0";
/// Far above what a daemon of a few peers takes, in KiB; a leak passes it in the end.
const MAX_RSS_KIB: u64 = 96 << 10;
/// A first packet may be lost to the resolution of addresses.
const PATIENCE: Patience = Patience {
    tries: 2,
    timeout: Duration::from_millis(500),
};

/// What does not hold, in words; the dearer questions are asked only when the others are answered.
///
/// # Errors
/// Fails when something cannot be looked at, which may be a matter of time.
pub(super) fn violations(world: &mut World) -> Result<Vec<String>> {
    let mut found = daemons(world)?;
    found.extend(tables(world)?);
    found.extend(left_overs(world)?);
    if found.is_empty() {
        found.extend(statuses(world)?);
        found.extend(unreachable(world)?);
    }
    Ok(found)
}

/// Each daemon says itself that it is ready, and knows that it has programmed all others.
fn statuses(world: &World) -> Result<Vec<String>> {
    let present = world.present()?;
    let others = present.len().saturating_sub(1);
    let mut found = Vec::new();
    for (node, _) in &present {
        let answer = node.exec(&[&format!("{BIN_DIR}/flanneld"), "status", "--json"])?;
        let answer: Value = serde_json::from_slice(&answer.stdout)
            .with_context(|| format!("reading what {} says: {answer:?}", node.name()))?;
        let told = |pointer: &str| answer.pointer(pointer).unwrap_or(&Value::Null);
        if told("/status/ready") != true {
            found.push(format!(
                "{} is not ready: {}",
                node.name(),
                told("/status/reason")
            ));
        }
        if told("/status/peers/programmed") != others {
            found.push(format!(
                "{} says of its peers: {}",
                node.name(),
                told("/status/peers")
            ));
        }
    }
    Ok(found)
}

/// Every daemon runs, and has not grown without end.
fn daemons(world: &mut World) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for member in &mut world.members {
        let Some(daemon) = &mut member.daemon else {
            continue;
        };
        let name = format!("node{}", member.number);
        if let Some(status) = daemon.ended()? {
            found.push(format!("{name}: the daemon ended: {status}"));
            continue;
        }
        let rss = daemon.rss_kib()?;
        if rss > MAX_RSS_KIB {
            found.push(format!("{name}: the daemon has {rss} KiB of memory"));
        }
    }
    Ok(found)
}

/// The tunnel's entries of a node: routes, neighbours and forwarding entries to others.
fn entries(node: &Node) -> Result<BTreeSet<String>> {
    let mut entries = BTreeSet::new();
    for route in node.json(&["ip", "-j", "-4", "route", "show", "dev", TUNNEL])? {
        if !text(&route, "gateway").is_empty() {
            entries.insert(format!(
                "route {} via {}",
                text(&route, "dst"),
                text(&route, "gateway")
            ));
        }
    }
    for neighbour in node.json(&[
        "ip",
        "-j",
        "-4",
        "neighbour",
        "show",
        "nud",
        "permanent",
        "dev",
        TUNNEL,
    ])? {
        entries.insert(format!(
            "neighbour {} {}",
            text(&neighbour, "dst"),
            text(&neighbour, "lladdr")
        ));
    }
    for entry in node.json(&["bridge", "-j", "fdb", "show", "dev", TUNNEL])? {
        if !text(&entry, "dst").is_empty() {
            entries.insert(format!("fdb {} {}", text(&entry, "mac"), text(&entry, "dst")));
        }
    }
    Ok(entries)
}

/// Each node has what the other nodes' own words ask for, and nothing else; no two have the same subnet.
fn tables(world: &World) -> Result<Vec<String>> {
    let present = world.present()?;
    let mut asked = BTreeMap::new();
    let mut subnets = BTreeSet::new();
    let mut found = Vec::new();
    for (node, member) in &present {
        let (subnet, length) = node.subnet()?;
        let mac = node.vtep_mac()?;
        if !subnets.insert(subnet) {
            found.push(format!("{} has another node's subnet {subnet}", node.name()));
        }
        let own = [
            format!("route {subnet}/{length} via {subnet}"),
            format!("neighbour {subnet} {mac}"),
            format!("fdb {mac} {}", node.address()),
        ];
        asked.insert(member.number, own);
    }
    for (node, member) in &present {
        let wanted = asked.iter().filter(|(number, _)| **number != member.number);
        let wanted: BTreeSet<_> = wanted.flat_map(|(_, own)| own.clone()).collect();
        let there = entries(node)?;
        found.extend(
            wanted
                .difference(&there)
                .map(|entry| format!("{} lacks {entry}", node.name())),
        );
        found.extend(
            there
                .difference(&wanted)
                .map(|entry| format!("{} still has {entry}", node.name())),
        );
    }
    Ok(found)
}

/// Each node has the addresses and the bridge ports of its pods, and no more.
fn left_overs(world: &World) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for (node, member) in world.present()? {
        let pods: BTreeSet<_> = member.pods.iter().map(|pod| pod.address().to_string()).collect();
        let reserved = reserved(node)?;
        if reserved != pods {
            found.push(format!(
                "{}: pods have {pods:?}, {reserved:?} are reserved",
                node.name()
            ));
        }
        let ports = ports(node)?;
        let wanted: BTreeSet<_> = member.pods.iter().map(|pod| pod.host_link().to_owned()).collect();
        if ports != wanted {
            found.push(format!(
                "{}: pods have {wanted:?}, the bridge has {ports:?}",
                node.name()
            ));
        }
    }
    Ok(found)
}

fn reserved(node: &Node) -> Result<BTreeSet<String>> {
    let dir = node.file(RESERVED);
    if !dir.exists() {
        return Ok(BTreeSet::new());
    }
    let entries = fs::read_dir(&dir).with_context(|| format!("reading {}", dir.display()))?;
    let names = entries
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned());
    Ok(names.filter(|name| name.parse::<Ipv4Addr>().is_ok()).collect())
}

fn ports(node: &Node) -> Result<BTreeSet<String>> {
    let links = node.json(&["ip", "-j", "link", "show", "type", "veth"])?;
    let ports = links.iter().filter(|link| text(link, "master") == "cni0");
    Ok(ports.map(|port| text(port, "ifname").to_owned()).collect())
}

/// Which pods do not answer to which nodes and pods.
///
/// # Errors
/// Fails when a namespace cannot be entered.
pub(super) fn unreachable(world: &World) -> Result<Vec<String>> {
    let present = world.present()?;
    let pods: Vec<_> = present.iter().flat_map(|(_, member)| &member.pods).collect();
    let targets: Vec<_> = pods.iter().map(|pod| pod.address()).collect();
    let sources = present.iter().flat_map(|(node, member)| sources(node, member));
    let mut found = Vec::new();
    for (name, namespaces) in sources {
        let answers = namespaces.net_only()?.run(|| ping_all(&targets, PATIENCE))?;
        let silent = pods.iter().zip(&answers).filter(|(_, answer)| answer.is_none());
        found.extend(
            silent.map(|(pod, _)| format!("{name} does not reach {} ({})", pod.name(), pod.address())),
        );
    }
    Ok(found)
}

fn sources<'a>(node: &'a Node, member: &'a Member) -> Vec<(String, &'a Namespaces)> {
    let pods = member
        .pods
        .iter()
        .map(|pod| (pod.name().to_owned(), pod.namespaces()));
    [(node.name(), node.namespaces())]
        .into_iter()
        .chain(pods)
        .collect()
}
