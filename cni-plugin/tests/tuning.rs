//! The plugin tuning against the real kernel, alone and together with the reference's.
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
use std::path::Path;

use common::{Node, Pod, ip, names_in, on_a_node, sh};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

const REFERENCE: &str = "/usr/lib/cni/tuning";

/// A pod on the node's bridge, and the result of its ADD.
fn attached(node: &Node, id: &str) -> (Pod, Value) {
    let pod = Pod::new(id);
    let result = node.call("ADD", &pod, &node.bridge_conf("1.0.0")).succeeds();
    (pod, result)
}

/// A configuration of tuning with these keys.
fn conf(node: &Node, prev_result: &Value, keys: &Value) -> Value {
    let mut conf = json!({
        "cniVersion": "1.1.0", "name": "cbr0", "type": "tuning",
        "dataDir": node.path("tuning"), "prevResult": prev_result,
    });
    let map = conf.as_object_mut().unwrap();
    map.extend(keys.as_object().unwrap().clone());
    conf
}

fn everything() -> Value {
    json!({
        "mac": "C2:b0:57:49:47:f1", "mtu": 1400, "promisc": true, "allmulti": true, "txQLen": 77,
        "sysctl": {
            "net.ipv4.conf.IFNAME.arp_filter": "1",
            "net/ipv4/tcp_rmem": "4096 87380 6291456",
        },
    })
}

fn link(pod: &Pod) -> String {
    pod.sh("ip link show dev eth0")
}

fn files(node: &Node) -> Vec<String> {
    names_in(&node.path("tuning"))
}

#[test]
fn everything_is_set_shown_checked_and_put_back() {
    on_a_node(|node| {
        let (pod, result) = attached(&node, "a");
        let before = link(&pod);
        let conf = conf(&node, &result, &everything());

        let tuned = node.call("ADD", &pod, &conf).succeeds();

        let container = &tuned["interfaces"][2];
        assert_eq!(
            (&container["mac"], &container["mtu"]),
            (&json!("c2:b0:57:49:47:f1"), &json!(1400))
        );
        assert_eq!(tuned["interfaces"][1], result["interfaces"][1]);
        assert_eq!(tuned["ips"], result["ips"]);
        let shown = link(&pod);
        for word in ["c2:b0:57:49:47:f1", "mtu 1400", "PROMISC", "ALLMULTI", "qlen 77"] {
            assert!(shown.contains(word), "{word}: {shown}");
        }
        assert_eq!(pod.sh("cat /proc/sys/net/ipv4/conf/eth0/arp_filter"), "1\n");
        assert_eq!(files(&node), ["a_eth0.json"]);
        let mut checked = conf;
        checked["prevResult"] = tuned;
        node.call("CHECK", &pod, &checked).succeeds();
        node.call("STATUS", &pod, &checked).succeeds();
        assert!(pod.reaches("10.244.7.1"));

        for _ in 0..2 {
            node.call("DEL", &pod, &checked).succeeds();
            assert_eq!(link(&pod), before);
            assert_eq!(files(&node), Vec::<String>::new());
        }
    });
}

#[test]
fn parameters_are_written_in_the_container_only() {
    on_a_node(|node| {
        let (pod, result) = attached(&node, "a");
        let read = "cat /proc/sys/net/ipv4/conf/all/arp_ignore";
        let here = || sh(Path::new("/"), read);
        let before = here();
        let keys = json!({"sysctl": {"net.ipv4.conf.all.arp_ignore": "2"}});
        node.call("ADD", &pod, &conf(&node, &result, &keys)).succeeds();
        assert_eq!(pod.sh(read), "2\n");
        assert_eq!(here(), before);
        assert_eq!(files(&node), Vec::<String>::new(), "nothing has to be put back");
    });
}

#[test]
fn what_either_plugin_set_the_other_puts_back() {
    on_a_node(|node| {
        let (pod, result) = attached(&node, "a");
        let before = link(&pod);
        // Debian's version knows no queue length, and CNI 1.0.0 at most.
        let mut keys = everything();
        keys.as_object_mut().unwrap().remove("txQLen");
        let mut conf = conf(&node, &result, &keys);
        conf["cniVersion"] = json!("1.0.0");

        node.call("ADD", &pod, &conf).exec(Path::new(REFERENCE));
        let by_reference = link(&pod);
        node.call("CHECK", &pod, &conf).succeeds();
        node.call("DEL", &pod, &conf).succeeds();
        assert_eq!(link(&pod), before);

        node.call("ADD", &pod, &conf).succeeds();
        assert_eq!(link(&pod), by_reference);
        node.call("DEL", &pod, &conf).exec(Path::new(REFERENCE));
        assert_eq!(link(&pod), before);
        assert_eq!(files(&node), Vec::<String>::new());
    });
}

