use std::net::IpAddr;

use conformance::lab::{Ip, NODE_LINK, Namespaces, Node, POD_LINK, TUNNEL, wait_until};

use crate::direct_routing::losses;
use crate::dual_stack::{V4_HEADERS, reaches};
use crate::support::{Bed, LONG, run_all, running};

#[test]
fn an_underlay_that_is_renamed_or_becomes_a_port_of_a_bridge_is_followed() {
    let bed = running(3, 1);
    let device = index_of_device(&bed);
    // There and back: notices that come together are sorted by name.
    for (before, now) in [("eth0", "lan0"), ("lan0", "eth0")] {
        let down = format!("ip link set {before} down");
        let name = format!("ip link set {before} name {now}");
        let up = format!("ip link set {now} up");
        let route = format!("ip route replace default via 192.168.77.1 dev {now}");
        move_underlay(&bed, &[&down, &name, &up, &route], now);
        assert_eq!(index_of_device(&bed), device, "the device was made anew");
    }
    let bridged = [
        "ip link add br0 type bridge stp_state 0 forward_delay 0",
        "ip address flush dev eth0",
        "ip link set eth0 master br0",
        "ip link set br0 up",
        "ip address add 192.168.77.11/24 dev br0",
        "ip route replace default via 192.168.77.1 dev br0",
    ];
    move_underlay(&bed, &bridged, "br0");
    let log = bed.node(1).log("flanneld").unwrap();
    assert_eq!(log.matches("following it").count(), 3, "{log}");
}

#[test]
fn another_mtu_of_the_underlay_is_followed_without_loss() {
    let bed = running(2, 1);
    let (node, device) = (bed.node(1), index_of_device(&bed));
    let (old, far) = (bed.pod_on(1), bed.pod_on(2));
    for (outer, inner) in [(1400, 1350), (1500, 1450)] {
        let ends = [old, far].map(|pod| (pod.namespaces(), IpAddr::V4(pod.address())));
        let ((), lost) = losses(ends, || {
            // A link whose ends differ drops what is too large without a word.
            for node in bed.lab.nodes() {
                run_all(node, &[&format!("ip link set {NODE_LINK} mtu {outer}")]);
            }
            wait_until("devices and subnet files to have the new MTU", LONG, || {
                let follows = |node: &Node| {
                    let told = node.subnet_env("FLANNEL_MTU").ok();
                    mtu_of(node.namespaces(), TUNNEL) == inner && told == Some(inner.to_string())
                };
                Ok(bed.lab.nodes().iter().all(follows))
            })
            .unwrap();
        });
        assert_eq!(lost, 0, "{outer}");
        let new = node.add_pod(&format!("new-{outer}")).unwrap();
        let full = usize::try_from(inner).unwrap() - V4_HEADERS;
        reaches(new.namespaces(), &far.address().to_string(), full);
        assert_eq!(mtu_of(new.namespaces(), POD_LINK), inner);
        // In pieces, once the host has told it.
        let ping = format!(
            "ping -n -c 1 -W 2 -M want -s {} {}",
            1450 - V4_HEADERS,
            far.address()
        );
        let argv: Vec<_> = ping.split(' ').collect();
        wait_until(&ping, LONG, || {
            Ok(old.namespaces().output(&argv)?.status.success())
        })
        .unwrap();
    }
    assert_eq!(index_of_device(&bed), device, "the device was made anew");
}

fn mtu_of(namespaces: &Namespaces, link: &str) -> u64 {
    let links = namespaces
        .json(&["ip", "-j", "link", "show", "dev", link])
        .unwrap();
    links[0]["mtu"].as_u64().unwrap()
}

/// Runs what moves the first node's underlay to another link, until the tunnel lies on that and all pods reach each other.
fn move_underlay(bed: &Bed, commands: &[&str], link: &str) {
    run_all(bed.node(1), commands);
    let lies_on = format!(" dev {link} ");
    wait_until("the tunnel to lie on the new link", LONG, || {
        let device = bed.node(1).ip(&["-d", "link", "show", "flannel.1"]);
        Ok(device.is_ok_and(|device| device.contains(&lies_on)))
    })
    .unwrap();
    bed.assert_all_ping();
}

fn index_of_device(bed: &Bed) -> String {
    let shown = bed.node(1).ip(&["link", "show", "flannel.1"]).unwrap();
    shown.split(':').next().unwrap().to_owned()
}
