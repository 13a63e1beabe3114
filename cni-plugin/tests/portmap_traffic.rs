//! Connections through mapped ports, with both back ends and in both families: real sockets on the real kernel.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;
mod ports;

use std::net::UdpSocket;
use std::path::Path;
use std::time::Duration;

use common::{Node, Pod, on_a_node, sh};
use ports::{
    CLIENT_V4, CLIENT_V6, NODE_V4, NODE_V6, Server, call, client, containers_rules, inside, is_refused,
    mapping, own_netns, tcp, udp,
};
use serde_json::{Value, json};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

/// The bridge's addresses, by which masqueraded connections come.
const BRIDGE_V4: &str = "10.244.7.1";
const BRIDGE_V6: &str = "fd00:10:244:7::1";

/// Maps ports of a pod with a back end and further keys; returns the configuration.
fn map(node: &Node, pod: &Pod, result: &Value, backend: &str, mappings: &[Value], more: &Value) -> Value {
    let mut conf = node.ports_conf(result, mappings);
    conf["backend"] = backend.into();
    for (key, value) in more.as_object().unwrap() {
        conf[key] = value.clone();
    }
    let passed_on = call(node, "ADD", pod, &conf).succeeds();
    assert_eq!(&passed_on, result);
    conf
}

/// Whether packets that a bridge forwards pass the packet filter as well: a kernel without br_netfilter has no such
/// parameter, and they do not.
fn filter_bridged_packets(value: &str) {
    for key in ["bridge-nf-call-iptables", "bridge-nf-call-ip6tables"] {
        let script = format!("f=/proc/sys/net/bridge/{key}; [ ! -e $f ] || echo {value} > $f");
        sh(Path::new("/"), &script);
    }
}

#[test]
fn mapped_ports_lead_to_the_pod_from_everywhere() {
    for (backend, bridged) in [
        ("nftables", "0"),
        ("nftables", "1"),
        ("iptables", "0"),
        ("iptables", "1"),
    ] {
        on_a_node(move |node| {
            filter_bridged_packets(bridged);
            let client = client();
            let (pod, result) = node.attached("a");
            let (other, _) = node.attached("b");
            let mappings = [
                mapping(8080, 80, "tcp"),
                mapping(8053, 53, "udp"),
                mapping(8054, 53, "UDP"),
            ];
            let conf = map(&node, &pod, &result, backend, &mappings, &json!({}));
            let (_tcp, _udp) = (Server::tcp(&pod, 80), Server::udp(&pod, 53));

            for (from, to, seen) in [
                (&client.netns, NODE_V4, CLIENT_V4),
                (&client.netns, NODE_V6, CLIENT_V6),
                (&other.netns, NODE_V4, BRIDGE_V4),
                (&other.netns, NODE_V6, BRIDGE_V6),
                (&pod.netns, NODE_V4, BRIDGE_V4),
                (&pod.netns, NODE_V6, BRIDGE_V6),
                (&own_netns(), NODE_V4, NODE_V4),
                (&own_netns(), "127.0.0.1", BRIDGE_V4),
            ] {
                assert_eq!(tcp(from, to, 8080), seen, "{backend} {from} {to}");
                assert_eq!(udp(from, to, 8053), seen, "{backend} {from} {to}");
            }
            // What does not go through a mapped port stays as it is.
            let pods_address = result["ips"][0]["address"].as_str().unwrap();
            let (pods_address, _) = pods_address.split_once('/').unwrap();
            let others_address = tcp(&other.netns, pods_address, 80);
            assert!(
                others_address.starts_with("10.244.7.") && others_address != BRIDGE_V4,
                "{others_address}"
            );

            call(&node, "DEL", &pod, &conf).succeeds();
            assert!(is_refused(&client.netns, NODE_V4, 8080));
            assert!(is_refused(&client.netns, NODE_V6, 8080));
            assert!(is_refused(&own_netns(), "127.0.0.1", 8080));
            assert_eq!(containers_rules(), Vec::<String>::new());
            assert_eq!(node.stored_ports(), Vec::<String>::new());
        });
    }
}

