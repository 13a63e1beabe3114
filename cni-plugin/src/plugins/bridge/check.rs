use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use cni_types::{AddResult, Code, IpConfig, NetConf, ResultError, ResultRoute, Target, network_of};
use ipnetwork::IpNetwork;
use net_types::registry::RT_TABLE_MAIN;
use net_types::{IfName, MacAddr};
use netlink::{Netns, RealKernel};
use netstate::{AddrKey, AdminState, Link, LinkKind, LinkScope, RouteKind, Scope, State, SysctlKey};

use super::conf::{Conf, Gateway};
use super::desired::forwarding;
use super::guards::{Guarded, Guards};
use super::kernel::{LinkError, inside, links_only, observe};
use crate::context::Context;
use crate::error::{CniError, Failure};
use crate::plugins::ipam::Ipam;
use crate::sandbox::Sandbox;

/// What CHECK found to be different from the result of the ADD.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("required prevResult missing")]
    NoPrevResult,
    #[error("prevResult cannot be used: {0}")]
    PrevResult(ResultError),
    #[error("prevResult names no container interface {0:?}")]
    NotInResult(String),
    #[error("prevResult places the container in {result:?}, but CNI_NETNS is {given:?}")]
    OtherSandbox { result: String, given: String },
    #[error("{0:?} is missing")]
    Missing(String),
    #[error("{link:?} has {what} {found}, expected {expected}")]
    Different {
        link: String,
        what: &'static str,
        found: String,
        expected: String,
    },
    #[error("{link:?} does not have address {address}")]
    Address { link: String, address: IpNetwork },
    #[error(
        "the node does not forward {0}, so that containers reach nobody beyond their bridge; set {1} to 1"
    )]
    Forwarding(&'static str, &'static str),
    #[error("container has no route to {dst} via {}", via.map_or("its link".to_owned(), |ip| ip.to_string()))]
    Route { dst: IpNetwork, via: Option<IpAddr> },
}

impl CniError for CheckError {
    fn code(&self) -> Code {
        match self {
            Self::NoPrevResult | Self::NotInResult(_) => Code::BAD_CONFIG,
            Self::PrevResult(_) => Code::DECODING,
            Self::OtherSandbox { .. }
            | Self::Missing(_)
            | Self::Different { .. }
            | Self::Address { .. }
            | Self::Forwarding(..)
            | Self::Route { .. } => Code::CHECK_FAILED,
        }
    }
}

/// Fails if the container, the host or the address store does not hold what the ADD made. Later plugins may have
/// added addresses and routes, and changed the container's hardware address in the result.
pub(crate) fn check(
    context: &Context<'_>,
    conf: &NetConf,
    target: &Target,
    sandbox: &Sandbox,
) -> Result<(), Failure> {
    let own = Conf::parse(conf, &context.env.args)?;
    let given = conf.prev_result().ok_or(CheckError::NoPrevResult)?;
    let result = AddResult::parse(given).map_err(CheckError::PrevResult)?;
    let attached = Attached::of(&result, target, sandbox)?;
    check_pod(&attached, &result, &own, target, sandbox)?;
    let port = check_host(&attached, &result, &own)?;
    check_guards(&attached, conf, target, &port)?;
    Ipam::of(conf)?.check(context, conf, target)
}

/// The part of a result that an ADD of this plugin made.
struct Attached<'a> {
    mac: Option<&'a str>,
    ips: Vec<&'a IpConfig>,
}

impl<'a> Attached<'a> {
    fn of(result: &'a AddResult, target: &Target, sandbox: &Sandbox) -> Result<Self, CheckError> {
        let ifname = target.ifname.as_str();
        let found = result.container_interface(ifname);
        let (position, interface) = found.ok_or_else(|| CheckError::NotInResult(ifname.to_owned()))?;
        let path = interface.sandbox.as_deref().unwrap_or_default();
        // One namespace has many paths.
        let same = || Netns::open(Path::new(path)).is_ok_and(|netns| netns.is_same(&sandbox.netns));
        if path != sandbox.path && !same() {
            return Err(CheckError::OtherSandbox {
                result: path.to_owned(),
                given: sandbox.path.clone(),
            });
        }
        let position = i64::try_from(position).ok();
        let of_interface = |ip: &&IpConfig| ip.interface.is_none() || ip.interface == position;
        Ok(Self {
            mac: interface.mac.as_deref(),
            ips: result.ips.iter().filter(of_interface).collect(),
        })
    }
}

