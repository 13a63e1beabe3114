use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use conformance::lab::{Binaries, copy_program, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::LONG;

/// The demonstration with some arguments; a kept lab is noted in this test's own directory.
pub(crate) fn demo(dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    command.arg("demo").arg("--record").arg(dir.join("record"));
    command
        .arg("--bin-dir")
        .arg(Binaries::find().unwrap().dir())
        .args(arguments);
    command
}

pub(crate) fn text(output: &Output) -> String {
    format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

#[test]
fn the_demonstration_shows_every_ping_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let output = demo(dir.path(), &[]).output().unwrap();
    let text = text(&output);
    println!("{text}");
    assert!(output.status.success(), "{text}");
    assert!(text.ends_with("54 pings, 0 failed\n"), "{text}");
    assert_eq!(text.matches(": holds").count(), 3, "{text}");
    for looked_at in [
        "6 (TCP connections, one from each pod)",
        "9 (TCP connections, from each node",
        "6 (pods)",
    ] {
        assert!(text.contains(&format!("looked at: {looked_at}")), "{text}");
    }
    assert!(!text.contains('\x1b'), "colours without a terminal");
    assert!(text.lines().all(|line| line.chars().count() <= 100), "{text}");
    wait_until("the daemons to be gone", LONG, || {
        Ok(daemons_in(&text).iter().all(|pid| is_gone(*pid)))
    })
    .unwrap();
}

#[test]
fn what_one_node_cannot_show_is_not_said_to_hold() {
    let dir = tempfile::tempdir().unwrap();
    for (pods, holds, told) in [
        ("--pods=1", 2, "every node without NAT: not looked at"),
        (
            "--pods=2",
            3,
            "looked at: 2 (TCP connections, one from each pod, all within the only node)",
        ),
    ] {
        let output = demo(dir.path(), &["--nodes=1", pods]).output().unwrap();
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        assert_eq!(text.matches(": holds").count(), holds, "{text}");
        assert!(text.contains(told) && !text.contains("looked at: 0"), "{text}");
    }
}

#[test]
fn the_demonstration_runs_on_etcd_too() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = ["--store", "etcd", "--nodes=2", "--pods=1"];
    let output = demo(dir.path(), &arguments).output().unwrap();
    let text = text(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("2 nodes on an underlay with etcd"), "{text}");
    assert!(text.ends_with("8 pings, 0 failed\n"), "{text}");
}

