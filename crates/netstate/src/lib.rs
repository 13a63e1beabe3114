//! Kernel networking as plain data: what is there, what should be there, and the ordered steps between.
//!
//! [`State`] describes links, addresses, routes, neighbours, forwarding entries and sysctls of **one network
//! namespace** in ordered maps keyed as the kernel keys them. A desired state and an observed state are of the same
//! type: [`plan`] compares them within a [`Scope`] (what is ours) and returns the [`Op`]s that turn one into the
//! other. A [`Kernel`] observes and applies; the real one is the crate `netlink`, the one in memory `fake-kernel`.
//!
//! This crate never does I/O, knows neither flannel nor CNI, and depends only on `net-types`.
//!
//! Start at [`State`], then [`plan`].

pub mod iptables;
mod kernel;
mod link;
pub mod nft;
mod objects;
mod op;
mod plan;
mod scope;
mod spot;
mod state;
mod text;
mod wireguard;

pub use kernel::{ErrorClass, Kernel, KernelError};
pub use link::{AdminState, BridgePort, Ipip, Link, LinkKind, NetnsLabel, VethPeer, Vxlan};
pub use objects::{Addr, AddrKey, FdbKey, Neigh, NeighKey, Nexthop, Route, RouteKey, RouteKind, SysctlKey};
pub use op::{IptablesChange, LinkChange, ObjectKey, Op};
pub use plan::{Prune, plan};
pub use scope::{LinkScope, MarkedRoutes, Scope};
pub use spot::Spot;
pub use state::State;
pub use text::TextError;
pub use wireguard::{WgPeer, WgPeerKey, Wireguard};
