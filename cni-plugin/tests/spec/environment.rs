//! ENV: process and environment.

use std::fs;

use crate::table::{Case, In, InAbout, Well, case, check};

const NO_ADDRESS: &str = "a call without it is complete by the specification";

#[test]
fn commands_and_required_variables() {
    let cases = [
        case("ENV-01 ENV-02", "bridge", Well, |_, _| {}),
        case("ENV-01 ENV-02", "host-local", Well, |_, _| {}),
        case("ENV-01 ENV-02", "flannel", Well, |_, _| {}).ours_only(),
        case("ENV-03", "bridge", In(4, "unknown CNI_COMMAND: add"), |_, g| {
            g.var("CNI_COMMAND", "add")
        }),
        case(
            "ENV-03",
            "flannel",
            In(4, "unknown CNI_COMMAND: UPDATE"),
            |_, g| g.var("CNI_COMMAND", "UPDATE"),
        )
        .ours_only(),
        case(
            "ENV-05 required",
            "bridge",
            In(4, "CNI_CONTAINERID,CNI_NETNS,CNI_IFNAME"),
            |_, g| {
                g.without(&["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"]);
            },
        ),
        case("ENV-05 empty", "host-local", In(4, "CNI_CONTAINERID"), |_, g| {
            g.var("CNI_CONTAINERID", "")
        }),
        case("ENV-05 CHECK", "bridge", In(4, "CNI_NETNS"), |_, g| {
            g.var("CNI_COMMAND", "CHECK");
            g.without(&["CNI_NETNS"]);
        }),
        case("ENV-05 DEL needs no netns", "bridge", Well, |_, g| {
            g.var("CNI_COMMAND", "DEL");
            g.without(&["CNI_NETNS"]);
        }),
        case(
            "ENV-05 DEL",
            "flannel",
            In(4, "CNI_CONTAINERID,CNI_IFNAME"),
            |_, g| {
                g.var("CNI_COMMAND", "DEL");
                g.without(&["CNI_CONTAINERID", "CNI_IFNAME"]);
            },
        )
        .ours_only(),
        case("ENV-05 path", "bridge", Well, |_, g| g.without(&["CNI_PATH"]))
            .unlike(In(4, "CNI_PATH"), NO_ADDRESS),
        case("ENV-05 GC", "flannel", In(4, "CNI_PATH"), |_, g| {
            g.conf["cniVersion"] = "1.1.0".into();
            g.vars.clear();
            g.var("CNI_COMMAND", "GC");
        })
        .ours_only(),
        case("ENV-12", "bridge", Well, |_, g| {
            g.var(
                "TRACEPARENT",
                "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            );
            g.var("CNI_WHATEVER", "1");
        }),
    ];
    check(&cases);
}

#[test]
fn without_a_command_a_plugin_says_what_it_is() {
    let mut cases: Vec<Case> = Vec::new();
    for plugin in ["bridge", "host-local", "flannel"] {
        for command in [None, Some("")] {
            let about = case("ENV-04", plugin, InAbout, move |_, g| {
                g.vars.clear();
                if let Some(command) = command {
                    g.var("CNI_COMMAND", command);
                }
            });
            cases.push(if plugin == "flannel" {
                about.ours_only()
            } else {
                about
            });
        }
    }
    check(&cases);
}

#[test]
fn ids_and_interface_names() {
    let mut cases: Vec<Case> = Vec::new();
    for id in ["-a", ".a", "_a", "a/b", "a:b", "a b", "ä", "../x", "a\nb"] {
        for verb in ["ADD", "DEL"] {
            cases.push(case("ENV-06", "bridge", In(4, ""), move |_, g| {
                g.var("CNI_COMMAND", verb);
                g.var("CNI_CONTAINERID", id);
            }));
        }
    }
    cases.push(case("ENV-06 long", "bridge", Well, |_, g| {
        g.var("CNI_CONTAINERID", &"a".repeat(300))
    }));
    cases.push(case("ENV-06 form", "bridge", Well, |_, g| {
        g.var("CNI_CONTAINERID", "9aZ_.-x")
    }));
    for name in [".", "..", "a/b", "a:b", "a b", "sixteen-bytes-ab"] {
        for verb in ["ADD", "DEL"] {
            cases.push(case("ENV-07", "bridge", In(4, ""), move |_, g| {
                g.var("CNI_COMMAND", verb);
                g.var("CNI_IFNAME", name);
            }));
        }
    }
    // What no interface can be called: the kernel would put a number in the place of %d.
    for name in ["eth%d", "all", "default"] {
        cases.push(
            case("ENV-07", "bridge", In(4, ""), move |_, g| {
                g.var("CNI_IFNAME", name)
            })
            .ours_only(),
        );
        cases.push(
            case("ENV-07 bridge", "bridge", In(7, ""), move |_, g| {
                g.conf["bridge"] = name.into()
            })
            .ours_only(),
        );
    }
    cases.push(case("ENV-07 letters", "bridge", Well, |_, g| {
        g.var("CNI_IFNAME", "ethä")
    }));
    cases.push(case("ENV-07 length", "bridge", Well, |_, g| {
        g.var("CNI_IFNAME", "fifteen-bytes-a")
    }));
    check(&cases);
}

#[test]
fn checks_come_in_order() {
    check(&[
        case(
            "ENV-08 variables before values",
            "bridge",
            In(4, "CNI_NETNS"),
            |_, g| {
                g.without(&["CNI_NETNS"]);
                g.var("CNI_CONTAINERID", "-");
            },
        ),
        case("ENV-08 values before decoding", "bridge", In(4, ""), |_, g| {
            g.var("CNI_CONTAINERID", "-");
            g.text = Some(b"{".to_vec());
        })
        .reference_ends(In(6, "")),
        case("ENV-08 decoding before name", "bridge", In(6, ""), |_, g| {
            g.text = Some(b"{\"name\":5}".to_vec())
        }),
        case(
            "ENV-08 name before version",
            "bridge",
            In(7, "missing network name"),
            |_, g| {
                g.text = Some(b"{\"cniVersion\":\"9\"}".to_vec());
            },
        ),
        case(
            "ENV-08 version before action",
            "bridge",
            In(1, "incompatible CNI versions"),
            |_, g| {
                g.conf["cniVersion"] = "9".into();
                g.var("CNI_NETNS", "/nonexistent");
            },
        ),
    ]);
}

#[test]
fn network_namespaces() {
    const DEL: &str = "a DEL must free what the host has, whatever became of the namespace";
    let mut cases = vec![
        case("ENV-09", "bridge", In(8, "own network namespace"), |_, g| {
            g.var("CNI_NETNS", "/proc/self/ns/net")
        })
        .unlike(
            Well,
            "later versions of the reference refuse it as well, but only after they acted",
        ),
        case("ENV-09", "flannel", In(8, "own network namespace"), |_, g| {
            g.var("CNI_NETNS", "/proc/self/ns/net")
        })
        .ours_only(),
        case("ENV-09 override", "bridge", Well, |_, g| {
            g.var("CNI_NETNS", "/proc/self/ns/net");
            g.var("CNI_NETNS_OVERRIDE", "TRUE");
        }),
        case("ENV-09 override", "flannel", Well, |_, g| {
            g.var("CNI_NETNS", "/proc/self/ns/net");
            g.var("CNI_NETNS_OVERRIDE", "1");
        })
        .ours_only(),
        case("ENV-09 override", "bridge", Well, |_, g| {
            g.var("CNI_COMMAND", "DEL");
            g.var("CNI_NETNS", "/proc/self/ns/net");
            g.var("CNI_NETNS_OVERRIDE", "true");
        }),
        case("ENV-10", "bridge", In(8, "failed to open netns"), |_, g| {
            g.var("CNI_NETNS", "/nonexistent")
        })
        .reference_ends(In(999, "failed to open netns")),
        case(
            "ENV-10 plain file",
            "bridge",
            In(8, "failed to open netns"),
            |s, g| {
                fs::write(s.node.path("plain"), "").unwrap();
                g.var("CNI_NETNS", s.node.path("plain").to_str().unwrap());
            },
        )
        .reference_ends(In(999, "failed to open netns")),
        case("ENV-11 plain file", "bridge", Well, |s, g| {
            fs::write(s.node.path("plain"), "").unwrap();
            g.var("CNI_COMMAND", "DEL");
            g.var("CNI_NETNS", s.node.path("plain").to_str().unwrap());
        })
        .unlike(In(999, "unknown FS magic"), DEL),
    ];
    for netns in ["", "/nonexistent", "/proc/999999999/ns/net"] {
        for plugin in ["bridge", "host-local", "flannel"] {
            let del = case("ENV-11", plugin, Well, move |_, g| {
                g.var("CNI_COMMAND", "DEL");
                g.var("CNI_NETNS", netns);
            });
            cases.push(if plugin == "flannel" { del.ours_only() } else { del });
        }
    }
    check(&cases);
}

#[test]
fn plugins_are_looked_for_in_the_path() {
    check(&[
        case("ENV-13", "bridge", Well, |_, g| {
            g.var("CNI_PATH", "/nonexistent:/usr/lib/cni");
            g.conf["ipam"] =
                serde_json::json!({"type": "static", "addresses": [{"address": "10.244.7.9/24"}]});
        }),
        case(
            "ENV-13 DLG-02",
            "bridge",
            In(7, "failed to find plugin \"nowhere\""),
            |_, g| {
                g.conf["ipam"]["type"] = "nowhere".into();
            },
        )
        .reference_ends(In(999, "failed to find plugin \"nowhere\"")),
    ]);
}
