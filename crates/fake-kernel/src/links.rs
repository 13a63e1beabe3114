use std::collections::BTreeMap;
use std::net::IpAddr;

use net_types::{IfName, MacAddr};
use netstate::{AdminState, ErrorClass, Link, LinkChange, LinkKind, VethPeer, Vxlan};

use crate::namespace::{Device, Namespace, Peer};
use crate::refusal::{Answer, exists, invalid, no_device, not_found, refusal, unsupported, vni_taken};

/// MTU of a new Ethernet device in bytes (linux `ETH_DATA_LEN`).
pub(crate) const ETHERNET_MTU: u32 = 1500;
/// MTU of a new WireGuard device in bytes (linux `drivers/net/wireguard/device.c`).
const WIREGUARD_MTU: u32 = 1420;
/// MTU of a new tunnel end point of IP in IP in bytes (linux `ip_tunnel.c`, `ip_tunnel_bind_dev`).
const IPIP_MTU: u32 = ETHERNET_MTU - 20;
/// Smallest MTU of an Ethernet device in bytes (linux `ETH_MIN_MTU`).
const SMALLEST_MTU: u32 = 68;
/// Largest MTU of an Ethernet device in bytes (linux `ETH_MAX_MTU`).
const LARGEST_MTU: u32 = 65535;

impl Namespace {
    pub(crate) fn replace_link(&mut self, name: &IfName, link: &Link) -> Answer {
        self.has_needed_links(link)?;
        self.del_link(name)?;
        self.add_link(name, link)
    }

    /// The links that a new link refers to are looked up before anything is asked of the kernel.
    fn has_needed_links(&self, link: &Link) -> Answer {
        needed_links(link).try_for_each(|needed| self.device(needed).map(|_| ()))
    }

    pub(crate) fn add_link(&mut self, name: &IfName, link: &Link) -> Answer {
        self.has_needed_links(link)?;
        if self.links.contains_key(name) {
            return Err(exists("the name of the link is taken"));
        }
        if link.mac.is_some_and(|mac| !mac.is_unicast()) {
            return Err(invalid_mac());
        }
        match &link.kind {
            LinkKind::Vxlan(vxlan) => self.check_new_vxlan(vxlan)?,
            LinkKind::Ipip(ipip) => self.check_new_ipip(ipip)?,
            LinkKind::Bridge | LinkKind::Wireguard => {}
            LinkKind::Veth(None) => return Err(unsupported("a veth link is made with its peer")),
            LinkKind::Veth(Some(peer)) => self.check_veth_peer(name, peer)?,
            LinkKind::Other(_) => return Err(unsupported("links of this kind are not made")),
        }
        if let Some(port) = &link.port {
            self.check_port(&link.kind, port)?;
        }
        let mut device = self.new_device(link);
        if let LinkKind::Vxlan(vxlan) = &mut device.link.kind {
            device.mtu_bytes = self.vxlan_mtu(vxlan, link.mtu_bytes);
            vxlan.tx_checksum = Some(true);
        }
        if let LinkKind::Veth(Some(peer)) = &link.kind {
            self.add_veth_peer(name, link, peer);
            device.link.kind = LinkKind::Veth(None);
            device.peer = match &peer.netns {
                None => Peer::Here(peer.name.clone()),
                Some(label) => Peer::In(label.clone(), peer.name.clone()),
            };
        }
        self.insert_device(name, device);
        self.follow_ports_of(link.port.as_ref());
        Ok(())
    }

    /// Inserts a device and makes its kernel parameters.
    pub(crate) fn insert_device(&mut self, name: &IfName, device: Device) {
        self.add_link_sysctls(name);
        self.links.insert(name.clone(), device);
    }

