//! portmap beside others: the reference's plugin, calls that are killed or run at the same time, rules of strangers.
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

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::Duration;

use common::{BINARY, Node, Pod, on_a_node, sh};
use ports::{
    NODE_V4, Server, call, client, containers_rules, iptables_rules, is_refused, mapping, reference, ruleset,
    tcp,
};
use serde_json::{Value, json};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

/// The binary under its plugin's name.
fn ours(node: &Node) -> PathBuf {
    let path = node.path("portmap-plugin/portmap");
    if !path.exists() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        symlink(BINARY, &path).unwrap();
    }
    path
}

fn conf(node: &Node, result: &Value, backend: &str, mappings: &[Value]) -> Value {
    let mut conf = node.ports_conf(result, mappings);
    conf["backend"] = backend.into();
    conf
}

/// With the programs that the reference and the iptables back end run.
fn with_path(call: common::Call) -> common::Call {
    call.var("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
}

#[test]
fn the_rules_in_iptables_are_those_that_the_reference_makes() {
    on_a_node(|node| {
        let (pod, result) = node.attached("a2");
        let mut mappings = vec![
            mapping(8080, 80, "tcp"),
            mapping(8053, 53, "udp"),
            mapping(8090, 90, "sctp"),
        ];
        let mut host_ip = mapping(8081, 81, "tcp");
        host_ip["hostIP"] = NODE_V4.into();
        mappings.push(host_ip);
        let conf = conf(&node, &result, "iptables", &mappings);
        let mut made = Vec::new();
        for program in [reference(), ours(&node)] {
            with_path(call(&node, "ADD", &pod, &conf)).exec(&program);
            let mut rules = ["iptables", "ip6tables"].map(iptables_rules);
            for rules in &mut rules {
                // The reference's order depends on which rules were there.
                rules.sort();
            }
            made.push(rules);
            with_path(call(&node, "DEL", &pod, &conf)).exec(&program);
            assert_eq!(containers_rules(), Vec::<String>::new());
            sh(
                node.dir.path(),
                "iptables -t nat -F; iptables -t nat -X; ip6tables -t nat -F; ip6tables -t nat -X",
            );
        }
        // The reference also leads the port of the other family's address to a chain that has no rule for it.
        let [reference, ours] = made.try_into().unwrap();
        assert_eq!(ours[0], reference[0]);
        let without_port = |rule: &String| rule.replace("8080,8081", "8080");
        assert_eq!(ours[1], reference[1].iter().map(without_port).collect::<Vec<_>>());
    });
}

#[test]
fn pods_mapped_by_one_are_unmapped_by_the_other() {
    on_a_node(|node| {
        let client = client();
        let (pod, result) = node.attached("a");
        let _server = Server::tcp(&pod, 80);
        let conf = conf(
            &node,
            &result,
            "iptables",
            &[mapping(8080, 80, "tcp"), mapping(8053, 53, "udp")],
        );
        let mut bare = conf.clone();
        bare.as_object_mut().unwrap().remove("runtimeConfig");
        let mut of_any = conf.clone();
        of_any.as_object_mut().unwrap().remove("backend");
        for (adds, dels, del_conf) in [
            (reference(), ours(&node), &conf),
            (reference(), ours(&node), &bare),
            (ours(&node), reference(), &conf),
        ] {
            with_path(call(&node, "ADD", &pod, &conf)).exec(&adds);
            tcp(&client.netns, NODE_V4, 8080);
            // The reference's own CHECK (1.1.1) looks for IPv4's rules in IPv6.
            for conf in [&conf, &of_any] {
                call(&node, "CHECK", &pod, conf).succeeds();
            }
            with_path(call(&node, "DEL", &pod, del_conf)).exec(&dels);
            assert_eq!(call(&node, "CHECK", &pod, &of_any).fails()["code"], 103);
            assert!(is_refused(&client.netns, NODE_V4, 8080));
            assert_eq!(containers_rules(), Vec::<String>::new());
        }
        // What the reference cannot know of is forgotten by our own.
        with_path(call(&node, "DEL", &pod, &conf)).exec(&ours(&node));
        assert_eq!(node.stored_ports(), Vec::<String>::new());
    });
}

#[test]
fn gc_removes_what_the_reference_left() {
    on_a_node(|node| {
        let (pod, result) = node.attached("stale");
        let conf = conf(&node, &result, "iptables", &[mapping(8080, 80, "tcp")]);
        with_path(call(&node, "ADD", &pod, &conf)).exec(&reference());
        assert_ne!(containers_rules(), Vec::<String>::new());
        let mut gc = conf;
        gc["cniVersion"] = "1.1.0".into();
        gc["cni.dev/valid-attachments"] = json!([{"containerID": "stale", "ifname": "eth0"}]);
        call(&node, "GC", &pod, &gc).succeeds();
        assert_ne!(containers_rules(), Vec::<String>::new());
        gc["cni.dev/valid-attachments"] = json!([]);
        gc["backend"] = "nftables".into();
        call(&node, "GC", &pod, &gc).succeeds();
        assert_eq!(containers_rules(), Vec::<String>::new());
    });
}

#[test]
fn rules_of_legacy_iptables_are_removed_as_well() {
    on_a_node(|node| {
        let (pod, result) = node.attached("a");
        let conf = conf(&node, &result, "iptables", &[mapping(8080, 80, "tcp")]);
        let bin = node.path("legacy");
        fs::create_dir(&bin).unwrap();
        for name in ["iptables", "ip6tables"] {
            for suffix in ["", "-save", "-restore"] {
                symlink(
                    format!("/usr/sbin/{name}-legacy{suffix}"),
                    bin.join(format!("{name}{suffix}")),
                )
                .unwrap();
            }
        }
        let path = format!("{}:/usr/bin:/bin", bin.display());
        call(&node, "ADD", &pod, &conf)
            .var("PATH", &path)
            .exec(&reference());
        assert!(iptables_rules("iptables-legacy").join(" ").contains("CNI-DN-"));
        call(&node, "DEL", &pod, &conf).succeeds();
        assert_eq!(containers_rules(), Vec::<String>::new());
    });
}

#[test]
fn nothing_is_left_of_a_call_that_was_killed() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let (pod, result) = node.attached("a");
            let conf = conf(
                &node,
                &result,
                backend,
                &[mapping(8080, 80, "tcp"), mapping(8053, 53, "udp")],
            );
            let program = ours(&node);
            // An ADD and a DEL in iptables run programs for some tens of milliseconds, in nftables one is done in two.
            let step = if backend == "iptables" { 3000 } else { 150 };
            for verb in ["ADD", "DEL"] {
                for i in 0..15 {
                    if verb == "DEL" {
                        call(&node, "ADD", &pod, &conf).succeeds();
                    }
                    let mut child = with_path(call(&node, verb, &pod, &conf)).spawn(&program);
                    sleep(Duration::from_micros(step * i));
                    child.kill().unwrap();
                    child.wait().unwrap();
                    call(&node, "DEL", &pod, &conf).succeeds();
                    assert_eq!(containers_rules(), Vec::<String>::new(), "{backend} {verb} {i}");
                    assert_eq!(node.stored_ports(), Vec::<String>::new(), "{backend} {verb} {i}");
                }
            }
        });
    }
}

