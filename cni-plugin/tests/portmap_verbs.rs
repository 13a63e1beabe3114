//! portmap's verbs: what each makes, accepts, refuses, finds and removes, with both back ends.
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
use std::process::Command;

use common::{Node, Pod, on_a_node, printed, sh};
use nix::sched::{CloneFlags, unshare};
use ports::{
    NODE_V4, Server, call, client, containers_rules, iptables_rules, is_refused, mapping, ruleset, tcp,
};
use serde_json::{Value, json};

const BACKENDS: [&str; 2] = ["nftables", "iptables"];

fn added(node: &Node, id: &str, backend: &str, mappings: &[Value]) -> (Pod, Value) {
    let (pod, result) = node.attached(id);
    let mut conf = node.ports_conf(&result, mappings);
    conf["backend"] = backend.into();
    call(node, "ADD", &pod, &conf).succeeds();
    (pod, conf)
}

fn assert_nothing_left(node: &Node) {
    assert_eq!(containers_rules(), Vec::<String>::new());
    assert_eq!(node.stored_ports(), Vec::<String>::new());
}

/// Chain and number of each rule in nftables of IPv4.
fn numbered_rules() -> Vec<(String, String)> {
    let text = printed(Command::new("nft").args(["-a", "list", "table", "ip", "cni_hostport"]));
    let mut chain = String::new();
    let mut rules = Vec::new();
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix("chain ") {
            chain = name.split(' ').next().unwrap().to_owned();
        } else if let Some((_, handle)) = line
            .rsplit_once("# handle ")
            .filter(|_| !line.starts_with("table"))
        {
            rules.push((chain.clone(), handle.to_owned()));
        }
    }
    rules
}

#[test]
fn without_mappings_the_result_passes_through_and_nothing_is_made() {
    on_a_node(|node| {
        let (pod, mut result) = node.attached("a");
        result["interfaces"][0]["strangers"] = json!({"kept": [1, 2]});
        for mappings in [json!([]), Value::Null] {
            let mut conf = node.ports_conf(&result, &[]);
            conf["runtimeConfig"]["portMappings"] = mappings;
            for verb in ["ADD", "CHECK", "DEL"] {
                let answer = call(&node, verb, &pod, &conf).succeeds();
                assert_eq!(
                    answer,
                    if verb == "ADD" {
                        result.clone()
                    } else {
                        Value::Null
                    }
                );
            }
            conf.as_object_mut().unwrap().remove("runtimeConfig");
            assert_eq!(call(&node, "ADD", &pod, &conf).succeeds(), result);
        }
        assert_eq!(ruleset(), "");
        assert!(!node.path("portmap").exists());

        // It does not even ask the kernel.
        let conf = node.ports_conf(&result, &[]);
        let traced = node.path("strace");
        let script = format!(
            "ln -s {} portmap; exec strace -f -e trace=%network,execve -o {} ./portmap",
            common::BINARY,
            traced.display()
        );
        fs::write(node.path("run.sh"), script).unwrap();
        let mut call = call(&node, "ADD", &pod, &conf).var("PATH", "/usr/bin:/bin");
        call.conf = conf;
        let mut command = Command::new("sh");
        command
            .current_dir(node.dir.path())
            .args(["-e", "run.sh"])
            .env_clear()
            .envs(&call.vars);
        fs::write(node.path("stdin"), call.conf.to_string()).unwrap();
        command.stdin(fs::File::open(node.path("stdin")).unwrap());
        assert_eq!(
            serde_json::from_str::<Value>(&printed(&mut command)).unwrap(),
            result
        );
        let traced = fs::read_to_string(traced).unwrap();
        assert!(
            !traced.contains("socket(") && traced.matches("execve(").count() == 1,
            "{traced}"
        );
    });
}

#[test]
fn add_and_check_need_a_result_and_the_others_do_not() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let mut conf = node.ports_conf(&Value::Null, &[mapping(8080, 80, "tcp")]);
        conf["cniVersion"] = "1.1.0".into();
        for verb in ["ADD", "CHECK"] {
            let error = call(&node, verb, &pod, &conf).fails();
            assert_eq!(error["code"], 7, "{error}");
            assert!(error["msg"].as_str().unwrap().contains("prevResult"), "{error}");
        }
        call(&node, "DEL", &pod, &conf).succeeds();
        conf["cni.dev/valid-attachments"] = json!([]);
        call(&node, "GC", &pod, &conf).succeeds();
        call(&node, "STATUS", &pod, &conf).succeeds();
        conf["prevResult"] = json!({"ips": "many"});
        assert_eq!(call(&node, "ADD", &pod, &conf).fails()["code"], 6);
    });
}

