//! What the host and the container shall hold for one attachment, as plain data.

use std::net::{IpAddr, Ipv4Addr};

use cni_types::{AddResult, Code, IpConfig, NetConf, ResultRoute, network_of};
use ipnetwork::{IpNetwork, Ipv4Network};
use net_types::registry::{RT_TABLE_MAIN, RTPROT_BOOT};
use net_types::{IPV6_MIN_MTU_BYTES, IfName, MacAddr};
use netstate::{
    Addr, AddrKey, AdminState, BridgePort, Link, LinkKind, NetnsLabel, Nexthop, Route, RouteKey, RouteKind,
    State, SysctlKey, VethPeer,
};

use super::conf::{Conf, Dad, Gateway, PortMode};
use super::names::mac_of_holder;
use crate::error::CniError;

/// The metric that the kernel gives an IPv6 route without one (linux `IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1024;

/// One attachment: what address management gave, as it shall be.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Attachment {
    pub(crate) bridge: IfName,
    pub(crate) port: PortMode,
    pub(crate) mtu_bytes: Option<u32>,
    pub(crate) dad: Dad,
    /// The state of the container's interface.
    pub(crate) container: AdminState,
    pub(crate) ifname: IfName,
    pub(crate) mac: MacAddr,
    /// The container's addresses, with their gateways.
    pub(crate) ips: Vec<IpConfig>,
    /// The container's routes, as the result shows them.
    pub(crate) routes: Vec<ResultRoute>,
    /// The link of the host that has the gateways' addresses.
    pub(crate) gateway_link: IfName,
    /// The gateways' addresses.
    pub(crate) gateways: Vec<IpNetwork>,
}

/// Why what address management gave cannot be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AttachmentError {
    #[error("IPAM plugin returned missing IP config")]
    NoAddress,
    #[error("IPAM plugin gave a route to {dst} with {key} {value}, which no route can have")]
    Route {
        dst: IpNetwork,
        key: &'static str,
        value: i64,
    },
    #[error("mtu {mtu_bytes} is too small for {address}: IPv6 needs {IPV6_MIN_MTU_BYTES}")]
    Mtu { mtu_bytes: u32, address: IpNetwork },
}

impl CniError for AttachmentError {
    fn code(&self) -> Code {
        match self {
            Self::NoAddress => Code::DELEGATE,
            Self::Route { .. } | Self::Mtu { .. } => Code::BAD_CONFIG,
        }
    }
}

/// Fails if interfaces of this MTU could not have one of the addresses.
pub(crate) fn check_mtu(
    mtu_bytes: Option<u32>,
    addresses: impl IntoIterator<Item = IpNetwork>,
) -> Result<(), AttachmentError> {
    let Some(mtu_bytes) = mtu_bytes.filter(|mtu_bytes| *mtu_bytes < IPV6_MIN_MTU_BYTES) else {
        return Ok(());
    };
    match addresses.into_iter().find(IpNetwork::is_ipv6) {
        Some(address) => Err(AttachmentError::Mtu { mtu_bytes, address }),
        None => Ok(()),
    }
}

impl Attachment {
    /// Completes what address management gave: gateways where the bridge is one, and default routes where it is the
    /// default gateway. `mac` is for a container without address.
    pub(crate) fn new(
        conf: &Conf,
        ifname: &IfName,
        ipam: &AddResult,
        mac: MacAddr,
    ) -> Result<Self, AttachmentError> {
        let mut ips = ipam.ips.clone();
        let mut gateways = Vec::new();
        if conf.gateway != Gateway::No {
            for ip in &mut ips {
                let gateway = *ip.gateway.get_or_insert_with(|| first_host(ip.address));
                gateways.extend(IpNetwork::new(gateway, ip.address.prefix()));
            }
        }
        let mut routes = ipam.routes.clone();
        if conf.gateway == Gateway::Default {
            routes.extend(default_routes(&ips, &ipam.routes));
        }
        for route in &routes {
            refuse_impossible(route)?;
        }
        check_mtu(conf.mtu_bytes, ips.iter().map(|ip| ip.address))?;
        let derived = ips.first().map_or(mac, |ip| mac_of_holder(ip.address));
        Ok(Self {
            bridge: conf.bridge.clone(),
            port: conf.port,
            mtu_bytes: conf.mtu_bytes,
            dad: conf.dad,
            container: conf.container,
            ifname: ifname.clone(),
            mac: conf.mac.unwrap_or(derived),
            ips,
            routes,
            gateway_link: conf.gateway_link.clone(),
            gateways,
        })
    }

    /// Whether what is in the way is the gateway of an earlier range.
    pub(crate) fn has_earlier_gateway(&self, found: &[IpNetwork]) -> bool {
        let routed: Vec<_> = self.routes.iter().map(|route| route.dst).collect();
        is_earlier_gateway(found, &self.gateways, &routed)
    }

    /// The attachment less routes that were left out.
    pub(crate) fn without_routes(&self, skipped: &[RouteKey]) -> Self {
        let mut left = self.clone();
        left.routes
            .retain(|route| !skipped.contains(&self.route(route).0));
        left
    }

