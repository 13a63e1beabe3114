//! What a WireGuard device tells of itself for people: no secrets.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use net_types::WgPublicKey;

/// A WireGuard device, without its secrets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WireguardReport {
    /// Its public key; `None` of a device that has no key.
    pub public_key: Option<WgPublicKey>,
    /// The UDP port that it listens on while it is up.
    pub listen_port: u16,
    /// Its peers.
    pub peers: BTreeMap<WgPublicKey, PeerReport>,
}

/// What is known of a peer of a WireGuard device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PeerReport {
    /// Where packets for it go: as told, or from where it was heard last.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake succeeded, since 1970; `None` if none has.
    pub last_handshake: Option<Duration>,
    /// How often something is sent even if there is nothing to send, in seconds; 0 for never.
    pub keepalive_secs: u16,
    /// What came from it that it had encrypted rightly, in bytes.
    pub received_bytes: u64,
    /// What was sent to it, handshakes included, in bytes.
    pub sent_bytes: u64,
}
