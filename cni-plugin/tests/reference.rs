//! Side by side with the reference's plugins (Debian's containernetworking-plugins in /usr/lib/cni): pods that one
//! made are deleted by the other, and both give out addresses of one store at the same time.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::{BINARY, Node, Pod, names_in, on_a_node};
use serde_json::Value;

const REFERENCE: &str = "/usr/lib/cni";

fn reference(plugin: &str) -> PathBuf {
    let path = Path::new(REFERENCE).join(plugin);
    assert!(path.exists(), "install containernetworking-plugins");
    path
}

/// The binary under the reference's names.
fn ours(node: &Node, plugin: &str) -> PathBuf {
    let dir = node.path("bin");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(plugin);
    if !path.exists() {
        symlink(BINARY, &path).unwrap();
    }
    path
}

fn without_names(mut result: Value) -> Value {
    for interface in result["interfaces"].as_array_mut().unwrap() {
        interface["mac"].take();
        if interface.get("sandbox").is_none() && interface["name"] != "cni0" {
            interface["name"].take();
        }
        interface["sandbox"].take();
    }
    // Debian's 1.1.1 prints empty settings at 1.0.0 as well; later ones do not.
    let result_map = result.as_object_mut().unwrap();
    if result_map.get("dns") == Some(&Value::Object(serde_json::Map::new())) {
        result_map.remove("dns");
    }
    result
}

#[test]
fn pods_made_by_one_are_checked_and_deleted_by_the_other() {
    on_a_node(|node| {
        for (made_by, deleted_by) in [
            (reference("bridge"), ours(&node, "bridge")),
            (ours(&node, "bridge"), reference("bridge")),
        ] {
            let pod = Pod::new("a");
            let mut conf = node.bridge_conf("1.0.0");
            // The reference's CHECK (1.1.1) misses every route without a gateway, its own too.
            conf["ipam"]["routes"][0]["gw"] = "10.244.7.1".into();
            let result = node.call("ADD", &pod, &conf).exec(&made_by);
            assert!(pod.reaches("10.244.7.1"));
            conf["prevResult"] = result;
            node.call("CHECK", &pod, &conf).exec(&deleted_by);
            node.call("DEL", &pod, &conf).exec(&deleted_by);
            node.assert_nothing_left(&["cni0"]);
            assert_eq!(pod.sh("ip -o link | wc -l").trim(), "1");
        }
    });
}

#[test]
fn both_print_the_same_result() {
    on_a_node(|node| {
        for version in ["0.2.0", "0.3.1", "0.4.0", "1.0.0"] {
            let conf = node.bridge_conf(version);
            let (one, other) = (Pod::new("a"), Pod::new("b"));
            let by_reference = node.call("ADD", &one, &conf).exec(&reference("bridge"));
            node.call("DEL", &one, &conf).exec(&reference("bridge"));
            fs::remove_file(node.path("networks/cbr0/last_reserved_ip.0")).unwrap();
            let by_us = node.call("ADD", &other, &conf).exec(&ours(&node, "bridge"));
            node.call("DEL", &other, &conf).exec(&ours(&node, "bridge"));
            fs::remove_file(node.path("networks/cbr0/last_reserved_ip.0")).unwrap();
            if version == "0.2.0" {
                assert_eq!(by_us, by_reference);
            } else {
                assert_eq!(without_names(by_us), without_names(by_reference));
            }
        }
    });
}

#[test]
fn flannels_pods_can_be_deleted_by_the_reference_after_a_roll_back() {
    on_a_node(|node| {
        // The reference's flannel plugin runs the stored configuration through its delegate.
        let pod = Pod::new("a");
        node.add(&pod);
        let stored = fs::read_to_string(node.path("flannel/a")).unwrap();
        let mut call = node.call("DEL", &pod, &node.conf("1.0.0"));
        call.conf = serde_json::from_str(&stored).unwrap();
        call.exec(&reference("bridge"));
        assert!(node.leases().is_empty());
        assert_eq!(node.links(), ["cni0"]);
        // And what the reference made, with its state file, ours deletes.
        let mut call = node.call("ADD", &pod, &node.conf("1.0.0"));
        call.conf = serde_json::from_str(&stored).unwrap();
        call.exec(&reference("bridge"));
        node.del(&pod);
        node.assert_nothing_left(&["cni0"]);
    });
}

/// Makes a call for each pod at once, by both programs in turn.
fn at_once(node: &Node, programs: &[PathBuf; 2], calls: &[(&str, &Pod)], shift: usize) -> Vec<Value> {
    let mut conf = node.bridge_conf("1.0.0");
    conf["type"] = "host-local".into();
    let children: Vec<_> = calls
        .iter()
        .enumerate()
        .map(|(i, (verb, pod))| node.call(verb, pod, &conf).spawn(&programs[(i + shift) % 2]))
        .collect();
    let outputs = children
        .into_iter()
        .map(|child| child.wait_with_output().unwrap());
    outputs
        .map(|output| {
            let printed = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{printed}");
            serde_json::from_str(&printed).unwrap_or_default()
        })
        .collect()
}

fn each<'a>(verb: &'a str, pods: &'a [Pod]) -> Vec<(&'a str, &'a Pod)> {
    pods.iter().map(|pod| (verb, pod)).collect()
}

