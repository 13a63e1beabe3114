//! What the kernel says, as plain data. Pure: it depends on nothing but the message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use net_types::{IfIndex, IfName, MacAddr, Vni};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use netlink_packet_route::link::{
    InfoBridgePort, InfoData, InfoIpTunnel, InfoKind, InfoPortData, InfoPortKind, InfoVxlan, LinkAttribute,
    LinkFlags, LinkInfo, LinkMessage, TunnelEncapType,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteProtocol, RouteType,
};
use netstate::{Addr, AdminState, Ipip, Link, LinkKind, Route, RouteKey, RouteKind, Vxlan};

use crate::attr::find;
use crate::devconf::DevConf;

/// A link as the kernel describes it: it refers to other links by number.
#[derive(Debug)]
pub(crate) struct RawLink {
    pub(crate) index: IfIndex,
    pub(crate) name: IfName,
    /// Without the port and the parent.
    pub(crate) link: Link,
    pub(crate) loopback: bool,
    /// What it is as a port of a bridge.
    pub(crate) port: Option<RawPort>,
    /// The parent of a VXLAN device, if it is in the same namespace.
    pub(crate) parent: Option<IfIndex>,
    pub(crate) devconf: DevConf,
}

/// Membership in a bridge.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RawPort {
    pub(crate) bridge: IfIndex,
    pub(crate) hairpin: bool,
    pub(crate) isolated: bool,
}

/// A route to one next hop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawRoute {
    pub(crate) table: u32,
    pub(crate) dst: IpNetwork,
    pub(crate) metric: u32,
    pub(crate) oif: IfIndex,
    pub(crate) gateway: Option<IpAddr>,
    pub(crate) onlink: bool,
    pub(crate) protocol: u8,
    pub(crate) source: Option<IpAddr>,
    pub(crate) mtu_bytes: Option<u32>,
    pub(crate) advmss_bytes: Option<u32>,
    pub(crate) scope: u8,
}

/// Reads a link; `None` when its name or number is not valid.
pub(crate) fn link(message: &LinkMessage) -> Option<RawLink> {
    let attributes = &message.attributes;
    let infos: &[LinkInfo] = find!(attributes, LinkAttribute::LinkInfo).map_or(&[], Vec::as_slice);
    let data = find!(infos, LinkInfo::Data);
    let vxlan: &[InfoVxlan] = data.and_then(vxlan_attributes).unwrap_or(&[]);
    let foreign_parent = find!(attributes, LinkAttribute::LinkNetNsId).is_some();
    let parent = find!(vxlan, InfoVxlan::Link).and_then(|index| IfIndex::new(*index));
    let admin = if message.header.flags.contains(LinkFlags::Up) {
        AdminState::Up
    } else {
        AdminState::Down
    };
    Some(RawLink {
        index: IfIndex::new(message.header.index)?,
        name: IfName::new(find!(attributes, LinkAttribute::IfName)?).ok()?,
        devconf: DevConf::of(message),
        link: Link {
            kind: kind(infos, data),
            mac: find!(attributes, LinkAttribute::Address).and_then(|bytes| mac(bytes)),
            mtu_bytes: find!(attributes, LinkAttribute::Mtu).copied(),
            admin,
            port: None,
        },
        loopback: message.header.flags.contains(LinkFlags::Loopback),
        port: port(attributes, infos),
        parent: if foreign_parent { None } else { parent },
    })
}

fn vxlan_attributes(data: &InfoData) -> Option<&[InfoVxlan]> {
    if let InfoData::Vxlan(attributes) = data {
        Some(attributes)
    } else {
        None
    }
}

fn kind(infos: &[LinkInfo], data: Option<&InfoData>) -> LinkKind {
    let Some(kind) = find!(infos, LinkInfo::Kind) else {
        return LinkKind::Other(String::new());
    };
    let other = || LinkKind::Other(kind.to_string());
    if *kind == InfoKind::Bridge {
        LinkKind::Bridge
    } else if *kind == InfoKind::Wireguard {
        LinkKind::Wireguard
    } else if *kind == InfoKind::Veth {
        LinkKind::Veth(None)
    } else if *kind == InfoKind::Vxlan {
        let vxlan = data.and_then(vxlan_attributes).and_then(vxlan_of);
        vxlan.map_or_else(other, LinkKind::Vxlan)
    } else if *kind == InfoKind::IpIp {
        let ipip = data.and_then(tunnel_attributes).and_then(ipip_of);
        ipip.map_or_else(other, LinkKind::Ipip)
    } else {
        other()
    }
}

