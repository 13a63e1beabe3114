//! The bridge plugin's VLANs against the real kernel. The guests of `conformance` run this too, because this machine's kernel
//! may know none.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::collections::BTreeMap;
use std::process::Command;

use common::{Call, Node, Pod, ip, on_a_node, printed};
use serde_json::{Value, json};

/// A configuration of bridge with further keys; its pods have addresses of a range of their own.
fn conf(node: &Node, range: &str, keys: &Value) -> Value {
    let mut conf = node.bridge_conf("1.0.0");
    conf["hairpinMode"] = json!(false);
    conf["ipam"]["ranges"] = json!([[{"subnet": range}]]);
    conf["ipam"]["routes"] = json!([]);
    for (key, value) in keys.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}

/// A trunk, on which pods have no addresses but those that they give to devices of their own.
fn trunk(node: &Node, keys: &Value) -> Value {
    let mut conf = conf(node, "10.3.0.0/24", keys);
    conf.as_object_mut().unwrap().remove("ipam");
    conf
}

fn check(node: &Node, pod: &Pod, conf: &Value, result: &Value) -> Call {
    let mut conf = conf.clone();
    conf["prevResult"] = result.clone();
    node.call("CHECK", pod, &conf)
}

fn message(error: &Value) -> &str {
    error["msg"].as_str().unwrap()
}

/// What this kernel's bridges can, as iproute2 sees it.
fn kernel_knows_vlans() -> bool {
    ip(&["link", "add", "probe", "type", "bridge"]);
    let shown = ip(&["-d", "-j", "link", "show", "dev", "probe"]);
    ip(&["link", "del", "probe"]);
    shown.contains("vlan_default_pvid")
}

/// Runs a test on a node whose bridges know VLANs, and says so; does nothing on another kernel.
fn where_bridges_know_vlans(test: impl FnOnce(Node) + Send + 'static) {
    on_a_node(|node| {
        if kernel_knows_vlans() {
            println!("bridges know VLANs");
            test(node);
        }
    });
}

/// The VLANs of each port, in iproute2's words.
fn vlans() -> BTreeMap<String, Vec<String>> {
    let shown = printed(Command::new("bridge").args(["-j", "vlan", "show"]));
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let ports = shown.as_array().unwrap().iter().map(|port| {
        let vlans = port["vlans"].as_array().unwrap().iter().map(|vlan| {
            let flags = vlan["flags"].as_array().into_iter().flatten();
            let flags: Vec<_> = flags.map(|flag| flag.as_str().unwrap()).collect();
            let shown = format!("{} {}", vlan["vlan"], flags.join(" "));
            shown.trim_end().to_owned()
        });
        (port["ifname"].as_str().unwrap().to_owned(), vlans.collect())
    });
    ports.collect()
}

/// The VLANs of the port that a result names.
fn vlans_of(result: &Value) -> Vec<String> {
    vlans()[result["interfaces"][1]["name"].as_str().unwrap()].clone()
}

const ACCESS_100: &str = "100 PVID Egress Untagged";
const DEFAULT: &str = "1 PVID Egress Untagged";

#[test]
fn without_vlan_filtering_the_missing_kernel_option_is_named_and_nothing_is_left() {
    on_a_node(|node| {
        if kernel_knows_vlans() {
            return;
        }
        let pods = [Pod::new("a"), Pod::new("b")];
        let red = conf(&node, "10.1.0.0/24", &json!({"vlan": 100}));
        for conf in [
            &red,
            &trunk(&node, &json!({"vlanTrunk": [{"minID": 5, "maxID": 9}]})),
        ] {
            let error = node.call("ADD", &pods[0], conf).fails();
            assert!(
                message(&error).contains("CONFIG_BRIDGE_VLAN_FILTERING"),
                "{error}"
            );
            node.assert_nothing_left(&[]);
            node.call("DEL", &pods[0], conf).succeeds();
        }
        // A bridge that is there stays as it is.
        node.call("ADD", &pods[1], &node.bridge_conf("1.0.0")).succeeds();
        node.call("ADD", &pods[0], &red).fails();
        assert_eq!((node.links().len(), node.leases().len()), (2, 1));
    });
}