#[test]
fn an_address_of_the_host_limits_a_mapping_to_it_and_to_its_family() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let client = client();
            let (pod, result) = node.attached("a");
            let with = |host_ip: &str, port| {
                let mut mapping = mapping(port, 80, "tcp");
                mapping["hostIP"] = host_ip.into();
                mapping
            };
            let mappings = [
                with("192.168.50.9", 8081),
                with(NODE_V6, 8082),
                with("0.0.0.0", 8083),
                with("::", 8084),
                with("", 8085),
            ];
            map(&node, &pod, &result, backend, &mappings, &json!({}));
            let _server = Server::tcp(&pod, 80);
            for (port, reached, refused) in [
                (8081, vec!["192.168.50.9"], vec![NODE_V4, NODE_V6]),
                (8082, vec![NODE_V6], vec![NODE_V4]),
                (8083, vec!["192.168.50.9", NODE_V4], vec![NODE_V6]),
                (8084, vec![NODE_V6], vec![NODE_V4]),
                (8085, vec!["192.168.50.9", NODE_V4, NODE_V6], vec![]),
            ] {
                for to in reached {
                    tcp(&client.netns, to, port);
                }
                for to in refused {
                    assert!(is_refused(&client.netns, to, port), "{backend} {to} {port}");
                }
            }
        });
    }
}

#[test]
fn a_pod_with_both_families_may_have_its_only_port_in_one() {
    for backend in BACKENDS {
        for (host_ip, reached, refused) in [
            ("0.0.0.0", NODE_V4, NODE_V6),
            ("127.0.0.1", "127.0.0.1", NODE_V4),
            ("::", NODE_V6, NODE_V4),
        ] {
            on_a_node(move |node| {
                let _client = client();
                let (pod, result) = node.attached("a");
                let mut mapping = mapping(8080, 80, "tcp");
                mapping["hostIP"] = host_ip.into();
                let conf = map(&node, &pod, &result, backend, &[mapping], &json!({}));
                let _server = Server::tcp(&pod, 80);
                tcp(&own_netns(), reached, 8080);
                assert!(
                    is_refused(&own_netns(), refused, 8080),
                    "{backend} {host_ip}: {refused} leads to the pod as well"
                );
                call(&node, "CHECK", &pod, &conf).succeeds();
                call(&node, "DEL", &pod, &conf).succeeds();
                assert_eq!(containers_rules(), Vec::<String>::new());
            });
        }
    }
}

#[test]
fn masquerading_follows_the_configuration() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let client = client();
            let (pod, result) = node.attached("a");
            let (other, _) = node.attached("b");
            let _server = Server::tcp(&pod, 80);
            let mappings = [mapping(8080, 80, "tcp")];
            map(&node, &pod, &result, backend, &mappings, &json!({"snat": false}));
            assert_eq!(tcp(&client.netns, NODE_V4, 8080), CLIENT_V4);
            assert!(
                is_refused(&pod.netns, NODE_V4, 8080),
                "{backend}: hairpin without masquerading"
            );
            // The same attachment anew, with other keys.
            map(
                &node,
                &pod,
                &result,
                backend,
                &mappings,
                &json!({"masqAll": true, "markMasqBit": 7}),
            );
            assert_eq!(tcp(&client.netns, NODE_V4, 8080), BRIDGE_V4);
            assert_eq!(tcp(&client.netns, NODE_V6, 8080), BRIDGE_V6);
            let pods_address = result["ips"][0]["address"].as_str().unwrap();
            let (pods_address, _) = pods_address.split_once('/').unwrap();
            assert_ne!(tcp(&other.netns, pods_address, 80), BRIDGE_V4);
        });
    }
}

#[test]
fn conditions_limit_who_may_use_a_port() {
    for (backend, v4, v6) in [
        (
            "nftables",
            json!(["ip saddr 192.168.50.2"]),
            json!(["ip6 saddr fd99::2"]),
        ),
        (
            "nftables",
            json!(["ip", "saddr", "!=", "10.0.0.0/8"]),
            json!(["ip6 saddr != fd00:10::/32"]),
        ),
        (
            "iptables",
            json!(["-s", "192.168.50.2/32"]),
            json!(["!", "-s", "fd00:10::/32"]),
        ),
    ] {
        on_a_node(move |node| {
            let client = client();
            let (pod, result) = node.attached("a");
            let (other, _) = node.attached("b");
            let _server = Server::tcp(&pod, 80);
            let conf = map(
                &node,
                &pod,
                &result,
                backend,
                &[mapping(8080, 80, "tcp")],
                &json!({"conditionsV4": v4, "conditionsV6": v6}),
            );
            assert_eq!(tcp(&client.netns, NODE_V4, 8080), CLIENT_V4);
            assert_eq!(tcp(&client.netns, NODE_V6, 8080), CLIENT_V6);
            assert!(is_refused(&other.netns, NODE_V4, 8080));
            assert!(is_refused(&other.netns, NODE_V6, 8080));
            call(&node, "CHECK", &pod, &conf).succeeds();
            call(&node, "DEL", &pod, &conf).succeeds();
            assert_eq!(containers_rules(), Vec::<String>::new());
        });
    }
}

