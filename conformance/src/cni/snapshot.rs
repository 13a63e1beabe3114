//! What there is on a stage outside the containers: links, addresses, routes, rules, files.

use std::collections::BTreeSet;
use std::fs::{self, DirEntry};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::lab::{STAGE_VAR_LIB, command, text};

/// Where plugins write, and what of it is the runner's own.
const ROOTS: [&str; 4] = ["/run", "/tmp", "/var/lib/cni", STAGE_VAR_LIB];
const OWN: [&str; 3] = ["/run/stage", "/run/netns", "/run/layer"];

/// The state of the host at a moment, one line a thing. Contents of files and counters of rules are left out, because who
/// remembers the last address that was given leaks nothing; and so are locks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Snapshot(BTreeSet<String>);

impl Snapshot {
    /// Looks at the calling thread's namespaces.
    ///
    /// # Errors
    /// Fails when a program that shows the state does.
    pub(super) fn take() -> Result<Self> {
        let mut lines = BTreeSet::new();
        links(&mut lines)?;
        routes(&mut lines)?;
        rules(&mut lines)?;
        for root in ROOTS {
            files(Path::new(root), &mut lines)?;
        }
        Ok(Self(lines))
    }

    /// What is here and was not there before, and what was and is not any more; empty when both are alike.
    pub(super) fn since(&self, before: &Self) -> String {
        let new = self.0.difference(&before.0).map(|line| format!("+ {line}"));
        let gone = before.0.difference(&self.0).map(|line| format!("- {line}"));
        new.chain(gone).collect::<Vec<_>>().join("; ")
    }

    /// The files that are here and were not before.
    pub(super) fn new_files<'a>(&'a self, before: &'a Self) -> Vec<&'a str> {
        self.0
            .difference(&before.0)
            .filter_map(|line| line.strip_prefix("file "))
            .collect()
    }
}

fn links(lines: &mut BTreeSet<String>) -> Result<()> {
    for link in json(&["ip", "-j", "address"])? {
        let name = text(&link, "ifname");
        lines.insert(format!("link {name}"));
        let infos = link
            .get("addr_info")
            .and_then(Value::as_array)
            .into_iter()
            .flatten();
        // The kernel gives links addresses of their own when it likes.
        for info in infos.filter(|info| text(info, "scope") != "link") {
            lines.insert(format!("address {} on {name}", text(info, "local")));
        }
    }
    Ok(())
}

fn routes(lines: &mut BTreeSet<String>) -> Result<()> {
    for family in ["-4", "-6"] {
        // A kernel without IPv6 has no routes of it to be asked for.
        if family == "-6" && !Path::new("/proc/thread-self/net/if_inet6").exists() {
            continue;
        }
        let all = json(&["ip", "-j", family, "route", "show", "table", "all"])?;
        lines.extend(all.iter().filter(|route| !is_the_kernels(route)).map(route_line));
    }
    Ok(())
}

/// Whether a route follows from links and addresses by themselves: all of the table `local`, and link-local ones.
fn is_the_kernels(route: &Value) -> bool {
    text(route, "table") == "local" || text(route, "dst").starts_with("fe80:")
}

fn route_line(route: &Value) -> String {
    let table = match text(route, "table") {
        "" => String::new(),
        table => format!(" in table {table}"),
    };
    format!("route {} on {}{table}", text(route, "dst"), text(route, "dev"))
}

fn rules(lines: &mut BTreeSet<String>) -> Result<()> {
    let (mut table, mut part) = (String::new(), String::new());
    let ruleset = printed(&["nft", "-s", "list", "ruleset"])?;
    for line in ruleset.lines().map(str::trim).filter(|line| line.len() > 1) {
        let head = line.trim_end_matches(" {");
        if line.starts_with("table ") {
            (table, part) = (head.to_owned(), String::new());
            lines.insert(format!("rules: {table}"));
        } else if ["chain ", "set ", "map "]
            .iter()
            .any(|kind| line.starts_with(kind))
        {
            head.clone_into(&mut part);
            lines.insert(format!("rules: {table}, {part}"));
        } else {
            lines.insert(format!("rule of {table}, {part}: {line}"));
        }
    }
    // The file is there, and not empty, only where the older variant of iptables is in use. `/proc/net` is the process's
    // namespace, which is not this thread's.
    if fs::read_to_string("/proc/thread-self/net/ip_tables_names").is_ok_and(|names| !names.is_empty()) {
        let saved = printed(&["iptables-legacy-save"])?;
        let saved = saved.lines().filter(|line| !line.starts_with(['#', ':']));
        lines.extend(saved.map(|line| format!("rule of iptables {line}")));
    }
    Ok(())
}

fn files(dir: &Path, lines: &mut BTreeSet<String>) -> Result<()> {
    if OWN.iter().any(|own| dir.starts_with(own)) && !dir.starts_with(STAGE_VAR_LIB) {
        return Ok(());
    }
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error).with_context(|| format!("reading {}", dir.display())),
    };
    for entry in entries.flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&path, lines)?;
        } else if !is_lock(&entry) {
            lines.insert(format!("file {}", path.display()));
        }
    }
    Ok(())
}

/// A lock has to stay where it is: whoever removed it would lock another file than the next.
fn is_lock(entry: &DirEntry) -> bool {
    let is_empty = entry.metadata().is_ok_and(|metadata| metadata.len() == 0);
    is_empty && entry.file_name().to_string_lossy().contains("lock")
}

/// What a program prints that may be missing on the machine.
///
/// # Errors
/// Fails when the program does.
pub(super) fn printed(argv: &[&str]) -> Result<String> {
    let mut program = command(argv)?;
    let output = match program.stdin(Stdio::null()).output() {
        Ok(output) => output,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(String::new()),
        Err(error) => return Err(error).with_context(|| format!("starting `{}`", argv.join(" "))),
    };
    if !output.status.success() {
        bail!(
            "`{}` failed: {}",
            argv.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The objects that a program of iproute2 prints.
///
/// # Errors
/// Fails when the program does, or prints no list.
pub(super) fn json(argv: &[&str]) -> Result<Vec<Value>> {
    let text = printed(argv)?;
    serde_json::from_str(&text).with_context(|| format!("reading what `{}` printed", argv.join(" ")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn routes_are_told_by_table_but_those_that_the_kernel_makes_by_itself() {
        let own = [
            json!({"type": "local", "dst": "10.0.0.1", "dev": "lo", "table": "local"}),
            json!({"type": "multicast", "dst": "ff00::/8", "dev": "cni0", "table": "local"}),
            json!({"dst": "fe80::/64", "dev": "cni0", "protocol": "kernel"}),
        ];
        assert!(own.iter().all(is_the_kernels));
        let made = [
            json!({"dst": "fd00:88::/64", "dev": "cni0", "protocol": "kernel"}),
            json!({"dst": "default", "dev": "cni0", "table": "100"}),
        ];
        assert!(!made.iter().any(is_the_kernels));
        assert_eq!(
            made.each_ref().map(route_line),
            ["route fd00:88::/64 on cni0", "route default on cni0 in table 100"]
        );
    }
}
