//! The call itself: variables, standard input, versions, names.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::io::{self, Read};

use cni_plugin::{Edges, Input, Output, run};
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use serde_json::Value;

/// Makes a call in an empty network namespace.
fn call(program: &str, vars: &[(&str, &str)], stdin: &mut (dyn Read + Send)) -> Output {
    let vars = vars.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let input = Input {
        program: program.to_owned(),
        vars: vars.collect(),
        ..Input::default()
    };
    let inside = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        run(&input, &mut Edges { stdin, random: 1 })
    };
    std::thread::scope(|scope| scope.spawn(inside).join().unwrap())
}

const ADD: [(&str, &str); 5] = [
    ("CNI_COMMAND", "ADD"),
    ("CNI_CONTAINERID", "a"),
    ("CNI_NETNS", "/nonexistent"),
    ("CNI_IFNAME", "eth0"),
    ("CNI_PATH", "/nonexistent"),
];

fn error(vars: &[(&str, &str)], stdin: &str) -> (u64, Value) {
    let output = call("/opt/cni/bin/flannel", vars, &mut stdin.as_bytes());
    assert_eq!((output.code, output.stderr.as_str()), (1, ""));
    let value: Value = serde_json::from_str(&output.stdout).unwrap();
    (value["code"].as_u64().unwrap(), value)
}

fn with(command: &'static str) -> Vec<(&'static str, &'static str)> {
    let mut vars = ADD.to_vec();
    vars[0].1 = command;
    vars
}

struct Unreadable;

impl Read for Unreadable {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::Error::other("broken"))
    }
}

#[test]
fn checks_come_in_the_references_order() {
    let bad_id = [
        ("CNI_COMMAND", "ADD"),
        ("CNI_CONTAINERID", "-"),
        ("CNI_IFNAME", "a/b"),
    ];
    let (code, value) = error(&bad_id, "");
    assert_eq!(
        (code, value["msg"].as_str().unwrap()),
        (4, "required env variables [CNI_NETNS] missing")
    );
    let mut vars = ADD.to_vec();
    vars[1].1 = "-";
    assert_eq!(error(&vars, "").0, 4);
    let unread = call("flannel", &ADD, &mut Unreadable);
    assert!(unread.stdout.contains("\"code\": 5"), "{unread:?}");
    assert_eq!(error(&ADD, "").0, 6);
    assert_eq!(error(&ADD, "{\"name\":5}").0, 6);
    assert_eq!(error(&ADD, "null").0, 7);
    assert_eq!(error(&ADD, "{\"cniVersion\":\"9\"}").0, 7);
    let (code, value) = error(&ADD, "{\"cniVersion\":\"9\",\"name\":\"a\"}");
    assert_eq!(
        (code, value["msg"].as_str().unwrap()),
        (1, "incompatible CNI versions")
    );
    assert!(value["details"].as_str().unwrap().contains("\"9\""));
    assert_eq!(
        error(
            &ADD,
            "{\"cniVersion\":\"1.0.0\",\"name\":\"a\",\"subnetFile\":\"/nonexistent\"}"
        )
        .0,
        8
    );
}

#[test]
fn a_configuration_without_end_is_refused() {
    let endless = call("flannel", &ADD, &mut io::repeat(b' '));
    let value: Value = serde_json::from_str(&endless.stdout).unwrap();
    assert_eq!((endless.code, &value["code"]), (1, &Value::from(6)));
    assert!(
        value["msg"].as_str().unwrap().contains("larger than 4 MiB"),
        "{value}"
    );
    let version = call("flannel", &[("CNI_COMMAND", "VERSION")], &mut io::repeat(b' '));
    assert_eq!(version.code, 0);
}

#[test]
fn what_is_too_large_is_not_parsed() {
    let large = format!("{{\"cniVersion\":\"0.4.0\",\"x\":[{}0]}}", "0,".repeat(3 << 20));
    let (code, value) = error(&ADD, &large);
    assert_eq!((code, &value["cniVersion"]), (6, &Value::from("1.1.0")));
    let within = format!("{{\"cniVersion\":\"0.4.0\",\"x\":\"{}\"}}", " ".repeat(3 << 20));
    let (code, value) = error(&ADD, &within);
    assert_eq!((code, &value["cniVersion"]), (7, &Value::from("0.4.0")));
}

#[test]
fn depth_and_numbers_of_any_size_are_answered() {
    let of = |key: &str, text: &str| format!("{{\"cniVersion\":\"1.0.0\",\"name\":\"a\",\"{key}\":{text}}}");
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let deep = |depth: usize| of("x", &format!("{}1{}", open.repeat(depth), close.repeat(depth)));
        assert_eq!(error(&ADD, &deep(100_000)).0, 6, "{open}");
        assert_eq!(
            error(&ADD, &deep(100)).0,
            8,
            "{open}: nobody asked for it, nobody looks at it"
        );
    }
    let long = "9".repeat(10_000);
    for number in ["1e999", "-1e999", "1.5", "-1", "9223372036854775808", &long] {
        for (program, key) in [
            ("bridge", "mtu"),
            ("bridge", "vlan"),
            ("bridge", "vlanTrunk"),
            ("bandwidth", "ingressRate"),
            ("portmap", "markMasqBit"),
            ("tuning", "mtu"),
            ("flannel", "delegate"),
        ] {
            let output = call(program, &ADD, &mut of(key, number).as_bytes());
            let error: Value = serde_json::from_str(&output.stdout).unwrap();
            assert!(
                output.code == 1 && error["code"].is_u64(),
                "{program} {key} {number}: {error}"
            );
        }
    }
}

