//! GC.

use std::path::Path;

use serde_json::{Value, json};

use crate::cni::call::Call;
use crate::cni::case::About::{Each, First, Type};
use crate::cni::case::{Case, case};
use crate::cni::container::Container;
use crate::cni::requirement::VERSIONS;
use crate::cni::snapshot::Snapshot;
use crate::cni::stage::Stage;
use crate::report::{Checked, expect};

/// The key of the specification; tag spec-v1.1.0 called it `cni.dev/attachments`, and libcni sends both.
const KEYS: [&str; 2] = ["cni.dev/valid-attachments", "cni.dev/attachments"];

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
    case("GC-06", "a delegate is called", First, |stage| {
        let (probe, call) = stage.probed("GC", &stage.container("a")?)?;
        let call = call.only(&["CNI_COMMAND", "CNI_PATH"]);
        KEYS.iter()
            .fold(call, |call, key| with_key(call, key, &json!([])))
            .run()?
            .silent()?;
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
            let conf = stage.conf();
            let network = conf.get("name").and_then(Value::as_str).unwrap_or_default();
            let last = format!("/var/lib/cni/networks/{network}/last_reserved_ip.0");
            expect(
                Path::new(&last).exists(),
                format!("the file {last}"),
                "it is gone",
            )
        },
    ),
];

fn entry(container: &Container) -> Value {
    json!({"containerID": container.id, "ifname": container.ifname})
}

fn garbage(stage: &Stage<'_>, valid: &Value) -> Checked<()> {
    let call = stage.host_call("GC");
    KEYS.iter()
        .fold(call, |call, key| with_key(call, key, valid))
        .run()?
        .silent()
}

/// The key has a slash in it, so that it is no path.
fn with_key(mut call: Call, key: &str, valid: &Value) -> Call {
    if let Some(members) = call.conf.as_object_mut() {
        members.insert(key.to_owned(), valid.clone());
    }
    call
}
