//! Changes and questions as route netlink messages. Pure: numbers of links come as arguments.

mod bridge;
mod link;
mod object;
mod question;

pub(crate) use bridge::{add_port_vlans, del_port_vlan, set_vlan_filtering};
pub(crate) use link::{
    LinkRefs, add_link, change_family, del_link, set_admin, set_flag, set_ipip, set_mac, set_master, set_mtu,
    set_port_flags, set_tx_queue_len, set_vxlan, vxlan_local,
};
pub(crate) use object::{
    Presence, add_addr, add_route, del_addr, del_fdb, del_neigh, del_route, set_fdb, set_neigh,
};
pub(crate) use question::{
    all_addrs, all_links, fdb_entry, fdb_of, link_by_index, link_by_name, neigh, neighs_of, route_match,
    route_to, routes, routes_of,
};

use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use std::net::IpAddr;

/// A request with its flags beside `NLM_F_REQUEST`.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) message: RouteNetlinkMessage,
    pub(crate) flags: u16,
}

fn family_of(ip: IpAddr) -> AddressFamily {
    match ip {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    }
}
