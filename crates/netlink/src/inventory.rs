//! What a host has: its links, their addresses, and where its default routes lead. Plain data.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::registry::RT_TABLE_MAIN;
use net_types::{IfIndex, IfName};
use netlink_packet_route::address::{AddressFlags, AddressMessage, AddressScope};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteNextHop, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netstate::{AdminState, ErrorClass, KernelError};

use crate::attr::{find, only};
use crate::errno::other;
use crate::socket::Socket;
use crate::{RealKernel, decode, encode};

/// A host's links and default routes at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inventory {
    /// All links, by number.
    pub links: Vec<HostLink>,
    /// The IPv4 default routes of the main table, the preferred one (smallest metric) first.
    pub default_routes_v4: Vec<DefaultRoute>,
    /// The IPv6 default routes of the main table, the preferred one (smallest metric) first.
    pub default_routes_v6: Vec<DefaultRoute>,
}

/// A link with its addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostLink {
    /// Its name.
    pub name: IfName,
    /// Its number.
    pub index: IfIndex,
    /// Largest payload in bytes.
    pub mtu_bytes: u32,
    /// Whether it is administratively up.
    pub admin: AdminState,
    /// Whether it is the loopback link.
    pub loopback: bool,
    /// Its addresses, in the kernel's order.
    pub addrs: Vec<HostAddr>,
}

/// An address of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostAddr {
    /// Address and prefix length.
    pub addr: IpNetwork,
    /// How far it is valid.
    pub scope: AddrScope,
    /// Whether it stays: neither leased nor learned from a router (`IFA_F_PERMANENT`).
    pub permanent: bool,
    /// Whether it is a temporary IPv6 address (RFC 8981), or a secondary IPv4 one: the kernel has one flag for both
    /// (`IFA_F_SECONDARY`).
    pub temporary: bool,
    /// Whether new connections should not use it (`IFA_F_DEPRECATED`).
    pub deprecated: bool,
    /// Whether its uniqueness is still being checked, or was disproved (`IFA_F_TENTATIVE`, `IFA_F_DADFAILED`).
    pub tentative: bool,
}

/// How far an address is valid (linux `RT_SCOPE_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddrScope {
    /// Everywhere.
    Global,
    /// On the link.
    Link,
    /// On the host.
    Host,
    /// Another number.
    Other(u8),
}

/// A default route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DefaultRoute {
    /// Its metric; smaller wins.
    pub metric: u32,
    /// Where it leads.
    pub target: DefaultTarget,
}

/// Where a default route leads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DefaultTarget {
    /// To one next hop.
    Single(Hop),
    /// To several next hops at once, in the kernel's order, without those that leave by an unknown link; empty for a
    /// next-hop object whose next hops the kernel does not show (`net.ipv4.nexthop_compat_mode` 0).
    Several(Vec<Hop>),
}

/// A next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The link that packets leave by.
    pub link: IfName,
    /// The gateway; `None` when the destination is on the link.
    pub gateway: Option<IpAddr>,
    /// The source address that the kernel would choose, or that the route names.
    pub source: Option<IpAddr>,
}

impl RealKernel {
    /// Lists the links, addresses and default routes.
    ///
    /// # Errors
    /// A table cannot be read.
    pub fn inventory(&mut self) -> Result<Inventory, KernelError> {
        let socket = &mut self.socket;
        let mut links = links(socket)?;
        for (index, addr) in addrs(socket)? {
            if let Some(link) = links.get_mut(&index) {
                link.addrs.push(addr);
            }
        }
        Ok(Inventory {
            default_routes_v4: default_routes(socket, AddressFamily::Inet, &links)?,
            default_routes_v6: default_routes(socket, AddressFamily::Inet6, &links)?,
            links: links.into_values().collect(),
        })
    }

    /// Asks which way a packet to an address would go, as `ip route get`; `None` when no way leads there.
    ///
    /// # Errors
    /// The question cannot be asked, or the answer names no link.
    pub fn route_get(&mut self, destination: IpAddr) -> Result<Option<Hop>, KernelError> {
        let answer = match self.socket.ask_one(encode::route_to(destination)) {
            Ok(answer) => answer,
            Err(e) if is_no_route(e.class) => return Ok(None),
            Err(e) => return Err(e),
        };
        let unexpected = || other(format!("cannot read the kernel's route to {destination}"));
        let RouteNetlinkMessage::NewRoute(message) = answer else {
            return Err(unexpected());
        };
        let route = decode::unicast(&message).ok_or_else(unexpected)?;
        let RouteNetlinkMessage::NewLink(link) = self.socket.ask_one(encode::link_by_index(route.oif))?
        else {
            return Err(unexpected());
        };
        let link = decode::link(&link).ok_or_else(unexpected)?;
        Ok(Some(Hop {
            link: link.name,
            gateway: route.gateway,
            source: route.source,
        }))
    }
}

