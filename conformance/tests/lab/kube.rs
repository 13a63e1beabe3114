//! The daemons with their leases on the Nodes of a Kubernetes API server, and what happens to it and to the Nodes.

use std::fs;
use std::thread;
use std::time::Duration;

use conformance::lab::{BIN_DIR, Lab, NET_CONF, Node, TUNNEL, bare_kube_node, wait_until};
use serde_json::{Value, json};

use crate::dual_stack::{DUAL, V6_HEADERS, add_underlay_v6, reaches, tunnel_address};
use crate::etcd::wait_for_route;
use crate::support::{
    self, Bed, LONG, assert_same, bare_on_kube, configure_kube, dual_subnets, pinging_during, run_all,
    running_in, stays, tunnel,
};

/// What the names of annotations begin with (flannel `main.go`, `kube-annotation-prefix`).
const PREFIX: &str = "flannel.alpha.coreos.com";
/// How long a wrong removal is waited for.
const WATCHED: Duration = Duration::from_secs(2);

/// A Node whose daemon has announced itself with the VXLAN backend, in IPv4.
pub(crate) fn peer(name: &str, pod_cidrs: &[&str], public_ip: &str, mac: &str) -> Value {
    let mut node = bare_kube_node(name, pod_cidrs);
    node["metadata"]["annotations"] = json!({
        format!("{PREFIX}/kube-subnet-manager"): "true",
        format!("{PREFIX}/backend-type"): "vxlan",
        format!("{PREFIX}/backend-data"): format!(r#"{{"VNI":1,"VtepMAC":"{mac}"}}"#),
        format!("{PREFIX}/public-ip"): public_ip,
    });
    node
}

pub(crate) fn annotation(lab: &Lab, node: &str, suffix: &str) -> Option<String> {
    let node = lab.kube_node(node).unwrap();
    let value = &node["metadata"]["annotations"][format!("{PREFIX}/{suffix}")];
    value.as_str().map(str::to_owned)
}

fn annotate(lab: &Lab, node: &str, suffix: &str, value: &Value) {
    let patch = json!({"metadata": {"annotations": {format!("{PREFIX}/{suffix}"): value}}});
    lab.patch_kube_node(node, &patch).unwrap();
}

fn wait_for_log(node: &Node, words: &str) {
    wait_until(words, LONG, || Ok(node.log("flanneld")?.contains(words))).unwrap();
}

fn has_route(node: &Node, subnet: &str) -> bool {
    let routes = node.ip(&["route", "show", subnet]).unwrap();
    routes.contains(TUNNEL)
}

fn wait_gone(node: &Node, subnet: &str) {
    wait_until("the end of a route", LONG, || Ok(!has_route(node, subnet))).unwrap();
}

#[test]
fn three_nodes_of_a_cluster_reach_each_other_and_say_so_on_their_nodes() {
    let bed = running_in(bare_on_kube(3), 2);
    for node in bed.lab.nodes() {
        let (subnet, length) = node.subnet().unwrap();
        assert_eq!(
            format!("{subnet}/{length}"),
            format!("10.244.{}.0/24", node.number())
        );
        let data = format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, node.vtep_mac().unwrap());
        for (suffix, value) in [
            ("kube-subnet-manager", "true"),
            ("backend-type", "vxlan"),
            ("backend-data", &data),
            ("public-ip", &node.address().to_string()),
        ] {
            let told = annotation(&bed.lab, &node.name(), suffix);
            assert_eq!(told.as_deref(), Some(value), "{suffix}");
        }
        wait_until("the network to be available", LONG, || {
            let conditions = bed.lab.kube_node(&node.name())?;
            Ok(conditions["status"]["conditions"][0]["status"] == "False")
        })
        .unwrap();
    }
}

#[test]
fn an_api_server_that_is_killed_and_returns_costs_no_packet_and_changes_of_the_outage_are_followed() {
    api_outage(|lab| {
        lab.kill_api().unwrap();
        for number in [1, 2] {
            wait_for_log(lab.node(number).unwrap(), "the lease store is out of reach");
        }
        // Meanwhile a node left and another one came.
        lab.change_kept_nodes(|nodes| {
            nodes.retain(|node| node["metadata"]["name"] != "left");
            nodes.push(peer(
                "came",
                &["10.244.91.0/24"],
                "192.168.77.91",
                "02:00:00:00:00:91",
            ));
        })
        .unwrap();
        lab.start_api().unwrap();
    });
}

