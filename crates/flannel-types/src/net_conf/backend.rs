use std::fmt;
use std::time::Duration;

use net_types::Vni;

use super::NetConfError;
use crate::go_json::{JsonError, Object};

/// The word for the backend of VXLAN tunnels, in the network configuration and in leases.
pub const VXLAN_TYPE: &str = "vxlan";
/// The same for plain routes.
pub const HOST_GW_TYPE: &str = "host-gw";
/// The same for WireGuard tunnels.
pub const WIREGUARD_TYPE: &str = "wireguard";
/// The word in the network configuration for a backend that only leases subnets; its leases have none.
pub const ALLOC_TYPE: &str = "alloc";
/// The word for the backend of the administrator's own commands, in the network configuration and in leases.
pub const EXTENSION_TYPE: &str = "extension";
/// The word for the backend of tunnels of IP in IP, in the network configuration and in leases, which have no data of it.
pub const IPIP_TYPE: &str = "ipip";
const UDP_TYPE: &str = "udp";

/// How packets travel between nodes, with the backend's own settings.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Backend {
    /// VXLAN tunnels (flannel `pkg/backend/vxlan`).
    Vxlan(Vxlan),
    /// Plain routes via the peers' addresses (flannel `pkg/backend/hostgw`).
    HostGw,
    /// WireGuard tunnels (flannel `pkg/backend/wireguard`).
    Wireguard(Wireguard),
    /// A tunnel in user space (flannel `pkg/backend/udp`).
    Udp {
        /// `Port`; 8285 unless given.
        port: u16,
    },
    /// IP-in-IP tunnels (flannel `pkg/backend/ipip`).
    Ipip {
        /// `DirectRouting`: plain routes to peers on the same link.
        direct_routing: bool,
    },
    /// Subnets are leased and nothing is programmed (flannel `pkg/backend/alloc`).
    Alloc,
    /// The administrator's own commands (flannel `pkg/backend/extension`).
    Extension(Extension),
}

/// Settings of the VXLAN backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Vxlan {
    /// `VNI`; 1 unless given.
    pub vni: Vni,
    /// `Port`; 0, unless given, leaves the choice to the kernel ([`net_types::registry::VXLAN_PORT`]).
    pub port: u16,
    /// `MTU` of the underlay in bytes; the external interface's own unless given.
    pub mtu: Option<u32>,
    /// `GBP`: the group policy extension.
    pub gbp: bool,
    /// `Learning`: the device learns peers' addresses from packets.
    pub learning: bool,
    /// `DirectRouting`: plain routes to peers on the same link.
    pub direct_routing: bool,
}

/// Settings of the WireGuard backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Wireguard {
    /// `ListenPort`; 51820 unless given.
    pub listen_port: u16,
    /// `ListenPortV6`; 51821 unless given.
    pub listen_port_v6: u16,
    /// `MTU` of the underlay in bytes; the external interface's own unless given.
    pub mtu: Option<u32>,
    /// `PSK`: the pre-shared key as written (base64).
    pub psk: Option<Secret>,
    /// `PersistentKeepaliveInterval`, whole seconds; `None` for 0, which switches it off.
    pub persistent_keepalive: Option<Duration>,
    /// `Mode`; separate unless given.
    pub mode: WireguardMode,
}

/// Which tunnel carries which address family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WireguardMode {
    /// One device for each family.
    Separate,
    /// One device; the underlay's family is chosen for each peer.
    Auto,
    /// One device over IPv4.
    Ipv4,
    /// One device over IPv6.
    Ipv6,
}

/// Settings of the extension backend: command lines, split at white space and run without a shell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extension {
    /// `PreStartupCommand`; its output becomes the lease's data.
    pub pre_startup: String,
    /// `PostStartupCommand`.
    pub post_startup: String,
    /// `SubnetAddCommand`.
    pub subnet_add: String,
    /// `SubnetRemoveCommand`.
    pub subnet_remove: String,
    /// `ShutdownCommand`, which some configurations have and the reference never runs.
    pub shutdown: String,
}

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret text.
    #[must_use]
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// The secret itself.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Default for Backend {
    /// VXLAN with its own defaults.
    fn default() -> Self {
        Self::Vxlan(Vxlan::default())
    }
}

impl Default for Vxlan {
    fn default() -> Self {
        Self {
            vni: Vni::DEFAULT,
            port: 0,
            mtu: None,
            gbp: false,
            learning: false,
            direct_routing: false,
        }
    }
}