    /// What the host shall hold. `bridge_mac` is for a bridge that is made; one that exists keeps its address and its
    /// MTU, and the choice for it is `None`.
    pub(crate) fn host(&self, veth: &IfName, veth_mac: MacAddr, bridge_mac: Option<MacAddr>) -> State {
        let mut state = self.bridge(bridge_mac);
        let peer = VethPeer {
            name: self.ifname.clone(),
            mac: Some(self.mac),
            netns: Some(pod_label()),
        };
        let port = Link {
            kind: LinkKind::Veth(Some(peer)),
            mac: Some(veth_mac),
            mtu_bytes: self.mtu_bytes,
            admin: AdminState::Up,
            port: Some(BridgePort {
                bridge: self.bridge.clone(),
                hairpin: self.port.hairpin,
                isolated: self.port.isolated,
            }),
        };
        state.links.insert(veth.clone(), port);
        state.sysctls.extend([no_advertisements(veth)]);
        for gateway in &self.gateways {
            if gateway.is_ipv6() {
                let accept_dad = SysctlKey::of_link("ipv6", &self.gateway_link, "accept_dad");
                state.sysctls.insert(accept_dad, self.accept_dad().to_owned());
            }
            let (key, addr) = Self::address(&self.gateway_link, *gateway);
            state.addrs.insert(key, addr);
            let (_, forwarding) = forwarding(gateway.is_ipv4());
            state
                .sysctls
                .extend(SysctlKey::new(forwarding).map(|key| (key, "1".to_owned())));
        }
        state
    }

    const fn accept_dad(&self) -> &'static str {
        match self.dad {
            Dad::Skip => "0",
            Dad::Run => "1",
        }
    }

    /// The bridge itself; `mac` is for one that is made.
    pub(crate) fn bridge(&self, mac: Option<MacAddr>) -> State {
        let bridge = Link {
            kind: LinkKind::Bridge,
            mac,
            mtu_bytes: mac.and(self.mtu_bytes),
            admin: AdminState::Up,
            port: None,
        };
        State {
            links: [(self.bridge.clone(), bridge)].into(),
            sysctls: [no_advertisements(&self.bridge)].into(),
            ..State::default()
        }
    }

    /// What the container shall hold.
    pub(crate) fn pod(&self) -> State {
        let mut state = State::default();
        let link = Link {
            kind: LinkKind::Veth(None),
            mac: None,
            mtu_bytes: None,
            admin: self.container,
            port: None,
        };
        state.links.insert(self.ifname.clone(), link);
        if self.container == AdminState::Down {
            return state;
        }
        let mut set = |family, name, value: &str| {
            let key = SysctlKey::of_link(family, &self.ifname, name);
            state.sysctls.insert(key, value.to_owned());
        };
        set("ipv4", "arp_notify", "1");
        set("ipv6", "accept_dad", self.accept_dad());
        if self.dad == Dad::Run {
            set("ipv6", "enhanced_dad", "1");
        }
        let has_v6 = self.ips.iter().any(|ip| ip.address.is_ipv6());
        if has_v6 {
            set("ipv6", "disable_ipv6", "0");
            set("ipv6", "keep_addr_on_down", "1");
            set("ipv6", "ndisc_notify", "1");
            let loopback = SysctlKey::new("net/ipv6/conf/lo/disable_ipv6");
            state.sysctls.extend(loopback.map(|key| (key, "0".to_owned())));
        }
        for ip in &self.ips {
            let (key, addr) = Self::address(&self.ifname, ip.address);
            state.addrs.insert(key, addr);
        }
        for route in &self.routes {
            let (key, route) = self.route(route);
            state.routes.insert(key, route);
        }
        state
    }

    fn route(&self, route: &ResultRoute) -> (RouteKey, Route) {
        let number = |value: Option<i64>| {
            value
                .and_then(|value| u32::try_from(value).ok())
                .filter(|n| *n != 0)
        };
        let default_metric = if route.dst.is_ipv4() {
            0
        } else {
            IPV6_DEFAULT_METRIC
        };
        let key = RouteKey {
            table: number(route.table).unwrap_or(RT_TABLE_MAIN),
            dst: network_of(route.dst),
            metric: number(route.priority).unwrap_or(default_metric),
        };
        let nexthop = Nexthop {
            link: self.ifname.clone(),
            gateway: route.gw.or_else(|| self.gateway_of(route.dst)),
            onlink: false,
        };
        let kind = RouteKind::Unicast(nexthop);
        let usual = Route::usual_scope(key.dst, &kind);
        let scope = route.scope.filter(|_| key.dst.is_ipv4());
        let scope = scope.and_then(|scope| u8::try_from(scope).ok());
        let route = Route {
            kind,
            protocol: RTPROT_BOOT,
            source: None,
            mtu_bytes: number(route.mtu_bytes),
            advmss_bytes: number(route.advmss_bytes),
            scope: scope.filter(|scope| *scope != usual),
        };
        (key, route)
    }

    /// Address and broadcast address as the reference sets them. That an IPv6 address is not asked after is told by its
    /// link's parameters, not by the address's flag `nodad`: with that the kernel would not show when the address can be
    /// resolved, because it joins the group for that later (linux `addrconf.c`, `addrconf_dad_begin`).
    fn address(link: &IfName, address: IpNetwork) -> (AddrKey, Addr) {
        let broadcast = match address {
            IpNetwork::V4(v4) => broadcast(v4),
            IpNetwork::V6(_) => None,
        };
        let key = AddrKey {
            link: link.clone(),
            addr: address,
        };
        let addr = Addr {
            broadcast,
            nodad: false,
        };
        (key, addr)
    }

    /// The gateway of a destination's family, as address management gave it.
    fn gateway_of(&self, dst: IpNetwork) -> Option<IpAddr> {
        let mut of_family = self.ips.iter().filter(|ip| ip.address.is_ipv4() == dst.is_ipv4());
        of_family.find_map(|ip| ip.gateway)
    }
}