    pub(crate) fn new_device(&mut self, link: &Link) -> Device {
        let mac = link.mac.unwrap_or_else(|| self.make_mac());
        Device {
            link: Link {
                admin: AdminState::Down,
                ..link.clone()
            },
            mac,
            mtu_bytes: link.mtu_bytes.unwrap_or(match link.kind {
                LinkKind::Wireguard => WIREGUARD_MTU,
                LinkKind::Ipip(_) => IPIP_MTU,
                LinkKind::Vxlan(_) | LinkKind::Bridge | LinkKind::Veth(_) | LinkKind::Other(_) => {
                    ETHERNET_MTU
                }
            }),
            addrs: BTreeMap::new(),
            neighs: BTreeMap::new(),
            fdb: BTreeMap::new(),
            wireguard: None,
            peer: Peer::None,
            mac_is_fixed: link.mac.is_some(),
            mtu_is_fixed: false,
        }
    }

    /// A MAC address where the kernel would take a random one.
    fn make_mac(&mut self) -> MacAddr {
        self.macs_made = self.macs_made.wrapping_add(1);
        let [a, b, c, d] = self.macs_made.to_be_bytes();
        MacAddr::new([0x02, 0xfa, a, b, c, d])
    }

    fn check_veth_peer(&self, name: &IfName, peer: &VethPeer) -> Answer {
        if peer.mac.is_some_and(|mac| !mac.is_unicast()) {
            return Err(invalid_mac());
        }
        let links = match &peer.netns {
            None => &self.links,
            Some(label) => {
                let pod = self.pods.get(label);
                let unknown = || not_found("no network namespace is known by the peer's label");
                &pod.ok_or_else(unknown)?.namespace.links
            }
        };
        if links.contains_key(&peer.name) || (peer.netns.is_none() && peer.name == *name) {
            return Err(exists("the name of the peer is taken"));
        }
        Ok(())
    }

    /// Makes the other end of a pair, which was checked.
    fn add_veth_peer(&mut self, name: &IfName, link: &Link, peer: &VethPeer) {
        let end = Link {
            kind: LinkKind::Veth(None),
            mac: peer.mac,
            mtu_bytes: link.mtu_bytes,
            admin: AdminState::Down,
            port: None,
        };
        let outside = peer.netns.as_ref().and_then(|label| self.pods.get_mut(label));
        let (namespace, back) = match outside {
            Some(pod) => (&mut pod.namespace, Peer::Outside),
            None => (self, Peer::Here(name.clone())),
        };
        let mut device = namespace.new_device(&end);
        device.peer = back;
        namespace.insert_device(&peer.name, device);
    }

    fn check_new_vxlan(&self, vxlan: &Vxlan) -> Answer {
        let is_v6 = |local: Option<IpAddr>| local.is_some_and(|ip| ip.is_ipv6());
        let is_equal = |device: &Device| match &device.link.kind {
            LinkKind::Vxlan(other) => {
                (other.vni, other.port, other.gbp) == (vxlan.vni, vxlan.port, vxlan.gbp)
                    && is_v6(other.local) == is_v6(vxlan.local)
            }
            LinkKind::Wireguard
            | LinkKind::Ipip(_)
            | LinkKind::Bridge
            | LinkKind::Veth(_)
            | LinkKind::Other(_) => false,
        };
        match self.links.iter().find(|(_, device)| is_equal(device)) {
            Some((holder, _)) => Err(vni_taken(holder, vxlan)),
            None => Ok(()),
        }
    }

    /// The MTU that a new VXLAN device gets: what is wished, as far as the parent carries it.
    fn vxlan_mtu(&self, vxlan: &Vxlan, wished: Option<u32>) -> u32 {
        let largest = self.largest_vxlan_mtu(vxlan);
        match (wished, &vxlan.parent) {
            (Some(wished), _) => wished.min(largest),
            (None, Some(_)) => largest,
            (None, None) => ETHERNET_MTU,
        }
    }

    fn largest_vxlan_mtu(&self, vxlan: &Vxlan) -> u32 {
        let overhead = match vxlan.local {
            Some(IpAddr::V6(_)) => 70,
            Some(IpAddr::V4(_)) | None => 50,
        };
        let parent = vxlan.parent.as_ref().and_then(|name| self.links.get(name));
        parent.map_or(LARGEST_MTU, |parent| parent.mtu_bytes.saturating_sub(overhead))
    }

