//! What the kernel holds, as text that two moments can be compared by.

use std::collections::BTreeSet;

use anyhow::Result;
use serde_json::Value;

use super::iproute::{Ip, printed, text};
use super::namespaces::Namespaces;

/// Members that change without anybody's doing, or that name an object by a number that a twin would not have.
const VOLATILE: &[&str] = &[
    "ifindex",
    "link_index",
    "link_netnsid",
    "valid_life_time",
    "preferred_life_time",
    "tentative",
    "hello_timer",
    "tcn_timer",
    "topology_change_timer",
    "gc_timer",
    "hold_timer",
    "message_age_timer",
    "forward_delay_timer",
    "updated",
    "used",
    "confirmed",
    "probes",
    "refcnt",
];

/// What is looked at: the kind, iproute2's command, and the member that names the device.
const VIEWS: &[(&str, &[&str], &str)] = &[
    ("link", &["ip", "-j", "-d", "link", "show"], "ifname"),
    ("address", &["ip", "-j", "address", "show"], "ifname"),
    (
        "route",
        &["ip", "-j", "-d", "-4", "route", "show", "table", "all"],
        "dev",
    ),
    (
        "route6",
        &["ip", "-j", "-d", "-6", "route", "show", "table", "all"],
        "dev",
    ),
    ("rule", &["ip", "-j", "rule", "show"], "iifname"),
    (
        "neighbour",
        &["ip", "-j", "neighbour", "show", "nud", "permanent"],
        "dev",
    ),
    ("fdb", &["bridge", "-j", "fdb", "show"], "ifname"),
];

/// One object of the kernel as canonical text.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    kind: &'static str,
    device: String,
    text: String,
}

/// All that a network namespace holds, without what changes by itself (counters, ages, learned neighbours).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Dump(BTreeSet<Entry>);

impl Dump {
    /// Looks at a network namespace.
    ///
    /// # Errors
    /// Fails when iproute2 or nft does.
    pub fn of(namespaces: &Namespaces) -> Result<Self> {
        let mut entries = BTreeSet::new();
        for (kind, argv, device_key) in VIEWS {
            for object in namespaces.json(argv)? {
                entries.extend(entry(kind, device_key, object));
            }
        }
        let ruleset = printed(
            "nft list ruleset",
            namespaces.output(&["nft", "--stateless", "list", "ruleset"])?,
        )?;
        if !ruleset.trim().is_empty() {
            entries.insert(Entry {
                kind: "nft",
                device: String::new(),
                text: ruleset,
            });
        }
        Ok(Self(entries))
    }

    /// What belongs to one device.
    #[must_use]
    pub fn of_device(&self, device: &str) -> Self {
        Self(
            self.0
                .iter()
                .filter(|entry| entry.device == device)
                .cloned()
                .collect(),
        )
    }

    /// What does not belong to devices that fit a condition.
    #[must_use]
    pub fn without_devices(&self, excluded: impl Fn(&str) -> bool) -> Self {
        Self(
            self.0
                .iter()
                .filter(|entry| !excluded(&entry.device))
                .cloned()
                .collect(),
        )
    }

    /// The number of objects of a kind (`link`, `address`, `route`, `neighbour`, `fdb`, …).
    #[must_use]
    pub fn count(&self, kind: &str) -> usize {
        self.0.iter().filter(|entry| entry.kind == kind).count()
    }

    /// Whether an object of a kind has this text in it.
    #[must_use]
    pub fn has(&self, kind: &str, part: &str) -> bool {
        self.0
            .iter()
            .any(|entry| entry.kind == kind && entry.text.contains(part))
    }

    /// The differences to a later moment, one a line: `-` for what is gone, `+` for what is new; empty when equal.
    #[must_use]
    pub fn changes_to(&self, later: &Self) -> Vec<String> {
        let line =
            |sign: char, entry: &Entry| format!("{sign} {} {}: {}", entry.kind, entry.device, entry.text);
        let gone = self.0.difference(&later.0).map(|entry| line('-', entry));
        gone.chain(later.0.difference(&self.0).map(|entry| line('+', entry)))
            .collect()
    }
}

/// An object without its volatile members; `None` for what the kernel learns and forgets by itself, or adds some time
/// after a link came up (IPv6 routes of its own, multicast filters).
fn entry(kind: &'static str, device_key: &str, mut object: Value) -> Option<Entry> {
    let multicast = ["33:33:", "01:00:5e:"]
        .iter()
        .any(|prefix| text(&object, "mac").starts_with(prefix));
    let learned = !["permanent", "static"].contains(&text(&object, "state"));
    let own_of_kernel = kind == "route6" && text(&object, "protocol") == "kernel";
    if own_of_kernel || (kind == "fdb" && (learned || multicast)) {
        return None;
    }
    strip(&mut object);
    Some(Entry {
        kind,
        device: text(&object, device_key).to_owned(),
        text: object.to_string(),
    })
}

/// Removes volatile members at every depth; serde_json keeps members sorted by name.
fn strip(value: &mut Value) {
    match value {
        Value::Object(members) => {
            members.retain(|name, _| !VOLATILE.contains(&name.as_str()));
            members.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn dump(objects: &[(&'static str, Value)]) -> Dump {
        Dump(
            objects
                .iter()
                .filter_map(|(kind, object)| entry(kind, "dev", object.clone()))
                .collect(),
        )
    }

    #[test]
    fn numbers_and_ages_do_not_count_as_changes() {
        let before = dump(&[(
            "link",
            json!({"dev": "a", "ifindex": 1, "linkinfo": {"gc_timer": 1.5, "id": 1}}),
        )]);
        let after = dump(&[(
            "link",
            json!({"ifindex": 9, "dev": "a", "linkinfo": {"id": 1, "gc_timer": 0.1}}),
        )]);
        assert_eq!(before.changes_to(&after), Vec::<String>::new());
    }

    #[test]
    fn what_is_gone_and_what_is_new_is_told() {
        let before = dump(&[("route", json!({"dev": "a", "dst": "10.0.0.0/8"}))]);
        let after = dump(&[("route", json!({"dev": "b", "dst": "10.0.0.0/8"}))]);
        let changes = before.changes_to(&after);
        assert_eq!(changes.len(), 2);
        assert!(
            changes[0].starts_with("- route a") && changes[1].starts_with("+ route b"),
            "{changes:?}"
        );
    }

    #[test]
    fn learned_forwarding_entries_are_left_out() {
        let learned =
            json!({"dev": "cni0", "mac": "0a:58:0a:f4:01:02", "flags": [], "master": "cni0", "state": ""});
        assert_eq!(dump(&[("fdb", learned)]), Dump::default());
    }
}
