//! What a network does when its daemon is restarted, and when somebody takes something away: packets are counted.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::daemon;
use super::peers::{Peer, device, peer};
use super::tables::{Table, by_the_tunnel, forwarding, hiding, hiding_rules, neighbours, routes, tunnel};
use super::tools::across;
use super::traffic::{AFTERWARDS, counted};
use crate::lab::wait_until;
use crate::nodes::bed::{Family, Node};
use crate::nodes::case::{Case, Look, case};
use crate::report::{Checked, Stop, differs};

/// How soon what was taken away has to be back: ten times this project's own aim.
const REPAIR_LIMIT: Duration = Duration::from_secs(10);

pub(super) const CASES: &[Case] = &[
    case(
        "RST-01",
        "no packet between pods is lost while each node's daemon is restarted",
        restarts,
    )
    .breaks(),
    case("RPR-01", "a route that was deleted comes back", |look| {
        repaired(look, Peer::route, routes, route_deleted)
    })
    .breaks(),
    case("RPR-02", "a neighbour that was deleted comes back", |look| {
        repaired(look, Peer::neighbour, neighbours, |look, peer| {
            words(&[
                "ip",
                "neighbour",
                "delete",
                &peer.vtep.to_string(),
                "dev",
                device(look.family),
            ])
        })
    })
    .breaks(),
    case(
        "RPR-03",
        "a forwarding entry that was deleted comes back",
        |look| {
            repaired(look, Peer::forwarding, forwarding, |look, peer| {
                let device = device(look.family);
                words(&[
                    "bridge",
                    "fdb",
                    "delete",
                    &peer.mac,
                    "dev",
                    device,
                    "dst",
                    &peer.outer,
                    "self",
                ])
            })
        },
    )
    .breaks(),
    case(
        "RPR-04",
        "the rules that masquerade come back after their table or chain was emptied",
        rules_repaired,
    )
    .breaks(),
    case(
        "RPR-05",
        "a tunnel that was set down comes back with all its entries",
        |look| {
            repaired(look, Peer::route, tunnel, |look, _| {
                words(&["ip", "link", "set", "dev", device(look.family), "down"])
            })
        },
    )
    .breaks(),
    case(
        "RPR-06",
        "a tunnel that was deleted comes back with all its entries",
        |look| {
            repaired(look, Peer::route, tunnel, |look, _| {
                words(&["ip", "link", "delete", "dev", device(look.family)])
            })
        },
    )
    .breaks(),
];

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|&word| word.to_owned()).collect()
}

fn restarts(look: &Look<'_>) -> Checked<()> {
    for (from, to) in across(look)? {
        let node = look.bed.node(from.node)?;
        let before = daemon::running(node)?;
        let (took, traffic) = counted(look, from, to, || {
            let start = Instant::now();
            look.inventory.restart_daemon(from.node, node.agent()?)?;
            let restarted = daemon::replaced(look, node, &before)?;
            let took = start.elapsed();
            std::thread::sleep(AFTERWARDS);
            daemon::goes_on(node, &restarted)?;
            Ok(took)
        })?;
        let name = &node.name;
        look.measured(format!("{name}: restarted in {:.2} s", took.as_secs_f64()));
        traffic.nothing_lost(name)?;
    }
    Ok(())
}

