//! What many cases do: something for every pair of two sets of ends, and a verdict on all pairs.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result};

use crate::nodes::bed::End;
use crate::nodes::case::Look;
use crate::nodes::protocol::{Pinged, Request, Seen, Transport};
use crate::nodes::remote::side_by_side;
use crate::report::{Checked, differs};

/// As many pairs are told that did not do what they should.
const MAX_TOLD: usize = 10;

/// A pair of ends, and what was seen between them.
pub(super) struct Pair<'a, T> {
    pub(super) from: End<'a>,
    pub(super) to: End<'a>,
    pub(super) seen: T,
}

/// Asks the servers of all targets from every source whom they see.
///
/// # Errors
/// Fails when an agent does; a server that does not answer is seen as such.
pub(super) fn ask<'a>(
    look: &Look<'_>,
    from: &[End<'a>],
    to: &[End<'a>],
    transport: Transport,
    size: usize,
) -> Result<Vec<Pair<'a, Result<Seen, String>>>> {
    let targets: Vec<SocketAddr> = to
        .iter()
        .map(|end| look.bed.server(*end, look.family))
        .collect::<Result<_>>()?;
    from_each(look, from, to, |end| Request::Ask {
        place: end.place(),
        transport,
        targets: targets.clone(),
        size,
    })
}

/// Sends echo requests of a size to all targets from every source.
///
/// # Errors
/// Fails when an agent does; an echo that does not come is seen as such.
pub(super) fn ping<'a>(
    look: &Look<'_>,
    from: &[End<'a>],
    to: &[End<'a>],
    size: u16,
) -> Result<Vec<Pair<'a, Pinged>>> {
    let targets: Vec<IpAddr> = to
        .iter()
        .map(|end| look.bed.address(*end, look.family))
        .collect::<Result<_>>()?;
    from_each(look, from, to, |end| Request::Ping {
        place: end.place(),
        targets: targets.clone(),
        size,
    })
}

/// Makes a request of every source that has an answer for each target: the nodes side by side, what is on one node one
/// after the other.
fn from_each<'a, T: serde::de::DeserializeOwned + Send>(
    look: &Look<'_>,
    from: &[End<'a>],
    to: &[End<'a>],
    request: impl Fn(End<'a>) -> Request + Sync,
) -> Result<Vec<Pair<'a, T>>> {
    let numbers: Vec<_> = (0..look.bed.nodes.len()).collect();
    let bed = look.bed;
    let rows = side_by_side(&numbers, |number| {
        let own = from.iter().filter(|end| end.node() == *number);
        own.map(|end| Ok((*end, bed.agent(*end)?.ask::<Vec<T>>(request(*end))?)))
            .collect::<Result<Vec<_>>>()
    })?;
    let mut pairs = Vec::new();
    for (source, answers) in rows.into_iter().flatten() {
        if answers.len() != to.len() {
            return Err(anyhow::anyhow!("an agent left some targets out")).context("asking for all pairs");
        }
        pairs.extend(answers.into_iter().zip(to).map(|(seen, to)| Pair {
            from: source,
            to: *to,
            seen,
        }));
    }
    Ok(pairs)
}

/// Ends the case unless every pair did what it should; the judge tells in words what was seen where it did not.
///
/// # Errors
/// Fails with the pairs that did not.
pub(super) fn all_of<T>(
    look: &Look<'_>,
    expected: &str,
    pairs: &[Pair<'_, T>],
    judge: impl Fn(&Pair<'_, T>) -> Option<String>,
) -> Checked<()> {
    let wrong: Vec<_> = pairs
        .iter()
        .filter_map(|pair| {
            let (from, to) = (look.bed.name(pair.from), look.bed.name(pair.to));
            Some(format!("{from} → {to}: {}", judge(pair)?))
        })
        .collect();
    look.measured(format!("{} of {} pairs", pairs.len() - wrong.len(), pairs.len()));
    if wrong.is_empty() {
        return Ok(());
    }
    let mut told: Vec<_> = wrong.iter().take(MAX_TOLD).cloned().collect();
    let more = wrong.len().saturating_sub(MAX_TOLD);
    if more > 0 {
        told.push(format!("and {more} more pairs"));
    }
    differs(expected, told.join("\n"))
}
