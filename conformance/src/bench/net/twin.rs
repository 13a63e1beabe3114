//! Whether a node of plain commands holds what a node of ours does.

use std::net::Ipv6Addr;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Wire;
use super::backend::{Backend, Family};
use super::bed::{IN_POD, underlay_v6};
use super::plain::{PlainNode, Side, Tunnel};
use crate::lab::observe::Dump;
use crate::lab::{Node, POD_LINK, TUNNEL, text};

/// The device of the VXLAN backend for IPv6.
const TUNNEL_V6: &str = "flannel-v6.1";
/// The bridge of a node's pods.
const BRIDGE: &str = "cni0";
/// What is compared of a link, and of its addresses (RFC 6901).
const LINK: &[&str] = &[
    "/mtu",
    "/flags",
    "/qdisc",
    "/txqlen",
    "/linkinfo/info_kind",
    "/linkinfo/info_data/vlan_filtering",
    "/linkinfo/info_data/stp_state",
    "/linkinfo/info_slave_data/hairpin",
    "/linkinfo/info_slave_data/learning",
    "/linkinfo/info_slave_data/flood",
    "/linkinfo/info_slave_data/isolated",
];
const ADDRESSES: &[&str] = &[
    "/addr_info/0/local",
    "/addr_info/0/prefixlen",
    "/addr_info/1/local",
    "/addr_info/1/prefixlen",
];
/// How long a daemon's last rule may take to be there, and the pause before each look.
const LIMIT: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(100);

/// What the daemon made of a node, as far as plain commands have to be told.
///
/// # Errors
/// Fails when something of it is not there.
pub(super) fn plain_node(node: &Node, backend: Backend, wire: Wire) -> Result<PlainNode> {
    let tunnel = |name| backend.has_vxlan().then(|| tunnel(node, name)).transpose();
    let (subnet, prefix_len) = node.subnet()?;
    let v6 = match wire.family {
        Family::V4 => None,
        Family::V6 => {
            let (subnet, prefix_len) = subnet_v6(node)?;
            Some(Side {
                underlay: underlay_v6(node),
                subnet,
                prefix_len,
                tunnel: tunnel(TUNNEL_V6)?,
            })
        }
    };
    Ok(PlainNode {
        v4: Side {
            underlay: node.address(),
            subnet,
            prefix_len,
            tunnel: tunnel(TUNNEL)?,
        },
        v6,
        pod_mtu: node
            .subnet_env("FLANNEL_MTU")?
            .parse()
            .context("reading the pods' MTU")?,
    })
}

fn tunnel(node: &Node, name: &str) -> Result<Tunnel> {
    let links = node.json(&["ip", "-j", "link", "show", "dev", name])?;
    let link = links.first().with_context(|| format!("there is no {name}"))?;
    let mtu = link.get("mtu").and_then(Value::as_u64);
    Ok(Tunnel {
        mac: text(link, "address").to_owned(),
        mtu: mtu.with_context(|| format!("{name} has no MTU"))?,
    })
}

fn subnet_v6(node: &Node) -> Result<(Ipv6Addr, u8)> {
    let gateway = node.subnet_env("FLANNEL_IPV6_SUBNET")?;
    let parsed = gateway.split_once('/').and_then(|(address, len)| {
        let (address, len): (Ipv6Addr, u8) = (address.parse().ok()?, len.parse().ok()?);
        let mask = u128::MAX
            .checked_shl(128_u32.checked_sub(len.into())?)
            .unwrap_or(0);
        Some((Ipv6Addr::from_bits(address.to_bits() & mask), len))
    });
    parsed.with_context(|| format!("{gateway:?} is no subnet"))
}

/// Looks that both nodes hold the same, so that what is compared is alike.
///
/// # Errors
/// Fails with the differences when they do not, and when a node cannot be looked at.
pub(super) fn assert_same(ours: &Node, plain: &Node) -> Result<()> {
    let begun = Instant::now();
    loop {
        let differences = differences_between(ours, plain)
            .with_context(|| format!("comparing {} with its twin", ours.name()))?;
        if differences.is_empty() {
            return Ok(());
        }
        if begun.elapsed() > LIMIT {
            bail!(
                "on {} plain commands (+) leave another state than the daemon and the plugin (-):\n{}",
                ours.name(),
                differences.join("\n")
            );
        }
        thread::sleep(PAUSE);
    }
}

fn differences_between(ours: &Node, plain: &Node) -> Result<Vec<String>> {
    let [before, after] = [ours, plain].map(|node| Dump::of(node.namespaces()));
    let (before, after) = (before?, after?);
    let mut differences = Vec::new();
    for device in [TUNNEL, TUNNEL_V6] {
        differences.extend(before.of_device(device).changes_to(&after.of_device(device)));
    }
    differences.extend(changes(&lines_of(ours)?, &lines_of(plain)?));
    Ok(differences)
}

