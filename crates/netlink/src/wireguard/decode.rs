//! What the kernel says of WireGuard devices. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::time::Duration;

use ipnetwork::IpNetwork;
use net_types::{WgPublicKey, WgSecret};
use netstate::{KernelError, WgPeer, Wireguard};

use super::{
    AF_INET, AF_INET6, ALLOWED_ADDR, ALLOWED_FAMILY, ALLOWED_PREFIX, DEVICE_LISTEN_PORT, DEVICE_PEERS,
    DEVICE_PRIVATE_KEY, DEVICE_PUBLIC_KEY, PEER_ALLOWED_IPS, PEER_ENDPOINT, PEER_KEEPALIVE,
    PEER_LAST_HANDSHAKE, PEER_PRESHARED_KEY, PEER_PUBLIC_KEY, PEER_RX_BYTES, PEER_TX_BYTES, PeerReport,
    WireguardReport,
};
use crate::errno::other;
use crate::tlv::{attribute, attributes};

/// A session is not used for longer than this after its handshake (WireGuard whitepaper §6.2, `Reject-After-Time`).
const SESSION: Duration = Duration::from_secs(180);

/// One message of a list: the first one has the device's settings, and each has some of the peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    private_key: Option<WgSecret>,
    public_key: Option<WgPublicKey>,
    listen_port: Option<u16>,
    peers: Vec<PartOfPeer>,
}

/// A peer, or the rest of one whose allowed addresses did not fit into one message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct PartOfPeer {
    public_key: WgPublicKey,
    /// Since the epoch.
    last_handshake: Duration,
    received_bytes: u64,
    sent_bytes: u64,
    peer: WgPeer,
}

/// Reads one message of a list.
///
/// # Errors
/// A peer has no key, or an address is none.
pub(super) fn part(bytes: &[u8]) -> Result<Part, KernelError> {
    let peers = attribute(bytes, DEVICE_PEERS).unwrap_or(&[]);
    Ok(Part {
        private_key: attribute(bytes, DEVICE_PRIVATE_KEY).and_then(secret),
        public_key: attribute(bytes, DEVICE_PUBLIC_KEY)
            .and_then(secret)
            .map(|key| WgPublicKey::new(*key.reveal())),
        listen_port: attribute(bytes, DEVICE_LISTEN_PORT).and_then(number),
        peers: attributes(peers)
            .map(|(_, peer)| {
                part_of_peer(peer).ok_or_else(|| other("the kernel described a WireGuard peer wrongly"))
            })
            .collect::<Result<_, _>>()?,
    })
}

/// Joins the messages of a list; `now` is the time since the epoch.
pub(super) fn joined(parts: Vec<Part>, now: Duration) -> (Wireguard, BTreeMap<WgPublicKey, WgPeer>) {
    let mut device = Wireguard {
        private_key: None,
        listen_port: 0,
    };
    let mut peers: BTreeMap<WgPublicKey, WgPeer> = BTreeMap::new();
    for part in parts {
        device.private_key = device.private_key.or(part.private_key);
        device.listen_port = part.listen_port.unwrap_or(device.listen_port);
        for mut part in part.peers {
            if let Some(begun) = peers.get_mut(&part.public_key) {
                begun.allowed_ips.append(&mut part.peer.allowed_ips);
                continue;
            }
            // A clock that was set back makes a handshake one of the future.
            let is_recent = now.saturating_sub(part.last_handshake) < SESSION;
            part.peer.answers = !part.last_handshake.is_zero() && is_recent;
            peers.insert(part.public_key, part.peer);
        }
    }
    (device, peers)
}

