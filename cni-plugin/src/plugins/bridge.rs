//! The plugin `bridge`: a pair of virtual interfaces between a container and a bridge of the host.

mod add;
mod check;
mod conf;
mod del;
mod desired;
mod guards;
mod host;
mod kernel;
mod masq;
mod names;
mod pod;
mod spoof;
mod vlan;

pub(crate) use add::{add, validate};
pub(crate) use check::check;
pub(crate) use del::{del, gc, status};
