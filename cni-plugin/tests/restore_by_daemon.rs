//! The node daemon has mapped ports put back that somebody flushed, in either back end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;
mod ports;

use std::time::{Duration, Instant};

use common::{BINARY, on_a_node, sh};
use flanneld_rs::port_rules::PortRules;
use ports::{call, mapping};

/// The limit of a wait on a busy machine; the daemon looks at once, or two seconds after its last look.
const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn flushed_rules_of_mapped_ports_come_back_by_themselves() {
    for (backend, flush) in [
        ("nftables", "nft flush ruleset"),
        ("nftables", "nft delete table ip cni_hostport"),
        ("iptables", "iptables-nft -t nat -F; iptables-nft -t nat -X"),
    ] {
        on_a_node(move |node| {
            let (pod, result) = node.attached("a");
            let mut conf = node.ports_conf(&result, &[mapping(8080, 80, "tcp")]);
            conf["backend"] = backend.into();
            call(&node, "ADD", &pod, &conf).succeeds();
            let check = call(&node, "CHECK", &pod, &conf);
            check.succeeds();
            // The monitor belongs to the namespace of the thread that opens it, as do the programs that it runs.
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.unwrap();
            runtime.block_on(async {
                let _kept = PortRules::keep(BINARY.into(), node.path("portmap"));
                for _ in 0..2 {
                    sh(node.dir.path(), flush);
                    let deadline = Instant::now() + PATIENCE;
                    while check.run().code != 0 {
                        assert!(Instant::now() < deadline, "{flush} is not mended");
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            });
        });
    }
}
