//! Whether a node of plain commands holds what a node of ours does.

use std::net::Ipv6Addr;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::Wire;
use super::backend::{Backend, Family};
use super::bed::underlay_v6;
use super::plain::{PlainNode, Side, Tunnel};
use crate::lab::observe::Dump;
use crate::lab::{Node, TUNNEL, text, wait_until};

/// The device of the VXLAN backend for IPv6.
const TUNNEL_V6: &str = "flannel-v6.1";
/// How long a daemon's last rule may take to be there.
const LIMIT: Duration = Duration::from_secs(10);

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
/// Fails with the differences when they do not.
pub(super) fn assert_same(ours: &Node, plain: &Node) -> Result<()> {
    let mut differences = Vec::new();
    let same = wait_until("the rules to be there", LIMIT, || {
        differences = differences_between(ours, plain)?;
        Ok(differences.is_empty())
    });
    same.with_context(|| {
        let (name, lines) = (ours.name(), differences.join("\n"));
        format!("on {name} plain commands (+) leave another state than the daemon (-):\n{lines}")
    })
    .map(drop)
}

fn differences_between(ours: &Node, plain: &Node) -> Result<Vec<String>> {
    let [before, after] = [ours, plain].map(|node| Dump::of(node.namespaces()));
    let (before, after) = (before?, after?);
    let mut differences = Vec::new();
    for device in [TUNNEL, TUNNEL_V6] {
        differences.extend(before.of_device(device).changes_to(&after.of_device(device)));
    }
    let (before, after) = (lines_of(ours)?, lines_of(plain)?);
    let gone = before
        .iter()
        .filter(|line| !after.contains(line))
        .map(|line| format!("- {line}"));
    let new = after
        .iter()
        .filter(|line| !before.contains(line))
        .map(|line| format!("+ {line}"));
    differences.extend(gone.chain(new));
    Ok(differences)
}

/// The peers' routes, but for our mark, and all rules.
fn lines_of(node: &Node) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for (argv, start) in [
        (&["ip", "-4", "route", "show"][..], "10.244."),
        (&["ip", "-6", "route", "show"], "fd00:10:244:"),
        (&["iptables-save"], "-A "),
        (&["ip6tables-save"], "-A "),
    ] {
        let output = node.exec(argv)?;
        if !output.status.success() {
            bail!("{argv:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let wanted = text
            .lines()
            .filter(|line| line.starts_with(start) && !line.contains("cni0"));
        lines.extend(wanted.map(|line| line.replace(" proto 102", "").trim().to_owned()));
    }
    Ok(lines)
}
