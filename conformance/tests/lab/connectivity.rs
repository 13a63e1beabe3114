use std::fs;

use conformance::demo::{prove, trace};
use conformance::lab::{SUBNET_FILE, TUNNEL, text};
use serde_json::json;

use crate::support::running;

#[test]
fn pods_of_three_nodes_all_ping_and_the_three_principles_hold() {
    let bed = running(3, 2);
    for principle in prove(bed.lab.nodes(), &bed.pods).unwrap() {
        println!("{}: {}", principle.claim, principle.example);
        assert!(principle.observations > 0, "{}: never looked", principle.claim);
        assert_eq!(principle.failures, Vec::<String>::new(), "{}", principle.claim);
    }
    let way = trace(bed.lab.nodes(), bed.pod_on(1), bed.pod_on(3)).unwrap();
    let places: Vec<_> = way.iter().map(|hop| hop.place.as_str()).collect();
    assert_eq!(places, ["n1-p1", "node1", "node3", "n3-p1"]);
}

#[test]
fn the_kernel_holds_what_flannel_would_have_put_there() {
    let bed = running(3, 1);
    let (node, peer) = (bed.node(1), bed.node(2));
    let (own_subnet, _) = node.subnet().unwrap();

    let link = &node
        .json(&["ip", "-j", "-d", "link", "show", "dev", TUNNEL])
        .unwrap()[0];
    assert_eq!(link["mtu"], 1450);
    let vxlan = &link["linkinfo"]["info_data"];
    let local = node.address().to_string();
    for (key, value) in [
        ("id", json!(1)),
        ("port", json!(8472)),
        ("local", json!(local)),
        ("link", json!("eth0")),
        ("learning", json!(false)),
        ("udp_csum", json!(true)),
    ] {
        assert_eq!(vxlan[key], value, "{key}");
    }

    let addresses = node
        .json(&["ip", "-j", "-4", "address", "show", "dev", TUNNEL])
        .unwrap();
    let infos = addresses[0]["addr_info"].as_array().unwrap();
    assert_eq!(infos.len(), 1);
    assert_eq!(
        (text(&infos[0], "local"), &infos[0]["prefixlen"]),
        (own_subnet.to_string().as_str(), &json!(32))
    );

    let (peer_subnet, length) = peer.subnet().unwrap();
    let mac = peer.vtep_mac().unwrap();
    let route = node
        .json(&["ip", "-j", "route", "show", &format!("{peer_subnet}/{length}")])
        .unwrap();
    assert_eq!(route.len(), 1);
    assert_eq!(
        (text(&route[0], "gateway"), text(&route[0], "dev")),
        (peer_subnet.to_string().as_str(), TUNNEL)
    );
    assert_eq!(route[0]["flags"], json!(["onlink"]));
    let neighbours = node
        .json(&["ip", "-j", "neighbour", "show", "dev", TUNNEL, "nud", "permanent"])
        .unwrap();
    let neighbour = neighbours
        .iter()
        .find(|entry| text(entry, "dst") == peer_subnet.to_string())
        .unwrap();
    assert_eq!(text(neighbour, "lladdr"), mac);
    let entries = node
        .json(&["bridge", "-j", "fdb", "show", "dev", TUNNEL])
        .unwrap();
    let entry = entries.iter().find(|entry| text(entry, "mac") == mac).unwrap();
    assert_eq!(
        (text(entry, "dst"), text(entry, "state")),
        (peer.address().to_string().as_str(), "permanent")
    );
    assert_eq!(entry["flags"], json!(["self"]));
}

#[test]
fn the_subnet_file_has_flannels_lines_in_flannels_order() {
    let bed = running(1, 1);
    let node = bed.node(1);
    let (subnet, length) = node.subnet().unwrap();
    let gateway = std::net::Ipv4Addr::from_bits(subnet.to_bits() + 1);
    let text = fs::read_to_string(node.file(SUBNET_FILE)).unwrap();
    let expected = format!(
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET={gateway}/{length}\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn two_nodes_never_get_the_same_subnet_when_they_start_together() {
    let lab = crate::support::bare(6);
    let daemons: Vec<_> = lab
        .nodes()
        .iter()
        .map(|node| node.spawn_flanneld(&[], &[]).unwrap())
        .collect();
    for node in lab.nodes() {
        conformance::lab::wait_until("a subnet file", crate::support::LONG, || {
            Ok(node.subnet().is_ok())
        })
        .unwrap();
    }
    let mut subnets: Vec<_> = lab.nodes().iter().map(|node| node.subnet().unwrap()).collect();
    subnets.sort_unstable();
    subnets.dedup();
    assert_eq!(subnets.len(), 6);
    drop(daemons);
}
