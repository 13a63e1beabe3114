//! The plugin loopback, beside the reference's (Debian's containernetworking-plugins in /usr/lib/cni).
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

use common::{Call, Node, Pod, on_a_node};
use serde_json::{Value, json};

const REFERENCE: &str = "/usr/lib/cni/loopback";

fn conf(version: &str) -> Value {
    json!({"cniVersion": version, "name": "cni-loopback", "type": "loopback"})
}

fn call(node: &Node, verb: &str, pod: &Pod, conf: &Value) -> Call {
    node.call(verb, pod, conf).var("CNI_IFNAME", "lo")
}

fn is_up(pod: &Pod) -> bool {
    pod.sh("ip -o link show lo").contains("LOOPBACK,UP")
}

#[test]
fn the_interface_goes_up_and_check_tells() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let conf = conf("1.0.0");
        assert!(!is_up(&pod));
        let result = call(&node, "ADD", &pod, &conf).succeeds();
        let wanted = json!({
            "cniVersion": "1.0.0",
            "interfaces": [{"name": "lo", "mac": "00:00:00:00:00:00", "sandbox": pod.netns}],
            "ips": [{"address": "127.0.0.1/8", "interface": 0}, {"address": "::1/128", "interface": 0}],
        });
        assert_eq!(result, wanted);
        assert!(is_up(&pod) && pod.reaches("127.0.0.1") && pod.reaches("::1"));
        assert_eq!(call(&node, "ADD", &pod, &conf).succeeds(), wanted);

        let mut with_result = conf.clone();
        with_result["prevResult"] = result;
        call(&node, "CHECK", &pod, &conf).succeeds();
        call(&node, "CHECK", &pod, &with_result).succeeds();
        pod.sh("ip addr del 127.0.0.1/8 dev lo");
        assert_eq!(call(&node, "CHECK", &pod, &with_result).fails()["code"], 103);
        pod.sh("ip link set lo down");
        assert_eq!(call(&node, "CHECK", &pod, &conf).fails()["code"], 103);

        call(&node, "ADD", &pod, &conf).succeeds();
        for _ in 0..2 {
            call(&node, "DEL", &pod, &conf).succeeds();
            assert!(
                is_up(&pod),
                "it goes with the namespace, which may be another container's by now"
            );
        }
    });
}

#[test]
fn the_result_has_the_form_of_its_version() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        for version in ["", "0.1.0", "0.2.0"] {
            let result = call(&node, "ADD", &pod, &conf(version)).succeeds();
            assert_eq!(
                (&result["ip4"]["ip"], &result["ip6"]["ip"]),
                (&json!("127.0.0.1/8"), &json!("::1/128"))
            );
            assert!(result["interfaces"].is_null(), "{result}");
        }
        for version in ["0.3.0", "0.3.1", "0.4.0"] {
            let result = call(&node, "ADD", &pod, &conf(version)).succeeds();
            assert_eq!(result["ips"][1]["version"], "6");
            assert_eq!(result["interfaces"][0]["sandbox"], pod.netns);
        }
        let result = call(&node, "ADD", &pod, &conf("1.1.0")).succeeds();
        assert!(result["ips"][0]["version"].is_null() && result["dns"].is_null());
    });
}

#[test]
fn a_previous_result_is_passed_on() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let mut conf = conf("0.4.0");
        conf["prevResult"] = json!({"cniVersion": "0.4.0", "dns": {},
            "interfaces": [{"name": "eth0", "sandbox": pod.netns}],
            "ips": [{"version": "4", "address": "10.1.2.3/24", "interface": 0}]});
        assert_eq!(call(&node, "ADD", &pod, &conf).succeeds(), conf["prevResult"]);
        assert!(is_up(&pod));
        conf["prevResult"] = json!({"ips": 5});
        assert_eq!(call(&node, "ADD", &pod, &conf).fails()["code"], 6);
        call(&node, "DEL", &pod, &conf).succeeds();
    });
}

#[test]
fn one_made_by_the_reference_is_checked_and_removed_and_the_other_way_round() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let reference = Path::new(REFERENCE);
        let conf = conf("1.0.0");
        let mut made = call(&node, "ADD", &pod, &conf).exec(reference);
        // Debian's 1.1.1 prints empty settings at 1.0.0 as well; later ones do not.
        made.as_object_mut().unwrap().remove("dns");
        assert_eq!(call(&node, "ADD", &pod, &conf).succeeds(), made);
        call(&node, "CHECK", &pod, &conf).succeeds();
        call(&node, "CHECK", &pod, &conf).exec(reference);
        call(&node, "DEL", &pod, &conf).succeeds();
        call(&node, "DEL", &pod, &conf).exec(reference);
        assert!(!is_up(&pod));
    });
}

#[test]
fn del_succeeds_without_a_namespace_and_add_does_not() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let file = node.path("netns");
        std::fs::write(&file, "").unwrap();
        let gone = format!("/proc/{}/ns/net", u32::MAX);
        for path in ["", "/run/netns/none", &gone, file.to_str().unwrap()] {
            call(&node, "DEL", &pod, &conf("1.0.0"))
                .var("CNI_NETNS", path)
                .succeeds();
        }
        let error = call(&node, "ADD", &pod, &conf("1.0.0"))
            .var("CNI_NETNS", &gone)
            .fails();
        assert_eq!(error["code"], 8);
        let own = |verb| call(&node, verb, &pod, &conf("1.0.0")).var("CNI_NETNS", "/proc/thread-self/ns/net");
        for verb in ["ADD", "CHECK"] {
            assert_eq!(own(verb).fails()["code"], 8, "{verb}");
        }
        own("DEL").succeeds();
        call(&node, "STATUS", &pod, &conf("1.1.0")).succeeds();
        let mut gc = conf("1.1.0");
        gc["cni.dev/valid-attachments"] = json!([]);
        call(&node, "GC", &pod, &gc).succeeds();
    });
}

#[test]
fn an_interface_with_a_foreign_address_is_left_as_it_is() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        pod.sh("ip addr add 192.0.2.1/32 dev lo");
        let error = call(&node, "ADD", &pod, &conf("1.0.0")).fails();
        assert!(error["msg"].as_str().unwrap().contains("192.0.2.1/32"), "{error}");
        assert!(!is_up(&pod));
    });
}
