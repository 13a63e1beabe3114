use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flannel_types::Lease;
use net_types::SubnetKey;
use statefile::Durability;
use tempfile::TempDir;

use super::*;

const CONFIG: &str = r#"{"Network":"10.5.0.0/16"}"#;
const GOOD: &str = r#"{"PublicIP":"192.168.77.2"}"#;
const CUT: &str = r#"{"PublicIP":"192.1"#;

struct Bench {
    dir: TempDir,
    watcher: Watcher,
    now: Arc<AtomicU64>,
}

#[test]
fn nothing_is_read_while_nothing_changes() {
    let mut bench = Bench::new();
    bench.put("10.5.1.0-24", GOOD);
    assert_eq!(bench.keys(), ["10.5.1.0-24"]);
    bench.watcher.scanner = Scanner::default();
    for _ in 1..FULL_LOOK_EVERY {
        assert_eq!(bench.watcher.look(Depth::AsNeeded), None);
    }
    assert_eq!(
        format!("{:?}", bench.watcher.scanner),
        format!("{:?}", Scanner::default())
    );
    assert_eq!(bench.watcher.look(Depth::AsNeeded), None);
    assert_ne!(
        format!("{:?}", bench.watcher.scanner),
        format!("{:?}", Scanner::default())
    );
}

#[test]
fn a_file_put_in_place_is_seen_without_a_notice() {
    let mut bench = Bench::new();
    assert_eq!(bench.keys(), [""; 0]);
    bench.put("10.5.1.0-24", GOOD);
    assert_eq!(bench.keys(), ["10.5.1.0-24"]);
    fs::remove_file(bench.path("subnets/10.5.1.0-24")).unwrap();
    assert_eq!(bench.keys(), [""; 0]);
}

#[test]
fn a_lease_that_moves_to_a_new_name_is_never_missed() {
    const MOVES: usize = 1_000;
    let names = ["10.5.1.0-24", "10.5.1.0-24&fd00:10:5:46::-64"];
    let mut bench = Bench::new();
    bench.put(names[0], GOOD);
    assert_eq!(bench.keys(), names[..1]);
    let paths = names.map(|name| bench.path(&format!("subnets/{name}")));
    let mover = thread::spawn(move || {
        for number in 0..MOVES {
            let (from, to) = (&paths[number % 2], &paths[(number + 1) % 2]);
            fs::copy(from, to.with_file_name(".new")).unwrap();
            fs::rename(to.with_file_name(".new"), to).unwrap();
            fs::remove_file(from).unwrap();
        }
    });
    while !mover.is_finished() {
        match bench.watcher.look(Depth::Full) {
            Some(LeaseEvent::Snapshot { leases, .. }) => assert!(!leases.is_empty()),
            Some(other) => panic!("{other:?}"),
            None => {}
        }
    }
    mover.join().unwrap();
}

#[test]
fn a_file_written_in_place_is_seen_after_a_notice_or_in_a_full_look() {
    let mut bench = Bench::new();
    bench.put("10.5.1.0-24", GOOD);
    bench.keys();
    let other = GOOD.replace("77.2", "77.9");
    fs::write(bench.path("subnets/10.5.1.0-24"), other).unwrap();
    assert_eq!(bench.watcher.look(Depth::AsNeeded), None);
    bench.watcher.changed = true;
    let leases = bench.snapshot();
    assert_eq!(
        leases.values().next().unwrap().attrs.addrs().to_string(),
        "192.168.77.9"
    );
    fs::write(bench.path("subnets/10.5.1.0-24"), GOOD).unwrap();
    assert!(bench.watcher.look(Depth::Full).is_some());
}

#[test]
fn a_file_that_turns_bad_counts_with_its_last_good_value() {
    let mut bench = Bench::new();
    bench.put("10.5.1.0-24", GOOD);
    let before = bench.snapshot();
    bench.put("10.5.1.0-24", CUT);
    assert_eq!(bench.watcher.look(Depth::Full), None);
    let warning = bench.only_warning();
    assert!(
        warning.contains("subnets/10.5.1.0-24 is malformed: the lease is not a JSON object"),
        "{warning}"
    );
    assert!(
        warning.ends_with("restore it, or remove it to free its subnet; its last good value counts"),
        "{warning}"
    );
    bench.put("10.5.2.0-24", GOOD);
    let after = bench.snapshot();
    assert_eq!(after.len(), 2);
    assert!(before.iter().all(|(key, lease)| after.get(key) == Some(lease)));
    bench.put("10.5.1.0-24", GOOD);
    bench.watcher.look(Depth::Full);
    assert!(bench.watcher.warnings.is_empty());
}

#[test]
fn a_file_that_was_never_good_is_ignored_with_a_warning() {
    let mut bench = Bench::new();
    bench.put("10.5.1.0-24", "");
    bench.put("10.5.2.0-24", GOOD);
    assert_eq!(bench.keys(), ["10.5.2.0-24"]);
    assert!(bench.only_warning().ends_with("; it is ignored"));
    bench.put("10.5.1.0-24", GOOD);
    assert_eq!(bench.keys(), ["10.5.1.0-24", "10.5.2.0-24"]);
}

#[test]
fn a_file_that_cannot_be_read_at_the_moment_says_nothing_of_its_lease() {
    let mut bench = Bench::new();
    let path = bench.path("subnets/10.5.1.0-24");
    // To read its first byte is an input error.
    let make_unreadable = || std::os::unix::fs::symlink("/proc/self/mem", &path).unwrap();
    make_unreadable();
    let Some(LeaseEvent::Unsynced { reason }) = bench.watcher.look(Depth::Full) else {
        panic!("a snapshot")
    };
    assert!(reason.contains("subnets/10.5.1.0-24"), "{reason}");
    fs::remove_file(&path).unwrap();
    bench.put("10.5.1.0-24", GOOD);
    assert_eq!(bench.keys(), ["10.5.1.0-24"]);

    fs::remove_file(&path).unwrap();
    make_unreadable();
    assert_eq!(bench.watcher.look(Depth::Full), None);
    assert!(bench.watcher.warnings.is_empty());
}

