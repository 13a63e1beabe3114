//! What the bridge's `ipMasq` and `macspoofchk` do to packets, and what is left of them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::thread::scope;
use std::time::Duration;

use common::{Node, Pod, ip, on_a_node, sh};
use netlink::Netns;
use serde_json::{Value, json};

const REFERENCE: &str = "/usr/lib/cni/bridge";

/// A machine outside of the node, 192.168.9.2 and fd00:9::2, with routes to the pods.
fn outside() -> Pod {
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
    let node = Path::new("/");
    sh(
        node,
        "ip addr add 192.168.9.1/24 dev up0; ip addr add fd00:9::1/64 dev up0 nodad; ip link set up0 up",
    );
    outside.sh(
        "ip addr add 192.168.9.2/24 dev out0; ip addr add fd00:9::2/64 dev out0 nodad; ip link set out0 up
         ip route add 10.244.0.0/16 via 192.168.9.1; ip route add fd00:10:244::/48 via fd00:9::1",
    );
    outside
}

/// The address that a datagram from the pod carries when it arrives outside.
fn seen_outside(pod: &Pod, outside: &Pod, to: &str) -> IpAddr {
    let to: SocketAddr = to.parse().unwrap();
    let bound = |netns: &str, address: SocketAddr| {
        let socket = Netns::open(Path::new(netns))
            .unwrap()
            .run(|| UdpSocket::bind(address));
        socket.unwrap().unwrap()
    };
    let server = bound(&outside.netns, to);
    server.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let any = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let client = bound(&pod.netns, any.parse().unwrap());
    let mut buffer = [0; 8];
    for _ in 0..20 {
        client.send_to(b"hello", to).unwrap();
        if let Ok((_, from)) = server.recv_from(&mut buffer) {
            return from.ip();
        }
    }
    panic!("nothing arrived at {to}");
}

fn conf(node: &Node, keys: &Value) -> Value {
    let mut conf = node.bridge_conf("1.1.0");
    conf["ipam"]["ranges"] = json!([[{"subnet": "10.244.7.0/24"}], [{"subnet": "fd00:10:244:7::/64"}]]);
    conf["ipam"]["routes"] = json!([]);
    let map = conf.as_object_mut().unwrap();
    map.extend(keys.as_object().unwrap().clone());
    conf
}

fn rules() -> String {
    sh(Path::new("/"), "nft list ruleset")
}

