use std::fmt::{self, Display, Formatter};

use net_types::registry::RT_TABLE_MAIN;

use super::words::Word;
use crate::iptables::{IptablesFamily, IptablesVariant};
use crate::{
    Addr, AddrKey, AdminState, BridgePort, FdbKey, Ipip, Link, LinkChange, LinkKind, Neigh, NeighKey,
    ObjectKey, Op, Route, RouteKey, RouteKind, State, SysctlKey, VethPeer, Vxlan, WgPeer, WgPeerKey,
    Wireguard,
};

impl Display for State {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, link) in &self.links {
            print_link(f, name.as_str(), link)?;
            writeln!(f)?;
        }
        for (key, addr) in &self.addrs {
            print_addr(f, key, addr)?;
            writeln!(f)?;
        }
        for (key, route) in &self.routes {
            print_route(f, key, route)?;
            writeln!(f)?;
        }
        for (key, neigh) in &self.neighs {
            print_neigh(f, key, *neigh)?;
            writeln!(f)?;
        }
        for key in &self.fdb {
            print_fdb(f, key)?;
            writeln!(f)?;
        }
        for (link, device) in &self.wireguard {
            print_wireguard(f, link.as_str(), device)?;
            writeln!(f)?;
        }
        for (key, peer) in &self.wg_peers {
            print_wg_peer(f, key, peer)?;
            writeln!(f)?;
        }
        for (key, value) in &self.sysctls {
            print_sysctl(f, key, value)?;
            writeln!(f)?;
        }
        Ok(())
    }
}

impl Display for ObjectKey {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Link(name) => write!(f, "link {}", Word(name.as_str())),
            Self::Addr(key) => print_addr_key(f, key),
            Self::Route(key) => {
                write!(f, "route {}", key.dst)?;
                print_table_and_metric(f, key)
            }
            Self::Neigh(key) => print_neigh_key(f, key),
            Self::Fdb(key) => print_fdb(f, key),
            Self::Wireguard(link) => write!(f, "wireguard {}", Word(link.as_str())),
            Self::WgPeer(key) => print_wg_peer_key(f, key),
            Self::Sysctl(key) => write!(f, "sysctl {}", Word(key.as_str())),
            Self::NftTable(key) => write!(f, "nft {} {}", key.family, Word(&key.name)),
            Self::Iptables(key) => write!(
                f,
                "{} {}",
                program_word(key.family, key.variant),
                Word(&key.table)
            ),
        }
    }
}

impl Display for Op {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AddLink(..) | Self::AddAddr(..) | Self::AddRoute(..) => "add ",
            Self::ReplaceLink(..) | Self::ReplaceRoute(..) => "replace ",
            Self::SetLink(..)
            | Self::SetNeigh(..)
            | Self::SetFdb(_)
            | Self::SetWireguard(..)
            | Self::SetWgPeer(..)
            | Self::SetSysctl(..)
            | Self::SetNftTable(..)
            | Self::SetIptables(..) => "set ",
            Self::DelLink(_)
            | Self::DelAddr(_)
            | Self::DelRoute(..)
            | Self::DelNeigh(_)
            | Self::DelFdb(_)
            | Self::DelWgPeer(_)
            | Self::DelNftTable(_) => "del ",
        })?;
        match self {
            Self::AddLink(name, link) | Self::ReplaceLink(name, link) => print_link(f, name.as_str(), link),
            Self::SetLink(name, change) => {
                write!(f, "link {} ", Word(name.as_str()))?;
                print_change(f, change)
            }
            Self::AddAddr(key, addr) => print_addr(f, key, addr),
            Self::AddRoute(key, route) | Self::ReplaceRoute(key, route) | Self::DelRoute(key, route) => {
                print_route(f, key, route)
            }
            Self::SetNeigh(key, neigh) => print_neigh(f, key, *neigh),
            Self::SetWireguard(link, device) => print_wireguard(f, link.as_str(), device),
            Self::SetWgPeer(key, peer) => print_wg_peer(f, key, peer),
            Self::SetSysctl(key, value) => print_sysctl(f, key, value),
            Self::DelLink(_)
            | Self::DelAddr(_)
            | Self::DelNeigh(_)
            | Self::SetFdb(_)
            | Self::DelFdb(_)
            | Self::DelWgPeer(_)
            | Self::SetNftTable(..)
            | Self::DelNftTable(_)
            | Self::SetIptables(..) => self.object().fmt(f),
        }
    }
}

