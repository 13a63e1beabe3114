//! A chain of every plugin, told to detach by less than it was told to attach by: a pod that renames its interface, a
//! network that is renamed, a GC. What the ADD made is found by what is stored and by names and notes in the kernel.
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

use common::{Node, Pod, ip, names_in, on_a_node, sh};
use serde_json::{Value, json};

/// The list of plugins, with firewall and portmap in a back end.
fn chain(node: &Node, backend: &str) -> [Value; 5] {
    let limits = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000,
        "egressRate": 8_000_000, "egressBurst": 800_000});
    let ports = json!([{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}]);
    let of = |name: &str, keys: Value| {
        let mut conf =
            json!({"cniVersion": "1.0.0", "name": "cbr0", "type": name, "dataDir": node.path(name)});
        conf.as_object_mut()
            .unwrap()
            .extend(keys.as_object().unwrap().clone());
        conf
    };
    [
        node.conf("1.0.0"),
        of(
            "portmap",
            json!({"backend": backend, "runtimeConfig": {"portMappings": ports}}),
        ),
        of("bandwidth", json!({"runtimeConfig": {"bandwidth": limits}})),
        of("tuning", json!({"mtu": 1400})),
        of(
            "firewall",
            json!({"backend": backend, "ingressPolicy": "same-bridge"}),
        ),
    ]
}

/// Attaches a pod, and returns the last result.
fn add(node: &Node, pod: &Pod, chain: &[Value]) -> Value {
    let mut result = Value::Null;
    for plugin in chain {
        let mut call = node.call("ADD", pod, plugin);
        call.conf["prevResult"] = result;
        result = call.succeeds();
    }
    result
}

/// Detaches as a runtime does that has lost the result and what it asked for, from the last plugin to the first.
fn del(node: &Node, pod: &Pod, chain: &[Value], network: &str, netns: Netns) {
    for plugin in chain.iter().rev() {
        let mut call = node.call("DEL", pod, plugin);
        call.conf["name"] = network.into();
        call.conf.as_object_mut().unwrap().remove("runtimeConfig");
        if netns == Netns::Lost {
            call.vars.remove("CNI_NETNS");
        }
        call.succeeds();
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Netns {
    Given,
    Lost,
}

/// Everything that names a pod or an address of one, and the files of the plugins.
fn left(node: &Node) -> Vec<String> {
    let rules = sh(
        Path::new("/"),
        "nft list ruleset; iptables-save; ip6tables-save; iptables-legacy-save",
    );
    let named = |line: &&str| {
        ["10.244.7.", "CNI-DN-", "cni0"]
            .iter()
            .any(|word| line.contains(word))
    };
    let mut found: Vec<_> = rules
        .lines()
        .filter(named)
        .map(|line| line.trim().to_owned())
        .collect();
    found.extend(node.links());
    found.extend(node.leases().into_keys());
    for dir in ["flannel", "portmap", "tuning", "firewall"] {
        let files = names_in(&node.path(dir)).into_iter();
        found.extend(
            files
                .filter(|name| name != "lock")
                .map(|name| format!("{dir}/{name}")),
        );
    }
    found.sort();
    found
}

/// A node whose chain attached a pod that stays.
struct Stage {
    node: Node,
    backend: &'static str,
    chain: [Value; 5],
    kept: Pod,
    /// What the chain answered for it.
    result: Value,
    /// What it has on the node.
    before: Vec<String>,
}

fn with_each_backend(test: fn(&Stage)) {
    for backend in ["nftables", "iptables"] {
        on_a_node(move |node| {
            let chain = chain(&node, backend);
            let kept = Pod::new("kept");
            let result = add(&node, &kept, &chain);
            let before = left(&node);
            test(&Stage {
                node,
                backend,
                chain,
                kept,
                result,
                before,
            });
        });
    }
}

#[test]
fn a_pod_that_renamed_its_interface_leaves_nothing() {
    with_each_backend(|stage| {
        let Stage {
            node,
            backend,
            chain,
            kept,
            before,
            ..
        } = stage;
        for netns in [Netns::Given, Netns::Lost] {
            let pod = Pod::new("a");
            add(node, &pod, chain);
            assert_ne!(left(node), *before);
            pod.sh("ip link set eth0 down; ip link set eth0 name own0; ip link set own0 up");
            del(node, &pod, chain, "cbr0", netns);
            assert!(!pod.sh("ip link").contains("own0"));
            assert_eq!(left(node), *before, "{backend}");
            del(node, &pod, chain, "cbr0", netns);
        }
        assert!(kept.reaches("10.244.7.1"));
        assert!(ip(&["link"]).contains("bwp"));
    });
}

#[test]
fn a_network_that_was_renamed_leaves_nothing() {
    with_each_backend(|stage| {
        let Stage {
            node,
            backend,
            chain,
            kept,
            before,
            ..
        } = stage;
        for netns in [Netns::Given, Netns::Lost] {
            let pod = Pod::new("a");
            add(node, &pod, chain);
            // Another interface's DEL takes nothing.
            let whole = left(node);
            let stranger = Pod::new("b");
            del(node, &stranger, chain, "renamed", netns);
            assert_eq!(left(node), whole, "{backend}");
            for _ in 0..2 {
                del(node, &pod, chain, "renamed", netns);
                assert_eq!(left(node), *before, "{backend}");
            }
            assert!(!pod.sh("ip link").contains("eth0"));
        }
        assert!(kept.reaches("10.244.7.1"));
        del(node, kept, chain, "renamed", Netns::Given);
        assert!(!ip(&["link"]).contains("bwp"));
    });
}

#[test]
fn gc_removes_everything_of_a_pod_that_is_not_valid_and_nothing_of_another() {
    with_each_backend(|stage| {
        let Stage {
            node,
            backend,
            chain,
            kept,
            result,
            before,
        } = stage;
        let (mut lost, forgotten) = (Pod::new("lost"), Pod::new("forgotten"));
        // One container is still there, the other has ended: nobody told the plugins of either.
        for pod in [&lost, &forgotten] {
            add(node, pod, chain);
        }
        lost.end();
        let call = |verb: &str, plugin: &Value| {
            let mut call = node.call(verb, kept, plugin);
            call.conf["cniVersion"] = "1.1.0".into();
            call.conf["cni.dev/valid-attachments"] = json!([{"containerID": "kept", "ifname": "eth0"}]);
            call
        };
        for _ in 0..2 {
            for plugin in chain {
                call("GC", plugin).succeeds();
            }
            assert_eq!(left(node), *before, "{backend}");
        }
        assert!(!forgotten.sh("ip link").contains("eth0"));
        assert!(kept.reaches("10.244.7.1"));
        for plugin in chain {
            let mut check = call("CHECK", plugin);
            check.conf["prevResult"] = result.clone();
            check.succeeds();
            call("STATUS", plugin).succeeds();
        }
    });
}
