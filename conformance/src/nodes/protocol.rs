//! What the runner asks of the agent on a node, and what it is answered: one JSON object a line, each answer with the
//! number of its request. Requests are worked on side by side.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::lab::runtime::HostPort;

/// Where something is done: on the node itself, or in one of the pods that the agent made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Place {
    Node,
    Pod(String),
}

/// How bytes are carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

/// How often a runner tells that it is there: as often as ssh is asked to do for its own connection.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// What is asked of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Request {
    /// Nothing: the runner is still there.
    KeepAlive,
    /// The addresses of all links but the loopback: `Vec<(String, IpAddr)>`.
    Addresses { place: Place },
    /// The addresses from which a packet to the outside would come, one a family at most: `Vec<IpAddr>`.
    Outward { place: Place },
    /// A program is run to its end: [`Output`].
    Run {
        place: Place,
        argv: Vec<String>,
        limit: Duration,
    },
    /// A file of the node: `Option<String>`, `None` where there is none.
    Read { path: String },
    /// The processes of a name in the node's network namespace: `BTreeSet<Process>`.
    Processes { name: String },
    /// A pod is attached by the node's plugins: [`Attached`].
    AddPod { name: String, ports: Vec<HostPort> },
    /// A server of this program is started, on one port in TCP and UDP: `u16`.
    Listen { place: Place, port: u16 },
    /// Servers are asked whom they see: `Vec<Result<Seen, String>>`.
    Ask {
        place: Place,
        transport: Transport,
        targets: Vec<SocketAddr>,
        /// Of the payload, in bytes; UDP's goes both ways.
        size: usize,
    },
    /// Echo requests that must not be divided: `Vec<Pinged>`.
    Ping {
        place: Place,
        targets: Vec<IpAddr>,
        /// Of the whole packet, with the IP header, in bytes.
        size: u16,
    },
    /// Bytes are sent over one connection: [`Sent`].
    Send {
        place: Place,
        target: SocketAddr,
        size: u64,
        check: Check,
    },
    /// Many connections are opened, all of which are open at the same time, and asked for an echo: how many answered.
    Connections {
        place: Place,
        target: SocketAddr,
        count: u16,
    },
    /// One byte goes to and fro over a connection: `Vec<Duration>`.
    RoundTrips {
        place: Place,
        target: SocketAddr,
        count: u32,
    },
    /// A packet is sent and answered at each interval from now on: a number for `StopStream`.
    StartStream {
        place: Place,
        target: SocketAddr,
        interval: Duration,
    },
    /// The stream ends: [`Counted`].
    StopStream { stream: u64 },
}

/// How long one of many targets may be silent: as long as a connection and an answer on it may take.
const TARGET_LIMIT: Duration = Duration::from_secs(15);

impl Request {
    /// How long it may take by itself: a program's own limit, and what silent targets take one after another.
    pub(super) fn may_take(&self) -> Duration {
        let all = |count: usize| TARGET_LIMIT.saturating_mul(u32::try_from(count).unwrap_or(u32::MAX));
        match self {
            Self::Run { limit, .. } => *limit,
            Self::Ask { targets, .. } => all(targets.len()),
            Self::Ping { targets, .. } => all(targets.len()),
            Self::KeepAlive
            | Self::Addresses { .. }
            | Self::Outward { .. }
            | Self::Read { .. }
            | Self::Processes { .. }
            | Self::AddPod { .. }
            | Self::Listen { .. }
            | Self::Send { .. }
            | Self::Connections { .. }
            | Self::RoundTrips { .. }
            | Self::StartStream { .. }
            | Self::StopStream { .. } => Duration::ZERO,
        }
    }
}

/// Whether what is sent is looked at where it arrives, which takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Check {
    Contents,
    Amount,
}

/// How a pod was attached.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Attached {
    /// The last plugin's.
    pub(super) result: Value,
    /// Whether a plugin of the configuration takes ports of the node.
    pub(super) takes_ports: bool,
}

/// The status of a program that is not there, as shells tell it (POSIX XCU §2.8.2).
pub(super) const NOT_FOUND: i32 = 127;

/// What a program printed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Output {
    /// `None` when it was ended because of the limit or by a signal; [`NOT_FOUND`] when it is not there.
    pub(super) status: Option<i32>,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

/// A process, told from every other one of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Process {
    pub(super) pid: u32,
    /// When it began, in clock ticks since the node's boot: a number is given again.
    pub(super) started: u64,
}

/// A connection or an exchange as both ends saw it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// The client's address as the server saw it.
    pub(super) by_server: IpAddr,
    /// The client's address as the client saw it.
    pub(super) by_client: IpAddr,
}

/// What became of an echo request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Pinged {
    /// It was answered after this time.
    Answered(Duration),
    /// Somebody on the way, or the own kernel, said that it is too big.
    TooBig,
    /// The own kernel refused it, with this errno.
    Refused(i32),
    /// Nothing came back.
    Silent,
}

/// Bytes that went over a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sent {
    /// How many arrived, by the server's word.
    pub(super) arrived: u64,
    /// Whether what arrived has the checksum of what was sent; true where only the amount was looked at.
    pub(super) intact: bool,
    /// From the first byte to the server's word.
    pub(super) took: Duration,
}

/// What became of a stream's packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    pub(super) sent: u64,
    /// How many came back.
    pub(super) answered: u64,
    /// The longest time in which none came back.
    pub(super) longest_gap: Duration,
}

/// A request with its number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Numbered {
    pub(super) number: u64,
    pub(super) request: Request,
}

/// The answer to a request; an error is in words.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Answer {
    pub(super) number: u64,
    pub(super) result: Result<Value, String>,
}

/// The first line of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// The protocol's number.
    pub(super) agent: u32,
}

/// The protocol's number; both ends are the same program, so that this tells a stranger's output from ours.
pub(super) const PROTOCOL: u32 = 1;
