//! ARG: `CNI_ARGS`, and CAP: capability arguments.

use serde_json::json;

use crate::table::{Case, In, Well, case, check};

#[test]
fn pairs_are_read_as_the_reference_reads_them() {
    let mut cases: Vec<Case> = Vec::new();
    for text in ["IP=10.244.7.9;", "FOO", "IP=a=b", ";"] {
        cases.push(
            case("ARG-01", "host-local", In(4, ""), move |_, g| {
                g.var("CNI_ARGS", text)
            })
            .reference_ends(In(999, "")),
        );
    }
    for text in [
        "FOO=1",
        "IgnoreUnknown=0;FOO=1",
        "ip=10.244.7.9",
        "IgnoreUnknown=yes;FOO=1",
    ] {
        cases.push(
            case("ARG-02 ARG-03", "host-local", In(4, ""), move |_, g| {
                g.var("CNI_ARGS", text)
            })
            .reference_ends(In(999, "")),
        );
    }
    for text in [
        "",
        "IgnoreUnknown=1;FOO=1",
        "FOO=1;IgnoreUnknown=true;BAR=2",
        "IgnoreUnknown=TRUE;X=;IP=",
        "IP=10.244.7.9",
    ] {
        cases.push(case("ARG-01 ARG-02 ARG-03", "host-local", Well, move |_, g| {
            g.var("CNI_ARGS", text)
        }));
    }
    let kubernetes = "K8S_POD_NAMESPACE=default;IgnoreUnknown=1;K8S_POD_NAME=web;K8S_POD_UID=1;K8S_POD_INFRA_CONTAINER_ID=x";
    for plugin in ["bridge", "host-local"] {
        cases.push(case("ARG-04", plugin, Well, move |_, g| {
            g.var("CNI_ARGS", kubernetes)
        }));
    }
    cases.push(
        case("ARG-04", "bridge", Well, |_, g| {
            g.var("CNI_ARGS", "MAC=0a:00:00:00:00:09")
        })
        .unlike(
            In(999, "unknown args"),
            "what one plugin of a chain understands is no error in another",
        ),
    );
    for text in ["FOO=1", "IP=a=b"] {
        cases.push(
            case("ARG-06", "host-local", Well, move |_, g| {
                g.var("CNI_COMMAND", "DEL");
                g.var("CNI_ARGS", text);
            })
            .unlike(In(999, ""), "a DEL needs no arguments"),
        );
    }
    check(&cases);
}

#[test]
fn the_nearest_request_counts() {
    const FIRST: &str =
        "of several ways to ask for an address the nearest one counts, as the conventions say";
    check(&[
        case("ARG-05", "host-local", Well, |_, g| {
            g.var("CNI_ARGS", "IP=192.0.2.1");
            g.conf["args"] = json!({"cni": {"ips": ["10.244.7.9"]}});
        })
        .unlike(In(999, "192.0.2.1"), FIRST),
        case("ARG-05", "host-local", In(7, "192.0.2.1"), |_, g| {
            g.var("CNI_ARGS", "IP=192.0.2.1")
        })
        .reference_ends(In(999, "192.0.2.1")),
    ]);
}

#[test]
fn capabilities_are_taken_and_unknown_ones_passed_over() {
    let mut cases = vec![
        case("CAP-03", "host-local", Well, |_, g| {
            g.conf["runtimeConfig"] = json!({"ipRanges": [[{"subnet": "10.9.0.0/24"}]]});
        }),
        case("CAP-03", "host-local", In(7, "host bits"), |_, g| {
            g.conf["runtimeConfig"] = json!({"ipRanges": [[{"subnet": "10.9.0.1/24"}]]});
        })
        .reference_ends(In(999, "host bits")),
        case("CAP-04", "host-local", Well, |_, g| {
            g.conf["runtimeConfig"] = json!({"ips": ["10.244.7.9/24"]})
        }),
        case("CAP-04", "host-local", In(7, "10.9.0.9"), |_, g| {
            g.conf["runtimeConfig"] = json!({"ips": ["10.9.0.9"]})
        })
        .reference_ends(In(999, "10.9.0.9")),
        case("CAP-05", "bridge", Well, |_, g| {
            g.conf["runtimeConfig"] = json!({"mac": "0a:00:00:00:00:09"})
        }),
        case("CAP-05", "bridge", In(7, "mac"), |_, g| {
            g.conf["runtimeConfig"] = json!({"mac": "x"})
        })
        .reference_ends(In(999, "")),
        case("CAP-09", "bridge", Well, |_, g| {
            g.conf["runtimeConfig"] = json!({"mac": null, "x": {"y": 1}})
        }),
    ];
    let others = [
        json!({"portMappings": [{"HostPort": 80, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}]}),
        json!({"bandwidth": {"IngressRate": 1, "IngressBurst": 4_294_967_295_u64, "EgressRate": 0, "EgressBurst": 0}}),
        json!({"dns": {"servers": ["1.1.1.1"], "searches": [], "options": []}}),
        json!({"aliases": {"net": ["a"]}}),
        json!({"aliases": ["a"]}),
        json!({"cgroupPath": "/x", "infinibandGUID": "y", "deviceID": "z"}),
        json!(null),
    ];
    for given in others {
        for plugin in ["bridge", "flannel"] {
            let given = given.clone();
            let passed = case("CAP-01 CAP-02 CAP-06 CAP-07 CAP-08", plugin, Well, move |_, g| {
                g.conf["runtimeConfig"] = given.clone();
            });
            cases.push(if plugin == "flannel" {
                passed.ours_only()
            } else {
                passed
            });
        }
    }
    check(&cases);
}
