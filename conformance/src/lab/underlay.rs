use std::net::Ipv4Addr;

use anyhow::Result;

use super::iproute::{Ip, batch};
use super::namespaces::Namespaces;

/// The underlay's gateway: the bridge in the lab's own network namespace.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// A node's link to the underlay.
pub const NODE_LINK: &str = "eth0";
/// More nodes do not fit into the underlay's /24.
pub const MAX_NODES: u8 = 240;

/// The host part of the first node's address.
const FIRST_HOST: u8 = 10;

/// The underlay address of a node, counted from 1.
#[must_use]
pub(super) fn node_address(number: u8) -> Ipv4Addr {
    let [a, b, c, _] = GATEWAY.octets();
    Ipv4Addr::new(a, b, c, FIRST_HOST.saturating_add(number))
}

/// The address of a node beside the one of IPv4: the same number, read as hexadecimal digits.
#[must_use]
pub(super) fn node_address_v6(number: u8) -> String {
    let [.., last] = node_address(number).octets();
    format!("fd00:77::{last}")
}

/// Makes the bridge that all nodes are plugged into.
///
/// # Errors
/// Fails when iproute2 does.
pub(super) fn make_bridge(lab: &Namespaces) -> Result<()> {
    batch(
        &lab.net_only()?,
        &[
            "link set lo up".to_owned(),
            "link add underlay type bridge stp_state 0 forward_delay 0 mcast_snooping 0".to_owned(),
            format!("address add {GATEWAY}/24 dev underlay"),
            "link set underlay up".to_owned(),
        ],
    )
}

/// Plugs a node in: a veth pair between the bridge and the node's `eth0`, its address and its default route.
///
/// # Errors
/// Fails when iproute2 does.
pub(super) fn plug_in(lab: &Namespaces, node: &Namespaces, number: u8, node_pid: u32) -> Result<()> {
    // Without the lab's process namespace, so that the kernel reads the process id as the host's.
    batch(
        &lab.net_only()?,
        &[
            format!("link add port{number} type veth peer name {NODE_LINK} netns {node_pid}"),
            format!("link set port{number} master underlay up"),
        ],
    )?;
    batch(
        node,
        &[format!("address add {}/24 dev {NODE_LINK}", node_address(number))],
    )?;
    bring_up(node)
}

/// Sets a node's `eth0` up and gives it its default route, as a host's network manager does.
///
/// # Errors
/// Fails when iproute2 does.
pub(super) fn bring_up(node: &Namespaces) -> Result<()> {
    batch(
        node,
        &[
            format!("link set {NODE_LINK} up"),
            format!("route replace default via {GATEWAY} dev {NODE_LINK}"),
        ],
    )
}

/// Sets a node's `eth0` down.
///
/// # Errors
/// Fails when iproute2 does.
pub(super) fn bring_down(node: &Namespaces) -> Result<()> {
    node.ip(&["link", "set", NODE_LINK, "down"]).map(drop)
}

/// Deletes a node's `eth0`, and with it the port at the bridge.
///
/// # Errors
/// Fails when iproute2 does.
pub(super) fn unplug(node: &Namespaces) -> Result<()> {
    node.ip(&["link", "delete", NODE_LINK]).map(drop)
}