#[test]
fn bad_input_changes_nothing() {
    on_a_node(|node| {
        let (pod, result) = node.attached("a");
        for (change, code) in [
            (
                json!({"runtimeConfig": {"portMappings": [mapping(8080, 80, "tcp"), mapping(0, 80, "tcp")]}}),
                7,
            ),
            (
                json!({"runtimeConfig": {"portMappings": [{"hostPort": 65536, "containerPort": 80, "protocol": "tcp"}]}}),
                7,
            ),
            (
                json!({"runtimeConfig": {"portMappings": [mapping(8080, 80, "icmp")]}}),
                7,
            ),
            (json!({"runtimeConfig": {"portMappings": "8080"}}), 6),
            (json!({"conditionsV4": ["ip saddr 10.0.0.0/33"]}), 7),
            (json!({"conditionsV4": ["ip saddr 10.0.0.1 drop"]}), 7),
            (
                json!({"backend": "iptables", "conditionsV4": ["--no-such-option"]}),
                100,
            ),
            (
                json!({"backend": "iptables", "externalSetMarkChain": "NOWHERE"}),
                100,
            ),
            (json!({"markMasqBit": 32}), 7),
            (json!({"dataDir": "../x"}), 7),
        ] {
            let mut conf = node.ports_conf(&result, &[mapping(8080, 80, "tcp")]);
            for (key, value) in change.as_object().unwrap() {
                conf[key] = value.clone();
            }
            let error = call(&node, "ADD", &pod, &conf).fails();
            assert_eq!(error["code"], code, "{change}: {error}");
            assert_nothing_left(&node);
        }
        // A DEL is not stopped by what an ADD would refuse.
        let mut conf = node.ports_conf(&json!(5), &[mapping(0, 80, "tcp")]);
        conf["backend"] = "ipfw".into();
        call(&node, "DEL", &pod, &conf).succeeds();
    });
}

#[test]
fn del_needs_neither_result_nor_namespace_nor_mappings_and_can_be_repeated() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            for variant in [
                "all",
                "no result",
                "bad result",
                "no mappings",
                "no netns",
                "netns gone",
                "other backend",
            ] {
                let mappings = [mapping(8080, 80, "tcp"), mapping(8053, 53, "udp")];
                let (pod, mut conf) = added(&node, "a", backend, &mappings);
                assert_eq!(node.stored_ports().len(), 1);
                assert_ne!(containers_rules(), Vec::<String>::new());
                let map = conf.as_object_mut().unwrap();
                match variant {
                    "no result" => drop(map.remove("prevResult")),
                    "bad result" => drop(map.insert("prevResult".into(), json!({"cniVersion": 7}))),
                    "no mappings" => drop(map.remove("runtimeConfig")),
                    "other backend" => {
                        let other = if backend == "iptables" {
                            "nftables"
                        } else {
                            "iptables"
                        };
                        map.insert("backend".into(), other.into());
                    }
                    _ => {}
                }
                let mut del = call(&node, "DEL", &pod, &conf);
                match variant {
                    "no netns" => drop(del.vars.remove("CNI_NETNS")),
                    "netns gone" => drop(del.vars.insert("CNI_NETNS".into(), "/run/netns/gone".into())),
                    _ => {}
                }
                del.succeeds();
                del.succeeds();
                assert_nothing_left(&node);
                node.del(&pod);
            }
        });
    }
}

#[test]
fn rules_without_state_are_found_by_the_container() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let (kept, _) = added(&node, "kept", backend, &[mapping(8081, 80, "tcp")]);
            let (pod, mut conf) = added(&node, "a", backend, &[mapping(8080, 80, "tcp")]);
            let rules_of_kept = containers_rules().len() / 2;
            fs::remove_dir_all(node.path("portmap")).unwrap();
            conf.as_object_mut().unwrap().remove("runtimeConfig");
            call(&node, "DEL", &pod, &conf).succeeds();
            let rules = containers_rules();
            assert_eq!(rules.len(), rules_of_kept, "{rules:?}");
            drop(kept);
        });
    }
}

#[test]
fn the_ports_of_a_network_that_was_renamed_go_with_the_interface() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let (_kept, _) = added(&node, "kept", backend, &[mapping(8081, 80, "tcp")]);
            let before = containers_rules();
            let (pod, mut conf) = added(&node, "a", backend, &[mapping(8080, 80, "tcp")]);
            conf["name"] = "renamed".into();
            conf.as_object_mut().unwrap().remove("runtimeConfig");
            let del = call(&node, "DEL", &pod, &conf);
            let other_interface = del.clone().var("CNI_IFNAME", "eth1");
            other_interface.succeeds();
            assert_eq!(node.stored_ports().len(), 2);
            del.succeeds();
            del.succeeds();
            assert_eq!((containers_rules(), node.stored_ports().len()), (before, 1));
        });
    }
}

