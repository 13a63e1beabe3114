use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::extension::Tally;
use crate::log::LogCounts;
use crate::reconciler::insight::{Counts, Histogram};
use crate::status::{
    BackendStatus, CommandsStatus, KernelStatus, LeaseStatus, NodeStatus, PeerCounts, StoreStatus,
};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

#[test]
fn every_sample_has_its_value_and_labels() {
    let page = render(&status());
    for line in [
        "flanneld_ready 1",
        "flanneld_commands_total{command=\"SubnetAddCommand\",result=\"error\"} 3",
        "flanneld_backend_info{backend=\"host-gw\"} 1",
        "flanneld_direct_peers{family=\"ipv4\"} 2",
        "flanneld_leases 4",
        "flanneld_peers{state=\"programmed\"} 2",
        "flanneld_peers{state=\"refused\"} 1",
        "flanneld_store_connected 0",
        "flanneld_store_errors_total 7",
        "flanneld_lease_expiry_timestamp_seconds 1700000000",
        "flanneld_lease_renewals_total{result=\"error\"} 2",
        "flanneld_reconcile_duration_seconds_bucket{part=\"network\",le=\"0.0025\"} 1",
        "flanneld_reconcile_duration_seconds_bucket{part=\"network\",le=\"+Inf\"} 2",
        "flanneld_reconcile_duration_seconds_sum{part=\"network\"} 3.5",
        "flanneld_reconcile_duration_seconds_count{part=\"network\"} 2",
        "flanneld_drift_repaired_total{part=\"network\",kind=\"route\"} 5",
        "flanneld_kernel_errors_total{part=\"network\",class=\"denied\"} 1",
        "flanneld_log_lines_dropped_total 8",
        "flanneld_log_lines_held_back_total 9",
    ] {
        assert!(
            page.lines().any(|found| found == line),
            "{line} is not in:\n{page}"
        );
    }
    let version = format!(
        "flanneld_build_info{{version=\"{}\"}} 1",
        env!("CARGO_PKG_VERSION")
    );
    assert!(page.contains(&version), "{page}");
}

/// Rules of the text format 0.0.4 and of Prometheus' naming: help and type before the samples, one block a metric,
/// counters end in `_total`, units are base units.
#[test]
fn the_page_follows_prometheus_rules() {
    let page = render(&status());
    let mut types = BTreeMap::new();
    let mut current = String::new();
    let mut seen = BTreeSet::new();
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, form) = rest.split_once(' ').unwrap();
            assert!(
                types.insert(name.to_owned(), form.to_owned()).is_none(),
                "{name} twice"
            );
            assert_eq!(form == "counter", name.ends_with("_total"), "{name} is a {form}");
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# HELP ") {
            assert!(rest.ends_with('.'), "{rest}");
        } else {
            let (sample, value) = line.rsplit_once(' ').unwrap();
            value.parse::<f64>().unwrap();
            assert!(sample.starts_with(&current), "{sample} in the block of {current}");
            assert!(seen.insert(sample.to_owned()), "{sample} twice");
        }
    }
    assert!(page.ends_with('\n'));
}

#[test]
fn the_document_lists_exactly_the_metrics_that_there_are() {
    let page = render(&status());
    let rendered: BTreeSet<_> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let documented: BTreeSet<_> = DOCUMENT
        .lines()
        .filter_map(|line| {
            let mut cells = line.strip_prefix("| `")?.split('|');
            let name = cells.next()?.trim().trim_end_matches('`');
            Some((name, cells.next()?.trim()))
        })
        .collect();
    assert_eq!(rendered, documented);
}

fn status() -> Status {
    let mut rounds = Histogram::default();
    rounds.add(std::time::Duration::from_micros(2_000));
    rounds.add(std::time::Duration::from_micros(3_498_000));
    let one = |name: &str, number| BTreeMap::from([(name.to_owned(), number)]);
    Status {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: 1,
        uptime_secs: 60,
        node: NodeStatus {
            ready: true,
            commands: Some(CommandsStatus {
                added: Tally { ok: 4, failed: 3 },
                removed: Tally { ok: 2, failed: 1 },
                waiting: 1,
                ..CommandsStatus::default()
            }),
            lease: Some(LeaseStatus {
                subnet: "10.244.1.0/24".to_owned(),
                public_ip: Some([192, 168, 77, 1].into()),
                expires: Some(1_700_000_000),
                renewals: 1,
                renewals_failed: 2,
                shared_with: None,
            }),
            store: StoreStatus {
                errors: 7,
                leases: 4,
                ..StoreStatus::default()
            },
            backend: Some(BackendStatus {
                name: "host-gw".to_owned(),
                link: "eth0".to_owned(),
                pod_mtu_bytes: 1500,
                direct_peers: [("ipv4".to_owned(), 2)].into(),
            }),
            peers: PeerCounts {
                programmed: 2,
                refused: 1,
                ..PeerCounts::default()
            },
            kernel: KernelStatus {
                counts: Counts {
                    rounds,
                    changes: one("link", 3),
                    repaired: one("route", 5),
                    refusals: one("denied", 1),
                },
                ..KernelStatus::default()
            },
            ..NodeStatus::default()
        },
        notices: Vec::new(),
        log: LogCounts {
            dropped: 8,
            held_back: 9,
        },
    }
}
