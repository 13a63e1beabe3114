//! `flanneld cleanup` on the real kernel, with others' things beside flannel's.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Output};

use nix::sched::{CloneFlags, unshare};

const FLANNELD: &str = env!("CARGO_BIN_EXE_flanneld");

/// What upstream made for a node in captures.
const UPSTREAM_NFT: &str =
    include_str!("../../conformance/data/captures/vxlan-dualstack-nftables/node1-nft-ruleset.txt");
const UPSTREAM_IPTABLES: &str =
    include_str!("../../conformance/data/captures/vxlan-iptables/node1-iptables-save.txt");

/// Others' things, some of which look like flannel's.
const STRANGERS: &[&str] = &[
    "ip link set lo up",
    "ip link add cni0 type bridge",
    "ip address add 10.244.1.1/24 dev cni0",
    "ip link set cni0 up",
    "ip link add veth1 type veth peer name veth2",
    "ip link add flannel.7 type bridge",
    "ip link add flannel.8 type vxlan id 9 dstport 8473",
    "ip link add vxlan5 type vxlan id 5 dstport 4789",
    "ip route add blackhole 10.244.0.0/16",
    "ip route add blackhole 10.244.1.0/24 metric 4096",
    "nft add table inet flannel-ipv4",
    "nft add table ip flannel-other",
    "iptables-nft -A FORWARD -s 192.0.2.1 -j DROP",
    "iptables-nft -t nat -N FLANNEL-OTHER",
    "iptables-nft -t nat -A POSTROUTING -s 192.0.2.1 -j FLANNEL-OTHER",
    "iptables-legacy -A FORWARD -s 192.0.2.2 -j DROP",
    "ip6tables-nft -A FORWARD -s 2001:db8::1 -j DROP",
];

/// Of those, what is told to be kept.
const STRANGE: &[&str] = &[
    "link flannel.7: it is no VXLAN device",
    "link flannel.8: it has the network identifier 9",
];

/// The daemon's devices with content, and its rules of IPv6 and of other places than those that are read from captures.
const OURS: &[&str] = &[
    "ip link add flannel.1 type vxlan id 1 dstport 8472 nolearning",
    "ip address add 10.244.1.0/32 dev flannel.1",
    "ip link set flannel.1 up",
    "ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
    "ip neighbour add 10.244.2.0 lladdr 02:00:00:00:00:02 dev flannel.1",
    "bridge fdb add 02:00:00:00:00:02 dev flannel.1 dst 192.0.2.2",
    "ip route add blackhole 10.244.3.0/24 proto 102 metric 4096",
    "ip -6 route add blackhole fd00:10:244:3::/64 proto 102 metric 4096",
    "ip link add flannel-v6.1 type vxlan id 1 local 2001:db8::7 dstport 8472 nolearning",
    "ip6tables-nft -t nat -N FLANNEL-POSTRTG",
    "ip6tables-nft -t nat -A POSTROUTING -j FLANNEL-POSTRTG",
    "ip6tables-nft -t nat -A POSTROUTING -j FLANNEL-POSTRTG",
    "ip6tables-legacy -N FLANNEL-FWD",
    "ip6tables-legacy -A FORWARD -j FLANNEL-FWD",
];

#[test]
fn what_is_flannels_goes_and_nothing_else() {
    let dir = prepare();
    let before = everything();
    make_ours(dir.path());
    let removed = [
        "subnet.env",
        "flanneld.sock",
        "kube-cache.json",
        "link flannel.1",
        "link flannel-v6.1",
        "route 10.244.3.0/24 metric 4096",
        "route fd00:10:244:3::/64 metric 4096",
        "nft ip flannel-ipv4",
        "nft ip6 flannel-ipv6",
        "iptables-nft nat FLANNEL-POSTRTG, rules that lead there: 1",
        "iptables-nft filter FLANNEL-FWD",
        "iptables-legacy nat FLANNEL-POSTRTG",
        "iptables-legacy filter FLANNEL-FWD",
        "ip6tables-nft nat FLANNEL-POSTRTG, rules that lead there: 2",
        "ip6tables-legacy filter FLANNEL-FWD",
    ];
    let full = everything();

    let text = cleaned(dir.path(), &["--dry-run"]);
    assert_rows(&text, "would remove", &removed);
    assert_rows(&text, "kept", STRANGE);
    assert_eq!(everything(), full);
    assert!(dir.path().join("subnet.env").exists());

    let text = cleaned(dir.path(), &[]);
    assert_rows(&text, "removed", &removed);
    assert_rows(&text, "kept", STRANGE);
    assert_eq!(everything(), before);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);

    let text = cleaned(dir.path(), &[]);
    assert_rows(&text, "removed", &[]);
    assert_rows(&text, "kept", STRANGE);
}

