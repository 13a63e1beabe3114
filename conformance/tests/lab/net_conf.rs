//! The network configuration changes while daemons run.

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use conformance::lab::{NODE_LINK, Node, SUBNET_FILE, TUNNEL, wait_until};

use crate::direct_routing::way;
use crate::dual_stack::{configure, started, with_ipv6};
use crate::support::{self, Bed, LONG, dump, pinging_during, run_all, stays};

const PLAIN: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;

/// Whether a node is as a configuration wants it.
type IsApplied = fn(&Bed, &Node) -> Result<bool>;

/// Each adds to the one before or takes something back, and none cuts pods off.
const STEPS: [(&str, IsApplied); 5] = [
    (
        r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}"#,
        |_, node| Ok(node.subnet_env("FLANNEL_MTU")? == "1350" && tunnel_mtu(node)? == 1350),
    ),
    (
        r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":1400,"DirectRouting":true}}"#,
        |bed, node| Ok(ways(bed, node).all(|way| way == NODE_LINK)),
    ),
    (
        r#"{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#,
        |bed, node| {
            let has_table = run_all(node, &["nft list tables"]).contains("flannel-ipv4");
            let is_tunnelled = ways(bed, node).all(|way| way == TUNNEL);
            Ok(has_table && is_tunnelled && tunnel_mtu(node)? == 1450 && !has_iptables_rules(node))
        },
    ),
    (
        r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#,
        |_, node| {
            let env = fs::read_to_string(node.file(SUBNET_FILE))?;
            let routes = node.ip(&["-6", "route", "show"])?;
            let peers = routes
                .lines()
                .filter(|line| line.contains(" via ") && line.contains("dev flannel-v6.1"));
            let is_dual = env.contains("FLANNEL_IPV6_SUBNET=") && peers.count() == 2;
            Ok(is_dual && has_iptables_rules(node))
        },
    ),
    (
        r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan","Learning":true}}"#,
        |_, node| {
            let device = node.json(&["ip", "-j", "-d", "link", "show", "dev", TUNNEL])?;
            Ok(device
                .first()
                .map(|device| &device["linkinfo"]["info_data"]["learning"])
                == Some(&true.into()))
        },
    ),
];

#[test]
fn a_change_that_pods_do_not_notice_is_applied_by_the_daemons_that_run() {
    let mut bed = started(3, PLAIN);
    let subnets = bed.subnets();
    for (conf, is_applied) in STEPS {
        let (there, back) = (bed.pods_beyond(1), [bed.pod_on(1).address()]);
        let ((_, sent_back, lost_back), sent, lost) =
            pinging_during(bed.pod_on(1).namespaces(), &there, || {
                pinging_during(bed.pod_on(2).namespaces(), &back, || {
                    configure(&bed.lab, conf);
                    wait_until(conf, LONG, || {
                        for node in bed.lab.nodes() {
                            if !is_applied(&bed, node)? {
                                return Ok(false);
                            }
                        }
                        Ok(true)
                    })
                    .unwrap();
                    // The last of them may have begun only.
                    thread::sleep(Duration::from_millis(500));
                })
            });
        println!("{conf}: {lost} of {sent} and {lost_back} of {sent_back} lost");
        assert!(sent > 0 && sent_back > 0);
        assert_eq!((lost, lost_back), (0, 0), "{conf}");
    }
    bed.assert_all_ping();
    assert_eq!(bed.subnets(), subnets);
    // They are the daemons of the start.
    for daemon in &mut bed.daemons {
        let (_, status) = daemon.stop(LONG).unwrap();
        assert!(status.success(), "{status}");
    }
}

