//! The plugin `firewall`: what containers send is forwarded, and the answers to it, and where a policy asks for it
//! their bridge is closed to other bridges.

mod backend;
mod cmd;
mod conf;
mod iptables;
mod nft;
mod note;

pub(crate) use cmd::{add, check, del, gc, status};
