//! ADD against the real kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::process::{Command, Stdio};

use common::{BINARY, Node, Pod, ip, on_a_node, printed, sh};
use serde_json::{Value, json};

/// The reference's result, with the values that are random or ours by design replaced.
fn golden(text: &str, result: &Value, pod: &Pod) -> Value {
    let mut golden: Value = serde_json::from_str(text).unwrap();
    for (position, interface) in golden["interfaces"]
        .as_array_mut()
        .unwrap()
        .iter_mut()
        .enumerate()
    {
        interface["mac"] = result["interfaces"][position]["mac"].clone();
    }
    golden["interfaces"][1]["name"] = result["interfaces"][1]["name"].clone();
    golden["interfaces"][2]["sandbox"] = json!(pod.netns);
    golden
}

fn dual_stack(node: &Node) {
    node.write_subnet_env(
        "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\n\
         FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:7::1/64\n\
         FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
    );
}

fn sysctl(name: &str) -> String {
    fs::read_to_string(format!("/proc/sys/net/{name}"))
        .unwrap()
        .trim()
        .to_owned()
}

#[test]
fn an_added_pod_has_the_references_result_and_state_and_answers_pings() {
    on_a_node(|node| {
        let pod = Pod::new("cnitool-0cea03627191eaa6cdf9");
        let result = node.add(&pod);
        let text = include_str!("data/add-result-v4.json");
        assert_eq!(result, golden(text, &result, &pod));

        let veth = result["interfaces"][1]["name"].as_str().unwrap();
        let stored = fs::read_to_string(node.path("flannel").join(&pod.id)).unwrap();
        let mut stored: Value = serde_json::from_str(&stored).unwrap();
        stored["ipam"].as_object_mut().unwrap().remove("dataDir");
        assert_eq!(
            stored.to_string(),
            include_str!("data/delegate-v4.json").trim_end()
        );
        assert_eq!(
            node.leases(),
            [("10.244.7.2".into(), format!("{}\r\neth0", pod.id))].into()
        );

        let addresses = pod.sh("ip -o addr show dev eth0 | awk '{print $3,$4,$5,$6}'");
        assert!(
            addresses.starts_with("inet 10.244.7.2/24 brd 10.244.7.255\n"),
            "{addresses}"
        );
        assert_eq!(
            pod.sh("ip -d -4 route"),
            "unicast default via 10.244.7.1 dev eth0 proto boot scope global \n\
             unicast 10.244.0.0/16 via 10.244.7.1 dev eth0 proto boot scope global \n\
             unicast 10.244.7.0/24 dev eth0 proto kernel scope link src 10.244.7.2 \n"
        );
        let link = pod.sh("ip link show dev eth0");
        assert!(link.contains("mtu 1450") && link.contains("state UP"), "{link}");
        assert_eq!(pod.sh("cat /proc/sys/net/ipv4/conf/eth0/arp_notify").trim(), "1");
        assert_eq!(pod.sh("cat /proc/sys/net/ipv6/conf/eth0/accept_dad").trim(), "0");

        let port = ip(&["-d", "link", "show", "dev", veth]);
        for words in [
            "mtu 1450",
            "master cni0",
            "state UP",
            "hairpin on",
            "bridge_slave state forwarding",
        ] {
            assert!(port.contains(words), "{words}: {port}");
        }
        let bridge = ip(&["-d", "addr", "show", "dev", "cni0"]);
        for words in [
            "mtu 1450",
            "inet 10.244.7.1/24 brd 10.244.7.255 scope global cni0",
            "state UP",
        ] {
            assert!(bridge.contains(words), "{words}: {bridge}");
        }
        assert_eq!(sysctl("ipv4/ip_forward"), "1");
        assert_eq!(sysctl("ipv6/conf/cni0/accept_ra"), "0");
        assert_eq!(sysctl(&format!("ipv6/conf/{veth}/accept_ra")), "0");
        assert_eq!(
            fs::read_to_string("/proc/thread-self/net/../../../sys/net/ipv6/conf/all/forwarding").ok(),
            None
        );

        let second = Pod::new("b");
        node.add(&second);
        assert!(pod.reaches("10.244.7.1"));
        assert!(pod.reaches("10.244.7.3"));
        printed(Command::new("ping").args(["-c1", "-W2", "10.244.7.2"]));
        node.del(&pod);
        node.del(&second);
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn a_dual_stack_pod_has_both_addresses_at_once() {
    on_a_node(|node| {
        dual_stack(&node);
        let pod = Pod::new("d");
        let result = node.add(&pod);
        let text = include_str!("data/add-result-dualstack.json");
        assert_eq!(result, golden(text, &result, &pod));
        // The link-local address becomes usable by a worker of the kernel's, some moments after the link is up.
        assert_eq!(pod.sh("ip -6 addr show scope global tentative"), "");
        assert!(pod.reaches("fd00:10:244:7::1"));
        assert_eq!(
            pod.sh("ip -d -6 route show dev eth0 proto boot"),
            "unicast fd00:10:244::/48 via fd00:10:244:7::1 scope global metric 1024 pref medium\n\
             unicast default via fd00:10:244:7::1 scope global metric 1024 pref medium\n"
        );
        assert_eq!(sysctl("ipv6/conf/all/forwarding"), "1");
        assert_eq!(
            pod.sh("cat /proc/sys/net/ipv6/conf/eth0/keep_addr_on_down")
                .trim(),
            "1"
        );
        let mut call = node.call("CHECK", &pod, &node.conf("1.0.0"));
        call.conf["prevResult"] = result;
        call.succeeds();
        node.del(&pod);
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn the_bridge_masquerades_where_flanneld_does_not() {
    on_a_node(|node| {
        let rules = || sh(node.dir.path(), "nft list ruleset");
        let pod = Pod::new("a");
        node.add(&pod);
        assert_eq!(rules(), "");
        node.del(&pod);
        node.write_subnet_env(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n",
        );
        node.call("STATUS", &pod, &node.conf("1.1.0")).succeeds();
        node.add(&pod);
        assert!(
            rules().contains("ip daddr != 10.244.7.0/24 masquerade"),
            "{}",
            rules()
        );
        node.del(&pod);
        assert!(
            !rules().contains("ip daddr != 10.244.7.0/24 masquerade"),
            "{}",
            rules()
        );
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn every_version_gets_its_own_result_form() {
    on_a_node(|node| {
        for version in ["", "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"] {
            let pod = Pod::new("v");
            let result = node.call("ADD", &pod, &node.conf(version)).succeeds();
            let wanted = if version.is_empty() { "0.1.0" } else { version };
            assert_eq!(result["cniVersion"], wanted);
            assert_eq!(result.get("ip4").is_some(), wanted < "0.3.0", "{result}");
            assert_eq!(result.get("interfaces").is_some(), wanted >= "0.3.0");
            let family = result["ips"][0].get("version").is_some();
            assert_eq!(family, ("0.3.0".."1.0.0").contains(&wanted));
            node.call("DEL", &pod, &node.conf(version)).succeeds();
        }
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn the_bridge_takes_the_smallest_mtu_of_its_ports_when_the_subnet_file_changes() {
    on_a_node(|node| {
        let of_mtu = |mtu: u32, id: &str| {
            node.write_subnet_env(&format!(
                "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU={mtu}\nFLANNEL_IPMASQ=true\n"
            ));
            let pod = Pod::new(id);
            node.add(&pod);
            let link = pod.sh("ip link show dev eth0");
            assert!(link.contains(&format!("mtu {mtu} ")), "{link}");
            pod
        };
        let has = |mtu: u32| {
            let link = ip(&["link", "show", "dev", "cni0"]);
            assert!(link.contains(&format!("mtu {mtu} ")), "{link}");
        };
        let first = of_mtu(1450, "first");
        has(1450);
        let smaller = of_mtu(1350, "smaller");
        has(1350);
        node.del(&smaller);
        has(1450);
        node.del(&first);
        let larger = of_mtu(8950, "larger");
        has(8950);
        node.del(&larger);
    });
}

#[test]
fn the_bridge_keeps_its_address_when_pods_come_and_go() {
    on_a_node(|node| {
        ip(&[
            "link",
            "add",
            "cni0",
            "address",
            "02:11:22:33:44:55",
            "type",
            "bridge",
        ]);
        ip(&["link", "set", "cni0", "mtu", "1400"]);
        let pods: Vec<_> = (0..3).map(|i| Pod::new(&format!("p{i}"))).collect();
        for pod in &pods {
            let result = node.add(pod);
            assert_eq!(result["interfaces"][0]["mac"], "02:11:22:33:44:55");
        }
        for pod in &pods {
            node.del(pod);
            let link = ip(&["link", "show", "dev", "cni0"]);
            assert!(
                link.contains("02:11:22:33:44:55") && link.contains("mtu 1400"),
                "{link}"
            );
        }
    });
}

#[test]
fn an_address_that_is_given_again_is_reached_at_once() {
    on_a_node(|node| {
        dual_stack(&node);
        for _ in 0..2 {
            let pod = Pod::new("a");
            let conf = node.conf("1.0.0");
            let add = node
                .call("ADD", &pod, &conf)
                .var("CNI_ARGS", "IgnoreUnknown=1;IP=10.244.7.9;K8S_POD_NAME=x");
            let result = add.succeeds();
            assert_eq!(result["ips"][0]["address"], "10.244.7.9/24");
            assert_eq!(result["interfaces"][2]["mac"], "0a:58:0a:f4:07:09");
            let v6 = result["ips"][1]["address"]
                .as_str()
                .unwrap()
                .split('/')
                .next()
                .unwrap()
                .to_owned();
            for address in ["10.244.7.9", v6.as_str()] {
                printed(Command::new("ping").args(["-c1", "-W1", address]));
            }
            node.del(&pod);
        }
    });
}

#[test]
fn a_requested_mac_is_the_pods() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let mut conf = node.conf("1.0.0");
        conf["RuntimeConfig"] = json!({"Mac": "0a:00:00:00:00:99"});
        let result = node.call("ADD", &pod, &conf).succeeds();
        assert_eq!(result["interfaces"][2]["mac"], "0a:00:00:00:00:99");
        assert!(pod.sh("ip link show dev eth0").contains("0a:00:00:00:00:99"));
        node.del(&pod);
    });
}

#[test]
fn a_bridge_without_addresses_is_a_mere_switch() {
    on_a_node(|node| {
        let (pod, other) = (Pod::new("a"), Pod::new("b"));
        // A new namespace has what the host has (linux `devinet.c`).
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        let conf = json!({"cniVersion": "1.0.0", "name": "l2", "type": "bridge", "bridge": "br7"});
        // A new namespace has the machine's setting.
        sh(node.dir.path(), "echo 0 >/proc/sys/net/ipv4/ip_forward");
        let result = node.call("ADD", &pod, &conf).succeeds();
        assert!(
            result.get("ips").is_none() && result["interfaces"][0]["name"] == "br7",
            "{result}"
        );
        node.call("ADD", &other, &conf).succeeds();
        pod.sh("ip addr add 192.0.2.1/24 dev eth0");
        other.sh("ip addr add 192.0.2.2/24 dev eth0");
        assert!(pod.reaches("192.0.2.2"));
        assert_eq!(sysctl("ipv4/ip_forward"), "0");
        node.call("DEL", &pod, &conf).succeeds();
        node.call("DEL", &other, &conf).succeeds();
        assert_eq!(node.links(), ["br7"]);
    });
}

#[test]
fn variables_that_are_no_text_are_refused_by_name_unless_they_are_not_needed() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let run = |verb: &str, name: &str| {
            let call = node.call(verb, &pod, &node.conf("1.0.0"));
            let mut command = Command::new(BINARY);
            command.env_clear().envs(&call.vars);
            command.env(name, OsStr::from_bytes(b"IP=10.244.7.9;\xff"));
            command.stdin(Stdio::piped()).stdout(Stdio::piped());
            let mut child = command.spawn().unwrap();
            // Who refuses its variables does not read it.
            let mut stdin = child.stdin.take().unwrap();
            stdin.write_all(call.conf.to_string().as_bytes()).ok();
            drop(stdin);
            child.wait_with_output().unwrap()
        };
        for (verb, name) in [
            ("ADD", "CNI_COMMAND"),
            ("ADD", "CNI_CONTAINERID"),
            ("ADD", "CNI_NETNS"),
            ("ADD", "CNI_IFNAME"),
            ("ADD", "CNI_ARGS"),
            ("ADD", "CNI_PATH"),
            ("CHECK", "CNI_NETNS"),
            ("DEL", "CNI_CONTAINERID"),
            ("STATUS", "CNI_PATH"),
            ("GC", "CNI_PATH"),
        ] {
            let output = run(verb, name);
            let error: Value = serde_json::from_slice(&output.stdout).unwrap();
            let wanted = format!("env variables [{name}] are not UTF-8; set them to text or unset them");
            assert_eq!((&error["code"], &error["msg"]), (&json!(4), &json!(wanted)));
            assert_eq!(output.status.code(), Some(1));
            node.assert_nothing_left(&[]);
        }
        for name in ["CNI_NETNS", "CNI_ARGS", "CNI_PATH", "TRACEPARENT"] {
            node.add(&pod);
            assert!(run("DEL", name).status.success(), "{name}");
            node.assert_nothing_left(&["cni0"]);
        }
    });
}
