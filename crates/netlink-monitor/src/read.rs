//! Multicast messages as notices. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::registry::RT_TABLE_MAIN;
use net_types::{IfIndex, IfName, MacAddr};
use netlink_packet_core::{NLM_F_REPLACE, NlaBuffer, NlasIterator};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::AddressHeader;
use netlink_packet_route::link::LinkHeader;
use netlink_packet_route::neighbour::{NeighbourHeader, NeighbourState};
use netlink_packet_route::route::{RouteHeader, RouteType};
use netstate::RouteKey;
use nix::libc;

use crate::frame::{Frame, split};
use crate::listener::Heard;
use crate::notice::{NeighChange, NeighEntry, Notice, Presence};

/// Lengths of the fixed parts before the attributes (linux `struct ifinfomsg`, `rtmsg`, `ndmsg`).
const LINK_HEADER_LEN: usize = 16;
const ADDR_HEADER_LEN: usize = 8;
const ROUTE_HEADER_LEN: usize = 12;
const NEIGH_HEADER_LEN: usize = 12;

/// Reads the notices of a datagram and hands them on, also those before a malformed message.
pub(crate) fn notices(datagram: &[u8], close: &BTreeSet<IfIndex>, mut each: impl FnMut(Notice)) -> Heard {
    let mut rest = datagram;
    while !rest.is_empty() {
        let Some((frame, next)) = split(rest) else {
            return Heard::NotEverything;
        };
        rest = next;
        match notice(&frame, close) {
            Ok(Some(notice)) => each(notice),
            Ok(None) => {}
            Err(Malformed) => return Heard::NotEverything,
        }
    }
    Heard::Everything
}

/// A message that cannot be read: what it was about is unknown.
struct Malformed;

fn notice(frame: &Frame<'_>, close: &BTreeSet<IfIndex>) -> Result<Option<Notice>, Malformed> {
    match frame.kind {
        libc::RTM_NEWLINK => link(frame.payload, Presence::Present),
        libc::RTM_DELLINK => link(frame.payload, Presence::Gone),
        libc::RTM_NEWADDR | libc::RTM_DELADDR => addr(frame.payload),
        libc::RTM_NEWROUTE | libc::RTM_DELROUTE => route(frame),
        libc::RTM_NEWNEIGH | libc::RTM_DELNEIGH => neigh(frame, close),
        _ => Ok(None),
    }
}

fn link(payload: &[u8], presence: Presence) -> Result<Option<Notice>, Malformed> {
    let header = LinkHeader::parse(payload).map_err(|_| Malformed)?;
    // A bridge reports changes of its ports in its own family, also that a port left it: the link is still there.
    let of_bridge = header.interface_family == AddressFamily::Bridge;
    let presence = if of_bridge { Presence::Present } else { presence };
    let name = attribute(payload, LINK_HEADER_LEN, libc::IFLA_IFNAME, |value| {
        let text = std::str::from_utf8(value).ok()?;
        IfName::new(text.trim_end_matches('\0')).ok()
    });
    let index = IfIndex::new(header.index).ok_or(Malformed)?;
    Ok(name.map(|name| Notice::Link {
        index,
        name,
        presence,
    }))
}

fn addr(payload: &[u8]) -> Result<Option<Notice>, Malformed> {
    let header = AddressHeader::parse(payload).map_err(|_| Malformed)?;
    let link = IfIndex::new(header.index).ok_or(Malformed)?;
    // At a point-to-point link the other attribute is the other end's.
    let local = attribute(payload, ADDR_HEADER_LEN, libc::IFA_LOCAL, ip);
    let ip = local.or_else(|| attribute(payload, ADDR_HEADER_LEN, libc::IFA_ADDRESS, ip));
    Ok(ip.map(|ip| Notice::Addr { link, ip }))
}

fn route(frame: &Frame<'_>) -> Result<Option<Notice>, Malformed> {
    let header = RouteHeader::parse(frame.payload).map_err(|_| Malformed)?;
    if u32::from(header.table) != RT_TABLE_MAIN {
        return Ok(None);
    }
    let replaced = frame.flags & NLM_F_REPLACE != 0;
    let number = |kind| {
        attribute(frame.payload, ROUTE_HEADER_LEN, kind, |value| {
            Some(u32::from_ne_bytes(value.try_into().ok()?))
        })
    };
    let is_v4 = header.address_family == AddressFamily::Inet;
    let any = if is_v4 {
        IpAddr::from([0; 4])
    } else {
        IpAddr::from([0; 16])
    };
    let dst = attribute(frame.payload, ROUTE_HEADER_LEN, libc::RTA_DST, ip).unwrap_or(any);
    let dst = IpNetwork::new(dst, header.destination_prefix_length).map_err(|_| Malformed)?;
    let key = RouteKey {
        table: RT_TABLE_MAIN,
        dst,
        metric: number(libc::RTA_PRIORITY).unwrap_or(0),
    };
    // The kernel names the loopback device for a route of IPv6 that leads nowhere.
    let leads_somewhere = header.kind == RouteType::Unicast;
    let link = number(libc::RTA_OIF)
        .and_then(IfIndex::new)
        .filter(|_| !replaced && leads_somewhere);
    Ok(Some(Notice::Route { link, key }))
}

fn neigh(frame: &Frame<'_>, close: &BTreeSet<IfIndex>) -> Result<Option<Notice>, Malformed> {
    let header = NeighbourHeader::parse(frame.payload).map_err(|_| Malformed)?;
    // A bridge's learned entries on a port report the port; some entries have no link.
    let Some(link) = IfIndex::new(header.ifindex) else {
        return Ok(None);
    };
    let is_fdb = header.family == AddressFamily::Bridge;
    let permanent = u16::from(header.state) & u16::from(NeighbourState::Permanent) != 0;
    // A removed forwarding entry still tells that it was permanent; a removed neighbour does not.
    let change = match (frame.kind, is_fdb) {
        (libc::RTM_DELNEIGH, false) => NeighChange::Removed,
        (libc::RTM_DELNEIGH, true) if permanent => NeighChange::Removed,
        (libc::RTM_NEWNEIGH, _) if permanent => NeighChange::Permanent,
        _ if close.contains(&link) => NeighChange::Transient,
        _ => return Ok(None),
    };
    let entry = if is_fdb {
        attribute(frame.payload, NEIGH_HEADER_LEN, libc::NDA_LLADDR, |value| {
            Some(NeighEntry::Fdb(MacAddr::new(value.try_into().ok()?)))
        })
    } else {
        attribute(frame.payload, NEIGH_HEADER_LEN, libc::NDA_DST, ip).map(NeighEntry::Neigh)
    };
    // Entries of other kinds of address are nobody's business here.
    Ok(entry.map(|entry| Notice::Neigh { link, entry, change }))
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(value).ok().map(IpAddr::from);
    v4.or_else(|| <[u8; 16]>::try_from(value).ok().map(IpAddr::from))
}

/// The first attribute of a kind behind a fixed header, if `read` can make something of it.
fn attribute<T>(
    payload: &[u8],
    header_len: usize,
    kind: u16,
    read: impl FnOnce(&[u8]) -> Option<T>,
) -> Option<T> {
    let attributes = NlasIterator::new(payload.get(header_len..)?);
    let found = attributes
        .flatten()
        .find(|attribute: &NlaBuffer<&[u8]>| attribute.kind() == kind)?;
    read(found.value())
}

#[cfg(test)]
mod tests;