    pub(crate) fn set_link(&mut self, name: &IfName, change: &LinkChange) -> Answer {
        self.device(name)?;
        match change {
            LinkChange::Admin(AdminState::Up) => self.set_up(name),
            LinkChange::Admin(AdminState::Down) => self.set_down(name),
            LinkChange::Mtu(mtu) => self.set_mtu(name, *mtu),
            LinkChange::Mac(mac) => self.set_mac(name, *mac),
            LinkChange::Port(port) => self.set_port(name, port),
            LinkChange::VxlanLocal(local) => self.set_vxlan_local(name, *local),
            LinkChange::IpipLocal(local) => self.set_ipip_local(name, *local),
            LinkChange::VxlanTxChecksum(on) => {
                self.vxlan_mut(name)?.tx_checksum = Some(*on);
                Ok(())
            }
            LinkChange::VxlanLearning(learning) => {
                self.vxlan_mut(name)?.learning = *learning;
                Ok(())
            }
        }
    }

    fn set_up(&mut self, name: &IfName) -> Answer {
        let device = self.device_mut(name)?;
        if device.is_up() {
            return Ok(());
        }
        device.link.admin = AdminState::Up;
        self.add_connected_routes(name);
        Ok(())
    }

    fn set_down(&mut self, name: &IfName) -> Answer {
        let device = self.device_mut(name)?;
        if !device.is_up() {
            return Ok(());
        }
        device.link.admin = AdminState::Down;
        device.neighs.clear();
        self.flush_ipv6_addrs(name);
        self.flush_routes_through(name, |_| true);
        Ok(())
    }

    fn set_mtu(&mut self, name: &IfName, mtu: u32) -> Answer {
        let device = self.device(name)?;
        if device.mtu_bytes == mtu {
            return Ok(());
        }
        let largest = if let LinkKind::Vxlan(vxlan) = &device.link.kind {
            self.largest_vxlan_mtu(vxlan)
        } else {
            LARGEST_MTU
        };
        if mtu < SMALLEST_MTU || mtu > largest {
            return Err(invalid("the MTU is out of the device's range"));
        }
        let device = self.device_mut(name)?;
        device.mtu_bytes = mtu;
        device.mtu_is_fixed = true;
        let port = device.link.port.clone();
        self.follow_ports_of(port.as_ref());
        Ok(())
    }

    fn set_mac(&mut self, name: &IfName, mac: MacAddr) -> Answer {
        if !mac.is_unicast() {
            return Err(invalid_mac());
        }
        let device = self.device_mut(name)?;
        device.mac = mac;
        device.mac_is_fixed = true;
        device.neighs.clear();
        let port = device.link.port.clone();
        self.follow_ports_of(port.as_ref());
        Ok(())
    }

    fn set_vxlan_local(&mut self, name: &IfName, local: IpAddr) -> Answer {
        let vxlan = self.vxlan_mut(name)?;
        let was_v6 = vxlan.local.is_some_and(|held| held.is_ipv6());
        if was_v6 != local.is_ipv6() {
            return Err(unsupported("new local address family does not match old"));
        }
        vxlan.local = Some(local);
        Ok(())
    }

    fn vxlan_mut(&mut self, name: &IfName) -> Result<&mut Vxlan, netstate::KernelError> {
        if let LinkKind::Vxlan(vxlan) = &mut self.device_mut(name)?.link.kind {
            return Ok(vxlan);
        }
        Err(unsupported("the link is no VXLAN device"))
    }

    pub(crate) fn del_link(&mut self, name: &IfName) -> Answer {
        match self.device(name)?.link.kind {
            LinkKind::Other(_) => Err(unsupported("the link is not one that can be deleted")),
            LinkKind::Vxlan(_)
            | LinkKind::Wireguard
            | LinkKind::Ipip(_)
            | LinkKind::Bridge
            | LinkKind::Veth(_) => {
                self.remove_link(name);
                Ok(())
            }
        }
    }