#[test]
fn numbers_that_no_vlan_has_are_refused_before_anything_is_made() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        for (keys, words) in [
            (json!({"vlan": 4095}), "invalid VLAN ID 4095"),
            (json!({"vlan": -1}), "invalid VLAN ID -1"),
            (json!({"vlanTrunk": [{"id": 0}]}), "incorrect trunk id parameter"),
            (
                json!({"vlanTrunk": [{"id": 4095}]}),
                "incorrect trunk id parameter",
            ),
            (
                json!({"vlanTrunk": [{"minID": 5, "maxID": 4095}]}),
                "incorrect trunk maxID parameter",
            ),
            (
                json!({"vlanTrunk": [{"minID": 9, "maxID": 5}]}),
                "minID 9 is greater than maxID 5",
            ),
            (json!({"vlanTrunk": [{"minID": 5}]}), "maxID is missing"),
            (
                json!({"vlan": 5, "vlanTrunk": [{"id": 6}]}),
                "cannot set vlan and vlanTrunk",
            ),
        ] {
            let conf = conf(&node, "10.1.0.0/24", &keys);
            let error = node.call("ADD", &pod, &conf).fails();
            assert_eq!(error["code"], 7, "{keys}: {error}");
            assert!(message(&error).contains(words), "{keys}: {error}");
            node.assert_nothing_left(&[]);
        }
    });
}

#[test]
fn pods_are_in_their_vlan_with_a_gateway_each_and_what_they_had_goes_with_them() {
    where_bridges_know_vlans(|node| {
        let red = conf(
            &node,
            "10.1.0.0/24",
            &json!({"vlan": 100, "preserveDefaultVlan": false}),
        );
        let blue = conf(
            &node,
            "10.2.0.0/24",
            &json!({"vlan": 200, "preserveDefaultVlan": false}),
        );
        let pods = [Pod::new("a"), Pod::new("b"), Pod::new("c")];
        let results =
            [(0, &red), (1, &red), (2, &blue)].map(|(at, conf)| node.call("ADD", &pods[at], conf).succeeds());
        assert!(pods[0].reaches("10.1.0.1") && pods[0].reaches("10.1.0.3") && pods[2].reaches("10.2.0.1"));
        // Another VLAN is not reached even with an address in its range.
        pods[2].sh("ip addr add 10.1.0.9/24 dev eth0");
        assert!(!pods[2].reaches("10.1.0.2"));
        assert_eq!(vlans_of(&results[0]), [ACCESS_100]);
        gateways_are_interfaces_of_the_vlans(&results[0], &results[2]);
        check(&node, &pods[0], &red, &results[0]).succeeds();
        ip(&["addr", "del", "10.1.0.1/24", "dev", "cni0.100"]);
        let error = check(&node, &pods[0], &red, &results[0]).fails();
        assert!(
            message(&error).contains("\"cni0.100\" does not have address 10.1.0.1/24"),
            "{error}"
        );
        for (pod, conf) in pods.iter().zip([&red, &red, &blue]) {
            node.call("DEL", pod, conf).succeeds();
            node.call("DEL", pod, conf).succeeds();
        }
        // The gateways stay for the next pods, as the bridge does.
        let mut left = vlans();
        assert_eq!(left.remove("cni0").unwrap(), [DEFAULT]);
        let left: Vec<_> = left.into_values().flatten().collect();
        assert!(
            left.len() == 2 && left.contains(&ACCESS_100.to_owned()),
            "{left:?}"
        );
        assert_eq!(node.leases().len(), 0);
        let result = node.call("ADD", &pods[0], &red).succeeds();
        assert!(pods[0].reaches("10.1.0.1"));
        assert_eq!(vlans().len(), 4, "{result}");
    });
}

