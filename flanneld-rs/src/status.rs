//! What a running daemon tells about its node: the answer to `flanneld status`, and the source of the metrics.
//!
//! Plain data, written by the daemon and read by the command, perhaps of another version: unknown fields are ignored.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::desired::{Carrier, Way};
use crate::extension::Tally;
use crate::log::LogCounts;
use crate::reconciler::insight::Counts;

pub mod command;
mod text;
mod wireguard;

pub(crate) use text::{printable, shown};
pub use wireguard::Seen;

/// The daemon and its node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// How long it has been running.
    pub uptime_secs: u64,
    /// Its node.
    #[serde(flatten)]
    pub node: NodeStatus,
    /// What its flags do that one may not expect, one sentence each.
    #[serde(default)]
    pub notices: Vec<String>,
    /// What its log left out.
    pub log: LogCounts,
}

/// A node, its peers counted only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Whether the data plane is what it should be.
    pub ready: bool,
    /// Why it is not.
    pub reason: Option<String>,
    /// The own lease, once it is held.
    pub lease: Option<LeaseStatus>,
    /// The lease store.
    pub store: StoreStatus,
    /// What carries packets to the peers, once the lease is held.
    pub backend: Option<BackendStatus>,
    /// The overlay's device, once the lease is held, where the backend has one; IPv6's only where IPv4 is off.
    pub device: Option<DeviceStatus>,
    /// The overlay's device for IPv6 beside the one for IPv4.
    pub second_device: Option<DeviceStatus>,
    /// How many peers are in which state.
    pub peers: PeerCounts,
    /// The work on links, routes and entries.
    pub kernel: KernelStatus,
    /// The commands for the peers, once the lease is held, where these are what carries packets.
    #[serde(default)]
    pub commands: Option<CommandsStatus>,
    /// The packet filter rules, once the lease is held.
    pub rules: Option<RulesStatus>,
}

/// The own lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The subnet of this node's pods.
    pub subnet: String,
    /// The address at which peers reach this node.
    pub public_ip: Option<IpAddr>,
    /// When it ends, in seconds since 1970; none for a reservation.
    pub expires: Option<u64>,
    /// How often it was renewed in this run.
    pub renewals: u64,
    /// How often a renewal failed in this run.
    pub renewals_failed: u64,
    /// The device with which another host announces this lease, if one does: "the VTEP MAC …" or "the public key …".
    pub shared_with: Option<String>,
}

/// The lease store.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct StoreStatus {
    /// Whether it answered last time.
    pub connected: bool,
    /// Why it did not, or why the last renewal failed.
    pub error: Option<String>,
    /// How often it failed in this run.
    pub errors: u64,
    /// Leases known, this node's own included.
    pub leases: usize,
    /// Leases that vanished in a mass and are held for the grace time.
    pub held: usize,
    /// Whether peers that no lease names are removed; not while the store is out of reach, nor before it was trusted.
    pub removes: bool,
}

/// What carries packets to the peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name in the network configuration.
    pub name: String,
    /// The interface that the nodes share.
    pub link: String,
    /// MTU of pods in bytes.
    pub pod_mtu_bytes: u32,
    /// How many peers have plain routes instead of tunnels, by family; nothing where `DirectRouting` is off.
    #[serde(default)]
    pub direct_peers: BTreeMap<String, usize>,
}

/// The overlay's device, as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Network identifier, of a VXLAN device.
    pub vni: Option<u32>,
    /// UDP port, at which the peers' devices are too if they are of VXLAN; none of a tunnel of IP in IP.
    pub port: Option<u16>,
    /// Hardware address, of a VXLAN device.
    pub mac: Option<String>,
    /// Public key, of a WireGuard device.
    pub public_key: Option<String>,
    /// Its MTU in bytes.
    pub mtu_bytes: u32,
    /// Whether it is to leave checksums to the hardware; none where it is left as it is.
    #[serde(default)]
    pub tx_checksum: Option<bool>,
    /// The interface that carries the outer packets.
    pub parent: String,
    /// Outer source address; a WireGuard device sends from what the kernel chooses.
    pub local: IpAddr,
    /// The pod network.
    pub network: String,
    /// Whether it is as it should be.
    pub state: Part,
}

/// How many peers are in which state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerCounts {
    /// All is as it should be.
    pub programmed: usize,
    /// Something is yet to be made.
    pub pending: usize,
    /// The kernel refused something.
    pub failing: usize,
    /// The lease cannot be used, or its address is on no network that this node is directly connected to where the
    /// backend needs that.
    pub refused: usize,
}

impl PeerCounts {
    /// All peers.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.programmed + self.pending + self.failing + self.refused
    }
}

