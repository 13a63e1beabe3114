//! Notices that kernel networking changed, over an asynchronous multicast socket.
//!
//! A notice never says what is there; it says where to look again. The kernel may drop notices, and then says so
//! ([`Notice::Lost`], [`RulesNotice::Lost`]); what nobody waits for is merged, never queued without limit. This crate
//! reads only: it never asks the kernel anything and changes nothing. It decodes message headers and the two or three
//! attributes that tell where a change happened, because under a storm the cost of a notice is what counts.
//!
//! It uses `netlink-sys`' socket under tokio's `AsyncFd` instead of `rtnetlink`'s multicast connection: that one
//! decodes every message in full into an unbounded channel, needs a task of its own, and has no say in the size of the
//! receive queue.
//!
//! Start at [`Monitor`] for links, addresses, routes and neighbours, and at [`RulesMonitor`] for packet filter rules.

mod frame;
mod listener;
mod monitor;
mod notice;
mod pending;
mod read;
mod rules;

pub use listener::MonitorError;
pub use monitor::Monitor;
pub use notice::{NeighChange, NeighEntry, Notice, Presence};
pub use rules::{RulesMonitor, RulesNotice};
