use std::net::{IpAddr, Ipv4Addr};

use net_types::{IfName, MacAddr};

use crate::iptables::{IptablesKey, OwnRules};
use crate::nft::{Table, TableKey};
use crate::{
    Addr, AddrKey, AdminState, BridgePort, FdbKey, Link, Neigh, NeighKey, Route, RouteKey, SysctlKey, WgPeer,
    WgPeerKey, Wireguard,
};

/// One change to the kernel, as one netlink request (or one write below `/proc/sys`) makes it, but where a variant says
/// otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// Creates a link **down**, with all that [`Link`] gives but its admin state and [`crate::Vxlan::tx_checksum`]. Fails
    /// if the name is taken.
    AddLink(IfName, Link),
    /// Deletes a link, with its content, and creates it anew, **down**. Fails, and leaves the old one as it is, if a link
    /// that the new one needs is not there. If the new one is refused, the old one is gone.
    ReplaceLink(IfName, Link),
    /// Changes attributes of a link in place.
    SetLink(IfName, LinkChange),
    /// Deletes a link; its content and, for a veth, its peer go with it.
    DelLink(IfName),
    /// Adds an address. Fails if the link holds it already.
    AddAddr(AddrKey, Addr),
    /// Removes an address.
    DelAddr(AddrKey),
    /// Adds a route. Fails if one of equal table, destination and metric exists (`NLM_F_EXCL`), whoever made it; only that
    /// a route with a protocol of its own takes over one of `RTPROT_BOOT`, as who sets none makes them, that leads to
    /// the same next hop.
    AddRoute(RouteKey, Route),
    /// Makes a route, in place of one of equal table, destination and metric if there is one: ours, or what stands
    /// where ours was. Where [`Route::stepping_stone`] has a route, that is made before, unless its place is taken, and
    /// removed after it; if that is cut short, it stays as any other route through the link.
    ReplaceRoute(RouteKey, Route),
    /// Removes a route, given as it was observed: the kernel compares protocol and next hop.
    DelRoute(RouteKey, Route),
    /// Creates or replaces a permanent neighbour.
    SetNeigh(NeighKey, Neigh),
    /// Removes a neighbour.
    DelNeigh(NeighKey),
    /// Creates or replaces the forwarding entry of a unicast MAC (`self permanent`).
    SetFdb(FdbKey),
    /// Removes one forwarding entry.
    DelFdb(FdbKey),
    /// Sets up a WireGuard device.
    SetWireguard(IfName, Wireguard),
    /// Creates or changes a peer of a WireGuard device. Its allowed addresses are taken from other peers.
    SetWgPeer(WgPeerKey, WgPeer),
    /// Removes a peer of a WireGuard device.
    DelWgPeer(WgPeerKey),
    /// Writes a kernel parameter.
    SetSysctl(SysctlKey, String),
    /// Gives a table of nf_tables exactly this content at one instant, whatever it held.
    SetNftTable(TableKey, Table),
    /// Removes a table of nf_tables.
    DelNftTable(TableKey),
    /// Makes what is ours of one of iptables' tables over, at one instant.
    SetIptables(IptablesKey, Box<IptablesChange>),
}

/// From what was observed of iptables' table to what should be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IptablesChange {
    /// What was there: chains and rules that are not wanted are removed.
    pub observed: OwnRules,
    /// What should be there.
    pub desired: OwnRules,
}

/// A change of one attribute of a link, as one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkChange {
    /// Sets it up or down. Down flushes its routes and neighbours (measured on 6.18).
    Admin(AdminState),
    /// Sets the MTU in bytes.
    Mtu(u32),
    /// Sets the hardware address. Flushes its neighbours, even if the value is the same (measured on 6.18).
    Mac(MacAddr),
    /// Makes it a port of a bridge, with the port's flags.
    Port(BridgePort),
    /// Sets the outer source address of a VXLAN device.
    VxlanLocal(IpAddr),
    /// Sets whether a VXLAN device learns.
    VxlanLearning(bool),
    /// Sets whether a VXLAN device may leave checksums to the hardware. This is no netlink request: kernels before 5.8
    /// have none.
    VxlanTxChecksum(bool),
    /// Sets the outer source address of a tunnel end point of IP in IP.
    IpipLocal(Ipv4Addr),
}

/// The object that an [`Op`] is about; failures are counted, and retried, by it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectKey {
    /// A link.
    Link(IfName),
    /// An address.
    Addr(AddrKey),
    /// A route.
    Route(RouteKey),
    /// A neighbour.
    Neigh(NeighKey),
    /// A forwarding entry.
    Fdb(FdbKey),
    /// What a WireGuard device is beside a link.
    Wireguard(IfName),
    /// A peer of a WireGuard device.
    WgPeer(WgPeerKey),
    /// A kernel parameter.
    Sysctl(SysctlKey),
    /// A table of nf_tables.
    NftTable(TableKey),
    /// What is ours of one of iptables' tables.
    Iptables(IptablesKey),
}

impl Op {
    /// The object that this change is about.
    #[must_use]
    pub fn object(&self) -> ObjectKey {
        match self {
            Self::AddLink(name, _)
            | Self::ReplaceLink(name, _)
            | Self::SetLink(name, _)
            | Self::DelLink(name) => ObjectKey::Link(name.clone()),
            Self::AddAddr(key, _) | Self::DelAddr(key) => ObjectKey::Addr(key.clone()),
            Self::AddRoute(key, _) | Self::ReplaceRoute(key, _) | Self::DelRoute(key, _) => {
                ObjectKey::Route(key.clone())
            }
            Self::SetNeigh(key, _) | Self::DelNeigh(key) => ObjectKey::Neigh(key.clone()),
            Self::SetFdb(key) | Self::DelFdb(key) => ObjectKey::Fdb(key.clone()),
            Self::SetWireguard(name, _) => ObjectKey::Wireguard(name.clone()),
            Self::SetWgPeer(key, _) | Self::DelWgPeer(key) => ObjectKey::WgPeer(key.clone()),
            Self::SetSysctl(key, _) => ObjectKey::Sysctl(key.clone()),
            Self::SetNftTable(key, _) | Self::DelNftTable(key) => ObjectKey::NftTable(key.clone()),
            Self::SetIptables(key, _) => ObjectKey::Iptables(key.clone()),
        }
    }

    /// The link without which this change cannot be made.
    #[must_use]
    pub const fn link(&self) -> Option<&IfName> {
        match self {
            Self::AddLink(name, _)
            | Self::ReplaceLink(name, _)
            | Self::SetLink(name, _)
            | Self::DelLink(name)
            | Self::SetWireguard(name, _) => Some(name),
            Self::SetWgPeer(key, _) | Self::DelWgPeer(key) => Some(&key.link),
            Self::AddAddr(key, _) | Self::DelAddr(key) => Some(&key.link),
            Self::AddRoute(_, route) | Self::ReplaceRoute(_, route) | Self::DelRoute(_, route) => {
                route.kind.link()
            }
            Self::SetNeigh(key, _) | Self::DelNeigh(key) => Some(&key.link),
            Self::SetFdb(key) | Self::DelFdb(key) => Some(&key.link),
            Self::SetSysctl(..) | Self::SetNftTable(..) | Self::DelNftTable(_) | Self::SetIptables(..) => {
                None
            }
        }
    }
}
