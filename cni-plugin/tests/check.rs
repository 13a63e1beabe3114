//! CHECK against the real kernel: it finds each difference, and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::fs;

use common::{Node, Pod, on_a_node, sh};
use serde_json::{Value, json};

enum Place {
    Pod,
    Node,
}

/// Breaks an attachment by the first script, expects CHECK to fail with the words, and mends it by the second.
struct Case {
    words: &'static str,
    place: Place,
    broken_by: &'static str,
    mended_by: &'static str,
}

/// `VETH` in a script stands for the host interface.
const CASES: [Case; 10] = [
    Case {
        words: "\"eth0\" does not have address 10.244.7.2/24",
        place: Place::Pod,
        broken_by: "ip addr add 10.244.7.9/24 dev eth0; ip addr del 10.244.7.2/24 dev eth0",
        mended_by: "ip addr add 10.244.7.2/24 dev eth0; ip addr del 10.244.7.9/24 dev eth0; \
            ip route replace default via 10.244.7.1; ip route replace 10.244.0.0/16 via 10.244.7.1",
    },
    Case {
        words: "no route to 0.0.0.0/0 via 10.244.7.1",
        place: Place::Pod,
        broken_by: "ip route del default",
        mended_by: "ip route add default via 10.244.7.1",
    },
    Case {
        words: "\"eth0\" has state down",
        place: Place::Pod,
        broken_by: "ip link set eth0 down",
        mended_by: "ip link set eth0 up; ip route add default via 10.244.7.1; \
            ip route add 10.244.0.0/16 via 10.244.7.1",
    },
    Case {
        words: "has bridge none, expected cni0",
        place: Place::Node,
        broken_by: "ip link set VETH nomaster",
        mended_by: "ip link set VETH master cni0; ip link set VETH type bridge_slave hairpin on",
    },
    Case {
        words: "has hairpin mode false, expected true",
        place: Place::Node,
        broken_by: "ip link set VETH type bridge_slave hairpin off",
        mended_by: "ip link set VETH type bridge_slave hairpin on",
    },
    Case {
        words: "has MTU 1000, expected 1450",
        place: Place::Node,
        broken_by: "ip link set VETH mtu 1000",
        mended_by: "ip link set VETH mtu 1450",
    },
    Case {
        words: "the node does not forward IPv4",
        place: Place::Node,
        broken_by: "echo 0 > /proc/sys/net/ipv4/ip_forward",
        mended_by: "echo 1 > /proc/sys/net/ipv4/ip_forward",
    },
    Case {
        words: "\"cni0\" does not have address 10.244.7.1/24",
        place: Place::Node,
        broken_by: "ip addr del 10.244.7.1/24 dev cni0",
        mended_by: "ip addr add 10.244.7.1/24 dev cni0",
    },
    Case {
        words: "failed to find an address added for container a",
        place: Place::Node,
        broken_by: "mv networks/cbr0/10.244.7.2 aside",
        mended_by: "mv aside networks/cbr0/10.244.7.2",
    },
    Case {
        words: "its state file is gone",
        place: Place::Node,
        broken_by: "mv flannel/a aside",
        mended_by: "mv aside flannel/a",
    },
];

/// Adds a pod and returns its CHECK, and the name of its host interface.
fn checked(node: &Node, pod: &Pod) -> (common::Call, String) {
    let result = node.add(pod);
    let veth = result["interfaces"][1]["name"].as_str().unwrap().to_owned();
    let mut call = node.call("CHECK", pod, &node.conf("1.0.0"));
    call.conf["prevResult"] = result;
    call.succeeds();
    (call, veth)
}

fn fails_with(call: &common::Call, words: &str) {
    let error = call.fails();
    assert!(error["msg"].as_str().unwrap().contains(words), "{words}: {error}");
}

#[test]
fn each_difference_is_found_and_named() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let (call, veth) = checked(&node, &pod);
        for case in &CASES {
            let run = |script: &str| match case.place {
                Place::Pod => pod.sh(script),
                Place::Node => sh(node.dir.path(), &script.replace("VETH", &veth)),
            };
            run(case.broken_by);
            fails_with(&call, case.words);
            run(case.mended_by);
            call.succeeds();
        }
    });
}

#[test]
fn each_family_needs_its_reservation() {
    on_a_node(|node| {
        node.write_subnet_env(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\n\
             FLANNEL_IPV6_SUBNET=fd00:10:244:7::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        );
        let pod = Pod::new("a");
        let (call, _) = checked(&node, &pod);
        for lease in ["10.244.7.2", "fd00:10:244:7::2"] {
            let lease = node.path("networks/cbr0").join(lease);
            let own = fs::read(&lease).unwrap();
            for other in ["other\r\neth0", "a\r\neth1"] {
                fs::write(&lease, other).unwrap();
                fails_with(&call, "failed to find an address added for container a");
            }
            fs::remove_file(&lease).unwrap();
            fails_with(&call, "failed to find an address added for container a");
            // Early versions of the reference wrote no interface.
            fs::write(&lease, "a").unwrap();
            call.succeeds();
            fs::write(&lease, own).unwrap();
            call.succeeds();
        }
    });
}

#[test]
fn what_later_plugins_do_is_no_difference() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let (mut call, _) = checked(&node, &pod);
        pod.sh("ip addr add 192.0.2.1/32 dev eth0; ip route add 192.0.2.8/32 dev eth0");
        pod.sh("ip link set eth0 mtu 1300");
        call.conf["prevResult"]["routes"]
            .as_array_mut()
            .unwrap()
            .push(json!({"dst": "198.51.100.0/24", "gw": "203.0.113.1"}));
        call.succeeds();
        pod.sh("ip link set eth0 address 0a:00:00:00:00:42");
        fails_with(&call, "hardware address");
        call.conf["prevResult"]["interfaces"][2]["mac"] = json!("0a:00:00:00:00:42");
        call.succeeds();
    });
}

#[test]
fn a_previous_result_that_cannot_be_used_is_an_error() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let (mut call, _) = checked(&node, &pod);
        let result = call.conf["prevResult"].take();
        fails_with(&call, "required prevResult missing");
        call.conf["prevResult"] = json!({"cniVersion": "1.0.0"});
        fails_with(&call, "names no container interface \"eth0\"");
        call.conf["prevResult"] = json!([]);
        fails_with(&call, "prevResult cannot be used");
        // Another path of the same namespace is fine, another namespace is not.
        call.conf["prevResult"] = result.clone();
        call.conf["prevResult"]["interfaces"][2]["sandbox"] =
            Value::from(pod.netns.replace("/proc/", "/proc/../proc/"));
        call.succeeds();
        call.conf["prevResult"]["interfaces"][2]["sandbox"] = Value::from("/proc/self/ns/net");
        fails_with(&call, "prevResult places the container in");
        call.conf["prevResult"] = result;
        fails_with(
            &call.clone().var("CNI_IFNAME", "eth1"),
            "names no container interface \"eth1\"",
        );
        call.succeeds();
    });
}
