//! ADD that fails.

use serde_json::json;

use crate::cni::call::Call;
use crate::cni::case::About::{First, List, Type};
use crate::cni::case::{Case, case};
use crate::report::{Checked, expect};

pub(super) const CASES: &[Case] = &[
    case(
        "ADD-06",
        "a delegate that fails is called with DEL before the error is returned",
        First,
        |stage| {
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            probe.fails("ADD", 111, "the probe refuses")?;
            call.run()?.error()?;
            let calls = probe.calls();
            let cleaned = calls.first().is_some_and(|verb| verb == "ADD")
                && calls.iter().skip(1).any(|verb| verb == "DEL");
            expect(
                cleaned,
                "the delegate is called with ADD, then with DEL",
                format!("the calls {calls:?}"),
            )
        },
    ),
    case(
        "ADD-07",
        "an ADD that fails because of its delegate leaves nothing, and DEL succeeds",
        First,
        |stage| {
            let before = stage.settled()?;
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            probe.fails("ADD", 111, "the probe refuses")?;
            call.run()?.error()?;
            expect(
                !container.has_interface()?,
                "no interface in the container",
                "there is one",
            )?;
            stage.unchanged_since(&before, "an ADD whose delegate fails")?;
            let (_, call) = stage.probed("DEL", &container)?;
            call.run()?.silent()
        },
    ),
    case(
        "ADD-07",
        "an ADD that fails because of its delegate's answer leaves nothing",
        First,
        |stage| {
            let before = stage.settled()?;
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            probe.answers(&json!({"cniVersion": stage.version(), "ips": "none"}))?;
            call.run()?.error()?;
            stage.unchanged_since(&before, "an ADD whose delegate answers nonsense")
        },
    ),
    case(
        "ADD-07",
        "a list that came only half way leaves nothing once it is detached",
        List,
        |stage| {
            let before = stage.settled_by_list()?;
            let container = stage.container("a")?;
            stage.add(&container)?;
            stage.list_del(&container, None)?;
            stage.unchanged_since(&before, "ADD of the first plugin, and DEL of the list")
        },
    ),
    case(
        "ADD-12",
        "a subnet file that is not there yet is told as a matter of time, or in the plugin's own code",
        Type("flannel"),
        |stage| {
            let call = stage.call("ADD", &stage.container("a")?);
            may_pass(&call.set("/subnetFile", "/run/flannel/none".into()))
        },
    ),
    case(
        "ADD-12",
        "a pool that is exhausted is told as a matter of time, or in the plugin's own code",
        Type("host-local"),
        |stage| {
            // Of four addresses two are the network's and the broadcast's, one the gateway's.
            let add = |id: &str| -> Checked<Call> {
                let call = stage.call("ADD", &stage.container(id)?);
                Ok(call.set("/ipam/ranges", json!([[{"subnet": "10.99.1.0/30"}]])))
            };
            add("a")?.run()?.result()?;
            may_pass(&add("b")?)
        },
    ),
];

/// Checks that a call fails with what a runtime may take for a matter of time: no code of the specification says that the
/// caller is to blame.
fn may_pass(call: &Call) -> Checked<()> {
    let answer = call.run()?;
    let error = answer.error()?;
    if error.code == 11 || error.code >= 100 {
        return Ok(());
    }
    answer.not("an error of code 11, or of one from 100 on")
}
