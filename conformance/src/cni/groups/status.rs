//! STA: STATUS.

use serde_json::json;

use crate::cni::case::About::{Each, First, Type};
use crate::cni::case::{Case, case};
use crate::cni::requirement::VERSIONS;
use crate::cni::snapshot::Snapshot;
use crate::report::expect;

/// Codes for a plugin that cannot serve (CNI SPEC 1.1.0 §Error).
const UNAVAILABLE: [u64; 2] = [50, 51];

pub(super) const CASES: &[Case] = &[
    case(
        "STA-01",
        "a configuration before 1.1.0, or of no version, is code 1",
        Each,
        |stage| {
            stage
                .host_call("STATUS")
                .unset("cniVersion")
                .run()?
                .fails_in(&[1])?;
            for version in VERSIONS.iter().filter(|version| **version != "1.1.0") {
                stage
                    .host_call("STATUS")
                    .set("/cniVersion", (*version).into())
                    .run()?
                    .fails_in(&[1])?;
            }
            Ok(())
        },
    ),
    case(
        "STA-02",
        "a plugin that is ready says so in silence, without variables of an attachment",
        Each,
        |stage| stage.host_call("STATUS").run()?.silent(),
    ),
    case(
        "STA-03",
        "flannel without subnet file is not available",
        Type("flannel"),
        |stage| {
            let call = stage
                .host_call("STATUS")
                .set("/subnetFile", "/run/flannel/none".into());
            call.run()?.fails_in(&UNAVAILABLE).map(drop)
        },
    ),
    case(
        "STA-04",
        "a pool without addresses is not available",
        Type("host-local"),
        |stage| {
            // Of four addresses two are the network's and the broadcast's, one the gateway's.
            let ranges = json!([[{"subnet": "10.99.1.0/30"}]]);
            let container = stage.container("a")?;
            stage
                .call("ADD", &container)
                .set("/ipam/ranges", ranges.clone())
                .run()?
                .result()?;
            let call = stage.host_call("STATUS").set("/ipam/ranges", ranges);
            call.run()?.fails_in(&UNAVAILABLE).map(drop)
        },
    ),
    case(
        "STA-05",
        "a delegate is asked, and its error returned",
        First,
        |stage| {
            let (probe, call) = stage.probed("STATUS", &stage.container("a")?)?;
            probe.fails("STATUS", 50, "the probe is not ready")?;
            let answer = call.only(&["CNI_COMMAND", "CNI_PATH"]).run()?;
            probe.got("STATUS")?;
            answer.fails_in(&UNAVAILABLE).map(drop)
        },
    ),
    case(
        "STA-05",
        "a delegate that is nowhere is an error",
        First,
        |stage| {
            let path = stage.delegate_path()?;
            stage
                .host_call("STATUS")
                .set(path, "no-such-program".into())
                .run()?
                .error()
                .map(drop)
        },
    ),
    case("STA-06", "it changes nothing", Each, |stage| {
        let before = Snapshot::take()?;
        stage.host_call("STATUS").run()?.silent()?;
        let change = Snapshot::take()?.since(&before);
        expect(change.is_empty(), "a host as it was", change)
    }),
];
