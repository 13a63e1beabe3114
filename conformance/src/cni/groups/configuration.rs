//! CFG: the configuration on standard input.

use serde_json::{Value, json};

use crate::cni::case::About::{Each, First, Ipam, Type};
use crate::cni::case::{Case, case};
use crate::cni::snapshot::Snapshot;
use crate::report::{Stop, expect};

pub(super) const CASES: &[Case] = &[
    case("CFG-01", "what is no JSON object is code 6", Each, |stage| {
        let container = stage.container("a")?;
        for text in [
            "",
            "[]",
            "5",
            "{",
            "{\"name\":",
            "\u{feff}{\"name\":\"a\"}",
            "{\"name\":\"a\"} x",
        ] {
            stage.call("ADD", &container).text(text).run()?.fails_in(&[6])?;
        }
        Ok(())
    }),
    case("CFG-01", "null has no name, which is code 7", Each, |stage| {
        let call = stage.call("ADD", &stage.container("a")?).text("null");
        call.run()?.fails_in(&[7]).map(drop)
    }),
    case("CFG-01", "what cannot be read is code 5", Each, |stage| {
        let container = stage.container("a")?;
        stage
            .call("ADD", &container)
            .unreadable()
            .run()?
            .fails_in(&[5])
            .map(drop)
    }),
    case(
        "CFG-02",
        "a name that is missing or has other characters is code 7",
        Each,
        |stage| {
            let container = stage.container("a")?;
            stage
                .call("ADD", &container)
                .unset("name")
                .run()?
                .fails_in(&[7])?;
            for name in ["", "-a", "a b", "a/b", "ä"] {
                for verb in ["ADD", "DEL"] {
                    stage
                        .call(verb, &container)
                        .set("/name", name.into())
                        .run()?
                        .fails_in(&[7])?;
                }
            }
            Ok(())
        },
    ),
    case("CFG-02", "a name that is no text is code 6", Each, |stage| {
        let container = stage.container("a")?;
        stage
            .call("ADD", &container)
            .set("/name", json!(["a"]))
            .run()?
            .fails_in(&[6])
            .map(drop)
    }),
    case(
        "CFG-03",
        "without a version the answer is in the oldest form",
        First,
        |stage| {
            let oldest = ["0.1.0", "0.2.0"];
            if !stage
                .supported()
                .iter()
                .any(|version| oldest.contains(&version.as_str()))
            {
                return Err(Stop::Skip("it does not support the oldest form".to_owned()));
            }
            let container = stage.container("a")?;
            for call in [
                stage.call("ADD", &container).unset("cniVersion"),
                stage.call("ADD", &container).set("/cniVersion", "".into()),
            ] {
                let result = call.run()?.result()?;
                let known = result
                    .get("cniVersion")
                    .and_then(Value::as_str)
                    .is_some_and(|own| oldest.contains(&own));
                let good = known
                    && result.get("ips").is_none()
                    && (result.get("ip4").is_some() || result.get("ip6").is_some());
                expect(
                    good,
                    "a result of 0.1.0 or 0.2.0 with ip4 or ip6",
                    result.to_string(),
                )?;
                stage
                    .call("DEL", &container)
                    .unset("cniVersion")
                    .run()?
                    .silent()?;
            }
            Ok(())
        },
    ),
    case(
        "CFG-04",
        "a version that is not supported is code 1",
        Each,
        |stage| {
            let container = stage.container("a")?;
            for version in ["1.0", "v1.0.0", "0.5.0", "9.9.9", " 1.0.0", "x"] {
                for verb in ["ADD", "DEL"] {
                    stage
                        .call(verb, &container)
                        .set("/cniVersion", version.into())
                        .run()?
                        .fails_in(&[1])?;
                }
            }
            Ok(())
        },
    ),
    case(
        "CFG-04",
        "the version that was asked for is named",
        Each,
        |stage| {
            let container = stage.container("a")?;
            let call = stage.call("ADD", &container).set("/cniVersion", "9.9.9".into());
            call.run()?.fails_naming(&[1], &["9.9.9"]).map(drop)
        },
    ),
    case("CFG-04", "a version that is no text is code 6", Each, |stage| {
        let container = stage.container("a")?;
        stage
            .call("ADD", &container)
            .set("/cniVersion", json!(1))
            .run()?
            .fails_in(&[6])
            .map(drop)
    }),
    case("CFG-05", "unknown keys are passed over", First, |stage| {
        stage.lives(|call| {
            let call = call
                .set("/unknown", json!({"deep": [null]}))
                .set("/cni.dev.x", json!([1]));
            call.set("/args", json!({"org.example": {"a": 1}}))
        })
    }),
    case(
        "CFG-05",
        "capabilities that a runtime left in are passed over",
        First,
        |stage| stage.lives(|call| call.set("/capabilities", json!({"portMappings": true, "mac": false}))),
    ),
    case("CFG-06", "null is the same as absent", First, |stage| {
        stage.lives(|call| {
            call.set("/dns", Value::Null)
                .set("/ipMasq", Value::Null)
                .set("/mtu", Value::Null)
        })
    }),
    case("CFG-06", "of duplicate keys the last counts", First, |stage| {
        stage.lives(|call| {
            let doubled = call
                .conf
                .to_string()
                .replacen('{', "{\"name\":\"-\",\"cniVersion\":\"9.9.9\",", 1);
            call.text(doubled)
        })
    }),
    case("CFG-07", "keys are found in any case", First, |stage| {
        stage.lives(|call| {
            let text = call.conf.to_string();
            let text = text
                .replace("\"name\"", "\"Name\"")
                .replace("\"cniVersion\"", "\"CNIVersion\"");
            call.text(
                text.replace("\"ipam\"", "\"IPAM\"")
                    .replace("\"delegate\"", "\"Delegate\""),
            )
        })
    }),
    case(
        "CFG-08",
        "integers above 32 bits are taken where nobody asks for them",
        First,
        |stage| {
            stage.lives(|call| {
                call.set("/large", json!(4_294_967_296_u64))
                    .set("/larger", json!(u64::MAX))
            })
        },
    ),
    case(
        "CFG-09",
        "name service settings of the configuration reach the result",
        Type("bridge"),
        |stage| {
            let container = stage.container("a")?;
            let dns = json!({"nameservers": ["10.0.0.10"], "domain": "a.b", "search": ["a.b"], "options": ["ndots:5"]});
            let result = stage
                .call("ADD", &container)
                .set("/dns", dns.clone())
                .run()?
                .result()?;
            let own = result.get("dns").cloned().unwrap_or_default();
            expect(own == dns, format!("dns {dns}"), own.to_string())
        },
    ),
    case(
        "CFG-09",
        "ipMasq makes rules that masquerade, and without it there are none",
        Type("bridge"),
        |stage| {
            for is_asked in [false, true] {
                let container = stage.container(&format!("a-{is_asked}"))?;
                let before = Snapshot::take()?;
                let call = stage.call("ADD", &container).set("/ipMasq", is_asked.into());
                call.run()?.result()?;
                let change = Snapshot::take()?.since(&before);
                expect(
                    change.to_lowercase().contains("masquerade") == is_asked,
                    format!("with ipMasq {is_asked} rules that masquerade: {is_asked}"),
                    change,
                )?;
            }
            Ok(())
        },
    ),
    case("CFG-10", "keys of a runtime may be null", Each, |stage| {
        let container = stage.container("a")?;
        let call = stage.call("DEL", &container).set("/prevResult", Value::Null);
        call.set("/runtimeConfig", Value::Null)
            .set("/args", Value::Null)
            .run()?
            .silent()
    }),
    case("CFG-10", "keys of a runtime may be null in ADD", First, |stage| {
        stage.lives(|call| {
            let call = call.set("/prevResult", Value::Null);
            call.set("/runtimeConfig", Value::Null).set("/args", Value::Null)
        })
    }),
    case(
        "CFG-11",
        "ranges that cannot be are refused",
        Type("host-local"),
        |stage| {
            let ranges = [
                json!([[{"subnet": "10.1.2.3/24"}]]),
                json!([[{"subnet": "10.1.2.0/31"}]]),
                json!([[{"subnet": "10.1.2.0/32"}]]),
                json!([[{"subnet": "010.1.2.0/24"}]]),
                json!([[{"subnet": "x"}]]),
                json!([[{"subnet": "10.1.2.0/24", "rangeStart": "10.1.3.1"}]]),
                json!([[{"subnet": "10.1.2.0/24"}, {"subnet": "fd00::/64"}]]),
                json!([[{"subnet": "10.1.2.0/24"}], [{"subnet": "10.1.2.128/25"}]]),
                json!([]),
            ];
            let container = stage.container("a")?;
            for given in ranges {
                stage
                    .call("ADD", &container)
                    .set("/ipam/ranges", given)
                    .run()?
                    .error()?;
            }
            Ok(())
        },
    ),
    case(
        "CFG-12",
        "hairpin and promiscuous mode exclude each other, but for DEL",
        Type("bridge"),
        |stage| {
            let container = stage.container("a")?;
            let both = |verb: &str| {
                stage
                    .call(verb, &container)
                    .set("/hairpinMode", true.into())
                    .set("/promiscMode", true.into())
            };
            both("ADD").run()?.error()?;
            both("DEL").run()?.silent()
        },
    ),
    case(
        "CFG-12",
        "addresses for an interface that is kept down are refused",
        Type("bridge"),
        |stage| {
            let call = stage.call("ADD", &stage.container("a")?);
            call.set("/disableContainerInterface", true.into())
                .run()?
                .error()
                .map(drop)
        },
    ),
    case(
        "CFG-13",
        "delegates that cannot be are refused",
        Type("flannel"),
        |stage| {
            let container = stage.container("a")?;
            for delegate in [
                json!({"name": "a"}),
                json!({"ipam": {}}),
                json!({"type": 5}),
                json!({"type": "nowhere"}),
            ] {
                stage
                    .call("ADD", &container)
                    .set("/delegate", delegate)
                    .run()?
                    .error()?;
            }
            Ok(())
        },
    ),
    case(
        "CFG-13",
        "without subnet file ADD fails",
        Type("flannel"),
        |stage| {
            let container = stage.container("a")?;
            stage
                .call("ADD", &container)
                .set("/subnetFile", "/run/flannel/none".into())
                .run()?
                .error()
                .map(drop)
        },
    ),
    case("CFG-09", "the type of address management is run", Ipam, |stage| {
        let container = stage.container("a")?;
        let result = stage.add(&container)?;
        expect(
            result.get("ips").is_some() || result.get("ip4").is_some(),
            "addresses",
            result.to_string(),
        )?;
        stage.del(&container)
    }),
];
