//! GC.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::{Value, json};

use super::add::attached;
use crate::cni::call::{Call, at_once};
use crate::cni::case::About::{Each, First, Type};
use crate::cni::case::{Case, case};
use crate::cni::container::Container;
use crate::cni::probe::Probe;
use crate::cni::requirement::VERSIONS;
use crate::cni::shape::addresses;
use crate::cni::snapshot::Snapshot;
use crate::cni::stage::Stage;
use crate::report::{Checked, expect};

/// The key of the specification, and what tag spec-v1.1.0 called it; libcni sends both.
const KEY: &str = "cni.dev/valid-attachments";
const KEY_OF_TAG: &str = "cni.dev/attachments";
const KEYS: [&str; 2] = [KEY, KEY_OF_TAG];

/// So many containers are attached while GC is at work.
const CROWD: usize = 8;

pub(super) const CASES: &[Case] = &[
    case(
        "GC-01",
        "a configuration before 1.1.0, or of no version, is code 1",
        Each,
        |stage| {
            stage.host_call("GC").unset("cniVersion").run()?.fails_in(&[1])?;
            for version in VERSIONS.iter().filter(|version| **version != "1.1.0") {
                stage
                    .host_call("GC")
                    .set("/cniVersion", (*version).into())
                    .run()?
                    .fails_in(&[1])?;
            }
            Ok(())
        },
    ),
    case(
        "GC-02",
        "what is not valid goes, what is valid stays",
        First,
        |stage| {
            stage.settled()?;
            let (valid, stale) = (stage.container("a")?, stage.container("b")?);
            stage.add(&valid)?;
            let before = Snapshot::take()?;
            stage.add(&stale)?;
            garbage(stage, &json!([entry(&valid)]))?;
            expect(
                valid.has_interface()?,
                "the valid container keeps its interface",
                "it is gone",
            )?;
            stage.unchanged_since(
                &before,
                "ADD of a second container, and GC with the first as valid",
            )
        },
    ),
    case(
        "GC-02",
        "the list is taken by the key of the specification alone",
        First,
        |stage| by_one_key(stage, KEY),
    ),
    case(
        "GC-02",
        "the list is taken by the key of the tag spec-v1.1.0 alone",
        First,
        |stage| by_one_key(stage, KEY_OF_TAG),
    ),
    case("GC-03", "without a list nothing goes", First, |stage| {
        let container = stage.container("a")?;
        stage.add(&container)?;
        let before = Snapshot::take()?;
        stage.host_call("GC").run()?.silent()?;
        expect(
            container.has_interface()?,
            "the container keeps its interface",
            "it is gone",
        )?;
        stage.unchanged_since(&before, "GC without a list")
    }),
    case("GC-03", "null is the empty list of libcni", First, |stage| {
        let before = stage.settled()?;
        let container = stage.container("a")?;
        stage.add(&container)?;
        garbage(stage, &Value::Null)?;
        stage.unchanged_since(&before, "ADD, and GC with null")
    }),
    case("GC-04", "another network's containers stay", First, |stage| {
        stage.settled()?;
        let container = stage.container("a")?;
        stage
            .call("ADD", &container)
            .set("/name", "another".into())
            .run()?
            .result()?;
        let before = Snapshot::take()?;
        garbage(stage, &json!([]))?;
        expect(
            container.has_interface()?,
            "the container keeps its interface",
            "it is gone",
        )?;
        stage.unchanged_since(&before, "GC of this network with an empty list")
    }),
    case("GC-05", "success is silent", Each, |stage| {
        garbage(stage, &json!([]))
    }),
    case("GC-05", "what a delegate fails in is told", First, |stage| {
        let (probe, call) = probed(stage)?;
        probe.fails("GC", 114, "the probe keeps it")?;
        let answer = call.run()?;
        probe.got("GC")?;
        let error = answer.error()?;
        if error.text.contains("the probe keeps it") {
            return Ok(());
        }
        answer.not("an error with the words of the delegate")
    }),
    case("GC-06", "a delegate is called", First, |stage| {
        let (probe, call) = probed(stage)?;
        call.run()?.silent()?;
        probe.got("GC")
    }),
    case(
        "GC-07",
        "the files of the store itself stay",
        Type("host-local"),
        |stage| {
            let container = stage.container("a")?;
            stage.add(&container)?;
            garbage(stage, &json!([]))?;
            for name in ["last_reserved_ip.0", "lock"] {
                let file = format!("{}/{name}", store(stage));
                expect(
                    Path::new(&file).exists(),
                    format!("the file {file}"),
                    "it is gone",
                )?;
            }
            Ok(())
        },
    ),
    case(
        "GC-07",
        "a reservation of an older version, with the container's id alone, is that container's",
        Type("host-local"),
        |stage| {
            stage.add(&stage.container("a")?)?;
            let file = format!("{}/10.99.0.77", store(stage));
            fs::write(&file, "of-old").with_context(|| format!("writing {file}"))?;
            let valid = json!([{"containerID": "of-old", "ifname": "eth0"}]);
            for (valid, stays) in [(valid, true), (json!([]), false)] {
                garbage(stage, &valid)?;
                let is_there = Path::new(&file).exists();
                let expected = format!("with {valid} as valid the file {file} stays: {stays}");
                expect(is_there == stays, expected, format!("it is there: {is_there}"))?;
            }
            Ok(())
        },
    ),
    case(
        "GC-08",
        "GC and ADDs at the same time do each other no harm",
        First,
        |stage| {
            let before = stage.settled()?;
            let some = |name: &str, count: usize| {
                let containers = (0..count).map(|index| stage.container(&format!("{name}{index}")));
                containers.collect::<anyhow::Result<Vec<_>>>()
            };
            let (stale, kept, new) = (some("s", 4)?, some("k", 4)?, some("n", CROWD)?);
            stale.iter().try_for_each(|one| stage.add(one).map(drop))?;
            let mut results = kept
                .iter()
                .map(|one| stage.add(one))
                .collect::<Checked<Vec<_>>>()?;
            let valid: Vec<_> = kept.iter().chain(&new).map(entry).collect();
            let mut calls: Vec<_> = new.iter().map(|one| stage.call("ADD", one)).collect();
            calls.insert(CROWD / 2, garbage_call(stage, &json!(valid)));
            let mut answers = at_once(&calls)?;
            answers.remove(CROWD / 2).silent()?;
            for answer in &answers {
                results.push(answer.result()?);
            }
            for one in &stale {
                expect(
                    !one.has_interface()?,
                    "what is not valid is detached",
                    format!("{} has its interface", one.id),
                )?;
            }
            // What is given afterwards is nobody's before, so that each reservation is still there.
            let last = some("l", CROWD)?;
            for one in &last {
                results.push(stage.add(one)?);
            }
            let mut given = BTreeSet::new();
            for (container, result) in kept.iter().chain(&new).chain(&last).zip(&results) {
                attached(container, result)?;
                for address in addresses(result) {
                    expect(
                        given.insert(address),
                        "an address of its own for each container",
                        format!("{address} twice"),
                    )?;
                }
            }
            garbage(stage, &json!([]))?;
            stage.unchanged_since(&before, "ADDs beside a GC, and a GC with an empty list")
        },
    ),
];

