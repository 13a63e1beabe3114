use std::fs;
use std::os::unix::fs::chown;
use std::process::Command;

use super::node::{Node, get, ip, on_a_node};

/// Nobody's user and group on Debian; any but root's will do.
const USER: u32 = 65534;

/// The daemon as the unit file runs it: another user than root, with `CAP_NET_ADMIN` and nothing else.
#[test]
fn a_user_with_cap_net_admin_alone_programs_everything() {
    on_a_node(|node| {
        node.add_peer(2);
        let pid = start_as_user(node);
        node.wait_ready();

        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let field = |name: &str| {
            let line = status.lines().find(|line| line.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().to_owned()
        };
        assert_eq!(field("Uid:"), "65534");
        assert_eq!(field("CapEff:"), "0000000000001000", "CAP_NET_ADMIN is number 12");
        let accept_ra = fs::read_to_string("/proc/sys/net/ipv6/conf/flannel.1/accept_ra").unwrap();
        assert_eq!(accept_ra.trim(), "0", "{}", node.log());
        ip("route del 10.244.0.32/28 dev flannel.1");
        node.wait("the repair", || {
            get("/metrics")
                .1
                .contains("flanneld_drift_repaired_total{part=\"network\",kind=\"route\"} 1")
        });
        let page = get("/metrics").1;
        assert!(!page.contains("class=\"denied\""), "{page}");
        node.stop();
    });
}

/// Rules in nf_tables need nothing more.
#[test]
fn a_user_with_cap_net_admin_alone_makes_rules_in_nf_tables() {
    on_a_node(|node| {
        node.configure_with(
            r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "vxlan"}}"#,
        );
        start_as_user(node);
        assert_rules(node, "nft list ruleset", "masquerade fully-random");
        node.stop();
    });
}

/// Nor do iptables' programs where they work on nf_tables.
#[test]
fn a_user_with_cap_net_admin_alone_makes_rules_in_iptables() {
    on_a_node(|node| {
        node.configure();
        start_as_user(node);
        assert_rules(
            node,
            "iptables-nft-save -t nat",
            "FLANNEL-POSTRTG -s 10.244.0.0/16",
        );
        node.stop();
    });
}

/// Starts the daemon as another user than root with `CAP_NET_ADMIN` and waits for its subnet file. It has a `/run` of its
/// own; the program of root's own directories cannot be run by others.
fn start_as_user(node: &mut Node) -> u32 {
    if !node.file("leases/config").exists() {
        node.configure();
    }
    for dir in ["leases", "leases/subnets", "run"] {
        fs::create_dir_all(node.file(dir)).unwrap();
        chown(node.file(dir), Some(USER), Some(USER)).unwrap();
    }
    chown(node.file(""), Some(USER), Some(USER)).unwrap();
    let daemon = node.command(&["--healthz-port=8081", "--ip-masq"]);
    let program = node.file("flanneld");
    fs::copy(daemon.get_program(), &program).unwrap();
    let capabilities = "-all,+net_admin";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation=private", "sh", "-c"])
        .arg("mount -t tmpfs none /run && exec \"$@\"")
        .args([
            "sh",
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
        ])
        .arg("--no-new-privs")
        .arg(format!("--inh-caps={capabilities}"))
        .arg(format!("--ambient-caps={capabilities}"))
        .arg(format!("--bounding-set={capabilities}"))
        .arg(program)
        .args(daemon.get_args());
    let pid = node.spawn(&mut command);
    node.wait("the subnet file", || node.file("run/subnet.env").exists());
    pid
}

#[track_caller]
fn assert_rules(node: &Node, command: &str, rule: &str) {
    let has_rule = || run(command).contains(rule);
    node.wait("the rules", has_rule);
    let log = node.log();
    assert!(
        !log.contains("ermission denied") && !log.contains("not permitted"),
        "{log}"
    );
}

fn run(command: &str) -> String {
    let mut words = command.split(' ');
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// systemd's own check of the unit, with the program where it is here.
#[test]
fn systemd_finds_nothing_wrong_with_the_unit_file() {
    let unit = include_str!("../../../deploy/systemd/flanneld.service");
    assert!(unit.contains("\nAmbientCapabilities=CAP_NET_ADMIN\nCapabilityBoundingSet=CAP_NET_ADMIN\n"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("flanneld.service");
    let here = unit.replace("/usr/local/bin/flanneld", env!("CARGO_BIN_EXE_flanneld"));
    assert_ne!(here, unit);
    fs::write(&file, here).unwrap();
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&file)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
