//! A packet's way through three nodes, and what stops it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "test code: a panic is a failed test"
)]

use fake_kernel::{Delivery, DropReason, Fabric, FakeKernel};

const NODES: std::ops::RangeInclusive<u8> = 1..=3;

fn edit(fabric: &mut Fabric, node: &str, text: &str) {
    let kernel = fabric.nodes.get_mut(node).unwrap();
    kernel.edit(&text.parse().expect(text)).expect(text);
}

fn vtep_mac(node: u8) -> String {
    format!("02:00:00:00:01:0{node}")
}

/// Three nodes with a pod subnet each, joined by VXLAN as flannel does it.
fn fabric() -> Fabric {
    let mut fabric = Fabric::default();
    for node in NODES {
        let mut kernel = FakeKernel::new();
        let card = format!("02:00:00:00:00:0{node}").parse().unwrap();
        let addr = format!("192.168.77.1{node}/24").parse().unwrap();
        kernel.add_physical(&"eth0".parse().unwrap(), card, addr).unwrap();
        fabric.nodes.insert(format!("node{node}"), kernel);
        for text in [
            "add link cni0 bridge down".to_owned(),
            "set link cni0 up".to_owned(),
            format!("add addr cni0 10.244.{node}.1/24"),
            format!(
                "add link flannel.1 vxlan vni 1 port 8472 local 192.168.77.1{node} parent eth0 nolearning mac {} down",
                vtep_mac(node)
            ),
            "set link flannel.1 up".to_owned(),
            format!("add addr flannel.1 10.244.{node}.0/32"),
        ] {
            edit(&mut fabric, &format!("node{node}"), &text);
        }
        for peer in NODES.filter(|peer| *peer != node) {
            for text in [
                format!("set neigh flannel.1 10.244.{peer}.0 mac {}", vtep_mac(peer)),
                format!("set fdb flannel.1 {} remote 192.168.77.1{peer}", vtep_mac(peer)),
                format!("add route 10.244.{peer}.0/24 via 10.244.{peer}.0 dev flannel.1 onlink proto 3"),
            ] {
                edit(&mut fabric, &format!("node{node}"), &text);
            }
        }
    }
    fabric
}

/// Sends from a pod on node 1 to a pod on node 2.
fn send(fabric: &Fabric) -> Delivery {
    fabric.deliver(
        "node1",
        "10.244.1.5".parse().unwrap(),
        "10.244.2.7".parse().unwrap(),
    )
}

fn dropped(node: &str, why: DropReason) -> Delivery {
    let node = node.to_owned();
    Delivery::Dropped { node, why }
}

#[test]
fn every_pod_reaches_every_node_and_pod() {
    let fabric = fabric();
    for from in NODES {
        for to in NODES {
            for dst in [
                format!("10.244.{to}.7"),
                format!("10.244.{to}.0"),
                format!("192.168.77.1{to}"),
            ] {
                let src = format!("10.244.{from}.5").parse().unwrap();
                let delivery = fabric.deliver(&format!("node{from}"), src, dst.parse().unwrap());
                let node = format!("node{to}");
                assert_eq!(delivery, Delivery::Delivered { node }, "{from} to {dst}");
            }
        }
    }
}

#[test]
fn each_missing_piece_on_the_sender_has_its_reason() {
    for (text, why) in [
        (
            "del route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink proto 3",
            DropReason::NoRoute,
        ),
        ("del neigh flannel.1 10.244.2.0", DropReason::NoNeigh),
        (
            "del fdb flannel.1 02:00:00:00:01:02 remote 192.168.77.12",
            DropReason::NoFdb,
        ),
        (
            "replace route 10.244.2.0/24 blackhole proto 3",
            DropReason::Blackhole,
        ),
        (
            "set fdb flannel.1 02:00:00:00:01:02 remote 192.168.77.99",
            DropReason::NoHost,
        ),
    ] {
        let mut fabric = fabric();
        edit(&mut fabric, "node1", text);
        assert_eq!(send(&fabric), dropped("node1", why), "{text}");
    }
}

