//! CFG: the configuration on standard input, and VER: VERSION.

use std::fs;

use serde_json::{Value, json};

use crate::common::{Pod, on_a_node};
use crate::table::{Case, Given, In, Side, Well, case, check, program, run};

fn text(text: &'static str) -> impl Fn(&crate::table::Stage<'_>, &mut Given) + Send + Sync {
    move |_, g| g.text = Some(text.as_bytes().to_vec())
}

#[test]
fn documents() {
    let mut cases: Vec<Case> = Vec::new();
    for document in [
        "",
        "[]",
        "5",
        "{",
        "{\"name\":",
        "\u{feff}{\"name\":\"a\"}",
        "{\"name\":\"a\"} x",
    ] {
        cases.push(case("CFG-01", "bridge", In(6, ""), text(document)));
    }
    cases.push(case(
        "CFG-01",
        "bridge",
        In(7, "missing network name"),
        text("null"),
    ));
    for name in ["-a", "a b", "a/b", "ä"] {
        cases.push(case("CFG-02", "bridge", In(7, "invalid"), move |_, g| {
            g.conf["name"] = name.into()
        }));
    }
    cases.push(case("CFG-02", "bridge", In(7, "missing network name"), |_, g| {
        g.conf["name"] = "".into()
    }));
    cases.push(case("CFG-02", "bridge", In(6, ""), |_, g| {
        g.conf["name"] = json!(["a"])
    }));
    for version in [Value::Null, json!("")] {
        cases.push(case("CFG-03", "bridge", Well, move |_, g| {
            g.conf["cniVersion"] = version.clone()
        }));
    }
    for version in ["1.0", "v1.0.0", "0.5.0", "1.2.0", " 1.0.0", "x"] {
        for verb in ["ADD", "DEL"] {
            cases.push(case(
                "CFG-04",
                "bridge",
                In(1, "incompatible CNI versions"),
                move |_, g| {
                    g.var("CNI_COMMAND", verb);
                    g.conf["cniVersion"] = version.into();
                },
            ));
        }
    }
    cases.push(
        case("CFG-04 details", "flannel", In(1, "\"1.2.0\""), |_, g| {
            g.conf["cniVersion"] = "1.2.0".into()
        })
        .ours_only(),
    );
    cases.push(case("CFG-04", "bridge", In(6, ""), |_, g| {
        g.conf["cniVersion"] = json!(1)
    }));
    check(&cases);
}

#[test]
fn keys() {
    check(&[
        case("CFG-05", "bridge", Well, |_, g| {
            g.conf["capabilities"] = json!({"portMappings": true});
            g.conf["cni.dev/x"] = json!([1]);
            g.conf["args"] = json!({"org.example": {"a": 1}});
            g.conf["unknown"] = json!({"deep": [null]});
        }),
        case("CFG-06 CFG-10", "bridge", Well, |_, g| {
            for key in [
                "mtu",
                "vlan",
                "promiscMode",
                "dns",
                "prevResult",
                "runtimeConfig",
                "args",
            ] {
                g.conf[key] = Value::Null;
            }
        }),
        case("CFG-06 last wins", "bridge", Well, |_, g| {
            let conf = g.conf.to_string();
            g.text = Some(conf.replacen('{', "{\"name\":\"-\",\"mtu\":-5,", 1).into_bytes());
        }),
        case("CFG-07", "bridge", Well, |_, g| {
            let conf = g.conf.to_string();
            let conf = conf
                .replace("\"name\"", "\"NAME\"")
                .replace("\"ipam\"", "\"Ipam\"");
            g.text = Some(
                conf.replace("\"subnet\"", "\"SubNet\"")
                    .replace("\"isGateway\"", "\"ISGATEWAY\"")
                    .into_bytes(),
            );
        }),
        case("CFG-08", "host-local", Well, |_, g| {
            g.conf["mtu"] = json!(4_294_967_296_u64)
        }),
    ]);
}

#[test]
fn keys_that_exclude_each_other() {
    check(&[
        case(
            "CFG-12",
            "bridge",
            In(7, "cannot set hairpin mode and promiscuous mode"),
            |_, g| {
                g.conf["promiscMode"] = true.into();
            },
        )
        .reference_ends(In(999, "cannot set hairpin mode and promiscuous mode")),
        case("CFG-12 DEL", "bridge", Well, |_, g| {
            g.var("CNI_COMMAND", "DEL");
            g.conf["promiscMode"] = true.into();
        }),
        case(
            "CFG-12",
            "bridge",
            In(7, "cannot use IPAM when DisableContainerInterface"),
            |_, g| {
                g.conf["disableContainerInterface"] = true.into();
            },
        )
        .ours_only(),
        case(
            "CFG-13",
            "flannel",
            In(7, "must not have 'name' field"),
            |_, g| g.conf["delegate"] = json!({"name": "a"}),
        )
        .ours_only(),
        case(
            "CFG-13",
            "flannel",
            In(7, "must not have 'ipam' field"),
            |_, g| g.conf["delegate"] = json!({"ipam": {}}),
        )
        .ours_only(),
        case("CFG-13", "flannel", In(7, "(string) 'type' field"), |_, g| {
            g.conf["delegate"] = json!({"type": 5})
        })
        .ours_only(),
        case("CFG-13", "flannel", In(7, "failed to find plugin"), |_, g| {
            g.conf["delegate"] = json!({"type": "x"})
        })
        .ours_only(),
        case("CFG-13 ADD-12", "flannel", In(11, "subnet.env"), |s, _| {
            fs::remove_file(s.node.path("subnet.env")).unwrap()
        })
        .ours_only(),
        case("CFG-13 DEL-11", "flannel", Well, |s, g| {
            fs::remove_file(s.node.path("subnet.env")).unwrap();
            g.var("CNI_COMMAND", "DEL");
        })
        .ours_only(),
    ]);
}

