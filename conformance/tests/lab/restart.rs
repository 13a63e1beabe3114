use std::fs;
use std::time::Duration;

use conformance::lab::{Flanneld, Node, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::support::{LONG, assert_same, bare, dump, pinging_during, running, tunnel};

/// How soon a daemon that was asked to end has to be gone: the aim is one second, the test waits for two.
const END_LIMIT: Duration = Duration::from_secs(2);
/// How long a restarted daemon is watched for writes.
const WATCHED: Duration = Duration::from_secs(3);
/// Where the tracer writes, on the node.
const TRACE: &str = "/run/strace.out";

#[test]
fn a_daemon_that_is_asked_to_end_does_so_at_once_and_leaves_the_data_plane() {
    let mut bed = running(3, 1);
    let before = dump(bed.node(1));
    let (took, status) = bed.daemons[0].stop(END_LIMIT).unwrap();
    println!("ended after {} ms", took.as_millis());
    assert!(status.success(), "{status}");
    assert_same("the node after the end", &before, &dump(bed.node(1)));
    bed.assert_all_ping();
}

#[test]
fn an_interrupt_from_the_keyboard_ends_the_daemon_as_well() {
    let lab = bare(1);
    let mut daemon = lab.nodes()[0].start_flanneld(&[]).unwrap();
    daemon.signal(Signal::SIGINT).unwrap();
    let (_, status) = daemon.wait(END_LIMIT).unwrap();
    assert!(status.success(), "{status}");
}

#[test]
fn a_daemon_ends_at_once_although_somebody_holds_the_lease_directory_s_lock() {
    let lab = bare(1);
    let node = &lab.nodes()[0];
    let lock = node.lease_file("../lock");
    let holder = fs::File::create(&lock).unwrap();
    holder.lock().unwrap();
    let mut daemon = node.spawn_flanneld(&[], &[]).unwrap();
    let waits = || Ok(node.log("flanneld")?.contains("external interface"));
    wait_until("the daemon gets as far as its lease", LONG, waits).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    daemon.signal(Signal::SIGTERM).unwrap();
    let (took, status) = daemon.wait(END_LIMIT).unwrap();
    println!("ended after {} ms", took.as_millis());
    assert!(status.success(), "{status}");
}

#[test]
fn a_restart_loses_no_ping_and_keeps_everything_as_it_was() {
    let mut bed = running(3, 1);
    let before = dump(bed.node(1));
    let (mac, subnet) = (bed.node(1).vtep_mac().unwrap(), bed.node(1).subnet().unwrap());
    let targets = bed.pods_beyond(1);
    let mut daemon = bed.daemons.remove(0);
    let (restarted, sent, lost) = pinging_during(bed.pod_on(1).namespaces(), &targets, || {
        daemon.stop(END_LIMIT).unwrap();
        let restarted = bed.node(1).start_flanneld(&[]).unwrap();
        std::thread::sleep(Duration::from_secs(1));
        restarted
    });
    println!(
        "{sent} pings through the restart, {lost} lost; ready in {:?}",
        restarted.ready_after()
    );
    assert!(sent > 50);
    assert_eq!(lost, 0);
    assert_eq!(
        (bed.node(1).vtep_mac().unwrap(), bed.node(1).subnet().unwrap()),
        (mac, subnet)
    );
    assert_same("the node after the restart", &before, &dump(bed.node(1)));
}

#[test]
fn a_daemon_that_is_killed_is_followed_by_one_that_changes_nothing() {
    let mut bed = running(2, 1);
    let before = dump(bed.node(1));
    bed.daemons[0].signal(Signal::SIGKILL).unwrap();
    bed.daemons[0].wait(END_LIMIT).unwrap();
    bed.daemons[0] = bed.node(1).start_flanneld(&[]).unwrap();
    assert_same("the node after the restart", &before, &dump(bed.node(1)));
    bed.assert_all_ping();
}

#[test]
fn a_restart_writes_nothing_to_the_kernel() {
    let lab = bare(2);
    let (node, peer) = (&lab.nodes()[0], &lab.nodes()[1]);
    let _peer_daemon = peer.start_flanneld(&[]).unwrap();

    // The first start has everything to write: it proves that the tracer sees writes.
    let mut first = traced(node);
    wait_until("the peer's route", LONG, || {
        Ok(tunnel(node).count("neighbour") == 1)
    })
    .unwrap();
    end_traced(&mut first);
    let writes = kernel_writes(node);
    assert!(
        writes.iter().any(|line| line.contains("RTM_NEWLINK")),
        "the tracer saw no netlink writes: {writes:?}"
    );
    assert!(
        writes.iter().any(|line| line.contains("RTM_NEWROUTE")),
        "the tracer saw no netlink writes: {writes:?}"
    );

    let before = dump(node);
    let mut second = traced(node);
    std::thread::sleep(WATCHED);
    end_traced(&mut second);
    assert_eq!(kernel_writes(node), Vec::<String>::new());
    assert_same("the node after the restart", &before, &dump(node));
}

fn traced(node: &Node) -> Flanneld {
    let calls = "trace=sendto,sendmsg,sendmmsg,write,writev,openat";
    node.start_flanneld_under(
        &["strace", "-f", "-v", "-s", "65535", "-o", TRACE, "-e", calls],
        &[],
    )
    .unwrap()
}

/// Ends the traced program, and with it the tracer.
fn end_traced(tracer: &mut Flanneld) {
    let children = format!("/proc/{0}/task/{0}/children", tracer.pid());
    for child in fs::read_to_string(children).unwrap().split_whitespace() {
        kill(Pid::from_raw(child.parse().unwrap()), Signal::SIGTERM).unwrap();
    }
    tracer.wait(END_LIMIT).unwrap();
}

/// The traced system calls that change the kernel's networking: netlink requests that make, alter or delete something,
/// and files below `/proc/sys` that are opened for writing.
fn kernel_writes(node: &Node) -> Vec<String> {
    let trace = fs::read_to_string(node.file(TRACE)).unwrap();
    let is_write = |line: &&str| {
        let netlink = line.contains("send")
            && ["RTM_NEW", "RTM_DEL", "RTM_SET"]
                .iter()
                .any(|kind| line.contains(kind));
        let sysctl = line.contains("/proc/sys") && (line.contains("O_WRONLY") || line.contains("O_RDWR"));
        netlink || sysctl
    };
    trace.lines().filter(is_write).map(str::to_owned).collect()
}
