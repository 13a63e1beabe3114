use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::lab::ping::{Patience, ping_all};
use crate::lab::{Ip, NODE_LINK, Namespaces, Node, POD_LINK, Pod, TUNNEL, text};

/// The pods' bridge (the bridge plugin's default name).
const BRIDGE: &str = "cni0";

/// One place on a packet's way, and what the kernel decides there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The pod or node.
    pub place: String,
    /// What it is on this way.
    pub role: String,
    /// The kernel's decisions: the table, and its answer.
    pub decisions: Vec<(&'static str, String)>,
    /// How the packet goes on; empty at the last place.
    pub leaves_by: String,
}

/// Follows a packet from a pod to a pod on another node, by asking each kernel table on its way.
///
/// # Errors
/// Fails when a table has no answer, or one that does not lead on to the target.
pub fn trace(nodes: &[Node], from: &Pod, to: &Pod) -> Result<Vec<Hop>> {
    // The tables of resolved neighbours hold only what was needed lately.
    from.namespaces()
        .run(|| ping_all(&[to.address()], Patience::MATRIX))?;
    let source = node_of(nodes, from)?;
    let target = node_of(nodes, to)?;
    let first = leave_pod(source, from, to)?;
    let (second, vtep, outer) = leave_node(source, from, to)?;
    let third = enter_node(target, from, to, &vtep, &outer)?;
    let last = Hop {
        place: to.name().to_owned(),
        role: format!("{}", to.address()),
        ..Hop::empty()
    };
    Ok(vec![first, second, third, last])
}

fn leave_pod(node: &Node, from: &Pod, to: &Pod) -> Result<Hop> {
    let target = to.address().to_string();
    let route = one(from.namespaces(), &["ip", "-j", "route", "get", &target])?;
    let gateway = text(&route, "gateway").to_owned();
    let neighbour = one(
        from.namespaces(),
        &["ip", "-j", "neighbour", "show", "to", &gateway, "dev", POD_LINK],
    )?;
    let port = one(
        node.namespaces(),
        &["ip", "-j", "link", "show", "dev", from.host_link()],
    )?;
    let bridge = text(&port, "master").to_owned();
    Ok(Hop {
        place: from.name().to_owned(),
        role: from.address().to_string(),
        decisions: vec![
            (
                "route",
                format!("{target} via {gateway} dev {}", text(&route, "dev")),
            ),
            (
                "neighbour",
                format!("{gateway} is {}", text(&neighbour, "lladdr")),
            ),
        ],
        leaves_by: format!(
            "veth pair {} ─ {}, a port of {bridge}",
            POD_LINK,
            from.host_link()
        ),
    })
}

/// The sending node's decisions; returns the tunnel's next MAC address and outer address too.
fn leave_node(node: &Node, from: &Pod, to: &Pod) -> Result<(Hop, String, String)> {
    let (source, target) = (from.address().to_string(), to.address().to_string());
    let route = one(
        node.namespaces(),
        &[
            "ip", "-j", "route", "get", &target, "from", &source, "iif", BRIDGE,
        ],
    )?;
    let gateway = text(&route, "gateway").to_owned();
    let neighbour = one(
        node.namespaces(),
        &["ip", "-j", "neighbour", "show", "to", &gateway, "dev", TUNNEL],
    )?;
    let vtep = text(&neighbour, "lladdr").to_owned();
    let entries = node.json(&["bridge", "-j", "fdb", "show", "dev", TUNNEL])?;
    let entry = entries.iter().find(|entry| text(entry, "mac") == vtep);
    let entry = entry.with_context(|| format!("{} has no forwarding entry for {vtep}", node.name()))?;
    let outer = text(entry, "dst").to_owned();
    let outer_route = one(node.namespaces(), &["ip", "-j", "route", "get", &outer])?;
    let hop = Hop {
        place: node.name(),
        role: "the sender's node".to_owned(),
        decisions: vec![
            (
                "route",
                format!(
                    "{target} via {gateway} dev {}{}",
                    text(&route, "dev"),
                    flags(&route)
                ),
            ),
            ("neighbour", format!("{gateway} is {vtep}{}", states(&neighbour))),
            (
                "fdb",
                format!("{vtep} is behind {outer}, {}", text(entry, "state")),
            ),
            (
                "outer",
                format!(
                    "{} → {outer} dev {}",
                    text(&outer_route, "prefsrc"),
                    text(&outer_route, "dev")
                ),
            ),
        ],
        leaves_by: format!("VXLAN over UDP on {}", text(&outer_route, "dev")),
    };
    Ok((hop, vtep, outer))
}

fn enter_node(node: &Node, from: &Pod, to: &Pod, vtep: &str, outer: &str) -> Result<Hop> {
    let (source, target) = (from.address().to_string(), to.address().to_string());
    let tunnel = one(node.namespaces(), &["ip", "-j", "link", "show", "dev", TUNNEL])?;
    if outer != node.address().to_string() || vtep != text(&tunnel, "address") {
        bail!(
            "the way to {} leads to {vtep} behind {outer}, which is not {}",
            to.name(),
            node.name()
        );
    }
    let route = one(
        node.namespaces(),
        &[
            "ip", "-j", "route", "get", &target, "from", &source, "iif", TUNNEL,
        ],
    )?;
    let neighbour = one(
        node.namespaces(),
        &["ip", "-j", "neighbour", "show", "to", &target, "dev", BRIDGE],
    )?;
    let mac = text(&neighbour, "lladdr").to_owned();
    let entries = node.json(&["bridge", "-j", "fdb", "show", "br", BRIDGE])?;
    let entry = entries.iter().find(|entry| text(entry, "mac") == mac);
    let port = text(
        entry.with_context(|| format!("{BRIDGE} does not know {mac}"))?,
        "ifname",
    )
    .to_owned();
    if port != to.host_link() {
        bail!(
            "{BRIDGE} on {} sends {target} to {port}, not to {}",
            node.name(),
            to.host_link()
        );
    }
    Ok(Hop {
        place: node.name(),
        role: "the receiver's node".to_owned(),
        decisions: vec![
            (
                "outer",
                format!("{outer} is its address on {NODE_LINK}; {vtep} is its {TUNNEL}"),
            ),
            ("route", format!("{target} dev {}", text(&route, "dev"))),
            ("neighbour", format!("{target} is {mac}")),
            ("fdb", format!("{mac} is behind the port {port}")),
        ],
        leaves_by: format!("veth pair {port} ─ {POD_LINK}"),
    })
}

impl Hop {
    fn empty() -> Self {
        Self {
            place: String::new(),
            role: String::new(),
            decisions: Vec::new(),
            leaves_by: String::new(),
        }
    }
}

fn node_of<'a>(nodes: &'a [Node], pod: &Pod) -> Result<&'a Node> {
    nodes
        .iter()
        .find(|node| node.number() == pod.node_number())
        .context("a pod without a node")
}

fn one(namespaces: &Namespaces, argv: &[&str]) -> Result<Value> {
    let first = namespaces.json(argv)?.into_iter().next();
    first.with_context(|| format!("`{}` knows nothing", argv.join(" ")))
}

fn flags(route: &Value) -> String {
    list(route, "flags")
}

fn states(neighbour: &Value) -> String {
    list(neighbour, "state")
}

/// The texts of a list member, each after a blank, in lower case as iproute2 prints flags.
fn list(object: &Value, key: &str) -> String {
    let items = object.get(key).and_then(Value::as_array).into_iter().flatten();
    items
        .filter_map(Value::as_str)
        .map(|item| format!(" {}", item.to_lowercase()))
        .collect()
}
