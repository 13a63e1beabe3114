//! The judge on nodes with a kernel of their own.

use conformance::guest::{Accelerator, KernelPackage};

use crate::support::{judge, outcomes, program};

/// One boot shows both: that guests are judged as other nodes are, and that what is wrong on them is noticed.
#[test]
fn a_sender_hidden_behind_its_node_is_noticed_on_guests_with_wireguard_and_all_else_passes() {
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("net-conf.json");
    std::fs::write(
        &conf,
        r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:10:244::/48",
            "EnableNFTables": true, "Backend": {"Type": "wireguard"}}"#,
    )
    .unwrap();
    let conf = format!("--net-conf={}", conf.display());
    let only = "--only=NET,MTU-01,MTU-03,HPT,TAB-01,TAB-05,TAB-06,RPR-04";
    let run = judge(
        program(),
        &["--guests", "--pods=1", "--flaw=masquerade", &conf, only],
    );
    assert!(!run.good, "{}", run.table);
    let failed: Vec<_> = outcomes(&run.report, "failed").into_iter().collect();
    assert_eq!(
        failed,
        [
            "NET-01 IPv4 every pod reaches every pod over TCP, and is seen at its own address",
            "NET-01 IPv4 every pod reaches every pod over UDP, and is seen at its own address",
        ],
        "{}",
        run.table
    );
    let count = run.report["cases"].as_array().unwrap().len();
    let passed = outcomes(&run.report, "passed").len();
    assert_eq!(failed.len() + passed, count, "{}", run.table);
    assert!(run.table.starts_with("2 guests with Linux 6.1."), "{}", run.table);
    let kernel = KernelPackage::get().unwrap();
    let is_emulated = Accelerator::choose(&kernel.image()).unwrap() == Accelerator::Tcg;
    assert_eq!(
        run.table.contains("limits are 10 times"),
        is_emulated,
        "{}",
        run.table
    );
}