/// Each gateway has an interface in its VLAN, which the result tells last, and the bridge itself has no address.
fn gateways_are_interfaces_of_the_vlans(red: &Value, blue: &Value) {
    for (result, name, address) in [
        (red, "cni0.100", "10.1.0.1/24"),
        (blue, "cni0.200", "10.2.0.1/24"),
    ] {
        let interface = &result["interfaces"][3];
        assert_eq!(interface["name"], name, "{result}");
        let shown = ip(&["addr", "show", "dev", name]);
        assert!(shown.contains(address), "{shown}");
        assert!(shown.contains(interface["mac"].as_str().unwrap()), "{shown}");
        assert_eq!(
            result["ips"][0]["gateway"],
            address.trim_end_matches("/24"),
            "{result}"
        );
    }
    assert_eq!(ip(&["-4", "addr", "show", "dev", "cni0"]), "");
}

#[test]
fn a_network_without_gateway_has_no_interface_in_its_vlan_and_leaves_none() {
    where_bridges_know_vlans(|node| {
        let pod = Pod::new("a");
        let conf = conf(
            &node,
            "10.1.0.0/24",
            &json!({"vlan": 100, "isGateway": false, "isDefaultGateway": false}),
        );
        let result = node.call("ADD", &pod, &conf).succeeds();
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 3, "{result}");
        check(&node, &pod, &conf, &result).succeeds();
        node.call("DEL", &pod, &conf).succeeds();
        assert_eq!(
            vlans(),
            BTreeMap::from([("cni0".to_owned(), vec![DEFAULT.to_owned()])])
        );
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn a_port_stays_in_the_default_vlan_unless_told_otherwise() {
    where_bridges_know_vlans(|node| {
        let pod = Pod::new("a");
        let kept = ["1 Egress Untagged", ACCESS_100];
        for (keys, expected) in [
            (json!({"vlan": 100}), kept.as_slice()),
            (json!({"vlan": 100, "preserveDefaultVlan": true}), &kept),
            (json!({"vlan": 100, "preserveDefaultVlan": false}), &[ACCESS_100]),
            // A gateway that is there is in the VLAN already.
            (json!({"vlan": 100}), &kept),
        ] {
            let conf = conf(&node, "10.1.0.0/24", &keys);
            let result = node.call("ADD", &pod, &conf).succeeds();
            assert_eq!(vlans_of(&result), expected, "{keys}");
            // What the pod sends is of its VLAN in any case.
            assert!(pod.reaches("10.1.0.1"), "{keys}");
            node.call("DEL", &pod, &conf).succeeds();
        }
    });
}

#[test]
fn a_trunk_carries_its_vlans_tagged_and_none_else() {
    where_bridges_know_vlans(|node| {
        let red = conf(
            &node,
            "10.1.0.0/24",
            &json!({"vlan": 100, "preserveDefaultVlan": false}),
        );
        let pods = [Pod::new("a"), Pod::new("b")];
        node.call("ADD", &pods[0], &red).succeeds();
        let ranges = json!([{"id": 100}, {"minID": 300, "maxID": 302}]);
        let with = trunk(&node, &json!({"vlanTrunk": ranges}));
        let result = node.call("ADD", &pods[1], &with).succeeds();
        assert_eq!(vlans_of(&result), [DEFAULT, "100", "300", "301", "302"]);
        check(&node, &pods[1], &with, &result).succeeds();
        // The pod tags by itself.
        for (vlan, address, reaches) in [(100, "10.1.0.98/24", true), (200, "10.1.0.99/24", false)] {
            let device = format!("eth0.{vlan}");
            pods[1].sh(&format!(
                "ip link add link eth0 name {device} type vlan id {vlan}
                 ip addr add {address} dev {device}
                 ip link set {device} up"
            ));
            assert_eq!(pods[1].reaches("10.1.0.2"), reaches, "{vlan}");
            pods[1].sh(&format!("ip link del {device}"));
        }
        node.call("DEL", &pods[1], &with).succeeds();
        let without = trunk(&node, &json!({"vlanTrunk": ranges, "preserveDefaultVlan": false}));
        let result = node.call("ADD", &pods[1], &without).succeeds();
        assert_eq!(vlans_of(&result), ["100", "300", "301", "302"]);
        node.call("DEL", &pods[1], &without).succeeds();
        let left: Vec<_> = vlans().into_values().flatten().collect();
        assert!(!left.iter().any(|vlans| vlans.contains("300")), "{left:?}");
    });
}
