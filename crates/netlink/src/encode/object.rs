use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::{IfIndex, MacAddr};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE};
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage, NeighbourState,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteMetric, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netstate::{Addr, Nexthop, Route, RouteKey, RouteKind};

use super::{Request, family_of};

/// What an added route may meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Fail if there is one of equal table, destination and metric.
    MustBeAbsent,
    /// Replace it.
    Replace,
}

pub(crate) fn add_addr(link: IfIndex, addr: IpNetwork, details: Addr) -> Request {
    let mut message = addr_message(link, addr);
    let attributes = &mut message.attributes;
    attributes.extend(details.broadcast.map(AddressAttribute::Broadcast));
    if details.nodad {
        message.header.flags = AddressHeaderFlags::Nodad;
        attributes.push(AddressAttribute::Flags(AddressFlags::Nodad));
    }
    Request {
        message: RouteNetlinkMessage::NewAddress(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    }
}

pub(crate) fn del_addr(link: IfIndex, addr: IpNetwork) -> Request {
    Request {
        message: RouteNetlinkMessage::DelAddress(addr_message(link, addr)),
        flags: 0,
    }
}

fn addr_message(link: IfIndex, addr: IpNetwork) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family_of(addr.ip());
    message.header.prefix_len = addr.prefix();
    message.header.scope = AddressScope::Universe;
    message.header.index = link.get();
    message.attributes = vec![
        AddressAttribute::Local(addr.ip()),
        AddressAttribute::Address(addr.ip()),
    ];
    message
}

pub(crate) fn add_route(key: &RouteKey, route: &Route, oif: Option<IfIndex>, presence: Presence) -> Request {
    let mut message = route_message(key, route, oif);
    let scope = route.scope.unwrap_or(Route::usual_scope(key.dst, &route.kind));
    message.header.scope = scope.into();
    let attributes = &mut message.attributes;
    attributes.extend(route.source.map(|ip| RouteAttribute::PrefSource(ip.into())));
    let mtu = route.mtu_bytes.map(RouteMetric::Mtu);
    let metrics: Vec<_> = mtu
        .into_iter()
        .chain(route.advmss_bytes.map(RouteMetric::Advmss))
        .collect();
    if !metrics.is_empty() {
        attributes.push(RouteAttribute::Metrics(metrics));
    }
    let flags = match presence {
        Presence::MustBeAbsent => NLM_F_EXCL,
        Presence::Replace => NLM_F_REPLACE,
    };
    Request {
        message: RouteNetlinkMessage::NewRoute(message),
        flags: NLM_F_CREATE | flags,
    }
}

pub(crate) fn del_route(key: &RouteKey, route: &Route, oif: Option<IfIndex>) -> Request {
    let mut message = route_message(key, route, oif);
    // Matches any scope, also that of a route that somebody else made (linux `fib_trie.c`, `fib_table_delete`).
    message.header.scope = RouteScope::NoWhere;
    Request {
        message: RouteNetlinkMessage::DelRoute(message),
        flags: 0,
    }
}

/// What identifies a route to the kernel: table, destination, metric, type, protocol and next hop.
fn route_message(key: &RouteKey, route: &Route, oif: Option<IfIndex>) -> RouteMessage {
    let mut message = RouteMessage::default();
    let header = &mut message.header;
    header.address_family = family_of(key.dst.ip());
    header.destination_prefix_length = key.dst.prefix();
    header.protocol = route.protocol.into();
    put_table(&mut message, key.table);
    let attributes = &mut message.attributes;
    if key.dst.prefix() > 0 {
        attributes.push(RouteAttribute::Destination(key.dst.network().into()));
    }
    if key.metric != 0 {
        attributes.push(RouteAttribute::Priority(key.metric));
    }
    let header = &mut message.header;
    match &route.kind {
        RouteKind::Unicast(hop) => {
            header.kind = RouteType::Unicast;
            header.flags = flags_of(hop);
            attributes.extend(oif.map(|oif| RouteAttribute::Oif(oif.get())));
            attributes.extend(hop.gateway.map(|ip| RouteAttribute::Gateway(ip.into())));
        }
        RouteKind::Blackhole => header.kind = RouteType::BlackHole,
    }
    message
}

fn flags_of(hop: &Nexthop) -> RouteFlags {
    if hop.onlink {
        RouteFlags::Onlink
    } else {
        RouteFlags::empty()
    }
}

/// Names a table, which the header can hold only up to 255.
pub(crate) fn put_table(message: &mut RouteMessage, table: u32) {
    match u8::try_from(table) {
        Ok(short) => message.header.table = short,
        Err(_) => {
            message.header.table = RouteHeader::RT_TABLE_UNSPEC;
            message.attributes.push(RouteAttribute::Table(table));
        }
    }
}

pub(crate) fn set_neigh(link: IfIndex, ip: IpAddr, mac: MacAddr) -> Request {
    let mut message = neigh_message(link, ip);
    message.header.state = NeighbourState::Permanent;
    message.attributes.push(link_layer(mac));
    Request {
        message: RouteNetlinkMessage::NewNeighbour(message),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

pub(crate) fn del_neigh(link: IfIndex, ip: IpAddr) -> Request {
    Request {
        message: RouteNetlinkMessage::DelNeighbour(neigh_message(link, ip)),
        flags: 0,
    }
}

pub(crate) fn set_fdb(link: IfIndex, mac: MacAddr, remote: IpAddr) -> Request {
    Request {
        message: RouteNetlinkMessage::NewNeighbour(fdb_message(link, mac, remote)),
        flags: NLM_F_CREATE | NLM_F_REPLACE,
    }
}

pub(crate) fn del_fdb(link: IfIndex, mac: MacAddr, remote: IpAddr) -> Request {
    Request {
        message: RouteNetlinkMessage::DelNeighbour(fdb_message(link, mac, remote)),
        flags: 0,
    }
}

fn neigh_message(link: IfIndex, ip: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(ip);
    message.header.ifindex = link.get();
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::from(ip))];
    message
}

fn fdb_message(link: IfIndex, mac: MacAddr, remote: IpAddr) -> NeighbourMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link.get();
    message.header.state = NeighbourState::Permanent;
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![
        link_layer(mac),
        NeighbourAttribute::Destination(NeighbourAddress::from(remote)),
    ];
    message
}

fn link_layer(mac: MacAddr) -> NeighbourAttribute {
    NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec())
}
