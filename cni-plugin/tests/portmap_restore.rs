//! Rules of mapped ports that something took away come back from what is stored, wherever they were.
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

use std::process::Command;

use common::{BINARY, Node, Pod, on_a_node, printed, sh};
use ports::{
    NODE_V4, NODE_V6, Server, call, client, containers_rules, iptables_rules, is_refused, mapping, tcp,
};
use serde_json::Value;

/// Each variant of iptables in each family.
const VARIANTS: [&str; 4] = [
    "iptables-nft",
    "ip6tables-nft",
    "iptables-legacy",
    "ip6tables-legacy",
];

/// Whose rules the node has already, and how its rules are taken away.
struct Case {
    backend: &'static str,
    before: &'static str,
    flush: &'static str,
}

/// An administrator who uses legacy iptables.
const LEGACY: &str = "for i in iptables-legacy ip6tables-legacy; do $i -A FORWARD -j ACCEPT; done";

const CASES: [Case; 11] = [
    nftables("nft flush ruleset"),
    nftables("nft delete table ip cni_hostport; nft delete table ip6 cni_hostport"),
    nftables("nft delete table ip6 cni_hostport"),
    nftables("nft flush chain ip cni_hostport hostports"),
    iptables("nft flush ruleset"),
    iptables("for i in iptables-nft ip6tables-nft; do $i -t nat -F; $i -t nat -X; done"),
    iptables("iptables-nft -t nat -F PREROUTING; ip6tables-nft -t nat -F CNI-HOSTPORT-DNAT"),
    legacy("for i in iptables-legacy ip6tables-legacy; do $i -t nat -F; done"),
    legacy("for i in iptables-legacy ip6tables-legacy; do $i -t nat -F; $i -t nat -X; done"),
    legacy("ip6tables-legacy -t nat -F; ip6tables-legacy -t nat -X"),
    legacy("for i in iptables ip6tables; do printf '*nat\\nCOMMIT\\n' | $i-legacy-restore; done"),
];

const fn nftables(flush: &'static str) -> Case {
    Case {
        backend: "nftables",
        before: "",
        flush,
    }
}

const fn iptables(flush: &'static str) -> Case {
    Case {
        backend: "iptables",
        before: "",
        flush,
    }
}

const fn legacy(flush: &'static str) -> Case {
    Case {
        backend: "iptables",
        before: LEGACY,
        flush,
    }
}

/// The containers' rules, each with where it is; in nftables the later of two containers comes first.
fn rules() -> Vec<String> {
    let mut rules = containers_rules();
    for variant in VARIANTS {
        let of_variant = iptables_rules(variant).into_iter();
        rules.extend(of_variant.map(|rule| format!("{variant}: {rule}")));
    }
    rules.sort();
    rules
}

fn map(node: &Node, pod: &Pod, result: &Value, backend: &str, port: u16) -> Value {
    let mappings = [mapping(port, 80, "tcp"), mapping(port, 53, "udp")];
    let mut conf = node.ports_conf(result, &mappings);
    conf["backend"] = backend.into();
    call(node, "ADD", pod, &conf).succeeds();
    conf
}

fn restored(node: &Node) -> usize {
    cni_plugin::restore_all(Some(&node.path("portmap"))).unwrap()
}

#[test]
fn flushed_rules_are_put_back_where_they_were() {
    for case in CASES {
        on_a_node(move |node| {
            sh(node.dir.path(), case.before);
            let client = client();
            let pods = ["a", "b"].map(|id| node.attached(id));
            let _servers = pods.each_ref().map(|(pod, _)| Server::tcp(pod, 80));
            let ports = [8080, 8081];
            let confs: Vec<_> = ports
                .iter()
                .zip(&pods)
                .map(|(port, (pod, result))| map(&node, pod, result, case.backend, *port))
                .collect();
            let before = rules();
            let is_in = |variant: &str| before.iter().any(|rule| rule.starts_with(variant));
            let is_legacy = !case.before.is_empty();
            assert_eq!(
                (is_in("ip6tables-legacy"), is_in("ip6tables-nft")),
                (is_legacy, case.backend == "iptables" && !is_legacy)
            );
            assert_eq!(restored(&node), 0, "nothing is missing");

            sh(node.dir.path(), case.flush);
            assert_ne!(rules(), before, "{}", case.flush);
            let is_gone = |to| is_refused(&client.netns, to, 8080);
            assert!(is_gone(NODE_V4) || is_gone(NODE_V6), "{}", case.flush);

            let count = restored(&node);
            assert!((1..=2).contains(&count), "{}: {count}", case.flush);
            assert_eq!(rules(), before, "{}", case.flush);
            for port in ports {
                tcp(&client.netns, NODE_V4, port);
                tcp(&client.netns, NODE_V6, port);
            }
            assert_eq!((restored(&node), rules()), (0, before), "nothing is missing");
            for ((pod, _), conf) in pods.iter().zip(&confs) {
                call(&node, "CHECK", pod, conf).succeeds();
                call(&node, "DEL", pod, conf).succeeds();
            }
            assert_eq!(containers_rules(), Vec::<String>::new());
        });
    }
}

#[test]
fn rules_stay_in_their_variant_of_iptables_when_others_come_to_use_the_other() {
    on_a_node(|node| {
        sh(node.dir.path(), LEGACY);
        let (pod, result) = node.attached("a");
        let conf = map(&node, &pod, &result, "iptables", 8080);
        let before = rules();
        sh(
            node.dir.path(),
            "for i in iptables-nft ip6tables-nft; do $i -A FORWARD -j ACCEPT; done",
        );
        assert_eq!((restored(&node), rules()), (0, before.clone()));
        call(&node, "CHECK", &pod, &conf).succeeds();
        // A chain that is empty is still one.
        sh(
            node.dir.path(),
            "for i in iptables-legacy ip6tables-legacy; do $i -t nat -F; done",
        );
        assert_eq!((restored(&node), rules()), (1, before));
        let conf = map(&node, &pod, &result, "iptables", 8081);
        assert_eq!(
            [iptables_rules("iptables-nft"), iptables_rules("ip6tables-nft")],
            [Vec::<String>::new(), Vec::new()]
        );
        call(&node, "CHECK", &pod, &conf).succeeds();
        // Where nothing tells the variant any more, it is the administrator's choice.
        sh(
            node.dir.path(),
            "for i in iptables-legacy ip6tables-legacy; do $i -t nat -F; $i -t nat -X; done",
        );
        assert_eq!(restored(&node), 1);
        call(&node, "CHECK", &pod, &conf).succeeds();
        call(&node, "DEL", &pod, &conf).succeeds();
        assert_eq!(containers_rules(), Vec::<String>::new());
    });
}

#[test]
fn a_person_restores_by_the_program_and_a_missing_directory_is_named() {
    on_a_node(|node| {
        let client = client();
        let (pod, result) = node.attached("a");
        let _server = Server::tcp(&pod, 80);
        map(&node, &pod, &result, "nftables", 8080);
        sh(node.dir.path(), "nft flush ruleset");
        let dir = node.path("portmap");
        let missing = cni_plugin::restore_all(Some(&dir.join("missing"))).unwrap_err();
        assert!(
            missing.to_string().contains("missing is no directory"),
            "{missing}"
        );
        let said = printed(Command::new(BINARY).args(["portmap", "restore"]).arg(&dir));
        assert!(said.ends_with(" 1 container\n"), "{said}");
        tcp(&client.netns, NODE_V4, 8080);
    });
}
