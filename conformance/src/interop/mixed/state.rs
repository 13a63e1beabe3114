//! What a node's daemon has made on it, and what the plugins have made for a pod.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context, Result};

use crate::interop::labels::Labels;
use crate::interop::normal::{device_lines, table_lines};
use crate::interop::sysctl;
use crate::lab::rules::{iptables_lines, nft_lines};
use crate::lab::{Namespaces, Node, Pod, printed};

/// Where the daemon and the plugins leave files.
const DAEMONS_FILES: &str = "/run/flannel";
const PLUGINS_FILES: [&str; 2] = ["/var/lib/cni", "/run/cni"];
/// What host-local remembers of addresses that it gave, which reserves nothing.
const REMEMBERED: &str = "last_reserved_ip";

/// All that a daemon may have made on a node, without what is of pods.
///
/// # Errors
/// Fails when a program that shows it does.
pub(super) fn of_daemon(node: &Node, labels: &Labels) -> Result<Vec<String>> {
    let namespaces = node.namespaces();
    let show = |argv: &[&str]| show(namespaces, argv);
    let is_of_pods = |line: &str| line.contains("cni0") || line.contains("veth");
    let mut lines = device_lines(&show(&["ip", "-d", "addr"])?, labels);
    lines.retain(|line| !is_of_pods(line));
    let tables: [(&str, &[&str]); 4] = [
        ("fdb", &["bridge", "fdb"]),
        ("neigh", &["ip", "neigh", "show", "nud", "permanent"]),
        ("route", &["ip", "-d", "route", "show", "table", "all"]),
        ("rule", &["ip", "rule"]),
    ];
    for (table, argv) in tables {
        let found = table_lines(table, &show(argv)?, labels);
        lines.extend(found.into_iter().filter(|line| !is_of_pods(line)));
    }
    let rules = nft_lines(&labels.apply(&show(&["nft", "list", "ruleset"])?));
    // iptables' own tables are told by its own program, without chains that have nothing but a policy.
    let is_of_iptables = |line: &str| {
        ["nat", "filter", "mangle", "raw"]
            .iter()
            .any(|table| line.split(' ').nth(2) == Some(table))
    };
    lines.extend(rules.into_iter().filter(|line| !is_of_iptables(line)));
    for program in ["iptables-save", "ip6tables-save"] {
        let rules = iptables_lines(&labels.apply(&show(&[program])?));
        let own = rules
            .into_iter()
            .filter(|line| !line.contains("CNI-") && !line.ends_with(": policy ACCEPT"));
        lines.extend(own.map(|line| format!("{program}: {line}")));
    }
    let parameters = namespaces.run(sysctl::all)?;
    lines.extend(sysctl::beside_default(&parameters, |device| {
        device.starts_with("flannel")
    }));
    for (name, text) in files(&node.file(DAEMONS_FILES))? {
        let text = labels.apply(&text).replace('\n', " ");
        lines.push(format!("{DAEMONS_FILES}/{name}: {}", text.trim()));
    }
    Ok(lines)
}

/// Whatever names a pod or its address on its node: links, rules and files.
///
/// # Errors
/// Fails when a program that shows it does.
pub(super) fn traces(node: &Node, pod: &Pod) -> Result<Vec<String>> {
    let address = pod.address().to_string();
    let names = [pod.name(), &address, pod.host_link()];
    let is_named = |text: &str| names.iter().any(|name| text.contains(name));
    let mut found = Vec::new();
    for argv in [
        &["ip", "-br", "link"][..],
        &["nft", "list", "ruleset"],
        &["iptables-save"],
        &["ip6tables-save"],
    ] {
        let printed = show(node.namespaces(), argv)?;
        let named = printed.lines().filter(|line| is_named(line));
        found.extend(named.map(|line| format!("{}: {}", argv.join(" "), line.trim())));
    }
    for dir in PLUGINS_FILES {
        let named = files(&node.file(dir))?
            .into_iter()
            .filter(|(name, text)| !name.contains(REMEMBERED) && (is_named(name) || is_named(text)));
        found.extend(named.map(|(name, _)| format!("{dir}/{name}")));
    }
    let plain = |line: &String| {
        let named = names.iter().zip(["POD", "ADDRESS", "VETH"]);
        let line = named.fold(line.clone(), |line, (name, label)| line.replace(name, label));
        without_digests(&line)
    };
    Ok(found.iter().map(plain).collect())
}

/// Long words of hexadecimal digits are made of names, and differ with them.
fn without_digests(line: &str) -> String {
    let is_digest = |word: &str| word.len() >= 16 && word.chars().all(|c| c.is_ascii_hexdigit());
    let words = line.split('-').map(|word| {
        let (head, last) = word
            .rsplit_once('/')
            .map_or(("", word), |(head, last)| (head, last));
        match (is_digest(last), head) {
            (true, "") => "ID".to_owned(),
            (true, head) => format!("{head}/ID"),
            (false, _) => word.to_owned(),
        }
    });
    words.collect::<Vec<_>>().join("-")
}

fn show(namespaces: &Namespaces, argv: &[&str]) -> Result<String> {
    printed(&argv.join(" "), namespaces.output(argv)?)
}

/// The names and texts of all files below a directory that may not be there; of what is no file the name alone. Files
/// that go meanwhile, and ones that are only being written, are none.
fn files(dir: &Path) -> Result<Vec<(String, String)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", dir.display())),
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_unfinished(&name) {
            continue;
        }
        let kind = entry.file_type().with_context(|| format!("looking at {name}"))?;
        if kind.is_dir() {
            let below = files(&entry.path())?.into_iter();
            found.extend(below.map(|(own, text)| (format!("{name}/{own}"), text)));
        } else if kind.is_file() {
            let bytes = match fs::read(entry.path()) {
                Ok(bytes) => bytes,
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error).with_context(|| format!("reading {name}")),
            };
            found.push((name, String::from_utf8_lossy(&bytes).into_owned()));
        } else {
            found.push((name, String::new()));
        }
    }
    found.sort();
    Ok(found)
}

/// Whether a file is one that gets its name when it is whole.
fn is_unfinished(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(".tmp")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_are_being_written_are_none() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("below")).unwrap();
        for name in ["below/b", "a.tmp", ".subnet.env.17.tmp", "below/.b.tmp"] {
            fs::write(dir.path().join(name), "text").unwrap();
        }
        let found = files(dir.path()).unwrap();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a.tmp", "below/b"]);
    }

    #[test]
    fn digests_differ_with_names() {
        let line =
            "/run/cni/flannel-portmap/e01587cc7a9120a95fd010f638eecc92-79476d7846258030c7dbfa09f8ae7f9b";
        assert_eq!(without_digests(line), "/run/cni/flannel-portmap/ID-ID");
        assert_eq!(without_digests("a-b/c"), "a-b/c");
    }
}