#[test]
fn a_failed_add_changes_nothing() {
    on_a_node(|node| {
        let (pod, result) = attached(&node, "a");
        let before = link(&pod);
        let arp_filter = "cat /proc/sys/net/ipv4/conf/eth0/arp_filter";
        let good = json!({"net.ipv4.conf.IFNAME.arp_filter": "1"});
        let cases = [
            // Refused by the kernel, after other settings.
            (
                json!({"sysctl": good, "mac": "c2:b0:57:49:47:f1", "promisc": true, "mtu": 7}),
                100,
            ),
            (
                json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.none": "1"}, "mtu": 1300}),
                100,
            ),
            (
                json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "net.ipv4.ip_forward": "x"}}),
                100,
            ),
            (
                json!({"sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1", "kernel.hostname": "x"}}),
                7,
            ),
            (json!({"sysctl": good, "mac": "ff:ff:ff:ff:ff:ff"}), 7),
            (json!({"sysctl": good, "mtu": "1300"}), 6),
            (json!({"sysctl": good, "mtu": 1300, "prevResult": null}), 7),
            (json!({"sysctl": good, "mtu": 1300, "prevResult": {"ips": 5}}), 6),
        ];
        for (keys, code) in cases {
            let error = node.call("ADD", &pod, &conf(&node, &result, &keys)).fails();
            assert_eq!(error["code"], code, "{keys}: {error}");
            assert_eq!(link(&pod), before, "{keys}");
            assert_eq!(pod.sh(arp_filter), "0\n", "{keys}");
            assert_eq!(files(&node), Vec::<String>::new(), "{keys}");
        }
        let missing = conf(&node, &result, &json!({"mtu": 1300}));
        let error = node.call("ADD", &pod, &missing).var("CNI_IFNAME", "eth7").fails();
        assert!(error["msg"].as_str().unwrap().contains("eth7"), "{error}");
    });
}

#[test]
fn check_names_what_is_not_as_configured() {
    on_a_node(|node| {
        let (pod, result) = attached(&node, "a");
        let conf = conf(&node, &result, &everything());
        node.call("ADD", &pod, &conf).succeeds();
        for (spoil, mend, word) in [
            (
                "ip link set eth0 mtu 1300",
                "ip link set eth0 mtu 1400",
                "MTU 1400",
            ),
            (
                "ip link set eth0 promisc off",
                "ip link set eth0 promisc on",
                "promiscuous mode on",
            ),
            (
                "ip link set eth0 allmulticast off",
                "ip link set eth0 allmulticast on",
                "every multicast frame",
            ),
            (
                "ip link set eth0 qlen 5",
                "ip link set eth0 qlen 77",
                "transmit queue",
            ),
            (
                "ip link set eth0 address 0a:00:00:00:00:01",
                "ip link set eth0 address c2:b0:57:49:47:f1",
                "hardware address",
            ),
            (
                "echo 0 >/proc/sys/net/ipv4/conf/eth0/arp_filter",
                "echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_filter",
                "arp_filter",
            ),
        ] {
            node.call("CHECK", &pod, &conf).succeeds();
            pod.sh(spoil);
            let error = node.call("CHECK", &pod, &conf).fails();
            assert_eq!(error["code"], 103);
            assert!(error["msg"].as_str().unwrap().contains(word), "{word}: {error}");
            pod.sh(mend);
        }
        let mut without = conf;
        without["prevResult"] = Value::Null;
        assert_eq!(node.call("CHECK", &pod, &without).fails()["code"], 7);
    });
}

#[test]
fn a_del_in_a_namespace_that_is_another_container_s_leaves_it_alone() {
    on_a_node(|node| {
        let (pod, result) = attached(&node, "a");
        let (other, _) = attached(&node, "b");
        let keys = json!({"mac": "c2:b0:57:49:47:f1", "mtu": 1400});
        let mut conf = conf(&node, &result, &keys);
        conf["prevResult"] = node.call("ADD", &pod, &conf).succeeds();
        let before = link(&other);
        let netns = other.netns.clone();
        node.call("DEL", &pod, &conf).var("CNI_NETNS", &netns).succeeds();
        assert_eq!(link(&other), before);
        assert_eq!(files(&node), Vec::<String>::new());
    });
}

