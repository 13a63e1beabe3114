//! Which leases are peers, and which cannot be because they would break somebody's traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use flannel_types::{ExtensionData, Lease, VxlanData};
use ipnetwork::IpNetwork;
use net_types::{MacAddr, SubnetKey, WgPublicKey};

use super::wireguard::{self, WireguardEnd};
use super::{Carrier, Side};

#[cfg(test)]
mod tests;

/// What the commands of a node may be told of a peer by its lease, in bytes: more than a store takes that is made for leases.
pub const MAX_DATA_BYTES: usize = 64 << 10;

/// What a lease says about the node that holds it, for one family, as this node's backend needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The lease.
    pub lease: SubnetKey,
    /// The outer address of the node.
    pub public_ip: IpAddr,
    /// The hardware address of its VXLAN device; `None` where the backend has none.
    pub vtep_mac: Option<MacAddr>,
    /// Its WireGuard device; `None` where the backend has none.
    pub wireguard: Option<WireguardEnd>,
}

impl Peer {
    /// What tells the node's device from all others, if anything must.
    #[must_use]
    pub fn device(&self) -> Option<DeviceId> {
        let mac = self.vtep_mac.map(DeviceId::VtepMac);
        mac.or(self.wireguard.map(|end| DeviceId::PublicKey(end.public_key)))
    }
}

/// What tells a node's device from all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceId {
    /// The hardware address of a VXLAN device.
    VtepMac(MacAddr),
    /// The public key of a WireGuard device.
    PublicKey(WgPublicKey),
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::VtepMac(mac) => write!(f, "the VTEP MAC {mac}"),
            Self::PublicKey(key) => write!(f, "the public key {key}"),
        }
    }
}

/// Why a lease is not programmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerProblem {
    /// It has a subnet of this family, but says of no address at which packets of this family can be sent.
    #[error("it has an {0} subnet, but no public {0} address")]
    NoPublicIp(&'static str),
    /// It was made by another backend.
    #[error("its backend is {theirs:?}, not {ours}")]
    OtherBackend {
        /// Its backend.
        theirs: String,
        /// This node's.
        ours: &'static str,
    },
    /// Its backend data is absent or unreadable.
    #[error("its backend data is unusable: {0}")]
    BadBackendData(String),
    /// Its subnet is not inside the pod network.
    #[error("its subnet is outside the pod network")]
    OutsideNetwork,
    /// Its subnet overlaps the subnet of this node.
    #[error("its subnet overlaps the subnet of this node")]
    OverlapsOwn,
    /// Its subnet overlaps that of another peer.
    #[error("its subnet overlaps the lease {0}")]
    Overlaps(SubnetKey),
    /// Its public address is not that of one host on a network.
    #[error("its public IP {0} is not an address that packets can be sent to")]
    PublicIpUnusable(IpAddr),
    /// Its public address is one of its own pods'.
    #[error(
        "its public IP {0} is inside its own subnet, so that packets to it would go into the tunnel again and again"
    )]
    PublicIpInSubnet(IpAddr),
    /// It announces the public address of this node.
    #[error(
        "it announces the public IP of this node: it is an old lease of this node, or two nodes chose the same \
         address (give each its own with --iface or --public-ip)"
    )]
    OwnPublicIp,
    /// It announces the hardware address of this node's device.
    #[error("it announces the VTEP MAC of this node: was the machine copied?")]
    OwnVtepMac,
    /// It announces the same hardware address as another peer.
    #[error("it announces the same VTEP MAC as the lease {0}: was the machine copied?")]
    SameVtepMac(SubnetKey),
    /// It announces the public key of this node's device.
    #[error(
        "it announces the public key of this node: it is an old lease of this node, or the machine was copied with its \
         key file"
    )]
    OwnPublicKey,
    /// It announces the same public key as another peer.
    #[error("it announces the same public key as the lease {0}: was the machine copied with its key file?")]
    SamePublicKey(SubnetKey),
    /// Its hardware address is not that of one station.
    #[error("its VTEP MAC {0} is not a unicast address")]
    MacNotUnicast(MacAddr),
}