fn tunnel_attributes(data: &InfoData) -> Option<&[InfoIpTunnel]> {
    if let InfoData::IpTunnel(attributes) = data {
        Some(attributes)
    } else {
        None
    }
}

/// `None` for one that is bound to a remote or a link, takes remotes from packets' metadata, wraps what it sends once
/// more, or does not carry IPv4.
fn ipip_of(attributes: &[InfoIpTunnel]) -> Option<Ipip> {
    let encap = find!(attributes, InfoIpTunnel::EncapType).filter(|encap| **encap != TunnelEncapType::None);
    let is_special = attributes.contains(&InfoIpTunnel::CollectMetadata);
    if encap.is_some() || is_special || !carries_ipv4(attributes) {
        return None;
    }
    ends_of(attributes)
}

/// Linux `ipip.c`, `ipip_tunnel_xmit`: alone, or beside MPLS, which a reference that gives the protocol 0 asks for.
fn carries_ipv4(attributes: &[InfoIpTunnel]) -> bool {
    const ANY: u8 = 0;
    const IPV4: u8 = 4;
    let protocol = find!(attributes, InfoIpTunnel::Protocol).map_or(IPV4, |protocol| u8::from(*protocol));
    [ANY, IPV4].contains(&protocol)
}

/// What the kernel tells a tunnel of IP in IP by, whatever else it has, if it is bound to neither a remote nor a link
/// (linux `ip_tunnel.c`, `ip_tunnel_find`).
pub(crate) fn ipip_ends(message: &LinkMessage) -> Option<Ipip> {
    let infos = find!(message.attributes, LinkAttribute::LinkInfo)?;
    let is_ipip = find!(infos, LinkInfo::Kind) == Some(&InfoKind::IpIp);
    let attributes = find!(infos, LinkInfo::Data).and_then(tunnel_attributes);
    attributes.filter(|_| is_ipip).and_then(ends_of)
}

fn ends_of(attributes: &[InfoIpTunnel]) -> Option<Ipip> {
    let remote = find!(attributes, InfoIpTunnel::Remote).filter(|ip| !ip.is_unspecified());
    let link = find!(attributes, InfoIpTunnel::Link).filter(|index| **index != 0);
    if remote.is_some() || link.is_some() {
        return None;
    }
    let local = find!(attributes, InfoIpTunnel::Local).copied();
    let local = local.and_then(|ip| match ip {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    });
    Some(Ipip {
        local: local.filter(|ip| !ip.is_unspecified()),
    })
}

fn vxlan_of(attributes: &[InfoVxlan]) -> Option<Vxlan> {
    let v4 = find!(attributes, InfoVxlan::Local).map(|ip| IpAddr::V4(*ip));
    let v6 = find!(attributes, InfoVxlan::Local6).map(|ip| IpAddr::V6(*ip));
    Some(Vxlan {
        vni: Vni::try_from(*find!(attributes, InfoVxlan::Id)?).ok()?,
        port: *find!(attributes, InfoVxlan::Port)?,
        local: v4.or(v6).filter(|ip| !ip.is_unspecified()),
        parent: None,
        learning: find!(attributes, InfoVxlan::Learning).copied().unwrap_or(false),
        gbp: attributes.contains(&InfoVxlan::Gbp),
        tx_checksum: None,
    })
}

fn port(attributes: &[LinkAttribute], infos: &[LinkInfo]) -> Option<RawPort> {
    if find!(infos, LinkInfo::PortKind) != Some(&InfoPortKind::Bridge) {
        return None;
    }
    let flags: &[InfoBridgePort] = match find!(infos, LinkInfo::PortData) {
        Some(InfoPortData::BridgePort(port)) => port,
        _ => &[],
    };
    Some(RawPort {
        bridge: IfIndex::new(*find!(attributes, LinkAttribute::Controller)?)?,
        hairpin: find!(flags, InfoBridgePort::HairpinMode)
            .copied()
            .unwrap_or(false),
        isolated: find!(flags, InfoBridgePort::Isolated).copied().unwrap_or(false),
    })
}

