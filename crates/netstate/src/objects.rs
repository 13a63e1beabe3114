use std::net::{IpAddr, Ipv4Addr};

use ipnetwork::IpNetwork;
use net_types::registry::RTPROT_BOOT;
use net_types::{IfName, MacAddr};

/// `RT_SCOPE_UNIVERSE` and `RT_SCOPE_LINK` (linux `rtnetlink.h`).
const RT_SCOPE_UNIVERSE: u8 = 0;
const RT_SCOPE_LINK: u8 = 253;

/// Identity of an address: the kernel holds each address with its prefix once a link.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AddrKey {
    /// The link that holds it.
    pub link: IfName,
    /// Address and prefix length; host bits are kept.
    pub addr: IpNetwork,
}

/// What else an address has. It is given at creation and not compared, because changing it would mean removing the
/// address, and with it the link's routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Addr {
    /// IPv4 broadcast address.
    pub broadcast: Option<Ipv4Addr>,
    /// Whether duplicate address detection is skipped (`IFA_F_NODAD`, RFC 4862 §5.4).
    pub nodad: bool,
}

/// Identity of a route: the kernel replaces a route of equal table, destination and metric.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteKey {
    /// Routing table; 254 is `main`.
    pub table: u32,
    /// Destination, without host bits.
    pub dst: IpNetwork,
    /// Metric (`RTA_PRIORITY`); smaller wins. The kernel stores IPv6's 0 as 1024.
    pub metric: u32,
}

/// What a route does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Forward or refuse.
    pub kind: RouteKind,
    /// Who made it (`RTPROT_*`).
    pub protocol: u8,
    /// Preferred source address.
    pub source: Option<IpAddr>,
    /// Path MTU in bytes.
    pub mtu_bytes: Option<u32>,
    /// TCP maximum segment size that is announced, in bytes (`RTAX_ADVMSS`).
    pub advmss_bytes: Option<u32>,
    /// Scope of an IPv4 route (`RT_SCOPE_*`), if it is not the one that follows from its next hop.
    pub scope: Option<u8>,
}

impl Route {
    /// Whether this route, where its place is taken by another one, may take that over: it has a mark of its own, the
    /// other one has none, and both lead to the same next hop.
    #[must_use]
    pub fn takes_over(&self, present: &Self) -> bool {
        let (RouteKind::Unicast(wanted), RouteKind::Unicast(found)) = (&self.kind, &present.kind) else {
            return false;
        };
        self.protocol != RTPROT_BOOT
            && present.protocol == RTPROT_BOOT
            && (&wanted.link, wanted.gateway) == (&found.link, found.gateway)
    }

    /// The route that has to stand while this one takes the place of one that may lead through another link. IPv6 looks up
    /// a gateway, also one that is `onlink`, and refuses one that is reached through another link; of a gateway inside
    /// the route's own destination the present route tells that, until a more specific one leads to the gateway
    /// alone (linux `net/ipv6/route.c`, `ip6_route_check_nh_onlink`; measured on 6.18).
    #[must_use]
    pub fn stepping_stone(&self, key: &RouteKey) -> Option<(RouteKey, Self)> {
        let RouteKind::Unicast(hop) = &self.kind else {
            return None;
        };
        let gateway = hop.gateway.filter(|gateway| gateway.is_ipv6() && hop.onlink)?;
        let dst = IpNetwork::from(gateway);
        if !key.dst.contains(gateway) || key.dst == dst {
            return None;
        }
        let hop = Nexthop {
            gateway: None,
            onlink: false,
            ..hop.clone()
        };
        let stone = Self {
            kind: RouteKind::Unicast(hop),
            protocol: self.protocol,
            source: None,
            mtu_bytes: None,
            advmss_bytes: None,
            scope: None,
        };
        Some((RouteKey { dst, ..key.clone() }, stone))
    }

    /// The scope that follows from the next hop, as iproute2 chooses it: an IPv4 destination without a gateway is on
    /// the link; IPv6 has no scopes.
    #[must_use]
    pub const fn usual_scope(dst: IpNetwork, kind: &RouteKind) -> u8 {
        match (dst, kind) {
            (IpNetwork::V4(_), RouteKind::Unicast(Nexthop { gateway: None, .. })) => RT_SCOPE_LINK,
            (IpNetwork::V4(_) | IpNetwork::V6(_), RouteKind::Unicast(_) | RouteKind::Blackhole) => {
                RT_SCOPE_UNIVERSE
            }
        }
    }
}

/// Where a route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RouteKind {
    /// To one next hop.
    Unicast(Nexthop),
    /// Nowhere: packets are dropped silently.
    Blackhole,
}

impl RouteKind {
    /// The link that packets leave by, if they do.
    #[must_use]
    pub const fn link(&self) -> Option<&IfName> {
        match self {
            Self::Unicast(nexthop) => Some(&nexthop.link),
            Self::Blackhole => None,
        }
    }
}

/// The next hop of a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nexthop {
    /// The link that packets leave by.
    pub link: IfName,
    /// The gateway; `None` when destinations are on the link.
    pub gateway: Option<IpAddr>,
    /// Whether the gateway counts as reachable although no address on the link covers it (`RTNH_F_ONLINK`).
    pub onlink: bool,
}

/// Identity of a neighbour entry.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NeighKey {
    /// The link.
    pub link: IfName,
    /// The neighbour's address.
    pub ip: IpAddr,
}

/// A permanent neighbour entry (`NUD_PERMANENT`); others are the kernel's own business and never observed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Neigh {
    /// The neighbour's hardware address.
    pub mac: MacAddr,
}

/// A permanent forwarding entry of a VXLAN device (`self permanent`). The whole entry is its identity: a unicast MAC
/// has one remote address in the kernel, but a group or zero MAC may have several.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct FdbKey {
    /// The VXLAN device.
    pub link: IfName,
    /// Inner destination.
    pub mac: MacAddr,
    /// Outer destination.
    pub remote: IpAddr,
}

/// A kernel parameter: its path below `/proc/sys`, with slashes, such as `net/ipv6/conf/flannel.1/accept_ra`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SysctlKey(String);

impl SysctlKey {
    /// Names the parameter `name` of `family` (`ipv4`, `ipv6`) for one link.
    #[must_use]
    pub fn of_link(family: &str, link: &IfName, name: &str) -> Self {
        Self(format!("net/{family}/conf/{link}/{name}"))
    }

    /// The family, link and name of one that has the form of [`SysctlKey::of_link`].
    #[must_use]
    pub fn link_parts(&self) -> Option<(&str, &str, &str)> {
        let (family, rest) = self.0.strip_prefix("net/")?.split_once("/conf/")?;
        let (link, name) = rest.split_once('/')?;
        (!family.contains('/') && !name.contains('/')).then_some((family, link, name))
    }

    /// Wraps a path below `/proc/sys`; `None` when a part of it is empty, `.` or `..`.
    #[must_use]
    pub fn new(path: &str) -> Option<Self> {
        let plain = path.split('/').all(|part| !matches!(part, "" | "." | ".."));
        plain.then(|| Self(path.to_owned()))
    }

    /// The path below `/proc/sys`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
