//! Runs the judge of networks, and reads its report.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use conformance::lab::{Flanneld, Node};
use serde_json::Value;

pub(crate) use crate::report::{Run, program, told};
use crate::report::{ended_so, run_suite};

/// Stands in for what looks after a daemon, as a kubelet does: it runs the daemon, and ends it when it is told to; then it
/// runs it anew, at once, or when it is told to where it was told to stop it. Who stops it waits until it has ended.
const KEEPER: &str = r#"mkfifo /run/keeper.told
told() {
    # Who opens it beside somebody else's word reads nothing.
    until read -r word </run/keeper.told; do :; done
}
while :; do
    "$@" &
    touch /run/keeper.runs
    told
    kill $!
    wait $!
    rm /run/keeper.runs
    while [ "$word" = stop ]; do told; done
done
"#;
/// Where there is a file while a kept daemon runs.
pub(crate) const RUNS: &str = "/run/keeper.runs";
/// How a run has a daemon restarted that is kept.
pub(crate) const RESTART_KEPT: &str = "--restart=sh /run/restart";

/// Starts a node's daemon under somebody who looks after it; both end with the lab.
pub(crate) fn start_kept(node: &Node) -> Flanneld {
    fs::write(node.file("/run/keeper"), KEEPER).unwrap();
    let ended = format!("; for look in $(seq 600); do [ -e {RUNS} ] || exit 0; sleep 0.05; done; exit 1");
    for (word, then) in [("restart", ""), ("stop", &*ended), ("start", "")] {
        let text = format!("echo {word} >/run/keeper.told{then}");
        fs::write(node.file("/run").join(word), text).unwrap();
    }
    node.start_flanneld_under(&["sh", "/run/keeper"], &["--ip-masq"])
        .unwrap()
}

pub(crate) fn judge(program: Command, arguments: &[&str]) -> Run {
    run_suite("nodes", program, arguments)
}

/// The cases that ended so, as id, family and name.
pub(crate) fn outcomes(report: &Value, outcome: &str) -> BTreeSet<String> {
    ended_so(report, outcome, &["id", "family", "case"])
}

/// The ports of a node's bridge, which lead to pods.
pub(crate) fn pod_links(node: &Node) -> Vec<String> {
    let links = node.ip(&["-o", "link", "show", "type", "veth"]).unwrap();
    let ports = links.lines().filter(|link| link.contains("master cni0"));
    ports.map(str::to_owned).collect()
}

/// What a run may have left on a node, in words.
pub(crate) fn left_on(node: &Node) -> Vec<String> {
    let mut left = pod_links(node);
    for dir in ["/tmp", "/var/lib/cni/networks/cbr0"] {
        let entries = fs::read_dir(node.file(dir)).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let own = ["lock", "last_reserved_ip.0", "last_reserved_ip.1"];
        left.extend(names.filter(|name| !own.contains(&name.as_str())));
    }
    left
}
