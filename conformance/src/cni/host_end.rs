//! The host's end of a container's interface, and what limits the rate of what passes it.

use anyhow::Result;
use serde_json::Value;

use super::container::Container;
use super::snapshot::{json, printed};
use crate::lab::text;
use crate::report::{Checked, Stop};

/// The name of the host's end of a container's pair of links, found as the kernel tells it: by its index.
///
/// # Errors
/// Skips the case when the interface is not one end of a pair whose other end is in the host.
pub(super) fn host_end(container: &Container) -> Checked<String> {
    let index = container.interface()?.get("link_index").and_then(Value::as_u64);
    let links = json(&["ip", "-j", "link"])?;
    let ends = links
        .iter()
        .filter(|link| index.is_some() && link.get("ifindex").and_then(Value::as_u64) == index);
    let mut names = ends.map(|link| text(link, "ifname").to_owned());
    names
        .next()
        .ok_or_else(|| Stop::Skip("the container's interface is not one end of a pair of links".to_owned()))
}

/// The links of the host on which a queueing discipline or a class limits the rate to this one, in the words of `tc`
/// (`8Mbit`).
///
/// # Errors
/// Fails when `ip` or `tc` does.
pub(super) fn shaped_to(rate: &str) -> Result<Vec<String>> {
    let is_shaped = |name: &str| -> Result<bool> {
        let disciplines = printed(&["tc", "qdisc", "show", "dev", name])?;
        let classes = printed(&["tc", "class", "show", "dev", name])?;
        let mut words = disciplines.split_whitespace().chain(classes.split_whitespace());
        Ok(words.any(|word| word == rate))
    };
    let mut shaped = Vec::new();
    for link in json(&["ip", "-j", "link"])? {
        let name = text(&link, "ifname");
        if is_shaped(name)? {
            shaped.push(name.to_owned());
        }
    }
    Ok(shaped)
}

/// Whether filters can look at what enters a link of the host.
///
/// # Errors
/// Fails when `tc` does.
pub(super) fn looks_at_what_enters(name: &str) -> Result<bool> {
    let disciplines = printed(&["tc", "qdisc", "show", "dev", name])?;
    let mut kinds = disciplines
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1));
    Ok(kinds.any(|kind| matches!(kind, "ingress" | "clsact")))
}
