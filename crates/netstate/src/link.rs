use std::net::{IpAddr, Ipv4Addr};

use net_types::{IfName, MacAddr, Vni};

/// A network interface. In a desired state `None` means "any", in an observed one "the kernel has none".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// What the interface is, with the attributes of its kind.
    pub kind: LinkKind,
    /// Hardware address.
    pub mac: Option<MacAddr>,
    /// Largest payload in bytes.
    pub mtu_bytes: Option<u32>,
    /// Whether it is administratively up.
    pub admin: AdminState,
    /// The bridge that it is a port of, with the port's flags.
    pub port: Option<BridgePort>,
}

/// Whether an interface is administratively up (`IFF_UP`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdminState {
    /// Up.
    Up,
    /// Down.
    Down,
}

/// The kind of an interface, as `ip -d link` names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LinkKind {
    /// A VXLAN tunnel end point.
    Vxlan(Vxlan),
    /// A WireGuard device; what it is beside a link is in [`crate::Wireguard`].
    Wireguard,
    /// A tunnel end point of IP in IP that sends to any remote.
    Ipip(Ipip),
    /// An Ethernet bridge.
    Bridge,
    /// One end of a virtual Ethernet pair. The peer is needed to create it and is not observed.
    Veth(Option<VethPeer>),
    /// A kind that we never make; empty for physical devices.
    Other(String),
}

/// Attributes of a VXLAN device (linux `IFLA_VXLAN_*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vxlan {
    /// Network identifier. Fixed for the life of the device.
    pub vni: Vni,
    /// UDP destination port. Fixed for the life of the device.
    pub port: u16,
    /// Outer source address.
    pub local: Option<IpAddr>,
    /// The interface that carries the outer packets. Fixed for the life of the device; the device goes when it goes.
    pub parent: Option<IfName>,
    /// Whether it learns forwarding entries from traffic.
    pub learning: bool,
    /// Group-based policy extension. Fixed for the life of the device.
    pub gbp: bool,
    /// Whether checksums of what is sent may be left to the hardware, or to whoever must know them (ethtool's
    /// `tx-checksum-ip-generic`; `NETIF_F_HW_CSUM`). A new device leaves them. Observed only where
    /// [`crate::LinkScope::tx_checksum`] asks.
    pub tx_checksum: Option<bool>,
}

/// Attributes of a tunnel end point of IP in IP (linux `IFLA_IPTUN_*`). Its remote is the next hop of the route that leads
/// through it. One that is bound to a remote or a link, has an encapsulation, or does not carry IPv4 is [`LinkKind::Other`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ipip {
    /// Outer source address.
    pub local: Option<Ipv4Addr>,
}

/// The other end of a virtual Ethernet pair at its creation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VethPeer {
    /// Its name.
    pub name: IfName,
    /// Its hardware address; `None` lets the kernel choose.
    pub mac: Option<MacAddr>,
    /// The namespace it is made in; `None` is the one of this state.
    pub netns: Option<NetnsLabel>,
}

/// A name by which the executor knows another network namespace; a plan holds no file descriptor.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetnsLabel(pub String);

/// Membership in a bridge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BridgePort {
    /// The bridge.
    pub bridge: IfName,
    /// Whether a frame may leave through the port that it came in by (`IFLA_BRPORT_MODE`).
    pub hairpin: bool,
    /// Whether it exchanges frames with no other port that is isolated (`IFLA_BRPORT_ISOLATED`).
    pub isolated: bool,
}
