//! The keys of the bridge plugin against the real kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{Node, Pod, ip, on_a_node, printed, sh};
use serde_json::{Value, json};

/// The bridge's configuration with further keys.
fn conf_with(node: &Node, keys: Value) -> Value {
    let mut conf = node.bridge_conf("1.0.0");
    conf["hairpinMode"] = json!(false);
    for (key, value) in keys.as_object().unwrap() {
        conf[key] = value.clone();
    }
    conf
}

fn check(node: &Node, pod: &Pod, conf: &Value, result: &Value) -> common::Call {
    let mut conf = conf.clone();
    conf["prevResult"] = result.clone();
    node.call("CHECK", pod, &conf)
}

fn message(error: &Value) -> &str {
    error["msg"].as_str().unwrap()
}

#[test]
fn isolated_pods_reach_the_gateway_and_not_each_other() {
    on_a_node(|node| {
        let conf = conf_with(&node, json!({"portIsolation": true}));
        let pods = [Pod::new("a"), Pod::new("b")];
        let results = pods.each_ref().map(|pod| node.call("ADD", pod, &conf).succeeds());
        for (pod, result) in pods.iter().zip(&results) {
            assert!(pod.reaches("10.244.7.1"));
            check(&node, pod, &conf, result).succeeds();
        }
        assert!(!pods[0].reaches("10.244.7.3"));
        // Freed by hand, they do, and CHECK tells it.
        for result in &results {
            let port = result["interfaces"][1]["name"].as_str().unwrap();
            printed(Command::new("bridge").args(["link", "set", "dev", port, "isolated", "off"]));
        }
        pods[0].sh("ping -c5 -W1 10.244.7.3");
        let error = check(&node, &pods[0], &conf, &results[0]).fails();
        assert!(
            message(&error).contains("isolation false, expected true"),
            "{error}"
        );
        for pod in &pods {
            node.call("DEL", pod, &conf).succeeds();
        }
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn a_promiscuous_bridge_excludes_hairpin_ports_on_add_but_not_on_del() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let conf = conf_with(&node, json!({"promiscMode": true}));
        let result = node.call("ADD", &pod, &conf).succeeds();
        assert!(ip(&["link", "show", "dev", "cni0"]).contains("PROMISC"));
        check(&node, &pod, &conf, &result).succeeds();
        ip(&["link", "set", "cni0", "promisc", "off"]);
        let error = check(&node, &pod, &conf, &result).fails();
        assert!(
            message(&error).contains("promiscuous mode off, expected on"),
            "{error}"
        );
        let both = conf_with(&node, json!({"promiscMode": true, "hairpinMode": true}));
        let error = node.call("ADD", &Pod::new("b"), &both).fails();
        assert_eq!(error["code"], 7);
        let words = "cannot set hairpin mode and promiscuous mode at the same time";
        assert_eq!(message(&error), words);
        node.call("DEL", &pod, &both).succeeds();
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn a_disabled_interface_is_there_down_and_without_addresses() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let mut conf = conf_with(&node, json!({"disableContainerInterface": true}));
        let error = node.call("ADD", &pod, &conf).fails();
        assert_eq!(
            (error["code"].as_u64(), message(&error)),
            (
                Some(7),
                "cannot use IPAM when DisableContainerInterface flag is set"
            )
        );
        node.assert_nothing_left(&[]);
        conf.as_object_mut().unwrap().remove("ipam");
        let result = node.call("ADD", &pod, &conf).succeeds();
        assert_eq!(result["interfaces"].as_array().unwrap().len(), 3);
        assert!(pod.sh("ip link show dev eth0").contains("state DOWN"));
        check(&node, &pod, &conf, &result).succeeds();
        node.call("DEL", &pod, &conf).succeeds();
        assert_eq!(node.links(), ["cni0"]);
    });
}

fn dual_stack(conf: &mut Value) {
    conf["ipam"]["ranges"] = json!([[{"subnet": "10.244.7.0/24"}], [{"subnet": "fd00:7::/64"}]]);
}

