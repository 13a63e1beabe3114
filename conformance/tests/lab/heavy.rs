//! What takes long: left out by `scripts/test --quick`.

use std::time::{Duration, Instant};

use conformance::lab::Store;

use crate::churn;
use crate::demo::{demo, text};
use crate::etcd;

#[test]
fn twenty_nodes_with_ten_pods_each_all_ping() {
    let dir = tempfile::tempdir().unwrap();
    let start = Instant::now();
    let output = demo(dir.path(), &["--nodes=20", "--pods=10"]).output().unwrap();
    let text = text(&output);
    println!("{:.1} s", start.elapsed().as_secs_f64());
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("44000 pings, 0 failed\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
}

#[test]
fn five_hundred_lease_changes_a_second_for_thirty_seconds_are_followed() {
    churn::storm(Store::Directory, Duration::from_secs(30));
}

/// A frozen server closes no connection, so that only its silence tells.
#[test]
fn etcd_frozen_for_a_minute_and_then_killed_costs_no_packet_and_is_back_within_seconds() {
    etcd::outage(|lab| {
        lab.freeze_etcd().unwrap();
        std::thread::sleep(Duration::from_secs(60));
        lab.kill_etcd().unwrap();
    });
}
