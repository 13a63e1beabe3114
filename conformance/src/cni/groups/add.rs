//! ADD: what it makes and answers.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::cni::call::at_once;
use crate::cni::case::About::{First, List, Type};
use crate::cni::case::{Case, case};
use crate::cni::container::Container;
use crate::cni::probe::Probe;
use crate::cni::shape::{addresses, routes};
use crate::cni::snapshot::Snapshot;
use crate::lab::text;
use crate::report::{Checked, expect};

/// So many containers are attached at the same time.
const CROWD: usize = 12;

pub(super) const CASES: &[Case] = &[
    case(
        "ADD-01",
        "the interface is in the container, up, with the addresses of the result",
        First,
        |stage| {
            let container = stage.container("a")?;
            let result = stage.add(&container)?;
            attached(&container, &result)?;
            let flags = container
                .interface()?
                .get("flags")
                .map(Value::to_string)
                .unwrap_or_default();
            expect(flags.contains("\"UP\""), "the interface is up", flags)
        },
    ),
    case("ADD-01", "the whole list attaches and detaches", List, |stage| {
        let container = stage.container("a")?;
        let result = stage.list_add(&container)?;
        attached(&container, &result)?;
        stage.list_del(&container, Some(&result))?;
        expect(
            !container.has_interface()?,
            "no interface after DEL",
            "it is still there",
        )
    }),
    case(
        "ADD-02",
        "an interface that is there already is an error and stays as it is",
        First,
        |stage| {
            let before = stage.settled()?;
            let container = stage.container("a")?;
            container.ip(&["link", "add", "eth0", "type", "veth", "peer", "name", "other"])?;
            let was = container.interface()?;
            stage.call("ADD", &container).run()?.error()?;
            expect(
                container.interface()? == was,
                was.to_string(),
                container.interface()?.to_string(),
            )?;
            expect(
                container.addresses()?.is_empty(),
                "no addresses on it",
                container.addresses()?.join(", "),
            )?;
            stage.unchanged_since(&before, "an ADD whose interface is there already")
        },
    ),
    case(
        "ADD-03",
        "the result tells the version of the configuration, whichever it is",
        First,
        |stage| {
            for (index, version) in stage.supported().iter().enumerate() {
                let container = stage.container(&format!("a{index}"))?;
                let call = stage
                    .call("ADD", &container)
                    .set("/cniVersion", version.as_str().into());
                let result = call.run()?.result()?;
                let own = text(&result, "cniVersion");
                expect(
                    own == version,
                    format!("cniVersion {version}"),
                    result.to_string(),
                )?;
            }
            Ok(())
        },
    ),
    case("ADD-05", "a container can have two interfaces", First, |stage| {
        let container = stage.container("a")?;
        let other = container.with_ifname("net1");
        attached(&container, &stage.add(&container)?)?;
        let second = stage.add(&other)?;
        attached(&other, &second)?;
        stage.del(&container)?;
        attached(&other, &second)
    }),
    case(
        "ADD-05",
        "the same interface twice is an error, and the first stays as it is",
        First,
        |stage| {
            let container = stage.container("a")?;
            let result = stage.add(&container)?;
            let before = Snapshot::take()?;
            stage.call("ADD", &container).run()?.error()?;
            attached(&container, &result)?;
            stage.unchanged_since(&before, "a second ADD of the same")
        },
    ),
    case(
        "ADD-08",
        "the routes of the result are in the container",
        First,
        |stage| {
            let container = stage.container("a")?;
            let result = stage.add(&container)?;
            for route in routes(&result) {
                has_route(&container, route)?;
            }
            Ok(())
        },
    ),
    case(
        "ADD-08",
        "a route without a gateway goes by that of address management",
        Type("bridge"),
        |stage| {
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            probe.answers_with_route(stage.version(), json!({"dst": "198.51.100.0/24"}))?;
            call.run()?.result()?;
            has_route(
                &container,
                &json!({"dst": "198.51.100.0/24", "gw": Probe::GATEWAY}),
            )
        },
    ),
    case(
        "ADD-08",
        "what 1.1.0 tells of a route is in the container",
        Type("bridge"),
        |stage| {
            stage.needs("1.1.0")?;
            let container = stage.container("a")?;
            let (probe, call) = stage.probed("ADD", &container)?;
            let route =
                json!({"dst": "198.51.100.0/24", "mtu": 1400, "advmss": 1300, "priority": 7, "table": 100});
            probe.answers_with_route("1.1.0", route)?;
            call.set("/cniVersion", "1.1.0".into()).run()?.result()?;
            let shown = container.ip(&["-4", "route", "show", "table", "100"])?;
            for words in ["198.51.100.0/24", "metric 7", "mtu 1400", "advmss 1300"] {
                let expected = format!("in table 100 a route with {words}");
                expect(shown.contains(words), expected, shown.clone())?;
            }
            Ok(())
        },
    ),
    case(
        "ADD-09",
        "a default route that is there already is no error",
        First,
        |stage| {
            let container = stage.container("a")?;
            container.ip(&["link", "add", "up0", "type", "veth", "peer", "name", "up1"])?;
            for link in ["up0", "up1"] {
                container.ip(&["link", "set", link, "up"])?;
            }
            container.ip(&["address", "add", "192.0.2.2/24", "dev", "up0"])?;
            container.ip(&["route", "add", "default", "via", "192.0.2.1"])?;
            stage.add(&container)?;
            let routes = container.routes("-4")?;
            let kept = routes.iter().any(|route| text(route, "gateway") == "192.0.2.1");
            expect(kept, "the default route by 192.0.2.1", format!("{routes:?}"))
        },
    ),
    case(
        "ADD-10",
        "containers are attached and detached at the same time, each with its own address",
        First,
        |stage| {
            let containers = (0..CROWD).map(|index| stage.container(&format!("a{index}")));
            let containers = containers.collect::<anyhow::Result<Vec<_>>>()?;
            let calls = |verb: &str| {
                containers
                    .iter()
                    .map(|one| stage.call(verb, one))
                    .collect::<Vec<_>>()
            };
            let mut given = BTreeSet::new();
            for (answer, container) in at_once(&calls("ADD"))?.iter().zip(&containers) {
                let result = answer.result()?;
                attached(container, &result)?;
                for address in addresses(&result) {
                    let is_new = given.insert(address.to_owned());
                    expect(
                        is_new,
                        "an address of its own for each container",
                        format!("{address} twice"),
                    )?;
                }
            }
            at_once(&calls("DEL"))?
                .iter()
                .try_for_each(|answer| answer.silent())
        },
    ),
    case(
        "ADD-11",
        "ADD works where nobody asked for STATUS",
        First,
        |stage| stage.lives(|call| call),
    ),
];

/// Checks that a container has its interface with the addresses of a result.
pub(super) fn attached(container: &Container, result: &Value) -> Checked<()> {
    let wanted = addresses(result);
    expect(
        container.has_interface()?,
        format!("the interface {}", container.ifname),
        "there is none",
    )?;
    let has = container.addresses()?;
    let all = wanted.iter().all(|address| has.iter().any(|own| own == address));
    let expected = format!(
        "on {} the addresses of the result: {}",
        container.ifname,
        wanted.join(", ")
    );
    expect(all, expected, has.join(", "))
}

fn has_route(container: &Container, route: &Value) -> Checked<()> {
    let dst = text(route, "dst");
    let family = if dst.contains(':') { "-6" } else { "-4" };
    let shown = match dst {
        "0.0.0.0/0" | "::/0" => "default",
        other => other.trim_end_matches("/32").trim_end_matches("/128"),
    };
    let gateway = text(route, "gw");
    let routes = container.routes(family)?;
    let is_it =
        |one: &Value| text(one, "dst") == shown && (gateway.is_empty() || text(one, "gateway") == gateway);
    expect(
        routes.iter().any(is_it),
        format!("the route {route}"),
        format!("{routes:?}"),
    )
}
