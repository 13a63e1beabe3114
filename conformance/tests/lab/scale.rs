//! A thousand peers in etcd: all are programmed, and changing them again and again costs neither memory nor log.

use conformance::lab::{Lab, Node, wait_until};

use crate::support::{LONG, bare_on_etcd};

const PEERS: u32 = 1000;
/// How often every lease is changed.
const ROUNDS: u32 = 6;
/// What memory may grow by after the first rounds, and what each round may add to the log.
const GROWTH_KIB: u64 = 2 << 10;
const LOG_BYTES: usize = 64 << 10;

#[test]
fn a_thousand_leases_are_programmed_and_thousands_of_changes_cost_no_memory() {
    let lab = bare_on_etcd(1);
    lab.put_in_etcd(
        "config",
        r#"{"Network":"10.0.0.0/8","SubnetMin":"10.0.0.0","SubnetMax":"10.0.255.0","Backend":{"Type":"vxlan"}}"#,
        None,
    )
    .unwrap();
    put_all(&lab, 0);
    let node = lab.node(1).unwrap();
    let daemon = node.start_flanneld(&[]).unwrap();
    await_all(node, 0);
    let routes = node.ip(&["route", "show", "dev", "flannel.1"]).unwrap();
    assert!(routes.contains("10.4.231.0/24 via 10.4.231.0 onlink"), "{routes}");
    let mut warm_kib = 0;
    for round in 1..=ROUNDS {
        put_all(&lab, round);
        await_all(node, round);
        if round == 2 {
            warm_kib = daemon.rss_kib().unwrap();
        }
    }
    let kib = daemon.rss_kib().unwrap();
    assert!(kib <= warm_kib + GROWTH_KIB, "{warm_kib} KiB grew to {kib} KiB");
    let log = node.log("flanneld").unwrap();
    let most = LOG_BYTES * usize::try_from(ROUNDS).unwrap();
    assert!(log.len() < most, "{} bytes of log", log.len());
}

/// Gives every peer the public IP of a round.
fn put_all(lab: &Lab, round: u32) {
    let lease = |number: u32| {
        let (high, low) = (number / 256, number % 256);
        let value = format!(
            "{{\"PublicIP\":\"172.{}.{high}.{low}\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\"BackendData\":\
             {{\"VNI\":1,\"VtepMAC\":\"02:5c:00:00:{high:02x}:{low:02x}\"}}}}",
            16 + round
        );
        (format!("subnets/10.{}.{low}.0-24", 1 + high), Some(value))
    };
    let leases: Vec<_> = (0..PEERS).map(lease).collect();
    lab.change_in_etcd(&leases).unwrap();
}

/// Waits until the kernel has all routes, neighbours, and the forwarding entries of a round.
fn await_all(node: &Node, round: u32) {
    let wanted = usize::try_from(PEERS).unwrap();
    let remote = format!(" dst 172.{}.", 16 + round);
    let lines = |argv: &[&str], part: &str| {
        let output = node.exec(argv).unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        text.lines().filter(|line| line.contains(part)).count()
    };
    wait_until("all peers to be programmed", LONG, || {
        Ok(
            lines(&["bridge", "fdb", "show", "dev", "flannel.1"], &remote) == wanted
                && lines(&["ip", "neigh", "show", "dev", "flannel.1"], "PERMANENT") == wanted
                && lines(&["ip", "-4", "route", "show", "dev", "flannel.1"], "onlink") == wanted,
        )
    })
    .unwrap();
}