#[test]
fn one_store_serves_both_at_the_same_time() {
    on_a_node(|node| {
        let programs = [reference("host-local"), ours(&node, "host-local")];
        let pods: Vec<_> = (0..36).map(|i| Pod::new(&format!("pod{i}"))).collect();
        let (first, last) = pods.split_at(24);
        let results = at_once(&node, &programs, &each("ADD", first), 0);
        let addresses: BTreeSet<_> = results
            .iter()
            .map(|r| r["ips"][0]["address"].to_string())
            .collect();
        assert_eq!(addresses.len(), 24);
        assert_eq!(node.leases().len(), 24);
        at_once(&node, &programs, &each("CHECK", first), 1);
        // Half of them go while others come.
        let (gone, kept) = first.split_at(12);
        let turn = gone
            .iter()
            .zip(last)
            .flat_map(|(gone, new)| [("DEL", gone), ("ADD", new)]);
        at_once(&node, &programs, &turn.collect::<Vec<_>>(), 0);
        let holders: BTreeSet<_> = node.leases().into_values().collect();
        let wanted = kept.iter().chain(last).map(|pod| format!("{}\r\neth0", pod.id));
        assert_eq!(holders, wanted.collect());
        at_once(&node, &programs, &each("DEL", &pods[12..]), 1);
        assert!(node.leases().is_empty());
        assert_eq!(
            names_in(&node.path("networks/cbr0")),
            ["last_reserved_ip.0", "lock"]
        );
    });
}

#[test]
fn both_refuse_a_second_reservation_and_continue_after_the_same_address() {
    on_a_node(|node| {
        let programs = [reference("host-local"), ours(&node, "host-local")];
        let mut conf = node.bridge_conf("1.0.0");
        conf["type"] = "host-local".into();
        let pod = Pod::new("a");
        for (first, second) in [(0, 1), (1, 0)] {
            node.call("ADD", &pod, &conf).exec(&programs[first]);
            let refused = node
                .call("ADD", &pod, &conf)
                .spawn(&programs[second])
                .wait_with_output()
                .unwrap();
            let error: Value = serde_json::from_slice(&refused.stdout).unwrap();
            let msg = error["msg"].as_str().unwrap();
            assert!(
                msg.contains("has been allocated to a, duplicate allocation is not allowed"),
                "{msg}"
            );
            node.call("DEL", &pod, &conf).exec(&programs[second]);
        }
        let addresses: Vec<_> = (0..4)
            .map(|i| {
                let pod = Pod::new(&format!("p{i}"));
                node.call("ADD", &pod, &conf).exec(&programs[i % 2])["ips"][0]["address"].clone()
            })
            .collect();
        assert_eq!(
            addresses,
            ["10.244.7.4/24", "10.244.7.5/24", "10.244.7.6/24", "10.244.7.7/24"]
        );
    });
}

#[test]
fn programs_serve_as_delegate_and_as_address_management() {
    on_a_node(|node| {
        // flannel here, ptp and its host-local as programs.
        let pod = Pod::new("a");
        let mut call = node.call("ADD", &pod, &node.conf("0.4.0"));
        call.conf["delegate"] = serde_json::json!({"type": "ptp"});
        let result = call.exec(Path::new(BINARY));
        assert_eq!(result["ips"][0]["address"], "10.244.7.2/24");
        assert!(pod.reaches("10.244.7.1"));
        let mut del = node.call("DEL", &pod, &call.conf);
        del.conf["prevResult"] = result;
        del.exec(Path::new(BINARY));
        node.assert_nothing_left(&[]);
        // bridge here, static as a program.
        let mut conf = node.bridge_conf("1.0.0");
        conf["ipam"] = serde_json::json!({"type": "static",
            "addresses": [{"address": "10.244.7.77/24", "gateway": "10.244.7.1"}]});
        let result = node.call("ADD", &pod, &conf).exec(&ours(&node, "bridge"));
        assert_eq!(result["ips"][0]["address"], "10.244.7.77/24");
        assert!(pod.reaches("10.244.7.1"));
        conf["prevResult"] = result;
        node.call("CHECK", &pod, &conf).exec(&ours(&node, "bridge"));
        node.call("DEL", &pod, &conf).exec(&ours(&node, "bridge"));
        assert_eq!(node.links(), ["cni0"]);
    });
}

/// The reference's host interfaces have random names: GC cannot tell whose they are, and must not give their addresses
/// to others while they may be attached.
#[test]
fn gc_keeps_the_address_of_a_pod_of_the_references_until_its_interface_is_gone() {
    on_a_node(|node| {
        let (theirs, stale, valid) = (Pod::new("theirs"), Pod::new("stale"), Pod::new("valid"));
        let conf = node.bridge_conf("1.0.0");
        node.call("ADD", &theirs, &conf).exec(&reference("bridge"));
        for pod in [&stale, &valid] {
            node.call("ADD", pod, &conf).exec(&ours(&node, "bridge"));
        }
        let mut gc = node.call("GC", &valid, &node.bridge_conf("1.1.0"));
        gc.conf["cni.dev/valid-attachments"] =
            serde_json::json!([{"containerID": "valid", "ifname": "eth0"}]);
        gc.exec(&ours(&node, "bridge"));
        assert!(theirs.reaches("10.244.7.1"));
        let holders = |node: &Node| node.leases().into_values().collect::<Vec<_>>();
        assert_eq!(holders(&node), ["theirs\r\neth0", "valid\r\neth0"]);
        // Its container ends, and with it the interface.
        theirs.sh("ip link del eth0");
        gc.exec(&ours(&node, "bridge"));
        assert_eq!(holders(&node), ["valid\r\neth0"]);
        assert!(valid.reaches("10.244.7.1"));
    });
}
