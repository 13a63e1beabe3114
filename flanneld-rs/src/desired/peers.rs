//! Which leases are peers, and which cannot be because they would break somebody's traffic.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use flannel_types::{Lease, VxlanData};
use net_types::{MacAddr, SubnetKey};

use super::VxlanDevice;

#[cfg(test)]
mod tests;

/// What a lease of this backend names as its type (flannel `pkg/backend/vxlan/vxlan.go`).
pub const BACKEND_TYPE: &str = "vxlan";

/// What a lease says about the node that holds it, as the VXLAN backend needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer {
    /// The outer address of the node.
    pub public_ip: Ipv4Addr,
    /// The hardware address of its VXLAN device.
    pub vtep_mac: MacAddr,
}

/// Why a lease is not programmed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PeerProblem {
    /// It is of IPv6 alone.
    #[error("it has no IPv4 subnet")]
    NoIpv4,
    /// It was made by another backend.
    #[error("its backend is {0:?}, not vxlan")]
    OtherBackend(String),
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
    PublicIpUnusable(Ipv4Addr),
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
    /// Its hardware address is not that of one station.
    #[error("its VTEP MAC {0} is not a unicast address")]
    MacNotUnicast(MacAddr),
}

/// The leases of other nodes, divided into those that are programmed and those that are refused.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Peers {
    /// Programmed.
    pub accepted: BTreeMap<SubnetKey, Peer>,
    /// Refused, each with its reason.
    pub refused: BTreeMap<SubnetKey, PeerProblem>,
}

impl Peers {
    /// Divides the leases of other nodes. Of two that exclude each other, one that was accepted `before` stays, so
    /// that a newcomer cannot cut off a node that works; else the one with the smaller key is accepted.
    #[must_use]
    pub fn divide<'a>(device: &VxlanDevice, leases: impl Iterator<Item = &'a Lease>, before: &Self) -> Self {
        let mut division = Division::default();
        let mut newcomers = Vec::new();
        for lease in leases {
            match candidate(device, lease) {
                Err(problem) => {
                    division.peers.refused.insert(lease.key, problem);
                }
                Ok(peer) if before.accepted.get(&lease.key) == Some(&peer) => division.add(lease.key, peer),
                Ok(peer) => newcomers.push((lease.key, peer)),
            }
        }
        for (key, peer) in newcomers {
            division.add(key, peer);
        }
        division.peers
    }

    /// Divides the leases of other nodes in place of all those before, as [`Self::divide`].
    pub fn divide_anew<'a>(
        &mut self,
        device: &VxlanDevice,
        leases: impl Iterator<Item = &'a Lease>,
    ) -> PeerChanges {
        let peers = Self::divide(device, leases, self);
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
        device: &VxlanDevice,
        key: SubnetKey,
        lease: impl Fn(&SubnetKey) -> Option<&'a Lease>,
    ) -> PeerChanges {
        let mut changes = PeerChanges::default();
        let present = lease(&key).map(|lease| candidate(device, lease));
        let before = self.accepted.get(&key).copied();
        if before.is_some() && present.as_ref().and_then(|peer| peer.as_ref().ok()) == before.as_ref() {
            return changes;
        }
        self.accepted.remove(&key);
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
            let Some(lease) = lease(&key) else { continue };
            match candidate(device, lease).and_then(|peer| self.without_rival(key, peer)) {
                Ok(peer) => {
                    self.accepted.insert(key, peer);
                    changes.before.insert(key, None);
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
            changes.before.insert(key, before);
        }
        changes
    }

    fn without_rival(&self, key: SubnetKey, peer: Peer) -> Result<Peer, PeerProblem> {
        if let Some(other) = self.overlapped(key) {
            return Err(PeerProblem::Overlaps(other));
        }
        let mut others = self.accepted.iter();
        match others.find(|(_, other)| other.vtep_mac == peer.vtep_mac) {
            Some((other, _)) => Err(PeerProblem::SameVtepMac(*other)),
            None => Ok(peer),
        }
    }

    /// The accepted lease whose subnet overlaps. Accepted subnets do not overlap each other and keys sort by their
    /// start, so that only the next one on each side can.
    fn overlapped(&self, key: SubnetKey) -> Option<SubnetKey> {
        let before = self.accepted.range(..=key).next_back();
        let after = self.accepted.range(key..).next();
        let mut sides = before.into_iter().chain(after).map(|(other, _)| *other);
        sides.find(|other| other.overlaps(&key))
    }
}