#[test]
fn a_host_without_anything_of_flannels_is_told_so() {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests of the cleanup need root");
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(cleaned(dir.path(), &[]), "there is nothing of flannel's here\n");
}

#[test]
fn the_runtimes_configuration_goes_when_asked_for_if_it_is_flannels() {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests of the cleanup need root");
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("10-flannel.conflist");
    let flag = format!("--cni-conf-dir={}", dir.path().display());
    fs::write(&list, r#"{"name":"x","plugins":[{"type":"bridge"}]}"#).unwrap();
    assert_rows(&cleaned(dir.path(), &[&flag]), "kept", &["10-flannel.conflist"]);
    fs::write(&list, r#"{"name":"x","plugins":[{"type":"flannel"}]}"#).unwrap();
    cleaned(dir.path(), &[]);
    assert!(list.exists());
    let before = dir.path().join("10-flannel.conflist.kept");
    fs::write(&before, "another network").unwrap();
    let text = cleaned(dir.path(), &[&flag]);
    assert_rows(&text, "removed", &["10-flannel.conflist"]);
    assert_rows(&text, "kept", &["10-flannel.conflist.kept: it was there before"]);
    assert!(!list.exists() && before.exists());
}

#[test]
fn a_daemon_that_runs_is_not_cleaned_up_after() {
    let dir = prepare();
    make_ours(dir.path());
    let full = everything();
    let _answers = UnixListener::bind(dir.path().join("other.sock")).unwrap();
    let socket = format!("--status-socket={}", dir.path().join("other.sock").display());
    let output = run(dir.path(), &[&socket]);
    assert_eq!(output.status.code(), Some(1));
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.contains("stop it first"), "{words}");
    assert_eq!(everything(), full);
    assert!(run(dir.path(), &[&socket, "--dry-run"]).status.success());
}

#[test]
fn what_cannot_be_removed_is_told_and_the_rest_goes() {
    let dir = prepare();
    let before = everything();
    make_ours(dir.path());
    // A file that is none of flannel's, and one that cannot be removed because it is a directory.
    fs::write(dir.path().join("subnet.env"), "root:x:0:0\n").unwrap();
    fs::write(dir.path().join("kube-cache.json"), r#"{"version":1}"#).unwrap();
    let output = run(dir.path(), &[]);
    assert!(output.status.success());
    assert_rows(
        &String::from_utf8(output.stdout).unwrap(),
        "kept",
        &[
            &[
                "subnet.env: it is not what flanneld writes",
                "kube-cache.json: it is not what flanneld writes",
            ],
            STRANGE,
        ]
        .concat(),
    );
    assert_eq!(everything(), before);
    fs::remove_file(dir.path().join("kube-cache.json")).unwrap();
    fs::remove_file(dir.path().join("subnet.env")).unwrap();
    fs::create_dir(dir.path().join("subnet.env")).unwrap();
    run_line("ip link add flannel.1 type vxlan id 1 dstport 8472 nolearning");
    let output = run(dir.path(), &[]);
    assert_eq!(output.status.code(), Some(1));
    let text = String::from_utf8(output.stdout).unwrap();
    assert_rows(&text, "failed", &["subnet.env: "]);
    assert_rows(&text, "removed", &["link flannel.1"]);
    assert_eq!(everything(), before);
}

/// A new namespace of the calling thread with others' things in it, and a folder for the daemon's files.
fn prepare() -> tempfile::TempDir {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests of the cleanup need root");
    STRANGERS.iter().for_each(|line| drop(run_line(line)));
    tempfile::tempdir().unwrap()
}

fn make_ours(dir: &Path) {
    OURS.iter().for_each(|line| drop(run_line(line)));
    let rules = dir.join("rules");
    fs::write(&rules, UPSTREAM_NFT).unwrap();
    run_line(&format!("nft -f {}", rules.display()));
    fs::write(&rules, UPSTREAM_IPTABLES).unwrap();
    for variant in ["nft", "legacy"] {
        run_line(&format!(
            "iptables-{variant}-restore --noflush {}",
            rules.display()
        ));
    }
    fs::remove_file(rules).unwrap();
    fs::write(
        dir.join("subnet.env"),
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_MTU=1450\n",
    )
    .unwrap();
    fs::write(
        dir.join("kube-cache.json"),
        r#"{"version":1,"prefix":"flannel.alpha.coreos.com","node":"n1","pod_cidrs":[],"annotations":{},"leases":{}}"#,
    )
    .unwrap();
    // As a daemon that was killed leaves it.
    drop(UnixListener::bind(dir.join("flanneld.sock")).unwrap());
}

/// What the programs print of the namespace, but for counters, what the kernel does by itself after a link came up, and
/// iptables' own empty chains, which stay once a program of iptables has looked.
fn everything() -> Vec<String> {
    let mut lines = Vec::new();
    for command in [
        "ip -o link show",
        "ip -o -4 address show",
        "ip -4 route show table all",
        "bridge fdb show",
        "nft list table inet flannel-ipv4",
        "nft list table ip flannel-other",
    ] {
        let text = run_line(command);
        let own = text
            .lines()
            .filter(|line| !line.contains("33:33:") && !line.contains("01:00:5e:"));
        lines.extend(own.map(str::to_owned));
    }
    let is_of_iptables = |line: &&str| line.ends_with(" filter") || line.ends_with(" nat");
    let tables = run_line("nft list tables");
    lines.extend(
        tables
            .lines()
            .filter(|line| !is_of_iptables(line))
            .map(str::to_owned),
    );
    for program in [
        "iptables-nft",
        "iptables-legacy",
        "ip6tables-nft",
        "ip6tables-legacy",
    ] {
        let text = run_line(&format!("{program}-save"));
        let stands = |line: &&str| line.starts_with("-A") || line.contains(" - [");
        lines.extend(
            text.lines()
                .filter(stands)
                .map(|line| format!("{program}: {line}")),
        );
    }
    lines.sort();
    lines
}

fn assert_rows(text: &str, outcome: &str, expected: &[&str]) {
    let prefix = format!("{outcome} ");
    let rows: Vec<_> = text.lines().filter(|line| line.starts_with(&prefix)).collect();
    for part in expected {
        assert!(
            rows.iter().any(|row| row.contains(part)),
            "no row {part:?} of {rows:#?}"
        );
    }
    assert_eq!(rows.len(), expected.len(), "{rows:#?}");
}

/// What a cleanup prints that ends well.
fn cleaned(dir: &Path, arguments: &[&str]) -> String {
    let output = run(dir, arguments);
    let words = String::from_utf8_lossy(&output.stderr);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{words}\n{text}");
    text
}

fn run(dir: &Path, arguments: &[&str]) -> Output {
    let subnet_file = format!("--subnet-file={}", dir.join("subnet.env").display());
    let mut command = Command::new(FLANNELD);
    let kube_cache = format!("--kube-cache-file={}", dir.join("kube-cache.json").display());
    command
        .args(["cleanup", &subnet_file, &kube_cache])
        .args(arguments);
    command.output().unwrap()
}

/// Runs a command in the calling thread's namespace and returns what it prints.
fn run_line(line: &str) -> String {
    let words: Vec<_> = line.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}
