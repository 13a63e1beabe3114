//! DLG: programs that a plugin runs.

use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::cni::case::About::{First, Type};
use crate::cni::case::{Case, case};
use crate::cni::probe::Probe;
use crate::cni::shape::addresses;
use crate::report::expect;

/// So long the file of a delegate is being written; the reference's library tries for five seconds.
const WRITTEN_AFTER: Duration = Duration::from_secs(1);

pub(super) const CASES: &[Case] = &[
    case(
        "DLG-01",
        "a delegate gets a complete configuration",
        First,
        |stage| {
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            call.run()?.result()?;
            let (own, given) = (stage.conf(), probe.conf("ADD")?);
            for key in ["name", "cniVersion"] {
                let same = own.get(key) == given.get(key);
                expect(same, format!("the same {key} as the plugin's"), given.to_string())?;
            }
            expect(
                given.get("type").is_some_and(Value::is_string),
                "a type",
                given.to_string(),
            )
        },
    ),
    case("DLG-01", "a delegate gets the environment", First, |stage| {
        let container = stage.container("a")?;
        let (probe, call) = stage.probed("ADD", &container)?;
        let call = call.var("CNI_ARGS", "IgnoreUnknown=1;FOO=bar");
        call.run()?.result()?;
        let env = probe.env("ADD")?;
        for (name, value) in &call.vars {
            let line = format!("{name}={value}");
            expect(
                env.lines().any(|own| own == line),
                format!("the variable {line}"),
                env.clone(),
            )?;
        }
        Ok(())
    }),
    case("DLG-01", "a delegate's words are passed on", First, |stage| {
        let container = stage.container("a")?;
        let (_, call) = stage.probed("ADD", &container)?;
        let answer = call.run()?;
        let said = answer.stderr.contains("the probe was called");
        expect(
            said,
            "on standard error what the delegate says there",
            answer.stderr,
        )
    }),
    case(
        "DLG-02",
        "a delegate that the plugin does not know is run, and its result used",
        First,
        |stage| {
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            let result = call.run()?.result()?;
            probe.got("ADD")?;
            expect(
                addresses(&result).contains(&Probe::ADDRESS),
                Probe::ADDRESS,
                result.to_string(),
            )
        },
    ),
    case(
        "DLG-03",
        "a delegate's result without cniVersion is the configuration's",
        First,
        |stage| {
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            probe.answers(&json!({"ips": [Probe::address(stage.version())]}))?;
            let result = call.run()?.result()?;
            expect(
                addresses(&result).contains(&Probe::ADDRESS),
                Probe::ADDRESS,
                result.to_string(),
            )
        },
    ),
    case(
        "DLG-04",
        "a delegate whose file is still being written is tried again",
        First,
        |stage| {
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            let file = probe.being_written()?;
            let writer = thread::spawn(move || {
                thread::sleep(WRITTEN_AFTER);
                drop(file);
            });
            let answer = call.run();
            // A thread that only sleeps does not panic.
            writer.join().ok();
            answer?.result()?;
            probe.got("ADD")
        },
    ),
    case(
        "PRV-06",
        "a delegate gets the previous result with CHECK and with DEL",
        First,
        |stage| {
            let container = stage.container("a")?;
            let (probe, add) = stage.probed("ADD", &container)?;
            let result = add.run()?.result()?;
            for verb in ["CHECK", "DEL"] {
                let call = add.clone().with_var("CNI_COMMAND", verb);
                let answer = call.with("/prevResult", result.clone()).run()?;
                probe.got(verb)?;
                let given = probe.conf(verb)?;
                let previous = given.get("prevResult").map(addresses).unwrap_or_default();
                expect(
                    previous == [Probe::ADDRESS],
                    format!("with {verb} the delegate gets {result} as prevResult"),
                    format!("{given}; {}", answer.told()),
                )?;
            }
            Ok(())
        },
    ),
    case(
        "PRV-06",
        "the previous result is enough to leave nothing, without a namespace",
        Type("flannel"),
        |stage| {
            let before = stage.settled()?;
            let container = stage.container("a")?;
            let result = stage.add(&container)?;
            container.end()?;
            let call = stage.call("DEL", &container).with("/prevResult", result);
            call.without(&["CNI_NETNS"]).run()?.silent()?;
            stage.unchanged_since(
                &before,
                "ADD, the namespace's end, and DEL with the previous result",
            )
        },
    ),
    case(
        "DLG-05",
        "each verb of an attachment reaches the delegate",
        First,
        |stage| {
            let container = stage.container("a")?;
            let (probe, add) = stage.probed("ADD", &container)?;
            let result = add.run()?.result()?;
            let later = |verb: &str| {
                add.clone()
                    .var("CNI_COMMAND", verb)
                    .with("/prevResult", result.clone())
            };
            later("CHECK").run()?;
            probe.got("CHECK")?;
            later("DEL").run()?.silent()?;
            probe.got("DEL")
        },
    ),
];
