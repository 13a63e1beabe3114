//! Each kind of change of packet filter rules produces its notice, and a flood is never met with silence. Each test has
//! a network namespace of its own; nft and iptables make the changes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::io::Write as _;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use netlink_monitor::{RulesMonitor, RulesNotice};
use netstate::nft::{Family, TableKey};
use nix::sched::{CloneFlags, unshare};
use tokio::time::timeout;

/// How long a notice may take.
const LIMIT: Duration = Duration::from_secs(5);

/// Runs a test in a network namespace of its own.
fn in_netns(test: impl AsyncFnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(test());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Has nft(8) load a text.
fn nft(text: &str) {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
}

fn changed(family: Family, name: &str) -> RulesNotice {
    let name = name.to_owned();
    RulesNotice::NftChanged(TableKey { family, name })
}

/// Makes a change and waits for exactly the notice of it.
async fn expect(monitor: &mut RulesMonitor, change: &str, expected: &RulesNotice) {
    nft(change);
    let found = timeout(LIMIT, monitor.next()).await;
    assert_eq!(found.as_ref(), Ok(expected), "{change}");
    let more = timeout(Duration::from_millis(50), monitor.next()).await;
    assert!(
        more.is_err() || more.as_ref() == Ok(expected),
        "{change}: {more:?}"
    );
}

#[test]
fn changes_of_every_kind_of_object_name_the_table() {
    in_netns(async || {
        let mut monitor = RulesMonitor::open().unwrap();
        for family in [Family::Ip, Family::Ip6, Family::Inet, Family::Bridge] {
            let notice = changed(family, "t");
            for change in [
                "add table F t",
                "add chain F t c { type filter hook input priority 0; }",
                "add rule F t c drop",
                "insert rule F t c accept",
                "flush chain F t c",
                "add set F t s { type mark; }",
                "add element F t s { 1 }",
                "delete element F t s { 1 }",
                "delete set F t s",
                "delete chain F t c",
                "delete table F t",
            ] {
                let change = change.replace('F', &family.to_string());
                expect(&mut monitor, &change, &notice).await;
            }
        }
    });
}

#[test]
fn rules_that_iptables_keeps_in_nf_tables_are_noticed() {
    in_netns(async || {
        let mut monitor = RulesMonitor::open().unwrap();
        let status = Command::new("iptables-nft")
            .args(["-t", "nat", "-A", "POSTROUTING", "-j", "RETURN"])
            .status()
            .unwrap();
        assert!(status.success());
        let found = timeout(LIMIT, monitor.next()).await;
        assert_eq!(found, Ok(changed(Family::Ip, "nat")));
    });
}

#[test]
fn changes_of_other_families_tables_are_not_noticed() {
    in_netns(async || {
        let mut monitor = RulesMonitor::open().unwrap();
        nft("table arp a { chain c { accept; } ; }");
        expect(&mut monitor, "add table ip t", &changed(Family::Ip, "t")).await;
        assert_eq!(monitor.try_next(), None);
    });
}

#[test]
fn a_flood_that_is_read_late_is_reported_and_the_next_change_is_noticed() {
    in_netns(async || {
        let mut monitor = RulesMonitor::open().unwrap();
        nft("table ip other { chain c { } ; }");
        let rules = "add rule ip other c ip saddr 10.0.0.1 tcp dport 80 counter accept\n".repeat(20_000);
        // More than the receive queue holds, so that some are lost for certain.
        for _ in 0..3 {
            nft(&rules);
        }
        nft("delete table ip other");
        let mut seen = Vec::new();
        while let Ok(notice) = timeout(Duration::from_secs(1), monitor.next()).await {
            seen.push(notice);
        }
        assert!(!seen.is_empty());
        let of_the_flood =
            |notice: &RulesNotice| *notice == RulesNotice::Lost || *notice == changed(Family::Ip, "other");
        assert!(seen.iter().all(of_the_flood), "{seen:?}");
        assert!(seen.contains(&RulesNotice::Lost), "{seen:?}");
        expect(&mut monitor, "add table ip t", &changed(Family::Ip, "t")).await;
    });
}
