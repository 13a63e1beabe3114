//! CHK: CHECK.

use std::fs;

use anyhow::Context;
use serde_json::Value;

use crate::cni::case::About::{Each, First, Ipam, List};
use crate::cni::case::{Case, case};
use crate::cni::container::Container;
use crate::cni::host_end::host_end;
use crate::cni::requirement::{VERSIONS, place};
use crate::cni::shape::routes;
use crate::cni::snapshot::{Snapshot, json, printed};
use crate::cni::stage::Stage;
use crate::lab::text;
use crate::report::{Checked, Stop};

pub(super) const CASES: &[Case] = &[
    case(
        "CHK-01",
        "a configuration before 0.4.0, or of no version, is code 1",
        Each,
        |stage| {
            let container = stage.container("a")?;
            stage
                .call("CHECK", &container)
                .unset("cniVersion")
                .run()?
                .fails_in(&[1])?;
            for version in VERSIONS
                .iter()
                .filter(|version| place(version).ok() < place("0.4.0").ok())
            {
                stage
                    .call("CHECK", &container)
                    .set("/cniVersion", (*version).into())
                    .run()?
                    .fails_in(&[1])?;
            }
            Ok(())
        },
    ),
    case(
        "CHK-02",
        "without a previous result it is an error",
        First,
        |stage| {
            let container = stage.container("a")?;
            stage.add(&container)?;
            stage.call("CHECK", &container).run()?.error().map(drop)
        },
    ),
    case("CHK-03", "an address that is gone is found", First, |stage| {
        finds(stage, |container| {
            container.ip(&["address", "flush", "dev", "eth0"]).map(drop)
        })
    }),
    case("CHK-03", "a route that is gone is found", First, |stage| {
        let container = stage.container("a")?;
        let result = stage.add(&container)?;
        if routes(&result).is_empty() {
            return Err(Stop::Skip("the result has no routes".to_owned()));
        }
        check(stage, &container, &result)?;
        for family in ["-4", "-6"] {
            container.ip(&[family, "route", "flush", "default"])?;
            container.ip(&[family, "route", "flush", "proto", "boot"])?;
        }
        refuses(stage, &container, result)
    }),
    case("CHK-03", "an interface that is down is found", First, |stage| {
        finds(stage, |container| {
            container.ip(&["link", "set", "eth0", "down"]).map(drop)
        })
    }),
    case("CHK-03", "an interface that is gone is found", First, |stage| {
        finds(stage, |container| {
            container.ip(&["link", "delete", "eth0"]).map(drop)
        })
    }),
    case("CHK-03", "another MAC is found", First, |stage| {
        finds(stage, |container| {
            container
                .ip(&["link", "set", "eth0", "address", "0a:00:00:00:00:09"])
                .map(drop)
        })
    }),
    case(
        "CHK-03",
        "a host's end that left its bridge is found",
        First,
        |stage| {
            let container = stage.container("a")?;
            let result = stage.add(&container)?;
            let end = host_end(&container)?;
            let links = json(&["ip", "-j", "link", "show", "dev", &end])?;
            if links.iter().all(|link| text(link, "master").is_empty()) {
                return Err(Stop::Skip("the host's end is in no bridge".to_owned()));
            }
            check(stage, &container, &result)?;
            printed(&["ip", "link", "set", &end, "nomaster"])?;
            refuses(stage, &container, result)
        },
    ),
    case("CHK-03", "a namespace that is gone is found", First, |stage| {
        finds(stage, Container::end)
    }),
    case(
        "CHK-04",
        "files of address management that are gone are found",
        Ipam,
        |stage| {
            stage.settled()?;
            let before = Snapshot::take()?;
            let container = stage.container("a")?;
            let result = stage.add(&container)?;
            let after = Snapshot::take()?;
            let files = after.new_files(&before);
            if files.is_empty() {
                return Err(Stop::Skip(
                    "its ADD writes no file below /run, /tmp and /var/lib".to_owned(),
                ));
            }
            for file in files {
                fs::remove_file(file).with_context(|| format!("removing {file}"))?;
            }
            refuses(stage, &container, result)
        },
    ),
    case(
        "CHK-05",
        "what others added to the container is no difference",
        First,
        |stage| {
            let container = stage.container("a")?;
            let result = stage.add(&container)?;
            container.ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"])?;
            container.ip(&["address", "add", "192.0.2.2/24", "dev", "eth0"])?;
            container.ip(&["route", "add", "198.51.100.0/24", "dev", "eth0"])?;
            check(stage, &container, &result)
        },
    ),
    case("CHK-06", "it succeeds right after ADD", First, |stage| {
        let container = stage.container("a")?;
        let result = stage.add(&container)?;
        check(stage, &container, &result)
    }),
    case(
        "CHK-06",
        "it succeeds right after the whole list's ADD",
        List,
        |stage| {
            let container = stage.container("a")?;
            let result = stage.list_add(&container)?;
            stage.list_check(&container, &result)
        },
    ),
    case(
        "CHK-07",
        "a delegate is asked, and its error returned",
        First,
        |stage| {
            let container = stage.container("a")?;
            let (probe, add) = stage.probed("ADD", &container)?;
            let result = add.run()?.result()?;
            let call = add.var("CNI_COMMAND", "CHECK").with("/prevResult", result);
            probe.fails("CHECK", 113, "the probe misses it")?;
            let answer = call.run()?;
            probe.got("CHECK")?;
            answer.error().map(drop)
        },
    ),
];

fn check(stage: &Stage<'_>, container: &Container, result: &Value) -> Checked<()> {
    stage
        .call("CHECK", container)
        .with("/prevResult", result.clone())
        .run()?
        .silent()
}

fn refuses(stage: &Stage<'_>, container: &Container, result: Value) -> Checked<()> {
    stage
        .call("CHECK", container)
        .with("/prevResult", result)
        .run()?
        .error()
        .map(drop)
}

/// Checks that CHECK succeeds, and fails after something happened to the container.
fn finds(stage: &Stage<'_>, happens: fn(&Container) -> anyhow::Result<()>) -> Checked<()> {
    let container = stage.container("a")?;
    let result = stage.add(&container)?;
    check(stage, &container, &result)?;
    happens(&container)?;
    refuses(stage, &container, result)
}