/// What of two lists differs: the lines between their common beginning and their common end.
fn changes(before: &[String], after: &[String]) -> Vec<String> {
    let alike = before
        .iter()
        .zip(after)
        .take_while(|(one, other)| one == other)
        .count();
    let (_, before) = before.split_at(alike);
    let (_, after) = after.split_at(alike);
    let pairs = before.iter().rev().zip(after.iter().rev());
    let alike = pairs.take_while(|(one, other)| one == other).count();
    let gone = before
        .iter()
        .take(before.len() - alike)
        .map(|line| format!("- {line}"));
    let new = after
        .iter()
        .take(after.len() - alike)
        .map(|line| format!("+ {line}"));
    gone.chain(new).collect()
}

/// What is compared besides the VXLAN devices: the routes to pods, but for our mark; the rules of each chain, in their
/// order; the bridge, its port and the pod's link, without what a twin has of its own (names, numbers, MAC addresses).
fn lines_of(node: &Node) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (argv, start) in [
        (&["ip", "-4", "route", "show"][..], "10.244."),
        (&["ip", "-6", "route", "show"], "fd00:10:244:"),
    ] {
        lines.extend(
            printed(node, argv)?
                .into_iter()
                .filter(|line| line.starts_with(start)),
        );
    }
    for program in ["iptables-save", "ip6tables-save"] {
        for table in ["nat", "filter", "mangle", "raw"] {
            let all = printed(node, &[program, "-t", table])?;
            lines.extend(
                in_chains(all)
                    .into_iter()
                    .map(|rule| format!("{program} {table}: {rule}")),
            );
        }
    }
    let ip = ["ip", "-j", "-d"];
    let pod = [&IN_POD[..], &ip].concat();
    for (prefix, question, pointers) in [
        (&ip[..], &["link", "show", "dev", BRIDGE][..], LINK),
        (
            &ip,
            &["address", "show", "dev", BRIDGE, "scope", "global"],
            ADDRESSES,
        ),
        (&ip, &["link", "show", "master", BRIDGE], LINK),
        (&pod, &["link", "show", "dev", POD_LINK], LINK),
        (
            &pod,
            &["address", "show", "dev", POD_LINK, "scope", "global"],
            ADDRESSES,
        ),
    ] {
        for object in node.json(&[prefix, question].concat())? {
            lines.extend(members(&question.join(" "), &object, pointers));
        }
    }
    for family in ["-4", "-6"] {
        let argv = [&IN_POD[..], &["ip", family, "route", "show"]].concat();
        lines.extend(
            printed(node, &argv)?
                .into_iter()
                .map(|line| format!("pod: {line}")),
        );
    }
    Ok(lines)
}

/// The rules of what `iptables-save` prints, chain by chain: in which order chains were made means nothing.
fn in_chains(lines: Vec<String>) -> Vec<String> {
    let mut rules: Vec<_> = lines.into_iter().filter(|line| line.starts_with("-A ")).collect();
    // The sort is stable: within a chain the order stays.
    rules.sort_by(|one, other| one.split(' ').nth(1).cmp(&other.split(' ').nth(1)));
    rules
}

/// Those members of an object that it has, one a line.
fn members(name: &str, object: &Value, pointers: &[&str]) -> Vec<String> {
    let found = pointers
        .iter()
        .filter_map(|pointer| Some((pointer, object.pointer(pointer)?)));
    found
        .map(|(pointer, value)| format!("{name}: {pointer} {value}"))
        .collect()
}

/// What a program prints on a node, line by line.
fn printed(node: &Node, argv: &[&str]) -> Result<Vec<String>> {
    let output = node.exec(argv)?;
    if !output.status.success() {
        bail!("{argv:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .map(|line| line.replace(" proto 102", "").trim().to_owned())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<String> {
        text.split(',').map(str::to_owned).collect()
    }

    #[test]
    fn an_exchange_and_a_duplicate_are_changes() {
        for (before, after, expected) in [
            ("a,b,c", "a,b,c", &[][..]),
            ("a,b,c", "b,a,c", &["- a", "- b", "+ b", "+ a"]),
            ("a,b", "a,b,b", &["+ b"]),
            ("a,a,b", "a,b", &["- a"]),
        ] {
            assert_eq!(
                changes(&lines(before), &lines(after)),
                expected,
                "{before} to {after}"
            );
        }
    }

    #[test]
    fn the_order_counts_within_a_chain_alone() {
        let saved = [
            "*nat",
            ":B - [0:0]",
            "-A B -j 2",
            "-A B -j 1",
            "-A A -j 3",
            "COMMIT",
        ];
        let rules = in_chains(saved.map(str::to_owned).to_vec());
        assert_eq!(rules, ["-A A -j 3", "-A B -j 2", "-A B -j 1"]);
    }
}