/// Whether addresses in the way of gateways are that of an earlier range. The bridge does not tell who gave it an
/// address, so this must: it is one only, the first of its subnet as every range's gateway is, and one routed network,
/// which a default route is not, holds that subnet and a gateway. Any other is an administrator's.
pub(crate) fn is_earlier_gateway(found: &[IpNetwork], gateways: &[IpNetwork], routed: &[IpNetwork]) -> bool {
    let [found] = found else { return false };
    let holds = |network: &IpNetwork| {
        network.prefix() != 0
            && network.prefix() <= found.prefix()
            && network.contains(found.ip())
            && gateways.iter().any(|gateway| network.contains(gateway.ip()))
    };
    first_host(*found) == found.ip() && routed.iter().any(holds)
}

/// A family's name, and the parameter that lets the node forward it.
pub(crate) const fn forwarding(is_ipv4: bool) -> (&'static str, &'static str) {
    if is_ipv4 {
        ("IPv4", "net/ipv4/ip_forward")
    } else {
        ("IPv6", "net/ipv6/conf/all/forwarding")
    }
}

/// The name by which the host's plan calls the container's namespace.
pub(crate) fn pod_label() -> NetnsLabel {
    NetnsLabel("pod".to_owned())
}

/// Whether a result in the configuration's version can be written at all.
pub(crate) fn check_form(conf: &NetConf, ipam: &AddResult, has_ipam: bool) -> Result<(), AttachmentError> {
    let must_have_address = has_ipam || conf.version < cni_types::Version::V0_3_0;
    if must_have_address && ipam.ips.is_empty() {
        Err(AttachmentError::NoAddress)
    } else {
        Ok(())
    }
}

fn broadcast(net: Ipv4Network) -> Option<Ipv4Addr> {
    (net.prefix() <= 30).then(|| net.broadcast())
}

fn first_host(net: IpNetwork) -> IpAddr {
    match net {
        IpNetwork::V4(v4) => flannel_types::gateway_v4(v4).ip().into(),
        IpNetwork::V6(v6) => flannel_types::gateway_v6(v6).ip().into(),
    }
}

/// A default route of each family that has an address and no default route with a gateway yet.
fn default_routes(ips: &[IpConfig], given: &[ResultRoute]) -> Vec<ResultRoute> {
    let mut routes: Vec<ResultRoute> = Vec::new();
    for ip in ips {
        let v4 = ip.address.is_ipv4();
        let is_default =
            |route: &ResultRoute| route.dst.prefix() == 0 && route.dst.is_ipv4() == v4 && route.gw.is_some();
        if given.iter().chain(&routes).any(is_default) {
            continue;
        }
        let any: IpAddr = if v4 {
            Ipv4Addr::UNSPECIFIED.into()
        } else {
            std::net::Ipv6Addr::UNSPECIFIED.into()
        };
        let dst = IpNetwork::new(any, 0).ok();
        routes.extend(dst.map(|dst| ResultRoute::new(dst, ip.gateway)));
    }
    routes
}

/// Numbers of a route that the kernel has no room for.
fn refuse_impossible(route: &ResultRoute) -> Result<(), AttachmentError> {
    let keys = [
        ("mtu", route.mtu_bytes, u32::MAX),
        ("advmss", route.advmss_bytes, u32::MAX),
        ("priority", route.priority, u32::MAX),
        ("table", route.table, u32::MAX),
        ("scope", route.scope, u8::MAX.into()),
    ];
    for (key, value, max) in keys {
        if let Some(value) = value.filter(|value| !(0..=i64::from(max)).contains(value)) {
            let dst = route.dst;
            return Err(AttachmentError::Route { dst, key, value });
        }
    }
    Ok(())
}

/// The routes of a link of ours are ours to set.
fn no_advertisements(link: &IfName) -> (SysctlKey, String) {
    (SysctlKey::of_link("ipv6", link, "accept_ra"), "0".to_owned())
}

#[cfg(test)]
mod tests;
