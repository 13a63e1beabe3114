use std::fs;
use std::time::Duration;

use conformance::lab::{LEASE_DIR, Lab, NET_CONF, Node, SUBNET_FILE};

use crate::support::{assert_same, bare, dump, files_below};

/// How long a daemon may take to refuse.
const LIMIT: Duration = Duration::from_secs(5);

/// One start that has to fail.
struct Case {
    what: &'static str,
    /// Spoils something in the lab.
    spoil: fn(&Lab),
    arguments: &'static [&'static str],
    /// The exit status: 2 for a command line that cannot be read, 1 for everything else; a margin out of range is 1 in
    /// flannel too (main.go).
    code: i32,
    /// What the sentence has to name.
    names: &'static str,
}

const LEASES: &str = "--lease-dir=/run/lab/leases";

const CASES: &[Case] = &[
    Case {
        what: "a network configuration that is no JSON",
        spoil: |lab| config(lab, "{"),
        arguments: &[LEASES],
        code: 1,
        names: "config",
    },
    Case {
        what: "a network configuration without a network",
        spoil: |lab| config(lab, "{}"),
        arguments: &[LEASES],
        code: 1,
        names: "please define a correct Network parameter in the flannel config",
    },
    Case {
        what: "a network that is no network",
        spoil: |lab| config(lab, r#"{"Network":"10.244.0.0/33"}"#),
        arguments: &[LEASES],
        code: 1,
        names: "10.244.0.0/33",
    },
    Case {
        what: "a network of the wrong JSON type",
        spoil: |lab| config(lab, r#"{"Network":10}"#),
        arguments: &[LEASES],
        code: 1,
        names: "Network",
    },
    Case {
        what: "an unknown backend",
        spoil: |lab| config(lab, r#"{"Network":"10.244.0.0/16","Backend":{"Type":"pigeon"}}"#),
        arguments: &[LEASES],
        code: 1,
        names: "unknown backend type: pigeon",
    },
    Case {
        what: "the backend in user space",
        spoil: |lab| config(lab, r#"{"Network":"10.244.0.0/16","Backend":{"Type":"udp"}}"#),
        arguments: &[LEASES],
        code: 1,
        names: "Backend.Type \"udp\" in the network configuration is not built",
    },
    Case {
        what: "a subnet length that does not fit",
        spoil: |lab| config(lab, r#"{"Network":"10.244.0.0/16","SubnetLen":31}"#),
        arguments: &[LEASES],
        code: 1,
        names: "SubnetLen must be less than /31",
    },
    Case {
        what: "a lease file cut short that was the node's own",
        spoil: former_lease_cut_short,
        arguments: &[LEASES, "--subnet-file=/run/lab/former.env"],
        code: 1,
        names: "10.244.7.0-24",
    },
    Case {
        what: "an interface that does not exist",
        spoil: |_| (),
        arguments: &[LEASES, "--iface=eth7"],
        code: 1,
        names: "eth7",
    },
    Case {
        what: "a public address that no interface has",
        spoil: |_| (),
        arguments: &[LEASES, "--public-ip=203.0.113.9"],
        code: 1,
        names: "203.0.113.9",
    },
    Case {
        what: "a lease directory that is a file",
        spoil: |_| (),
        arguments: &["--lease-dir=/run/lab/bin/flanneld"],
        code: 1,
        names: "/run/lab/bin/flanneld",
    },
    Case {
        what: "a lease directory that is read-only",
        spoil: read_only_leases,
        arguments: &["--lease-dir=/run/read-only"],
        code: 1,
        names: "/run/read-only",
    },
    Case {
        what: "a public address that is no address",
        spoil: |_| (),
        arguments: &[LEASES, "--public-ip=nonsense"],
        code: 2,
        names: "public-ip",
    },
    Case {
        what: "a renewal margin out of range",
        spoil: |_| (),
        arguments: &[LEASES, "--subnet-lease-renew-margin=1440"],
        code: 1,
        names: "subnet-lease-renew-margin",
    },
    Case {
        what: "a renewal margin that is no number",
        spoil: |_| (),
        arguments: &[LEASES, "-subnet-lease-renew-margin=soon"],
        code: 2,
        names: "subnet-lease-renew-margin",
    },
    Case {
        what: "a switch with a value that is none",
        spoil: |_| (),
        arguments: &[LEASES, "--ip-masq=perhaps"],
        code: 2,
        names: "ip-masq",
    },
    Case {
        what: "an unknown flag",
        spoil: |_| (),
        arguments: &[LEASES, "--frobnicate"],
        code: 2,
        names: "frobnicate",
    },
];

fn config(lab: &Lab, text: &str) {
    fs::write(lab.shared_file("leases/config"), text).unwrap();
}

fn former_lease_cut_short(lab: &Lab) {
    fs::create_dir_all(lab.shared_file("leases/subnets")).unwrap();
    let lease = lab.shared_file("leases/subnets/10.244.7.0-24");
    fs::write(lease, r#"{"PublicIP":"192.168.77.9","Publ"#).unwrap();
    let former = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
    fs::write(lab.shared_file("former.env"), former).unwrap();
}

/// Root may write everywhere but on a read-only mount.
fn read_only_leases(lab: &Lab) {
    let node = &lab.nodes()[0];
    for argv in [
        &["mkdir", "/run/read-only"][..],
        &["mount", "--bind", LEASE_DIR, "/run/read-only"],
        &["mount", "-o", "remount,bind,ro", "/run/read-only"],
    ] {
        let output = node.exec(argv).unwrap();
        assert!(
            output.status.success(),
            "{argv:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

/// What is wrong with how a daemon took a case; nothing, if it took it well.
fn complaints(case: &Case) -> Vec<String> {
    let lab = bare(1);
    (case.spoil)(&lab);
    let node: &Node = &lab.nodes()[0];
    let (before, leases) = (dump(node), files_below(&lab.shared_file("leases")));
    let attempt = node.try_flanneld(case.arguments, LIMIT).unwrap();

    let mut wrong = Vec::new();
    let mut expect = |held: bool, complaint: String| {
        if !held {
            wrong.push(format!("{}: {complaint}", case.what));
        }
    };
    let code = attempt.status.and_then(|status| status.code());
    expect(
        code == Some(case.code),
        format!(
            "exit {:?} instead of {}: {}",
            attempt.status, case.code, attempt.stderr
        ),
    );
    let sentence = without_log(&attempt.stderr);
    expect(
        sentence.contains(case.names),
        format!("{:?} is not named: {}", case.names, attempt.stderr),
    );
    expect(
        !attempt.stderr.contains("panicked"),
        format!("a panic: {}", attempt.stderr),
    );
    let lines = sentence.lines().count();
    expect(
        lines <= 3,
        format!("{lines} lines instead of a sentence: {}", attempt.stderr),
    );
    expect(
        files_below(&lab.shared_file("leases")) == leases,
        "the lease directory changed".to_owned(),
    );
    expect(
        !node.file(SUBNET_FILE).exists(),
        "there is a subnet file".to_owned(),
    );
    let changes = before.changes_to(&dump(node));
    expect(
        changes.is_empty(),
        format!("the kernel changed: {}", changes.join("\n")),
    );
    wrong
}

/// What a daemon said besides its log, whose lines have a level.
fn without_log(stderr: &str) -> String {
    let is_log = |line: &&str| {
        [" INFO ", " WARN ", " DEBUG "]
            .iter()
            .any(|level| line.contains(level))
    };
    stderr
        .lines()
        .filter(|line| !is_log(line))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn every_bad_input_gives_one_clear_sentence_and_changes_nothing() {
    let wrong: Vec<_> = CASES.iter().flat_map(complaints).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_configuration_that_becomes_bad_while_the_daemon_runs_changes_nothing() {
    let lab = bare(2);
    let daemons: Vec<_> = lab
        .nodes()
        .iter()
        .map(|node| node.start_flanneld(&[]).unwrap())
        .collect();
    let node = &lab.nodes()[0];
    conformance::lab::wait_until("the peer", LIMIT, || {
        Ok(crate::support::tunnel(node).count("fdb") == 1)
    })
    .unwrap();
    let before = dump(node);
    config(&lab, "{\"Network\":");
    std::thread::sleep(Duration::from_secs(3));
    assert_same("the node", &before, &dump(node));
    config(&lab, NET_CONF);
    std::thread::sleep(Duration::from_millis(500));
    assert_same("the node", &before, &dump(node));
    for mut daemon in daemons {
        assert!(daemon.ended().unwrap().is_none(), "a daemon ended");
    }
}