/// The packet filter rules.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesStatus {
    /// What holds them: `nftables` or `iptables`.
    pub mode: String,
    /// Whether traffic that leaves the pod network is to be masqueraded.
    pub masquerade: bool,
    /// Whether forwarded traffic of the pod network is to be accepted.
    pub forward: bool,
    /// Whether they are as they should be.
    pub state: Part,
    /// The work on them.
    #[serde(flatten)]
    pub kernel: KernelStatus,
}

/// The commands of the backend `extension`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct CommandsStatus {
    /// How often `SubnetAddCommand` was run.
    pub added: Tally,
    /// How often `SubnetRemoveCommand` was run.
    pub removed: Tally,
    /// Leases whose command is yet to do its work.
    pub waiting: usize,
    /// The command that runs, with its lease.
    pub running: Option<String>,
    /// Some of those that failed.
    pub troubles: Vec<CommandTrouble>,
}

/// A command that failed and will be run again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandTrouble {
    /// Its name in the network configuration.
    pub command: String,
    /// The lease that it is for.
    pub lease: String,
    /// What it said last.
    pub error: String,
    /// How often it failed in a row.
    pub attempts: u32,
    /// For how long it has failed, in seconds.
    pub secs: u64,
    /// In how many seconds it is run again.
    pub again_secs: u64,
}

/// The work on one part of the kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct KernelStatus {
    /// What was done in this run.
    #[serde(flatten)]
    pub counts: Counts,
    /// How many objects are not as desired, by kind.
    pub differing: BTreeMap<String, u64>,
    /// Some of them.
    pub troubles: Vec<Trouble>,
}

/// An object that is not as desired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// The object.
    pub object: String,
    /// For how long, in seconds.
    pub secs: u64,
    /// What the kernel said.
    pub error: Option<String>,
}

/// A peer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The subnet of its pods.
    pub subnet: String,
    /// Its outer address.
    pub public_ip: Option<IpAddr>,
    /// Hardware address of its VXLAN device, if its lease can be used.
    pub vtep_mac: Option<String>,
    /// Public key of its WireGuard device, if its lease can be used.
    pub public_key: Option<String>,
    /// How it is reached, if its lease can be used.
    #[serde(default)]
    pub way: Option<PeerWay>,
    /// All in all.
    pub state: PeerState,
    /// Its route.
    pub route: Part,
    /// Its neighbour entry.
    pub neigh: Part,
    /// Its forwarding entry.
    pub fdb: Part,
    /// Its entry in the WireGuard device.
    pub wireguard: Part,
    /// What the kernel knows of it as a peer of WireGuard. The daemon leaves it out; `flanneld status` adds it where its
    /// user may ask the kernel.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// Why its lease cannot be used, or what the kernel said last.
    pub error: Option<String>,
    /// How often the kernel refused in a row.
    pub attempts: u32,
}

/// How a peer is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerWay {
    /// Through the tunnel.
    Tunnel,
    /// By a plain route to its outer address.
    Direct,
}

impl PeerWay {
    /// The way by which a backend reaches a peer; none where others do.
    pub(crate) const fn of(carrier: &Carrier, way: &Way) -> Option<Self> {
        match (carrier, way) {
            (Carrier::Vxlan(_) | Carrier::Ipip(_), Way::Carrier)
            | (Carrier::Wireguard(_), Way::Carrier | Way::Direct(_)) => Some(Self::Tunnel),
            (Carrier::Vxlan(_) | Carrier::Ipip(_), Way::Direct(_))
            | (Carrier::HostGw(_), Way::Carrier | Way::Direct(_)) => Some(Self::Direct),
            (Carrier::Alloc | Carrier::Extension, Way::Carrier | Way::Direct(_)) => None,
        }
    }

    /// The way in one word, for tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tunnel => "tunnel",
            Self::Direct => "direct",
        }
    }
}

/// How a peer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PeerState {
    /// The kernel refused something.
    Failing,
    /// The lease cannot be used, or its address is on no network that this node is directly connected to where the
    /// backend needs that.
    Refused,
    /// Something is yet to be made.
    Pending,
    /// All is as it should be.
    Programmed,
}

/// How one object in the kernel stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// There is none to be.
    #[serde(rename = "-")]
    None,
    /// As it should be.
    Ok,
    /// Yet to be made.
    Pending,
    /// Refused by the kernel.
    Failing,
}

impl PeerState {
    /// The state in one word, for tables and labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::Refused => "refused",
            Self::Pending => "pending",
            Self::Programmed => "programmed",
        }
    }
}

impl Part {
    /// The state in one word, for tables.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Ok => "ok",
            Self::Pending => "pending",
            Self::Failing => "failing",
        }
    }
}

/// Which peers a client wants to hear of.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct PeerQuery {
    /// A part of their subnet, public address, hardware address or public key; all peers if there is none.
    pub peer: Option<String>,
}