#[test]
fn an_unanswered_ping_is_named_and_makes_the_exit_status_non_zero() {
    let dir = tempfile::tempdir().unwrap();
    let bin_dir = dir.path().join("bin");
    fs::create_dir(&bin_dir).unwrap();
    let real = Binaries::find().unwrap();
    copy_program(&real.dir().join("flanneld"), &bin_dir.join("flanneld")).unwrap();
    copy_program(&real.dir().join("flannel"), &bin_dir.join("flannel-real")).unwrap();
    // A plugin that attaches the pod, and then cuts it off from the other nodes.
    let script = r#"#!/bin/bash
result=$(exec -a flannel /opt/cni/bin/flannel-real) || { echo "$result"; exit 1; }
[ "$CNI_COMMAND" != ADD ] || nsenter --net="$CNI_NETNS" ip route replace blackhole 10.244.0.0/16
echo "$result"
"#;
    fs::write(bin_dir.join("flannel"), script).unwrap();
    fs::set_permissions(bin_dir.join("flannel"), fs::Permissions::from_mode(0o755)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_conformance"));
    command
        .args(["demo", "--nodes=2", "--pods=1"])
        .arg("--bin-dir")
        .arg(&bin_dir)
        .arg("--record")
        .arg(dir.path().join("r"));
    let output = command.output().unwrap();
    let text = text(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("no answer: n1-p1 → n2-p1\n") && text.contains("DOES NOT HOLD"),
        "{text}"
    );
    assert!(text.ends_with("8 pings, 4 failed\n"), "{text}");
}

#[test]
fn a_demonstration_that_is_killed_or_interrupted_leaves_nothing() {
    for signal in [Signal::SIGKILL, Signal::SIGINT, Signal::SIGTERM] {
        let dir = tempfile::tempdir().unwrap();
        let mut child = demo(dir.path(), &["--nodes=2", "--pods=1"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let seen = lines.map(Result::unwrap).find(|line| line.starts_with("[3/4]"));
        assert!(seen.is_some(), "no pods were added");
        let lab = children_of(&child);
        assert!(lab.len() >= 3, "the lab has only the processes {lab:?}");
        kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
        child.wait().unwrap();
        wait_until("the lab to end", LONG, || Ok(lab.iter().all(|pid| is_gone(*pid)))).unwrap();
    }
}

#[test]
fn a_kept_lab_can_be_entered_is_replaced_by_the_next_and_removed() {
    let dir = tempfile::tempdir().unwrap();
    let keep = |arguments: &[&str]| {
        let output = demo(dir.path(), arguments)
            .args(["--nodes=2", "--pods=1"])
            .output()
            .unwrap();
        let text = text(&output);
        assert!(output.status.success(), "{text}");
        text
    };
    let first = keep(&["--keep"]);
    let first_daemons = daemons_in(&first);
    assert!(
        first_daemons.iter().all(|pid| !is_gone(*pid)),
        "a daemon of the kept lab is gone"
    );
    let after = |start: &str| {
        let mut lines = first.lines();
        lines
            .find_map(|line| line.trim().strip_prefix(start))
            .unwrap()
            .trim()
    };
    let way_in = after("enter n1-p1:");
    let way_in = way_in.replace(" bash", " ip -4 -brief address show dev eth0");
    let inside = Command::new("sh").args(["-c", &way_in]).output().unwrap();
    assert!(text(&inside).contains("10.244."), "`{way_in}`: {}", text(&inside));

    let there = "the programs under test are in /run/lab/bin on each node, such as:";
    let status = format!("{} {}", after("enter node1:"), after(there));
    let told = Command::new("sh").args(["-c", &status]).output().unwrap();
    // The proof of no NAT is one only where somebody masquerades.
    assert!(
        text(&told).contains("masquerade yes"),
        "`{status}`: {}",
        text(&told)
    );

    let second = keep(&["--keep"]);
    assert!(
        second.starts_with("Removed the lab that an earlier run had kept.\n"),
        "{second}"
    );
    wait_until("the first lab to end", LONG, || {
        Ok(first_daemons.iter().all(|pid| is_gone(*pid)))
    })
    .unwrap();

    let down = keep(&["--down"]);
    assert_eq!(down, "The kept lab is gone.\n");
    wait_until("the second lab to end", LONG, || {
        Ok(daemons_in(&second).iter().all(|pid| is_gone(*pid)))
    })
    .unwrap();
    assert_eq!(keep(&["--down"]), "There is no kept lab.\n");
}

#[test]
fn a_wrong_command_line_is_refused_with_status_2() {
    let dir = tempfile::tempdir().unwrap();
    for wrong in [&["--nodes=0"][..], &["--pods=many"], &["--frobnicate"]] {
        let output = demo(dir.path(), wrong).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {}", text(&output));
    }
}

/// The process ids of the daemons, as the table of nodes shows them.
fn daemons_in(text: &str) -> Vec<u32> {
    let pids = text
        .split("pid ")
        .skip(1)
        .filter_map(|rest| rest.split(',').next()?.parse().ok());
    let pids: Vec<_> = pids.collect();
    assert!(!pids.is_empty(), "no process ids in {text}");
    pids
}

/// The children of all threads of a process.
fn children_of(child: &Child) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
    let lists =
        tasks.map(|task| fs::read_to_string(task.unwrap().path().join("children")).unwrap_or_default());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a process has ended; one that only waits to be reaped has.
fn is_gone(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).map_or(true, |stat| {
        stat.rsplit_once(") ")
            .is_none_or(|(_, fields)| fields.starts_with('Z'))
    })
}
