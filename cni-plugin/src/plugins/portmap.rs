//! The plugin `portmap`, chained after the one that attaches a container: connections to ports of the host reach ports
//! of the container.
//!
//! What an attachment's mapped ports are is stored, and every operation makes the rules of its container follow from
//! what is stored: a repeated ADD, one that was killed, rules that someone flushed and rules that the reference made
//! all end alike.

mod attachment;
mod cmd;
mod conf;
mod iptables;
mod nft;
mod rules;
mod store;
mod xtables;

pub use cmd::{RestoreError, restore_all};
pub(crate) use cmd::{add, check, del, gc, status};
