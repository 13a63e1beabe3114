//! The plugin firewall against the real kernel: what passes, what does not, and what is left.
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
use std::thread::scope;

use common::{Node, Pod, ip, names_in, on_a_node, sh};
use serde_json::{Value, json};

const REFERENCE: &str = "/usr/lib/cni/firewall";

/// A pod on a bridge of its own network, and the result of its ADD.
struct Attached {
    pod: Pod,
    result: Value,
}

fn attach(node: &Node, id: &str, bridge: &str, subnet: &str) -> Attached {
    let pod = Pod::new(id);
    let mut conf = node.bridge_conf("1.0.0");
    conf["name"] = json!(bridge);
    conf["bridge"] = json!(bridge);
    conf["ipam"]["ranges"] = json!([[{ "subnet": subnet }], [{"subnet": format!("fd00:{}::/64", bridge.trim_start_matches("cni"))}]]);
    conf["ipam"]["routes"] = json!([]);
    let result = node.call("ADD", &pod, &conf).succeeds();
    Attached { pod, result }
}

fn conf(node: &Node, attached: &Attached, keys: &Value) -> Value {
    let mut conf = json!({
        "cniVersion": "1.1.0", "name": "net", "type": "firewall",
        "dataDir": node.path("firewall"), "prevResult": attached.result,
    });
    conf.as_object_mut()
        .unwrap()
        .extend(keys.as_object().unwrap().clone());
    conf
}

fn here(script: &str) -> String {
    sh(Path::new("/"), script)
}

/// The rules of iptables' filter tables, less headers.
fn iptables_rules() -> Vec<String> {
    let all = here("iptables-save -t filter; ip6tables-save -t filter");
    let lines = all
        .lines()
        .filter(|line| line.starts_with("-A") || line.starts_with(':'));
    lines
        .map(|line| line.split(" [").next().unwrap().to_owned())
        .collect()
}

/// The rules that name an address of a pod's, in any back end.
fn of_pods() -> Vec<String> {
    let all = here("nft list ruleset; iptables-save; ip6tables-save");
    let named = |line: &&str| line.contains("10.1.") || line.contains("10.2.") || line.contains("fd00:");
    let mut found: Vec<_> = all.lines().filter(named).map(str::to_owned).collect();
    found.sort();
    found
}

fn address(attached: &Attached) -> String {
    let address = attached.result["ips"][0]["address"].as_str().unwrap();
    address.split('/').next().unwrap().to_owned()
}

#[test]
fn a_closed_node_forwards_what_containers_send() {
    on_a_node(|node| {
        let outside = Pod::new("outside");
        ip(&[
            "link",
            "add",
            "up0",
            "type",
            "veth",
            "peer",
            "name",
            "out0",
            "netns",
            &outside.netns,
        ]);
        here("ip addr add 192.168.9.1/24 dev up0; ip link set up0 up; iptables -P FORWARD DROP");
        outside.sh("ip addr add 192.168.9.2/24 dev out0; ip link set out0 up; ip route add 10.0.0.0/8 via 192.168.9.1");
        let a = attach(&node, "a", "cni0", "10.1.0.0/24");
        assert!(!a.pod.reaches("192.168.9.2"));

        let conf = conf(&node, &a, &json!({}));
        let result = node.call("ADD", &a.pod, &conf).succeeds();
        assert_eq!(result["ips"], a.result["ips"]);
        assert!(a.pod.reaches("192.168.9.2"));
        assert!(!outside.reaches(&address(&a)), "nobody asked for what comes in");
        assert!(
            iptables_rules()
                .iter()
                .any(|rule| rule.starts_with("-A CNI-FORWARD -s 10.1.0.2/32"))
        );
        node.call("CHECK", &a.pod, &conf).succeeds();
        // The administrator has the first word.
        here("iptables -A CNI-ADMIN -d 192.168.9.2 -j DROP");
        assert!(!a.pod.reaches("192.168.9.2"));

        node.call("DEL", &a.pod, &conf).succeeds();
        assert_eq!(of_pods(), Vec::<String>::new());
        assert_eq!(names_in(&node.path("firewall")), ["lock"]);
    });
}