/// The leases of other nodes that have a subnet of one family, divided into those that are programmed and those that
/// are refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peers {
    /// Programmed, by their subnet.
    pub accepted: BTreeMap<IpNetwork, Peer>,
    /// Refused, each with its reason.
    pub refused: BTreeMap<SubnetKey, PeerProblem>,
}

impl Peers {
    /// Divides the leases of other nodes. Of two that exclude each other, one that was accepted `before` stays, so
    /// that a newcomer cannot cut off a node that works; else the one with the smaller key is accepted.
    #[must_use]
    pub fn divide<'a>(side: &Side, leases: impl Iterator<Item = &'a Lease>, before: &Self) -> Self {
        let mut division = Division::default();
        let mut newcomers = Vec::new();
        for lease in leases {
            match candidate(side, lease) {
                None => {}
                Some(Err(problem)) => {
                    division.peers.refused.insert(lease.key, problem);
                }
                Some(Ok((subnet, peer))) if before.accepted.get(&subnet) == Some(&peer) => {
                    division.add(subnet, peer);
                }
                Some(Ok(candidate)) => newcomers.push(candidate),
            }
        }
        for (subnet, peer) in newcomers {
            division.add(subnet, peer);
        }
        division.peers
    }

    /// Divides the leases of other nodes in place of all those before, as [`Self::divide`].
    pub fn divide_anew<'a>(&mut self, side: &Side, leases: impl Iterator<Item = &'a Lease>) -> PeerChanges {
        let peers = Self::divide(side, leases, self);
        let old = std::mem::replace(self, peers);
        let (before, after) = (&old.accepted, &self.accepted);
        let gone_or_altered = before.iter().filter(|(key, peer)| after.get(*key) != Some(*peer));
        let new = after.keys().filter(|key| !before.contains_key(*key));
        let problems = self.refused.iter();
        PeerChanges {
            before: gone_or_altered
                .map(|(key, peer)| (*key, Some(*peer)))
                .chain(new.map(|key| (*key, None)))
                .collect(),
            new_problems: problems
                .filter(|(key, problem)| old.refused.get(*key) != Some(*problem))
                .map(|(key, _)| *key)
                .collect(),
        }
    }

    /// Takes over what one lease has become, of which `lease` gives all there are. Accepts and refuses the same as
    /// [`Self::divide`], but looks only at this one and those that it excluded.
    pub fn change<'a>(
        &mut self,
        side: &Side,
        key: SubnetKey,
        lease: impl Fn(&SubnetKey) -> Option<&'a Lease>,
    ) -> PeerChanges {
        let mut changes = PeerChanges::default();
        let Some(subnet) = side.subnet_of(key) else {
            return changes;
        };
        let present = lease(&key).and_then(|lease| candidate(side, lease));
        let before = self.accepted.get(&subnet).copied();
        let before = before.filter(|peer| peer.lease == key);
        let is_same = |(_, peer): &(_, Peer)| Some(peer) == before.as_ref();
        if present.is_some_and(|present| present.as_ref().is_ok_and(is_same)) {
            return changes;
        }
        if before.is_some() {
            self.accepted.remove(&subnet);
        }
        let excluded = |(_, problem): &(&SubnetKey, &PeerProblem)| problem.rival() == Some(key);
        let mut open: BTreeSet<_> = self
            .refused
            .iter()
            .filter(excluded)
            .map(|(key, _)| *key)
            .collect();
        open.insert(key);
        for key in open {
            let problem_before = self.refused.remove(&key);
            let Some(candidate) = lease(&key).and_then(|lease| candidate(side, lease)) else {
                continue;
            };
            match candidate.and_then(|(subnet, peer)| self.without_rival(subnet, peer)) {
                Ok((subnet, peer)) => {
                    self.accepted.insert(subnet, peer);
                    changes.before.insert(subnet, None);
                }
                Err(problem) => {
                    if problem_before.as_ref() != Some(&problem) {
                        changes.new_problems.push(key);
                    }
                    self.refused.insert(key, problem);
                }
            }
        }
        if before.is_some() {
            changes.before.insert(subnet, before);
        }
        changes
    }

    fn without_rival(&self, subnet: IpNetwork, peer: Peer) -> Result<(IpNetwork, Peer), PeerProblem> {
        if let Some(other) = self.overlapped(subnet) {
            return Err(PeerProblem::Overlaps(other));
        }
        let Some(device) = peer.device() else {
            return Ok((subnet, peer));
        };
        let mut others = self.accepted.values();
        match others.find(|other| other.device() == Some(device)) {
            Some(other) => Err(PeerProblem::same_device(device, other.lease)),
            None => Ok((subnet, peer)),
        }
    }

    /// The accepted lease whose subnet overlaps. Accepted subnets do not overlap each other and sort by their start, so
    /// that only the next one on each side can.
    fn overlapped(&self, subnet: IpNetwork) -> Option<SubnetKey> {
        let before = self.accepted.range(..=subnet).next_back();
        let after = self.accepted.range(subnet..).next();
        let mut sides = before.into_iter().chain(after);
        let rival = sides.find(|(other, _)| overlap(**other, subnet));
        rival.map(|(_, peer)| peer.lease)
    }
}