#[test]
fn an_api_server_that_hangs_and_returns_costs_no_packet_and_changes_after_it_are_followed() {
    api_outage(|lab| {
        lab.freeze_api().unwrap();
        thread::sleep(Duration::from_secs(5));
        lab.thaw_api().unwrap();
        lab.remove_kube_node("left").unwrap();
        lab.put_kube_node(&peer(
            "came",
            &["10.244.91.0/24"],
            "192.168.77.91",
            "02:00:00:00:00:91",
        ))
        .unwrap();
    });
}

#[test]
fn annotations_that_are_gone_after_an_outage_are_put_back() {
    let mut bed = running_in(bare_on_kube(2), 1);
    let data = annotation(&bed.lab, "node1", "backend-data").unwrap();
    bed.lab.kill_api().unwrap();
    for node in bed.lab.nodes() {
        wait_for_log(node, "the lease store is out of reach");
    }
    bed.lab
        .change_kept_nodes(|nodes| {
            let first = nodes.iter_mut().find(|node| node["metadata"]["name"] == "node1");
            first.unwrap()["metadata"]["annotations"] = json!({});
        })
        .unwrap();
    bed.lab.start_api().unwrap();
    wait_until("the own annotations to return", LONG, || {
        Ok(annotation(&bed.lab, "node1", "backend-data").as_deref() == Some(data.as_str()))
    })
    .unwrap();
    wait_for_route(bed.node(2), bed.node(1), LONG);
    bed.assert_all_ping();
}

/// Adds the Node `left`.
fn put_peer_that_leaves(lab: &Lab) {
    let left = peer("left", &["10.244.90.0/24"], "192.168.77.90", "02:00:00:00:00:90");
    lab.put_kube_node(&left).unwrap();
}

/// Takes the API away under traffic and gives it back, without the Node `left` and with the Node `came`.
fn api_outage(away: impl FnOnce(&mut Lab)) {
    let lab = bare_on_kube(2);
    put_peer_that_leaves(&lab);
    let mut bed = support::started(lab, 1);
    bed.assert_all_ping();
    for node in bed.lab.nodes() {
        wait_until("the peer", LONG, || Ok(has_route(node, "10.244.90.0/24"))).unwrap();
    }
    let targets = bed.pods_beyond(1);
    let Bed { lab, pods, .. } = &mut bed;
    let from = pods.iter().find(|pod| pod.node_number() == 1).unwrap();
    let ((), sent, lost) = pinging_during(from.namespaces(), &targets, || {
        away(lab);
        for node in lab.nodes() {
            wait_until("the new peer", LONG, || Ok(has_route(node, "10.244.91.0/24"))).unwrap();
            wait_gone(node, "10.244.90.0/24");
        }
    });
    println!("{lost} of {sent} pings lost");
    assert!(sent > 20, "{sent}");
    assert_eq!(lost, 0, "of {sent}");
    bed.assert_all_ping();
    for daemon in &mut bed.daemons {
        assert!(daemon.ended().unwrap().is_none());
    }
}

#[test]
fn a_daemon_starts_without_the_api_from_what_it_knew_and_corrects_itself_later() {
    let lab = bare_on_kube(3);
    put_peer_that_leaves(&lab);
    let mut bed = running_in(lab, 1);
    let cache = bed.node(1).file("/var/lib/flannel/kube-cache.json");
    wait_until("the last known state on the disk", LONG, || {
        let known = fs::read_to_string(&cache).unwrap_or_default();
        let subnets = ["10.244.2.0", "10.244.3.0", "10.244.90.0"];
        Ok(subnets.iter().all(|subnet| known.contains(subnet)))
    })
    .unwrap();
    bed.lab.kill_api().unwrap();

    // The daemon alone is restarted: nothing changes.
    let before = bed.tunnel(1);
    bed.daemons.remove(0).stop(LONG).unwrap();
    let targets = bed.pods_beyond(1);
    let (mut daemon, sent, lost) = pinging_during(bed.pod_on(1).namespaces(), &targets, || {
        let daemon = bed.node(1).start_flanneld(&[]).unwrap();
        wait_for_log(bed.node(1), "starting from the last known state");
        stays(WATCHED, || assert_same("node 1", &before, &bed.tunnel(1)));
        daemon
    });
    assert!(sent > 20, "{sent}");
    assert_eq!(lost, 0, "of {sent}");

    // As after a reboot: device, routes and subnet file are gone.
    daemon.stop(LONG).unwrap();
    run_all(bed.node(1), &["ip link delete flannel.1", "rm -r /run/flannel"]);
    let daemon = bed.node(1).start_flanneld(&[]).unwrap();
    bed.daemons.insert(0, daemon);
    bed.assert_all_ping();
    assert!(has_route(bed.node(1), "10.244.90.0/24"));

    bed.lab
        .change_kept_nodes(|nodes| nodes.retain(|node| node["metadata"]["name"] != "left"))
        .unwrap();
    stays(WATCHED, || assert!(has_route(bed.node(1), "10.244.90.0/24")));
    bed.lab.start_api().unwrap();
    for node in bed.lab.nodes() {
        wait_gone(node, "10.244.90.0/24");
    }
    bed.assert_all_ping();
}

