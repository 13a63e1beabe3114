//! RES: results in every form, PRV: previous results, ERR: errors, and what an ADD and a CHECK do with the kernel.

use serde_json::{Value, json};

use crate::common::{Node, Pod, on_a_node};
use crate::table::{Answer, Given, Side, program, run};

const SIDES: [Side; 2] = [Side::Ours, Side::Reference];

pub(crate) fn call(node: &Node, side: Side, verb: &str, pod: &Pod, conf: &Value) -> Answer {
    let vars = node.call(verb, pod, conf).vars;
    let plugin = conf["type"].as_str().unwrap();
    let given = Given {
        vars,
        conf: conf.clone(),
        text: None,
    };
    run(&program(node, side, plugin), &given)
}

/// RES-01 to RES-08 of the bridge, and RES-06 of host-local.
#[test]
fn every_version_has_its_form() {
    for side in SIDES {
        on_a_node(move |node| {
            for version in ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0"] {
                let pod = Pod::new("a");
                let conf = node.bridge_conf(version);
                let result = call(&node, side, "ADD", &pod, &conf).ok().json();
                if version < "0.3.0" {
                    let ip4 = json!({"ip": result["ip4"]["ip"], "gateway": "10.244.7.1",
                        "routes": [{"dst": "10.244.0.0/16"}, {"dst": "0.0.0.0/0", "gw": "10.244.7.1"}]});
                    assert_eq!(
                        result,
                        json!({"cniVersion": version, "ip4": ip4, "dns": {}}),
                        "{side:?}"
                    );
                } else {
                    let interfaces = result["interfaces"].as_array().unwrap();
                    let names: Vec<_> = interfaces
                        .iter()
                        .map(|one| one["name"].as_str().unwrap())
                        .collect();
                    assert!(
                        names[0] == "cni0" && names[1].starts_with("veth") && names[2] == "eth0",
                        "{names:?}"
                    );
                    assert_eq!(interfaces[2]["sandbox"], pod.netns.as_str());
                    assert!(interfaces[..2].iter().all(|one| one.get("sandbox").is_none()));
                    let mac = interfaces[2]["mac"].as_str().unwrap();
                    assert_eq!(mac, mac.to_lowercase());
                    let ip = &result["ips"][0];
                    assert_eq!(
                        (&ip["interface"], &ip["gateway"]),
                        (&json!(2), &json!("10.244.7.1"))
                    );
                    let family = (version < "1.0.0").then(|| json!("4"));
                    assert_eq!(ip.get("version"), family.as_ref(), "{version}");
                }
                call(&node, side, "DEL", &pod, &conf).ok();
                let mut ipam = conf.clone();
                ipam["type"] = "host-local".into();
                let result = call(&node, side, "ADD", &pod, &ipam).ok().json();
                assert!(result.get("interfaces").is_none(), "RES-06");
                assert!(
                    result
                        .get("ips")
                        .is_none_or(|ips| ips[0].get("interface").is_none()),
                    "RES-06"
                );
                call(&node, side, "DEL", &pod, &ipam).ok();
            }
        });
    }
}

/// CFG-09: the configuration's name service settings win over address management's.
#[test]
fn name_service_settings_reach_the_result() {
    for side in SIDES {
        on_a_node(move |node| {
            let pod = Pod::new("a");
            std::fs::write(node.path("resolv"), "nameserver 10.0.0.10\nsearch a.b\n").unwrap();
            let mut conf = node.bridge_conf("1.0.0");
            conf["ipam"]["resolvConf"] = node.path("resolv").to_str().unwrap().into();
            let result = call(&node, side, "ADD", &pod, &conf).ok().json();
            // Debian's bridge drops what address management says; later ones do not.
            if side == Side::Ours {
                assert_eq!(
                    result["dns"],
                    json!({"nameservers": ["10.0.0.10"], "search": ["a.b"]})
                );
            }
            call(&node, side, "DEL", &pod, &conf).ok();
            conf["dns"] = json!({"nameservers": ["10.0.0.11"]});
            let result = call(&node, side, "ADD", &pod, &conf).ok().json();
            assert_eq!(result["dns"], json!({"nameservers": ["10.0.0.11"]}));
        });
    }
}