#[test]
fn other_names_are_warned_of_and_hidden_ones_are_not() {
    let mut bench = Bench::new();
    for name in [
        "notes",
        "10.5.1.9-24",
        "10.5.01.0-24",
        ".10.5.1.0-24.tmp",
        ".hidden",
    ] {
        bench.put(name, CUT);
    }
    assert_eq!(bench.keys(), [""; 0]);
    assert_eq!(bench.watcher.warnings.len(), 3);
    assert!(
        bench
            .watcher
            .warnings
            .iter()
            .all(|text| text.contains("is ignored: its name is not of the form"))
    );
}

#[test]
fn what_is_no_file_is_malformed() {
    let mut bench = Bench::new();
    bench.keys();
    fs::create_dir(bench.path("subnets/10.5.1.0-24")).unwrap();
    assert_eq!(bench.watcher.look(Depth::Full), None);
    assert!(bench.only_warning().contains("is not a regular file"));
}

#[test]
fn a_symbolic_link_counts_as_what_it_points_to() {
    let mut bench = Bench::new();
    fs::write(bench.path("target"), GOOD).unwrap();
    std::os::unix::fs::symlink(bench.path("target"), bench.path("subnets/10.5.1.0-24")).unwrap();
    assert_eq!(bench.keys(), ["10.5.1.0-24"]);
    fs::write(bench.path("target"), GOOD.replace("77.2", "77.9")).unwrap();
    assert!(matches!(
        bench.watcher.look(Depth::Full),
        Some(LeaseEvent::Snapshot { .. })
    ));
    fs::remove_file(bench.path("target")).unwrap();
    assert_eq!(bench.keys(), [""; 0]);
}

#[test]
fn leases_end_when_their_time_comes() {
    let mut bench = Bench::new();
    bench.put(
        "10.5.1.0-24",
        r#"{"PublicIP":"192.168.77.2","Expiration":"1970-01-01T00:00:10Z"}"#,
    );
    bench.put("10.5.2.0-24", GOOD);
    assert_eq!(bench.keys(), ["10.5.1.0-24", "10.5.2.0-24"]);
    bench.now.store(9, Ordering::Relaxed);
    assert_eq!(bench.watcher.look(Depth::AsNeeded), None);
    bench.now.store(10, Ordering::Relaxed);
    assert_eq!(bench.keys(), ["10.5.2.0-24"]);
    assert_eq!(bench.watcher.look(Depth::AsNeeded), None);
}

#[test]
fn a_configuration_that_turns_bad_counts_as_it_was() {
    let mut bench = Bench::new();
    bench.keys();
    fs::write(bench.path("config"), r#"{"Network":"10.5.0.0/30"}"#).unwrap();
    assert_eq!(bench.watcher.look(Depth::Full), None);
    let warning = bench.only_warning();
    assert!(
        warning.contains("network is too small. Minimum useful network prefix is /28"),
        "{warning}"
    );
    fs::write(bench.path("config"), r#"{"Network":"10.6.0.0/16"}"#).unwrap();
    let Some(LeaseEvent::Snapshot { config, .. }) = bench.watcher.look(Depth::Full) else {
        panic!("no snapshot")
    };
    assert_eq!(config.network.unwrap().to_string(), "10.6.0.0/16");
}

#[test]
fn a_part_of_the_directory_that_vanishes_is_told_once_and_removes_nothing() {
    for part in ["config", "subnets", ""] {
        let mut bench = Bench::new();
        bench.put("10.5.1.0-24", GOOD);
        bench.keys();
        let away = bench.dir.path().with_extension("away");
        fs::rename(bench.path(part), &away).unwrap();
        assert!(
            matches!(
                bench.watcher.look(Depth::AsNeeded),
                Some(LeaseEvent::Unsynced { .. })
            ),
            "{part}"
        );
        assert_eq!(bench.watcher.look(Depth::AsNeeded), None);
        fs::rename(&away, bench.path(part)).unwrap();
        assert_eq!(bench.keys(), ["10.5.1.0-24"], "{part}");
    }
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("config"), CONFIG).unwrap();
        fs::create_dir(dir.path().join("subnets")).unwrap();
        let now = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&now);
        let clock = Clock::new(move || UnixTime::from_secs(clock.load(Ordering::Relaxed)));
        Self {
            watcher: Watcher::new(dir.path().to_owned(), clock),
            dir,
            now,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() {
            self.dir.path().to_owned()
        } else {
            self.dir.path().join(name)
        }
    }

    fn put(&self, name: &str, text: &str) {
        statefile::replace(
            &self.path("subnets").join(name),
            text.as_bytes(),
            0o644,
            Durability::Crash,
        )
        .unwrap();
    }

    fn snapshot(&mut self) -> BTreeMap<SubnetKey, Lease> {
        match self.watcher.look(Depth::AsNeeded) {
            Some(LeaseEvent::Snapshot { leases, .. }) => leases,
            other => panic!("no snapshot but {other:?}"),
        }
    }

    fn keys(&mut self) -> Vec<String> {
        self.snapshot().keys().map(ToString::to_string).collect()
    }

    fn only_warning(&self) -> String {
        assert_eq!(self.watcher.warnings.len(), 1, "{:?}", self.watcher.warnings);
        self.watcher.warnings.first().unwrap().clone()
    }
}