#[test]
fn a_change_that_cuts_pods_off_or_cannot_be_is_told_and_changes_nothing() {
    let bed = support::started(with_ipv6(2, PLAIN), 1);
    bed.assert_all_ping();
    let before: Vec<_> = bed.lab.nodes().iter().map(dump).collect();
    for (conf, words) in [
        (
            r#"{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan"}}"#,
            "changed in Network, or the subnets in it, which may cut pods off",
        ),
        (
            r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","VNI":7}}"#,
            "changed in Backend, which may cut pods off",
        ),
        (
            r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":100}}"#,
            "the network configuration has changed and cannot be used here",
        ),
    ] {
        configure(&bed.lab, conf);
        for node in bed.lab.nodes() {
            let log = node.file(&node.log_file("flanneld"));
            wait_until(words, LONG, || Ok(fs::read_to_string(&log)?.contains(words))).unwrap();
        }
    }
    stays(Duration::from_secs(1), || {
        for (node, before) in bed.lab.nodes().iter().zip(&before) {
            assert_eq!(before.changes_to(&dump(node)), Vec::<String>::new());
        }
    });
    bed.assert_all_ping();
}

/// One subnet of IPv6 for two nodes: the one that gets none goes on as it was.
#[test]
fn a_node_that_gets_no_lease_by_a_changed_configuration_goes_on_with_the_one_before() {
    const ONE_SUBNET: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","IPv6SubnetMin":"fd00:10:244:5::","IPv6SubnetMax":"fd00:10:244:5::","Backend":{"Type":"vxlan"}}"#;
    let mut bed = support::started(with_ipv6(2, PLAIN), 1);
    let there = bed.pods_beyond(1);
    let told = |node: &Node| -> Result<bool> {
        let log = fs::read_to_string(node.file(&node.log_file("flanneld")))?;
        Ok(log.contains("the changed network configuration does not come into force"))
    };
    let ((), sent, lost) = pinging_during(bed.pod_on(1).namespaces(), &there, || {
        configure(&bed.lab, ONE_SUBNET);
        wait_until("one node to go back, and one to have IPv6", LONG, || {
            let mut ends = (0, 0);
            for node in bed.lab.nodes() {
                let env = fs::read_to_string(node.file(SUBNET_FILE))?;
                let is_dual = env.contains("FLANNEL_IPV6_SUBNET=fd00:10:244:5::1/64");
                ends.0 += usize::from(is_dual);
                ends.1 += usize::from(!is_dual && told(node)?);
            }
            Ok(ends == (1, 1))
        })
        .unwrap();
        thread::sleep(Duration::from_millis(500));
    });
    assert!(sent > 0 && lost == 0, "{lost} of {sent} lost");
    bed.assert_all_ping();
    // Once the other node's subnet is free, this one takes it without another change.
    let is_dual = |node: &Node| {
        let env = fs::read_to_string(node.file(SUBNET_FILE)).unwrap();
        env.contains("FLANNEL_IPV6_SUBNET=fd00:10:244:5::1/64")
    };
    let winner = bed.lab.nodes().iter().position(is_dual).unwrap();
    let (_, status) = bed.daemons.remove(winner).stop(LONG).unwrap();
    assert!(status.success(), "{status}");
    for (name, _) in support::files_below(&bed.lab.shared_file("leases/subnets")) {
        if name.contains('&') {
            fs::remove_file(bed.lab.shared_file("leases/subnets").join(name)).unwrap();
        }
    }
    let loser = &bed.lab.nodes()[1 - winner];
    wait_until("the other node to have IPv6", LONG, || Ok(is_dual(loser))).unwrap();
    let (_, status) = bed.daemons.remove(0).stop(LONG).unwrap();
    assert!(status.success(), "{status}");
}

/// The devices that a node reaches the other nodes' pods by.
fn ways<'a>(bed: &'a Bed, node: &'a Node) -> impl Iterator<Item = String> + 'a {
    let others = bed
        .lab
        .nodes()
        .iter()
        .filter(|other| other.number() != node.number());
    others.map(|other| way(node, other))
}

fn tunnel_mtu(node: &Node) -> Result<u64> {
    let device = node.json(&["ip", "-j", "link", "show", "dev", TUNNEL])?;
    Ok(device
        .first()
        .and_then(|device| device["mtu"].as_u64())
        .unwrap_or(0))
}

fn has_iptables_rules(node: &Node) -> bool {
    run_all(node, &["iptables-save"]).contains("FLANNEL-FWD")
}
