//! VER: VERSION.

use serde_json::{Value, json};

use crate::cni::case::About::{Each, First};
use crate::cni::case::{Case, case};
use crate::cni::requirement::{VERSIONS, place};
use crate::report::{Checked, differs, expect};

pub(super) const CASES: &[Case] = &[
    case(
        "VER-01",
        "it lists versions, without any other variable",
        Each,
        |stage| {
            let text = json!({"cniVersion": stage.version()}).to_string();
            let answer = stage
                .host_call("VERSION")
                .only(&["CNI_COMMAND"])
                .text(text)
                .run()?;
            listed(&answer.result()?).map(drop)
        },
    ),
    case(
        "VER-01",
        "it needs no configuration and chokes on none",
        Each,
        |stage| {
            for text in ["", "x", "{}"] {
                let answer = stage
                    .host_call("VERSION")
                    .only(&["CNI_COMMAND"])
                    .text(text)
                    .run()?;
                listed(&answer.result()?)?;
            }
            listed(&stage.host_call("VERSION").unreadable().run()?.result()?).map(drop)
        },
    ),
    case("VER-02", "the answer is in the caller's version", Each, |stage| {
        for version in stage.supported() {
            let text = json!({"cniVersion": version}).to_string();
            let result = stage.host_call("VERSION").text(text).run()?.result()?;
            let own = result.get("cniVersion").cloned().unwrap_or_default();
            expect(
                own == version.as_str(),
                format!("cniVersion {version}"),
                own.to_string(),
            )?;
        }
        Ok(())
    }),
    case(
        "VER-03",
        "ADD and DEL work in each version that is listed",
        First,
        |stage| {
            for (index, version) in stage.supported().iter().enumerate() {
                let container = stage.container(&format!("a{index}"))?;
                for verb in ["ADD", "DEL"] {
                    let call = stage
                        .call(verb, &container)
                        .set("/cniVersion", version.as_str().into());
                    let answer = call.run()?;
                    if verb == "ADD" {
                        drop(answer.result()?)
                    } else {
                        answer.silent()?
                    }
                }
            }
            Ok(())
        },
    ),
    case(
        "VER-04",
        "it works with the made-up variables of libcni",
        Each,
        |stage| {
            let call = stage
                .host_call("VERSION")
                .var("CNI_NETNS", "dummy")
                .var("CNI_IFNAME", "dummy");
            let call = call
                .var("CNI_PATH", "dummy")
                .var("CNI_CONTAINERID", "")
                .var("CNI_ARGS", "");
            let text = json!({"cniVersion": stage.version()}).to_string();
            listed(&call.text(text).run()?.result()?).map(drop)
        },
    ),
];

/// The versions that an answer lists; at least one, and none that was never published.
fn listed(answer: &Value) -> Checked<Vec<String>> {
    let list = answer.get("supportedVersions").and_then(Value::as_array);
    let observed = answer.to_string();
    let Some(list) = list else {
        return differs("an answer with supportedVersions", observed);
    };
    let names: Vec<_> = list.iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let good = names.len() == list.len() && names.iter().any(|name| place(name).is_ok());
    expect(
        good,
        format!("supportedVersions with some of {}", VERSIONS.join(", ")),
        observed,
    )?;
    Ok(names)
}