/// An address with its link, its details and all its flags.
pub(crate) fn addr(message: &AddressMessage) -> Option<(IfIndex, IpNetwork, Addr, AddressFlags)> {
    let attributes = &message.attributes;
    // On a point-to-point link IFA_ADDRESS is the other end; IPv6 gives IFA_LOCAL only then.
    let ip = find!(attributes, AddressAttribute::Local)
        .or_else(|| find!(attributes, AddressAttribute::Address))?;
    let header_flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    let flags = find!(attributes, AddressAttribute::Flags)
        .copied()
        .unwrap_or(header_flags);
    let details = Addr {
        broadcast: find!(attributes, AddressAttribute::Broadcast).copied(),
        nodad: flags.contains(AddressFlags::Nodad),
    };
    let addr = IpNetwork::new(*ip, message.header.prefix_len).ok()?;
    Some((IfIndex::new(message.header.index)?, addr, details, flags))
}

/// Whether an address is an IPv6 link-local one, which the kernel makes itself.
pub(crate) fn is_v6_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(_) => false,
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// Reads a permanent neighbour; `None` for every other.
pub(crate) fn neigh(message: &NeighbourMessage) -> Option<(IfIndex, IpAddr, MacAddr)> {
    if !is_permanent(message) {
        return None;
    }
    let ip = find!(message.attributes, NeighbourAttribute::Destination).and_then(ip_of)?;
    Some((IfIndex::new(message.header.ifindex)?, ip, neigh_mac(message)?))
}

/// Reads a permanent forwarding entry of a VXLAN device (`self permanent`); `None` for every other, and for one with
/// a port, VNI or outgoing link of its own, which [`netstate::FdbKey`] cannot express.
pub(crate) fn fdb(message: &NeighbourMessage) -> Option<(IfIndex, MacAddr, IpAddr)> {
    let attributes = &message.attributes;
    let special = find!(attributes, NeighbourAttribute::Port).is_some()
        || find!(attributes, NeighbourAttribute::Vni).is_some()
        || find!(attributes, NeighbourAttribute::IfIndex).is_some();
    let own = message.header.flags.contains(NeighbourFlags::Own);
    if special || !own || !is_permanent(message) || message.header.family != AddressFamily::Bridge {
        return None;
    }
    let remote = find!(attributes, NeighbourAttribute::Destination).and_then(ip_of)?;
    Some((IfIndex::new(message.header.ifindex)?, neigh_mac(message)?, remote))
}

/// Whether an entry is permanent. The state is a set of bits: `bridge fdb add … static` adds `NUD_NOARP`.
pub(crate) fn is_permanent(message: &NeighbourMessage) -> bool {
    u16::from(message.header.state) & u16::from(NeighbourState::Permanent) != 0
}

fn neigh_mac(message: &NeighbourMessage) -> Option<MacAddr> {
    find!(message.attributes, NeighbourAttribute::LinkLayerAddress).and_then(|bytes| mac(bytes))
}

fn mac(bytes: &[u8]) -> Option<MacAddr> {
    <[u8; 6]>::try_from(bytes).ok().map(MacAddr::new)
}

/// The address bytes of a forwarding entry come unparsed: its family is the bridge's.
fn ip_of(address: &NeighbourAddress) -> Option<IpAddr> {
    match address {
        NeighbourAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        NeighbourAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        NeighbourAddress::Other(bytes) => {
            let v4 = <[u8; 4]>::try_from(bytes.as_slice()).ok().map(IpAddr::from);
            v4.or_else(|| <[u8; 16]>::try_from(bytes.as_slice()).ok().map(IpAddr::from))
        }
        _ => None,
    }
}

