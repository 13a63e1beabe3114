//! Networks that are broken on purpose: exactly the cases fail that are about what is broken.

use crate::support::{judge, outcomes, program};

/// Judges a small lab with a flaw, and returns the cases that failed; none may end otherwise but by passing.
fn failed_with(flaw: &str, only: &str) -> Vec<String> {
    let arguments = ["--lab", "--nodes=2", "--pods=1", "--flaw", flaw, "--only", only];
    let run = judge(program(), &arguments);
    assert!(!run.good, "{}", run.table);
    let failed = outcomes(&run.report, "failed");
    let passed = outcomes(&run.report, "passed");
    assert_eq!(
        failed.len() + passed.len(),
        run.report["cases"].as_array().unwrap().len(),
        "{}",
        run.table
    );
    failed.into_iter().collect()
}

#[test]
fn a_sender_hidden_behind_its_node_is_noticed() {
    assert_eq!(
        failed_with("masquerade", "NET,MTU,TAB,HPT,CON"),
        [
            "NET-01 IPv4 every pod reaches every pod over TCP, and is seen at its own address",
            "NET-01 IPv4 every pod reaches every pod over UDP, and is seen at its own address",
        ]
    );
}

#[test]
fn an_underlay_that_drops_large_packets_in_silence_is_noticed() {
    assert_eq!(
        failed_with("black-hole", "NET,MTU-01,MTU-02,MTU-03,TAB"),
        [
            "MTU-01 IPv4 packets of the pods' MTU go undivided from every node to every pod",
            "MTU-01 IPv4 packets of the pods' MTU go undivided from every pod to every pod",
            "MTU-01 IPv6 packets of the pods' MTU go undivided from every node to every pod",
            "MTU-01 IPv6 packets of the pods' MTU go undivided from every pod to every pod",
            // A node's own tunnel takes more in IPv4 than pods do, which leave room for IPv6.
            "MTU-02 IPv4 who sends a packet larger than the MTU is told so",
            "MTU-03 IPv4 datagrams of 8 kB go from every node and every pod to every pod and back",
            "MTU-03 IPv6 datagrams of 8 kB go from every node and every pod to every pod and back",
        ]
    );
}

#[test]
fn a_forwarding_entry_that_is_missing_is_noticed() {
    assert_eq!(
        failed_with("no-fdb", "NET,TAB"),
        [
            "NET-01 IPv4 every pod reaches every pod by ICMP",
            "NET-01 IPv4 every pod reaches every pod over TCP, and is seen at its own address",
            "NET-01 IPv4 every pod reaches every pod over UDP, and is seen at its own address",
            "NET-02 IPv4 every node reaches every pod by ICMP",
            "NET-02 IPv4 every node reaches every pod over TCP, and is seen at an address of its own",
            "NET-02 IPv4 every node reaches every pod over UDP, and is seen at an address of its own",
            "TAB-04 IPv4 each node has a forwarding entry for each other node's tunnel, and no other",
        ]
    );
}

#[test]
fn a_difference_that_is_known_fails_no_run_and_one_that_is_mended_does() {
    let dir = tempfile::tempdir().unwrap();
    let list = dir.path().join("known");
    let known = format!("--known={}", list.display());
    let seen = "its own address | a flaw of this test";
    let name =
        |transport: &str| format!("every pod reaches every pod over {transport}, and is seen at {seen}");
    std::fs::write(
        &list,
        format!("NET-01 | IPv4 | {}\nNET-01 | * | {}\n", name("TCP"), name("UDP")),
    )
    .unwrap();
    let arguments = [
        "--lab",
        "--nodes=2",
        "--pods=1",
        "--flaw=masquerade",
        "--only=NET-01",
        &known,
    ];
    let run = judge(program(), &arguments);
    let count = |outcome: &str| outcomes(&run.report, outcome).len();
    assert_eq!(
        (count("known"), count("failed"), count("stale")),
        (2, 0, 1),
        "{}",
        run.table
    );
    assert!(!run.good, "{}", run.table);
}

/// Judges a lab whose failover has a flaw, and returns the cases that failed.
fn failing_over(flaw: &str, more: &[&str]) -> Vec<String> {
    let arguments = [&["--lab", "--nodes=2", "--pods=1", "--flaw", flaw], more].concat();
    let run = judge(program(), &arguments);
    assert_eq!(outcomes(&run.report, "error").len(), 0, "{}", run.table);
    outcomes(&run.report, "failed").into_iter().collect()
}

#[test]
fn a_daemon_that_does_not_come_back_is_noticed() {
    // When the other family is judged, none is seen that could be taken away.
    assert_eq!(
        failing_over("no-start", &["--only=FOV-03"]),
        ["FOV-03 IPv4 no packet between pods is lost while a node's daemon is gone and when it starts again"]
    );
}

/// Routes by the underlay go with its link.
#[test]
fn a_daemon_that_mends_nothing_after_its_link_was_down_is_noticed() {
    let conf = tempfile::NamedTempFile::new().unwrap();
    let text = r#"{"Network": "10.244.0.0/16", "EnableNFTables": true, "Backend": {"Type": "host-gw"}}"#;
    std::fs::write(conf.path(), text).unwrap();
    let conf = format!("--net-conf={}", conf.path().display());
    assert_eq!(
        failing_over("frozen", &[&conf, "--only=FOV-02"]),
        ["FOV-02 IPv4 packets flow and tables are whole soon after a node's link to the underlay was down"]
    );
}

#[test]
fn packets_that_are_lost_while_the_store_is_away_are_noticed() {
    let name = "no packet between pods is lost while the lease store is away, and a route that is deleted meanwhile comes back";
    assert_eq!(
        failing_over("outage-flush", &["--store=etcd", "--only=FOV-01"]),
        ["IPv4", "IPv6"].map(|family| format!("FOV-01 {family} {name}"))
    );
}