fn check_pod(
    attached: &Attached<'_>,
    result: &AddResult,
    own: &Conf,
    target: &Target,
    sandbox: &Sandbox,
) -> Result<(), Failure> {
    let ifname = &target.ifname;
    let tables = result.routes.iter().filter_map(table_of);
    let content = LinkScope {
        addrs_inside: any_address(),
        routes: true,
        other_tables: tables.filter(|table| *table != RT_TABLE_MAIN).collect(),
        ..LinkScope::default()
    };
    let scope = Scope {
        links: [(ifname.clone(), content)].into(),
        ..Scope::default()
    };
    let observed = inside(&sandbox.netns, || {
        let mut kernel = RealKernel::open().map_err(LinkError::Open)?;
        observe(&mut kernel, &scope, &sandbox.path)
    })?;
    let link = present(&observed, ifname)?;
    if own.container == AdminState::Up {
        check_up(ifname, link)?;
    }
    if let (Some(expected), Some(found)) = (attached.mac, link.mac)
        && expected.parse() != Ok(found)
    {
        return Err(different(ifname, "hardware address", &found, &expected).into());
    }
    for ip in &attached.ips {
        check_address(&observed, ifname, ip.address)?;
    }
    for route in &result.routes {
        check_route(&observed, route, &attached.ips)?;
    }
    Ok(())
}

/// The table of a route; `None` if no kernel has it.
fn table_of(route: &ResultRoute) -> Option<u32> {
    match route.table {
        None | Some(0) => Some(RT_TABLE_MAIN),
        Some(table) => u32::try_from(table).ok(),
    }
}

/// Routes by gateways that aren't in the attachment's networks are other plugins'.
fn check_route(observed: &State, route: &ResultRoute, ips: &[&IpConfig]) -> Result<(), CheckError> {
    let dst = network_of(route.dst);
    let v4 = dst.is_ipv4();
    let mut of_family = ips.iter().filter(|ip| ip.address.is_ipv4() == v4);
    let via = route.gw.or_else(|| of_family.clone().find_map(|ip| ip.gateway));
    let is_own = via.is_none_or(|gateway| of_family.any(|ip| ip.address.contains(gateway)));
    let Some(table) = table_of(route).filter(|_| is_own) else {
        return Ok(());
    };
    let mut routes = observed
        .routes
        .iter()
        .filter(|(key, _)| key.dst == dst && key.table == table);
    let leads_there = routes.any(|(_, route)| match &route.kind {
        RouteKind::Unicast(hop) => hop.gateway == via,
        RouteKind::Blackhole => false,
    });
    if leads_there {
        Ok(())
    } else {
        Err(CheckError::Route { dst, via })
    }
}

/// Checks bridge and host interface; returns the latter's name.
fn check_host(attached: &Attached<'_>, result: &AddResult, own: &Conf) -> Result<IfName, Failure> {
    let host_names = result
        .interfaces
        .iter()
        .filter(|interface| !interface.is_in_sandbox());
    let names: Vec<_> = host_names
        .filter_map(|interface| IfName::new(&interface.name).ok())
        .collect();
    let mut scope = links_only(&names);
    let content = LinkScope {
        addrs_inside: any_address(),
        ..LinkScope::default()
    };
    scope.links.insert(own.bridge.clone(), LinkScope::default());
    scope.links.insert(own.gateway_link.clone(), content);
    if own.gateway != Gateway::No {
        let parameters = [forwarding(true), forwarding(false)];
        scope.sysctls = parameters
            .iter()
            .filter_map(|(_, path)| SysctlKey::new(path))
            .collect();
    }
    let mut kernel = RealKernel::open().map_err(LinkError::Open)?;
    let observed = observe(&mut kernel, &scope, "the host's network namespace")?;

    let bridge = present(&observed, &own.bridge)?;
    if bridge.kind != LinkKind::Bridge {
        return Err(different(&own.bridge, "kind", &format!("{:?}", bridge.kind), &"bridge").into());
    }
    check_up(&own.bridge, bridge)?;
    if own.gateway != Gateway::No {
        let gateways = attached.ips.iter().filter_map(|ip| {
            let gateway = ip.gateway?;
            IpNetwork::new(gateway, ip.address.prefix()).ok()
        });
        for gateway in gateways {
            check_address(&observed, &own.gateway_link, gateway)?;
            check_forwarding(&observed, gateway)?;
        }
    }
    if own.promiscuous {
        let settings = kernel.link_settings(&own.bridge).map_err(LinkError::Open)?;
        if !settings.promiscuous {
            return Err(different(&own.bridge, "promiscuous mode", &"off", &"on").into());
        }
    }
    // Later plugins list host interfaces of their own; the attachment's is the first beside the bridge.
    let port = names
        .iter()
        .find(|name| **name != own.bridge && **name != own.gateway_link);
    let port = port.ok_or_else(|| CheckError::NotInResult("of the host".to_owned()))?;
    check_port(&observed, port, own)?;
    Ok(port.clone())
}

