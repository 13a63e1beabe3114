//! Address management on this host: `host-local`, sharing its store with the reference plugin.

mod boot;
mod cmd;
mod conf;
mod range;
mod resolv;
mod store;

pub(crate) use cmd::{
    Detached, Duplicate, add, all_holders, attachments, check, del, gateways, gc, gc_detaching, held,
    holders, routed, status,
};
pub(crate) use store::Holder;
