//! Several writers, readers and lockers at once, and writers that are killed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use statefile::Durability::PowerCut;
use statefile::{Error, Lock, create_new, read_optional, replace};

/// Names the directory in which a copy of this program writes until it is killed.
const VICTIM_DIR: &str = "STATEFILE_TEST_VICTIM_DIR";

#[test]
fn readers_never_see_a_part_of_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let done = AtomicBool::new(false);
    replace(&path, &version(0), 0o644, PowerCut).unwrap();
    thread::scope(|scope| {
        let writers: Vec<_> = (1..=4)
            .map(|writer: u8| {
                let path = &path;
                scope.spawn(move || {
                    for round in 0..50 {
                        replace(path, &version(writer * 50 + round), 0o644, PowerCut).unwrap();
                    }
                })
            })
            .collect();
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    assert_whole(&path);
                }
            });
        }
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn of_many_creators_exactly_one_wins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    let won: Vec<bool> = thread::scope(|scope| {
        let create = |n: u8| create_new(&path, &version(n), 0o644, PowerCut);
        let creators: Vec<_> = (0..20).map(|n| scope.spawn(move || create(n))).collect();
        let results = creators.into_iter().map(|creator| creator.join().unwrap());
        results
            .map(|result| match result {
                Ok(()) => true,
                Err(Error::Exists(_)) => false,
                Err(err) => panic!("{err}"),
            })
            .collect()
    });
    assert_eq!(won.iter().filter(|won| **won).count(), 1);
    assert_whole(&path);
}

#[test]
fn fifty_lockers_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let (lock, counter) = (dir.path().join("lock"), dir.path().join("counter"));
    fs::write(&counter, "0").unwrap();
    thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| {
                let _held = Lock::acquire(&lock, 0o750, Duration::from_secs(30)).unwrap();
                let count: u32 = fs::read_to_string(&counter).unwrap().parse().unwrap();
                thread::yield_now();
                fs::write(&counter, (count + 1).to_string()).unwrap();
            });
        }
    });
    assert_eq!(fs::read_to_string(&counter).unwrap(), "50");
}

#[test]
fn waiting_for_a_lock_ends_with_the_time_out() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let held = Lock::acquire(&path, 0o750, Duration::ZERO).unwrap();
    let start = Instant::now();
    let err = Lock::acquire(&path, 0o750, Duration::from_millis(50)).unwrap_err();
    assert!(start.elapsed() >= Duration::from_millis(50));
    assert_eq!(
        err.to_string(),
        format!(
            "{} is still locked by another process after 50 ms",
            path.display()
        )
    );
    drop(held);
    drop(Lock::acquire(&path, 0o750, Duration::ZERO).unwrap());
}

#[test]
fn a_lock_on_a_file_that_was_replaced_does_not_count() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let old = Lock::acquire(&path, 0o750, Duration::ZERO).unwrap();
    fs::remove_file(&path).unwrap();
    let _new = Lock::acquire(&path, 0o750, Duration::ZERO).unwrap();
    drop(old);
    assert!(matches!(
        Lock::acquire(&path, 0o750, Duration::ZERO),
        Err(Error::LockTimeout { .. })
    ));
}

#[test]
fn a_writer_that_is_killed_leaves_a_whole_file_and_blocks_nobody() {
    if let Ok(dir) = std::env::var(VICTIM_DIR) {
        write_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state");
    for round in 0..10 {
        let mut victim = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "a_writer_that_is_killed_leaves_a_whole_file_and_blocks_nobody",
            ])
            .env(VICTIM_DIR, dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let start = Instant::now();
        while !path.exists() && start.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(700 * round));
        victim.kill().unwrap();
        victim.wait().unwrap();
        assert_whole(&path);
        replace(&path, &version(7), 0o644, PowerCut).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        fs::remove_file(&path).unwrap();
    }
}

fn write_until_killed(dir: &Path) -> ! {
    for n in (0..=u8::MAX).cycle() {
        replace(&dir.join("state"), &version(n), 0o644, PowerCut).unwrap();
    }
    unreachable!("a cycle does not end")
}

/// Contents whose every part tells the version.
fn version(n: u8) -> Vec<u8> {
    vec![n; 10_000 + usize::from(n)]
}

fn assert_whole(path: &Path) {
    let contents = read_optional(path).unwrap().unwrap();
    assert_eq!(contents, version(contents[0]));
}

#[test]
fn a_program_that_inherits_a_lock_keeps_it_until_it_ends() {
    let temp = tempfile::tempdir().unwrap();
    let path = temp.path().join("lock");
    let lock = Lock::acquire(&path, 0o600, Duration::from_secs(10)).unwrap();
    let inherited = lock.inheritable().unwrap();
    let mut program = Command::new("sleep").arg("600").spawn().unwrap();
    drop((lock, inherited));
    assert!(Lock::acquire(&path, 0o600, Duration::from_millis(50)).is_err());
    program.kill().unwrap();
    program.wait().unwrap();
    Lock::acquire(&path, 0o600, Duration::from_secs(10)).unwrap();
}
