//! DEL: what goes, and that it always does.

use serde_json::{Value, json};

use crate::cni::case::About::{Each, First, Ipam, List, Type};
use crate::cni::case::{Case, case};
use crate::cni::container::Container;
use crate::cni::snapshot::Snapshot;
use crate::cni::stage::Stage;
use crate::report::{Checked, expect};

pub(super) const CASES: &[Case] = &[
    case(
        "DEL-01",
        "DEL without ADD succeeds, any number of times",
        Each,
        |stage| {
            let container = stage.container("a")?;
            (0..3).try_for_each(|_| stage.del(&container))
        },
    ),
    case(
        "DEL-01",
        "the second and the third DEL succeed, and nothing is left",
        First,
        |stage| {
            let before = stage.settled()?;
            let container = stage.container("a")?;
            stage.add(&container)?;
            (0..3).try_for_each(|_| stage.del(&container))?;
            expect(
                !container.has_interface()?,
                "no interface after DEL",
                "it is still there",
            )?;
            stage.unchanged_since(&before, "ADD and three DELs")
        },
    ),
    case(
        "DEL-01",
        "the list can be deleted again and again, and nothing is left",
        List,
        |stage| {
            let before = stage.settled_by_list()?;
            let container = stage.container("a")?;
            let result = stage.list_add(&container)?;
            stage.list_del(&container, Some(&result))?;
            stage.list_del(&container, None)?;
            stage.unchanged_since(&before, "ADD and two DELs")
        },
    ),
    case("DEL-02", "CNI_NETNS may be missing or empty", Each, |stage| {
        let container = stage.container("a")?;
        stage
            .call("DEL", &container)
            .without(&["CNI_NETNS"])
            .run()?
            .silent()?;
        stage.call("DEL", &container).var("CNI_NETNS", "").run()?.silent()
    }),
    case(
        "DEL-03",
        "a previous result may be absent, null or empty",
        Each,
        |stage| {
            let container = stage.container("a")?;
            stage.del(&container)?;
            for previous in [Value::Null, json!({}), json!({"cniVersion": stage.version()})] {
                remembering(stage, &container, previous)?;
            }
            Ok(())
        },
    ),
    case(
        "DEL-04",
        "a previous result that cannot be read is no obstacle",
        Each,
        |stage| {
            let container = stage.container("a")?;
            for previous in [
                json!(5),
                json!([]),
                json!({"cniVersion": "9.9.9"}),
                json!({"ips": "x"}),
            ] {
                remembering(stage, &container, previous)?;
            }
            Ok(())
        },
    ),
    case(
        "DEL-05",
        "the list leaves nothing though the namespace is gone",
        List,
        |stage| vanished(stage, |result| Some(result)),
    ),
    case(
        "DEL-05",
        "the list leaves nothing though namespace and result are gone",
        List,
        |stage| vanished(stage, |_| None),
    ),
    case(
        "DEL-06",
        "a delegate is called, and its error returned",
        First,
        |stage| {
            let container = stage.container("a")?;
            let (probe, add) = stage.probed("ADD", &container)?;
            let result = add.run()?.result()?;
            probe.fails("DEL", 112, "the probe keeps it")?;
            let answer = add.var("CNI_COMMAND", "DEL").with("/prevResult", result).run()?;
            probe.got("DEL")?;
            answer.error().map(drop)
        },
    ),
    case(
        "DEL-07",
        "ranges that became invalid still free what they gave",
        Type("host-local"),
        |stage| {
            let before = stage.settled()?;
            let ranges = [
                json!([[{"subnet": "10.1.0.1/24"}]]),
                json!([[{"subnet": "10.1.0.0/24"}]]),
                json!([]),
            ];
            for (index, given) in ranges.into_iter().enumerate() {
                let container = stage.container(&format!("a{index}"))?;
                stage.add(&container)?;
                stage
                    .call("DEL", &container)
                    .set("/ipam/ranges", given)
                    .run()?
                    .silent()?;
                stage.unchanged_since(&before, "ADD, and DEL with other ranges")?;
            }
            Ok(())
        },
    ),
    case(
        "DEL-07",
        "keys that became invalid still detach",
        Type("bridge"),
        |stage| {
            let before = stage.settled()?;
            let container = stage.container("a")?;
            stage.add(&container)?;
            stage
                .call("DEL", &container)
                .set("/hairpinMode", true.into())
                .set("/promiscMode", true.into())
                .run()?
                .silent()?;
            stage.unchanged_since(&before, "ADD, and DEL with keys that exclude each other")
        },
    ),
    case(
        "DEL-08",
        "another container's and another interface's DEL change nothing",
        First,
        |stage| {
            let container = stage.container("a")?;
            stage.add(&container)?;
            let before = Snapshot::take()?;
            stage.del(&stage.container("b")?)?;
            stage
                .call("DEL", &container)
                .var("CNI_CONTAINERID", "b")
                .without(&["CNI_NETNS"])
                .run()?
                .silent()?;
            stage.del(&container.with_ifname("net1"))?;
            expect(
                container.has_interface()?,
                "the container keeps its interface",
                "it is gone",
            )?;
            stage.unchanged_since(&before, "the DELs of others")
        },
    ),
    case("DEL-09", "nothing is on standard output", First, |stage| {
        let container = stage.container("a")?;
        let result = stage.add(&container)?;
        let answer = stage.call("DEL", &container).with("/prevResult", result).run()?;
        expect(
            answer.is_empty() && answer.succeeded(),
            "success in silence",
            answer.told(),
        )
    }),
    case("DEL-10", "a store that is not there is no error", Ipam, |stage| {
        stage.del(&stage.container("a")?)
    }),
    case(
        "DEL-11",
        "flannel's DEL needs no subnet file",
        Type("flannel"),
        |stage| {
            let container = stage.container("a")?;
            let del = || {
                stage
                    .call("DEL", &container)
                    .set("/subnetFile", "/run/flannel/none".into())
            };
            del().run()?.silent()?;
            stage.add(&container)?;
            del().run()?.silent()?;
            expect(
                !container.has_interface()?,
                "no interface after DEL",
                "it is still there",
            )
        },
    ),
];

/// DEL succeeds with this as the previous result.
fn remembering(stage: &Stage<'_>, container: &Container, previous: Value) -> Checked<()> {
    stage
        .call("DEL", container)
        .set("/prevResult", previous)
        .run()?
        .silent()
}

/// The list leaves nothing after the namespace's end, with what the runtime remembers of the result.
fn vanished(stage: &Stage<'_>, remembered: fn(&Value) -> Option<&Value>) -> Checked<()> {
    let before = stage.settled_by_list()?;
    let container = stage.container("a")?;
    let result = stage.list_add(&container)?;
    container.end()?;
    stage.list_del(&container, remembered(&result))?;
    stage.unchanged_since(&before, "ADD, the namespace's end, and DEL")
}
