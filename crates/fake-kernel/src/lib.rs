//! Test support: a kernel in memory that behaves as measured, with faults, and a fabric of several such kernels.
//!
//! [`FakeKernel`] implements [`netstate::Kernel`] for one network namespace. It holds foreign objects as well as
//! ours, so that a test can check that they stay. [`Fabric`] walks a packet from node to node as the kernels would
//! forward it. Everything is deterministic and ordered. The feature `strategy` adds the generators for property tests.
//!
//! Where it differs from the real kernel within what we use, it is wrong: `netlink/tests/fake_parity.rs` applies the
//! same random changes to both and compares answers and states after each. It never does I/O.
//!
//! # What it knows (measured on 6.18, see `netlink/tests/fake_parity.rs`)
//! | fact | consequence |
//! |---|---|
//! | A route via a link that is down is refused; neighbours and forwarding entries are accepted | up first |
//! | An onlink route needs no address on the link, but its gateway must be neither local nor broadcast | on any link |
//! | Link down flushes routes, neighbours and IPv6 addresses; up restores only connected routes | a flap means all anew |
//! | The local entry of an IPv4 address outlives link down | it stays valid as a source |
//! | The last IPv4 address takes the link's IPv4 routes and neighbours along, IPv6 keeps its own | add before remove |
//! | A primary IPv4 address takes its secondaries along (`promote_secondaries` is 0) | one address a subnet |
//! | A source address that no link holds any longer takes IPv4 routes along; IPv6 routes lose the source | |
//! | Setting a MAC flushes neighbours even if it is the same; setting an equal MTU is nothing at all | compare first |
//! | A new VXLAN device's MTU is lowered to what the parent carries; a higher one set later is refused | |
//! | Deleting the parent deletes its VXLAN devices; parent down does not | watch deletions |
//! | A second VXLAN device of equal VNI, port and family is refused; the family is for life | name the stranger |
//! | A route replaces the first of equal destination and metric, across links | gapless take-over |
//! | A route's deletion compares protocol, link and gateway; metric 0 means any metric, no gateway any gateway | give all |
//! | An IPv6 route without metric is stored with 1024; an IPv6 gateway out of reach is `EHOSTUNREACH` | |
//! | An IPv6 onlink gateway must not have a route by another link only, the default route aside | |
//! | Deleting a forwarding entry with another remote succeeds without effect; setting one replaces it | observe |
//! | A bridge has its ports' lowest MAC unless one was given, and lowest MTU unless another was set after creation | |
//! | A second tunnel of IP in IP with equal local address is refused; that of one can be changed (`ip_tunnel.c`) | |
//! | A link leaves its bridge before the next one is asked, which may refuse | |
//! | A link without IPv6 refuses IPv6 addresses and routes with `EACCES`, neighbours with `EINVAL` | |
//!
//! # What it leaves out
//! Carrier state, traffic (nothing is learned by itself), duplicate address detection, link-local addresses, routes
//! of tables other than those written, handshakes and roaming of WireGuard peers, a UDP port that is taken, forwarding entries of anything but VXLAN devices, and next-hop groups. It also
//! behaves as if `lo` were up: in a namespace that never had an IPv4 address the kernel refuses every onlink gateway.

mod addrs;
mod fabric;
mod faults;
mod ipip;
mod kernel;
mod links;
mod namespace;
mod neighs;
mod ports;
mod refusal;
mod routes;
mod rules;
#[cfg(feature = "strategy")]
pub mod strategy;
mod sysctls;
mod wireguard;

pub use fabric::{Delivery, DropReason, Fabric};
pub use faults::Counters;
pub use kernel::FakeKernel;
