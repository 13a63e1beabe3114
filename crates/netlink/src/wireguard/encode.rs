//! Changes of WireGuard devices as attributes. Pure.

use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use net_types::IfName;
use netstate::{WgPeer, WgPeerKey, Wireguard};

use super::{
    AF_INET, AF_INET6, ALLOWED_ADDR, ALLOWED_FAMILY, ALLOWED_PREFIX, DEVICE_IFNAME, DEVICE_LISTEN_PORT,
    DEVICE_PEERS, DEVICE_PRIVATE_KEY, PEER_ALLOWED_IPS, PEER_ENDPOINT, PEER_FLAGS, PEER_KEEPALIVE,
    PEER_PRESHARED_KEY, PEER_PUBLIC_KEY, REMOVE, REPLACE_ALLOWED_IPS,
};
use crate::tlv::Attributes;

/// A preshared key of zeros is none.
const NO_KEY: [u8; 32] = [0; 32];

/// Sets up a device; its peers stay.
pub(super) fn device(mut message: Attributes, name: &IfName, device: &Wireguard) -> Attributes {
    message.put_text(DEVICE_IFNAME, name.as_str());
    if let Some(key) = &device.private_key {
        message.put(DEVICE_PRIVATE_KEY, key.reveal());
    }
    message.put(DEVICE_LISTEN_PORT, &device.listen_port.to_ne_bytes());
    message
}

/// Makes a peer what it should be, whatever it was.
pub(super) fn peer(message: Attributes, key: &WgPeerKey, peer: &WgPeer) -> Attributes {
    of_peer(message, key, |entry| {
        entry.put(PEER_FLAGS, &REPLACE_ALLOWED_IPS.to_ne_bytes());
        let preshared = peer.preshared_key.as_ref().map_or(&NO_KEY, |key| key.reveal());
        entry.put(PEER_PRESHARED_KEY, preshared);
        if let Some(endpoint) = peer.endpoint {
            entry.put(PEER_ENDPOINT, &socket_address(endpoint));
        }
        entry.put(PEER_KEEPALIVE, &peer.keepalive_secs.to_ne_bytes());
        entry.nest(PEER_ALLOWED_IPS, |list| {
            for allowed in &peer.allowed_ips {
                list.nest(0, |entry| put_allowed(entry, *allowed));
            }
        });
    })
}

pub(super) fn peer_removal(message: Attributes, key: &WgPeerKey) -> Attributes {
    of_peer(message, key, |entry| entry.put(PEER_FLAGS, &REMOVE.to_ne_bytes()))
}

fn of_peer(mut message: Attributes, key: &WgPeerKey, fill: impl FnOnce(&mut Attributes)) -> Attributes {
    message.put_text(DEVICE_IFNAME, key.link.as_str());
    message.nest(DEVICE_PEERS, |list| {
        list.nest(0, |entry| {
            entry.put(PEER_PUBLIC_KEY, key.public_key.bytes());
            fill(entry);
        });
    });
    message
}

fn put_allowed(entry: &mut Attributes, allowed: IpNetwork) {
    let family = if allowed.is_ipv4() { AF_INET } else { AF_INET6 };
    entry.put(ALLOWED_FAMILY, &family.to_ne_bytes());
    match allowed.network() {
        IpAddr::V4(ip) => entry.put(ALLOWED_ADDR, &ip.octets()),
        IpAddr::V6(ip) => entry.put(ALLOWED_ADDR, &ip.octets()),
    }
    entry.put(ALLOWED_PREFIX, &[allowed.prefix()]);
}

/// `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(endpoint: SocketAddr) -> Vec<u8> {
    let mut bytes = Vec::new();
    match endpoint {
        SocketAddr::V4(v4) => {
            bytes.extend_from_slice(&AF_INET.to_ne_bytes());
            bytes.extend_from_slice(&v4.port().to_be_bytes());
            bytes.extend_from_slice(&v4.ip().octets());
            bytes.extend_from_slice(&[0; 8]);
        }
        SocketAddr::V6(v6) => {
            bytes.extend_from_slice(&AF_INET6.to_ne_bytes());
            bytes.extend_from_slice(&v6.port().to_be_bytes());
            bytes.extend_from_slice(&v6.flowinfo().to_be_bytes());
            bytes.extend_from_slice(&v6.ip().octets());
            bytes.extend_from_slice(&v6.scope_id().to_ne_bytes());
        }
    }
    bytes
}
