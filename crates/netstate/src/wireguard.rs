use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use ipnetwork::IpNetwork;
use net_types::{IfName, WgPublicKey, WgSecret};

use crate::State;

#[cfg(test)]
mod tests;

/// What a WireGuard device is, beside being a link (linux `include/uapi/linux/wireguard.h`, `WGDEVICE_A_*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wireguard {
    /// Its private key; `None` only as observed on a device that nobody has set up.
    pub private_key: Option<WgSecret>,
    /// The UDP port that it listens on.
    pub listen_port: u16,
}

/// Identity of a peer: a device has each public key once.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct WgPeerKey {
    /// The WireGuard device.
    pub link: IfName,
    /// The peer's public key.
    pub public_key: WgPublicKey,
}

/// A peer of a WireGuard device (`WGPEER_A_*`).
#[derive(Debug, Clone, Eq)]
pub struct WgPeer {
    /// A secret that both sides mix into their handshakes.
    pub preshared_key: Option<WgSecret>,
    /// Where packets for it go: as told, or from where it was heard last. `None` in a change leaves it as it is.
    pub endpoint: Option<SocketAddr>,
    /// How often something is sent even if there is nothing to send, in seconds; 0 for never.
    pub keepalive_secs: u16,
    /// Inner addresses that are sent to it and accepted from it. The kernel gives each to one peer: the last that asks.
    pub allowed_ips: BTreeSet<IpNetwork>,
    /// Observed only, and not compared: whether a handshake succeeded in the last three minutes, so that its endpoint is right.
    pub answers: bool,
}

impl PartialEq for WgPeer {
    fn eq(&self, other: &Self) -> bool {
        self.preshared_key == other.preshared_key
            && self.endpoint == other.endpoint
            && self.keepalive_secs == other.keepalive_secs
            && self.allowed_ips == other.allowed_ips
    }
}

impl State {
    /// Takes endpoints that the kernel learned from peers for the desired ones: a peer may roam, and knows better where
    /// it is than its lease. `told` is what the kernel was told about each; a desired endpoint that is another is news.
    /// Of a peer that the kernel was told nothing about in this run, the endpoint counts if the peer answers there, unless
    /// it is of the other family: no peer roams so far, and which family carries packets may have been chosen anew.
    pub fn accept_roaming(&mut self, desired: &Self, told: &BTreeMap<WgPeerKey, SocketAddr>) {
        for (key, peer) in &mut self.wg_peers {
            let answers = std::mem::take(&mut peer.answers);
            let Some(wanted) = desired.wg_peers.get(key).and_then(|peer| peer.endpoint) else {
                continue;
            };
            let is_of_family = peer.endpoint.is_some_and(|at| at.is_ipv6() == wanted.is_ipv6());
            let is_right = told
                .get(key)
                .map_or(answers && is_of_family, |told| *told == wanted);
            if is_right && peer.endpoint.is_some() {
                peer.endpoint = Some(wanted);
            }
        }
    }
}
