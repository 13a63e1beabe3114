//! Delegates that are programs, Debian's reference plugins and others, in every operation.
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
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use common::{Node, Pod, ip, on_a_node};
use serde_json::{Value, json};

/// Flannel's configuration with another delegate.
fn with_delegate(node: &Node, version: &str, delegate: Value) -> Value {
    let mut conf = node.conf(version);
    conf["delegate"] = delegate;
    conf
}

/// Puts a program into a directory of the node and returns the path by which it is found.
fn plugin(node: &Node, name: &str, script: &str) -> (PathBuf, String) {
    let dir = node.path("bin");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, script).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    (path, format!("{}:/usr/lib/cni", dir.display()))
}

fn message(error: &Value) -> &str {
    error["msg"].as_str().unwrap()
}

#[test]
fn ptp_attaches_checks_and_detaches_as_flannels_delegate() {
    on_a_node(|node| {
        let conf = with_delegate(&node, "1.0.0", json!({"type": "ptp", "ipMasq": false}));
        let pods = [Pod::new("a"), Pod::new("b")];
        let results = pods.each_ref().map(|pod| node.call("ADD", pod, &conf).succeeds());
        assert_eq!(results[0]["ips"][0]["address"], "10.244.7.2/24");
        assert_eq!(results[1]["interfaces"][1]["sandbox"], pods[1].netns.as_str());
        // Forwarding is the bridge's to switch on, or ptp's own.
        assert!(pods[0].reaches("10.244.7.1") && pods[0].reaches("10.244.7.3"));
        assert_eq!(node.state_files(), ["a", "b"]);
        let mut check = node.call("CHECK", &pods[0], &conf);
        check.conf["prevResult"] = results[0].clone();
        // The reference does not find a route that it made itself if the result leaves its gateway open.
        assert!(message(&check.fails()).contains("Expected Route"));
        for route in check.conf["prevResult"]["routes"].as_array_mut().unwrap() {
            route["gw"] = json!("10.244.7.1");
        }
        check.succeeds();
        pods[0].sh("ip addr flush dev eth0");
        assert!(message(&check.fails()).contains("eth0"));
        let error = node.call("ADD", &pods[1], &conf).fails();
        assert!(error["code"].as_u64().unwrap() > 0, "{error}");
        for _ in 0..2 {
            for pod in &pods {
                node.call("DEL", pod, &conf).succeeds();
            }
            node.assert_nothing_left(&[]);
        }
    });
}

#[test]
fn macvlan_attaches_to_the_nodes_own_network() {
    on_a_node(|node| {
        ip(&["link", "add", "uplink", "type", "veth", "peer", "name", "switch"]);
        for link in ["uplink", "switch"] {
            ip(&["link", "set", link, "up"]);
        }
        ip(&["addr", "add", "10.244.7.254/24", "dev", "switch"]);
        let delegate = json!({"type": "macvlan", "master": "uplink", "mode": "bridge"});
        let conf = with_delegate(&node, "1.0.0", delegate);
        let pods = [Pod::new("a"), Pod::new("b")];
        for pod in &pods {
            let result = node.call("ADD", pod, &conf).succeeds();
            assert_eq!(result["interfaces"][0]["sandbox"], pod.netns.as_str());
            assert!(pod.sh("ip -d link show eth0").contains("macvlan mode bridge"));
        }
        assert!(pods[0].reaches("10.244.7.3") && pods[0].reaches("10.244.7.254"));
        for pod in &pods {
            node.call("DEL", pod, &conf).succeeds();
        }
        let mut links = node.links();
        links.sort();
        assert_eq!(
            (links, node.leases().len(), node.state_files().len()),
            (vec!["switch".to_owned(), "uplink".to_owned()], 0, 0)
        );
    });
}

