use std::net::Ipv4Addr;

use conformance::lab::{NODE_LINK, Node, SUBNET_FILE, wait_until};

use crate::dual_stack;
use crate::support::{Bed, LONG, bare, bare_on_etcd, bare_on_kube, run_all, running_in, started};

/// What a node's address becomes: none of the lab's others.
const MOVED_TO: &str = "192.168.77.200";
const MOVED_TO_V6: &str = "fd00:77::200";

const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#;
const HOST_GW: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#;
const COMMANDS: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"extension",
    "SubnetAddCommand":"ip route replace $SUBNET via ${PUBLIC_IP}",
    "SubnetRemoveCommand":"ip route del $SUBNET via ${PUBLIC_IP}"}}"#;

#[test]
fn a_node_whose_address_changes_keeps_its_subnet_in_every_store() {
    for make in [bare, bare_on_etcd, bare_on_kube] {
        let bed = running_in(make(3), 1);
        moves(&bed);
        let (was, entries) = (
            bed.node(1).address().to_string(),
            run_all(bed.node(2), &["bridge fdb show dev flannel.1"]),
        );
        assert!(entries.contains(MOVED_TO), "{entries}");
        assert!(!entries.contains(&format!("dst {was} ")), "{entries}");
    }
}

#[test]
fn plain_routes_commands_and_both_families_follow_a_node_to_its_new_address() {
    for conf in [HOST_GW, COMMANDS] {
        let lab = bare(3);
        dual_stack::configure(&lab, conf);
        moves(&running_in(lab, 1));
    }

    let bed = started(dual_stack::with_ipv6(3, DUAL), 1);
    bed.assert_all_ping();
    moves(&bed);
    for pod in &bed.pods {
        let node = bed.node(1).namespaces();
        dual_stack::reaches(node, &dual_stack::v6_of(pod), 1000);
    }
}

#[test]
fn of_two_families_one_may_get_another_address_alone() {
    let bed = started(dual_stack::with_ipv6(2, DUAL), 1);
    bed.assert_all_ping();
    moves_by(&bed, &ipv6_readdressing());
    let pod = dual_stack::v6_of(bed.pod_on(1));
    dual_stack::reaches(bed.node(2).namespaces(), &pod, 1000);
}

/// For a while both leases have the same address, and the node that moves first may not take the other's.
#[test]
fn nodes_that_swap_their_addresses_keep_their_subnets() {
    for make in [bare, bare_on_etcd] {
        let bed = running_in(make(2), 1);
        // The lease that comes first in the store's order is the other's.
        let (mut first, mut second) = (bed.node(1), bed.node(2));
        if first.subnet().unwrap() < second.subnet().unwrap() {
            std::mem::swap(&mut first, &mut second);
        }
        let files =
            || [1, 2].map(|number| std::fs::read_to_string(bed.node(number).file(SUBNET_FILE)).unwrap());
        let before = files();
        let flush = format!("ip address flush dev {NODE_LINK} scope global");
        let add = |node: &Node, address: Ipv4Addr| {
            let add = format!("ip address add {address}/24 dev {NODE_LINK}");
            let route = format!("ip route replace default via 192.168.77.1 dev {NODE_LINK}");
            run_all(node, &[&add, &route]);
        };
        let is_ready = |node: &Node| {
            wait_until("the daemon to be ready again", LONG, || {
                Ok(node.log("flanneld")?.matches("flannel is ready").count() == 2)
            })
            .unwrap();
        };
        run_all(first, &[&flush]);
        run_all(second, &[&flush]);
        add(first, second.address());
        is_ready(first);
        add(second, first.address());
        is_ready(second);
        assert_eq!(files(), before);
        bed.assert_all_ping();
    }
}

/// What gives a node another address, as a DHCP server does that forgot it.
fn readdressing() -> Vec<String> {
    vec![
        format!("ip -4 address flush dev {NODE_LINK} scope global"),
        format!("ip address add {MOVED_TO}/24 dev {NODE_LINK}"),
        format!("ip route replace default via 192.168.77.1 dev {NODE_LINK}"),
    ]
}

/// The same in IPv6.
fn ipv6_readdressing() -> Vec<String> {
    vec![
        format!("ip -6 address flush dev {NODE_LINK} scope global"),
        format!("ip address add {MOVED_TO_V6}/64 dev {NODE_LINK} nodad"),
    ]
}

/// Gives the first node other addresses, and waits until its pods are reached.
fn moves(bed: &Bed) {
    let both: Vec<_> = readdressing().into_iter().chain(ipv6_readdressing()).collect();
    moves_by(bed, &both);
}

fn moves_by(bed: &Bed, commands: &[String]) {
    let node = bed.node(1);
    let file = || std::fs::read_to_string(node.file(SUBNET_FILE)).unwrap();
    let before = file();
    run_all(node, &commands.iter().map(String::as_str).collect::<Vec<_>>());
    let says = "this node has another address, beginning anew with it";
    wait_until(says, LONG, || Ok(node.log("flanneld")?.contains(says))).unwrap();
    let is_back = || {
        let ready = node.log("flanneld")?.matches("flannel is ready").count();
        Ok(ready == 2)
    };
    wait_until("the daemon to be ready again", LONG, is_back).unwrap();
    assert_eq!(file(), before);
    bed.assert_all_ping();
}