/// As kubelet and kube-proxy once shared their mark.
#[test]
fn a_chain_of_others_may_mark_what_is_to_be_masqueraded() {
    on_a_node(|node| {
        for program in ["iptables", "ip6tables"] {
            let rules = format!(
                "{program} -t nat -N KUBE-MARK-MASQ; {program} -t nat -A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
                 {program} -t nat -A POSTROUTING -m mark --mark 0x4000/0x4000 -j MASQUERADE"
            );
            sh(node.dir.path(), &rules);
        }
        let client = client();
        let (pod, result) = node.attached("a");
        let _server = Server::tcp(&pod, 80);
        let mut conf = node.ports_conf(&result, &[mapping(8080, 80, "tcp")]);
        conf["externalSetMarkChain"] = "KUBE-MARK-MASQ".into();
        call(&node, "ADD", &pod, &conf).succeeds();
        for (to, by_client, by_bridge) in [(NODE_V4, CLIENT_V4, BRIDGE_V4), (NODE_V6, CLIENT_V6, BRIDGE_V6)] {
            assert_eq!(tcp(&client.netns, to, 8080), by_client);
            assert_eq!(tcp(&pod.netns, to, 8080), by_bridge, "its own host port");
        }
        call(&node, "CHECK", &pod, &conf).succeeds();
        call(&node, "DEL", &pod, &conf).succeeds();
        assert_eq!(containers_rules(), Vec::<String>::new());
        assert!(sh(node.dir.path(), "iptables-save -t nat").contains("-A KUBE-MARK-MASQ -j MARK"));
    });
}

#[test]
fn two_hundred_mappings_work_on_one_pod() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let client = client();
            let (pod, result) = node.attached("a");
            let mappings: Vec<_> = (0..200).map(|i| mapping(20_000 + i, 1000 + i, "tcp")).collect();
            let conf = map(&node, &pod, &result, backend, &mappings, &json!({}));
            let (_first, _last) = (Server::tcp(&pod, 1000), Server::tcp(&pod, 1199));
            for to in [NODE_V4, NODE_V6] {
                tcp(&client.netns, to, 20_000);
                tcp(&client.netns, to, 20_199);
            }
            call(&node, "CHECK", &pod, &conf).succeeds();
            call(&node, "DEL", &pod, &conf).succeeds();
            assert_eq!(containers_rules(), Vec::<String>::new());
        });
    }
}

#[test]
fn a_udp_flow_goes_on_to_the_next_pod_with_the_port() {
    for (backend, to) in [
        ("nftables", NODE_V4),
        ("nftables", NODE_V6),
        ("iptables", NODE_V4),
        ("iptables", NODE_V6),
    ] {
        on_a_node(move |node| {
            let client = client();
            let socket = inside(&client.netns, move || {
                let any = if to == NODE_V4 { "0.0.0.0" } else { "::" };
                let socket = UdpSocket::bind((any, 5353)).unwrap();
                socket.connect((to, 8053)).unwrap();
                socket.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
                socket
            });
            let ask = || {
                // Refusals of earlier questions are answers as well.
                (0..20).any(|_| {
                    let sent = socket.send(b"?").is_ok();
                    sent && socket.recv(&mut [0; 64]).is_ok()
                })
            };
            let nobody = socket.send(b"?").is_ok() && socket.recv(&mut [0; 64]).is_ok();
            assert!(!nobody);
            for id in ["a", "b"] {
                let (pod, result) = node.attached(id);
                let conf = map(
                    &node,
                    &pod,
                    &result,
                    backend,
                    &[mapping(8053, 53, "udp")],
                    &json!({}),
                );
                let _server = Server::udp(&pod, 53);
                assert!(ask(), "{backend} {to} {id}");
                call(&node, "DEL", &pod, &conf).succeeds();
                let gone = socket.send(b"?").is_ok() && socket.recv(&mut [0; 64]).is_ok();
                assert!(!gone, "{backend} {to} {id}: the flow outlives its mapping");
            }
        });
    }
}

#[test]
fn the_pod_that_came_last_has_a_port_that_two_want() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let client = client();
            let (leaked, result) = node.attached("a");
            map(
                &node,
                &leaked,
                &result,
                backend,
                &[mapping(8080, 80, "tcp")],
                &json!({}),
            );
            let (pod, result) = node.attached("b");
            map(
                &node,
                &pod,
                &result,
                backend,
                &[mapping(8080, 80, "tcp")],
                &json!({}),
            );
            let _server = Server::tcp(&pod, 80);
            assert_eq!(tcp(&client.netns, NODE_V4, 8080), CLIENT_V4);
        });
    }
}