/// ADD-01, ADD-02, ADD-05, ADD-07, ADD-08, CHK-01 to CHK-06, DEL-01 to DEL-03, DEL-08, DEL-09.
#[test]
fn an_attachment_lives_and_ends() {
    for side in SIDES {
        on_a_node(move |node| {
            let pod = Pod::new("a");
            let mut conf = node.bridge_conf("0.4.0");
            let result = call(&node, side, "ADD", &pod, &conf).ok().json();
            assert!(
                pod.sh("ip route")
                    .contains("10.244.0.0/16 via 10.244.7.1 dev eth0")
            );
            // A second ADD of the same fails and leaves the first.
            let again = call(&node, side, "ADD", &pod, &conf);
            assert_eq!(again.status, 1);
            assert!(pod.reaches("10.244.7.1"));
            assert_eq!(node.leases().len(), 1);
            // CHECK needs the result, and finds what is wrong.
            assert_eq!(call(&node, side, "CHECK", &pod, &conf).status, 1);
            conf["prevResult"] = result.clone();
            conf["ipam"]["routes"] = json!([]);
            conf["prevResult"]["routes"] = json!([{"dst": "0.0.0.0/0", "gw": "10.244.7.1"}]);
            assert_eq!(call(&node, side, "CHECK", &pod, &conf).ok().stdout, "");
            pod.sh("ip addr add 192.0.2.1/32 dev eth0; ip route add 192.0.2.0/24 dev eth0");
            assert_eq!(call(&node, side, "CHECK", &pod, &conf).ok().stdout, "");
            let old = json!({"cniVersion": "0.3.1", "name": "cbr0", "type": "bridge"});
            assert_eq!(call(&node, side, "CHECK", &pod, &old).json()["code"], 1);
            pod.sh("ip route del default");
            assert_eq!(call(&node, side, "CHECK", &pod, &conf).status, 1);
            // Another container's, another interface's and another network's DEL change nothing.
            let other = Pod::new("b");
            call(&node, side, "DEL", &other, &conf).ok();
            let mut elsewhere = conf.clone();
            elsewhere["name"] = "other".into();
            let without_netns = |conf: &Value| {
                let mut vars = node.call("DEL", &pod, conf).vars;
                vars.remove("CNI_NETNS");
                let conf = conf.clone();
                run(
                    &program(&node, side, "bridge"),
                    &Given {
                        vars,
                        conf,
                        text: None,
                    },
                )
            };
            without_netns(&elsewhere).ok();
            assert!(pod.reaches("10.244.7.1"));
            assert_eq!(node.leases().len(), 1);
            // DEL again and again, with and without a previous result.
            for result in [json!({}), Value::Null, result] {
                conf["prevResult"] = result;
                assert_eq!(call(&node, side, "DEL", &pod, &conf).ok().stdout, "");
            }
            assert_eq!((node.links(), node.leases().len()), (vec!["cni0".to_owned()], 0));
            assert_eq!(pod.sh("ip -o link | wc -l").trim(), "1");
        });
    }
}

/// ERR-01 to ERR-05: ours in every case; the reference leaves the version out.
#[test]
fn errors_have_code_words_and_the_callers_version() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        for version in ["0.1.0", "0.4.0", "1.1.0"] {
            let mut conf = node.bridge_conf(version);
            conf["mtu"] = json!(-1);
            let answer = call(&node, Side::Ours, "ADD", &pod, &conf);
            let error = answer.json();
            assert_eq!(
                (&error["cniVersion"], &error["code"]),
                (&json!(version), &json!(7))
            );
            assert!(error["msg"].as_str().unwrap().contains("mtu -1"));
            assert!(answer.stdout.contains("\n    \"code\": 7"));
        }
        let mut conf = node.bridge_conf("1.0.0");
        conf["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.1/24"}]]);
        let theirs = call(&node, Side::Reference, "ADD", &pod, &conf).json();
        assert!(
            theirs.get("cniVersion").is_none() && theirs["code"] == 999,
            "{theirs}"
        );
    });
}

/// PRV-02, PRV-05, DEL-04: a previous result of another version, or one that is no result.
#[test]
fn previous_results_of_every_form_are_met() {
    on_a_node(|node| {
        let pod = Pod::new("a");
        let mut conf = node.bridge_conf("1.0.0");
        let result = call(&node, Side::Ours, "ADD", &pod, &conf).ok().json();
        conf["ipam"]["routes"] = json!([]);
        for version in ["0.3.1", "0.4.0", "1.1.0"] {
            let mut earlier = result.clone();
            earlier["cniVersion"] = version.into();
            conf["prevResult"] = earlier;
            call(&node, Side::Ours, "CHECK", &pod, &conf).ok();
        }
        for position in [json!(-1), json!(99), Value::Null] {
            let mut odd = result.clone();
            odd["ips"][0]["interface"] = position;
            conf["prevResult"] = odd;
            let answer = call(&node, Side::Ours, "CHECK", &pod, &conf);
            assert!(answer.status == 0 || answer.json()["code"].is_u64(), "{answer:?}");
        }
        for odd in [
            json!(5),
            json!([]),
            json!({"cniVersion": "9"}),
            json!({"ips": "x"}),
        ] {
            conf["prevResult"] = odd;
            assert_eq!(call(&node, Side::Ours, "CHECK", &pod, &conf).status, 1);
            call(&node, Side::Ours, "DEL", &pod, &conf).ok();
        }
        assert_eq!(node.leases().len(), 0);
    });
}