/// Joins the messages of a list for a report.
pub(super) fn reported(parts: Vec<Part>) -> WireguardReport {
    let mut report = WireguardReport::default();
    for part in parts {
        report.public_key = report.public_key.or(part.public_key);
        report.listen_port = part.listen_port.unwrap_or(report.listen_port);
        for part in part.peers {
            // The rest of a peer has addresses alone.
            report.peers.entry(part.public_key).or_insert(PeerReport {
                endpoint: part.peer.endpoint,
                last_handshake: (!part.last_handshake.is_zero()).then_some(part.last_handshake),
                keepalive_secs: part.peer.keepalive_secs,
                received_bytes: part.received_bytes,
                sent_bytes: part.sent_bytes,
            });
        }
    }
    report
}

fn part_of_peer(bytes: &[u8]) -> Option<PartOfPeer> {
    let allowed = attribute(bytes, PEER_ALLOWED_IPS).unwrap_or(&[]);
    let allowed_ips = attributes(allowed)
        .map(|(_, bytes)| allowed_ip(bytes))
        .collect::<Option<BTreeSet<_>>>()?;
    let endpoint = match attribute(bytes, PEER_ENDPOINT) {
        Some(bytes) => Some(socket_address(bytes)?),
        None => None,
    };
    Some(PartOfPeer {
        public_key: WgPublicKey::new(attribute(bytes, PEER_PUBLIC_KEY)?.try_into().ok()?),
        last_handshake: attribute(bytes, PEER_LAST_HANDSHAKE)
            .and_then(seconds)
            .unwrap_or_default(),
        received_bytes: attribute(bytes, PEER_RX_BYTES)
            .and_then(count)
            .unwrap_or_default(),
        sent_bytes: attribute(bytes, PEER_TX_BYTES)
            .and_then(count)
            .unwrap_or_default(),
        peer: WgPeer {
            preshared_key: attribute(bytes, PEER_PRESHARED_KEY).and_then(secret),
            endpoint,
            keepalive_secs: attribute(bytes, PEER_KEEPALIVE).and_then(number).unwrap_or(0),
            allowed_ips,
            answers: false,
        },
    })
}

/// A secret; of zeros is none.
fn secret(bytes: &[u8]) -> Option<WgSecret> {
    let bytes: [u8; 32] = bytes.try_into().ok()?;
    (bytes != [0; 32]).then_some(WgSecret::new(bytes))
}

fn number(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.try_into().ok()?))
}

fn count(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(bytes.try_into().ok()?))
}

/// The seconds of a `struct __kernel_timespec`.
fn seconds(bytes: &[u8]) -> Option<Duration> {
    let seconds = i64::from_ne_bytes(*bytes.first_chunk()?);
    Some(Duration::from_secs(u64::try_from(seconds).ok()?))
}

fn allowed_ip(bytes: &[u8]) -> Option<IpNetwork> {
    let addr = ip(
        number(attribute(bytes, ALLOWED_FAMILY)?)?,
        attribute(bytes, ALLOWED_ADDR)?,
    )?;
    let [prefix] = *attribute(bytes, ALLOWED_PREFIX)?.first_chunk()?;
    IpNetwork::new(addr, prefix).ok()
}

fn ip(family: u16, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from_octets(bytes.try_into().ok()?).into()),
        AF_INET6 => Some(Ipv6Addr::from_octets(bytes.try_into().ok()?).into()),
        _ => None,
    }
}

/// Reads a `struct sockaddr_in` or `struct sockaddr_in6`.
fn socket_address(bytes: &[u8]) -> Option<SocketAddr> {
    let ([a, b, c, d], rest) = bytes.split_first_chunk()?;
    let port = u16::from_be_bytes([*c, *d]);
    match u16::from_ne_bytes([*a, *b]) {
        AF_INET => {
            let octets = *rest.first_chunk::<4>()?;
            Some(SocketAddrV4::new(octets.into(), port).into())
        }
        AF_INET6 => {
            let (flow, rest) = rest.split_first_chunk::<4>()?;
            let (octets, rest) = rest.split_first_chunk::<16>()?;
            let scope = u32::from_ne_bytes(*rest.first_chunk::<4>()?);
            Some(SocketAddrV6::new((*octets).into(), port, u32::from_be_bytes(*flow), scope).into())
        }
        _ => None,
    }
}
