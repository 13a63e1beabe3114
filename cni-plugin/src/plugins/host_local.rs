//! Address management on this host: `host-local`, sharing its store with the reference plugin.

mod cmd;
mod conf;
mod range;
mod resolv;
mod store;

pub(crate) use cmd::{Duplicate, add, check, del, gc, holders, holds, stale, status};