/// Deletes one entry of a table on the first node, and waits until the table is as before.
fn repaired(
    look: &Look<'_>,
    entry: fn(&Peer) -> String,
    table: Table,
    delete: fn(&Look<'_>, &Peer) -> Vec<String>,
) -> Checked<()> {
    let pairs = across(look)?;
    let (from, to) = *pairs.first().context("no pair of nodes")?;
    let (node, other) = (look.bed.node(from.node)?, look.bed.node(to.node)?);
    let peer = peer(look, other)?;
    by_the_tunnel(look, node, &peer)?;
    let before = table(look, node)?;
    if !before.contains(&entry(&peer)) {
        let name = &node.name;
        return differs(
            format!("{name} has {}", entry(&peer)),
            format!("it has {before:?}"),
        );
    }
    let argv = delete(look, &peer);
    let argv: Vec<_> = argv.iter().map(String::as_str).collect();
    let (back, _) = counted(look, from, to, || {
        run(node, &argv)?;
        Ok(as_before(look, node, table, &before))
    })?;
    told(look, &argv, back)
}

fn rules_repaired(look: &Look<'_>) -> Checked<()> {
    let node = look.bed.node(0)?;
    let before = hiding_rules(look, node)?;
    if before.is_empty() {
        return Err(Stop::Skip("no rule masquerades the network".to_owned()));
    }
    // Of flannel pkg/trafficmngr: the table in nf_tables, and the chain in iptables.
    let (iptables, [family, table]) = match look.family {
        Family::V4 => ("iptables", ["ip", "flannel-ipv4"]),
        Family::V6 => ("ip6tables", ["ip6", "flannel-ipv6"]),
    };
    let chain = "FLANNEL-POSTRTG";
    let ways = [
        (
            ["nft", "list", "table", family, table],
            ["nft", "flush", "table", family, table],
        ),
        (
            [iptables, "-t", "nat", "-S", chain],
            [iptables, "-t", "nat", "-F", chain],
        ),
    ];
    for (list, empty) in ways {
        let listed = node.agent()?.run(&list)?;
        // Where both are there, one may be empty, and to empty it would take nothing away.
        if listed.status == Some(0) && !hiding(look, node, &listed.stdout)?.is_empty() {
            run(node, &empty)?;
            return told(look, &empty, as_before(look, node, hiding_rules, &before));
        }
    }
    Err(Stop::Skip(
        "neither Flannel's table nor its chain has a rule that masquerades the network".to_owned(),
    ))
}

fn run(node: &Node, argv: &[&str]) -> Checked<()> {
    let output = node.agent()?.run(argv)?;
    if output.status == Some(0) {
        return Ok(());
    }
    let line = argv.join(" ");
    Err(anyhow::anyhow!("`{line}` on {} failed: {}", node.name, output.stderr.trim()).into())
}

/// Deletes the route to a peer's subnet by the tunnel.
///
/// # Errors
/// Fails when iproute2 does.
pub(super) fn delete_route(look: &Look<'_>, node: &Node, other: &Node) -> Checked<()> {
    let argv = route_deleted(look, &peer(look, other)?);
    run(node, &argv.iter().map(String::as_str).collect::<Vec<_>>())
}

fn route_deleted(look: &Look<'_>, peer: &Peer) -> Vec<String> {
    words(&[
        "ip",
        "route",
        "delete",
        &peer.subnet(),
        "dev",
        device(look.family),
    ])
}

/// How long it takes until a table is as before.
///
/// # Errors
/// Fails when it is not within [`repair_limit`].
pub(super) fn as_before(
    look: &Look<'_>,
    node: &Node,
    table: Table,
    before: &BTreeSet<String>,
) -> Result<Duration> {
    wait_until("the table to be as before", repair_limit(look), || {
        // It was there before: what cannot be looked at is not there yet.
        Ok(table(look, node).is_ok_and(|now| now == *before))
    })
}

/// How soon something has to be as before.
pub(super) fn repair_limit(look: &Look<'_>) -> Duration {
    REPAIR_LIMIT * look.inventory.slowdown()
}

fn told(look: &Look<'_>, argv: &[&str], back: Result<Duration>) -> Checked<()> {
    match back {
        Ok(after) => {
            look.measured(format!("back after {:.0} ms", after.as_secs_f64() * 1e3));
            Ok(())
        }
        Err(error) => differs(
            format!(
                "`{}` is undone within {} s",
                argv.join(" "),
                repair_limit(look).as_secs()
            ),
            format!("{error:#}"),
        ),
    }
}
