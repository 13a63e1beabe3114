//! A run in the lab is recorded, and replayed without it.

use std::fs;

use anyhow::Result;
use conformance::lab::faults::Fault;
use conformance::lab::{BIN_DIR, Node, TUNNEL, wait_until};

use crate::churn;
use crate::support::{LONG, bare, run_all, tunnel};

const RECORD: &str = "/run/record";
/// How many made-up peers come, change and go; if ten went at once, they would be kept for a while.
const MADE_UP: u64 = 8;

#[test]
fn a_run_among_peers_that_come_and_go_is_recorded_and_replays_the_same_changes() {
    let lab = bare(3);
    let [node, second, third] = [1, 2, 3].map(|number| lab.node(number).unwrap());
    let record = format!("--record={RECORD}");
    // Of rules nothing is recorded; at this level each change is logged.
    let flags = [record.as_str(), "-v=1", "--iptables-forward-rules=false"];
    let mut daemon = node.start_flanneld(&flags).unwrap();
    let peer = second.start_flanneld(&[]).unwrap();
    let mut leaving = third.start_flanneld(&[]).unwrap();
    let routes = || -> Result<usize> { Ok(node.ip(&["route", "show", "dev", TUNNEL])?.lines().count()) };
    let has_peers = |count| wait_until("the peers", LONG, || Ok(routes()? == count));
    has_peers(2).unwrap();

    let whole = tunnel(node);
    for fault in [Fault::RouteDeleted, Fault::FdbAltered, Fault::DeviceDeleted] {
        fault.inject(node, second).unwrap();
        wait_until(fault.name(), LONG, || Ok(tunnel(node) == whole)).unwrap();
    }
    let dir = lab.shared_file("leases/subnets");
    for round in 0..3 {
        (0..MADE_UP).for_each(|number| churn::put(&dir, number, round));
        let are_there = || {
            let entries = run_all(node, &["bridge fdb show dev flannel.1"]);
            Ok((0..MADE_UP).all(|number| entries.contains(&churn::mac(number, round))))
        };
        wait_until("the made-up peers", LONG, are_there).unwrap();
    }
    (0..MADE_UP).for_each(|number| fs::remove_file(churn::lease(&dir, number)).unwrap());
    wait_until("them to be gone", LONG, || Ok(tunnel(node) == whole)).unwrap();
    let (subnet, length) = third.subnet().unwrap();
    leaving.stop(LONG).unwrap();
    fs::remove_file(dir.join(format!("{subnet}-{length}"))).unwrap();
    has_peers(1).unwrap();

    // The thread that records may be a little behind.
    wait_until("the record to be whole", LONG, || {
        Ok(replayed(node) == changes_logged_by(node))
    })
    .ok();
    daemon.stop(LONG).unwrap();
    let told = changes_logged_by(node);
    assert_eq!(replayed(node), told);
    for part in [
        "add link flannel.1",
        "add route",
        "set neigh",
        "del fdb",
        "del route",
    ] {
        assert!(
            told.iter().any(|change| change.starts_with(part)),
            "{part}: {told:#?}"
        );
    }
    drop(peer);
}

/// The changes that the daemon said it makes, in their order.
fn changes_logged_by(node: &Node) -> Vec<String> {
    let log = node.log("flanneld").unwrap();
    let changes = log
        .lines()
        .filter_map(|line| line.split_once("changing the kernel op="));
    changes.map(|(_, op)| op.to_owned()).collect()
}

/// The changes that the record's replay asks for.
fn replayed(node: &Node) -> Vec<String> {
    let text = run_all(
        node,
        &[&format!("{BIN_DIR}/flanneld --replay={RECORD} --dry-run")],
    );
    let changes = text.lines().filter_map(|line| line.strip_prefix("  "));
    changes.map(str::to_owned).collect()
}
