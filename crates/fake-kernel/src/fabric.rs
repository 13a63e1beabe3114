use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use net_types::registry::RT_TABLE_MAIN;
use net_types::{IfName, MacAddr};
use netstate::{LinkKind, RouteKind, Vxlan};

use crate::FakeKernel;
use crate::namespace::{Device, Namespace};

/// Several nodes on one underlay segment, through which a packet can be walked as the kernels would forward it.
///
/// A network card that is up and holds the outer address is where outer packets arrive; nothing else wires the
/// underlay.
#[derive(Debug, Clone, Default)]
pub struct Fabric {
    /// The nodes' kernels by name.
    pub nodes: BTreeMap<String, FakeKernel>,
    unplugged: BTreeSet<String>,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// It reached the node that its destination is on.
    Delivered {
        /// That node.
        node: String,
    },
    /// It was dropped.
    Dropped {
        /// The node that dropped it, or should have received it.
        node: String,
        /// Why.
        why: DropReason,
    },
    /// It reached a node that its destination is not on.
    Misdelivered {
        /// That node.
        node: String,
    },
}

/// Why a packet was dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DropReason {
    /// The fabric has no node of this name.
    NoNode,
    /// The source address is neither the sender's nor that of a pod on it.
    ForeignSource,
    /// No route leads to the destination.
    NoRoute,
    /// A blackhole route swallowed it.
    Blackhole,
    /// The link that it should leave by is missing or down.
    LinkDown,
    /// The link that it should leave by leads nowhere in this fabric.
    NoWay,
    /// The VXLAN device has no neighbour entry for the next hop.
    NoNeigh,
    /// The VXLAN device has no forwarding entry for the neighbour.
    NoFdb,
    /// No plugged node has a card that is up with the outer or next-hop address.
    NoHost,
    /// The receiver has no device of the tunnel's kind that is up with this local address and, of VXLAN, VNI and port.
    NoTunnel,
    /// The inner destination MAC is not that of the receiver's VXLAN device.
    WrongMac,
}

/// What a node does with a packet.
enum Step<'a> {
    /// Its destination is here.
    Here,
    /// It leaves by a card, to the node that has this address.
    ToAddress(IpAddr),
    /// It leaves by IP in IP, to the node that has this address.
    Ipip(IpAddr),
    /// It leaves by VXLAN.
    Vxlan {
        vxlan: &'a Vxlan,
        mac: MacAddr,
        remote: IpAddr,
    },
    Drop(DropReason),
}

/// Where an outer packet arrives, or which node drops it.
type Arrival<'a> = Result<(&'a str, &'a FakeKernel), (&'a str, DropReason)>;

impl Fabric {
    /// Cuts a node off the underlay, without its noticing.
    pub fn unplug(&mut self, node: &str) {
        self.unplugged.insert(node.to_owned());
    }

    /// Connects a node to the underlay again.
    pub fn plug(&mut self, node: &str) {
        self.unplugged.remove(node);
    }

    /// Walks a packet from a node to wherever the kernels bring it.
    #[must_use]
    pub fn deliver(&self, from: &str, src: IpAddr, dst: IpAddr) -> Delivery {
        let dropped = |node: &str, why| Delivery::Dropped {
            node: node.to_owned(),
            why,
        };
        let Some(sender) = self.nodes.get(from) else {
            return dropped(from, DropReason::NoNode);
        };
        if !is_here(&sender.namespace, src) {
            return dropped(from, DropReason::ForeignSource);
        }
        let arrival = match step(&sender.namespace, dst) {
            Step::Here => {
                return Delivery::Delivered {
                    node: from.to_owned(),
                };
            }
            Step::Drop(why) => return dropped(from, why),
            Step::ToAddress(next_hop) => self.host(from, next_hop).ok_or((from, DropReason::NoHost)),
            Step::Ipip(remote) => self.by_ipip(from, remote),
            Step::Vxlan { vxlan, mac, remote } => self.by_vxlan(from, vxlan, mac, remote),
        };
        let (node, receiver) = match arrival {
            Ok(arrival) => arrival,
            Err((node, why)) => return dropped(node, why),
        };
        match step(&receiver.namespace, dst) {
            Step::Here => Delivery::Delivered {
                node: node.to_owned(),
            },
            Step::Drop(DropReason::LinkDown) => dropped(node, DropReason::LinkDown),
            Step::Drop(_) | Step::ToAddress(_) | Step::Ipip(_) | Step::Vxlan { .. } => {
                Delivery::Misdelivered {
                    node: node.to_owned(),
                }
            }
        }
    }

    /// The MAC of a link, which a test needs to write down a peer.
    #[must_use]
    pub fn mac_of(&self, node: &str, link: &IfName) -> Option<MacAddr> {
        let device = self.nodes.get(node)?.namespace.links.get(link)?;
        Some(device.mac)
    }

