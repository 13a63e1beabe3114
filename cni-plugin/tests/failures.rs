//! ADDs that fail, at every stage: nothing is left, nothing of others is touched, the first cause is reported.
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
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Stdio;

use common::{Call, Node, Pod, ip, on_a_node};
use serde_json::{Value, json};

/// Makes an ADD that must fail on an empty node with this code and these words, and checks that the node stays empty.
fn fails_cleanly(node: &Node, call: &Call, code: u32, words: &str) {
    let error = call.fails();
    assert_eq!(error["code"], code, "{error}");
    assert!(error["msg"].as_str().unwrap().contains(words), "{words}: {error}");
    assert_eq!(error["cniVersion"], call.conf["cniVersion"], "{error}");
    assert!(error.get("details").is_none(), "{error}");
    node.assert_nothing_left(&[]);
}

#[test]
fn configurations_that_cannot_work_change_nothing() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let with = |key: &str, value: Value| {
            let mut call = node.call("ADD", &pod, &node.conf("1.0.0"));
            call.conf[key] = value;
            call
        };
        let cases = [
            (
                with("delegate", json!({"name": "x"})),
                7,
                "must not have 'name' field",
            ),
            (
                with("delegate", json!({"ipam": {}})),
                7,
                "must not have 'ipam' field",
            ),
            (
                with("delegate", json!({"type": 5})),
                7,
                "must have (string) 'type' field",
            ),
            (
                with("delegate", json!({"type": "nonexistent"})),
                7,
                "failed to find plugin \"nonexistent\" in path",
            ),
            (with("delegate", json!({"type": "../sh"})), 7, "not a file name"),
            (
                with("delegate", json!({"ipMasq": true, "ipMasqBackend": "ipfw"})),
                7,
                "unknown ipmasq backend \"ipfw\"",
            ),
            (with("delegate", json!({"vlan": 4095})), 7, "invalid VLAN ID 4095"),
            (with("delegate", json!({"mtu": 20})), 7, "mtu 20"),
            (with("delegate", json!({"bridge": "a/b"})), 7, "bridge"),
            (
                with("ipam", json!({"type": "nonexistent"})),
                7,
                "failed to find plugin \"nonexistent\"",
            ),
            (with("ipam", json!([])), 6, "\"ipam\" must be an object"),
            (with("runtimeConfig", json!({"mac": "x"})), 7, "MAC address"),
        ];
        for (call, code, words) in cases {
            fails_cleanly(&node, &call, code, words);
        }
        let args = |text| node.call("ADD", &pod, &node.conf("1.0.0")).var("CNI_ARGS", text);
        fails_cleanly(&node, &args("FOO=1"), 4, "FOO");
        fails_cleanly(&node, &args("IP=1;"), 4, "invalid pair");
        fails_cleanly(
            &node,
            &args("IP=10.9.9.9"),
            7,
            "failed to allocate all requested IPs: 10.9.9.9",
        );
        fails_cleanly(
            &node,
            &args("IP=10.244.7.1"),
            7,
            "requested ip 10.244.7.1 is subnet's gateway",
        );
    });
}

#[test]
fn a_subnet_file_that_cannot_be_used_is_told_apart() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let call = node.call("ADD", &pod, &node.conf("0.3.1"));
        let path = node.path("subnet.env");
        fs::remove_file(&path).unwrap();
        let words = format!(
            "failed to load flannel 'subnet.env' file: open {}: no such file or directory. Check the flannel pod log",
            path.display()
        );
        fails_cleanly(&node, &call, 11, &words);
        for (text, words) in [
            ("", "is missing FLANNEL_NETWORK, FLANNEL_IPV6_NETWORK"),
            (
                "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\n",
                "is missing FLANNEL_MTU, FLANNEL_IPMASQ",
            ),
            ("FLANNEL_MTU\n", "no = after FLANNEL_MTU"),
            ("FLANNEL_SUBNET=10.244.7.1\n", "FLANNEL_SUBNET"),
        ] {
            node.write_subnet_env(text);
            fails_cleanly(&node, &call, 7, words);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        fails_cleanly(&node, &call, 5, "not a regular file");
        fs::remove_dir(&path).unwrap();
        fs::write(&path, [0xff, 0xfe]).unwrap();
        fails_cleanly(&node, &call, 5, "not UTF-8");
    });
}

