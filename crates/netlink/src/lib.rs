//! Synchronous netlink: observes and applies `netstate` on the real kernel.
//!
//! The only crate that opens netlink sockets for reading and changing, and the only one that writes kernel
//! parameters. It holds no policy: what should be there, and in which order, comes as [`netstate::Op`]s. It never
//! waits without a limit, never changes the namespace of its caller's thread, and needs no asynchronous runtime.
//!
//! Start at [`RealKernel`], which implements [`netstate::Kernel`] for one network namespace; [`Netns`] names
//! namespaces, [`inventory`] describes the links, addresses and default routes of a host, and [`tc`] shapes traffic.
//! [`raw`] and [`netfilter`] are sockets in bytes for crates that speak another protocol.

mod apply;
mod attr;
mod bridge;
mod conflict;
pub mod conntrack;
mod decode;
mod devconf;
mod encode;
mod errno;
mod ethtool;
mod frame;
mod generic;
pub mod inventory;
mod kernel;
mod marked;
mod message;
pub mod netfilter;
mod netns;
mod observe;
mod on_link;
pub mod raw;
mod settings;
mod settle;
mod socket;
mod spots;
mod sysctl;
pub mod tc;
pub mod tlv;
mod wireguard;

pub use bridge::{BridgeVlans, PortVlans};
pub use frame::{Answer, Consistency, Frame, MalformedMessage, frames};
pub use kernel::{RealKernel, Writes};
pub use message::messages;
pub use netns::{Netns, NetnsError};
pub use settings::{LinkSetting, LinkSettings};
pub use sysctl::read as read_sysctl;
pub use wireguard::{PeerReport, WireguardReport};
