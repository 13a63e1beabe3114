use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use super::node::{Node, get, ip, on_a_node, rounds_of};

/// Nobody's user and group on Debian; any but root's will do.
const USER: u32 = 65534;
/// What the unit file gives, and what legacy iptables needs besides.
const ADMIN: &str = "-all,+net_admin";
const ADMIN_AND_RAW: &str = "-all,+net_admin,+net_raw";

/// The daemon as the unit file runs it: another user than root, with `CAP_NET_ADMIN` and nothing else.
#[test]
fn a_user_with_cap_net_admin_alone_programs_everything() {
    on_a_node(|node| {
        node.add_peer(2);
        let pid = start_as_user(node, ADMIN);
        node.wait_settled();

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
        assert!(!node.log().contains(" WARN "), "{}", node.log());
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
        start_as_user(node, ADMIN);
        assert_rules(node, "nft list ruleset", "masquerade fully-random");
        node.stop();
    });
}

/// Nor do iptables' programs where they work on nf_tables.
#[test]
fn a_user_with_cap_net_admin_alone_makes_rules_in_iptables() {
    on_a_node(|node| {
        node.configure();
        start_as_user(node, ADMIN);
        assert_rules(
            node,
            "iptables-nft-save -t nat",
            "FLANNEL-POSTRTG -s 10.244.0.0/16",
        );
        node.stop();
    });
}

/// Who may not see legacy iptables is told so once, and does what he can.
#[test]
fn who_cannot_see_legacy_tables_says_so_and_makes_rules_elsewhere() {
    on_a_node(|node| {
        node.configure();
        run("iptables-legacy -A INPUT -s 192.0.2.1 -j DROP");
        start_as_user(node, ADMIN);
        node.wait("the rules", || {
            run("iptables-nft-save -t nat").contains("FLANNEL-POSTRTG -s 10.244.0.0/16")
        });
        let told = || {
            node.log()
                .matches("tables of legacy iptables cannot be seen")
                .count()
        };
        node.wait("the word on it", || told() > 0);
        node.wait_ready();
        assert_eq!(told(), 1, "{}", node.log());
        assert!(node.log().contains("CAP_NET_RAW"));
        assert!(!node.log().contains(" WARN "), "{}", node.log());
        // What it cannot see, root can.
        run("iptables-legacy -N FLANNEL-FWD");
        run("iptables-legacy -A FLANNEL-FWD -s 10.244.0.0/16 -j ACCEPT");
        let check = String::from_utf8(node.run(&["check", "--probes=0"]).stdout).unwrap();
        let named = "there are rules of flannel's in iptables and in legacy iptables at once";
        assert!(check.contains(named), "{check}");
        node.stop();
    });
}

/// With `CAP_NET_RAW` and the lock file they are seen although the kernel does not list them, and nothing is added twice.
#[test]
fn a_user_with_cap_net_raw_keeps_its_rules_in_legacy_iptables() {
    on_a_node(|node| {
        node.configure();
        run("iptables-legacy -A INPUT -s 192.0.2.1 -j DROP");
        for _ in 0..2 {
            start_as_user(node, ADMIN_AND_RAW);
            assert_rules(
                node,
                "iptables-legacy-save -t nat",
                "FLANNEL-POSTRTG -s 10.244.0.0/16",
            );
            node.wait_ready();
            node.wait("looks at the rules", || rounds_of("rules") >= 4);
            node.stop();
            fs::remove_file(node.file("run/subnet.env")).unwrap();
        }
        let nat = run("iptables-legacy-save -t nat");
        assert_eq!(nat.matches("-j FLANNEL-POSTRTG").count(), 1, "{nat}");
        let filter = run("iptables-legacy-save -t filter");
        assert_eq!(filter.matches("-j FLANNEL-FWD").count(), 1, "{filter}");
        assert!(!run("nft list tables").contains("flannel"));
    });
}

/// Without it no rule is written where it could not be found again, and the way out is named.
#[test]
fn legacy_iptables_that_cannot_be_seen_is_not_written_to() {
    on_a_node(|node| {
        node.configure();
        // The administrator's choice is legacy iptables.
        let chosen = node.file("chosen");
        fs::create_dir(&chosen).unwrap();
        for name in ["iptables", "iptables-save", "iptables-restore"] {
            symlink("/usr/sbin/xtables-legacy-multi", chosen.join(name)).unwrap();
        }
        start_as_user_with(node, ADMIN, Some(&chosen));
        node.wait("the refusal", || {
            node.log().contains("of legacy iptables cannot be seen")
                && node.log().contains("set EnableNFTables")
        });
        for table in ["nat", "filter"] {
            let text = run(&format!("iptables-legacy-save -t {table}"));
            assert!(!text.contains("FLANNEL"), "{text}");
        }
        node.stop();
    });
}

/// Starts the daemon as another user than root with some capabilities and waits for its subnet file. It has a `/run` of
/// its own; the program of root's own directories cannot be run by others.
fn start_as_user(node: &mut Node, capabilities: &str) -> u32 {
    start_as_user_with(node, capabilities, None)
}

/// The same with a folder whose programs come before the system's.
fn start_as_user_with(node: &mut Node, capabilities: &str, programs: Option<&Path>) -> u32 {
    if !node.file("leases/config").exists() {
        node.configure();
    }
    for dir in ["leases", "leases/subnets", "run"] {
        fs::create_dir_all(node.file(dir)).unwrap();
        chown(node.file(dir), Some(USER), Some(USER)).unwrap();
    }
    chown(node.file(""), Some(USER), Some(USER)).unwrap();
    let daemon = node.command(&["--healthz-port=8081", "--ip-masq", "--iptables-resync=1"]);
    let program = node.file("flanneld");
    fs::remove_file(&program).ok();
    fs::copy(daemon.get_program(), &program).unwrap();
    let system = std::env::var("PATH").unwrap();
    let path = programs.map_or_else(
        || system.clone(),
        |folder| format!("{}:{system}", folder.display()),
    );
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation=private", "sh", "-c"])
        .arg("mount -t tmpfs none /run && install -o 65534 /dev/null /run/xtables.lock && exec \"$@\"")
        .env("PATH", path)
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
    // Without CAP_NET_RAW only that legacy iptables cannot be seen.
    let log = node.log();
    let of_others = log
        .lines()
        .filter(|line| !line.contains("tables of legacy iptables cannot be seen"));
    let denied = |line: &str| line.contains("ermission denied") || line.contains("not permitted");
    assert!(!of_others.into_iter().any(denied), "{log}");
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