#[test]
fn a_peer_with_a_bad_pod_cidr_is_refused_and_reported_and_the_others_go_on() {
    let bed = running_in(bare_on_kube(2), 1);
    let node = bed.node(1);
    let before = tunnel(node);
    for (name, cidr) in [
        ("malformed", "10.244.300.0/24"),
        ("around-all", "10.244.0.0/20"),
        ("on-us", "10.244.1.0/25"),
        ("outside", "10.99.0.0/24"),
        ("another-ones", "10.244.2.0/24"),
    ] {
        let bad = peer(name, &[cidr], "192.168.77.99", "02:00:00:00:00:99");
        bed.lab.put_kube_node(&bad).unwrap();
    }
    let good = peer("good", &["10.244.91.0/24"], "192.168.77.91", "02:00:00:00:00:91");
    bed.lab.put_kube_node(&good).unwrap();
    wait_until("the good peer", LONG, || Ok(has_route(node, "10.244.91.0/24"))).unwrap();
    for words in [
        "malformed",
        "10.244.0.0-20",
        "10.244.1.0-25",
        "10.99.0.0-24",
        "another-ones",
    ] {
        wait_for_log(node, words);
    }
    let status = run_all(node, &[&format!("{BIN_DIR}/flanneld status --all")]);
    for (subnet, reason) in [
        ("10.244.0.0/20", "overlaps the subnet of this node"),
        ("10.244.1.0/25", "overlaps the subnet of this node"),
        ("10.99.0.0/24", "outside the pod network"),
    ] {
        let told = |line: &str| line.contains(subnet) && line.contains(reason);
        assert!(status.lines().any(told), "{subnet}:\n{status}");
    }
    bed.lab.remove_kube_node("good").unwrap();
    wait_gone(node, "10.244.91.0/24");
    assert_same("node 1", &before, &tunnel(node));
    bed.assert_all_ping();
}

#[test]
fn an_annotation_of_one_family_that_is_removed_does_not_cost_the_other_family() {
    let lab = bare_on_kube(2);
    add_underlay_v6(&lab);
    configure_kube(&lab, DUAL, dual_subnets);
    let mut bed = running_in(lab, 1);
    let v6_of_two = tunnel_address(bed.node(2));
    reaches(bed.node(1).namespaces(), &v6_of_two, 1430 - V6_HEADERS);
    // Nobody puts the annotation back.
    bed.daemons.remove(1).stop(LONG).unwrap();
    let v6_route = |node: &Node| node.ip(&["-6", "route", "show", "fd00:10:244:2::/64"]).unwrap();
    let targets = bed.pods_beyond(1);
    for suffix in ["public-ipv6", "backend-v6-data"] {
        let value = annotation(&bed.lab, "node2", suffix).unwrap();
        let ((), sent, lost) = pinging_during(bed.pod_on(1).namespaces(), &targets, || {
            annotate(&bed.lab, "node2", suffix, &Value::Null);
            wait_until("the end of IPv6's route", LONG, || {
                Ok(v6_route(bed.node(1)).is_empty())
            })
            .unwrap();
            stays(WATCHED, || assert!(has_route(bed.node(1), "10.244.2.0/24")));
        });
        assert!(sent > 20 && lost == 0, "{suffix}: {lost} of {sent} lost");
        annotate(&bed.lab, "node2", suffix, &json!(value));
        reaches(bed.node(1).namespaces(), &v6_of_two, 1430 - V6_HEADERS);
    }
    // And the reverse.
    let value = annotation(&bed.lab, "node2", "public-ip").unwrap();
    annotate(&bed.lab, "node2", "public-ip", &Value::Null);
    wait_gone(bed.node(1), "10.244.2.0/24");
    reaches(bed.node(1).namespaces(), &v6_of_two, 1430 - V6_HEADERS);
    annotate(&bed.lab, "node2", "public-ip", &json!(value));
    bed.assert_all_ping_between(&[1]);
    assert_eq!(
        annotation(&bed.lab, "node1", "public-ipv6").unwrap(),
        bed.node(1).address_v6()
    );
}

