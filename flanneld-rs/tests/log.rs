//! Whatever happens to the log's reader, the daemon goes on.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::fs::OpenOptions;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Longer than the daemon takes for its first log lines, and for its end.
const LIMIT: Duration = Duration::from_secs(10);

#[test]
fn the_log_is_one_json_object_a_line_when_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_flanneld"))
        .args(["--lease-dir=/nonexistent/leases", "--log-format=json"])
        .arg(format!("--subnet-file={}/subnet.env", dir.path().display()))
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(daemon.stderr.take().unwrap()).lines();
    let waits = lines
        .by_ref()
        .map(|line| serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap())
        .find(|line| line["level"] == "WARN")
        .unwrap();
    assert_eq!(
        waits["message"],
        "waiting for the network configuration; the data plane stays as it is"
    );
    assert!(waits["fields"]["reason"].is_string(), "{waits}");
    kill(
        Pid::from_raw(i32::try_from(daemon.id()).unwrap()),
        Signal::SIGTERM,
    )
    .unwrap();
    for line in lines {
        serde_json::from_str::<serde_json::Value>(&line.unwrap()).unwrap();
    }
    assert!(ended(&mut daemon), "it does not end");
}

#[test]
fn a_full_disk_behind_the_log_does_not_end_the_daemon() {
    let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
    assert_goes_on_and_ends_when_asked(full.into());
}

#[test]
fn a_reader_that_has_gone_does_not_end_the_daemon() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_goes_on_and_ends_when_asked(writer.into());
}

#[test]
fn a_reader_that_hangs_does_not_hold_the_daemon_up() {
    let (_reader, mut writer) = std::io::pipe().unwrap();
    fill(&mut writer);
    assert_goes_on_and_ends_when_asked(writer.into());
}

/// The daemon waits for a configuration that never comes, and logs that.
fn assert_goes_on_and_ends_when_asked(stderr: Stdio) {
    let dir = tempfile::tempdir().unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_flanneld"))
        .args(["--lease-dir=/nonexistent/leases", "-v=5"])
        .arg(format!("--subnet-file={}/subnet.env", dir.path().display()))
        .stdin(Stdio::null())
        .stderr(stderr)
        .spawn()
        .unwrap();
    // Signals end it from the moment that it has handlers; before, they kill it.
    std::thread::sleep(Duration::from_secs(1));
    let pid = Pid::from_raw(i32::try_from(daemon.id()).unwrap());
    kill(pid, Signal::SIGHUP).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert!(
        daemon.try_wait().unwrap().is_none(),
        "it has ended by itself, or because its terminal closed"
    );
    kill(pid, Signal::SIGTERM).unwrap();
    assert!(ended(&mut daemon), "it does not end");
}

fn ended(daemon: &mut Child) -> bool {
    let end = Instant::now() + LIMIT;
    while Instant::now() < end {
        if let Some(status) = daemon.try_wait().unwrap() {
            assert!(status.success(), "{status}");
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    daemon.kill().unwrap();
    false
}

/// Writes until the pipe takes no more.
fn fill(writer: &mut std::io::PipeWriter) {
    use std::io::Write;
    use std::os::fd::AsFd;

    let flags = nix::fcntl::OFlag::O_NONBLOCK;
    nix::fcntl::fcntl(writer.as_fd(), nix::fcntl::FcntlArg::F_SETFL(flags)).unwrap();
    while writer.write(&[b'x'; 4096]).is_ok() {}
    nix::fcntl::fcntl(
        writer.as_fd(),
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::empty()),
    )
    .unwrap();
}
