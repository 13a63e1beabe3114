//! The judge of plugins is judged: by plugins that are known to be right, and by some that are broken on purpose.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod broken;
mod support;

use std::collections::BTreeSet;

use serde_json::{Value, json};
use support::{KNOWN, REFERENCE, cases, judge, names, ours, told};

/// Every plugin that the binary has, chained, in both families; what `flannel` hands on by itself is here in the open.
fn every_plugin() -> Value {
    json!({"name": "conformance", "cniVersion": "1.0.0", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
            "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.88.0.0/16"}], [{"subnet": "fd00:88::/64"}]]}},
        {"type": "portmap", "capabilities": {"portMappings": true}},
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {"net.core.somaxconn": "500"}},
        {"type": "bandwidth", "capabilities": {"bandwidth": true}},
    ]})
}

#[test]
fn the_references_plugins_pass_but_for_what_is_known() {
    let run = judge(REFERENCE.as_ref(), &["--known", KNOWN]);
    assert!(run.good, "{}", told(&run.report));
    assert!(cases(&run.report, "passed").len() > 170, "{}", run.table);
    assert!(cases(&run.report, "known").len() >= 30, "{}", run.table);
    // What came after the plugins is passed over, and nothing else.
    for case in cases(&run.report, "skipped") {
        let reason = case["reason"].as_str().unwrap();
        let newer = case["versions"] == "1.1.0 and later" && reason.contains("supports");
        let absent = ["the directory has no flannel", "it does not support 1.1.0"];
        assert!(newer || absent.contains(&reason), "{case}");
    }
}

#[test]
fn our_plugins_pass() {
    let dir = ours();
    let flannel = judge(dir.path(), &[]);
    assert!(flannel.good, "{}", told(&flannel.report));
    assert!(cases(&flannel.report, "passed").len() > 200, "{}", flannel.table);
    let conf = dir.path().join("every.conflist");
    std::fs::write(&conf, every_plugin().to_string()).unwrap();
    let every = judge(dir.path(), &["--conf", conf.to_str().unwrap()]);
    assert!(every.good, "{}", told(&every.report));
    assert!(cases(&every.report, "passed").len() > 380, "{}", every.table);
    // What one run skips is shown by the other.
    let passed: BTreeSet<_> = [&flannel, &every]
        .into_iter()
        .flat_map(|run| names(&run.report, "passed"))
        .collect();
    let skipped = names(&flannel.report, "skipped");
    let never: Vec<_> = skipped.difference(&passed).collect();
    assert!(never.is_empty(), "{never:?}");
}

#[test]
fn every_form_of_the_report_is_written() {
    let dir = ours();
    let file = |name: &str| dir.path().join(name);
    let (junit, html) = (file("report.xml"), file("report.html"));
    let arguments = [
        "--only=VER",
        "--junit",
        junit.to_str().unwrap(),
        "--html",
        html.to_str().unwrap(),
    ];
    let run = judge(dir.path(), &arguments);
    let count = run.report["cases"].as_array().unwrap().len();
    let junit = std::fs::read_to_string(junit).unwrap();
    assert_eq!(junit.matches("<testcase ").count(), count);
    let html = std::fs::read_to_string(html).unwrap();
    assert_eq!(html.matches("<tr><td class=").count(), count);
    assert_eq!(
        run.table.lines().filter(|line| line.starts_with("pass ")).count(),
        count
    );
}

#[test]
fn a_form_that_cannot_be_written_keeps_no_other_back() {
    let dir = ours();
    let html = dir.path().join("report.html");
    let mut judge = support::program();
    judge.args(["cni", "--only=VER-01", "--json=/dev/full", "--junit=/dev/full/x"]);
    judge.arg("--plugin-dir").arg(dir.path()).arg("--html").arg(&html);
    // What has no directory is known before.
    assert_eq!(judge.output().unwrap().status.code(), Some(2));
    assert!(!html.exists());
    let mut judge = support::program();
    judge.args(["cni", "--only=VER-01", "--json=/dev/full"]);
    judge.arg("--plugin-dir").arg(dir.path()).arg("--html").arg(&html);
    let output = judge.output().unwrap();
    let [table, said] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("could not be written to /dev/full: No space"),
        "{said}"
    );
    let closing = format!("report written to {}\n", html.display());
    assert!(table.starts_with("pass ") || table.contains("\npass "), "{table}");
    assert!(table.ends_with(&closing) && html.exists(), "{table}");
}

#[test]
fn what_cannot_be_judged_is_told() {
    let dir = ours();
    let list = |name: &str, text: &str| {
        let path = dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let missing = list("missing", "{\"name\":\"a\",\"type\":\"macvlan\"}");
    let (broken, known) = (list("broken", "{"), list("known", "ENV-01 | * | sings | x"));
    for (arguments, words) in [
        (["--plugin-dir=/proc", "--jobs=1"], "give the configuration"),
        (
            [
                &format!("--plugin-dir={}", dir.path().display()),
                &format!("--conf={missing}"),
            ],
            "no program macvlan",
        ),
        (
            [
                &format!("--plugin-dir={}", dir.path().display()),
                &format!("--conf={broken}"),
            ],
            "as JSON",
        ),
        (
            [
                &format!("--plugin-dir={}", dir.path().display()),
                &format!("--known={known}"),
            ],
            "no case \"sings\"",
        ),
        (
            [
                &format!("--plugin-dir={}", dir.path().display()),
                "--only=DEL-01,XYZ",
            ],
            "'XYZ' for '--only <ID>': no requirement has an id that begins so: there are ENV-01 to ENV-13",
        ),
        (
            ["--plugin-dir=/proc", "--html=/proc/report"],
            "'/proc/report' for '--html <FILE>': it cannot be written",
        ),
        (
            ["--plugin-dir=/nonexistent", "--jobs=1"],
            "there is no such directory",
        ),
    ] {
        let output = support::program().arg("cni").args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(words), "{said}");
    }
}