#[test]
fn gc_removes_what_is_not_valid_in_this_network_only() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let (_valid, mut conf) = added(&node, "valid", backend, &[mapping(8081, 80, "tcp")]);
            let (_stale, _) = added(&node, "stale", backend, &[mapping(8082, 80, "udp")]);
            let (other, result) = node.attached("other");
            let mut other_conf = node.ports_conf(&result, &[mapping(8083, 80, "tcp")]);
            other_conf["backend"] = backend.into();
            other_conf["name"] = "other".into();
            call(&node, "ADD", &other, &other_conf).succeeds();
            conf["cniVersion"] = "1.1.0".into();
            conf["cni.dev/valid-attachments"] = json!([{"containerID": "valid", "ifname": "eth0"}]);
            call(&node, "GC", &other, &conf).succeeds();
            let rules = containers_rules().join("\n");
            assert!(
                rules.contains("8081") && rules.contains("8083") && !rules.contains("8082"),
                "{rules}"
            );
            assert_eq!(node.stored_ports().len(), 2);
            conf["cni.dev/valid-attachments"] = json!([]);
            call(&node, "GC", &other, &conf).succeeds();
            call(&node, "GC", &other, &conf).succeeds();
            let rules = containers_rules().join("\n");
            assert!(!rules.contains("8081") && rules.contains("8083"), "{rules}");
        });
    }
}

#[test]
fn check_finds_every_missing_rule() {
    on_a_node(|node| {
        let mappings = [mapping(8080, 80, "tcp"), mapping(8053, 53, "udp")];
        let (pod, conf) = added(&node, "a", "nftables", &mappings);
        let check = call(&node, "CHECK", &pod, &conf);
        check.succeeds();
        let whole = ruleset();
        fs::write(node.path("whole"), &whole).unwrap();
        let mut broken = 0;
        while let Some((chain, handle)) = numbered_rules().get(broken) {
            printed(Command::new("nft").args([
                "delete",
                "rule",
                "ip",
                "cni_hostport",
                chain,
                "handle",
                handle,
            ]));
            assert_eq!(check.fails()["code"], 103, "{}", ruleset());
            sh(node.dir.path(), "nft flush ruleset; nft -f whole");
            check.succeeds();
            broken += 1;
        }
        // Two to each of the containers' chains, two that lead there, two dnat and two mark rules, three to masquerade.
        assert_eq!(broken, 2 + 2 + 4 + 3);
    });
    on_a_node(|node| {
        let mappings = [mapping(8080, 80, "tcp"), mapping(8053, 53, "udp")];
        let (pod, conf) = added(&node, "a", "iptables", &mappings);
        let check = call(&node, "CHECK", &pod, &conf);
        check.succeeds();
        let rules = iptables_rules("iptables");
        assert_eq!(rules.len(), 13, "{rules:#?}");
        let whole = sh(node.dir.path(), "iptables-save -t nat | tee whole");
        for rule in rules {
            fs::write(
                node.path("broken"),
                format!("*nat\n{}\nCOMMIT\n", rule.replacen("-A", "-D", 1)),
            )
            .unwrap();
            sh(node.dir.path(), "iptables-restore --noflush broken");
            assert_eq!(check.fails()["code"], 103, "{rule}");
            sh(node.dir.path(), "iptables-restore whole");
        }
        check.succeeds();
        assert!(whole.contains("CNI-HOSTPORT-DNAT"));
    });
}

#[test]
fn status_tells_whether_a_back_end_can_be_used() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let mut conf = node.ports_conf(&Value::Null, &[]);
        conf["cniVersion"] = "1.1.0".into();
        call(&node, "STATUS", &pod, &conf).succeeds();
        assert_eq!(ruleset(), "", "asking leaves nothing behind");
        for backend in BACKENDS {
            conf["backend"] = backend.into();
            call(&node, "STATUS", &pod, &conf).succeeds();
        }
        conf["backend"] = "ipfw".into();
        assert_eq!(call(&node, "STATUS", &pod, &conf).fails()["code"], 7);
        // In mounts of this thread's own nobody has installed iptables.
        unshare(CloneFlags::CLONE_NEWNS).unwrap();
        sh(
            node.dir.path(),
            "mount --make-rprivate /; mount -t tmpfs none /usr/sbin",
        );
        conf["backend"] = "iptables".into();
        let error = call(&node, "STATUS", &pod, &conf).fails();
        assert_eq!(error["code"], 50);
        assert!(
            error["msg"].as_str().unwrap().contains("install iptables"),
            "{error}"
        );
        conf["backend"] = "nftables".into();
        call(&node, "STATUS", &pod, &conf).succeeds();
    });
}

#[test]
fn the_default_back_end_is_nftables_and_runs_no_program() {
    on_a_node(|node| {
        let (pod, result) = node.attached("a");
        let conf = node.ports_conf(&result, &[mapping(8080, 80, "tcp")]);
        call(&node, "ADD", &pod, &conf).var("PATH", "/nowhere").succeeds();
        assert!(ruleset().contains("table ip cni_hostport"));
        assert_eq!(iptables_rules("iptables"), Vec::<String>::new());
    });
}

