//! CAP: what a runtime gives with a call, as runtimes were seen to write it.

use serde_json::{Value, json};

use crate::cni::case::About::{Each, First, Type};
use crate::cni::case::{Case, case};
use crate::cni::host_end::{host_end, looks_at_what_enters, shaped_to};
use crate::cni::shape::addresses;
use crate::cni::snapshot::{Snapshot, printed};
use crate::cni::stage::Stage;
use crate::report::{Checked, expect};

/// Bits in a second to and from a container, and how `tc` writes them.
const TO_RATE: u64 = 8_000_000;
const TO_RATE_TEXT: &str = "8Mbit";
const FROM_RATE: u64 = 16_000_000;
const FROM_RATE_TEXT: &str = "16Mbit";

/// A direction of a container's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    ToContainer,
    FromContainer,
}

pub(super) const CASES: &[Case] = &[
    case(
        "CAP-01",
        "a port is mapped as containerd writes it",
        Type("portmap"),
        |stage| {
            mapped(
                stage,
                json!({"HostPort": 20_777, "ContainerPort": 80, "Protocol": "tcp", "HostIP": ""}),
            )
        },
    ),
    case(
        "CAP-01",
        "a port is mapped as podman writes it",
        Type("portmap"),
        |stage| {
            mapped(
                stage,
                json!({"hostPort": 20_777, "containerPort": 80, "protocol": "tcp"}),
            )
        },
    ),
    case(
        "CAP-02",
        "bandwidth is taken as containerd writes it",
        Type("bandwidth"),
        |stage| {
            let burst = 4_294_967_295_u64;
            shaped(
                stage,
                json!({"IngressRate": TO_RATE, "IngressBurst": burst, "EgressRate": 0, "EgressBurst": 0}),
                &[Direction::ToContainer],
            )?;
            shaped(
                stage,
                json!({"IngressRate": 0, "IngressBurst": 0, "EgressRate": FROM_RATE, "EgressBurst": burst}),
                &[Direction::FromContainer],
            )
        },
    ),
    case(
        "CAP-02",
        "both directions are limited, each to its rate",
        Type("bandwidth"),
        |stage| {
            let limits = json!({"ingressRate": TO_RATE, "ingressBurst": 800_000,
                "egressRate": FROM_RATE, "egressBurst": 1_600_000});
            shaped(stage, limits, &[Direction::ToContainer, Direction::FromContainer])
        },
    ),
    case(
        "CAP-03",
        "ranges come with the call",
        Type("host-local"),
        |stage| {
            given(
                stage,
                json!({"ipRanges": [[{"subnet": "10.77.0.0/24"}]]}),
                "10.77.0.2/24",
            )
        },
    ),
    case("CAP-04", "an address is asked for", Type("host-local"), |stage| {
        given(stage, json!({"ips": ["10.99.0.77"]}), "10.99.0.77/24")?;
        given(stage, json!({"ips": ["10.99.0.78/24"]}), "10.99.0.78/24")
    }),
    case("CAP-05", "a MAC is asked for", Type("bridge"), |stage| {
        let container = stage.container("a")?;
        let call = stage
            .call("ADD", &container)
            .set("/runtimeConfig", json!({"mac": "0a:00:00:00:00:09"}));
        call.run()?.result()?;
        let address = container.interface()?.get("address").cloned().unwrap_or_default();
        expect(
            address == "0a:00:00:00:00:09",
            "the MAC 0a:00:00:00:00:09",
            address.to_string(),
        )
    }),
    case("CAP-06", "name service settings are taken", First, |stage| {
        let dns = json!({"servers": ["192.0.2.53"], "searches": ["a.b"], "options": ["ndots:5"]});
        stage.lives(|call| call.set("/runtimeConfig", json!({"dns": dns})))
    }),
    case(
        "CAP-07",
        "aliases are passed over as a list and as podman writes them",
        First,
        |stage| {
            stage.lives(|call| call.set("/runtimeConfig", json!({"aliases": {"net": ["a"]}})))?;
            stage.lives(|call| call.set("/runtimeConfig", json!({"aliases": ["a"]})))
        },
    ),
    case(
        "CAP-08",
        "paths and ids of devices are passed over",
        First,
        |stage| {
            let given = json!({"cgroupPath": "/x", "infinibandGUID": "y", "deviceID": "z"});
            stage.lives(|call| call.set("/runtimeConfig", given.clone()))
        },
    ),
    case("CAP-09", "unknown capabilities are passed over", First, |stage| {
        stage.lives(|call| call.set("/runtimeConfig", json!({"unheard": {"of": 1}, "mac": null})))
    }),
    case("CAP-09", "DEL passes over unknown capabilities", Each, |stage| {
        let container = stage.container("a")?;
        stage
            .call("DEL", &container)
            .set("/runtimeConfig", json!({"unheard": {"of": 1}}))
            .run()?
            .silent()
    }),
];

