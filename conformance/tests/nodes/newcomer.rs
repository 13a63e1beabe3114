//! The Node that a run lets join a cluster: what is seen of it, and that nothing of it stays.

use std::thread;

use conformance::lab::wait_until;
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::cluster::{Cluster, LIMIT, V4, told_skipped, truth};
use crate::support::{outcomes, told};

/// What it gets in the lab's network.
const SUBNET: &str = "10.244.255.0/24";
const HOST_GW: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","EnableNFTables":true,"Backend":{"Type":"host-gw"}}"#;

impl Cluster {
    /// Waits until a node has a route to the newcomer, or none.
    fn await_route(&self, node: usize, is_there: bool) {
        let node = &self.lab.nodes()[node];
        wait_until("the newcomer's route", LIMIT, || {
            Ok(node.ip(&["route", "show", "exact", SUBNET])?.is_empty() != is_there)
        })
        .unwrap();
    }
}

#[test]
fn a_node_that_does_not_forget_who_has_left_is_noticed() {
    let cluster = Cluster::start(2, V4, truth);
    let fault = json!({"at": "DELETE /api/v1/nodes/flannel", "trouble": {"delay": 6_000}});
    cluster.lab.order_api("fault", &fault).unwrap();
    let run = thread::scope(|scope| {
        let run = scope.spawn(|| cluster.judge(&["--pods=1", "--only=KUB,TAB"]));
        cluster.await_route(1, true);
        cluster.daemons[1].signal(Signal::SIGSTOP).unwrap();
        run.join().unwrap()
    });
    assert!(!run.good, "{}", run.table);
    assert_eq!(
        outcomes(&run.report, "failed").into_iter().collect::<Vec<_>>(),
        ["KUB-05 IPv4 a Node that joins becomes a peer of each node, and leaves no trace when it is deleted"],
        "{}",
        run.table
    );
    let observed = told(&run.report);
    for entry in [
        "node2 has ",
        "10.244.255.0 is ",
        "10.244.255.0/24 via 10.244.255.0",
        "behind 192.0.2.254",
    ] {
        assert!(observed.contains(entry), "{observed}");
    }
    assert!(!observed.contains("node1 has"), "{observed}");
    assert_eq!(cluster.left(), Vec::<String>::new());
    cluster.daemons[1].signal(Signal::SIGCONT).unwrap();
    cluster.await_route(1, false);
}

#[test]
fn a_run_that_is_ended_removes_the_node_that_joined() {
    let cluster = Cluster::start(2, V4, truth);
    // It waits for this one to take it up.
    cluster.daemons[1].signal(Signal::SIGSTOP).unwrap();
    let mut run = cluster.start_run("KUB-05");
    cluster.await_route(0, true);
    let [name] = &cluster.newcomers()[..] else {
        panic!("{:?}", cluster.newcomers());
    };
    let object = cluster.get(&format!("/api/v1/nodes/{name}"));
    let label = "app.kubernetes.io/managed-by";
    assert_eq!(object["metadata"]["labels"][label], "flannel-conformance");
    assert_eq!(object["spec"]["unschedulable"], true);
    run.signal(Signal::SIGTERM).unwrap();
    assert_eq!(run.wait(LIMIT).unwrap().1.code(), Some(1));
    assert_eq!(cluster.left(), Vec::<String>::new());
    cluster.daemons[1].signal(Signal::SIGCONT).unwrap();
    cluster.await_route(0, false);
}

#[test]
fn who_may_not_make_a_node_or_not_delete_one_makes_none() {
    let cluster = Cluster::start(1, V4, truth);
    for at in ["POST /api/v1/nodes", "DELETE /api/v1/nodes/"] {
        let fault = json!({"at": at, "trouble": {"refuse": {"code": 403}}});
        cluster.lab.order_api("fault", &fault).unwrap();
        let run = cluster.judge(&["--pods=1", "--only=KUB-05"]);
        assert!(run.good, "{}", run.table);
        let why = told_skipped(&run.report).concat();
        assert!(
            why.contains("it takes the verbs create and delete of nodes") && why.contains(at),
            "{why}"
        );
        cluster.lab.order_api("faults/clear", &Value::Null).unwrap();
        assert_eq!(cluster.left(), Vec::<String>::new());
    }
}

#[test]
fn a_newcomer_is_a_peer_of_another_backend_too() {
    let cluster = Cluster::start(2, HOST_GW, truth);
    let run = cluster.judge(&["--pods=1", "--only=KUB"]);
    assert!(run.good, "{}\n{}", run.table, told(&run.report));
    assert_eq!(outcomes(&run.report, "passed").len(), 10, "{}", run.table);
    assert_eq!(cluster.left(), Vec::<String>::new());
}