#[test]
fn twenty_calls_at_once_neither_fail_nor_leak() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let (first, result) = node.attached("a0");
            let program = ours(&node);
            let pods: Vec<_> = (0..20_u16).map(|i| Pod::new(&format!("a{i}"))).collect();
            let confs: Vec<_> = (0..20_u16)
                .map(|i| {
                    conf(
                        &node,
                        &result,
                        backend,
                        &[mapping(9000 + i, 80, "tcp"), mapping(9000 + i, 53, "udp")],
                    )
                })
                .collect();
            for verb in ["ADD", "ADD", "DEL", "DEL"] {
                let calls = pods
                    .iter()
                    .zip(&confs)
                    .map(|(pod, conf)| with_path(call(&node, verb, pod, conf)));
                let children: Vec<_> = calls.map(|call| call.spawn(&program)).collect();
                for child in children {
                    let output = child.wait_with_output().unwrap();
                    assert!(output.status.success(), "{backend} {verb}: {output:?}");
                }
                if verb == "ADD" {
                    let rules = containers_rules().join("\n");
                    for i in 0..20 {
                        assert!(rules.contains(&format!("{}", 9000 + i)), "{backend} {i}: {rules}");
                    }
                    assert_eq!(node.stored_ports().len(), 20);
                }
            }
            assert_eq!(containers_rules(), Vec::<String>::new());
            assert_eq!(node.stored_ports(), Vec::<String>::new());
            drop(first);
        });
    }
}

#[test]
fn rules_of_strangers_stay() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let strangers =
                "table ip strangers {\n\tchain c {\n\t\tip saddr 10.0.0.1 accept comment \"a\"\n\t}\n}\n";
            fs::write(node.path("strangers"), strangers).unwrap();
            sh(
                node.dir.path(),
                "nft -f strangers; iptables -t nat -N STRANGER; iptables -t nat -A PREROUTING -j STRANGER",
            );
            let before = (ruleset(), iptables_rules("iptables"));
            let (pod, result) = node.attached("a");
            let conf = conf(&node, &result, backend, &[mapping(8080, 80, "tcp")]);
            call(&node, "ADD", &pod, &conf).succeeds();
            call(&node, "DEL", &pod, &conf).succeeds();
            assert!(ruleset().contains(strangers));
            let rules = iptables_rules("iptables");
            assert!(before.1.iter().all(|rule| rules.contains(rule)), "{rules:?}");
        });
    }
}

#[test]
fn nft_prints_the_rules_as_the_references_but_for_what_is_argued() {
    on_a_node(|node| {
        let (pod, result) = node.attached("icee6giejonei6so");
        let mut host_ip = mapping(8083, 83, "tcp");
        host_ip["hostIP"] = "192.168.0.2".into();
        let conf = conf(
            &node,
            &result,
            "nftables",
            &[mapping(8080, 80, "tcp"), mapping(8082, 82, "udp"), host_ip],
        );
        call(&node, "ADD", &pod, &conf).succeeds();
        let golden = include_str!("golden/portmap-nftables.txt");
        let printed = ruleset();
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(
                concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/portmap-nftables.txt"),
                &printed,
            )
            .unwrap();
        }
        assert_eq!(printed, golden);
    });
}