#[test]
fn a_node_that_is_deleted_is_no_peer_any_more_and_one_that_returns_is() {
    let mut bed = running_in(bare_on_kube(3), 1);
    let subnet = "10.244.3.0/24";
    let targets = [bed.pod_on(2).address()];
    // Its daemon would write on the Node, if there is one.
    bed.daemons.remove(2).stop(LONG).unwrap();
    let ((), sent, lost) = pinging_during(bed.pod_on(1).namespaces(), &targets, || {
        bed.lab.remove_kube_node("node3").unwrap();
        for number in [1, 2] {
            wait_gone(bed.node(number), subnet);
        }
    });
    assert!(sent > 0 && lost == 0, "{lost} of {sent} lost");
    let mac = bed.node(3).vtep_mac().unwrap();
    for number in [1, 2] {
        let entries = run_all(bed.node(number), &["bridge fdb show dev flannel.1"]);
        let neighbours = run_all(bed.node(number), &["ip neigh show dev flannel.1"]);
        assert!(!entries.contains(&mac) && !neighbours.contains(&mac));
    }
    bed.lab
        .put_kube_node(&bare_kube_node("node3", &[subnet]))
        .unwrap();
    let daemon = bed.node(3).start_flanneld(&[]).unwrap();
    bed.daemons.push(daemon);
    for number in [1, 2] {
        wait_for_route(bed.node(number), bed.node(3), LONG);
    }
    bed.assert_all_ping();
}

/// The own Node too: its daemon goes on, and writes everything on the one that comes in its place.
#[test]
fn a_node_whose_own_object_is_deleted_goes_on_and_announces_itself_again() {
    let bed = running_in(bare_on_kube(2), 1);
    let data = annotation(&bed.lab, "node1", "backend-data");
    let before = bed.tunnel(1);
    bed.lab.remove_kube_node("node1").unwrap();
    wait_for_log(bed.node(1), "this node's Node object was deleted");
    wait_gone(bed.node(2), "10.244.1.0/24");
    assert_same("node 1", &before, &bed.tunnel(1));
    bed.lab
        .put_kube_node(&bare_kube_node("node1", &["10.244.1.0/24"]))
        .unwrap();
    wait_for_route(bed.node(2), bed.node(1), LONG);
    assert_eq!(annotation(&bed.lab, "node1", "backend-data"), data);
    bed.assert_all_ping();
}

#[test]
fn a_network_configuration_that_the_kubelet_swaps_in_is_applied_by_the_daemons_that_run() {
    let mut bed = running_in(bare_on_kube(2), 1);
    let targets = bed.pods_beyond(1);
    let conf = r#"{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan","MTU":1400}}"#;
    let ((), sent, lost) = pinging_during(bed.pod_on(1).namespaces(), &targets, || {
        for (conf, mtu) in [(conf, "1350"), (NET_CONF, "1450")] {
            for node in bed.lab.nodes() {
                node.mount_net_conf(conf).unwrap();
            }
            for node in bed.lab.nodes() {
                wait_until("the new MTU", LONG, || Ok(node.subnet_env("FLANNEL_MTU")? == mtu)).unwrap();
            }
        }
    });
    println!("{lost} of {sent} pings lost");
    assert!(sent > 20 && lost == 0, "{lost} of {sent} lost");
    let cut_off = r#"{"Network":"10.99.0.0/16","Backend":{"Type":"vxlan"}}"#;
    bed.node(1).mount_net_conf(cut_off).unwrap();
    wait_for_log(bed.node(1), "changed in Network, or the subnets in it");
    bed.assert_all_ping();
    for daemon in &mut bed.daemons {
        let (_, status) = daemon.stop(LONG).unwrap();
        assert!(status.success(), "{status}");
    }
}
