//! ARG: `CNI_ARGS`.

use serde_json::json;

use crate::cni::call::Call;
use crate::cni::case::About::{Each, First, Type};
use crate::cni::case::{Case, case};
use crate::cni::shape::addresses;
use crate::cni::stage::Stage;
use crate::report::{Checked, expect};

/// Most plugins pass over arguments; host-local reads them, as the reference's library does.
const READER: crate::cni::case::About = Type("host-local");

pub(super) const CASES: &[Case] = &[
    case(
        "ARG-01",
        "what is no list of pairs is an error",
        READER,
        |stage| refused(stage, &["IP=10.99.0.9;", "FOO", "IP=a=b", ";"]),
    ),
    case("ARG-01", "a pair is taken", READER, |stage| {
        let container = stage.container("a")?;
        let result = stage
            .call("ADD", &container)
            .var("CNI_ARGS", "IP=10.99.0.9")
            .run()?
            .result()?;
        expect(
            result.to_string().contains("10.99.0.9/24"),
            "the address 10.99.0.9/24",
            result.to_string(),
        )
    }),
    case("ARG-02", "an unknown key is an error", READER, |stage| {
        refused(
            stage,
            &["FOO=1", "IgnoreUnknown=0;FOO=1", "IgnoreUnknown=yes;FOO=1"],
        )
    }),
    case(
        "ARG-02",
        "IgnoreUnknown counts wherever it stands",
        READER,
        |stage| {
            taken(
                stage,
                &[
                    "IgnoreUnknown=1;FOO=1",
                    "FOO=1;IgnoreUnknown=true;BAR=2",
                    "FOO=1;IgnoreUnknown=TRUE",
                ],
            )
        },
    ),
    case(
        "ARG-03",
        "a key in another case is an unknown one",
        READER,
        |stage| refused(stage, &["ip=10.99.0.9"]),
    ),
    case(
        "ARG-03",
        "an empty value is none, the last duplicate wins",
        READER,
        |stage| taken(stage, &["IP=", "IP=192.0.2.1;IP=10.99.0.9"]),
    ),
    case(
        "ARG-04",
        "what containerd sends of a pod is taken, in any order",
        First,
        |stage| {
            let pod = [
                "K8S_POD_NAMESPACE=default",
                "K8S_POD_NAME=web-0",
                "K8S_POD_UID=1",
                "K8S_POD_INFRA_CONTAINER_ID=2",
                "IgnoreUnknown=1",
            ];
            for turn in 0..pod.len() {
                let container = stage.container(&format!("a{turn}"))?;
                let mut pairs = pod;
                pairs.rotate_left(turn);
                let args = pairs.join(";");
                stage
                    .call("ADD", &container)
                    .var("CNI_ARGS", &args)
                    .run()?
                    .result()?;
                stage
                    .call("DEL", &container)
                    .var("CNI_ARGS", &args)
                    .run()?
                    .silent()?;
            }
            Ok(())
        },
    ),
    case(
        "ARG-05",
        "an address in the configuration wins over the argument",
        READER,
        |stage| {
            let container = stage.container("a")?;
            let call = stage.call("ADD", &container).var("CNI_ARGS", "IP=192.0.2.1");
            let result = call
                .set("/args", json!({"cni": {"ips": ["10.99.0.9"]}}))
                .run()?
                .result()?;
            expect(
                result.to_string().contains("10.99.0.9/24"),
                "the address 10.99.0.9/24",
                result.to_string(),
            )
        },
    ),
    case(
        "ARG-04",
        "a MAC for the interface is no obstacle to address management",
        Type("bridge"),
        |stage| {
            has_mac(stage, |call| {
                call.var("CNI_ARGS", "MAC=0a:00:00:00:00:09;IgnoreUnknown=1")
            })
        },
    ),
    case(
        "ARG-05",
        "an address that comes with the call wins over the configuration's",
        READER,
        |stage| {
            let container = stage.container("a")?;
            let call = stage
                .call("ADD", &container)
                .set("/args", json!({"cni": {"ips": ["10.99.0.8"]}}))
                .set("/runtimeConfig", json!({"ips": ["10.99.0.9"]}));
            let result = call.run()?.result()?;
            expect(
                addresses(&result) == ["10.99.0.9/24"],
                "the address 10.99.0.9/24 alone",
                result.to_string(),
            )
        },
    ),
    case(
        "ARG-05",
        "a MAC that comes with the call wins over the configuration's, and both over the argument",
        Type("bridge"),
        |stage| {
            let args = |call: Call| call.var("CNI_ARGS", "IgnoreUnknown=1;MAC=0a:00:00:00:00:07");
            has_mac(stage, |call| {
                args(call)
                    .set("/args", json!({"cni": {"mac": "0a:00:00:00:00:08"}}))
                    .set("/runtimeConfig", json!({"mac": "0a:00:00:00:00:09"}))
            })?;
            has_mac(stage, |call| {
                args(call).set("/args", json!({"cni": {"mac": "0a:00:00:00:00:09"}}))
            })
        },
    ),
    case(
        "ARG-06",
        "DEL takes arguments that ADD would not",
        Each,
        |stage| {
            let container = stage.container("a")?;
            for args in ["FOO=1", "FOO", "IP=a=b"] {
                stage
                    .call("DEL", &container)
                    .var("CNI_ARGS", args)
                    .run()?
                    .silent()?;
            }
            Ok(())
        },
    ),
];

fn refused(stage: &Stage<'_>, values: &[&str]) -> Checked<()> {
    let container = stage.container("a")?;
    for args in values {
        stage
            .call("ADD", &container)
            .var("CNI_ARGS", args)
            .run()?
            .error()?;
    }
    Ok(())
}

/// With such a call the container's interface has the MAC 0a:00:00:00:00:09.
fn has_mac(stage: &Stage<'_>, asked: impl Fn(Call) -> Call) -> Checked<()> {
    let container = stage.next_container()?;
    asked(stage.call("ADD", &container)).run()?.result()?;
    let address = container.interface()?.get("address").cloned().unwrap_or_default();
    expect(
        address == "0a:00:00:00:00:09",
        "the MAC 0a:00:00:00:00:09",
        address.to_string(),
    )
}

fn taken(stage: &Stage<'_>, values: &[&str]) -> Checked<()> {
    let mut values = values.iter();
    values.try_for_each(|args| stage.lives(|call| call.var("CNI_ARGS", args)))
}
