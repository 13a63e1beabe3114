//! PRV and CHN: previous results, and plugins that follow another one; ADD-04.

use std::fs;

use anyhow::Context;
use serde_json::{Value, json};

use crate::cni::case::About::{Chained, Type};
use crate::cni::case::{Case, case};
use crate::cni::requirement::place;
use crate::cni::shape::{addresses, list, routes};
use crate::cni::snapshot::Snapshot;
use crate::report::{Checked, Stop, expect};

pub(super) const CASES: &[Case] = &[
    case(
        "ADD-04",
        "the answer holds the previous result",
        Chained,
        |stage| {
            let container = stage.container("a")?;
            let before = stage.attach_before(&container)?;
            let after = stage
                .call("ADD", &container)
                .with("/prevResult", before.clone())
                .run()?
                .result()?;
            holds(&before, &after)
        },
    ),
    case(
        "PRV-01",
        "who has nothing to do passes on what it got",
        Chained,
        |stage| {
            let container = stage.container("a")?;
            let before = stage.attach_before(&container)?;
            let call = stage
                .call("ADD", &container)
                .with("/prevResult", before.clone())
                .unset("runtimeConfig");
            holds(&before, &call.run()?.result()?)
        },
    ),
    case(
        "PRV-02",
        "a previous result without cniVersion is the configuration's",
        Chained,
        |stage| {
            let container = stage.container("a")?;
            let before = stage.attach_before(&container)?;
            let mut bare = before.clone();
            bare.as_object_mut()
                .and_then(|members| members.remove("cniVersion"));
            holds(
                &before,
                &stage
                    .call("ADD", &container)
                    .set("/prevResult", bare)
                    .run()?
                    .result()?,
            )
        },
    ),
    case(
        "PRV-03",
        "a chain works in the oldest form too",
        Chained,
        |stage| {
            if !stage.supported().iter().any(|version| version == "0.2.0") {
                return Err(Stop::Skip("it does not support 0.2.0".to_owned()));
            }
            let container = stage.container("a")?;
            let before =
                json!({"cniVersion": "0.2.0", "ip4": {"ip": "10.88.7.7/16", "gateway": "10.88.0.1"}});
            let call = stage
                .call("ADD", &container)
                .with("/cniVersion", "0.2.0".into())
                .unset("runtimeConfig");
            let after = call.set("/prevResult", before.clone()).run()?.result()?;
            expect(
                after.get("ip4") == before.get("ip4"),
                before.to_string(),
                after.to_string(),
            )
        },
    ),
    case("PRV-04", "members of 1.1.0 are passed on", Chained, |stage| {
        let container = stage.container("a")?;
        let mut before = stage.attach_before(&container)?;
        let route = json!({"dst": "198.51.100.0/24", "mtu": 1400, "advmss": 1300, "priority": 7, "table": 100, "scope": 0});
        let link = json!({"name": "tap0", "mtu": 1400, "socketPath": "/run/x", "pciID": "0000:00:01.0"});
        for (key, added) in [("routes", &route), ("interfaces", &link)] {
            let members = before.as_object_mut().context("the result is no object")?;
            let entry = members.entry(key).or_insert(json!([]));
            entry
                .as_array_mut()
                .context("the result's member is no list")?
                .push(added.clone());
        }
        let after = stage
            .call("ADD", &container)
            .set("/prevResult", before)
            .run()?
            .result()?;
        expect(
            list(&after, "routes").contains(&route),
            format!("the route {route}"),
            after.to_string(),
        )?;
        expect(
            list(&after, "interfaces").contains(&link),
            format!("the interface {link}"),
            after.to_string(),
        )
    }),
    case(
        "PRV-05",
        "an address that points to no interface is no crash",
        Chained,
        |stage| {
            for (index, position) in [json!(-1), json!(99), Value::Null].into_iter().enumerate() {
                let container = stage.container(&format!("a{index}"))?;
                let mut before = stage.attach_before(&container)?;
                for address in before
                    .get_mut("ips")
                    .and_then(Value::as_array_mut)
                    .into_iter()
                    .flatten()
                {
                    if let Some(members) = address.as_object_mut() {
                        members.insert("interface".to_owned(), position.clone());
                    }
                }
                let answer = stage.call("ADD", &container).set("/prevResult", before).run()?;
                if answer.succeeded() {
                    drop(answer.result()?);
                } else {
                    drop(answer.error()?);
                }
            }
            Ok(())
        },
    ),
    case(
        "CHN-01",
        "without a previous result ADD is an error, DEL is not",
        Chained,
        |stage| {
            let container = stage.container("a")?;
            stage.call("ADD", &container).run()?.error()?;
            stage.del(&container)
        },
    ),
    case(
        "CHN-01",
        "without a previous result CHECK is an error",
        Chained,
        |stage| {
            if place(stage.version())? < place("0.4.0")? {
                return Err(Stop::Skip("CHECK came with 0.4.0".to_owned()));
            }
            stage
                .call("CHECK", &stage.container("a")?)
                .run()?
                .error()
                .map(drop)
        },
    ),
    case(
        "CHN-03",
        "portmap without mappings makes nothing",
        Type("portmap"),
        |stage| {
            let container = stage.container("a")?;
            let previous = stage.attach_before(&container)?;
            let before = Snapshot::take()?;
            let call = |verb: &str| {
                stage
                    .call(verb, &container)
                    .with("/prevResult", previous.clone())
                    .unset("runtimeConfig")
            };
            holds(&previous, &call("ADD").run()?.result()?)?;
            stage.unchanged_since(&before, "ADD of portmap without mappings")?;
            call("DEL").run()?.silent()
        },
    ),
    case(
        "CHN-03",
        "portmap refuses mappings that cannot be, and leaves nothing",
        Type("portmap"),
        |stage| {
            let container = stage.container("a")?;
            let previous = stage.attach_before(&container)?;
            let add = |mapping: Value| {
                let call = stage
                    .call("ADD", &container)
                    .with("/prevResult", previous.clone());
                call.set("/runtimeConfig", json!({"portMappings": [mapping]}))
            };
            // What all mappings share is made first, and taken away as far as it is this container's.
            add(json!({"hostPort": 20_999, "containerPort": 80, "protocol": "tcp"}))
                .run()?
                .result()?;
            stage.call("DEL", &container).run()?.silent()?;
            let before = Snapshot::take()?;
            for mapping in [
                json!({"hostPort": 0, "containerPort": 80, "protocol": "tcp"}),
                json!({"hostPort": 70_000, "containerPort": 80, "protocol": "tcp"}),
                json!({"hostPort": 8080, "containerPort": 80, "protocol": "icmp"}),
            ] {
                add(mapping).run()?.error()?;
                stage.unchanged_since(&before, "an ADD of portmap that failed")?;
            }
            Ok(())
        },
    ),
    case(
        "CHN-04",
        "the host forwards, and goes on after DEL",
        Type("bridge"),
        |stage| {
            let container = stage.container("a")?;
            stage.add(&container)?;
            forwards()?;
            stage.del(&container)?;
            forwards()
        },
    ),
];

fn forwards() -> Checked<()> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    let value = fs::read_to_string(path).with_context(|| format!("reading {path}"))?;
    expect(
        value.trim() == "1",
        "net.ipv4.ip_forward is 1",
        value.trim().to_owned(),
    )
}

/// Checks that a result has all that an earlier one had: interfaces, addresses and routes.
fn holds(before: &Value, after: &Value) -> Checked<()> {
    let wanted = || format!("at least {before}");
    let names = |result: &Value| {
        let names = list(result, "interfaces")
            .iter()
            .map(|one| one.get("name").cloned());
        names.collect::<Vec<_>>()
    };
    let has_names = names(before).iter().all(|name| names(after).contains(name));
    let has_addresses = addresses(before)
        .iter()
        .all(|address| addresses(after).contains(address));
    let has_routes = routes(before).len() <= routes(after).len();
    expect(
        has_names && has_addresses && has_routes,
        wanted(),
        after.to_string(),
    )
}