#[test]
fn namespaces_that_cannot_be_used_are_refused_before_anything_is_made() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let plain = node.path("file");
        fs::write(&plain, "").unwrap();
        let call = |netns: &str| {
            node.call("ADD", &pod, &node.conf("1.0.0"))
                .var("CNI_NETNS", netns)
        };
        fails_cleanly(&node, &call("/run/netns/nonexistent"), 8, "does not exist");
        fails_cleanly(
            &node,
            &call(plain.to_str().unwrap()),
            8,
            "not a network namespace",
        );
        let uts = pod.netns.replace("/net", "/uts");
        fails_cleanly(&node, &call(&uts), 8, "network namespace");
        let own = format!(
            "/proc/{}/ns/net",
            fs::read_link("/proc/thread-self").unwrap().display()
        );
        fails_cleanly(&node, &call(&own), 8, "own network namespace");
        ip(&[
            "link", "add", "eth0", "type", "vxlan", "id", "9", "dstport", "4789",
        ]);
        // A DEL has nothing to do there.
        let del = node.call("DEL", &pod, &node.conf("1.0.0")).var("CNI_NETNS", &own);
        del.succeeds();
        assert_eq!(node.links(), ["eth0"]);
    });
}

#[test]
fn files_that_cannot_be_written_stop_an_add_without_a_trace() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let call = node.call("ADD", &pod, &node.conf("1.0.0"));
        for place in ["flannel", "networks"] {
            fs::write(node.path(place), "a plain file").unwrap();
            let error = call.fails();
            assert_eq!(error["code"], 5, "{place}: {error}");
            assert_eq!(fs::read_to_string(node.path(place)).unwrap(), "a plain file");
            fs::remove_file(node.path(place)).unwrap();
            node.assert_nothing_left(&[]);
        }
        fs::create_dir_all(node.path("networks/cbr0/last_reserved_ip.0")).unwrap();
        let error = call.fails();
        assert_eq!(error["code"], 5, "{error}");
        node.assert_nothing_left(&[]);
        fs::remove_dir(node.path("networks/cbr0/last_reserved_ip.0")).unwrap();
        call.succeeds();
        node.del(&pod);
    });
}

#[test]
fn an_existing_interface_is_not_touched() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        pod.sh("ip link add eth0 type vxlan id 9 dstport 4789");
        let call = node.call("ADD", &pod, &node.conf("1.0.0"));
        fails_cleanly(&node, &call, 101, "interface \"eth0\" already exists");
        assert!(pod.sh("ip -d link show dev eth0").contains("vxlan id 9"));
        // A DEL does not take what bridge did not make.
        node.del(&pod);
        assert!(pod.sh("ip -d link show dev eth0").contains("vxlan id 9"));
    });
}

#[test]
fn a_second_add_of_one_attachment_fails_and_leaves_the_first_intact() {
    on_a_node(|node| {
        let (pod, other) = (Pod::new("a"), Pod::new("b"));
        node.add(&pod);
        node.add(&other);
        let (links, leases, files) = (node.links(), node.leases(), node.state_files());
        let state = fs::read(node.path("flannel/a")).unwrap();
        let mut call = node.call("ADD", &pod, &node.conf("1.0.0"));
        call.conf["delegate"]["hairpinMode"] = json!(false);
        assert_eq!(call.fails()["code"], 101);
        // The same container by another namespace is as much of a mistake.
        let elsewhere = Pod::new("a");
        assert!(
            node.call("ADD", &elsewhere, &node.conf("1.0.0")).fails()["msg"]
                .as_str()
                .unwrap()
                .contains("detach it by DEL first")
        );
        assert_eq!(
            (node.links(), node.leases(), node.state_files()),
            (links, leases, files)
        );
        assert_eq!(fs::read(node.path("flannel/a")).unwrap(), state);
        assert!(pod.reaches("10.244.7.3"));
    });
}

