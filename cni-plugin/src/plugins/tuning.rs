//! The plugin `tuning`: changes kernel parameters and settings of an interface that an earlier plugin made.
//!
//! It writes parameters of the container's own network namespace only, below `net`. What it changes of the interface
//! is noted in a file, in the reference plugin's form, and put back by DEL: the interface may be a device of the host
//! that outlives the container.

mod allowlist;
mod backup;
mod cmd;
mod conf;

pub(crate) use cmd::{add, check, del, gc, status};
