//! The daemons with their leases in etcd, and what happens to etcd.

use std::time::{Duration, Instant};

use conformance::lab::{Lab, Node, wait_until};

use crate::support::{Bed, LONG, assert_same, bare_on_etcd, pinging_during, running_in, stays, tunnel};

/// How long a change may take to come through after etcd has returned: the longest pause between two tries is 5 s.
const RECOVERY: Duration = Duration::from_secs(15);

/// Waits until a node has the route to another one's pods, and returns how long it took.
pub(crate) fn wait_for_route(node: &Node, peer: &Node, limit: Duration) -> Duration {
    let (subnet, length) = peer.subnet().unwrap();
    let route = format!("{subnet}/{length}");
    wait_until("a route to the new peer", limit, || {
        Ok(node.ip(&["route", "show", &route])?.contains("flannel.1"))
    })
    .unwrap()
}

fn lease_of(lab: &Lab, node: &Node) -> Option<String> {
    let (subnet, length) = node.subnet().unwrap();
    lab.lease_in_etcd(&format!("{subnet}-{length}")).unwrap()
}

#[test]
fn three_nodes_with_their_leases_in_etcd_reach_each_other() {
    let bed = running_in(bare_on_etcd(3), 2);
    for node in bed.lab.nodes() {
        let expected = format!(
            "{{\"PublicIP\":\"{}\",\"PublicIPv6\":null,\"BackendType\":\"vxlan\",\"BackendData\":{{\"VNI\":1,\
             \"VtepMAC\":\"{}\"}}}}",
            node.address(),
            node.vtep_mac().unwrap()
        );
        assert_eq!(lease_of(&bed.lab, node), Some(expected));
    }
    for (node, daemon) in bed.lab.nodes().iter().zip(&bed.daemons) {
        println!("{}: {} KiB", node.name(), daemon.rss_kib().unwrap());
    }
}

#[test]
fn etcd_killed_for_twenty_seconds_costs_no_packet_and_is_back_within_seconds() {
    outage(|lab| {
        lab.kill_etcd().unwrap();
        std::thread::sleep(Duration::from_secs(20));
    });
}

/// Takes etcd away under traffic and gives it back: no packet and no lease is lost, and a node that starts afterwards is
/// known to the others within seconds. When `away` returns, etcd does not run.
pub(crate) fn outage(away: impl FnOnce(&mut Lab)) {
    let mut lab = bare_on_etcd(3);
    // The third node comes later.
    let daemons = [1, 2].map(|number| lab.node(number).unwrap().start_flanneld(&[]).unwrap());
    let pods = [1, 2].map(|number| {
        lab.node(number)
            .unwrap()
            .add_pod(&format!("n{number}-p1"))
            .unwrap()
    });
    let target = pods[1].address();
    let tunnels = |lab: &Lab| [1, 2].map(|number| tunnel(lab.node(number).unwrap()));
    let leases = |lab: &Lab| [1, 2].map(|number| lease_of(lab, lab.node(number).unwrap()));
    wait_for_route(lab.node(1).unwrap(), lab.node(2).unwrap(), LONG);
    wait_for_route(lab.node(2).unwrap(), lab.node(1).unwrap(), LONG);
    let before = (tunnels(&lab), leases(&lab));
    assert!(before.1.iter().all(Option::is_some), "{:?}", before.1);
    let from = pods[0].namespaces();
    let ((), sent, lost) = pinging_during(from, &[target], || {
        away(&mut lab);
        lab.start_etcd().unwrap();
    });
    assert!(sent > 100, "{sent}");
    assert_eq!(lost, 0, "of {sent}");
    for (before, after) in before.0.iter().zip(&tunnels(&lab)) {
        assert_same("a node", before, after);
    }
    assert_eq!(leases(&lab), before.1);
    let start = Instant::now();
    let late = lab.node(3).unwrap().start_flanneld(&[]).unwrap();
    for number in [1, 2] {
        wait_for_route(lab.node(number).unwrap(), lab.node(3).unwrap(), RECOVERY);
    }
    println!(
        "both nodes know the new one {:?} after etcd's return",
        start.elapsed()
    );
    let log = lab.node(1).unwrap().log("flanneld").unwrap();
    assert_eq!(log.matches("the lease store is out of reach").count(), 1, "{log}");
    assert!(log.lines().count() < 60, "{log}");
    drop((daemons, late, pods));
}