/// The directory of host-local's network.
fn store(stage: &Stage<'_>) -> String {
    let conf = stage.conf();
    let network = conf.get("name").and_then(Value::as_str).unwrap_or_default();
    format!("/var/lib/cni/networks/{network}")
}

/// GC with an empty list, of a plugin that is made to run a program of the runner's.
fn probed(stage: &Stage<'_>) -> Checked<(Probe, Call)> {
    let (probe, call) = stage.probed("GC", &stage.container("a")?)?;
    let call = call.only(&["CNI_COMMAND", "CNI_PATH"]);
    let call = KEYS
        .iter()
        .fold(call, |call, key| with_key(call, key, &json!([])));
    Ok((probe, call))
}

/// What is not in a list under this key goes, and what is stays.
fn by_one_key(stage: &Stage<'_>, key: &str) -> Checked<()> {
    stage.settled()?;
    let (valid, stale) = (stage.container("a")?, stage.container("b")?);
    stage.add(&valid)?;
    let before = Snapshot::take()?;
    stage.add(&stale)?;
    let call = with_key(stage.host_call("GC"), key, &json!([entry(&valid)]));
    call.run()?.silent()?;
    stage.unchanged_since(&before, &format!("ADD of a second container, and GC by {key}"))
}

fn entry(container: &Container) -> Value {
    json!({"containerID": container.id, "ifname": container.ifname})
}

fn garbage(stage: &Stage<'_>, valid: &Value) -> Checked<()> {
    garbage_call(stage, valid).run()?.silent()
}

fn garbage_call(stage: &Stage<'_>, valid: &Value) -> Call {
    let call = stage.host_call("GC");
    KEYS.iter().fold(call, |call, key| with_key(call, key, valid))
}

/// The key has a slash in it, so that it is no path.
fn with_key(mut call: Call, key: &str, valid: &Value) -> Call {
    if let Some(members) = call.conf.as_object_mut() {
        members.insert(key.to_owned(), valid.clone());
    }
    call
}