/// The rules of iptables of both families, less headers.
fn iptables_rules() -> String {
    let all = sh(Path::new("/"), "iptables-save -t nat; ip6tables-save -t nat");
    let lines = all.lines().filter(|line| line.starts_with("-A"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Everything that any container left in any back end.
fn left() -> String {
    let all = sh(Path::new("/"), "nft list ruleset; iptables-save; ip6tables-save");
    let of_containers = ["id:", "macspoofchk-", "cni-br-iface", "CNI-"];
    let lines = all
        .lines()
        .filter(|line| of_containers.iter().any(|word| line.contains(word)));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_pod_is_seen_outside_by_its_nodes_address_and_inside_by_its_own() {
    on_a_node(|node| {
        let outside = outside();
        let (pod, other) = (Pod::new("a"), Pod::new("b"));
        let plain = conf(&node, &json!({}));
        node.call("ADD", &pod, &plain).succeeds();
        assert_eq!(
            seen_outside(&pod, &outside, "192.168.9.2:7000").to_string(),
            "10.244.7.2"
        );
        node.call("DEL", &pod, &plain).succeeds();

        let conf = conf(&node, &json!({"ipMasq": true}));
        let added = node.call("ADD", &pod, &conf).succeeds();
        node.call("ADD", &other, &conf).succeeds();
        assert_eq!(
            seen_outside(&pod, &outside, "192.168.9.2:7001").to_string(),
            "192.168.9.1"
        );
        assert_eq!(
            seen_outside(&pod, &outside, "[fd00:9::2]:7001").to_string(),
            "fd00:9::1"
        );
        let address = added["ips"][0]["address"]
            .as_str()
            .unwrap()
            .trim_end_matches("/24")
            .to_owned();
        assert_eq!(seen_outside(&pod, &other, "10.244.7.4:7001").to_string(), address);
        let mut checked = conf.clone();
        checked["prevResult"] = added;
        node.call("CHECK", &pod, &checked).succeeds();

        sh(
            Path::new("/"),
            "nft flush chain inet cni_plugins_masquerade masq_checks",
        );
        let error = node.call("CHECK", &pod, &checked).fails();
        assert_eq!(error["code"], 103);
        assert!(
            error["msg"].as_str().unwrap().contains("cni_plugins_masquerade"),
            "{error}"
        );
        for pod in [&pod, &other] {
            node.call("DEL", pod, &conf).succeeds();
        }
        assert_eq!(left(), "");
    });
}

#[test]
fn the_rules_are_those_of_the_references_newest_version() {
    on_a_node(|node| {
        let pod = Pod::new("a3");
        let added = node
            .call(
                "ADD",
                &pod,
                &conf(&node, &json!({"ipMasq": true, "macspoofchk": true})),
            )
            .succeeds();
        let veth = added["interfaces"][1]["name"].as_str().unwrap();
        let mac = added["interfaces"][2]["mac"].as_str().unwrap();
        let expected = include_str!("data/guards.nft")
            .replace("VETH", veth)
            .replace("MAC", mac);
        let sorted = |text: &str| {
            let mut tables: Vec<_> = text.split("\n}\n").map(str::to_owned).collect();
            tables.sort();
            tables
        };
        assert_eq!(sorted(&rules()), sorted(&expected));
    });
}

#[test]
fn rules_go_without_the_namespace_and_without_a_result() {
    on_a_node(|node| {
        let conf = conf(&node, &json!({"ipMasq": true, "macspoofchk": true}));
        for netns in ["", "/run/netns/gone"] {
            let pod = Pod::new("a");
            node.call("ADD", &pod, &conf).succeeds();
            assert_ne!(left(), "");
            let del = node.call("DEL", &pod, &conf).var("CNI_NETNS", netns);
            drop(pod);
            for _ in 0..2 {
                del.succeeds();
                assert_eq!(left(), "");
            }
        }
        node.assert_nothing_left(&["cni0"]);
    });
}

#[test]
fn gc_removes_the_rules_of_its_networks_attachments_that_are_not_valid() {
    on_a_node(|node| {
        let keys = json!({"ipMasq": true, "macspoofchk": true});
        let of_cbr0 = conf(&node, &keys);
        let mut of_other = conf(&node, &keys);
        of_other["name"] = json!("other");
        of_other["bridge"] = json!("cni1");
        of_other["ipam"]["ranges"] = json!([[{"subnet": "10.245.7.0/24"}]]);
        let (a, b, c) = (Pod::new("a-1"), Pod::new("b"), Pod::new("c"));
        node.call("ADD", &a, &of_cbr0).succeeds();
        node.call("ADD", &b, &of_cbr0).succeeds();
        node.call("ADD", &c, &of_other).succeeds();
        let mut gc = conf(&node, &json!({}));
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "b", "ifname": "eth0"}]);

        node.call("GC", &a, &gc).succeeds();

        let text = left();
        for (gone, word) in [
            (true, "a-1-eth0"),
            (true, "id: a-1"),
            (false, "b-eth0"),
            (false, "id: b"),
        ] {
            assert_eq!(!text.contains(word), gone, "{word}: {text}");
        }
        assert!(
            text.contains("cni-br-iface-c-eth0") && text.contains("id: c"),
            "{text}"
        );
    });
}

#[test]
fn a_pod_with_a_forged_hardware_address_is_cut_off() {
    on_a_node(|node| {
        let forge = "ip link set eth0 address 0a:00:00:00:00:66";
        let unguarded = Pod::new("a");
        node.call("ADD", &unguarded, &conf(&node, &json!({}))).succeeds();
        unguarded.sh(forge);
        assert!(
            unguarded.reaches("10.244.7.1"),
            "only the rules stop a forged address"
        );

        let pod = Pod::new("b");
        let conf = conf(&node, &json!({"macspoofchk": true}));
        let added = node.call("ADD", &pod, &conf).succeeds();
        assert!(pod.reaches("10.244.7.1") && pod.reaches("fd00:10:244:7::1"));
        pod.sh(forge);
        assert!(!pod.reaches("10.244.7.1") && !pod.reaches("fd00:10:244:7::1"));
        let own = added["interfaces"][2]["mac"].as_str().unwrap();
        pod.sh(&format!("ip link set eth0 address {own}"));
        assert!(pod.reaches("10.244.7.1"));

        let mut checked = conf.clone();
        checked["prevResult"] = added;
        node.call("CHECK", &pod, &checked).succeeds();
        sh(Path::new("/"), "nft flush chain bridge nat cni-br-iface-b-eth0");
        assert_eq!(node.call("CHECK", &pod, &checked).fails()["code"], 103);
        node.call("DEL", &pod, &conf).succeeds();
        assert_eq!(left(), "");
    });
}

#[test]
fn what_the_reference_guards_we_release_and_the_other_way_round() {
    on_a_node(|node| {
        let pod = Pod::new("a3");
        let mut conf = conf(
            &node,
            &json!({"macspoofchk": true, "ipMasq": true, "ipMasqBackend": "iptables"}),
        );
        conf["cniVersion"] = json!("1.0.0");
        // The reference runs programs.
        let reference = |verb: &str, result: &Value| {
            let mut call = node
                .call(verb, &pod, &conf)
                .var("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
            call.conf["prevResult"] = result.clone();
            call.exec(Path::new(REFERENCE))
        };
        reference("ADD", &Value::Null);
        let made = iptables_rules();
        assert!(left().contains("cni-br-iface-a3-eth0-mac") && made.contains("MASQUERADE"));
        // As the runtimes do that know no result any more.
        node.call("DEL", &pod, &conf).var("CNI_NETNS", "").succeeds();
        assert_eq!(left(), "");
        pod.sh("ip link del eth0");

        let result = node.call("ADD", &pod, &conf).succeeds();
        let address = |text: &str| text.replace("10.244.7.3", "10.244.7.2").replace("7::3", "7::2");
        assert_eq!(address(&iptables_rules()), made);
        reference("DEL", &result);
        assert_eq!(left(), "");
    });
}

#[test]
fn iptables_masquerades_where_it_is_asked_to_and_whoever_has_rules_loses_them() {
    on_a_node(|node| {
        let outside = outside();
        let pod = Pod::new("a");
        let by_iptables = conf(&node, &json!({"ipMasq": true, "ipMasqBackend": "iptables"}));
        let by_nftables = conf(&node, &json!({"ipMasq": true}));
        let mut added = node.call("ADD", &pod, &by_iptables);
        added.conf["prevResult"] = added.succeeds();
        assert_eq!(
            seen_outside(&pod, &outside, "192.168.9.2:7000").to_string(),
            "192.168.9.1"
        );
        assert_eq!(
            seen_outside(&pod, &outside, "[fd00:9::2]:7000").to_string(),
            "fd00:9::1"
        );
        assert!(!rules().contains("cni_plugins_masquerade"));
        added.vars.insert("CNI_COMMAND".to_owned(), "CHECK".to_owned());
        added.succeeds();
        sh(Path::new("/"), "iptables -t nat -D POSTROUTING 1");
        let error = added.fails();
        assert_eq!(error["code"], 103);
        assert!(
            error["msg"]
                .as_str()
                .unwrap()
                .contains("-A POSTROUTING -s 10.244.7.2/32"),
            "{error}"
        );
        // The configuration changed in between.
        node.call("DEL", &pod, &by_nftables).succeeds();
        assert_eq!(left(), "");
        node.call("ADD", &pod, &by_nftables).succeeds();
        node.call("DEL", &pod, &by_iptables).succeeds();
        assert_eq!(left(), "");
    });
}

#[test]
fn two_interfaces_of_a_container_share_a_chain_of_iptables_until_the_last_one_goes() {
    on_a_node(|node| {
        let (pod, other) = (Pod::new("a"), Pod::new("b"));
        let conf = conf(&node, &json!({"ipMasq": true, "ipMasqBackend": "iptables"}));
        let call = |verb: &str, ifname: &str| node.call(verb, &pod, &conf).var("CNI_IFNAME", ifname);
        call("ADD", "eth0").succeeds();
        call("ADD", "eth1").succeeds();
        node.call("ADD", &other, &conf).succeeds();
        call("DEL", "eth0").succeeds();
        assert!(left().contains("id: \\\"a\\\""), "{}", left());
        // GC knows by the comments whose rules are whose.
        let mut gc = conf.clone();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "a", "ifname": "eth1"}]);
        node.call("GC", &pod, &gc).succeeds();
        assert!(
            left().contains("id: \\\"a\\\"") && !left().contains("id: \\\"b\\\""),
            "{}",
            left()
        );
        call("DEL", "eth1").succeeds();
        assert_eq!(left(), "");
    });
}

