//! Alone against captures.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use conformance::lab::{Binaries, copy_program};
use serde_json::Value;

use crate::report::{Run, ended_so, program, run_suite, told};
use crate::support::write_script;

const CAPTURES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/data/captures");

/// A change in each kind of file, which the comparison of this id has to find: file, id, what is there, what is put there.
const SPOILED_DAEMON: [(&str, &str, &str, &str); 8] = [
    ("etcd-keys.txt", "GLD-01", "TTL(86400s)", "TTL(86401s)"),
    ("node2-subnet.env", "GLD-02", "IPMASQ=true", "IPMASQ=false"),
    ("node3-kernel.txt", "GLD-03", "nolearning", "learning"),
    (
        "node2-kernel.txt",
        "GLD-04",
        "10.244.4.0 lladdr",
        "10.244.5.0 lladdr",
    ),
    ("node1-kernel.txt", "GLD-05", "global onlink", "global"),
    (
        "node1-nft-ruleset.txt",
        "GLD-06",
        "ip saddr 10.244.0.0/16 accept",
        "accept",
    ),
    (
        "node1-sysctl-device-nondefault.txt",
        "GLD-07",
        "accept_ra = 0",
        "accept_ra = 2",
    ),
    (
        "node1-after-sigterm.txt",
        "GLD-08",
        "10.244.84.0/24 via 10.244.84.0 dev flannel.1 onlink",
        "",
    ),
];
const SPOILED_PLUGIN: [(&str, &str, &str, &str); 8] = [
    (
        "add-result.json",
        "PLG-01",
        "\"interface\": 2",
        "\"interface\": 1",
    ),
    ("kernel.txt", "PLG-02", "hairpin on", "hairpin off"),
    (
        "kernel.txt",
        "PLG-03",
        "unicast default via 10.244.7.1",
        "unicast default via 10.244.7.3",
    ),
    (
        "kernel.txt",
        "PLG-04",
        "dev cni0 master cni0 permanent",
        "dev cni0 permanent",
    ),
    (
        "rules.txt",
        "PLG-05",
        "--to-destination 10.244.7.2:80",
        "--to-destination 10.244.7.2:81",
    ),
    ("pod-sysctl.txt", "PLG-06", "arp_notify = 1", "arp_notify = 2"),
    ("state-after-add.txt", "PLG-07", "\"mtu\":1450", "\"mtu\":1451"),
    (
        "after-del.txt",
        "PLG-08",
        "last_reserved_ip.0",
        "last_reserved_ip.7",
    ),
];

fn interop(arguments: &[&str]) -> Run {
    run_suite("interop", program(), arguments)
}

/// The comparisons that ended so, as id and configuration.
fn outcomes(report: &Value, outcome: &str) -> BTreeSet<String> {
    ended_so(report, outcome, &["id", "configuration"])
}

#[test]
fn our_programs_write_what_the_reference_wrote_but_for_what_is_decided() {
    let dir = tempfile::tempdir().unwrap();
    let [junit, html] = ["report.xml", "report.html"].map(|name| dir.path().join(name));
    let [junit_path, html_path] = [&junit, &html].map(|path| path.to_str().unwrap());
    let run = interop(&["--junit", junit_path, "--html", html_path]);
    let bad = told(&run.report);
    assert!(run.good, "{bad}");
    let known = outcomes(&run.report, "known");
    assert_eq!(known.len(), 13, "{known:?}");
    let passed = outcomes(&run.report, "passed").len();
    assert!(passed >= 57, "{}", run.table);
    let skipped = outcomes(&run.report, "skipped");
    assert_eq!(
        skipped,
        ["GLD-03 host-gw", "GLD-04 host-gw"].map(str::to_owned).into()
    );
    assert!(
        run.table
            .contains("known: routes by peers' own addresses are marked: "),
        "{}",
        run.table
    );
    let count = passed + known.len() + skipped.len();
    let junit = fs::read_to_string(junit).unwrap();
    assert_eq!(junit.matches("<testcase ").count(), count);
    let html = fs::read_to_string(html).unwrap();
    assert_eq!(html.matches("<tr><td class=").count(), count);
}