#[test]
fn static_gives_the_bridges_pods_their_addresses_and_routes() {
    on_a_node(|node| {
        let mut conf = node.bridge_conf("1.0.0");
        conf["ipam"] = json!({
            "type": "static",
            "addresses": [
                {"address": "10.244.7.77/24", "gateway": "10.244.7.1"},
                {"address": "fd00:7::77/64", "gateway": "fd00:7::1"},
            ],
            "routes": [{"dst": "10.0.0.0/8"}],
            "dns": {"nameservers": ["10.0.0.10"]},
        });
        let pod = Pod::new("a");
        let result = node.call("ADD", &pod, &conf).succeeds();
        assert_eq!(result["dns"]["nameservers"], json!(["10.0.0.10"]));
        assert!(pod.reaches("10.244.7.1") && pod.reaches("fd00:7::1"));
        assert!(pod.sh("ip route").contains("10.0.0.0/8 via 10.244.7.1 dev eth0"));
        let mut check = node.call("CHECK", &pod, &conf);
        check.conf["prevResult"] = result;
        check.succeeds();
        node.call("DEL", &pod, &conf).succeeds();
        assert_eq!(node.links(), ["cni0"]);
    });
}

#[test]
fn an_address_service_that_does_not_run_is_named_and_nothing_is_left() {
    on_a_node(|node| {
        let mut conf = node.bridge_conf("1.0.0");
        let socket = node.path("dhcp.sock");
        conf["ipam"] = json!({"type": "dhcp", "daemonSocketPath": socket});
        let pod = Pod::new("a");
        let error = node.call("ADD", &pod, &conf).fails();
        assert!(message(&error).contains("dhcp.sock"), "{error}");
        assert_eq!(node.links(), Vec::<String>::new());
        assert_eq!(pod.sh("ip -o link | wc -l").trim(), "1");
    });
}

/// Debian's plugins know neither version 1.1.0 nor its operations.
#[test]
fn a_delegate_older_than_status_and_gc_is_asked_for_its_versions() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let old = with_delegate(&node, "1.1.0", json!({"type": "ptp"}));
        // It cannot serve an ADD in this version, and STATUS says so.
        let refusal = node.call("ADD", &pod, &old).fails();
        assert_eq!(
            (refusal["code"].as_u64(), message(&refusal)),
            (Some(1), "incompatible CNI versions")
        );
        node.assert_nothing_left(&[]);
        let status = node.call("STATUS", &pod, &old).fails();
        assert_eq!(status["code"], 50, "{status}");
        let words =
            "plugin \"ptp\" does not support CNI version 1.1.0, so no ADD can succeed; it supports 0.1.0";
        assert!(message(&status).starts_with(words), "{status}");
        let mut bridge = node.bridge_conf("1.1.0");
        bridge["ipam"] = json!({"type": "static", "addresses": []});
        assert_eq!(node.call("STATUS", &pod, &bridge).fails()["code"], 50);
        // GC is nothing that it fails, and the state by which it detaches stays.
        node.call(
            "ADD",
            &pod,
            &with_delegate(&node, "1.0.0", json!({"type": "ptp"})),
        )
        .succeeds();
        let mut gc = node.call("GC", &pod, &old);
        gc.conf["cni.dev/valid-attachments"] = json!([]);
        gc.succeeds();
        assert_eq!(node.state_files(), ["a"]);
        node.call("DEL", &pod, &old).succeeds();
        node.assert_nothing_left(&[]);
        bridge["cni.dev/valid-attachments"] = json!([]);
        node.call("GC", &pod, &bridge).succeeds();
        // One that knows the version, but not the operation, stands in nobody's way.
        let script = "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = VERSION ] && \
            echo '{\"cniVersion\":\"1.1.0\",\"supportedVersions\":[\"1.1.0\"]}' && exit\n\
            echo '{\"code\":4,\"msg\":\"unknown CNI_COMMAND: '$CNI_COMMAND'\"}'; exit 1\n";
        let (_, path) = plugin(&node, "halfway", script);
        let conf = with_delegate(&node, "1.1.0", json!({"type": "halfway"}));
        node.call("STATUS", &pod, &conf).var("CNI_PATH", &path).succeeds();
    });
}