#[test]
fn host_locals_ranges() {
    let mut cases: Vec<Case> = Vec::new();
    let refused = [
        (json!({"subnet": "10.1.2.3/24"}), "host bits"),
        (json!({"subnet": "10.1.2.0/31"}), "too small"),
        (json!({"subnet": "10.1.2.0/32"}), "too small"),
        (json!({"subnet": "fd00::/127"}), "too small"),
        (json!({"subnet": "010.1.2.0/24"}), ""),
        (json!({"subnet": "x"}), ""),
        (json!({"ranges": []}), "no IP ranges"),
        (json!({}), "no IP ranges"),
        (json!({"ranges": [[]]}), "empty"),
        (
            json!({"ranges": [[{"subnet": "10.1.0.0/24"}, {"subnet": "fd00::/64"}]]}),
            "mixed",
        ),
        (
            json!({"ranges": [[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.1.0.0/25"}]]}),
            "overlap",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "rangeStart": "10.2.0.1"}),
            "10.2.0.1",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "rangeEnd": "10.2.0.1"}),
            "10.2.0.1",
        ),
        (
            json!({"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}),
            "10.1.0.9",
        ),
    ];
    for (ipam, words) in refused {
        let is_decoding = words.is_empty();
        let given = move |s: &crate::table::Stage<'_>, g: &mut Given| {
            g.conf["ipam"] = ipam.clone();
            g.conf["ipam"]["type"] = "host-local".into();
            g.conf["ipam"]["dataDir"] = s.node.path("networks").to_str().unwrap().into();
        };
        let reference = if is_decoding { In(999, "") } else { In(999, words) };
        cases.push(case("CFG-11", "host-local", In(7, words), given).reference_ends(reference));
    }
    cases.push(
        case(
            "CFG-11 RES-01",
            "host-local",
            In(7, "more than 1 address per family"),
            |_, g| {
                g.conf["cniVersion"] = "0.2.0".into();
                g.conf["ipam"]["ranges"] = json!([[{"subnet": "10.1.0.0/24"}], [{"subnet": "10.2.0.0/24"}]]);
            },
        )
        .reference_ends(In(999, "does not support more than 1 address per family")),
    );
    cases.push(case("CFG-11", "host-local", Well, |_, g| {
        g.conf["ipam"]["ranges"] = json!([
            [{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.9"}, {"subnet": "10.3.0.0/30"}],
            [{"subnet": "fd00::/126"}],
        ]);
    }));
    check(&cases);
}

#[test]
fn versions_are_told() {
    let mut cases: Vec<Case> = Vec::new();
    for (stdin, id) in [
        ("", "VER-01"),
        ("{\"cniVersion\":\"1.0.0\"}", "VER-02"),
        ("x", "VER-01"),
    ] {
        cases.push(case(id, "bridge", Well, move |_, g| {
            g.vars.clear();
            g.var("CNI_COMMAND", "VERSION");
            g.text = Some(stdin.as_bytes().to_vec());
        }));
    }
    cases.push(case("VER-04", "bridge", Well, |_, g| {
        for name in ["CNI_NETNS", "CNI_IFNAME", "CNI_PATH"] {
            g.var(name, "dummy");
        }
        g.var("CNI_CONTAINERID", "");
        g.var("CNI_COMMAND", "VERSION");
    }));
    check(&cases);
}

/// VER-02 in our answer, and VER-03 with ADD-03 in every version that is listed.
#[test]
fn every_version_that_is_listed_works() {
    on_a_node(|node| {
        for (side, count) in [(Side::Ours, 7), (Side::Reference, 6)] {
            let bridge = program(&node, side, "bridge");
            let pod = Pod::new("a");
            let mut conf = node.bridge_conf("0.4.0");
            let call = |verb: &str, conf: &Value| {
                let vars = node.call(verb, &pod, conf).vars;
                run(
                    &bridge,
                    &Given {
                        vars,
                        conf: conf.clone(),
                        text: None,
                    },
                )
            };
            let answer = call("VERSION", &conf).json();
            let listed = answer["supportedVersions"].as_array().unwrap().clone();
            assert_eq!(listed.len(), count);
            if side == Side::Ours {
                assert_eq!(answer["cniVersion"], "0.4.0");
            }
            for version in listed {
                conf["cniVersion"] = version.clone();
                assert_eq!(call("ADD", &conf).ok().json()["cniVersion"], version);
                assert_eq!(call("DEL", &conf).ok().stdout, "");
            }
        }
    });
}
