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

/// Route protocol of our routes that no device of ours marks as such. It is not in iproute2's `rt_protos` nor in FRR's
/// list; daemons that remove routes at their start go by their own numbers.
pub const RTPROT_FLANNEL: u8 = 102;

/// Metric of the route that drops what no pod of the own subnet takes: behind the bridge's own route to that subnet, 0 in
/// IPv4 and 256 in IPv6, and beside upstream's route of the same kind, 0 and 1024.
pub const BLACKHOLE_METRIC: u32 = 4096;

/// The main routing table (`RT_TABLE_MAIN`); the only one that we write.
pub const RT_TABLE_MAIN: u32 = 254;

/// Device of the IPv4 overlay for a VNI (flannel `pkg/backend/vxlan/vxlan.go`); the VNI follows the dot.
pub const VXLAN_DEVICE_PREFIX: &str = "flannel.";

/// Device of the IPv6 overlay for a VNI; the VNI follows the dot.
pub const VXLAN_V6_DEVICE_PREFIX: &str = "flannel-v6.";

/// WireGuard device of IPv4's overlay, and of both families' where they share one (flannel
/// `pkg/backend/wireguard/wireguard.go`).
pub const WIREGUARD_DEVICE: &str = "flannel-wg";

/// WireGuard device of IPv6's overlay.
pub const WIREGUARD_V6_DEVICE: &str = "flannel-wg-v6";

/// Device of the tunnels of IP in IP (flannel `pkg/backend/ipip/ipip.go`).
pub const IPIP_DEVICE: &str = "flannel.ipip";

/// Table of nf_tables for flannel's IPv4 rules (flannel `pkg/trafficmngr/nftables`).
pub const NFT_TABLE_V4: &str = "flannel-ipv4";

/// Table of nf_tables for flannel's IPv6 rules.
pub const NFT_TABLE_V6: &str = "flannel-ipv6";

/// Chain with flannel's masquerading rules in iptables' table `nat` (flannel `pkg/trafficmngr/iptables`).
pub const IPTABLES_POSTROUTING_CHAIN: &str = "FLANNEL-POSTRTG";

/// Chain with flannel's forwarding rules in iptables' table `filter`.
pub const IPTABLES_FORWARD_CHAIN: &str = "FLANNEL-FWD";

/// Mark of packets that kube-proxy masquerades (kubernetes `pkg/proxy`, `masqueradeMark`); only read, by this bit.
pub const KUBE_MASQUERADE_MARK: u32 = 0x4000;

/// Bit of the mark by which portmap tells packets that are to be masqueraded, unless the configuration names another
/// (containernetworking/plugins `plugins/meta/portmap/main.go`, `DefaultMarkBit`).
pub const PORTMAP_MARK_BIT: u32 = 13;

/// Table of portmap's rules in nf_tables, of family `ip` and `ip6` (`portmap_nftables.go`).
pub const PORTMAP_NFT_TABLE: &str = "cni_hostport";

/// Chains that portmap's containers share in iptables' table `nat` (`portmap_iptables.go`): where packets for ports of
/// the host come to, where they are marked, and where marked ones are masqueraded.
pub const PORTMAP_DNAT_CHAIN: &str = "CNI-HOSTPORT-DNAT";
/// See [`PORTMAP_DNAT_CHAIN`].
pub const PORTMAP_SETMARK_CHAIN: &str = "CNI-HOSTPORT-SETMARK";
/// See [`PORTMAP_DNAT_CHAIN`].
pub const PORTMAP_MASQ_CHAIN: &str = "CNI-HOSTPORT-MASQ";

/// Priority of destination translation (linux `NF_IP_PRI_NAT_DST`; nft's `dstnat`).
pub const NF_PRIORITY_DSTNAT: i32 = -100;

/// Priority of source translation (linux `NF_IP_PRI_NAT_SRC`; nft's `srcnat`).
pub const NF_PRIORITY_SRCNAT: i32 = 100;

/// Priority of filtering (linux `NF_IP_PRI_FILTER`; nft's `filter`).
pub const NF_PRIORITY_FILTER: i32 = 0;
