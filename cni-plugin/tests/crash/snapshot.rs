//! Everything of a node and a container that a call could leave or take, as text.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::common::{Node, Pod, printed};

/// What a network namespace holds. Timers run, and whom the bridge has heard of changes by itself.
const NAMESPACE: &str = "ip -d -o link | sed -E 's/[a-z]+_timer +[0-9.]+//g; s/ +/ /g'
    ip -o addr | sed -E 's/ +/ /g'
    ip route show table all; ip -6 route show table all
    tc qdisc; tc filter show
    nft -s list ruleset
    for file in /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv[46]/conf/*/forwarding; do echo $file; cat $file; done";

/// What is to be the same before and after: sorted lines of text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(Vec<String>);

impl Snapshot {
    /// Everything, which takes a dozen programs.
    pub(crate) fn take(node: &Node, foreign: &Pod) -> Self {
        let mut lines = files(node.dir.path());
        let own = printed(Command::new("sh").args(["-c", NAMESPACE]));
        lines.extend(own.lines().map(|line| format!("node: {line}")));
        lines.extend(
            foreign
                .sh(NAMESPACE)
                .lines()
                .map(|line| format!("foreign pod: {line}")),
        );
        lines.sort();
        Self(lines)
    }

    /// What can be read at every step, without starting a program: the node's files, links, addresses of IPv6 and
    /// routes.
    pub(crate) fn glance(node: &Node) -> Self {
        let mut lines = [files(node.dir.path()), content("/proc/thread-self/net")].concat();
        lines.sort();
        Self(lines)
    }

    /// A container's links, addresses of IPv6 and routes.
    pub(crate) fn of_pod(pod: &Pod) -> Self {
        let mut lines = content(&pod.netns.replace("/ns/net", "/net"));
        lines.sort();
        Self(lines)
    }

    /// Fails, showing what differs.
    pub(crate) fn assert_same(&self, before: &Self, case: &str) {
        let more: Vec<_> = self.0.iter().filter(|line| !before.0.contains(line)).collect();
        let less: Vec<_> = before.0.iter().filter(|line| !self.0.contains(line)).collect();
        assert!(self == before, "{case}: there is {more:#?} more, {less:#?} less");
    }
}

fn content(dir: &str) -> Vec<String> {
    let read = |name: &str, head: usize| {
        let text = fs::read_to_string(format!("{dir}/{name}")).unwrap();
        // The counters of an interface are of no interest.
        let lines = text.lines().skip(head).filter_map(|line| line.split(':').next());
        lines
            .map(|line| format!("{name}: {}", line.trim()))
            .collect::<Vec<_>>()
    };
    [read("dev", 2), read("if_inet6", 0), read("route", 1)].concat()
}

/// All files with their contents, but for where an address was last found, which is a hint.
fn files(dir: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !path.to_str().unwrap().contains("/last_reserved_ip.") {
            let content = fs::read(&path).unwrap();
            found.push(format!(
                "{}: {}",
                path.display(),
                String::from_utf8_lossy(&content)
            ));
        }
    }
    found
}

/// The names of all files but locks and hints.
pub(crate) fn files_but_locks(dir: &Path) -> Vec<String> {
    files(dir)
        .into_iter()
        .filter(|file| !file.contains("/lock: "))
        .collect()
}
