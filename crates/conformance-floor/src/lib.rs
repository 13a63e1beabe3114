//! The floor of the measurements: the kernel's own share of a pod's attachment.
//!
//! The program makes the same objects as the plugins, by the same requests, without a configuration, a file or a look
//! at anything; what a plugin takes longer is its own. It is the judge's, and a package by itself so that it starts as
//! fast as a plugin can: it must never depend on what it is measured with, nor on what is judged.
//!
//! Start at [`run`]. [`rtnl`] is shared with the measurements that listen to the kernel or have a floor of their own.

mod pod;
pub mod rtnl;

pub use pod::{BRIDGE, GATEWAY, MTU, run};
