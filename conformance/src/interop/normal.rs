//! What programs print, without what differs from kernel to kernel or from moment to moment.

use std::collections::BTreeSet;

use super::labels::Labels;

/// A device's attributes that are times, or the bridge's own business with them; each is followed by its value.
const VOLATILE: &[&str] = &[
    "hello_timer",
    "tcn_timer",
    "topology_change_timer",
    "topology_change",
    "topology_change_detected",
    "topology_change_ack",
    "gc_timer",
    "hold_timer",
    "message_age_timer",
    "forward_delay_timer",
    "qlen",
];
/// What `ip -d` prints from here on depends on the kernel's version.
const NEWER: [&str; 2] = ["promiscuity", "numtxqueues"];
/// Multicast addresses, of which the kernel has entries as it needs them.
const GROUPS: [&str; 2] = ["33:33:", "01:00:5e:"];

/// A part of a capture: the command, or a name of it, and what it printed.
pub(super) type Section = (String, String);

/// Divides a capture at its lines `# COMMAND`.
pub(super) fn sections(text: &str) -> Vec<Section> {
    let is_of_program = |line: &str| {
        ["# Warning", "# Generated", "# Completed"]
            .iter()
            .any(|start| line.starts_with(start))
    };
    let mut sections: Vec<Section> = Vec::new();
    for line in text.lines() {
        match line.strip_prefix("# ") {
            Some(head) if !is_of_program(line) => sections.push((head.to_owned(), String::new())),
            Some(_) | None => {
                if let Some((_, body)) = sections.last_mut() {
                    body.push_str(line);
                    body.push('\n');
                }
            }
        }
    }
    sections
}

/// What `ip link`, `ip addr` and `bridge link` print, in order; devices without their numbers.
pub(super) fn device_lines(text: &str, labels: &Labels) -> Vec<String> {
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("valid_lft"));
    let mut device = String::new();
    let mut found = Vec::new();
    for line in lines {
        let words = stable_words(line);
        match numbered(&words) {
            Some((name, rest)) => {
                device = labels.apply(name);
                found.push(labels.apply(&format!("{device}: {}", rest.join(" "))));
            }
            None => found.push(format!("{device}: {}", labels.apply(&words.join(" ")))),
        }
    }
    found
}

/// The name of the device that a line like `3: eth0@if4: <UP> …` is about, and the rest.
fn numbered<'a>(words: &'a [&'a str]) -> Option<(&'a str, &'a [&'a str])> {
    let (number, rest) = words.split_first()?;
    let (name, rest) = rest.split_first()?;
    number.strip_suffix(':')?.parse::<u32>().ok()?;
    let name = name.trim_end_matches(':');
    Some((name.split('@').next().unwrap_or(name), rest))
}

fn stable_words(line: &str) -> Vec<&str> {
    let mut kept = Vec::new();
    let mut words = line.split_whitespace();
    while let Some(word) = words.next() {
        if NEWER.contains(&word) {
            break;
        }
        if VOLATILE.contains(&word) {
            words.next();
        } else {
            kept.push(word);
        }
    }
    kept
}

/// What a table holds (routes, neighbours, entries), each line once and sorted, under the name of the table.
pub(super) fn table_lines(table: &str, text: &str, labels: &Labels) -> Vec<String> {
    let lines = text.lines().map(str::trim);
    let own = lines.filter(|line| !line.is_empty() && !GROUPS.iter().any(|group| line.starts_with(group)));
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let sorted: BTreeSet<_> = own
        .map(|line| format!("{table}: {}", labels.apply(&words(line))))
        .collect();
    sorted.into_iter().collect()
}

/// What `ip -br link` prints: names, addresses, and whether somebody has set the device up.
pub(super) fn brief_lines(text: &str, labels: &Labels) -> Vec<String> {
    let line = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        let &[name, _, mac, flags] = words.as_slice() else {
            return labels.apply(line);
        };
        let name = name.split('@').next().unwrap_or(name);
        let is_up = flags.trim_matches(['<', '>']).split(',').any(|flag| flag == "UP");
        labels.apply(&format!("{name}: {mac} {}", if is_up { "up" } else { "down" }))
    };
    let mut lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .map(line)
        .collect();
    lines.sort();
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_is_divided_at_its_commands() {
        let text = "# ip rule\n0: x\n# nft list ruleset\n# Warning: table\ntable ip a {\n";
        let expected = [
            ("ip rule".to_owned(), "0: x\n".to_owned()),
            (
                "nft list ruleset".to_owned(),
                "# Warning: table\ntable ip a {\n".to_owned(),
            ),
        ];
        assert_eq!(sections(text), expected);
    }

    #[test]
    fn devices_have_no_numbers_and_no_times() {
        let text = "3: a.1@if2: <UP> mtu 1450 qlen 1000\n    link/ether 02:00:00:00:00:01 brd ff:ff:ff:ff:ff:ff promiscuity 0\n    \
            bridge ageing_time 30000 gc_timer  3.01 stp_state 0 numtxqueues 1\n    inet 10.0.0.1/8\n       valid_lft forever\n";
        let expected = [
            "a.1: <UP> mtu 1450",
            "a.1: link/ether MAC brd ff:ff:ff:ff:ff:ff",
            "a.1: bridge ageing_time 30000 stp_state 0",
            "a.1: inet 10.0.0.1/8",
        ];
        assert_eq!(device_lines(text, &Labels::default()), expected);
    }

    #[test]
    fn tables_are_sorted_and_links_are_told_in_brief() {
        let lines = table_lines(
            "fdb",
            "b  x\n33:33:00:00:00:01 dev a\na\nb x\n",
            &Labels::default(),
        );
        assert_eq!(lines, ["fdb: a", "fdb: b x"]);
        let text = "eth0@if3   UP   02:00:00:00:00:01 <BROADCAST,UP,LOWER_UP>\ncni0 DOWN 02:00:00:00:00:02 <BROADCAST>\n";
        assert_eq!(
            brief_lines(text, &Labels::default()),
            ["cni0: MAC down", "eth0: MAC up"]
        );
    }
}
