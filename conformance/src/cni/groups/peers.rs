//! CHN-02: which interface, and which host's end, a plugin acts on that follows another one.

use anyhow::Context;
use serde_json::{Value, json};

use crate::cni::case::About::Type;
use crate::cni::case::{Case, case};
use crate::cni::container::Container;
use crate::cni::host_end::{host_end, shaped_to};
use crate::cni::requirement::place;
use crate::cni::shape::addresses;
use crate::cni::snapshot::{Snapshot, printed};
use crate::cni::stage::Stage;
use crate::lab::text;
use crate::report::{Checked, Stop, expect};

/// The address of the other interface of the container.
const DECOY: &str = "192.0.2.9/24";
/// The host's end under a name that no plugin gives.
const HOST_END: &str = "tap-of-a";

pub(super) const CASES: &[Case] = &[
    case(
        "CHN-02",
        "rates are limited at the peer of the container's interface, whatever stands before it",
        Type("bandwidth"),
        |stage| {
            let container = stage.container("a")?;
            let previous = amid_others(stage, &container)?;
            let limits = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000});
            let call = stage.call("ADD", &container).with("/prevResult", previous);
            call.set("/runtimeConfig", json!({"bandwidth": limits}))
                .run()?
                .result()?;
            let shaped = shaped_to("8Mbit")?;
            expect(
                shaped == [HOST_END],
                format!("a limit on {HOST_END} alone"),
                format!("limits on {shaped:?}"),
            )
        },
    ),
    case(
        "CHN-02",
        "ports lead to the address of the container's interface, whatever stands before it",
        Type("portmap"),
        |stage| {
            let container = stage.container("a")?;
            let previous = amid_others(stage, &container)?;
            let all = addresses(&previous);
            let own = all
                .iter()
                .find(|address| **address != DECOY && !address.contains(':'));
            let (own, _) = own
                .and_then(|own| own.split_once('/'))
                .ok_or_else(|| Stop::Skip("the container has no address of IPv4".to_owned()))?;
            let before = Snapshot::take()?;
            let mapping = json!({"hostPort": 20_777, "containerPort": 80, "protocol": "tcp"});
            let call = stage
                .call("ADD", &container)
                .with("/prevResult", previous.clone());
            call.set("/runtimeConfig", json!({"portMappings": [mapping]}))
                .run()?
                .result()?;
            let change = Snapshot::take()?.since(&before);
            expect(
                change.contains(own) && !change.contains("192.0.2.9"),
                format!("rules that lead to {own}, and none to {DECOY}"),
                change,
            )
        },
    ),
];

/// Attaches a container amid other interfaces: the host has one of the same name, the container another one with an address,
/// and both stand first in the result that is returned. The host's end of the container's own has another name.
fn amid_others(stage: &Stage<'_>, container: &Container) -> Checked<Value> {
    if place(stage.version())? < place("0.3.0")? {
        return Err(Stop::Skip("interfaces came with 0.3.0".to_owned()));
    }
    let mut result = stage.attach_before(container)?;
    let old = host_end(container)?;
    let ifname = container.ifname.as_str();
    for command in [
        ["link", "set", old.as_str(), "down"].as_slice(),
        &["link", "set", &old, "name", HOST_END],
        &["link", "set", HOST_END, "up"],
        &["link", "add", ifname, "type", "veth", "peer", "name", "other"],
        &["link", "set", ifname, "up"],
    ] {
        let argv: Vec<_> = ["ip"].into_iter().chain(command.iter().copied()).collect();
        printed(&argv)?;
    }
    container.ip(&["link", "add", "net0", "type", "veth", "peer", "name", "net1"])?;
    container.ip(&["link", "set", "net0", "up"])?;
    container.ip(&["address", "add", DECOY, "dev", "net0"])?;
    for ip in members(&mut result, "ips")? {
        if let Some(index) = ip.get("interface").and_then(Value::as_u64) {
            set(ip, "interface", (index + 2).into());
        }
    }
    let mut decoy = json!({"address": DECOY, "interface": 1});
    if place(stage.version())? < place("1.0.0")? {
        set(&mut decoy, "version", "4".into());
    }
    members(&mut result, "ips")?.insert(0, decoy);
    let interfaces = members(&mut result, "interfaces")?;
    for one in interfaces.iter_mut().filter(|one| text(one, "name") == old) {
        set(one, "name", HOST_END.into());
    }
    interfaces.splice(
        0..0,
        [
            json!({"name": ifname}),
            json!({"name": "net0", "sandbox": container.netns}),
        ],
    );
    Ok(result)
}

fn set(entry: &mut Value, key: &str, value: Value) {
    if let Some(members) = entry.as_object_mut() {
        members.insert(key.to_owned(), value);
    }
}

fn members<'a>(result: &'a mut Value, key: &str) -> anyhow::Result<&'a mut Vec<Value>> {
    result
        .get_mut(key)
        .and_then(Value::as_array_mut)
        .with_context(|| format!("the result has no {key}"))
}