    /// Takes a link away with all that hangs on it; `false` if there is none.
    pub(crate) fn remove_link(&mut self, name: &IfName) -> bool {
        let Some(device) = self.links.remove(name) else {
            return false;
        };
        self.sysctls.retain(|key, _| !is_of_link(key.as_str(), name));
        self.flush_routes_through(name, |_| true);
        // A route of IPv6 keeps a source address that goes in this way (measured on 6.18).
        for addr in device.addrs.keys().filter(|addr| addr.is_ipv4()) {
            self.forget_source(addr.ip());
        }
        for other in self.links.values_mut() {
            let bridge = other.link.port.as_ref().map(|port| &port.bridge);
            if bridge == Some(name) {
                other.link.port = None;
            }
        }
        self.follow_ports_of(device.link.port.as_ref());
        for child in self.vxlans_over(name) {
            self.remove_link(&child);
        }
        match &device.peer {
            Peer::None | Peer::Outside => {}
            Peer::Here(peer) => {
                self.remove_link(peer);
            }
            Peer::In(label, peer) => {
                if let Some(pod) = self.pods.get_mut(label) {
                    pod.namespace.remove_link(peer);
                }
            }
        }
        true
    }

    fn vxlans_over(&self, parent: &IfName) -> Vec<IfName> {
        let is_over = |device: &Device| match &device.link.kind {
            LinkKind::Vxlan(vxlan) => vxlan.parent.as_ref() == Some(parent),
            LinkKind::Wireguard
            | LinkKind::Ipip(_)
            | LinkKind::Bridge
            | LinkKind::Veth(_)
            | LinkKind::Other(_) => false,
        };
        let over = self.links.iter().filter(|(_, device)| is_over(device));
        over.map(|(name, _)| name.clone()).collect()
    }

    /// Removes links whose other end was deleted inside a pod's namespace.
    pub(crate) fn forget_ends_of_deleted_pairs(&mut self) {
        let pods = &self.pods;
        let is_cut = |device: &Device| match &device.peer {
            Peer::In(label, peer) => {
                let pod = pods.get(label);
                pod.is_none_or(|pod| !pod.namespace.links.contains_key(peer))
            }
            Peer::None | Peer::Here(_) | Peer::Outside => false,
        };
        let cut = self.links.iter().filter(|(_, device)| is_cut(device));
        let cut: Vec<IfName> = cut.map(|(name, _)| name.clone()).collect();
        for name in cut {
            self.remove_link(&name);
        }
    }

    /// Adds a link that only hardware or another program makes.
    pub(crate) fn add_foreign(&mut self, name: &IfName, link: &Link) -> Answer {
        if self.links.contains_key(name) {
            return Err(exists("the name of the link is taken"));
        }
        if let Some(port) = &link.port {
            let bridge = &port.bridge;
            self.links.get(bridge).ok_or_else(|| no_device(bridge))?;
        }
        let device = self.new_device(link);
        self.insert_device(name, device);
        match link.admin {
            AdminState::Up => self.set_up(name),
            AdminState::Down => Ok(()),
        }
    }
}

/// The links that a new link refers to.
fn needed_links(link: &Link) -> impl Iterator<Item = &IfName> {
    let parent = match &link.kind {
        LinkKind::Vxlan(vxlan) => vxlan.parent.as_ref(),
        LinkKind::Wireguard
        | LinkKind::Ipip(_)
        | LinkKind::Bridge
        | LinkKind::Veth(_)
        | LinkKind::Other(_) => None,
    };
    link.port.iter().map(|port| &port.bridge).chain(parent)
}

/// Whether a kernel parameter is one of this link's.
fn is_of_link(path: &str, link: &IfName) -> bool {
    let mut parts = path.split('/').skip(2);
    parts.next() == Some("conf") && parts.next() == Some(link.as_str())
}

fn invalid_mac() -> netstate::KernelError {
    refusal(
        ErrorClass::NotFound,
        "EADDRNOTAVAIL: a group or zero MAC address can not be a link's own",
    )
}
