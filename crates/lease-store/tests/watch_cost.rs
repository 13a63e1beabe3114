//! What a watch costs when nothing happens, and that it ends.
#![allow(
    clippy::unwrap_used,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::fs;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use lease_store::{FileStore, LeaseEvent, LeaseStore, LeaseWatch};

#[tokio::test]
async fn an_idle_watch_of_5000_leases_takes_next_to_no_time_and_ends_when_dropped() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config"), r#"{"Network":"10.0.0.0/8"}"#).unwrap();
    fs::create_dir(dir.path().join("subnets")).unwrap();
    for n in 0..5_000_u32 {
        let name = format!("subnets/10.{}.{}.0-24", n >> 8, n & 255);
        fs::write(dir.path().join(name), r#"{"PublicIP":"192.168.77.1"}"#).unwrap();
    }
    let mut watch = FileStore::open(dir.path()).watch().unwrap();
    let LeaseEvent::Snapshot { leases, .. } = watch.next_event().await else {
        unreachable!("unsynced")
    };
    assert_eq!(leases.len(), 5_000);

    let thread = watch_thread().unwrap();
    thread::sleep(Duration::from_millis(500));
    let before = cpu_ticks(&thread);
    thread::sleep(Duration::from_secs(5));
    // A tick is 10 ms: two of them in five seconds are 0.4 % of a core.
    assert!(cpu_ticks(&thread) - before <= 2);

    drop(watch);
    let start = Instant::now();
    while watch_thread().is_some() {
        assert!(start.elapsed() < Duration::from_secs(10));
        thread::sleep(Duration::from_millis(5));
    }
}

/// The watch's own thread in `/proc`.
fn watch_thread() -> Option<PathBuf> {
    let mut tasks = fs::read_dir("/proc/self/task")
        .unwrap()
        .map(|entry| entry.unwrap().path());
    tasks.find(|task| fs::read_to_string(task.join("comm")).is_ok_and(|name| name == "lease-watch\n"))
}

/// Time in user and kernel mode (proc(5), `stat`, fields 14 and 15).
fn cpu_ticks(task: &std::path::Path) -> u64 {
    let stat = fs::read_to_string(task.join("stat")).unwrap();
    let fields = stat.split_whitespace().skip(13).take(2);
    fields.map(|field| field.parse::<u64>().unwrap()).sum()
}
