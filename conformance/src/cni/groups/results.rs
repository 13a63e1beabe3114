//! RES: the forms of results.

use std::net::IpAddr;

use serde_json::{Value, json};

use crate::cni::case::About::{First, Ipam, Type};
use crate::cni::case::{Case, case};
use crate::cni::host_end::host_end;
use crate::cni::shape::{addresses, interface, list};
use crate::lab::text;
use crate::report::{Checked, expect};

pub(super) const CASES: &[Case] = &[
    case(
        "RES-01",
        "the oldest form has ip4 and ip6, and no interfaces",
        First,
        |stage| {
            let result = stage.add(&stage.container("a")?)?;
            let is_old = result.get("ips").is_none() && result.get("interfaces").is_none();
            expect(
                is_old && !addresses(&result).is_empty(),
                "ip4 or ip6, without ips and interfaces",
                result.to_string(),
            )
        },
    ),
    case("RES-02", "each address tells its family", First, |stage| {
        let result = stage.add(&stage.container("a")?)?;
        let told = |ip: &Value| {
            let family = if text(ip, "address").contains(':') {
                "6"
            } else {
                "4"
            };
            text(ip, "version") == family
        };
        let all = list(&result, "ips");
        expect(
            !all.is_empty() && all.iter().all(told),
            "ips with the version 4 or 6",
            result.to_string(),
        )?;
        expect(
            !list(&result, "interfaces").is_empty(),
            "interfaces",
            result.to_string(),
        )
    }),
    case("RES-03", "no address tells its family", First, |stage| {
        let result = stage.add(&stage.container("a")?)?;
        let all = list(&result, "ips");
        let none = all.iter().all(|ip| ip.get("version").is_none());
        expect(
            !all.is_empty() && none,
            "ips without a version",
            result.to_string(),
        )
    }),
    case("RES-04", "what is new in 1.1.0 has its types", First, |stage| {
        let result = stage.add(&stage.container("a")?)?;
        for one in list(&result, "interfaces") {
            let texts = ["socketPath", "pciID"]
                .iter()
                .all(|key| one.get(key).is_none_or(Value::is_string));
            expect(
                texts && one.get("mtu").is_none_or(Value::is_u64),
                "mtu a number, the others texts",
                one.to_string(),
            )?;
        }
        for route in list(&result, "routes") {
            let numbers = ["mtu", "advmss", "priority", "table", "scope"];
            let good = numbers.iter().all(|key| route.get(key).is_none_or(Value::is_u64));
            expect(good, "members of a route that are numbers", route.to_string())?;
        }
        Ok(())
    }),
    case(
        "RES-05",
        "the container's interface has the path as sandbox, the host's have none",
        First,
        |stage| {
            let container = stage.container("a")?;
            let result = stage.add(&container)?;
            let own = interface(&result, &container.ifname);
            let sandbox = own.map(|own| text(own, "sandbox")).unwrap_or_default();
            expect(
                sandbox == container.netns,
                format!("eth0 with the sandbox {}", container.netns),
                result.to_string(),
            )?;
            let all = list(&result, "interfaces");
            let others = all.iter().map(|one| text(one, "sandbox"));
            expect(
                others
                    .clone()
                    .all(|sandbox| sandbox.is_empty() || sandbox == container.netns),
                format!("no sandbox but {}", container.netns),
                result.to_string(),
            )?;
            for ip in list(&result, "ips") {
                let index = ip
                    .get("interface")
                    .and_then(Value::as_u64)
                    .and_then(|index| usize::try_from(index).ok());
                let points = index
                    .and_then(|index| all.get(index))
                    .is_some_and(|one| Some(one) == own);
                expect(
                    points,
                    "each address points to the container's interface",
                    result.to_string(),
                )?;
            }
            Ok(())
        },
    ),
    case(
        "RES-05",
        "bridge, host's end and container's interface stand in this order",
        Type("bridge"),
        |stage| {
            let container = stage.container("a")?;
            let result = stage.add(&container)?;
            let all = list(&result, "interfaces").iter();
            let order: Vec<_> = all.map(|one| (text(one, "name"), text(one, "sandbox"))).collect();
            let end = host_end(&container)?;
            let wanted = [("cni0", ""), (&end, ""), ("eth0", &container.netns)];
            expect(order == wanted, format!("{wanted:?}"), result.to_string())?;
            let ips = list(&result, "ips");
            let points = ips.iter().all(|ip| ip.get("interface") == Some(&json!(2)));
            expect(points, "addresses that point to 2", result.to_string())
        },
    ),
    case(
        "RES-06",
        "address management tells no interfaces",
        Ipam,
        |stage| {
            let result = stage.add(&stage.container("a")?)?;
            let none = list(&result, "interfaces").is_empty();
            let free = list(&result, "ips")
                .iter()
                .all(|ip| ip.get("interface").is_none());
            expect(
                none && free,
                "no interfaces, and addresses that point to none",
                result.to_string(),
            )
        },
    ),
    case(
        "RES-07",
        "loopback answers in the form of each version",
        Type("loopback"),
        |stage| {
            for (index, version) in stage.supported().iter().enumerate() {
                let container = stage.container(&format!("a{index}"))?.with_ifname("lo");
                let call = stage
                    .call("ADD", &container)
                    .set("/cniVersion", version.as_str().into());
                let result = call.run()?.result()?;
                let has = addresses(&result).contains(&"127.0.0.1/8");
                expect(has, "the address 127.0.0.1/8", result.to_string())?;
                form(&result, version)?;
            }
            Ok(())
        },
    ),
    case(
        "RES-08",
        "addresses and MACs are in their usual form, and no list is empty",
        First,
        |stage| {
            let result = stage.add(&stage.container("a")?)?;
            for address in addresses(&result) {
                let (ip, _) = address.split_once('/').unwrap_or((address, ""));
                let usual = ip.parse::<IpAddr>().is_ok_and(|parsed| parsed.to_string() == ip);
                expect(usual, "an address in its usual form", address)?;
            }
            for one in list(&result, "interfaces") {
                let mac = text(one, "mac");
                let usual = mac.is_empty() || (mac.split(':').count() == 6 && mac == mac.to_lowercase());
                expect(usual, "a MAC in lower case with colons", mac)?;
            }
            let empty = |key: &str| result.get(key) == Some(&json!([]));
            let none = !["interfaces", "ips", "routes"].into_iter().any(empty);
            expect(none, "no empty list", result.to_string())
        },
    ),
];

/// Checks that a result has the form of a version, and not that of others.
fn form(result: &Value, version: &str) -> Checked<()> {
    let is_old = matches!(version, "0.1.0" | "0.2.0");
    let tells_family = matches!(version, "0.3.0" | "0.3.1" | "0.4.0");
    let good = if is_old {
        result.get("ips").is_none() && result.get("interfaces").is_none()
    } else {
        let all = list(result, "ips");
        !all.is_empty() && all.iter().all(|ip| ip.get("version").is_some() == tells_family)
    };
    expect(
        good && text(result, "cniVersion") == version,
        format!("the form of {version}"),
        result.to_string(),
    )
}
