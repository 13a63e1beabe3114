//! ENV: the process and its environment.

use crate::cni::call::Call;
use crate::cni::case::About::{Each, First, Ipam};
use crate::cni::case::{Case, case};
use crate::cni::probe::Probe;
use crate::cni::requirement::place;
use crate::cni::stage::Stage;
use crate::report::{Checked, Stop, expect};

/// The code for a bad environment (CNI SPEC 1.1.0 §Error).
const ENVIRONMENT: u64 = 4;

/// A change of a call.
type Change = fn(Call) -> Call;

pub(super) const CASES: &[Case] = &[
    case(
        "ENV-01",
        "success is exit 0 with a result, failure another status with one error",
        First,
        |stage| {
            let container = stage.container("a")?;
            stage.add(&container)?;
            stage
                .call("ADD", &container)
                .var("CNI_IFNAME", "a/b")
                .run()?
                .error()
                .map(drop)
        },
    ),
    case(
        "ENV-02",
        "ADD prints the result alone, DEL nothing",
        First,
        |stage| {
            let container = stage.container("a")?;
            stage.add(&container)?;
            stage.del(&container)
        },
    ),
    case(
        "ENV-03",
        "an unknown command is refused by its name",
        Each,
        |stage| {
            let container = stage.container("a")?;
            for verb in ["add", "UPDATE", "DELETE"] {
                let answer = stage.call("ADD", &container).var("CNI_COMMAND", verb).run()?;
                answer.fails_naming(&[ENVIRONMENT], &[verb])?;
            }
            Ok(())
        },
    ),
    case("ENV-04", "without a command it says what it is", Each, |stage| {
        for call in [stage.host_call("").only(&[]), stage.host_call("")] {
            let answer = call.text("").run()?;
            answer.silent()?;
            if answer.stderr.trim().is_empty() {
                return answer.not("words on standard error that tell what it is");
            }
        }
        Ok(())
    }),
    case(
        "ENV-05",
        "each variable that is missing is named",
        Each,
        |stage| {
            let names = ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"];
            let container = stage.container("a")?;
            let answer = stage.call("ADD", &container).without(&names).run()?;
            answer.fails_naming(&[ENVIRONMENT], &names)?;
            for name in names {
                stage
                    .call("ADD", &container)
                    .without(&[name])
                    .run()?
                    .fails_naming(&[ENVIRONMENT], &[name])?;
            }
            Ok(())
        },
    ),
    case("ENV-05", "an empty variable is a missing one", Each, |stage| {
        let container = stage.container("a")?;
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
            stage
                .call("ADD", &container)
                .var(name, "")
                .run()?
                .fails_naming(&[ENVIRONMENT], &[name])?;
        }
        Ok(())
    }),
    case("ENV-05", "DEL needs container and interface", Each, |stage| {
        let container = stage.container("a")?;
        for name in ["CNI_CONTAINERID", "CNI_IFNAME"] {
            stage
                .call("DEL", &container)
                .without(&[name])
                .run()?
                .fails_naming(&[ENVIRONMENT], &[name])?;
        }
        Ok(())
    }),
    case("ENV-05", "CHECK needs all three", Each, |stage| {
        if place(stage.version())? < place("0.4.0")? {
            return Err(Stop::Skip("CHECK came with 0.4.0".to_owned()));
        }
        let container = stage.container("a")?;
        for name in ["CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME"] {
            stage
                .call("CHECK", &container)
                .without(&[name])
                .run()?
                .fails_naming(&[ENVIRONMENT], &[name])?;
        }
        Ok(())
    }),
    case(
        "ENV-05",
        "CNI_PATH is not needed by who runs no program",
        Ipam,
        |stage| {
            let container = stage.container("a")?;
            stage
                .call("ADD", &container)
                .without(&["CNI_PATH"])
                .run()?
                .result()?;
            stage
                .call("DEL", &container)
                .without(&["CNI_PATH"])
                .run()?
                .silent()
        },
    ),
    case("ENV-05", "GC needs CNI_PATH", Each, |stage| {
        stage.needs("1.1.0")?;
        let call = stage.host_call("GC").set("/cniVersion", "1.1.0".into());
        call.without(&["CNI_PATH"])
            .run()?
            .fails_naming(&[ENVIRONMENT], &["CNI_PATH"])
            .map(drop)
    }),
    case(
        "ENV-06",
        "a container id with other characters is refused",
        Each,
        |stage| {
            let ids = ["-a", ".a", "_a", "a/b", "a:b", "a b", "../x", "a\nb", "ä"];
            refused(stage, "CNI_CONTAINERID", &ids)
        },
    ),
    case(
        "ENV-06",
        "a container id of all allowed characters is taken",
        First,
        |stage| stage.lives(|call| call.var("CNI_CONTAINERID", "9aZ_.-x")),
    ),
    case("ENV-06", "a container id of 64 digits is taken", First, |stage| {
        let id = "0123456789abcdef".repeat(4);
        stage.lives(move |call| call.var("CNI_CONTAINERID", &id))
    }),
    case(
        "ENV-07",
        "what the kernel takes for no name of an interface is refused",
        Each,
        |stage| {
            refused(
                stage,
                "CNI_IFNAME",
                &[".", "..", "a/b", "a:b", "a b", "sixteen-bytes-ab"],
            )
        },
    ),
    case(
        "ENV-07",
        "any good name of an interface is honoured",
        First,
        |stage| {
            let container = stage.container("a")?.with_ifname("net-1.x_fifteen");
            stage.add(&container)?;
            let there = container.has_interface()?;
            expect(
                there,
                "the interface net-1.x_fifteen in the container",
                "there is none of that name",
            )?;
            stage.del(&container)
        },
    ),
    case("ENV-08", "the first thing that is wrong is told", Each, |stage| {
        let container = stage.container("a")?;
        let add = || stage.call("ADD", &container);
        add()
            .without(&["CNI_NETNS"])
            .var("CNI_CONTAINERID", "-")
            .run()?
            .fails_naming(&[4], &["CNI_NETNS"])?;
        add()
            .var("CNI_CONTAINERID", "-")
            .text("{")
            .run()?
            .fails_in(&[4])?;
        add().text("{\"name\":5").run()?.fails_in(&[6])?;
        add()
            .text("{\"name\":\"-\",\"cniVersion\":\"9.9.9\"}")
            .run()?
            .fails_in(&[7])?;
        add()
            .text("{\"name\":\"a\",\"cniVersion\":\"9.9.9\"}")
            .run()?
            .fails_in(&[1])
            .map(drop)
    }),
    case(
        "ENV-09",
        "the plugin's own namespace is refused, and nothing is made",
        First,
        |stage| {
            let before = stage.settled()?;
            let container = stage.container("a")?;
            let call = stage
                .call("ADD", &container)
                .var("CNI_NETNS", "/proc/self/ns/net");
            call.run()?.fails_in(&[8])?;
            stage.unchanged_since(&before, "an ADD to the plugin's own namespace")
        },
    ),
    case(
        "ENV-10",
        "ADD to what is no namespace fails and leaves nothing",
        First,
        |stage| {
            let before = stage.settled()?;
            let container = stage.container("a")?;
            for path in ["/run/netns/nobody", "/run/flannel/subnet.env"] {
                stage
                    .call("ADD", &container)
                    .var("CNI_NETNS", path)
                    .run()?
                    .error()?;
                stage.unchanged_since(&before, &format!("an ADD to {path}"))?;
            }
            Ok(())
        },
    ),
    case(
        "ENV-11",
        "DEL whose namespace is gone or none frees what is the host's",
        First,
        |stage| {
            let before = stage.settled()?;
            let unusable: [(&str, Change); 4] = [
                ("whose path is gone", |call| call),
                ("with an empty path", |call| call.var("CNI_NETNS", "")),
                ("without a path", |call| call.without(&["CNI_NETNS"])),
                ("of a plain file", |call| {
                    call.var("CNI_NETNS", "/run/flannel/subnet.env")
                }),
            ];
            for (index, (what, change)) in unusable.into_iter().enumerate() {
                let container = stage.container(&format!("a{index}"))?;
                stage.add(&container)?;
                container.end()?;
                change(stage.call("DEL", &container)).run()?.silent()?;
                stage.unchanged_since(&before, &format!("ADD, and a DEL {what}"))?;
            }
            Ok(())
        },
    ),
    case("ENV-12", "unknown variables are passed over", First, |stage| {
        stage.lives(|call| {
            let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
            call.var("TRACEPARENT", trace).var("CNI_WHATEVER", "1")
        })
    }),
    case(
        "ENV-13",
        "the list of directories is searched in order",
        First,
        |stage| {
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            let later = probe.decoy()?;
            let list = format!("/run/stage/nowhere:{}:{later}", Probe::DIR);
            call.var("CNI_PATH", &list).run()?.result()?;
            probe.got("ADD")
        },
    ),
    case("ENV-13", "a program that is nowhere is named", First, |stage| {
        let path = stage.delegate_path()?;
        let container = stage.container("a")?;
        let call = stage.call("ADD", &container).set(path, "no-such-program".into());
        let error = call.var("CNI_PATH", Probe::DIR).run()?.error()?;
        let named = error.text.contains("no-such-program");
        expect(named, "an error that names no-such-program", error.text)
    }),
];

/// Each value of a variable is refused by ADD and DEL.
fn refused(stage: &Stage<'_>, name: &str, values: &[&str]) -> Checked<()> {
    let container = stage.container("a")?;
    for value in values {
        for verb in ["ADD", "DEL"] {
            stage
                .call(verb, &container)
                .var(name, value)
                .run()?
                .fails_in(&[ENVIRONMENT])?;
        }
    }
    Ok(())
}
