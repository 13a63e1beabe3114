//! The plugin `bridge`: a pair of virtual interfaces between a container and a bridge of the host.

mod add;
mod check;
mod conf;
mod del;
mod desired;
mod host;
mod kernel;
mod names;
mod pod;
mod vlan;

pub(crate) use add::{add, validate};
pub(crate) use check::check;
pub(crate) use del::{del, gc, status};