#[test]
fn every_kind_of_difference_from_a_capture_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let copied = Command::new("cp")
        .arg("-r")
        .arg(CAPTURES)
        .arg(dir.path())
        .status()
        .unwrap();
    assert!(copied.success());
    let captures = dir.path().join("captures");
    let mut expected = BTreeSet::new();
    for (configuration, changes) in [
        ("vxlan-nftables", SPOILED_DAEMON),
        ("cni-v4-ports", SPOILED_PLUGIN),
    ] {
        for (file, id, there, instead) in changes {
            let path = captures.join(configuration).join(file);
            let text = fs::read_to_string(&path).unwrap();
            assert!(text.contains(there), "{} has no {there:?}", path.display());
            fs::write(&path, text.replacen(there, instead, 1)).unwrap();
            expected.insert(format!("{id} {configuration}"));
        }
    }
    let captures = format!("--captures={}", captures.display());
    let run = interop(&[&captures, "--configuration=vxlan-nftables,cni-v4-ports"]);
    assert!(!run.good, "{}", run.table);
    assert_eq!(outcomes(&run.report, "failed"), expected, "{}", run.table);
}

#[test]
fn a_decided_difference_that_is_not_there_any_more_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("deviations");
    let text = "= another network\nids: GLD-02\nin: host-gw\nwhy: to see it told\n\
        - FLANNEL_NETWORK=10.244.0.0/16\n+ FLANNEL_NETWORK=10.0.0.0/8\n";
    fs::write(&list, text).unwrap();
    let list = format!("--deviations={}", list.display());
    let run = interop(&[&list, "--configuration=host-gw", "--only=GLD-02,GLD-05"]);
    assert!(!run.good);
    let only = |text: &str| BTreeSet::from([text.to_owned()]);
    assert_eq!(
        outcomes(&run.report, "stale"),
        only("GLD-02 host-gw"),
        "{}",
        run.table
    );
    // Without this project's list its own differences are none that are decided.
    assert_eq!(
        outcomes(&run.report, "failed"),
        only("GLD-05 host-gw"),
        "{}",
        run.table
    );
}

#[test]
fn programs_that_do_otherwise_are_found_out() {
    let dir = tempfile::tempdir().unwrap();
    let bin_dir = format!("--bin-dir={}", dir.path().display());
    let ours = Binaries::find().unwrap();
    for (name, as_name) in [("flanneld", "flanneld-true"), ("flannel", "flannel")] {
        copy_program(&ours.dir().join(name), &dir.path().join(as_name)).unwrap();
    }
    let daemon = dir.path().join("flanneld");
    write_script(
        &daemon,
        "exec /run/lab/bin/flanneld-true \"$@\" --iptables-forward-rules=false",
    );
    let run = interop(&[&bin_dir, "--configuration=vxlan-iptables"]);
    let expected = ["GLD-06 vxlan-iptables", "GLD-08 vxlan-iptables"].map(str::to_owned);
    assert_eq!(outcomes(&run.report, "failed"), expected.into(), "{}", run.table);

    write_script(&daemon, "exit 3");
    let run = interop(&[&bin_dir, "--configuration=host-gw", "--only=GLD-05"]);
    assert!(run.table.contains("expected: the daemon starts"), "{}", run.table);
    let plugin = dir.path().join("flannel");
    fs::remove_file(&plugin).unwrap();
    write_script(&plugin, "echo '{\"code\": 999, \"msg\": \"not today\"}'; exit 1");
    let run = interop(&[&bin_dir, "--configuration=cni-v4", "--only=PLG-01"]);
    assert!(run.table.contains("expected: ADD succeeds"), "{}", run.table);
    assert!(run.table.contains("not today"), "{}", run.table);
}

#[test]
fn what_cannot_be_compared_is_told() {
    let empty = tempfile::tempdir().unwrap();
    let captures = format!("--captures={}", empty.path().display());
    for (arguments, words) in [
        (&["--configuration=host-gw,udp"][..], "'udp' for '--configuration"),
        (&["--only=GLD-01", "--only=XYZ"], "GLD-01 to GLD-08"),
        (&["--only=MIX"], "no other programs to mix with"),
        (&["--only=PLG", "--configuration=host-gw"], "nothing to compare"),
        (&["--configuration=host-gw,mixed"], "needs other programs"),
        (&["--captures=/proc", "--configuration=host-gw"], "/proc/"),
        (&[&captures], "no captures of vxlan-nftables"),
        (&["--deviations=/proc/version"], "reading /proc/version"),
        (&["--bin-dir=/proc"], "/proc has no flanneld"),
        (&["--other-plugins=/proc"], "/proc has no bridge, no host-local"),
        (
            &["--other-plugins=/usr/lib/cni", "--net-conf=/proc/version"],
            "'/proc/version' for '--net-conf",
        ),
    ] {
        let output = program().arg("interop").args(arguments).output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8(said).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