#[test]
fn an_open_node_gets_a_table_of_nf_tables() {
    on_a_node(|node| {
        let a = attach(&node, "a", "cni0", "10.1.0.0/24");
        let own = conf(&node, &a, &json!({"ingressPolicy": "same-bridge"}));
        node.call("ADD", &a.pod, &own).succeeds();
        let listed = here("nft list table inet flannel_cni_firewall");
        for line in [
            "\t\tjump isolation_stage_1\n\t\tjump admin\n\t\tjump containers\n",
            "ip daddr 10.1.0.2 ct state established,related accept comment \"",
            "ip6 saddr fd00:0::2 accept comment \""
                .replace("fd00:0::2", "fd00::2")
                .as_str(),
            "iifname \"cni0\" oifname != \"cni0\" jump isolation_stage_2",
        ] {
            assert!(listed.contains(line), "{line}: {listed}");
        }
        assert!(!node.path("firewall").exists(), "nothing has to be noted");
        node.call("CHECK", &a.pod, &own).succeeds();
        node.call("STATUS", &a.pod, &own).succeeds();
        here("nft flush chain inet flannel_cni_firewall forward");
        assert_eq!(node.call("CHECK", &a.pod, &own).fails()["code"], 103);
        node.call("ADD", &a.pod, &own).succeeds();
        node.call("CHECK", &a.pod, &own).succeeds();
        // As runtimes do that know no result any more, and again.
        let mut bare = own;
        bare["prevResult"] = Value::Null;
        for _ in 0..2 {
            node.call("DEL", &a.pod, &bare).var("CNI_NETNS", "").succeeds();
            assert_eq!(of_pods(), Vec::<String>::new());
            assert!(!here("nft list ruleset").contains("cni0"));
        }
    });
}

#[test]
fn a_policy_closes_a_bridge_to_others_and_to_itself() {
    for backend in ["nftables", "iptables"] {
        on_a_node(move |node| {
            let a = attach(&node, "a", "cni0", "10.1.0.0/24");
            let b = attach(&node, "b", "cni1", "10.2.0.0/24");
            let c = attach(&node, "c", "cni0", "10.1.0.0/24");
            let reach = || {
                (
                    a.pod.reaches(&address(&b)),
                    b.pod.reaches(&address(&a)),
                    a.pod.reaches(&address(&c)),
                )
            };
            assert_eq!(reach(), (true, true, true));
            let own = |attached: &Attached, policy: &str| {
                conf(
                    &node,
                    attached,
                    &json!({"backend": backend, "ingressPolicy": policy}),
                )
            };
            for attached in [&a, &b, &c] {
                node.call("ADD", &attached.pod, &own(attached, "same-bridge"))
                    .succeeds();
            }
            assert_eq!(reach(), (false, false, true));
            assert!(a.pod.reaches("10.1.0.1"), "the host itself");
            // Frames that stay on a bridge pass these rules where br_netfilter is there, as in a new namespace.
            assert_eq!(
                here("cat /proc/sys/net/bridge/bridge-nf-call-iptables").trim(),
                "1"
            );
            node.call("ADD", &c.pod, &own(&c, "isolated")).succeeds();
            assert_eq!(reach(), (false, false, false));
            node.call("CHECK", &c.pod, &own(&c, "isolated")).succeeds();
            if backend == "nftables" {
                node.call("DEL", &c.pod, &own(&c, "isolated")).succeeds();
                assert_eq!(reach(), (false, false, true));
                node.call("DEL", &b.pod, &own(&b, "same-bridge")).succeeds();
                assert_eq!(reach(), (true, true, true));
            }
        });
    }
}

