//! What a node tells of itself: its subnet file, and its end of the tunnel.

use std::net::IpAddr;

use anyhow::Context;
use serde_json::Value;

use super::subnets::parse;
use super::tools::json;
use crate::lab::{SUBNET_FILE, text};
use crate::nodes::bed::{Family, Node};
use crate::nodes::case::Look;
use crate::nodes::protocol::Request;
use crate::report::{Checked, Stop};

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
pub(super) fn subnet_env(node: &Node, key: &str) -> Checked<Option<String>> {
    let path = SUBNET_FILE.to_owned();
    let text: Option<String> = node.agent()?.ask(Request::Read { path })?;
    let Some(text) = text else {
        return Err(Stop::Skip(format!(
            "{} has no {SUBNET_FILE}: it is no node of Flannel's",
            node.name
        )));
    };
    let found = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| *name == key);
    Ok(found.map(|(_, value)| value.to_owned()))
}

/// The names of the keys of a family (flannel pkg/subnet/subnet.go).
pub(super) fn keys(family: Family) -> [&'static str; 2] {
    match family {
        Family::V4 => ["FLANNEL_NETWORK", "FLANNEL_SUBNET"],
        Family::V6 => ["FLANNEL_IPV6_NETWORK", "FLANNEL_IPV6_SUBNET"],
    }
}

pub(super) fn subnet(node: &Node, key: &str) -> Checked<(IpAddr, u8)> {
    let value = subnet_env(node, key)?;
    let name = &node.name;
    let value = value.ok_or_else(|| Stop::Skip(format!("{name}'s subnet file has no {key}")))?;
    Ok(parse(&value).with_context(|| format!("{name}: {key}={value}"))?)
}

/// The tunnel's device in a family (flannel pkg/backend/vxlan, VNI 1).
pub(in crate::nodes) fn device(family: Family) -> &'static str {
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
    let (name, device) = (&node.name, device(look.family));
    let [_, subnet_key] = keys(look.family);
    let (vtep, length) = subnet(node, subnet_key)?;
    let links = json(
        node.agent()?,
        &["ip", "-j", "-d", "link", "show", "type", "vxlan"],
    )?;
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