/// What became otherwise in a division.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerChanges {
    /// The subnets whose peers are new, altered or gone, with those that were there before.
    pub before: BTreeMap<IpNetwork, Option<Peer>>,
    /// Those that are refused, and were not for the same reason before.
    pub new_problems: Vec<SubnetKey>,
}

impl PeerProblem {
    const fn same_device(device: DeviceId, holder: SubnetKey) -> Self {
        match device {
            DeviceId::VtepMac(_) => Self::SameVtepMac(holder),
            DeviceId::PublicKey(_) => Self::SamePublicKey(holder),
        }
    }

    /// The accepted lease that excludes this one.
    const fn rival(&self) -> Option<SubnetKey> {
        match self {
            Self::Overlaps(other) | Self::SameVtepMac(other) | Self::SamePublicKey(other) => Some(*other),
            Self::NoPublicIp(_)
            | Self::OtherBackend { .. }
            | Self::BadBackendData(_)
            | Self::OutsideNetwork
            | Self::OverlapsOwn
            | Self::PublicIpUnusable(_)
            | Self::PublicIpInSubnet(_)
            | Self::OwnPublicIp
            | Self::OwnVtepMac
            | Self::OwnPublicKey
            | Self::MacNotUnicast(_) => None,
        }
    }
}

#[derive(Default)]
struct Division {
    peers: Peers,
    devices: BTreeMap<DeviceId, SubnetKey>,
}

impl Division {
    fn add(&mut self, subnet: IpNetwork, peer: Peer) {
        let problem = self
            .peers
            .overlapped(subnet)
            .map(PeerProblem::Overlaps)
            .or_else(|| {
                let device = peer.device()?;
                let holder = self.devices.get(&device).copied();
                holder.map(|holder| PeerProblem::same_device(device, holder))
            });
        if let Some(problem) = problem {
            self.peers.refused.insert(peer.lease, problem);
        } else {
            self.devices
                .extend(peer.device().map(|device| (device, peer.lease)));
            self.peers.accepted.insert(subnet, peer);
        }
    }
}

/// Reads a lease as a peer in one family, by itself; `None` if it has no subnet of this family.
fn candidate(side: &Side, lease: &Lease) -> Option<Result<(IpNetwork, Peer), PeerProblem>> {
    let subnet = side.subnet_of(lease.key)?;
    if side.carrier == Carrier::Alloc {
        return None;
    }
    Some(peer_of(side, subnet, lease).map(|peer| (subnet, peer)))
}