/// A mapping makes rules that name the port, and DEL takes them away.
fn mapped(stage: &Stage<'_>, mapping: Value) -> Checked<()> {
    let container = stage.container("a")?;
    let previous = stage.attach_before(&container)?;
    let call = |verb: &str| {
        let call = stage.call(verb, &container).with("/prevResult", previous.clone());
        call.set("/runtimeConfig", json!({"portMappings": [mapping]}))
    };
    let before = Snapshot::take()?;
    call("ADD").run()?.result()?;
    let change = Snapshot::take()?.since(&before);
    expect(change.contains("20777"), "rules that name the port 20777", change)?;
    call("DEL").run()?.silent()?;
    let change = Snapshot::take()?.since(&before);
    expect(
        !change.contains("20777"),
        "no rule that names the port 20777",
        change,
    )
}

/// With these limits the host's end of the pair limits what goes to the container, and hands what comes from it to another
/// link that limits it, in the directions that are asked for and in no other; DEL takes the other link away.
fn shaped(stage: &Stage<'_>, limits: Value, directions: &[Direction]) -> Checked<()> {
    let container = stage.next_container()?;
    let previous = stage.attach_before(&container)?;
    let end = host_end(&container)?;
    let plain = is_limited(&end)?;
    expect(plain.is_empty(), "no limit before ADD", format!("{plain:?}"))?;
    let call = |verb: &str| {
        let call = stage.call(verb, &container).with("/prevResult", previous.clone());
        call.set("/runtimeConfig", json!({"bandwidth": limits}))
    };
    call("ADD").run()?.result()?;
    let observed = is_limited(&end)?;
    let shown = || -> anyhow::Result<String> {
        let [disciplines, filters] = [
            vec!["tc", "qdisc", "show"],
            vec!["tc", "filter", "show", "dev", &end, "ingress"],
        ]
        .map(|argv| printed(&argv));
        Ok(format!("{end} is the host's end; {}{}", disciplines?, filters?))
    };
    expect(
        observed == directions,
        format!("after ADD with {limits} limits in the directions {directions:?}"),
        format!("in {observed:?}: {}", shown()?),
    )?;
    call("DEL").run()?.silent()?;
    let left = shaped_to(FROM_RATE_TEXT)?;
    expect(
        left.is_empty(),
        "after DEL no link that limits what came from the container",
        left.join(", "),
    )
}

/// The directions in which a container's traffic is limited, by the host's end of its pair.
fn is_limited(end: &str) -> anyhow::Result<Vec<Direction>> {
    let mut directions = Vec::new();
    if shaped_to(TO_RATE_TEXT)? == [end] {
        directions.push(Direction::ToContainer);
    }
    let elsewhere = shaped_to(FROM_RATE_TEXT)?.iter().any(|link| link != end);
    if elsewhere && looks_at_what_enters(end)? {
        directions.push(Direction::FromContainer);
    }
    Ok(directions)
}

/// With this in `runtimeConfig` the address is this one.
fn given(stage: &Stage<'_>, runtime: Value, address: &str) -> Checked<()> {
    let container = stage.container(&address.replace(['.', '/'], "-"))?;
    let result = stage
        .call("ADD", &container)
        .set("/runtimeConfig", runtime)
        .run()?
        .result()?;
    let has = addresses(&result).contains(&address);
    expect(has, format!("the address {address}"), result.to_string())
}
