//! The numbers and names in shared kernel tables that we use or must avoid, each with its source.
//!
//! Marks, route protocols, table names and chain names have no owner in the kernel: whoever writes them must know
//! who else does. A constant that another project owns says so and is only ever read or avoided.

/// UDP port of flannel's VXLAN when net-conf gives `Port` 0: the kernel's own default, not IANA's 4789 (linux
/// `drivers/net/vxlan/vxlan_core.c`, `vxlan_port`).
pub const VXLAN_PORT: u16 = 8472;

/// Route protocol of routes that the kernel makes (linux `include/uapi/linux/rtnetlink.h`, `RTPROT_KERNEL`); ours
/// never, and never touched.
pub const RTPROT_KERNEL: u8 = 2;

/// Route protocol that flannel's routes carry because it sets none (`RTPROT_BOOT`); used on VXLAN devices, where the
/// device itself marks the routes as ours.
pub const RTPROT_BOOT: u8 = 3;

/// The main routing table (`RT_TABLE_MAIN`); the only one that we write.
pub const RT_TABLE_MAIN: u32 = 254;

/// Device of the IPv4 overlay for a VNI (flannel `pkg/backend/vxlan/vxlan.go`); the VNI follows the dot.
pub const VXLAN_DEVICE_PREFIX: &str = "flannel.";
