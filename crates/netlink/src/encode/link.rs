use std::net::IpAddr;
use std::os::fd::RawFd;

use net_types::{IfIndex, IfName, MacAddr};
use netlink_packet_core::{NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{
    AfSpecUnspec, InfoBridgePort, InfoData, InfoIpTunnel, InfoKind, InfoPortData, InfoPortKind, InfoVeth,
    InfoVxlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netstate::{AdminState, BridgePort, ErrorClass, Ipip, KernelError, Link, LinkKind, VethPeer, Vxlan};

use super::Request;

/// What the names in a [`Link`] stand for in the kernel.
#[derive(Debug, Default)]
pub(crate) struct LinkRefs {
    /// The bridge that it is a port of.
    pub(crate) master: Option<IfIndex>,
    /// The parent of a VXLAN device.
    pub(crate) parent: Option<IfIndex>,
    /// The namespace of a veth's peer.
    pub(crate) peer_netns: Option<RawFd>,
}

/// Creates a link, down, with everything in one message but the port's flags.
pub(crate) fn add_link(name: &IfName, link: &Link, refs: &LinkRefs) -> Result<Request, KernelError> {
    let mut message = named(name);
    let attributes = &mut message.attributes;
    attributes.extend(link.mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
    attributes.extend(link.mtu_bytes.map(LinkAttribute::Mtu));
    attributes.extend(refs.master.map(|master| LinkAttribute::Controller(master.get())));
    let info = match &link.kind {
        LinkKind::Vxlan(vxlan) => {
            // As flannel makes it: no queue of its own, packets queue at the parent (flannel `device.go` leaves
            // `TxQLen` zero).
            attributes.push(LinkAttribute::TxQueueLen(0));
            let data = InfoData::Vxlan(new_vxlan(vxlan, refs.parent));
            vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(data)]
        }
        LinkKind::Wireguard => vec![LinkInfo::Kind(InfoKind::Wireguard)],
        LinkKind::Ipip(ipip) => ipip_info(ipip),
        LinkKind::Bridge => vec![LinkInfo::Kind(InfoKind::Bridge)],
        LinkKind::Veth(Some(peer)) => {
            let data = InfoData::Veth(InfoVeth::Peer(new_peer(peer, link, refs)));
            vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(data)]
        }
        LinkKind::Veth(None) => return Err(cannot_make(name, "a veth without a peer")),
        LinkKind::Other(kind) => return Err(cannot_make(name, &format!("a link of kind {kind:?}"))),
    };
    attributes.push(LinkAttribute::LinkInfo(info));
    Ok(Request {
        message: RouteNetlinkMessage::NewLink(message),
        flags: NLM_F_CREATE | NLM_F_EXCL,
    })
}

pub(crate) fn del_link(name: &IfName) -> Request {
    Request {
        message: RouteNetlinkMessage::DelLink(named(name)),
        flags: 0,
    }
}

pub(crate) fn set_admin(name: &IfName, admin: AdminState) -> Request {
    set_flag(name, LinkFlags::Up, admin == AdminState::Up)
}

/// Sets or clears a flag of a link (`IFF_*`) and leaves the others.
pub(crate) fn set_flag(name: &IfName, flag: LinkFlags, on: bool) -> Request {
    let mut message = named(name);
    message.header.change_mask = flag;
    message.header.flags = if on { flag } else { LinkFlags::empty() };
    set(message)
}

pub(crate) fn set_tx_queue_len(name: &IfName, packets: u32) -> Request {
    set_attribute(name, LinkAttribute::TxQueueLen(packets))
}

pub(crate) fn set_mtu(name: &IfName, mtu_bytes: u32) -> Request {
    set_attribute(name, LinkAttribute::Mtu(mtu_bytes))
}

pub(crate) fn set_mac(name: &IfName, mac: MacAddr) -> Request {
    set_attribute(name, LinkAttribute::Address(mac.octets().to_vec()))
}

pub(crate) fn set_master(name: &IfName, master: IfIndex) -> Request {
    set_attribute(name, LinkAttribute::Controller(master.get()))
}

/// Sets the flags of a bridge's port. It needs the link to be a port already: the kernel ignores the port's attributes
/// in the message that makes it one (linux `rtnetlink.c`, `rtnl_newlink_create`).
pub(crate) fn set_port_flags(name: &IfName, port: &BridgePort) -> Request {
    let data = InfoPortData::BridgePort(vec![
        InfoBridgePort::HairpinMode(port.hairpin),
        InfoBridgePort::Isolated(port.isolated),
    ]);
    change_info(
        name,
        vec![LinkInfo::PortKind(InfoPortKind::Bridge), LinkInfo::PortData(data)],
    )
}

/// Changes one attribute of a VXLAN device.
pub(crate) fn set_vxlan(name: &IfName, attribute: InfoVxlan) -> Request {
    let data = InfoData::Vxlan(vec![attribute]);
    change_info(name, vec![LinkInfo::Kind(InfoKind::Vxlan), LinkInfo::Data(data)])
}

pub(crate) fn vxlan_local(local: IpAddr) -> InfoVxlan {
    match local {
        IpAddr::V4(ip) => InfoVxlan::Local(ip),
        IpAddr::V6(ip) => InfoVxlan::Local6(ip),
    }
}

/// Changes a tunnel end point of IP in IP. What the message does not give, the kernel sets back to its defaults (linux
/// `ipip.c`, `ipip_netlink_parms`).
pub(crate) fn set_ipip(name: &IfName, ipip: &Ipip) -> Request {
    change_info(name, ipip_info(ipip))
}

/// As flannel makes it: the outer header has the inner one's TTL and DF, and the TOS 0 but for the inner one's ECN bits
/// (flannel `ipip.go` leaves `Ttl`, `Tos` and `PMtuDisc` zero; linux `ip_tunnel.c`, `ip_tunnel_xmit`).
fn ipip_info(ipip: &Ipip) -> Vec<LinkInfo> {
    let mut data = vec![
        InfoIpTunnel::Ttl(0),
        InfoIpTunnel::Tos(0),
        InfoIpTunnel::PMtuDisc(false),
    ];
    data.extend(ipip.local.map(|local| InfoIpTunnel::Local(IpAddr::V4(local))));
    vec![
        LinkInfo::Kind(InfoKind::IpIp),
        LinkInfo::Data(InfoData::IpTunnel(data)),
    ]
}

fn new_vxlan(vxlan: &Vxlan, parent: Option<IfIndex>) -> Vec<InfoVxlan> {
    let mut data = vec![
        InfoVxlan::Id(vxlan.vni.get()),
        InfoVxlan::Port(vxlan.port),
        InfoVxlan::Learning(vxlan.learning),
    ];
    data.extend(vxlan.local.map(vxlan_local));
    data.extend(parent.map(|parent| InfoVxlan::Link(parent.get())));
    data.extend(vxlan.gbp.then_some(InfoVxlan::Gbp));
    data
}

fn new_peer(peer: &VethPeer, link: &Link, refs: &LinkRefs) -> LinkMessage {
    let mut message = named(&peer.name);
    let attributes = &mut message.attributes;
    attributes.extend(peer.mac.map(|mac| LinkAttribute::Address(mac.octets().to_vec())));
    attributes.extend(link.mtu_bytes.map(LinkAttribute::Mtu));
    attributes.extend(refs.peer_netns.map(LinkAttribute::NetNsFd));
    message
}

/// A message about a link given by name: the kernel looks it up, and the name cannot mean another link by then.
fn named(name: &IfName) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.attributes.push(LinkAttribute::IfName(name.to_string()));
    message
}

fn set_attribute(name: &IfName, attribute: LinkAttribute) -> Request {
    let mut message = named(name);
    message.attributes.push(attribute);
    set(message)
}

fn set(message: LinkMessage) -> Request {
    Request {
        message: RouteNetlinkMessage::SetLink(message),
        flags: 0,
    }
}

/// Changes what a link has for an address family.
pub(crate) fn change_family(name: &IfName, family: AfSpecUnspec) -> Request {
    set_attribute(name, LinkAttribute::AfSpecUnspec(vec![family]))
}

/// `RTM_NEWLINK` without `NLM_F_CREATE` changes what an existing link's kind defines.
pub(super) fn change_info(name: &IfName, info: Vec<LinkInfo>) -> Request {
    let mut message = named(name);
    message.attributes.push(LinkAttribute::LinkInfo(info));
    Request {
        message: RouteNetlinkMessage::NewLink(message),
        flags: 0,
    }
}

fn cannot_make(name: &IfName, what: &str) -> KernelError {
    KernelError {
        class: ErrorClass::Unsupported,
        message: format!(
            "cannot make {name:?}: {what} is not supported",
            name = name.as_str()
        ),
    }
}