#[test]
fn an_add_that_is_repeated_replaces_what_the_first_made_in_either_back_end() {
    on_a_node(|node| {
        let client = client();
        let (pod, result) = node.attached("a");
        let _server = Server::tcp(&pod, 80);
        for (port, backend) in [
            (8081, "nftables"),
            (8082, "iptables"),
            (8083, "nftables"),
            (8084, "nftables"),
        ] {
            let mut conf = node.ports_conf(&result, &[mapping(port, 80, "tcp")]);
            conf["backend"] = backend.into();
            call(&node, "ADD", &pod, &conf).succeeds();
            let rules = containers_rules();
            assert!(
                rules
                    .iter()
                    .all(|rule| rule.contains(&port.to_string()) || rule.contains("-s ")),
                "{rules:?}"
            );
            tcp(&client.netns, NODE_V4, port);
            assert!(is_refused(&client.netns, NODE_V4, port - 1));
        }
    });
}

#[test]
fn an_add_without_mappings_removes_those_of_an_earlier_one() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let (pod, mut conf) = added(&node, "a", backend, &[mapping(8080, 80, "tcp")]);
            conf["runtimeConfig"]["portMappings"] = json!([]);
            call(&node, "ADD", &pod, &conf).succeeds();
            assert_nothing_left(&node);
        });
    }
}

#[test]
fn an_add_that_fails_opens_no_link_to_127_0_0_1() {
    on_a_node(|node| {
        let (pod, result) = node.attached("a");
        let mut conf = node.ports_conf(&result, &[mapping(8080, 80, "tcp")]);
        conf["conditionsV4"] = json!(["--no-such-option"]);
        assert_eq!(call(&node, "ADD", &pod, &conf).fails()["code"], 100);
        let opened = |value: &str| {
            let path = "/proc/sys/net/ipv4/conf/cni0/route_localnet";
            fs::read_to_string(path).unwrap().trim() == value
        };
        assert!(opened("0"));
        conf.as_object_mut().unwrap().remove("conditionsV4");
        call(&node, "ADD", &pod, &conf).succeeds();
        assert!(opened("1"));
    });
}

#[test]
fn a_chain_that_is_hooked_in_another_way_is_named_and_stays() {
    on_a_node(|node| {
        let (pod, result) = node.attached("a");
        let conf = node.ports_conf(&result, &[mapping(8080, 80, "tcp")]);
        for (chain, hook) in [
            ("hostports", "{ type filter hook input priority 0; }"),
            ("prerouting", ""),
            ("masquerading", "{ type nat hook input priority 0; }"),
        ] {
            sh(
                node.dir.path(),
                &format!("nft 'add table ip cni_hostport; add chain ip cni_hostport {chain} {hook}'"),
            );
            let before = ruleset();
            let error = call(&node, "ADD", &pod, &conf).fails();
            let way_out = format!("nft delete chain ip cni_hostport {chain}");
            assert_eq!(error["code"], 100, "{error}");
            assert!(error["msg"].as_str().unwrap().contains(&way_out), "{error}");
            assert_eq!((ruleset(), node.stored_ports().len()), (before, 0));
            sh(node.dir.path(), &way_out);
            call(&node, "ADD", &pod, &conf).succeeds();
            call(&node, "DEL", &pod, &conf).succeeds();
            sh(node.dir.path(), "nft delete table ip cni_hostport");
        }
    });
}

#[test]
fn a_second_interface_of_a_container_keeps_its_ports() {
    for backend in BACKENDS {
        on_a_node(move |node| {
            let (pod, conf) = added(&node, "a", backend, &[mapping(8080, 80, "tcp")]);
            let mut second = conf.clone();
            second["runtimeConfig"]["portMappings"] = json!([mapping(8081, 80, "tcp")]);
            second["prevResult"]["interfaces"][2]["name"] = "eth1".into();
            let of_second =
                |verb: &str, conf: &Value| call(&node, verb, &pod, conf).var("CNI_IFNAME", "eth1");
            of_second("ADD", &second).succeeds();
            let rules = containers_rules().join("\n");
            assert!(rules.contains("8080") && rules.contains("8081"), "{rules}");
            call(&node, "CHECK", &pod, &conf).succeeds();
            of_second("DEL", &second).succeeds();
            let rules = containers_rules().join("\n");
            assert!(rules.contains("8080") && !rules.contains("8081"), "{rules}");
            call(&node, "CHECK", &pod, &conf).succeeds();
            call(&node, "DEL", &pod, &conf).succeeds();
            assert_nothing_left(&node);
        });
    }
}