impl Backend {
    /// The words for those that can be chosen.
    pub const TYPES: [&str; 6] = [
        VXLAN_TYPE,
        HOST_GW_TYPE,
        WIREGUARD_TYPE,
        IPIP_TYPE,
        ALLOC_TYPE,
        EXTENSION_TYPE,
    ];

    /// The backend's name, as net-conf's `Type` spells it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Vxlan(_) => VXLAN_TYPE,
            Self::HostGw => HOST_GW_TYPE,
            Self::Wireguard(_) => WIREGUARD_TYPE,
            Self::Udp { .. } => UDP_TYPE,
            Self::Ipip { .. } => IPIP_TYPE,
            Self::Alloc => ALLOC_TYPE,
            Self::Extension(_) => EXTENSION_TYPE,
        }
    }

    /// The `BackendType` of the node's own lease: the name, but empty for `udp` and `alloc`, as the reference writes
    /// it.
    #[must_use]
    pub const fn lease_type(&self) -> &'static str {
        match self {
            Self::Udp { .. } | Self::Alloc => "",
            Self::Vxlan(_) | Self::HostGw | Self::Wireguard(_) | Self::Ipip { .. } | Self::Extension(_) => {
                self.name()
            }
        }
    }

    pub(super) fn parse(text: &str) -> Result<Self, NetConfError> {
        let object = Object::parse("Backend", text)?;
        let name = object.string("Type")?.unwrap_or_default();
        Ok(match name.to_lowercase().as_str() {
            VXLAN_TYPE => Self::Vxlan(Vxlan::parse(&object)?),
            HOST_GW_TYPE => Self::HostGw,
            WIREGUARD_TYPE => Self::Wireguard(Wireguard::parse(&object)?),
            UDP_TYPE => Self::Udp {
                port: object.at_most("Port", u16::MAX)?.unwrap_or(8285),
            },
            IPIP_TYPE => Self::Ipip {
                direct_routing: object.boolean("DirectRouting")?.unwrap_or(false),
            },
            ALLOC_TYPE => Self::Alloc,
            EXTENSION_TYPE => Self::Extension(Extension::parse(&object)?),
            _ => return Err(NetConfError::UnknownBackend(name)),
        })
    }
}

impl Vxlan {
    fn parse(object: &Object<'_>) -> Result<Self, NetConfError> {
        let vni = object.at_most("VNI", u32::MAX)?.map(Vni::try_from).transpose()?;
        Ok(Self {
            vni: vni.unwrap_or(Vni::DEFAULT),
            port: object.at_most("Port", u16::MAX)?.unwrap_or(0),
            mtu: mtu(object)?,
            gbp: object.boolean("GBP")?.unwrap_or(false),
            learning: object.boolean("Learning")?.unwrap_or(false),
            direct_routing: object.boolean("DirectRouting")?.unwrap_or(false),
        })
    }
}

impl Wireguard {
    fn parse(object: &Object<'_>) -> Result<Self, NetConfError> {
        let keepalive_secs = object
            .at_most("PersistentKeepaliveInterval", u16::MAX)?
            .filter(|secs| *secs != 0);
        Ok(Self {
            listen_port: object.at_most("ListenPort", u16::MAX)?.unwrap_or(51820),
            listen_port_v6: object.at_most("ListenPortV6", u16::MAX)?.unwrap_or(51821),
            mtu: mtu(object)?,
            psk: object
                .string("PSK")?
                .filter(|psk| !psk.is_empty())
                .map(Secret::new),
            persistent_keepalive: keepalive_secs.map(|secs| Duration::from_secs(secs.into())),
            mode: match object.string("Mode")?.as_deref() {
                None | Some("separate") => WireguardMode::Separate,
                Some("auto") => WireguardMode::Auto,
                Some("ipv4") => WireguardMode::Ipv4,
                Some("ipv6") => WireguardMode::Ipv6,
                Some(_) => return Err(NetConfError::NoWireguardMode),
            },
        })
    }
}

impl Extension {
    fn parse(object: &Object<'_>) -> Result<Self, JsonError> {
        let command = |key| Ok(object.string(key)?.unwrap_or_default());
        Ok(Self {
            pre_startup: command("PreStartupCommand")?,
            post_startup: command("PostStartupCommand")?,
            subnet_add: command("SubnetAddCommand")?,
            subnet_remove: command("SubnetRemoveCommand")?,
            shutdown: command("ShutdownCommand")?,
        })
    }
}

fn mtu(object: &Object<'_>) -> Result<Option<u32>, JsonError> {
    Ok(object.at_most("MTU", u32::MAX)?.filter(|mtu| *mtu != 0))
}
