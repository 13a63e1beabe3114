//! Test support: a kernel in memory that behaves as measured, with faults, and a fabric of several such kernels.
//!
//! [`FakeKernel`] implements [`netstate::Kernel`] for one network namespace. It holds foreign objects as well as
//! ours, so that a test can check that they stay. [`Fabric`] walks a packet from node to node as the kernels would
//! forward it. Everything is deterministic and ordered. The feature `strategy` adds the generators for property tests.
//!
//! Where it differs from the real kernel within what we use, it is wrong: `netlink/tests/parity.rs` applies the same
//! random changes to both and compares answers and states after each. It never does I/O.
//!
//! # What it knows (measured on 6.18, see `netlink/tests/parity.rs`)
//! Link down flushes routes, neighbours and IPv6 addresses; the last IPv4 address takes routes and neighbours along;
//! setting a MAC flushes neighbours; deleting a parent deletes its VXLAN devices; a second VXLAN device of equal VNI
//! and port is refused; a route replaces that of equal destination and metric, across links; deleting a forwarding
//! entry with another remote address is acknowledged without effect.
//!
//! # What it leaves out
//! Carrier state, traffic (nothing is learned by itself), duplicate address detection, link-local addresses, routes
//! of tables other than those written, forwarding entries of anything but VXLAN devices, and next-hop groups.

mod addrs;
mod fabric;
mod faults;
mod kernel;
mod links;
mod namespace;
mod neighs;
mod refusal;
mod routes;
#[cfg(feature = "strategy")]
pub mod strategy;
mod sysctls;

pub use fabric::{Delivery, DropReason, Fabric};
pub use faults::Counters;
pub use kernel::FakeKernel;