#[test]
fn unknown_commands_are_named() {
    let (code, value) = error(&with("add"), "{}");
    assert_eq!(
        (code, value["msg"].as_str().unwrap()),
        (4, "unknown CNI_COMMAND: add")
    );
}

#[test]
fn verbs_that_came_later_need_a_configuration_of_their_version() {
    for (verb, old) in [("CHECK", "0.3.1"), ("STATUS", "1.0.0"), ("GC", "1.0.0")] {
        let (code, value) = error(
            &with(verb),
            &format!("{{\"cniVersion\":\"{old}\",\"name\":\"a\"}}"),
        );
        let msg = format!("config version does not allow {verb}");
        assert_eq!((code, value["msg"].as_str().unwrap()), (1, msg.as_str()));
        assert_eq!(value["cniVersion"], old);
    }
}

#[test]
fn version_needs_nothing_and_repeats_the_callers_version() {
    for (stdin, own) in [
        ("", "1.1.0"),
        ("{\"cniVersion\":\"0.4.0\"}", "0.4.0"),
        ("x", "1.1.0"),
    ] {
        let output = call("flannel", &[("CNI_COMMAND", "VERSION")], &mut stdin.as_bytes());
        assert_eq!(output.code, 0);
        let value: Value = serde_json::from_str(&output.stdout).unwrap();
        assert_eq!(value["cniVersion"], own);
        assert_eq!(value["supportedVersions"].as_array().unwrap().len(), 7);
    }
    let unread = call("flannel", &[("CNI_COMMAND", "VERSION")], &mut Unreadable);
    assert_eq!(unread.code, 0);
}

#[test]
fn without_a_command_it_says_who_it_is() {
    let output = call("flannel", &[], &mut io::empty());
    assert_eq!((output.code, output.stdout.as_str()), (0, ""));
    assert!(output.stderr.contains("flannel") && output.stderr.contains("1.1.0"));
}

#[test]
fn an_unknown_name_of_the_program_is_an_error() {
    let conf = "{\"cniVersion\":\"1.0.0\",\"name\":\"a\"}";
    let output = call("/opt/cni/bin/macvlan", &ADD, &mut conf.as_bytes());
    assert_eq!(output.code, 1);
    assert!(
        output.stdout.contains("no plugin \\\"macvlan\\\""),
        "{}",
        output.stdout
    );
}

#[test]
fn host_local_works_under_its_own_name() {
    let temp = tempfile::tempdir().unwrap();
    let conf = format!(
        r#"{{"cniVersion":"0.4.0","name":"net","type":"host-local",
            "ipam":{{"type":"host-local","dataDir":{:?},"subnet":"10.9.0.0/24","routes":[{{"dst":"0.0.0.0/0"}}]}}}}"#,
        temp.path()
    );
    let run = |command| call("/x/host-local", &with(command), &mut conf.as_bytes());
    let value: Value = serde_json::from_str(&run("ADD").stdout).unwrap();
    let wanted = serde_json::json!({"cniVersion": "0.4.0", "dns": {},
        "ips": [{"version": "4", "address": "10.9.0.2/24", "gateway": "10.9.0.1"}], "routes": [{"dst": "0.0.0.0/0"}]});
    assert_eq!(value, wanted);
    assert_eq!(run("CHECK"), Output::default());
    let again = run("ADD").stdout;
    assert!(
        again.contains("10.9.0.2 has been allocated to a, duplicate allocation is not allowed"),
        "{again}"
    );
    assert_eq!(run("DEL"), Output::default());
    assert_eq!(run("DEL"), Output::default());
    assert!(run("CHECK").stdout.contains("\"code\": 103"));
}

proptest! {
    /// The container's namespace does not exist, so that no input makes anything.
    #[test]
    fn arbitrary_input_never_panics_and_always_answers(
        command in "ADD|DEL|CHECK|STATUS|GC|VERSION|x",
        program in "flannel|bridge|host-local|x",
        conf in "\\PC{0,80}|\\{\"name\":\"a\",\"cniVersion\":\"(1.1.0|0.3.1|)\",\"(delegate|ipam|dns|prevResult|args|mtu)\":(\\[\\]|5|\"x\"|\\{\\}|null)\\}",
    ) {
        let vars = [("CNI_COMMAND", command.as_str()), ("CNI_CONTAINERID", "no-such-container"),
            ("CNI_NETNS", "/nonexistent"), ("CNI_IFNAME", "eth0"), ("CNI_PATH", "/nonexistent")];
        prop_assume!(!(program == "host-local" && command == "ADD"));
        let output = call(&program, &vars, &mut conf.as_bytes());
        let printed = serde_json::from_str::<Value>(&output.stdout);
        match output.code {
            0 => prop_assert!(output.stdout.is_empty() || command == "VERSION"),
            _ => prop_assert!(printed.unwrap()["code"].is_u64()),
        }
    }
}