/// An old delegate may miss the container id before it looks at the operation.
#[test]
fn an_old_delegate_that_fails_in_its_own_way_is_asked_for_its_versions() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let script = "#!/bin/sh\ncat >/dev/null\n[ $CNI_COMMAND = VERSION ] && \
            echo '{\"cniVersion\":\"1.0.0\",\"supportedVersions\":[\"1.0.0\"]}' && exit\n\
            echo '{\"code\":3,\"msg\":\"missing containerID\"}'; exit 1\n";
        let (_, path) = plugin(&node, "older", script);
        for name in ["older", "macvlan"] {
            let conf = with_delegate(&node, "1.1.0", json!({"type": name, "master": "lo"}));
            let status = node.call("STATUS", &pod, &conf).var("CNI_PATH", &path).fails();
            assert_eq!(status["code"], 50, "{status}");
            assert!(
                message(&status).contains("does not support CNI version 1.1.0"),
                "{status}"
            );
            let mut gc = node.call("GC", &pod, &conf).var("CNI_PATH", &path);
            gc.conf["cni.dev/valid-attachments"] = json!([]);
            gc.succeeds();
        }
    });
}

#[test]
fn what_a_delegate_says_of_its_status_is_passed_on() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let script = "#!/bin/sh\ncat >/dev/null\necho '{\"code\":51,\"msg\":\"half\",\"details\":\"the cable\"}'; exit 1\n";
        let (_, path) = plugin(&node, "ailing", script);
        let conf = with_delegate(&node, "1.1.0", json!({"type": "ailing"}));
        for verb in ["STATUS", "GC"] {
            let mut call = node.call(verb, &pod, &conf).var("CNI_PATH", &path);
            call.conf["cni.dev/valid-attachments"] = json!([]);
            let error = call.fails();
            assert_eq!(
                (&error["code"], &error["msg"], &error["details"]),
                (&json!(51), &json!("half"), &json!("the cable"))
            );
        }
        let missing = with_delegate(&node, "1.1.0", json!({"type": "nowhere"}));
        assert_eq!(node.call("STATUS", &pod, &missing).fails()["code"], 7);
    });
}

#[test]
fn a_delegate_whose_file_is_being_written_is_tried_again() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let (file, path) = plugin(&node, "ptp", "");
        fs::copy("/usr/lib/cni/ptp", &file).unwrap();
        let writer = fs::File::options().append(true).open(&file).unwrap();
        let release = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(700));
            drop(writer);
        });
        let conf = with_delegate(&node, "1.0.0", json!({"type": "ptp"}));
        node.call("ADD", &pod, &conf).var("CNI_PATH", &path).succeeds();
        release.join().unwrap();
        node.call("DEL", &pod, &conf).var("CNI_PATH", &path).succeeds();
        node.assert_nothing_left(&[]);
    });
}

/// The whole configuration and the caller's environment reach the delegate, and its words reach the caller.
#[test]
fn a_delegate_gets_the_complete_call() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let script = "#!/bin/sh\ncat >\"$0.conf\"; env >\"$0.env\"; echo log >&2\n\
            echo '{\"ips\":[{\"version\":\"4\",\"address\":\"10.9.0.2/24\"}]}'\n";
        let (file, path) = plugin(&node, "recorder", script);
        let mut conf = node.bridge_conf("0.4.0");
        conf["ipam"] = json!({"type": "recorder", "own": [1, 2]});
        conf["someOther"] = json!({"key": null});
        let call = node
            .call("ADD", &pod, &conf)
            .var("CNI_PATH", &path)
            .var("CNI_ARGS", "IgnoreUnknown=1;A=b")
            .var("TRACEPARENT", "00-1-2-03");
        // A result without a version is of the configuration's.
        let result = call.succeeds();
        assert_eq!(result["ips"][0]["address"], "10.9.0.2/24");
        assert_eq!(result["cniVersion"], "0.4.0");
        let given: Value = serde_json::from_slice(&fs::read(file.with_extension("conf")).unwrap()).unwrap();
        assert_eq!(
            (&given["ipam"], &given["bridge"], &given["name"]),
            (&conf["ipam"], &conf["bridge"], &conf["name"])
        );
        let env = fs::read_to_string(file.with_extension("env")).unwrap();
        for line in [
            "CNI_COMMAND=ADD",
            "CNI_IFNAME=eth0",
            "CNI_ARGS=IgnoreUnknown=1;A=b",
            "TRACEPARENT=00-1-2-03",
        ] {
            assert!(env.lines().any(|found| found == line), "{line}: {env}");
        }
        node.call("DEL", &pod, &conf).var("CNI_PATH", &path).succeeds();
    });
}
