use std::fs;

use conformance::lab::{Lab, NET_CONF, NODE_LINK, SUBNET_FILE, wait_until};

use crate::dual_stack::{V4_HEADERS, V6_HEADERS, add_underlay_v6, configure, reaches, started, v6_of};
use crate::kube::annotation;
use crate::support::{
    self, AT_ONCE, Bed, LONG, bare_on_kube, best_of_three, configure_kube, dual_subnets, run_all, running,
};

const HOST_GW: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"host-gw"}}"#;
const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"host-gw"}}"#;

/// What the underlay carries, all of which pods get.
const MTU: usize = 1500;

#[test]
fn pods_reach_each_other_by_plain_routes_in_both_families_up_to_the_underlay_s_mtu() {
    plain_routes_in_both_families(&started(3, DUAL));
}

#[test]
fn nodes_of_a_cluster_reach_each_other_by_plain_routes_in_both_families() {
    let lab = bare_on_kube(2);
    add_underlay_v6(&lab);
    configure_kube(&lab, DUAL, dual_subnets);
    let bed = support::started(lab, 1);
    plain_routes_in_both_families(&bed);
    for node in bed.lab.nodes() {
        for (suffix, value) in [
            ("backend-type", "host-gw".to_owned()),
            ("backend-data", "null".to_owned()),
            ("public-ip", node.address().to_string()),
            ("backend-v6-data", "null".to_owned()),
            ("public-ipv6", node.address_v6()),
        ] {
            let told = annotation(&bed.lab, &node.name(), suffix);
            assert_eq!(told, Some(value), "{suffix}");
        }
    }
}

fn plain_routes_in_both_families(bed: &Bed) {
    for node in bed.lab.nodes() {
        let env = fs::read_to_string(node.file(SUBNET_FILE)).unwrap();
        assert!(env.contains(&format!("FLANNEL_MTU={MTU}\n")), "{env}");
        assert_eq!(node.ip(&["-o", "link", "show", "type", "vxlan"]).unwrap(), "");
    }
    bed.assert_all_ping();
    for from in &bed.pods {
        for to in bed.pods.iter().filter(|to| to.name() != from.name()) {
            let v4 = to.address().to_string();
            for (target, headers) in [(v4, V4_HEADERS), (v6_of(to), V6_HEADERS)] {
                reaches(from.namespaces(), &target, MTU - headers);
            }
        }
    }
    let peers = bed.lab.nodes().len() - 1;
    for family in ["-4", "-6"] {
        assert_eq!(marked_routes(bed, 1, family), peers, "{family}");
    }
    // What is removed behind the daemon's back returns at once, while upstream needs ten seconds.
    for family in ["-4", "-6"] {
        let flush = format!("ip {family} route flush proto 102");
        let best = best_of_three(|| {
            run_all(bed.node(1), &[&flush]);
            wait_until("the routes to return", LONG, || {
                Ok(marked_routes(bed, 1, family) == peers)
            })
        });
        let best = best.unwrap();
        println!("{family}: back after {} ms", best.as_millis());
        assert!(best < AT_ONCE, "{family}: {best:?} at best");
    }
    bed.assert_all_ping();
}

#[test]
fn a_change_of_the_backend_leaves_nothing_of_the_other_one() {
    let mut bed = running(2, 1);
    change_backend(&mut bed, HOST_GW);
    wait_until("the tunnels to go", LONG, || Ok(without_tunnels(&bed.lab))).unwrap();
    bed.assert_all_ping();
    assert_eq!(marked_routes(&bed, 1, "-4"), 1);

    change_backend(&mut bed, NET_CONF);
    wait_until("the plain routes to go", LONG, || {
        Ok(marked_routes(&bed, 1, "-4") == 0)
    })
    .unwrap();
    bed.assert_all_ping();
    assert!(!without_tunnels(&bed.lab));
}

/// Restarts every daemon with another configuration, and waits until each has programmed its peers.
fn change_backend(bed: &mut Bed, conf: &str) {
    for daemon in &mut bed.daemons {
        daemon.stop(LONG).unwrap();
    }
    configure(&bed.lab, conf);
    bed.daemons = bed
        .lab
        .nodes()
        .iter()
        .map(|node| node.start_flanneld(&[]).unwrap())
        .collect();
}

fn without_tunnels(lab: &Lab) -> bool {
    lab.nodes().iter().all(|node| {
        let links = node.ip(&["-o", "link", "show", "type", "vxlan"]).unwrap();
        links.is_empty()
    })
}

/// How many routes through the node's interface have our mark.
fn marked_routes(bed: &Bed, number: u8, family: &str) -> usize {
    let argv = [
        "ip", "-j", family, "route", "show", "proto", "102", "dev", NODE_LINK,
    ];
    bed.node(number).json(&argv).unwrap().len()
}