#[test]
fn with_enabledad_addresses_are_asked_after_and_usable_when_add_returns() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let mut conf = conf_with(&node, json!({"enabledad": true}));
        dual_stack(&mut conf);
        node.call("ADD", &pod, &conf).succeeds();
        assert_eq!(pod.sh("cat /proc/sys/net/ipv6/conf/eth0/accept_dad").trim(), "1");
        assert_eq!(
            pod.sh("cat /proc/sys/net/ipv6/conf/eth0/enhanced_dad").trim(),
            "1"
        );
        assert!(
            !pod.sh("ip -6 addr show dev eth0 scope global")
                .contains("tentative")
        );
        assert!(!ip(&["-6", "addr", "show", "dev", "cni0", "scope", "global"]).contains("tentative"));
        assert!(pod.reaches("fd00:7::1"));
        node.call("DEL", &pod, &conf).succeeds();
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn with_enabledad_an_address_that_another_station_has_is_an_error_and_nothing_is_left() {
    on_a_node(|node| {
        let mut conf = conf_with(&node, json!({"enabledad": true}));
        dual_stack(&mut conf);
        let other = Pod::new("other");
        node.call("ADD", &other, &conf).succeeds();
        // It takes the next address without asking anybody.
        other.sh("ip addr add fd00:7::3/64 dev eth0 nodad");
        let pod = Pod::new("a");
        let error = node.call("ADD", &pod, &conf).fails();
        assert_eq!(error["code"], 101, "{error}");
        assert!(
            message(&error).contains("fd00:7::3 of link \"eth0\" is in use by another station"),
            "{error}"
        );
        assert_eq!((node.links().len(), node.leases().len()), (2, 2));
        assert_eq!(pod.sh("ip -o link | wc -l").trim(), "1");
    });
}

#[test]
fn ipv6_is_switched_on_in_the_pod_for_its_interface_and_its_loopback() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        pod.sh("for i in all default lo; do echo 1 >/proc/sys/net/ipv6/conf/$i/disable_ipv6; done");
        let mut conf = node.bridge_conf("1.0.0");
        node.call("ADD", &pod, &conf).succeeds();
        assert_eq!(pod.sh("cat /proc/sys/net/ipv6/conf/lo/disable_ipv6").trim(), "1");
        node.call("DEL", &pod, &conf).succeeds();
        dual_stack(&mut conf);
        node.call("ADD", &pod, &conf).succeeds();
        for link in ["lo", "eth0"] {
            let disabled = pod.sh(&format!("cat /proc/sys/net/ipv6/conf/{link}/disable_ipv6"));
            assert_eq!(disabled.trim(), "0", "{link}");
        }
        pod.sh("ip link set lo up");
        assert!(pod.reaches("fd00:7::1") && pod.reaches("::1"));
        node.call("DEL", &pod, &conf).succeeds();
    });
}

#[test]
fn routes_of_a_result_are_made_with_all_their_attributes() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let mut conf = node.bridge_conf("1.1.0");
        conf["ipam"]["routes"] = json!([
            {"dst": "10.9.0.0/16", "mtu": 1300, "advmss": 1260, "priority": 50},
            {"dst": "10.8.0.0/16", "gw": "10.244.7.9", "table": 100},
            {"dst": "10.7.0.0/16", "table": 70000, "scope": 0},
        ]);
        let result = node.call("ADD", &pod, &conf).succeeds();
        assert_eq!(
            result["routes"][0],
            json!({"dst": "10.9.0.0/16", "mtu": 1300, "advmss": 1260, "priority": 50})
        );
        assert_eq!(result["routes"][1]["table"], 100);
        assert_eq!(
            pod.sh("ip route show 10.9.0.0/16").trim(),
            "10.9.0.0/16 via 10.244.7.1 dev eth0 metric 50 mtu 1300 advmss 1260"
        );
        assert_eq!(
            pod.sh("ip route show table 100").trim(),
            "10.8.0.0/16 via 10.244.7.9 dev eth0"
        );
        assert!(
            pod.sh("ip route show table 70000")
                .contains("10.7.0.0/16 via 10.244.7.1 dev eth0")
        );
        let check = check(&node, &pod, &conf, &result);
        check.succeeds();
        pod.sh("ip route flush table 100");
        let error = check.fails();
        assert!(message(&error).contains("no route to 10.8.0.0/16"), "{error}");
        node.call("DEL", &pod, &conf).succeeds();
        conf["ipam"]["routes"] = json!([{"dst": "10.9.0.0/16", "scope": 300}]);
        let error = node.call("ADD", &pod, &conf).fails();
        assert_eq!(error["code"], 7, "{error}");
        node.assert_nothing_left(&["cni0"]);
    });
}

/// The neighbours of an address that is given again may remember its former holder.
#[test]
fn who_remembers_an_addresss_former_holder_reaches_the_new_one_at_once() {
    on_a_node(|node| {
        let mut conf = node.bridge_conf("1.0.0");
        dual_stack(&mut conf);
        let watcher = Pod::new("watcher");
        node.call("ADD", &watcher, &conf).succeeds();
        let addresses = ["10.244.7.77", "fd00:7::77"];
        for round in 0..3 {
            let pod = Pod::new("a");
            let mut conf = conf.clone();
            let mac = format!("0a:00:00:00:00:{round:02x}");
            conf["runtimeConfig"] = json!({"ips": addresses, "mac": mac});
            let result = node.call("ADD", &pod, &conf).succeeds();
            assert_eq!(result["interfaces"][2]["mac"], mac.as_str());
            for address in addresses {
                printed(Command::new("ping").args(["-c1", "-W1", address]));
                watcher.sh(&format!("ping -c1 -W1 {address}"));
                let known = format!("ip neigh show {address}");
                let known = [watcher.sh(&known), sh(Path::new("/"), &known)];
                assert!(known.iter().all(|neigh| neigh.contains(&mac)), "{known:?}");
            }
            node.call("DEL", &pod, &conf).succeeds();
        }
    });
}