#[test]
fn the_rules_in_iptables_are_those_of_the_reference_and_either_removes_them() {
    let by = |is_reference: bool| {
        let (sender, made) = std::sync::mpsc::channel();
        on_a_node(move |node| {
            let a = attach(&node, "a", "cni0", "10.1.0.0/24");
            let mut own = conf(
                &node,
                &a,
                &json!({"backend": "iptables", "ingressPolicy": "same-bridge"}),
            );
            own["cniVersion"] = json!("1.0.0");
            let call = |verb: &str| {
                node.call(verb, &a.pod, &own)
                    .var("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            };
            let run = |verb: &str, by_reference: bool| {
                if by_reference {
                    call(verb).exec(Path::new(REFERENCE))
                } else {
                    call(verb).succeeds()
                }
            };
            run("ADD", is_reference);
            sender.send(iptables_rules()).unwrap();
            run("CHECK", true);
            run("CHECK", false);
            run("DEL", !is_reference);
            assert_eq!(of_pods(), Vec::<String>::new());
        });
        made.recv().unwrap()
    };
    assert_eq!(by(false), by(true));
}

#[test]
fn a_node_that_mixes_both_variants_of_iptables_accepts_in_each_that_may_drop() {
    on_a_node(|node| {
        here("iptables-nft -P FORWARD DROP; iptables-legacy -P FORWARD DROP");
        let (a, b) = (
            attach(&node, "a", "cni0", "10.1.0.0/24"),
            attach(&node, "b", "cni1", "10.2.0.0/24"),
        );
        assert!(!a.pod.reaches(&address(&b)));
        let own = |attached: &Attached| conf(&node, attached, &json!({}));
        for attached in [&a, &b] {
            node.call("ADD", &attached.pod, &own(attached)).succeeds();
        }
        assert!(a.pod.reaches(&address(&b)));
        node.call("CHECK", &a.pod, &own(&a)).succeeds();
        here("iptables-legacy -F CNI-FORWARD");
        node.call("CHECK", &a.pod, &own(&a)).fails();
        node.call("ADD", &a.pod, &own(&a)).succeeds();
        for attached in [&a, &b] {
            node.call("DEL", &attached.pod, &own(attached)).succeeds();
        }
        let rules = here("iptables-nft-save; iptables-legacy-save");
        assert!(
            !rules.contains("10.1.0.2") && !rules.contains("10.2.0.2"),
            "{rules}"
        );
    });
}

#[test]
fn an_empty_table_of_legacy_iptables_needs_no_rules() {
    on_a_node(|node| {
        let a = attach(&node, "a", "cni0", "10.1.0.0/24");
        // Looking is enough to make the tables.
        here("iptables-legacy -S; ip6tables-legacy -S");
        let own = conf(&node, &a, &json!({}));
        node.call("ADD", &a.pod, &own).succeeds();
        node.call("CHECK", &a.pod, &own).succeeds();
        here("iptables-legacy -P FORWARD DROP");
        assert_eq!(node.call("CHECK", &a.pod, &own).fails()["code"], 103);
        here(
            "iptables-legacy -P FORWARD ACCEPT; iptables -F CNI-FORWARD; iptables -F FORWARD; iptables -X CNI-FORWARD",
        );
        assert_eq!(node.call("CHECK", &a.pod, &own).fails()["code"], 103);
        node.call("ADD", &a.pod, &own).succeeds();
        node.call("CHECK", &a.pod, &own).succeeds();
    });
}

#[test]
fn a_late_del_leaves_the_rules_of_the_addresses_next_holder() {
    on_a_node(|node| {
        let a = attach(&node, "a", "cni0", "10.1.0.0/24");
        let own = conf(&node, &a, &json!({"backend": "iptables"}));
        let del = node.call("DEL", &a.pod, &own);
        node.call("ADD", &a.pod, &own).succeeds();
        del.succeeds();
        // The next container has the same address.
        let next = node.call("ADD", &a.pod, &own).var("CNI_CONTAINERID", "next");
        next.succeeds();
        let rules = of_pods();
        del.succeeds();
        assert_eq!(of_pods(), rules);
        let mut bare = next;
        bare.conf["prevResult"] = Value::Null;
        bare.var("CNI_COMMAND", "DEL").succeeds();
        assert_eq!(of_pods(), Vec::<String>::new());
    });
}

#[test]
fn a_repeated_add_gives_up_the_addresses_that_the_attachment_has_no_more() {
    on_a_node(|node| {
        let a = attach(&node, "a", "cni0", "10.1.0.0/24");
        let own = conf(&node, &a, &json!({"backend": "iptables"}));
        let mut moved = own.clone();
        moved["prevResult"]["ips"][0]["address"] = json!("10.1.0.77/24");
        let holds = |address: &str| of_pods().iter().any(|rule| rule.contains(address));
        node.call("ADD", &a.pod, &own).succeeds();
        assert!(holds("10.1.0.2/32"));
        node.call("ADD", &a.pod, &moved).succeeds();
        assert!(!holds("10.1.0.2/32") && holds("10.1.0.77/32") && holds("fd00::2/128"));
        // Unless another container has them by now.
        node.call("ADD", &a.pod, &moved)
            .var("CNI_CONTAINERID", "next")
            .succeeds();
        node.call("ADD", &a.pod, &own).succeeds();
        assert!(holds("10.1.0.2/32") && holds("10.1.0.77/32"));
        for id in ["a", "next"] {
            let mut del = node.call("DEL", &a.pod, &own).var("CNI_CONTAINERID", id);
            del.conf["prevResult"] = Value::Null;
            del.succeeds();
        }
        assert_eq!(of_pods(), Vec::<String>::new());
    });
}

#[test]
fn notes_of_attachments_with_similar_names_and_of_former_versions_are_told_apart() {
    on_a_node(|node| {
        let a = attach(&node, "a", "cni0", "10.1.0.0/24");
        let call = |verb: &str, (id, ifname): (&str, &str), address: Option<&str>| {
            let mut own = conf(&node, &a, &json!({"backend": "iptables"}));
            match address {
                Some(address) => own["prevResult"]["ips"] = json!([{ "address": address }]),
                None => own["prevResult"] = Value::Null,
            }
            let call = node.call(verb, &a.pod, &own);
            call.var("CNI_CONTAINERID", id).var("CNI_IFNAME", ifname)
        };
        let (one, other) = (("a_b", "c"), ("a", "b_c"));
        call("ADD", one, Some("10.1.0.7/24")).succeeds();
        call("ADD", other, Some("10.1.0.8/24")).succeeds();
        call("DEL", one, None).succeeds();
        let left = of_pods().join("\n");
        assert!(
            !left.contains("10.1.0.7/32") && left.contains("10.1.0.8/32"),
            "{left}"
        );

        // As former versions named it, beside a file of tuning's.
        let file = |name: &str| node.path("firewall").join(name);
        fs::rename(file("a:b_c.json"), file("a_b_c.json")).unwrap();
        fs::write(file("d_eth0.json"), r#"{"mtu":1500,"network":"net"}"#).unwrap();
        call("DEL", ("d", "eth0"), None).succeeds();
        let mut gc = call("GC", other, None);
        gc.conf["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "b_c"}]);
        gc.succeeds();
        assert_eq!(of_pods().join("\n"), left);
        call("DEL", other, None).succeeds();
        assert_eq!(of_pods(), Vec::<String>::new());
        assert_eq!(names_in(&node.path("firewall")), ["d_eth0.json", "lock"]);
    });
}

#[test]
fn gc_removes_the_rules_of_its_networks_containers_that_are_not_valid() {
    on_a_node(|node| {
        let a = attach(&node, "a", "cni0", "10.1.0.0/24");
        let b = attach(&node, "b", "cni0", "10.1.0.0/24");
        let c = attach(&node, "c", "cni1", "10.2.0.0/24");
        for backend in ["nftables", "iptables"] {
            let own = |attached: &Attached| conf(&node, attached, &json!({"backend": backend}));
            let mut other = own(&c);
            other["name"] = json!("other");
            node.call("ADD", &a.pod, &own(&a)).succeeds();
            node.call("ADD", &b.pod, &own(&b)).succeeds();
            node.call("ADD", &c.pod, &other).succeeds();
            let mut gc = own(&a);
            gc["cni.dev/valid-attachments"] = json!([{"containerID": "b", "ifname": "eth0"}]);
            gc["prevResult"] = Value::Null;
            node.call("GC", &a.pod, &gc).succeeds();
            let left = of_pods().join("\n");
            for (kept, address) in [(false, "10.1.0.2"), (true, "10.1.0.3"), (true, "10.2.0.2")] {
                assert_eq!(left.contains(address), kept, "{backend} {address}: {left}");
            }
            node.call("DEL", &b.pod, &own(&b)).succeeds();
            node.call("DEL", &c.pod, &other).succeeds();
            assert_eq!(of_pods(), Vec::<String>::new());
        }
    });
}

#[test]
fn what_cannot_be_served_is_refused_before_anything_changes() {
    on_a_node(|node| {
        let a = attach(&node, "a", "cni0", "10.1.0.0/24");
        for (keys, code) in [
            (json!({"backend": "firewalld"}), 2),
            (json!({"ingressPolicy": "closed"}), 7),
            (json!({"prevResult": null}), 7),
            (json!({"prevResult": {"ips": 5}}), 6),
            (json!({"cniVersion": "0.3.1"}), 1),
            (
                json!({"backend": "iptables", "ingressPolicy": "same-bridge", "prevResult": {"ips": []}}),
                7,
            ),
        ] {
            let error = node.call("ADD", &a.pod, &conf(&node, &a, &keys)).fails();
            assert_eq!(error["code"], code, "{keys}: {error}");
        }
        let mut running = conf(&node, &a, &json!({}));
        here("nft add table inet firewalld");
        let error = node.call("ADD", &a.pod, &running).fails();
        assert!(
            error["msg"].as_str().unwrap().contains("zone that trusts it"),
            "{error}"
        );
        assert_eq!(node.call("STATUS", &a.pod, &running).fails()["code"], 50);
        running["backend"] = json!("nftables");
        node.call("ADD", &a.pod, &running).succeeds();
        node.call("DEL", &a.pod, &running).succeeds();
        assert_eq!(of_pods(), Vec::<String>::new());
        // What an ADD would refuse, or a result that is none, stops no DEL.
        let keys = json!({"backend": "firewalld", "ingressPolicy": 5, "prevResult": {"ips": 5}});
        node.call("DEL", &a.pod, &conf(&node, &a, &keys)).succeeds();
        assert!(!node.path("firewall").exists());
    });
}

#[test]
fn twenty_at_once_end_with_exactly_their_own_rules() {
    for backend in ["nftables", "iptables"] {
        on_a_node(move |node| {
            let all: Vec<_> = (0..20)
                .map(|id| attach(&node, &format!("p{id}"), "cni0", "10.1.0.0/24"))
                .collect();
            for verb in ["ADD", "DEL"] {
                scope(|scope| {
                    for attached in &all {
                        let keys = json!({"backend": backend, "ingressPolicy": "same-bridge"});
                        let call = node.call(verb, &attached.pod, &conf(&node, attached, &keys));
                        scope.spawn(move || call.succeeds());
                    }
                });
                let accepted = here("nft list ruleset | grep 'addr 10.1' || true")
                    .lines()
                    .count();
                assert_eq!(accepted, if verb == "ADD" { 40 } else { 0 }, "{backend}");
            }
            let left = here("nft list ruleset");
            assert!(backend == "iptables" || !left.contains("cni0"), "{left}");
        });
    }
}
