//! What a network does while a part of it is away: packets are counted, and afterwards all is as before.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow};

use super::daemon;
use super::peers::peer;
use super::repair::{as_before, delete_route, repair_limit};
use super::tables::{by_the_tunnel, tunnel};
use super::tools::across;
use super::traffic::{AFTERWARDS, Traffic, counted};
use crate::lab::wait_until;
use crate::nodes::absence::{Absence, Part};
use crate::nodes::bed::{Node, Pod};
use crate::nodes::case::{Case, Look, case};
use crate::nodes::settle::answers;
use crate::report::{Checked, Stop, differs, expect};

/// How long packets are counted while the store is away. Afterwards something else is taken away, too.
const STORE_WATCHED: Duration = Duration::from_secs(2);
/// As much longer the store is away for each stream, which takes half a second to end, on slow nodes more.
const STREAM_ENDS: Duration = Duration::from_secs(1);
/// As many streams run at the same time at most.
const MAX_STREAMS: usize = 8;
/// How long a link is down.
const LINK_AWAY: Duration = Duration::from_secs(1);
/// How long a daemon is away, on slow nodes longer: a second more than it may take to end, so that it is seen to be gone before
/// it starts again.
const DAEMON_AWAY: Duration = daemon::END_LIMIT.saturating_add(Duration::from_secs(1));

pub(super) const CASES: &[Case] = &[
    case(
        "FOV-01",
        "no packet between pods is lost while the lease store is away, and a route that is deleted meanwhile comes back",
        store_away,
    )
    .breaks(),
    case(
        "FOV-02",
        "packets flow and tables are whole soon after a node's link to the underlay was down",
        link_away,
    )
    .breaks(),
    case(
        "FOV-03",
        "no packet between pods is lost while a node's daemon is gone and when it starts again",
        daemon_away,
    )
    .breaks(),
];

/// The way between pods of two nodes, and all of the first one's tables for it, where they are those of a tunnel.
struct Way<'a> {
    from: &'a Pod,
    to: &'a Pod,
    node: &'a Node,
    other: &'a Node,
    tables: Option<BTreeSet<String>>,
}

impl<'a> Way<'a> {
    fn first(look: &Look<'a>) -> Checked<Self> {
        let pairs = across(look)?;
        let (from, to) = *pairs.first().context("no pair of nodes")?;
        let (node, other) = (look.bed.node(from.node)?, look.bed.node(to.node)?);
        let tables = peer(look, other).and_then(|peer| {
            by_the_tunnel(look, node, &peer)?;
            tunnel(look, node)
        });
        let tables = match tables {
            Ok(tables) => Some(tables),
            // Another backend's tables are judged by what they do.
            Err(Stop::Skip(_)) => None,
            Err(other) => return Err(other),
        };
        Ok(Self {
            from,
            to,
            node,
            other,
            tables,
        })
    }

    /// Waits until the tables are as they were.
    fn is_whole(&self, look: &Look<'_>, after: &str) -> Checked<()> {
        let Some(before) = &self.tables else {
            return Ok(());
        };
        match as_before(look, self.node, tunnel, before) {
            Ok(took) => {
                look.measured(format!("tables whole after {:.0} ms", took.as_secs_f64() * 1e3));
                Ok(())
            }
            Err(error) => differs(
                format!(
                    "{} has all of the tunnel's entries again {} s after {after}",
                    self.node.name,
                    repair_limit(look).as_secs()
                ),
                format!("{error:#}"),
            ),
        }
    }
}

/// Does something while a part is away, waits for both, and returns when the part was back.
fn during<T>(absence: Absence<'_>, meanwhile: impl FnOnce() -> Checked<T>) -> Checked<(T, Instant)> {
    std::thread::scope(|scope| {
        let absence = scope.spawn(|| absence().map(|()| Instant::now()));
        let seen = meanwhile();
        let is_back = absence.join();
        // Who was not away cannot be judged by what went on meanwhile.
        let back = is_back.map_err(|_| anyhow!("a thread of a case panicked"))??;
        Ok((seen?, back))
    })
}

fn store_away(look: &Look<'_>) -> Checked<()> {
    let way = Way::first(look)?;
    let pairs: Vec<_> = across(look)?.into_iter().take(MAX_STREAMS).collect();
    let ends = pairs.iter().map(|_| STREAM_ENDS).sum::<Duration>();
    let time = STORE_WATCHED + ends * look.inventory.slowdown();
    let absence = look.inventory.away(Part::Store, way.node.agent()?, time)?;
    let (counted, back) = during(absence, || {
        let mut all = Vec::new();
        streams(look, &pairs, &mut all)?;
        let counted = Instant::now();
        for (name, traffic) in all {
            traffic.nothing_lost(&name)?;
        }
        if way.tables.is_some() {
            delete_route(look, way.node, way.other)?;
        }
        Ok(counted)
    })?;
    let late = counted.saturating_duration_since(back);
    if !late.is_zero() {
        let late = late.as_millis();
        return Err(anyhow!("the lease store was back {late} ms before all packets were counted").into());
    }
    way.is_whole(look, "the store is back")
}

/// Counts the packets of pairs at the same time.
fn streams(look: &Look<'_>, pairs: &[(&Pod, &Pod)], traffic: &mut Vec<(String, Traffic)>) -> Checked<()> {
    let Some(((from, to), rest)) = pairs.split_first() else {
        std::thread::sleep(STORE_WATCHED);
        return Ok(());
    };
    let ((), own) = counted(look, from, to, || streams(look, rest, traffic))?;
    traffic.push((from.name.clone(), own));
    Ok(())
}

fn link_away(look: &Look<'_>) -> Checked<()> {
    let way = Way::first(look)?;
    let part = Part::Link(way.from.node);
    let absence = look.inventory.away(part, way.node.agent()?, LINK_AWAY)?;
    let limit = repair_limit(look);
    let ((), traffic) = counted(look, way.from, way.to, || {
        absence()?;
        let flows = || Ok(answers(look.bed, way.from, way.to, look.family).unwrap_or(false));
        // Whether they do in time is told by what was counted.
        wait_until("packets to flow again", limit, flows).ok();
        std::thread::sleep(AFTERWARDS);
        Ok(())
    })?;
    let name = &way.node.name;
    let gap = traffic.counted.longest_gap;
    expect(
        gap >= LINK_AWAY / 2,
        format!(
            "no packet passes while the link of {name} is down for {} s",
            LINK_AWAY.as_secs()
        ),
        format!("the longest gap is {:.0} ms", gap.as_secs_f64() * 1e3),
    )?;
    expect(
        gap <= LINK_AWAY + limit,
        format!(
            "packets flow again {} s after the link of {name} is up",
            limit.as_secs()
        ),
        format!("the longest gap is {:.1} s", gap.as_secs_f64()),
    )?;
    way.is_whole(look, "its link is up")
}

fn daemon_away(look: &Look<'_>) -> Checked<()> {
    let way = Way::first(look)?;
    let before = daemon::running(way.node)?;
    let part = Part::Daemon(way.from.node);
    let time = DAEMON_AWAY * look.inventory.slowdown();
    let absence = look.inventory.away(part, way.node.agent()?, time)?;
    let ((), traffic) = counted(look, way.from, way.to, || {
        during(absence, || {
            daemon::ended(look, way.node, &before)?;
            daemon::is_gone(way.node)
        })?;
        let started = daemon::replaced(look, way.node, &before)?;
        std::thread::sleep(AFTERWARDS);
        daemon::goes_on(way.node, &started)
    })?;
    traffic.nothing_lost(&way.node.name)?;
    way.is_whole(look, "its daemon is back")
}