#[test]
fn an_exhausted_range_is_a_transient_condition() {
    on_a_node(|node| {
        node.write_subnet_env(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/30\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        );
        let (pod, other) = (Pod::new("a"), Pod::new("b"));
        node.add(&pod);
        let error = node.call("ADD", &other, &node.conf("1.1.0")).fails();
        assert_eq!(error["code"], 11);
        assert_eq!(
            error["msg"],
            "failed to allocate for range 0: no IP addresses available in range set: 10.244.7.1-10.244.7.2"
        );
        assert_eq!(
            node.call("STATUS", &other, &node.conf("1.1.0")).fails()["code"],
            50
        );
        assert_eq!(
            (node.links().len(), node.state_files()),
            (2, vec!["a".to_owned()])
        );
        node.del(&pod);
        node.add(&other);
    });
}

#[test]
fn addresses_of_earlier_range_sets_are_given_back_when_a_later_one_is_exhausted() {
    on_a_node(|node| {
        let mut conf = node.bridge_conf("1.0.0");
        conf["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/30"}]]);
        let (pod, other) = (Pod::new("a"), Pod::new("b"));
        node.call("ADD", &pod, &conf).succeeds();
        let error = node.call("ADD", &other, &conf).fails();
        assert!(
            error["msg"]
                .as_str()
                .unwrap()
                .starts_with("failed to allocate for range 1"),
            "{error}"
        );
        assert_eq!(node.leases().len(), 2);
        node.call("DEL", &pod, &conf).succeeds();
        assert!(node.leases().is_empty());
    });
}

#[test]
fn a_link_that_is_no_bridge_is_not_used_as_one() {
    on_a_node(|node| {
        ip(&[
            "link", "add", "cni0", "type", "vxlan", "id", "9", "dstport", "4789",
        ]);
        let pod = Pod::new("a");
        for (verb, version, code) in [("STATUS", "1.1.0", 50), ("ADD", "1.0.0", 101)] {
            let error = node.call(verb, &pod, &node.conf(version)).fails();
            assert_eq!(error["code"], code, "{error}");
            assert!(error["msg"].as_str().unwrap().contains("not a bridge"));
        }
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn an_mtu_that_is_too_small_for_ipv6_is_refused_before_anything_is_made() {
    on_a_node(|node| {
        let env = "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1200\nFLANNEL_IPMASQ=true\n";
        let v6 = "FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:7::1/64\n";
        node.write_subnet_env(&format!("{env}{v6}"));
        let pod = Pod::new("a");
        for (verb, code) in [("STATUS", 50), ("ADD", 7)] {
            let error = node.call(verb, &pod, &node.conf("1.1.0")).fails();
            assert_eq!(error["code"], code, "{error}");
            let msg = error["msg"].as_str().unwrap();
            assert!(
                msg.contains("mtu 1200 is too small for fd00:10:244:7:"),
                "{error}"
            );
        }
        let mut status = node.call("STATUS", &pod, &node.conf("1.1.0"));
        status.conf["delegate"]["forceAddress"] = json!(true);
        assert_eq!(status.fails()["code"], 50);
        node.assert_nothing_left(&[]);
        node.write_subnet_env(env);
        node.call("STATUS", &pod, &node.conf("1.1.0")).succeeds();
        node.add(&pod);
    });
}

#[test]
fn a_bridge_that_was_made_goes_with_the_failure_unless_others_use_it() {
    on_a_node(|node| {
        // No kernel takes a route by a gateway that nothing leads to.
        let mut conf = node.bridge_conf("1.0.0");
        conf["ipam"]["routes"] = json!([{"dst": "10.0.0.0/8", "gw": "192.0.2.1"}]);
        let pod = Pod::new("a");
        let call = node.call("ADD", &pod, &conf);
        fails_cleanly(&node, &call, 100, "cannot add route 10.0.0.0/8 via 192.0.2.1");
        assert_eq!(pod.sh("ip -o link | wc -l").trim(), "1");
        let other = Pod::new("b");
        node.add(&other);
        call.fails();
        assert_eq!(node.links().len(), 2);
        assert!(other.reaches("10.244.7.1"));
    });
}

#[test]
fn a_bridge_that_somebody_keeps_locked_is_waited_for_only_so_long() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let call = node.call("ADD", &pod, &node.conf("1.0.0"));
        node.add(&pod);
        node.del(&pod);
        ip(&["link", "del", "cni0"]);
        let inode = fs::metadata("/proc/thread-self/ns/net").unwrap().ino();
        let own = fs::File::open(format!("/run/cni/flannel/lock-bridges-{}", inode % 256)).unwrap();
        own.lock().unwrap();
        fails_cleanly(&node, &call, 11, "host's bridges locked; try again");
        own.unlock().unwrap();
        node.add(&pod);
    });
}

