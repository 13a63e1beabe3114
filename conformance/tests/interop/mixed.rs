//! Beside others: this project's daemon under another path with Debian's plugins, and programs with flaws.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::Stdio;

use conformance::lab::{Binaries, copy_program};

use crate::report::{ended_so, program, run_suite, told};
use crate::support::write_script;

const PLUGINS: &str = "/usr/lib/cni";

/// A daemon that does what the other side must not: it gives the tunnel another address, interrupts it, forgets a route,
/// gives a pod one more address and lets nobody ping.
const FLAWED_DAEMON: &str = r#"
ip link set flannel.1 address 02:00:00:00:00:99 down 2>/dev/null && sleep 0.6 && ip link set flannel.1 up
ip route replace blackhole 203.0.113.0/24
for pod in $(ls /run/netns); do ip -n "$pod" address add 203.0.113.9/32 dev eth0; done
nft 'add table ip stray; add chain ip stray forward { type filter hook forward priority 0; };
    add rule ip stray forward ip protocol icmp drop'
exec /run/lab/sides/own/flanneld "$@""#;
/// A plugin that does nothing for DEL.
const FLAWED_BRIDGE: &str = r#"[ "$CNI_COMMAND" = DEL ] || exec /usr/lib/cni/bridge"#;

fn mixed(flanneld: &Path, plugins: &Path) -> crate::report::Run {
    let flanneld = format!("--other-flanneld={}", flanneld.display());
    let plugins = format!("--other-plugins={}", plugins.display());
    run_suite(
        "interop",
        program(),
        &["--configuration=mixed", &flanneld, &plugins],
    )
}

#[test]
fn nodes_of_both_kinds_are_one_network_and_change_sides_without_harm() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = dir.path().join("another");
    copy_program(&Binaries::find().unwrap().dir().join("flanneld"), &daemon).unwrap();
    let run = mixed(&daemon, Path::new(PLUGINS));
    assert!(run.good, "{}", told(&run.report));
    let ended = |outcome| ended_so(&run.report, outcome, &["id", "configuration"]);
    let known = ["MIX-06 mixed: node1's pods", "MIX-06 mixed: node2 to other"].map(str::to_owned);
    assert_eq!(ended("known"), known.into(), "{}", run.table);
    // Each of two nodes goes and comes back, by six requirements; the start and the end beside that.
    let passed = ended("passed");
    assert_eq!(passed.len(), 26, "{}", run.table);
    // One's own CHECK was asked, and so it is again after each change.
    assert!(passed.contains("MIX-03 mixed: start"), "{}", run.table);
    let cases = run.report["cases"].as_array().unwrap().iter();
    let of_own = cases.filter(|case| case["configuration"].as_str().unwrap().ends_with("to own"));
    for case in of_own {
        assert!(!case.to_string().contains("CHECK is not asked"), "{case:#}");
    }
    assert!(run.table.contains("packets lost; back: "), "{}", run.table);
}

#[test]
fn a_daemon_that_hangs_is_not_waited_for_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = dir.path().join("hangs");
    write_script(&daemon, "exec sleep 300");
    let mut run = program();
    run.args(["interop", "--configuration=mixed", "--other-flanneld"])
        .arg(&daemon);
    run.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut run = run.spawn().unwrap();
    let mut line = String::new();
    // The lab ends with the program.
    BufReader::new(run.stderr.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    run.kill().unwrap();
    run.wait().unwrap();
    let expected = "waiting for flanneld on node2 to write its subnet file: 10 of at most 180 s …\n";
    assert_eq!(line, expected);
}

#[test]
fn every_kind_of_harm_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let daemon = dir.path().join("flawed");
    write_script(&daemon, FLAWED_DAEMON);
    write_script(&dir.path().join("bridge"), FLAWED_BRIDGE);
    for name in ["host-local", "portmap", "loopback"] {
        copy_program(&Path::new(PLUGINS).join(name), &dir.path().join(name)).unwrap();
    }
    let run = mixed(&daemon, dir.path());
    assert!(!run.good, "{}", run.table);
    let failed = ended_so(&run.report, "failed", &["id", "configuration"]);
    let expected = [
        "MIX-01 mixed: node1 to other",
        "MIX-02 mixed: node1 to other",
        "MIX-03 mixed: node1 to other",
        "MIX-04 mixed: node1 to own",
        "MIX-05 mixed: node1 to other",
        "MIX-06 mixed: node2 to other",
    ];
    let expected: BTreeSet<_> = expected.map(str::to_owned).into();
    assert!(expected.is_subset(&failed), "{failed:?}\n{}", run.table);
}