#[test]
fn del_succeeds_whatever_is_left() {
    on_a_node(|node| {
        let (pod, result) = attached(&node, "a");
        let conf = conf(&node, &result, &everything());
        let del = node.call("DEL", &pod, &conf);
        del.succeeds();
        for ruin in ["", "{", "[]", "{\"mac\":5}", "{\"mtu\":5}"] {
            fs::create_dir_all(node.path("tuning")).unwrap();
            fs::write(node.path("tuning/a_eth0.json"), ruin).unwrap();
            del.succeeds();
            assert_eq!(files(&node), Vec::<String>::new());
        }
        fs::create_dir(node.path("tuning/a_eth0.json")).unwrap();
        del.succeeds();
        assert_eq!(files(&node), Vec::<String>::new());
        // Without a namespace, and when the interface is gone from it.
        for netns in ["", "/run/netns/gone"] {
            node.call("ADD", &pod, &conf).succeeds();
            node.call("DEL", &pod, &conf).var("CNI_NETNS", netns).succeeds();
            assert_eq!(files(&node), Vec::<String>::new());
        }
        node.call("ADD", &pod, &conf).succeeds();
        pod.sh("ip link del eth0");
        // Neither arguments nor keys that an ADD would refuse stop it.
        let mut unusable = conf;
        unusable["mtu"] = json!("x");
        unusable["prevResult"] = json!({"ips": 5});
        node.call("DEL", &pod, &unusable).var("CNI_ARGS", "X").succeeds();
        assert_eq!(files(&node), Vec::<String>::new());
        del.var("CNI_CONTAINERID", &"a".repeat(300)).succeeds();
    });
}

#[test]
fn gc_forgets_the_attachments_of_its_network_that_are_not_valid() {
    on_a_node(|node| {
        let (a, result) = attached(&node, "a");
        let (b, _) = attached(&node, "b");
        let of_cbr0 = conf(&node, &result, &json!({"mtu": 1300}));
        node.call("ADD", &a, &of_cbr0).succeeds();
        node.call("ADD", &b, &of_cbr0).succeeds();
        let mut other = of_cbr0.clone();
        other["name"] = json!("other");
        node.call("ADD", &b, &other)
            .var("CNI_CONTAINERID", "c")
            .succeeds();
        fs::write(node.path("tuning/d_eth0.json"), r#"{"mtu":1500}"#).unwrap();

        let mut gc = of_cbr0;
        node.call("GC", &a, &gc).succeeds();
        assert_eq!(files(&node).len(), 4, "no list, nothing to do");
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth0"}]);
        node.call("GC", &a, &gc).succeeds();
        assert_eq!(files(&node), ["a_eth0.json", "c_eth0.json", "d_eth0.json"]);
    });
}

#[test]
fn the_nodes_list_decides_which_parameters_may_be_set() {
    on_a_node(|node| {
        // In mounts of this thread's own.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        sh(
            node.dir.path(),
            "mount --make-rprivate /; mkdir etc; cp -r /etc/alternatives etc/ 2>/dev/null || true
             mount --bind etc /etc; mkdir -p /etc/cni/tuning",
        );
        let list = "/etc/cni/tuning/allowlist.conf";
        let (pod, result) = attached(&node, "a");
        let keys = |name: &str| json!({"sysctl": {name: "1"}});
        let arp_filter = conf(&node, &result, &keys("net.ipv4.conf.IFNAME.arp_filter"));
        let add = |conf: &Value| node.call("ADD", &pod, conf);

        fs::write(list, "^net\\.ipv4\\.conf\\.[a-zA-Z]+\\.arp_filter$\n").unwrap();
        add(&arp_filter).succeeds();
        let error = add(&conf(&node, &result, &keys("net.ipv4.conf.IFNAME.arp_ignore"))).fails();
        assert_eq!(error["code"], 7);
        assert!(error["msg"].as_str().unwrap().contains("arp_ignore"), "{error}");
        assert_eq!(pod.sh("cat /proc/sys/net/ipv4/conf/eth0/arp_ignore"), "0\n");

        fs::write(list, "").unwrap();
        assert_eq!(add(&arp_filter).fails()["code"], 7);
        assert_eq!(node.call("STATUS", &pod, &arp_filter).fails()["code"], 50);
        let foreign = conf(&node, &result, &keys("kernel.hostname"));
        assert_eq!(node.call("STATUS", &pod, &foreign).fails()["code"], 7);
        fs::write(list, "(").unwrap();
        assert_eq!(add(&arp_filter).fails()["code"], 7);
        assert_eq!(node.call("STATUS", &pod, &arp_filter).fails()["code"], 50);
        // What sets no parameter needs no list.
        add(&conf(&node, &result, &json!({"mtu": 1300}))).succeeds();
        assert!(ip(&["link"]).contains("cni0"));
    });
}