/// A later plugin that changed the container's hardware address cut it off if frames are checked for the first one.
fn check_guards(
    attached: &Attached<'_>,
    conf: &NetConf,
    target: &Target,
    port: &IfName,
) -> Result<(), Failure> {
    let addresses: Vec<_> = attached.ips.iter().map(|ip| ip.address).collect();
    let mac = attached.mac.and_then(|mac| mac.parse().ok());
    Guards::parse(conf)?.check(&Guarded {
        network: &conf.name,
        target,
        addresses: &addresses,
        interface: port,
        mac: mac.unwrap_or(MacAddr::new([0; 6])),
    })
}

fn check_port(observed: &State, name: &IfName, own: &Conf) -> Result<(), Failure> {
    let link = present(observed, name)?;
    check_up(name, link)?;
    let Some(port) = link.port.as_ref().filter(|port| port.bridge == own.bridge) else {
        let found = link.port.as_ref().map_or("none", |port| port.bridge.as_str());
        return Err(different(name, "bridge", &found, &own.bridge).into());
    };
    if port.hairpin != own.port.hairpin {
        return Err(different(name, "hairpin mode", &port.hairpin, &own.port.hairpin).into());
    }
    // The container's end is the container's to change; this one would drop what is larger.
    if let (Some(found), Some(expected)) = (link.mtu_bytes, own.mtu_bytes)
        && found < expected
    {
        return Err(different(name, "MTU", &found, &expected).into());
    }
    if port.isolated != own.port.isolated {
        return Err(different(name, "isolation", &port.isolated, &own.port.isolated).into());
    }
    Ok(())
}

/// A gateway is of no use if the node does not forward: an ADD switches it on.
fn check_forwarding(observed: &State, gateway: IpNetwork) -> Result<(), CheckError> {
    let (family, path) = forwarding(gateway.is_ipv4());
    let value = SysctlKey::new(path).and_then(|key| observed.sysctls.get(&key));
    if value.is_some_and(|value| value == "0") {
        return Err(CheckError::Forwarding(family, path));
    }
    Ok(())
}

fn any_address() -> Vec<IpNetwork> {
    let any = [
        IpNetwork::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0),
        IpNetwork::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0),
    ];
    any.into_iter().flatten().collect()
}

fn present<'a>(observed: &'a State, name: &IfName) -> Result<&'a Link, CheckError> {
    let link = observed.links.get(name);
    link.ok_or_else(|| CheckError::Missing(name.as_str().to_owned()))
}

fn check_up(name: &IfName, link: &Link) -> Result<(), CheckError> {
    match link.admin {
        AdminState::Up => Ok(()),
        AdminState::Down => Err(different(name, "state", &"down", &"up")),
    }
}

fn check_address(observed: &State, name: &IfName, address: IpNetwork) -> Result<(), CheckError> {
    let key = AddrKey {
        link: name.clone(),
        addr: address,
    };
    if observed.addrs.contains_key(&key) {
        Ok(())
    } else {
        let link = name.as_str().to_owned();
        Err(CheckError::Address { link, address })
    }
}

fn different(
    link: &IfName,
    what: &'static str,
    found: &dyn std::fmt::Display,
    expected: &dyn std::fmt::Display,
) -> CheckError {
    CheckError::Different {
        link: link.as_str().to_owned(),
        what,
        found: found.to_string(),
        expected: expected.to_string(),
    }
}