fn peer_of(side: &Side, subnet: IpNetwork, lease: &Lease) -> Result<Peer, PeerProblem> {
    let attrs = &lease.attrs;
    let ours = side.carrier.backend_type();
    if attrs.backend_type != ours {
        let theirs = attrs.backend_type.clone();
        return Err(PeerProblem::OtherBackend { theirs, ours });
    }
    let (public_ip, data, family) = if side.is_ipv6() {
        let ip = attrs.public_ipv6.map(IpAddr::V6);
        (ip, &attrs.backend_v6_data, "IPv6")
    } else {
        (attrs.public_ip.map(IpAddr::V4), &attrs.backend_data, "IPv4")
    };
    let (vtep_mac, wireguard) = match &side.carrier {
        Carrier::Vxlan(_) => {
            let data = VxlanData::parse(data.as_deref().unwrap_or_default());
            let data = data.map_err(|err| PeerProblem::BadBackendData(err.to_string()))?;
            (Some(data.vtep_mac), None)
        }
        Carrier::Wireguard(device) => (None, Some(wireguard::end(device, side, attrs)?)),
        Carrier::Extension => {
            // One command is for both families (flannel `pkg/backend/extension`).
            let data = ExtensionData::parse(attrs.backend_data.as_deref());
            let data = data.map_err(|err| PeerProblem::BadBackendData(err.to_string()))?;
            if data.0.len() > MAX_DATA_BYTES {
                let size = format!("{} bytes, of {MAX_DATA_BYTES} at most", data.0.len());
                return Err(PeerProblem::BadBackendData(size));
            }
            (None, None)
        }
        Carrier::HostGw(_) | Carrier::Ipip(_) | Carrier::Alloc => (None, None),
    };
    // A shared WireGuard device may reach the peer over the other family.
    let public_ip = wireguard.map(|end| end.endpoint.ip()).or(public_ip);
    let peer = Peer {
        lease: lease.key,
        public_ip: public_ip.ok_or(PeerProblem::NoPublicIp(family))?,
        vtep_mac,
        wireguard,
    };
    let network = side.network;
    if !(network.contains(subnet.network()) && network.prefix() <= subnet.prefix()) {
        Err(PeerProblem::OutsideNetwork)
    } else if overlap(side.subnet, subnet) {
        Err(PeerProblem::OverlapsOwn)
    } else if !is_usable_public_ip(peer.public_ip) {
        Err(PeerProblem::PublicIpUnusable(peer.public_ip))
    } else if subnet.contains(peer.public_ip) {
        Err(PeerProblem::PublicIpInSubnet(peer.public_ip))
    } else if let Some(problem) = own_or_unusable(side, &peer) {
        Err(problem)
    } else {
        Ok(peer)
    }
}

/// Whether a peer is this node by its address or its device, or has a device that cannot be one.
fn own_or_unusable(side: &Side, peer: &Peer) -> Option<PeerProblem> {
    let has_own_ip = peer.public_ip == side.public_ip;
    match &side.carrier {
        // Nodes behind one NAT have one address and a port each.
        Carrier::Wireguard(device) => {
            let end = peer.wireguard?;
            let own = (end.public_key == device.public_key).then_some(PeerProblem::OwnPublicKey);
            let has_own_end = has_own_ip && end.endpoint.port() == device.listen_port;
            own.or(has_own_end.then_some(PeerProblem::OwnPublicIp))
        }
        Carrier::Vxlan(_) | Carrier::HostGw(_) | Carrier::Ipip(_) | Carrier::Alloc | Carrier::Extension
            if has_own_ip =>
        {
            Some(PeerProblem::OwnPublicIp)
        }
        Carrier::Vxlan(device) => {
            let mac = peer.vtep_mac?;
            let own = (mac == device.mac).then_some(PeerProblem::OwnVtepMac);
            own.or((!mac.is_unicast()).then_some(PeerProblem::MacNotUnicast(mac)))
        }
        Carrier::HostGw(_) | Carrier::Ipip(_) | Carrier::Alloc | Carrier::Extension => None,
    }
}

fn overlap(one: IpNetwork, other: IpNetwork) -> bool {
    match (one, other) {
        (IpNetwork::V4(one), IpNetwork::V4(other)) => one.overlaps(other),
        (IpNetwork::V6(one), IpNetwork::V6(other)) => one.overlaps(other),
        (IpNetwork::V4(_), IpNetwork::V6(_)) | (IpNetwork::V6(_), IpNetwork::V4(_)) => false,
    }
}

/// Whether other hosts can send to an address: one of a single host, and not of this one only. A link-local IPv6
/// address tells nobody which link it is on.
#[must_use]
pub const fn is_usable_public_ip(ip: IpAddr) -> bool {
    if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
        return false;
    }
    match ip {
        IpAddr::V4(ip) => !ip.is_broadcast(),
        IpAddr::V6(ip) => !ip.is_unicast_link_local(),
    }
}
