//! ERR: error objects.

use crate::cni::call::ErrorObject;
use crate::cni::case::About::{Each, First};
use crate::cni::case::{Case, case};
use crate::cni::stage::Stage;
use crate::lab::text;
use crate::report::{Checked, expect};

/// The code for a container that the plugin does not know, which needs no DEL (CNI SPEC 1.1.0 §Error).
const UNKNOWN_CONTAINER: u64 = 3;

pub(super) const CASES: &[Case] = &[
    case(
        "ERR-01",
        "an error tells the version, a code and a message",
        Each,
        |stage| {
            for error in some(stage)? {
                let whole =
                    !text(&error.value, "cniVersion").is_empty() && !text(&error.value, "msg").is_empty();
                expect(
                    whole,
                    "an error with cniVersion, code and msg",
                    error.value.to_string(),
                )?;
            }
            Ok(())
        },
    ),
    case(
        "ERR-02",
        "codes below 100 are those of the specification",
        Each,
        |stage| {
            for error in some(stage)? {
                let known = matches!(error.code, 1..=7 | 11 | 50 | 51) || error.code >= 100;
                expect(
                    known,
                    "a code of the specification, or one from 100 on",
                    error.value.to_string(),
                )?;
            }
            Ok(())
        },
    ),
    case(
        "ERR-03",
        "a delegate's code 3 is passed on only where nothing is left",
        First,
        |stage| {
            let before = stage.settled()?;
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            probe.fails("ADD", UNKNOWN_CONTAINER, "the probe knows no such container")?;
            let error = call.run()?.error()?;
            if error.code != UNKNOWN_CONTAINER {
                return Ok(());
            }
            // By this code the runtime knows that it need not clean up.
            expect(
                !container.has_interface()?,
                "no interface in the container after code 3",
                "there is one",
            )?;
            stage.unchanged_since(&before, "an ADD that failed with code 3")
        },
    ),
    case(
        "ERR-03",
        "an ADD that fails beside what an earlier one made is not code 3",
        First,
        |stage| {
            let container = stage.container("a")?;
            stage.add(&container)?;
            let answer = stage.call("ADD", &container).run()?;
            if answer.error()?.code == UNKNOWN_CONTAINER {
                return answer.not("another code, as there is an attachment to be detached");
            }
            Ok(())
        },
    ),
    case("ERR-04", "a variable with a bad value is named", Each, |stage| {
        let container = stage.container("a")?;
        for name in ["CNI_CONTAINERID", "CNI_IFNAME"] {
            let call = stage.call("ADD", &container).var(name, "bad/one");
            call.run()?.fails_naming(&[4], &[name])?;
        }
        Ok(())
    }),
    case(
        "ERR-05",
        "a delegate's error keeps its code and its message",
        First,
        |stage| {
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            probe.fails("ADD", 117, "the probe has no more")?;
            call.run()?
                .fails_naming(&[117], &["the probe has no more"])
                .map(drop)
        },
    ),
];

/// Errors of several kinds.
fn some(stage: &Stage<'_>) -> Checked<Vec<ErrorObject>> {
    let container = stage.container("a")?;
    let add = || stage.call("ADD", &container);
    let calls = [
        add().var("CNI_COMMAND", "UPDATE"),
        add().without(&["CNI_IFNAME"]),
        add().text("{"),
        add().set("/cniVersion", "9.9.9".into()),
        add().unset("name"),
    ];
    calls.iter().map(|call| call.run()?.error()).collect()
}
