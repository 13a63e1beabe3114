//! The pure crates decide and do no I/O: their dependency trees show it.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::process::Command;

const PURE: [&str; 5] = ["net-types", "netstate", "go-json", "cni-types", "flannel-types"];
const IMPURE: [&str; 10] = [
    "tokio",
    "mio",
    "nix",
    "libc",
    "rustix",
    "rtnetlink",
    "netlink-sys",
    "socket2",
    "kube",
    "tonic",
];
/// Every package of the workspace but the shared names and rules.
const OURS: [&str; 16] = [
    "netlink",
    "nftables",
    "statefile",
    "subprocess",
    "lease-store",
    "etcd",
    "fake-kernel",
    "fake-apiserver",
    "netlink-monitor",
    "netstate",
    "cni-types",
    "flannel-types",
    "conformance",
    "conformance-floor",
    "cni-plugin",
    "flanneld-rs",
];

#[test]
fn pure_crates_depend_on_no_io_library() {
    for package in PURE {
        for dependency in dependencies(package) {
            assert!(
                !IMPURE.contains(&dependency.as_str()),
                "{package} depends on {dependency}"
            );
            assert!(
                !dependency.starts_with("netlink-"),
                "{package} depends on {dependency}"
            );
        }
    }
}

#[test]
fn pure_crates_depend_on_nothing_of_ours_but_the_shared_names() {
    for package in PURE {
        for dependency in dependencies(package) {
            assert!(
                !OURS.contains(&dependency.as_str()),
                "{package} depends on {dependency}"
            );
        }
    }
}

#[test]
fn the_judge_shares_no_code_with_the_judged() {
    for dependency in dependencies("conformance") {
        let is_ours =
            OURS.contains(&dependency.as_str()) || ["net-types", "go-json"].contains(&dependency.as_str());
        assert!(
            !is_ours || dependency == "conformance-floor",
            "conformance depends on {dependency}"
        );
    }
}

/// The names of all packages that a package needs at run time, itself and procedural macros' own trees excluded.
fn dependencies(package: &str) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let args = [
        "tree",
        "--offline",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
        "--package",
        package,
    ];
    let output = Command::new(cargo).args(args).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout).unwrap();
    let names = text.lines().filter_map(|line| line.split_whitespace().next());
    names.filter(|name| *name != package).map(str::to_owned).collect()
}