/// What became otherwise in a division.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerChanges {
    /// The peers that are new, altered or gone, as they were before.
    pub before: BTreeMap<SubnetKey, Option<Peer>>,
    /// Those that are refused, and were not for the same reason before.
    pub new_problems: Vec<SubnetKey>,
}

impl PeerProblem {
    /// The accepted lease that excludes this one.
    const fn rival(&self) -> Option<SubnetKey> {
        match self {
            Self::Overlaps(other) | Self::SameVtepMac(other) => Some(*other),
            Self::NoIpv4
            | Self::OtherBackend(_)
            | Self::BadBackendData(_)
            | Self::OutsideNetwork
            | Self::OverlapsOwn
            | Self::PublicIpUnusable(_)
            | Self::OwnPublicIp
            | Self::OwnVtepMac
            | Self::MacNotUnicast(_) => None,
        }
    }
}

#[derive(Default)]
struct Division {
    peers: Peers,
    macs: BTreeMap<MacAddr, SubnetKey>,
}

impl Division {
    fn add(&mut self, key: SubnetKey, peer: Peer) {
        let problem = self.peers.overlapped(key).map(PeerProblem::Overlaps).or_else(|| {
            self.macs
                .get(&peer.vtep_mac)
                .copied()
                .map(PeerProblem::SameVtepMac)
        });
        if let Some(problem) = problem {
            self.peers.refused.insert(key, problem);
        } else {
            self.macs.insert(peer.vtep_mac, key);
            self.peers.accepted.insert(key, peer);
        }
    }
}

/// Reads a lease as a peer, by itself.
fn candidate(device: &VxlanDevice, lease: &Lease) -> Result<Peer, PeerProblem> {
    let attrs = &lease.attrs;
    if attrs.backend_type != BACKEND_TYPE {
        return Err(PeerProblem::OtherBackend(attrs.backend_type.clone()));
    }
    let data = attrs.backend_data.as_deref().unwrap_or_default();
    let data = VxlanData::parse(data).map_err(|err| PeerProblem::BadBackendData(err.to_string()))?;
    let (Some(subnet), Some(public_ip)) = (lease.key.v4(), attrs.public_ip) else {
        return Err(PeerProblem::NoIpv4);
    };
    let peer = Peer {
        public_ip,
        vtep_mac: data.vtep_mac,
    };
    let network = device.network;
    if !(network.contains(subnet.network()) && network.prefix() <= subnet.prefix()) {
        Err(PeerProblem::OutsideNetwork)
    } else if device.subnet.overlaps(subnet) {
        Err(PeerProblem::OverlapsOwn)
    } else if !is_usable_public_ip(peer.public_ip) {
        Err(PeerProblem::PublicIpUnusable(peer.public_ip))
    } else if peer.public_ip == device.public_ip {
        Err(PeerProblem::OwnPublicIp)
    } else if peer.vtep_mac == device.mac {
        Err(PeerProblem::OwnVtepMac)
    } else if !peer.vtep_mac.is_unicast() {
        Err(PeerProblem::MacNotUnicast(peer.vtep_mac))
    } else {
        Ok(peer)
    }
}

/// Whether other hosts can send to an address: one of a single host, and not of this one only.
#[must_use]
pub fn is_usable_public_ip(ip: Ipv4Addr) -> bool {
    !(ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast())
}
