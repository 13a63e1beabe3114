//! Network names and numbers that every part of the pod network shares, and the way they all tell an error.
//!
//! Both programs, the pure core and the kernel edge speak of links, MAC addresses, VNIs and subnet leases; this
//! crate gives each of these one validated type, so that two of them cannot be confused. It holds plain data only:
//! it never does I/O, and depends on nothing else of the workspace.
//!
//! Start at [`IfName`] and [`SubnetKey`]; [`registry`] lists the marks, chain names and route protocols that we use
//! or must avoid.

mod counted;
mod ifname;
mod mac;
pub mod registry;
mod sentence;
mod subnet_key;
mod vni;
mod wireguard_key;

pub use counted::counted;
pub use ifname::{IfIndex, IfName, IfNameError};
pub use mac::{MacAddr, MacAddrError};
pub use sentence::sentence;
pub use subnet_key::{SubnetKey, SubnetKeyError};
pub use vni::{Vni, VniError};
pub use wireguard_key::{WgKeyError, WgPublicKey, WgSecret};

/// The smallest MTU that IPv6 allows, in bytes (RFC 8200 §5); the kernel has no IPv6 on links with a smaller one.
pub const IPV6_MIN_MTU_BYTES: u32 = 1280;
