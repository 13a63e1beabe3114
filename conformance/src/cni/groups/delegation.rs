//! DLG: programs that a plugin runs.

use serde_json::{Value, json};

use crate::cni::case::About::First;
use crate::cni::case::{Case, case};
use crate::cni::probe::Probe;
use crate::cni::shape::addresses;
use crate::report::expect;

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