fn print_link(f: &mut Formatter<'_>, name: &str, link: &Link) -> fmt::Result {
    write!(f, "link {} ", Word(name))?;
    match &link.kind {
        LinkKind::Vxlan(vxlan) => print_vxlan(f, vxlan)?,
        LinkKind::Wireguard => f.write_str("wireguard")?,
        LinkKind::Ipip(ipip) => print_ipip(f, ipip)?,
        LinkKind::Bridge => f.write_str("bridge")?,
        LinkKind::Veth(peer) => print_veth(f, peer.as_ref())?,
        LinkKind::Other(kind) if kind.is_empty() => f.write_str("physical")?,
        LinkKind::Other(kind) => write!(f, "other {}", Word(kind))?,
    }
    if let Some(mac) = link.mac {
        write!(f, " mac {mac}")?;
    }
    if let Some(mtu) = link.mtu_bytes {
        write!(f, " mtu {mtu}")?;
    }
    write!(f, " {}", admin_word(link.admin))?;
    match &link.port {
        Some(port) => {
            f.write_str(" ")?;
            print_port(f, port)
        }
        None => Ok(()),
    }
}

fn print_vxlan(f: &mut Formatter<'_>, vxlan: &Vxlan) -> fmt::Result {
    write!(f, "vxlan vni {} port {}", vxlan.vni, vxlan.port)?;
    if let Some(local) = vxlan.local {
        write!(f, " local {local}")?;
    }
    if let Some(parent) = &vxlan.parent {
        write!(f, " parent {}", Word(parent.as_str()))?;
    }
    write!(f, " {}", learning_word(vxlan.learning))?;
    f.write_str(if vxlan.gbp { " gbp" } else { "" })?;
    let tx_checksum = vxlan.tx_checksum.map(tx_checksum_word);
    tx_checksum.map_or(Ok(()), |word| write!(f, " {word}"))
}

fn print_ipip(f: &mut Formatter<'_>, ipip: &Ipip) -> fmt::Result {
    f.write_str("ipip")?;
    ipip.local.map_or(Ok(()), |local| write!(f, " local {local}"))
}

fn print_veth(f: &mut Formatter<'_>, peer: Option<&VethPeer>) -> fmt::Result {
    f.write_str("veth")?;
    let Some(peer) = peer else { return Ok(()) };
    write!(f, " peer {}", Word(peer.name.as_str()))?;
    if let Some(mac) = peer.mac {
        write!(f, " peermac {mac}")?;
    }
    match &peer.netns {
        Some(label) => write!(f, " netns {}", Word(&label.0)),
        None => Ok(()),
    }
}

fn print_change(f: &mut Formatter<'_>, change: &LinkChange) -> fmt::Result {
    match change {
        LinkChange::Admin(admin) => f.write_str(admin_word(*admin)),
        LinkChange::Mtu(mtu) => write!(f, "mtu {mtu}"),
        LinkChange::Mac(mac) => write!(f, "mac {mac}"),
        LinkChange::Port(port) => print_port(f, port),
        LinkChange::VxlanLocal(local) => write!(f, "local {local}"),
        LinkChange::VxlanLearning(learning) => f.write_str(learning_word(*learning)),
        LinkChange::VxlanTxChecksum(on) => f.write_str(tx_checksum_word(*on)),
        LinkChange::IpipLocal(local) => write!(f, "ipiplocal {local}"),
    }
}

fn print_port(f: &mut Formatter<'_>, port: &BridgePort) -> fmt::Result {
    write!(f, "master {}", Word(port.bridge.as_str()))?;
    f.write_str(if port.hairpin { " hairpin" } else { "" })?;
    f.write_str(if port.isolated { " isolated" } else { "" })
}

fn admin_word(admin: AdminState) -> &'static str {
    match admin {
        AdminState::Up => "up",
        AdminState::Down => "down",
    }
}

fn learning_word(learning: bool) -> &'static str {
    if learning { "learning" } else { "nolearning" }
}

fn tx_checksum_word(on: bool) -> &'static str {
    if on { "txcsum" } else { "notxcsum" }
}

