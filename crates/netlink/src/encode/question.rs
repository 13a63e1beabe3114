use std::net::IpAddr;

use net_types::registry::RT_TABLE_MAIN;
use net_types::{IfIndex, IfName, MacAddr};
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::link::{LinkAttribute, LinkExtentMask, LinkMessage};
use netlink_packet_route::neighbour::{
    NeighbourAddress, NeighbourAttribute, NeighbourFlags, NeighbourMessage,
};
use netlink_packet_route::route::{RouteAttribute, RouteFlags, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::{family_of, object::put_table};

pub(crate) fn link_by_name(name: &IfName) -> RouteNetlinkMessage {
    let mut message = link_question();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    RouteNetlinkMessage::GetLink(message)
}

pub(crate) fn link_by_index(index: IfIndex) -> RouteNetlinkMessage {
    let mut message = link_question();
    message.header.index = index.get();
    RouteNetlinkMessage::GetLink(message)
}

pub(crate) fn all_links() -> RouteNetlinkMessage {
    RouteNetlinkMessage::GetLink(link_question())
}

fn link_question() -> LinkMessage {
    let mut message = LinkMessage::default();
    let without_counters = LinkAttribute::ExtMask(vec![LinkExtentMask::SkipStats]);
    message.attributes.push(without_counters);
    message
}

/// The addresses of one link, or of all.
pub(crate) fn all_addrs(link: Option<IfIndex>) -> RouteNetlinkMessage {
    let mut message = AddressMessage::default();
    message.header.index = link.map_or(0, IfIndex::get);
    RouteNetlinkMessage::GetAddress(message)
}

/// The neighbours on a link, of both families.
pub(crate) fn neighs_of(link: IfIndex) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.attributes.push(NeighbourAttribute::IfIndex(link.get()));
    RouteNetlinkMessage::GetNeighbour(message)
}

/// The forwarding entries of a link. A strict dump takes the link from the header here, and from an attribute for
/// neighbours (linux `rtnetlink.c`, `valid_fdb_dump_strict`; `neighbour.c`, `neigh_valid_dump_req`).
pub(crate) fn fdb_of(link: IfIndex) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link.get();
    RouteNetlinkMessage::GetNeighbour(message)
}

/// The neighbour of one address.
pub(crate) fn neigh(link: IfIndex, ip: IpAddr) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = family_of(ip);
    message.header.ifindex = link.get();
    message.attributes = vec![NeighbourAttribute::Destination(NeighbourAddress::from(ip))];
    RouteNetlinkMessage::GetNeighbour(message)
}

/// The forwarding entry of one unicast MAC address, in the device's own table.
pub(crate) fn fdb_entry(link: IfIndex, mac: MacAddr) -> RouteNetlinkMessage {
    let mut message = NeighbourMessage::default();
    message.header.family = AddressFamily::Bridge;
    message.header.ifindex = link.get();
    message.header.flags = NeighbourFlags::Own;
    message.attributes = vec![NeighbourAttribute::LinkLayerAddress(mac.octets().to_vec())];
    RouteNetlinkMessage::GetNeighbour(message)
}

/// The route of any table that a packet to `destination` would match, as it stands in its table.
pub(crate) fn route_match(destination: IpAddr) -> RouteNetlinkMessage {
    let mut question = route_to(destination);
    if let RouteNetlinkMessage::GetRoute(message) = &mut question {
        message.header.flags = RouteFlags::FibMatch | RouteFlags::LookupTable;
    }
    question
}

/// The routes of a table of one family, through one link or all.
pub(crate) fn routes(family: AddressFamily, table: u32, link: Option<IfIndex>) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    put_table(&mut message, table);
    message
        .attributes
        .extend(link.map(|link| RouteAttribute::Oif(link.get())));
    RouteNetlinkMessage::GetRoute(message)
}

/// The routes of the main table of one family that a protocol made.
pub(crate) fn routes_of(family: AddressFamily, protocol: u8) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family;
    message.header.protocol = protocol.into();
    put_table(&mut message, RT_TABLE_MAIN);
    RouteNetlinkMessage::GetRoute(message)
}

/// The route that a packet to `destination` would take.
pub(crate) fn route_to(destination: IpAddr) -> RouteNetlinkMessage {
    let mut message = RouteMessage::default();
    message.header.address_family = family_of(destination);
    message.header.destination_prefix_length = if destination.is_ipv4() { 32 } else { 128 };
    message
        .attributes
        .push(RouteAttribute::Destination(destination.into()));
    RouteNetlinkMessage::GetRoute(message)
}
