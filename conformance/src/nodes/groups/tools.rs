//! What several groups of cases need: iproute2 on a node, and neighbours in the list of nodes.

use anyhow::Context;
use serde_json::Value;

use crate::lab::POD_LINK;
use crate::nodes::bed::{End, Pod};
use crate::nodes::case::Look;
use crate::nodes::protocol::{NOT_FOUND, Place, Request};
use crate::nodes::remote::Remote;
use crate::report::{Checked, Stop};

/// What a program of iproute2 prints as JSON at a place.
///
/// # Errors
/// Skips the case where there is no such program.
pub(super) fn json_in(agent: &Remote, place: Place, argv: &[&str]) -> Checked<Vec<Value>> {
    let line = argv.join(" ");
    let output = agent.run_in(place, argv)?;
    if output.status == Some(NOT_FOUND) {
        let words = output.stderr.trim();
        return Err(Stop::Skip(format!(
            "it takes iproute2 on the node: {}: {words}",
            agent.name()
        )));
    }
    if output.status != Some(0) {
        let words = output.stderr.trim();
        return Err(anyhow::anyhow!("{}: `{line}` failed: {words}", agent.name()).into());
    }
    if output.stdout.trim().is_empty() {
        return Ok(Vec::new());
    }
    let objects: Vec<Value> =
        serde_json::from_str(&output.stdout).with_context(|| format!("reading what `{line}` printed"))?;
    // iproute2 prints an empty object for what a filter left out.
    let is_empty = |object: &Value| object.as_object().is_some_and(serde_json::Map::is_empty);
    Ok(objects.into_iter().filter(|object| !is_empty(object)).collect())
}

/// The same on the node.
///
/// # Errors
/// As [`json_in`].
pub(super) fn json(agent: &Remote, argv: &[&str]) -> Checked<Vec<Value>> {
    json_in(agent, Place::Node, argv)
}

/// The MTU of each pod's interface, in bytes.
///
/// # Errors
/// As [`json_in`].
pub(super) fn pod_mtus(look: &Look<'_>) -> Checked<Vec<u16>> {
    let mtu = |pod: &Pod| {
        let end = End::Pod(pod);
        if pod.has_own_agent() {
            return mtu_of_link(look, pod);
        }
        let links = json_in(
            look.bed.agent(end)?,
            end.place(),
            &["ip", "-j", "link", "show", "dev", POD_LINK],
        )?;
        let mtu = links.first().and_then(|link| link.get("mtu")?.as_u64());
        let mtu = mtu.with_context(|| format!("{} has no MTU", pod.name))?;
        Ok(u16::try_from(mtu).with_context(|| format!("{} has an MTU of {mtu}", pod.name))?)
    };
    look.bed.pods.iter().map(mtu).collect()
}

/// The MTU of the interface of a pod that has files of its own, which may have no iproute2.
fn mtu_of_link(look: &Look<'_>, pod: &Pod) -> Checked<u16> {
    let path = format!("/sys/class/net/{POD_LINK}/mtu");
    let text: Option<String> = look.bed.agent(End::Pod(pod))?.ask(Request::Read { path })?;
    let text = text.with_context(|| format!("{} has no {POD_LINK}", pod.name))?;
    Ok(text
        .trim()
        .parse()
        .with_context(|| format!("{} has an MTU of {text:?}", pod.name))?)
}

/// The first pod of each node with the first one of the next, so that each is a sender and a receiver once.
///
/// # Errors
/// Skips the case where there is one node only.
pub(super) fn across<'a>(look: &Look<'a>) -> Checked<Vec<(&'a Pod, &'a Pod)>> {
    let firsts: Vec<_> = (0..look.bed.nodes.len())
        .filter_map(|node| look.bed.pods.iter().find(|pod| pod.node == node))
        .collect();
    if firsts.len() < 2 {
        return Err(Stop::Skip("there is one node only".to_owned()));
    }
    let next = firsts.iter().cycle().skip(1);
    Ok(firsts.iter().copied().zip(next.copied()).collect())
}

/// Two pods of one node.
pub(super) fn beside<'a>(look: &Look<'a>) -> Option<(&'a Pod, &'a Pod)> {
    let pods = &look.bed.pods;
    pods.iter().find_map(|one| {
        let other = pods
            .iter()
            .find(|other| other.node == one.node && other.name != one.name)?;
        Some((one, other))
    })
}