#[test]
fn a_node_that_is_cut_off_from_etcd_keeps_its_peers_and_hears_of_the_new_one_later() {
    let bed = {
        let lab = bare_on_etcd(3);
        let daemons = [1, 2].map(|number| lab.node(number).unwrap().start_flanneld(&[]).unwrap());
        let pods = [1, 2].map(|number| {
            lab.node(number)
                .unwrap()
                .add_pod(&format!("n{number}-p1"))
                .unwrap()
        });
        Bed {
            daemons: daemons.into(),
            pods: pods.into(),
            lab,
        }
    };
    let nft = |script: &str| {
        let done = bed.node(1).exec(&["nft", script]).unwrap();
        assert!(done.status.success(), "{done:?}");
    };
    let before = bed.tunnel(1);
    nft("table inet cut {
            chain out { type filter hook output priority 0; tcp dport 2379 drop; }
            chain in { type filter hook input priority 0; tcp sport 2379 drop; }
        }");
    let late = bed.node(3).start_flanneld(&[]).unwrap();
    wait_for_route(bed.node(2), bed.node(3), RECOVERY);
    wait_until("node 1 to notice", Duration::from_secs(60), || {
        Ok(bed
            .node(1)
            .log("flanneld")?
            .contains("the lease store is out of reach"))
    })
    .unwrap();
    stays(Duration::from_secs(2), || {
        assert_same("node 1", &before, &bed.tunnel(1))
    });
    nft("delete table inet cut");
    println!(
        "node 1 knows the new one {:?} later",
        wait_for_route(bed.node(1), bed.node(3), RECOVERY)
    );
    bed.assert_all_ping();
    drop(late);
}

#[test]
fn without_etcd_at_the_start_the_daemon_says_what_it_waits_for_and_still_ends_at_once() {
    let lab = bare_on_etcd(1);
    lab.kill_etcd().unwrap();
    let start = |lab: &Lab| lab.node(1).unwrap().spawn_flanneld(&[], &[]).unwrap();
    let waits = |lab: &Lab| {
        wait_until("the daemon to say what it waits for", LONG, || {
            let log = lab.node(1)?.log("flanneld")?;
            Ok(log.contains("waiting for the network configuration")
                && log.contains("http://192.168.77.1:2379"))
        })
        .unwrap();
    };
    let mut daemon = start(&lab);
    waits(&lab);
    daemon.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    let (_, status) = daemon.wait(LONG).unwrap();
    assert!(status.success(), "{status}");
    let daemon = start(&lab);
    waits(&lab);
    lab.start_etcd().unwrap();
    let took = wait_until("the subnet file", LONG, || Ok(lab.node(1)?.subnet().is_ok())).unwrap();
    println!("ready {took:?} after etcd");
    drop(daemon);
}

#[test]
fn a_lease_that_somebody_removes_from_etcd_ends_the_daemon_and_the_data_plane_stays() {
    let mut bed = running_in(bare_on_etcd(2), 1);
    let before = bed.tunnel(1);
    bed.lab
        .remove_lease_from_etcd(&{
            let (subnet, length) = bed.node(1).subnet().unwrap();
            format!("{subnet}-{length}")
        })
        .unwrap();
    let (_, status) = bed.daemons[0].wait(LONG).unwrap();
    assert!(status.success(), "{status}");
    let log = bed.node(1).log("flanneld").unwrap();
    assert!(
        log.contains("Lease has been revoked. Shutting down daemon."),
        "{log}"
    );
    assert_same("node 1", &before, &bed.tunnel(1));
}