fn print_addr_key(f: &mut Formatter<'_>, key: &AddrKey) -> fmt::Result {
    write!(f, "addr {} {}", Word(key.link.as_str()), key.addr)
}

fn print_addr(f: &mut Formatter<'_>, key: &AddrKey, addr: &Addr) -> fmt::Result {
    print_addr_key(f, key)?;
    if let Some(broadcast) = addr.broadcast {
        write!(f, " broadcast {broadcast}")?;
    }
    f.write_str(if addr.nodad { " nodad" } else { "" })
}

fn print_route(f: &mut Formatter<'_>, key: &RouteKey, route: &Route) -> fmt::Result {
    write!(f, "route {}", key.dst)?;
    match &route.kind {
        RouteKind::Blackhole => f.write_str(" blackhole")?,
        RouteKind::Unicast(hop) => {
            if let Some(gateway) = hop.gateway {
                write!(f, " via {gateway}")?;
            }
            write!(f, " dev {}", Word(hop.link.as_str()))?;
            f.write_str(if hop.onlink { " onlink" } else { "" })?;
        }
    }
    write!(f, " proto {}", route.protocol)?;
    if let Some(source) = route.source {
        write!(f, " src {source}")?;
    }
    if let Some(mtu) = route.mtu_bytes {
        write!(f, " mtu {mtu}")?;
    }
    if let Some(advmss) = route.advmss_bytes {
        write!(f, " advmss {advmss}")?;
    }
    if let Some(scope) = route.scope {
        write!(f, " scope {scope}")?;
    }
    print_table_and_metric(f, key)
}

fn print_table_and_metric(f: &mut Formatter<'_>, key: &RouteKey) -> fmt::Result {
    if key.table != RT_TABLE_MAIN {
        write!(f, " table {}", key.table)?;
    }
    if key.metric != 0 {
        write!(f, " metric {}", key.metric)?;
    }
    Ok(())
}

fn print_neigh_key(f: &mut Formatter<'_>, key: &NeighKey) -> fmt::Result {
    write!(f, "neigh {} {}", Word(key.link.as_str()), key.ip)
}

fn print_neigh(f: &mut Formatter<'_>, key: &NeighKey, neigh: Neigh) -> fmt::Result {
    print_neigh_key(f, key)?;
    write!(f, " mac {}", neigh.mac)
}

fn print_fdb(f: &mut Formatter<'_>, key: &FdbKey) -> fmt::Result {
    write!(
        f,
        "fdb {} {} remote {}",
        Word(key.link.as_str()),
        key.mac,
        key.remote
    )
}

/// Without keys: a text goes into logs.
fn print_wireguard(f: &mut Formatter<'_>, link: &str, device: &Wireguard) -> fmt::Result {
    write!(f, "wireguard {} port {}", Word(link), device.listen_port)
}

fn print_wg_peer_key(f: &mut Formatter<'_>, key: &WgPeerKey) -> fmt::Result {
    write!(f, "wgpeer {} {}", Word(key.link.as_str()), key.public_key)
}

/// Without the preshared key, of which only the presence is told.
fn print_wg_peer(f: &mut Formatter<'_>, key: &WgPeerKey, peer: &WgPeer) -> fmt::Result {
    print_wg_peer_key(f, key)?;
    if let Some(endpoint) = peer.endpoint {
        write!(f, " endpoint {endpoint}")?;
    }
    for allowed in &peer.allowed_ips {
        write!(f, " allowed {allowed}")?;
    }
    if peer.keepalive_secs != 0 {
        write!(f, " keepalive {}", peer.keepalive_secs)?;
    }
    f.write_str(if peer.preshared_key.is_some() { " psk" } else { "" })
}

fn print_sysctl(f: &mut Formatter<'_>, key: &SysctlKey, value: &str) -> fmt::Result {
    write!(f, "sysctl {} {}", Word(key.as_str()), Word(value))
}

fn program_word(family: IptablesFamily, variant: IptablesVariant) -> &'static str {
    match (family, variant) {
        (IptablesFamily::V4, IptablesVariant::Nft) => "iptables-nft",
        (IptablesFamily::V4, IptablesVariant::Legacy) => "iptables-legacy",
        (IptablesFamily::V6, IptablesVariant::Nft) => "ip6tables-nft",
        (IptablesFamily::V6, IptablesVariant::Legacy) => "ip6tables-legacy",
    }
}
