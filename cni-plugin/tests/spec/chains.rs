//! PRV and RES of the plugins that follow another one, in every version.

use serde_json::{Value, json};

use crate::common::{Node, Pod, on_a_node};
use crate::table::{Answer, Given, Side, program, run};

const VERSIONS: [&str; 7] = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];

/// The plugins that take a result, the oldest version that each works in, and what it has to do.
fn followers() -> [(&'static str, &'static str, Value); 5] {
    let limits = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000,
        "egressRate": 8_000_000, "egressBurst": 800_000});
    let port = json!({"hostPort": 8080, "containerPort": 80, "protocol": "udp"});
    [
        ("loopback", "0.1.0", json!({})),
        (
            "portmap",
            "0.1.0",
            json!({"runtimeConfig": {"portMappings": [port]}}),
        ),
        ("tuning", "0.1.0", json!({"mtu": 1400})),
        (
            "bandwidth",
            "0.3.0",
            json!({"runtimeConfig": {"bandwidth": limits}}),
        ),
        ("firewall", "0.4.0", json!({"ingressPolicy": "open"})),
    ]
}

fn call(node: &Node, side: Side, verb: &str, pod: &Pod, conf: &Value) -> Answer {
    let mut vars = node.call(verb, pod, conf).vars;
    // The reference runs programs.
    vars.insert("PATH".to_owned(), "/usr/sbin:/usr/bin:/sbin:/bin".to_owned());
    let given = Given {
        vars,
        conf: conf.clone(),
        text: None,
    };
    run(&program(node, side, conf["type"].as_str().unwrap()), &given)
}

/// PRV-01, PRV-03: what a plugin before said is in the answer, in the form of the version, and taken by CHECK and DEL.
#[test]
fn a_previous_result_is_passed_on_in_every_version() {
    for side in [Side::Ours, Side::Reference] {
        on_a_node(move |node| {
            let pod = Pod::new("a");
            // Debian's plugins do not know the newest.
            let known = VERSIONS
                .iter()
                .filter(|version| side == Side::Ours || **version < "1.1.0");
            for version in known {
                let bridge = node.bridge_conf(version);
                let result = call(&node, Side::Ours, "ADD", &pod, &bridge).ok().json();
                for (plugin, oldest, keys) in followers() {
                    let mut conf = json!({"cniVersion": version, "name": "cbr0", "type": plugin,
                        "prevResult": result, "dataDir": node.path(plugin)});
                    conf.as_object_mut()
                        .unwrap()
                        .extend(keys.as_object().unwrap().clone());
                    if *version >= oldest {
                        passes_on(&node, side, &pod, &conf);
                    } else if side == Side::Ours {
                        assert_eq!(
                            call(&node, side, "ADD", &pod, &conf).json()["code"],
                            1,
                            "{plugin}"
                        );
                    }
                }
                call(&node, Side::Ours, "DEL", &pod, &bridge).ok();
            }
            node.assert_nothing_left(&["cni0"]);
        });
    }
}

/// Adds, checks and deletes.
fn passes_on(node: &Node, side: Side, pod: &Pod, conf: &Value) {
    let case = format!("{side:?} {} {}", conf["type"], conf["cniVersion"]);
    let answer = call(node, side, "ADD", pod, conf).ok().json();
    let before = &conf["prevResult"];
    for key in ["cniVersion", "ip4", "ips", "routes"] {
        assert_eq!(answer.get(key), before.get(key), "{case}: {key}");
    }
    let interfaces = |result: &Value| result["interfaces"].as_array().map_or(0, Vec::len);
    let own = usize::from(conf["type"] == "bandwidth");
    assert_eq!(interfaces(&answer), interfaces(before) + own, "{case}");
    let mut conf = conf.clone();
    conf["prevResult"] = answer;
    // The reference's own CHECKs have defects that are told where each plugin is tested beside it.
    if side == Side::Ours && conf["cniVersion"].as_str().unwrap() >= "0.4.0" {
        assert_eq!(call(node, side, "CHECK", pod, &conf).ok().stdout, "", "{case}");
    }
    assert_eq!(call(node, side, "DEL", pod, &conf).ok().stdout, "", "{case}");
}