    /// The node that an address on the underlay belongs to, as seen from a node.
    fn host(&self, from: &str, ip: IpAddr) -> Option<(&str, &FakeKernel)> {
        if self.unplugged.contains(from) {
            return None;
        }
        let is_host = |node: &str, kernel: &FakeKernel| {
            let has_ip = |device: &Device| is_card(device) && device.is_up() && device.holds(ip);
            !self.unplugged.contains(node) && kernel.namespace.links.values().any(has_ip)
        };
        let mut hosts = self.nodes.iter().filter(|(name, kernel)| is_host(name, kernel));
        hosts.next().map(|(name, kernel)| (name.as_str(), kernel))
    }

    /// Carries an outer packet to the node that has an address.
    fn outer<'a>(&'a self, from: &'a str, remote: IpAddr) -> Arrival<'a> {
        let sender = self.nodes.get(from).ok_or((from, DropReason::NoNode))?;
        let outer_hop = match step(&sender.namespace, remote) {
            Step::ToAddress(outer_hop) => outer_hop,
            Step::Drop(why) => return Err((from, why)),
            Step::Here | Step::Ipip(_) | Step::Vxlan { .. } => return Err((from, DropReason::NoWay)),
        };
        let (node, receiver) = self.host(from, outer_hop).ok_or((from, DropReason::NoHost))?;
        if !receiver.namespace.owns(remote) {
            return Err((node, DropReason::NoHost));
        }
        Ok((node, receiver))
    }

    /// Carries an outer packet to the node whose device of IP in IP takes it.
    fn by_ipip<'a>(&'a self, from: &'a str, remote: IpAddr) -> Arrival<'a> {
        let (node, receiver) = self.outer(from, remote)?;
        let takes = |device: &Device| match &device.link.kind {
            LinkKind::Ipip(own) => device.is_up() && own.local.is_none_or(|local| remote == local),
            LinkKind::Vxlan(_)
            | LinkKind::Wireguard
            | LinkKind::Bridge
            | LinkKind::Veth(_)
            | LinkKind::Other(_) => false,
        };
        if receiver.namespace.links.values().any(takes) {
            return Ok((node, receiver));
        }
        Err((node, DropReason::NoTunnel))
    }

    /// Carries an outer packet to the node whose VXLAN device takes it.
    fn by_vxlan<'a>(&'a self, from: &'a str, vxlan: &Vxlan, mac: MacAddr, remote: IpAddr) -> Arrival<'a> {
        let (node, receiver) = self.outer(from, remote)?;
        let takes = |device: &Device| match &device.link.kind {
            LinkKind::Vxlan(own) => {
                let is_local = own.local.is_none_or(|local| local == remote);
                device.is_up() && (own.vni, own.port) == (vxlan.vni, vxlan.port) && is_local
            }
            LinkKind::Wireguard
            | LinkKind::Ipip(_)
            | LinkKind::Bridge
            | LinkKind::Veth(_)
            | LinkKind::Other(_) => false,
        };
        let mut devices = receiver.namespace.links.values();
        let device = devices.find(|device| takes(device));
        match device {
            None => Err((node, DropReason::NoTunnel)),
            Some(device) if device.mac != mac => Err((node, DropReason::WrongMac)),
            Some(_) => Ok((node, receiver)),
        }
    }
}

/// Decides as one node's kernel does.
fn step(namespace: &Namespace, dst: IpAddr) -> Step<'_> {
    if namespace.owns(dst) {
        return Step::Here;
    }
    let Some((_, route)) = namespace.look_up(RT_TABLE_MAIN, dst) else {
        return Step::Drop(DropReason::NoRoute);
    };
    let hop = match &route.kind {
        RouteKind::Unicast(hop) => hop,
        RouteKind::Blackhole => return Step::Drop(DropReason::Blackhole),
    };
    let Some(device) = namespace.links.get(&hop.link).filter(|device| device.is_up()) else {
        return Step::Drop(DropReason::LinkDown);
    };
    let next_hop = hop.gateway.unwrap_or(dst);
    match &device.link.kind {
        LinkKind::Other(_) => Step::ToAddress(next_hop),
        LinkKind::Vxlan(vxlan) => vxlan_step(device, vxlan, next_hop),
        LinkKind::Ipip(_) => Step::Ipip(next_hop),
        LinkKind::Bridge | LinkKind::Veth(_) if hop.gateway.is_none() => Step::Here,
        LinkKind::Wireguard | LinkKind::Bridge | LinkKind::Veth(_) => Step::Drop(DropReason::NoWay),
    }
}

fn vxlan_step<'a>(device: &Device, vxlan: &'a Vxlan, next_hop: IpAddr) -> Step<'a> {
    let Some(neigh) = device.neighs.get(&next_hop) else {
        return Step::Drop(DropReason::NoNeigh);
    };
    let remote = device.fdb.get(&neigh.mac).and_then(|remotes| remotes.first());
    match remote {
        Some(remote) => Step::Vxlan {
            vxlan,
            mac: neigh.mac,
            remote: *remote,
        },
        None => Step::Drop(DropReason::NoFdb),
    }
}

/// Whether an address is the node's own or that of a pod on it.
fn is_here(namespace: &Namespace, ip: IpAddr) -> bool {
    matches!(step(namespace, ip), Step::Here)
}

fn is_card(device: &Device) -> bool {
    matches!(device.link.kind, LinkKind::Other(_))
}