#[test]
fn a_bridge_without_ports_gets_the_address_of_the_new_range() {
    on_a_node(|node| {
        let old = Pod::new("old");
        node.add(&old);
        let link = || {
            ip(&["-br", "link", "show", "cni0"])
                .split_whitespace()
                .nth(2)
                .map(str::to_owned)
        };
        let mac = link();
        node.write_subnet_env(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.9.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        );
        // A pod of the old range still has the bridge as its gateway.
        let pod = Pod::new("a");
        let error = node.call("ADD", &pod, &node.conf("1.0.0")).fails();
        assert_eq!(error["code"], 101);
        let port = node.links().into_iter().find(|name| name != "cni0").unwrap();
        for words in [
            "failed to set bridge addr: \"cni0\" already has an IP address different from 10.244.9.1/24",
            "10.244.7.1/24, and 1 interfaces that may use it are attached",
            port.as_str(),
            "forceAddress",
        ] {
            assert!(message(&error).contains(words), "{words}: {error}");
        }
        assert!(old.reaches("10.244.7.1"));
        assert_eq!((node.links().len(), node.leases().len()), (2, 1));
        // STATUS says so, and that the old pod is cut off from the others.
        let status = node.call("STATUS", &pod, &node.conf("1.1.0"));
        let error = status.fails();
        assert_eq!(error["code"], 51, "{error}");
        assert!(message(&error).contains(port.as_str()), "{error}");
        node.del(&old);
        status.succeeds();
        node.add(&pod);
        status.succeeds();
        let addresses = ip(&["-4", "addr", "show", "dev", "cni0"]);
        assert!(
            addresses.contains("10.244.9.1/24") && !addresses.contains("10.244.7"),
            "{addresses}"
        );
        assert!(pod.reaches("10.244.9.1"));
        assert_eq!(link(), mac);
        node.del(&pod);
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn an_address_that_no_range_gave_is_not_replaced() {
    on_a_node(|node| {
        ip(&["link", "add", "cni0", "type", "bridge"]);
        let pod = Pod::new("a");
        // Of another network; not the first of its subnet; wider than the network.
        for address in ["192.168.7.1/24", "10.244.9.5/24", "10.0.0.1/8"] {
            ip(&["addr", "add", address, "dev", "cni0"]);
            let status = node.call("STATUS", &pod, &node.conf("1.1.0")).fails();
            assert_eq!(status["code"], 50, "{status}");
            let error = node.call("ADD", &pod, &node.conf("1.0.0")).fails();
            assert_eq!(error["code"], 101, "{error}");
            assert!(message(&error).contains(address), "{error}");
            assert!(ip(&["addr", "show", "dev", "cni0"]).contains(address));
            node.assert_nothing_left(&["cni0"]);
            ip(&["addr", "del", address, "dev", "cni0"]);
        }
    });
}

#[test]
fn an_address_beside_others_is_not_replaced_unless_that_is_asked_for() {
    on_a_node(|node| {
        ip(&["link", "add", "cni0", "type", "bridge"]);
        ip(&["addr", "add", "10.244.9.1/24", "dev", "cni0"]);
        ip(&["addr", "add", "192.168.9.1/24", "dev", "cni0"]);
        ip(&["addr", "add", "fd00:9::1/64", "dev", "cni0", "nodad"]);
        let pod = Pod::new("a");
        let mut call = node.call("ADD", &pod, &node.conf("1.0.0"));
        let status = node.call("STATUS", &pod, &node.conf("1.1.0"));
        assert_eq!(status.fails()["code"], 50);
        let error = call.fails();
        assert_eq!(error["code"], 101);
        assert!(
            message(&error).contains("10.244.9.1/24, 192.168.9.1/24; remove that, or set forceAddress"),
            "{error}"
        );
        node.assert_nothing_left(&["cni0"]);
        call.conf["delegate"]["forceAddress"] = json!(true);
        call.succeeds();
        let addresses = ip(&["addr", "show", "dev", "cni0"]);
        assert!(
            addresses.contains("10.244.7.1/24") && addresses.contains("fd00:9::1"),
            "{addresses}"
        );
        assert!(
            !addresses.contains("10.244.9.1") && !addresses.contains("192.168.9.1"),
            "{addresses}"
        );
        assert!(pod.reaches("10.244.7.1"));
        node.del(&pod);
    });
}