/// Reads a route that [`netstate::Route`] can express, and that the kernel did not make itself.
///
/// `None` for everything else: another type than unicast, several next hops or a next-hop
/// object, a gateway of the other family, an encapsulation, a source prefix or a type of service; protocols `kernel`,
/// `redirect` and `ra`.
pub(crate) fn route(message: &RouteMessage) -> Option<RawRoute> {
    let header = &message.header;
    let by_kernel = matches!(
        header.protocol,
        RouteProtocol::Kernel | RouteProtocol::IcmpRedirect | RouteProtocol::Ra
    );
    if by_kernel || !is_plain(message) {
        return None;
    }
    unicast(message)
}

/// Reads a route that leads nowhere. The loopback device that the kernel names for one of IPv6 says nothing.
pub(crate) fn blackhole(message: &RouteMessage) -> Option<(RouteKey, Route)> {
    let header = &message.header;
    if header.kind != RouteType::BlackHole || header.source_prefix_length != 0 || header.tos != 0 {
        return None;
    }
    let key = RouteKey {
        table: table(message),
        dst: IpNetwork::new(destination(message)?, header.destination_prefix_length).ok()?,
        metric: metric(message),
    };
    let route = Route {
        kind: RouteKind::Blackhole,
        protocol: header.protocol.into(),
        source: None,
        mtu_bytes: None,
        advmss_bytes: None,
        scope: None,
    };
    Some((key, route))
}

/// Reads a unicast route with one next hop, whoever made it.
pub(crate) fn unicast(message: &RouteMessage) -> Option<RawRoute> {
    let header = &message.header;
    let attributes = &message.attributes;
    let metrics: &[RouteMetric] = find!(attributes, RouteAttribute::Metrics).map_or(&[], Vec::as_slice);
    Some(RawRoute {
        table: table(message),
        dst: IpNetwork::new(destination(message)?, header.destination_prefix_length).ok()?,
        metric: metric(message),
        oif: IfIndex::new(*find!(attributes, RouteAttribute::Oif)?)?,
        gateway: find!(attributes, RouteAttribute::Gateway).and_then(route_ip),
        onlink: header.flags.contains(RouteFlags::Onlink),
        protocol: header.protocol.into(),
        source: find!(attributes, RouteAttribute::PrefSource).and_then(route_ip),
        mtu_bytes: find!(metrics, RouteMetric::Mtu).copied(),
        advmss_bytes: find!(metrics, RouteMetric::Advmss).copied(),
        scope: header.scope.into(),
    })
}

fn is_plain(message: &RouteMessage) -> bool {
    let header = &message.header;
    let special = message.attributes.iter().any(|attribute| {
        matches!(
            attribute,
            RouteAttribute::MultiPath(_)
                | RouteAttribute::NhId(_)
                | RouteAttribute::Via(_)
                | RouteAttribute::Encap(_)
                | RouteAttribute::EncapType(_)
        )
    });
    !special
        && header.kind == RouteType::Unicast
        && header.source_prefix_length == 0
        && header.tos == 0
        && !header.flags.contains(RouteFlags::Cloned)
}

/// The table of a route, which the header can hold only up to 255.
pub(crate) fn table(message: &RouteMessage) -> u32 {
    let long = find!(message.attributes, RouteAttribute::Table).copied();
    long.unwrap_or_else(|| message.header.table.into())
}

/// The destination of a route; all zeros for a default route.
pub(crate) fn destination(message: &RouteMessage) -> Option<IpAddr> {
    let any = if message.header.address_family == AddressFamily::Inet {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED)
    } else {
        IpAddr::V6(Ipv6Addr::UNSPECIFIED)
    };
    find!(message.attributes, RouteAttribute::Destination).map_or(Some(any), route_ip)
}

/// The metric of a route; the kernel leaves IPv4's zero out.
pub(crate) fn metric(message: &RouteMessage) -> u32 {
    find!(message.attributes, RouteAttribute::Priority)
        .copied()
        .unwrap_or(0)
}

pub(crate) fn route_ip(address: &RouteAddress) -> Option<IpAddr> {
    match address {
        RouteAddress::Inet(ip) => Some(IpAddr::V4(*ip)),
        RouteAddress::Inet6(ip) => Some(IpAddr::V6(*ip)),
        RouteAddress::Mpls(_) | RouteAddress::Other(_) | _ => None,
    }
}