/// `ENETUNREACH`, and what a rejecting route answers: `EHOSTUNREACH`, `EACCES`, `EINVAL` (a black hole).
pub(crate) fn is_no_route(class: ErrorClass) -> bool {
    use nix::libc::{EHOSTUNREACH, EINVAL};
    matches!(class, ErrorClass::Unreachable | ErrorClass::Denied)
        || class == ErrorClass::Other(EHOSTUNREACH)
        || class == ErrorClass::Other(EINVAL)
}

fn links(socket: &mut Socket) -> Result<BTreeMap<IfIndex, HostLink>, KernelError> {
    let links = socket.dump(&encode::all_links(), |message| {
        decode::link(&only!(message, RouteNetlinkMessage::NewLink)?)
    })?;
    let host_links = links.into_iter().map(|raw| {
        let link = HostLink {
            name: raw.name,
            index: raw.index,
            mtu_bytes: raw.link.mtu_bytes.unwrap_or(0),
            admin: raw.link.admin,
            loopback: raw.loopback,
            addrs: Vec::new(),
        };
        (raw.index, link)
    });
    Ok(host_links.collect())
}

fn addrs(socket: &mut Socket) -> Result<Vec<(IfIndex, HostAddr)>, KernelError> {
    socket.dump(&encode::all_addrs(None), |message| {
        host_addr(&only!(message, RouteNetlinkMessage::NewAddress)?)
    })
}

fn host_addr(message: &AddressMessage) -> Option<(IfIndex, HostAddr)> {
    let (index, addr, _, flags) = decode::addr(message)?;
    let host_addr = HostAddr {
        addr,
        scope: scope_of(message.header.scope),
        permanent: flags.contains(AddressFlags::Permanent),
        temporary: flags.contains(AddressFlags::Secondary),
        deprecated: flags.contains(AddressFlags::Deprecated),
        tentative: flags.intersects(AddressFlags::Tentative | AddressFlags::Dadfailed),
    };
    Some((index, host_addr))
}

fn scope_of(scope: AddressScope) -> AddrScope {
    let known = [
        (AddressScope::Universe, AddrScope::Global),
        (AddressScope::Link, AddrScope::Link),
        (AddressScope::Host, AddrScope::Host),
    ];
    let found = known.into_iter().find(|(theirs, _)| *theirs == scope);
    found.map_or_else(|| AddrScope::Other(scope.into()), |(_, ours)| ours)
}

fn default_routes(
    socket: &mut Socket,
    family: AddressFamily,
    links: &BTreeMap<IfIndex, HostLink>,
) -> Result<Vec<DefaultRoute>, KernelError> {
    let mut routes = socket.dump_routes(encode::routes(family, RT_TABLE_MAIN, None), |message| {
        default_route(message, links)
    })?;
    // The kernel lists routes of equal metric in order of preference.
    routes.sort_by_key(|route| route.metric);
    Ok(routes)
}

fn default_route(message: &RouteMessage, links: &BTreeMap<IfIndex, HostLink>) -> Option<DefaultRoute> {
    let header = &message.header;
    let main = decode::table(message) == RT_TABLE_MAIN;
    if header.destination_prefix_length != 0 || header.kind != RouteType::Unicast || !main {
        return None;
    }
    let attributes = &message.attributes;
    let hidden =
        find!(attributes, RouteAttribute::NhId).is_some() && find!(attributes, RouteAttribute::Oif).is_none();
    let target = if let Some(hops) = find!(attributes, RouteAttribute::MultiPath) {
        let source = find!(attributes, RouteAttribute::PrefSource).and_then(decode::route_ip);
        DefaultTarget::Several(hops.iter().filter_map(|next| hop(next, source, links)).collect())
    } else if hidden {
        DefaultTarget::Several(Vec::new())
    } else {
        let route = decode::unicast(message)?;
        DefaultTarget::Single(Hop {
            link: links.get(&route.oif)?.name.clone(),
            gateway: route.gateway,
            source: route.source,
        })
    };
    Some(DefaultRoute {
        metric: find!(attributes, RouteAttribute::Priority).copied().unwrap_or(0),
        target,
    })
}

/// One of several next hops.
fn hop(next: &RouteNextHop, source: Option<IpAddr>, links: &BTreeMap<IfIndex, HostLink>) -> Option<Hop> {
    Some(Hop {
        link: links.get(&IfIndex::new(next.interface_index)?)?.name.clone(),
        gateway: find!(next.attributes, RouteAttribute::Gateway).and_then(decode::route_ip),
        source,
    })
}