#[test]
fn names_that_others_have_are_passed_over() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let first = node.add(&pod)["interfaces"][1]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        node.del(&pod);
        ip(&[
            "link", "add", &first, "type", "vxlan", "id", "9", "dstport", "4789",
        ]);
        let second = node.add(&pod)["interfaces"][1]["name"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_ne!(first, second);
        ip(&["link", "del", &first]);
        node.call("DEL", &pod, &node.conf("1.0.0"))
            .var("CNI_NETNS", "")
            .succeeds();
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn a_delegate_that_fails_is_asked_to_clean_up_and_its_error_is_passed_on() {
    on_a_node(|node| {
        let plugin = node.path("bin/failing");
        fs::create_dir(node.path("bin")).unwrap();
        let script = "#!/bin/sh\ncat >> \"$0.conf\"; echo $CNI_COMMAND >> \"$0.log\"\n\
            [ $CNI_COMMAND = DEL ] || { echo '{\"code\":123,\"msg\":\"no\",\"details\":\"why\"}'; exit 1; }\n";
        fs::write(&plugin, script).unwrap();
        fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
        let pod = Pod::new("a");
        let mut call = node.call("ADD", &pod, &node.conf("1.0.0"));
        call = call.var(
            "CNI_PATH",
            &format!("/nonexistent:{}", node.path("bin").display()),
        );
        call.conf["delegate"] = json!({"type": "failing"});
        let error = call.fails();
        assert_eq!(
            (&error["code"], &error["msg"], &error["details"]),
            (&json!(123), &json!("no"), &json!("why"))
        );
        let log = fs::read_to_string(node.path("bin/failing.log")).unwrap();
        assert_eq!(log, "ADD\nDEL\n");
        let conf = fs::read_to_string(node.path("bin/failing.conf")).unwrap();
        assert!(
            conf.contains(r#""ranges":[[{"subnet":"10.244.7.0/24"}]]"#),
            "{conf}"
        );
        node.assert_nothing_left(&[]);
        // Address management is a delegate too.
        fs::remove_file(node.path("bin/failing.log")).unwrap();
        call.conf = node.bridge_conf("1.0.0");
        call.conf["ipam"] = json!({"type": "failing"});
        call.program = "/opt/cni/bin/bridge".to_owned();
        assert_eq!(call.fails()["code"], 123);
        let log = fs::read_to_string(node.path("bin/failing.log")).unwrap();
        assert_eq!(log, "ADD\nDEL\n");
        node.assert_nothing_left(&[]);
    });
}

#[test]
fn a_crashed_add_is_cleaned_up_by_the_next_one() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        // Killed between the reservation and the interface.
        node.add(&pod);
        pod.sh("ip link del eth0");
        fs::write(node.path("networks/cbr0/10.244.7.9"), "").unwrap();
        fs::write(node.path("networks/cbr0/.10.244.7.8.tmp"), "a").unwrap();
        let result = node.add(&pod);
        assert_eq!(result["ips"][0]["address"], "10.244.7.2/24");
        assert_eq!(node.leases().len(), 1);
        node.del(&pod);
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn an_add_whose_result_nobody_reads_leaves_nothing() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let call = node.call("ADD", &pod, &node.conf("1.0.0"));
        for unwritable in ["/dev/full", "a closed pipe"] {
            let stdout: Stdio = match fs::OpenOptions::new().write(true).open(unwritable) {
                Ok(full) => full.into(),
                Err(_) => {
                    let (reader, writer) = std::io::pipe().unwrap();
                    drop(reader);
                    writer.into()
                }
            };
            let status = call.spawn_to(Path::new(common::BINARY), stdout).wait().unwrap();
            assert!(!status.success(), "{unwritable}");
            assert_eq!(node.leases().len(), 0, "{unwritable}");
            assert!(!pod.sh("ip -br link").contains("eth0"), "{unwritable}");
        }
    });
}