#[test]
fn each_fault_of_the_receiver_has_its_reason() {
    for (text, node, why) in [
        ("set link flannel.1 down", "node2", DropReason::NoTunnel),
        ("del link flannel.1", "node2", DropReason::NoTunnel),
        (
            "set link flannel.1 local 192.168.77.99",
            "node2",
            DropReason::NoTunnel,
        ),
        (
            "set link flannel.1 mac 02:00:00:00:01:09",
            "node2",
            DropReason::WrongMac,
        ),
        ("set link eth0 down", "node1", DropReason::NoHost),
    ] {
        let mut fabric = fabric();
        edit(&mut fabric, "node2", text);
        assert_eq!(send(&fabric), dropped(node, why), "{text}");
    }
}

#[test]
fn a_cut_cable_is_felt_on_both_ends() {
    for cut in ["node1", "node2"] {
        let mut fabric = fabric();
        fabric.unplug(cut);
        assert_eq!(send(&fabric), dropped("node1", DropReason::NoHost));
        fabric.plug(cut);
        let node = "node2".to_owned();
        assert_eq!(send(&fabric), Delivery::Delivered { node });
    }
}

#[test]
fn a_stale_peer_misdelivers() {
    let mut fabric = fabric();
    edit(
        &mut fabric,
        "node1",
        "set neigh flannel.1 10.244.2.0 mac 02:00:00:00:01:03",
    );
    let node = "node3".to_owned();
    assert_eq!(send(&fabric), Delivery::Misdelivered { node });
}

#[test]
fn a_direct_route_takes_the_underlay() {
    let mut fabric = fabric();
    edit(
        &mut fabric,
        "node1",
        "replace route 10.244.2.0/24 via 192.168.77.12 dev eth0 proto 80",
    );
    edit(&mut fabric, "node1", "del link flannel.1");
    let node = "node2".to_owned();
    assert_eq!(send(&fabric), Delivery::Delivered { node });
    edit(
        &mut fabric,
        "node1",
        "replace route 10.244.2.0/24 via 192.168.77.13 dev eth0 proto 80",
    );
    let node = "node3".to_owned();
    assert_eq!(send(&fabric), Delivery::Misdelivered { node });
}

#[test]
fn strangers_addresses_send_nothing() {
    let fabric = fabric();
    let (src, dst) = ("10.244.3.5".parse().unwrap(), "10.244.2.7".parse().unwrap());
    assert_eq!(
        fabric.deliver("node1", src, dst),
        dropped("node1", DropReason::ForeignSource)
    );
    assert_eq!(
        fabric.deliver("node9", src, dst),
        dropped("node9", DropReason::NoNode)
    );
}

#[test]
fn the_mac_of_a_link_can_be_asked() {
    let fabric = fabric();
    let mac = fabric.mac_of("node2", &"flannel.1".parse().unwrap());
    assert_eq!(mac, Some(vtep_mac(2).parse().unwrap()));
    assert_eq!(fabric.mac_of("node2", &"flannel.2".parse().unwrap()), None);
}

#[test]
fn ip_in_ip_needs_the_peers_address_as_next_hop_and_a_device_there() {
    let mut fabric = fabric();
    for node in NODES {
        for text in [
            format!("add link flannel.ipip ipip local 192.168.77.1{node} down"),
            "set link flannel.ipip up".to_owned(),
        ] {
            edit(&mut fabric, &format!("node{node}"), &text);
        }
    }
    let by = |node: u8| {
        format!("replace route 10.244.2.0/24 via 192.168.77.1{node} dev flannel.ipip onlink proto 3")
    };
    let node = "node2".to_owned();
    edit(&mut fabric, "node1", &by(2));
    assert_eq!(send(&fabric), Delivery::Delivered { node });
    edit(&mut fabric, "node1", &by(9));
    assert_eq!(send(&fabric), dropped("node1", DropReason::NoHost));
    edit(&mut fabric, "node1", &by(2));
    edit(
        &mut fabric,
        "node2",
        "set link flannel.ipip ipiplocal 192.168.77.99",
    );
    assert_eq!(send(&fabric), dropped("node2", DropReason::NoTunnel));
}
