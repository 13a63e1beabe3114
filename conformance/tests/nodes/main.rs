//! The judge of networks is judged: by a network that is right, and by some that are broken on purpose.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod cluster;
mod exec;
mod flaws;
mod heavy;
mod hosts;
mod kubelet;
mod newcomer;
#[path = "../shared/report.rs"]
mod report;
mod support;

use support::{judge, outcomes, program, told};

#[test]
fn our_network_passes_and_every_form_of_the_report_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (junit, html) = (file("report.xml"), file("report.html"));
    let run = judge(
        program(),
        &["--lab", "--store=etcd", "--junit", &junit, "--html", &html],
    );
    assert!(run.good, "{}", told(&run.report));
    let count = run.report["cases"].as_array().unwrap().len();
    // A lab has no API.
    let skipped = outcomes(&run.report, "skipped");
    assert!(skipped.iter().all(|case| case.starts_with("KUB-")), "{skipped:?}");
    let passed = outcomes(&run.report, "passed").len();
    assert_eq!(passed + skipped.len(), count, "{}", run.table);
    assert!(passed >= 70, "{passed}");
    let families = run.table.matches("IPv6").count();
    assert_eq!(families, count / 2, "{}", run.table);
    let junit = std::fs::read_to_string(junit).unwrap();
    assert_eq!(junit.matches("<testcase ").count(), count);
    let html = std::fs::read_to_string(html).unwrap();
    assert_eq!(html.matches("<tr><td class=").count(), count);
    assert_eq!(
        run.table.lines().filter(|line| line.starts_with("pass ")).count(),
        passed
    );
    assert_eq!(run.report["nodes"].as_array().unwrap().len(), 3);
    assert_eq!(run.report["pods"].as_array().unwrap().len(), 6);
}

#[test]
fn what_cannot_be_judged_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("config");
    // No name is looked up, and nothing is asked of this machine's own configuration.
    std::fs::write(&config, "ProxyCommand false\n").unwrap();
    let config = format!("--ssh-config={}", config.display());
    for (arguments, words, status) in [
        (
            &["--lab", "--only=NET-01", "--only=XYZ"][..],
            "'XYZ' for '--only <ID>'",
            2,
        ),
        (&["--lab", "--only=TAB-07"], "no case is about TAB-07", 2),
        (&["--lab", "--known=/proc/version"], "reading /proc/version", 2),
        (&["--lab", "--bin-dir=/proc"], "/proc has no flanneld", 2),
        (
            &["--lab", "--json=/dev/null", "--junit=/dev/null"],
            "--json and --junit both name /dev/null",
            2,
        ),
        (
            &["--lab", "--net-conf=/proc/version"],
            "'/proc/version' for '--net-conf <FILE>': it is no network configuration",
            2,
        ),
        (&["--hosts=,"], "names no host", 2),
        (&["--guests", "--flaw=no-fdb"], "only have the flaw masquerade", 2),
        (&["--hosts=a,a"], "named twice", 2),
        (&["--hosts=-oProxyCommand=true"], "is no host", 2),
        (&["--kubeconfig=/proc/version"], "reading the kubeconfig", 2),
        // Somebody else's failure, not the command line's.
        (
            &["--hosts=nobody@nowhere.invalid", "--only=NET", &config],
            "nobody@nowhere.invalid: the agent did not start",
            1,
        ),
    ] {
        let output = program().arg("nodes").args(arguments).output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(status), "{said}");
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_network_without_tunnels_is_judged_by_what_it_does() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("net-conf.json");
    let flag = format!("--net-conf={}", conf.display());
    for backend in [
        r#""Type": "host-gw""#,
        r#""Type": "vxlan", "DirectRouting": true"#,
    ] {
        let text = r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"#;
        std::fs::write(&conf, format!("{text}{backend}}}}}")).unwrap();
        is_judged_by_what_it_does(&flag);
    }
}

fn is_judged_by_what_it_does(conf: &str) {
    let run = judge(
        program(),
        &["--lab", "--nodes=2", conf, "--only=NET,MTU,TAB,RST,RPR"],
    );
    assert!(run.good, "{}", told(&run.report));
    let skipped: Vec<_> = outcomes(&run.report, "skipped")
        .into_iter()
        .filter(|case| case.contains(" IPv4 "))
        .map(|case| case.split(' ').next().unwrap().to_owned())
        .collect();
    assert_eq!(
        skipped,
        [
            "RPR-01", "RPR-02", "RPR-03", "RPR-05", "RPR-06", "TAB-02", "TAB-03", "TAB-04"
        ]
    );
    assert!(
        outcomes(&run.report, "passed")
            .iter()
            .any(|case| case.starts_with("RPR-04 IPv4"))
    );
}
