//! A family is switched off and on again, node by node: what it had goes, and the other one loses nothing.

use std::fs;
use std::thread;
use std::time::Duration;

use conformance::lab::{NODE_LINK, Node, POD_LINK, SUBNET_FILE, TUNNEL, wait_until};

use crate::dual_stack::{configure, started};
use crate::support::{Bed, LONG, pinging_during, run_all};

/// A second daemon's, or an administrator's.
const FOREIGN: [&str; 4] = [
    "ip link add flannel-v6.9 type vxlan id 9 dstport 8472 local fd00:77::11 dev eth0",
    "ip address add fd00:99::/128 dev flannel-v6.9",
    "ip -6 route add fd00:99:1::/64 via fd00:77::12 dev eth0 proto 102",
    "ip -6 route add fd00:10:244:fff::/64 via fd00:77::12 dev eth0 proto static",
];

fn conf(families: &str, backend: &str) -> String {
    format!(r#"{{"Network":"10.244.0.0/16",{families}"Backend":{{"Type":"{backend}"}}}}"#)
}

fn a_family_goes_and_comes_back_without_loss_for_the_other(backend: &str) {
    let dual = conf(r#""EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","#, backend);
    // Both ways of saying it.
    let off = [
        conf("", backend),
        conf(r#""IPv6Network":"fd00:10:244::/48","#, backend),
    ];
    let mut bed = started(3, &dual);
    run_all(bed.node(1), &FOREIGN);
    let subnets = bed.subnets();
    for (round, v4) in off.iter().enumerate() {
        await_ipv6_peers(&bed);
        for (is_dual, conf) in [(false, v4), (true, &dual)] {
            configure(&bed.lab, conf);
            for number in 1..=3 {
                restart(&mut bed, number);
                let node = bed.node(number);
                if is_dual {
                    continue;
                }
                wait_until("what IPv6 had to go", LONG, || {
                    Ok(remains_of_ipv6(node).is_empty())
                })
                .unwrap();
            }
            for node in bed.lab.nodes() {
                let env = fs::read_to_string(node.file(SUBNET_FILE)).unwrap();
                assert_eq!(env.contains("FLANNEL_IPV6"), is_dual, "{env}");
            }
            assert_foreign_stay(bed.node(1));
            let pod = bed.node(2).add_pod(&format!("new-{round}-{is_dual}")).unwrap();
            let shown = pod
                .namespaces()
                .output(&[
                    "ip", "-6", "-o", "address", "show", "dev", POD_LINK, "scope", "global",
                ])
                .unwrap();
            assert_eq!(!shown.stdout.is_empty(), is_dual);
            bed.pods.push(pod);
            bed.assert_all_ping();
        }
    }
    await_ipv6_peers(&bed);
    assert_eq!(bed.subnets(), subnets);
}

#[test]
fn ipv6_goes_and_comes_back_without_loss_for_ipv4_with_vxlan() {
    a_family_goes_and_comes_back_without_loss_for_the_other("vxlan");
}

#[test]
fn ipv6_goes_and_comes_back_without_loss_for_ipv4_with_host_gw() {
    a_family_goes_and_comes_back_without_loss_for_the_other("host-gw");
}

#[test]
fn ipv4_goes_where_ipv6_alone_stays() {
    let dual = conf(r#""EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","#, "vxlan");
    let v6 = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#;
    let mut bed = started(2, &dual);
    await_ipv6_peers(&bed);
    configure(&bed.lab, v6);
    let iface = format!("--iface={NODE_LINK}");
    for number in 1..=2 {
        bed.daemons.remove(0).stop(LONG).unwrap();
        let daemon = bed.node(number).start_flanneld(&[&iface]).unwrap();
        bed.daemons.push(daemon);
        let node = bed.node(number);
        wait_until("what IPv4 had to go", LONG, || {
            let links = node.ip(&["-o", "link", "show", "type", "vxlan"])?;
            let rules = run_all(node, &["iptables-save"]);
            Ok(!links.contains(TUNNEL) && !rules.contains("FLANNEL"))
        })
        .unwrap();
    }
    await_ipv6_peers(&bed);
}

/// Restarts a node's daemon, while its pod and the next node's ping.
fn restart(bed: &mut Bed, number: u8) {
    let targets = bed.pods_beyond(number);
    let back = [bed.pod_on(number).address()];
    let mut daemon = bed.daemons.remove(0);
    let next = number % 3 + 1;
    let ((daemon, sent_back, lost_back), sent, lost) =
        pinging_during(bed.pod_on(number).namespaces(), &targets, || {
            pinging_during(bed.pod_on(next).namespaces(), &back, || {
                daemon.stop(LONG).unwrap();
                let daemon = bed.node(number).start_flanneld(&[]).unwrap();
                // The others take the lease's new name over, too.
                thread::sleep(Duration::from_secs(1));
                daemon
            })
        });
    bed.daemons.push(daemon);
    println!("node{number}: {lost} of {sent} and {lost_back} of {sent_back} lost");
    assert!(sent > 20 && sent_back > 20, "{sent} {sent_back}");
    assert_eq!((lost, lost_back), (0, 0));
}

/// What this node has of the pod network of IPv6, beside the bridge of its pods.
fn remains_of_ipv6(node: &Node) -> Vec<String> {
    let script = "ip -o link show type vxlan | grep -w flannel-v6.1; \
                  ip -6 route show | grep -w 'proto 102' | grep ^fd00:10:244; ip6tables-save | grep FLANNEL; \
                  nft list tables | grep flannel-ipv6";
    let printed = node.exec(&["sh", "-c", script]).unwrap().stdout;
    String::from_utf8(printed)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

fn assert_foreign_stay(node: &Node) {
    let links = node
        .ip(&["-6", "-o", "address", "show", "dev", "flannel-v6.9"])
        .unwrap();
    assert!(links.contains("fd00:99::/128"), "{links}");
    let routes = node.ip(&["-6", "route", "show"]).unwrap();
    for route in ["fd00:99:1::/64", "fd00:10:244:fff::/64"] {
        assert!(routes.contains(route), "{routes}");
    }
}

/// Waits until every node has a route to the IPv6 subnet of each of the others.
fn await_ipv6_peers(bed: &Bed) {
    for node in bed.lab.nodes() {
        wait_until("the routes of IPv6", LONG, || {
            let routes = node.ip(&["-6", "route", "show"])?;
            let of_peers = |line: &&str| {
                line.starts_with("fd00:10:244:") && line.contains(" via ") && !line.contains("proto static")
            };
            Ok(routes.lines().filter(of_peers).count() == bed.lab.nodes().len() - 1)
        })
        .unwrap();
    }
}
