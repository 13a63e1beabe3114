//! Which process a node's daemon is, so that a restart is seen to have been one.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;

use crate::lab::wait_until;
use crate::nodes::bed::Node;
use crate::nodes::case::Look;
use crate::nodes::protocol::{Process, Request};
use crate::report::{Checked, Stop, differs, expect};

/// The daemon's name among processes, by flannel's and this project's releases.
const NAME: &str = "flanneld";
/// How long the daemon may go on after it was told to end.
pub(super) const END_LIMIT: Duration = Duration::from_secs(5);

/// The daemon's processes on a node, of which there may be none.
///
/// # Errors
/// Skips the case where there is no agent.
pub(super) fn seen(node: &Node) -> Result<BTreeSet<Process>> {
    let name = NAME.to_owned();
    node.agent()?.ask(Request::Processes { name })
}

/// The same, of which there is one.
///
/// # Errors
/// Skips the case where there is none to be seen.
pub(super) fn running(node: &Node) -> Checked<BTreeSet<Process>> {
    let seen = seen(node)?;
    if seen.is_empty() {
        return Err(Stop::Skip(format!(
            "no process {NAME} is seen in the network of {}, by which a restart could be told",
            node.name
        )));
    }
    Ok(seen)
}

/// Waits until none of these runs any more.
///
/// # Errors
/// Ends the case when one still does after the limit.
pub(super) fn ended(look: &Look<'_>, node: &Node, before: &BTreeSet<Process>) -> Checked<()> {
    let limit = END_LIMIT * look.inventory.slowdown();
    let is_over = || Ok(seen(node)?.is_disjoint(before));
    if wait_until("the daemon's end", limit, is_over).is_err() {
        return differs(
            format!("{NAME} of {} ends within {} s", node.name, limit.as_secs()),
            format!("it still runs: {}", in_words(&seen(node)?)),
        );
    }
    Ok(())
}

/// Waits until there is another process than these, and returns it.
///
/// # Errors
/// Ends the case when the former one goes on, or when there is no other after the limit.
pub(super) fn replaced(
    look: &Look<'_>,
    node: &Node,
    before: &BTreeSet<Process>,
) -> Checked<BTreeSet<Process>> {
    ended(look, node, before)?;
    let limit = look.inventory.restart_limit() * look.inventory.slowdown();
    let mut now = BTreeSet::new();
    let is_there = || {
        now = seen(node)?;
        Ok(!now.is_empty())
    };
    if wait_until("a new daemon", limit, is_there).is_err() {
        return differs(
            format!(
                "another process {NAME} runs on {} within {} s",
                node.name,
                limit.as_secs()
            ),
            format!("there is none after {}", in_words(before)),
        );
    }
    Ok(now)
}

/// Ends the case unless no daemon runs.
///
/// # Errors
/// As it says.
pub(super) fn is_gone(node: &Node) -> Checked<()> {
    let now = seen(node)?;
    let expected = format!("no {NAME} runs on {} until it is started again", node.name);
    expect(now.is_empty(), expected, in_words(&now))
}

/// Ends the case unless one of these still runs. What a daemon has forked is of its name until it is another program, so that
/// there may be more at either time; of one that has ended and was started again none is left.
///
/// # Errors
/// As it says.
pub(super) fn goes_on(node: &Node, started: &BTreeSet<Process>) -> Checked<()> {
    let now = seen(node)?;
    let expected = format!("the new {NAME} of {} goes on: {}", node.name, in_words(started));
    expect(!now.is_disjoint(started), expected, in_words(&now))
}

fn in_words(processes: &BTreeSet<Process>) -> String {
    if processes.is_empty() {
        return format!("no process {NAME}");
    }
    let all = processes.iter().map(|one| format!("process {}", one.pid));
    all.collect::<Vec<_>>().join(", ")
}