#[test]
fn a_refused_rule_takes_the_whole_add_back() {
    on_a_node(|node| {
        // Whoever has a chain of this name that is hooked otherwise stands in the way.
        sh(
            Path::new("/"),
            "nft add table bridge nat
             nft 'add chain bridge nat PREROUTING { type filter hook prerouting priority 7; }'",
        );
        let before = rules();
        let pod = Pod::new("a");
        let error = node
            .call(
                "ADD",
                &pod,
                &conf(&node, &json!({"ipMasq": true, "macspoofchk": true})),
            )
            .fails();
        assert_eq!(error["code"], 100, "{error}");
        assert_eq!(rules(), before);
        node.assert_nothing_left(&[]);
        let unknown = conf(&node, &json!({"ipMasq": true, "ipMasqBackend": "ipfw"}));
        assert_eq!(node.call("ADD", &pod, &unknown).fails()["code"], 7);
    });
}

#[test]
fn twenty_pods_at_once_have_their_own_rules() {
    on_a_node(|node| {
        let conf = conf(&node, &json!({"ipMasq": true, "macspoofchk": true}));
        let pods: Vec<_> = (0..20).map(|number| Pod::new(&format!("pod{number}"))).collect();
        for verb in ["ADD", "DEL"] {
            scope(|scope| {
                for pod in &pods {
                    let call = node.call(verb, pod, &conf);
                    scope.spawn(move || call.succeeds());
                }
            });
            let text = left();
            let count = |word: &str| text.lines().filter(|line| line.contains(word)).count();
            let expected = if verb == "ADD" { (40, 20) } else { (0, 0) };
            assert_eq!((count("masquerade"), count("drop comment")), expected, "{text}");
        }
        node.assert_nothing_left(&["cni0"]);
    });
}
