//! From configuration and host facts to what is fixed for the life of the daemon.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::Duration;

use flannel_types::{
    Backend, Extension, NetConf, NetConfError, PreviousSubnets, ValidNetConf, Vxlan, Wireguard,
};
use ipnetwork::IpNetwork;
use net_types::registry::{IPIP_DEVICE, VXLAN_DEVICE_PREFIX, VXLAN_PORT, VXLAN_V6_DEVICE_PREFIX};
use net_types::{IPV6_MIN_MTU_BYTES, IfName, IfNameError, MacAddr, WgKeyError, WgSecret};
use tracing::warn;

use crate::config::Config;
use crate::desired::{IpipDevice, RuleSettings};
use crate::iface_match::External;
use crate::node::{CarrierSettings, Settings, SideSettings, VxlanSettings};
use crate::wireguard_key::KeyFileError;

mod extension;
#[cfg(test)]
mod tests;
mod wireguard;

/// What a VXLAN packet adds over IPv4: Ethernet 14, IPv4 20, UDP 8, VXLAN 8 (RFC 7348 §5).
pub(crate) const OVERHEAD_BYTES: u32 = 50;
/// The same over IPv6, whose header has 40 bytes.
pub(crate) const IPV6_OVERHEAD_BYTES: u32 = 70;
/// What IP in IP adds: an IPv4 header (RFC 2003 §3).
pub(crate) const IPIP_OVERHEAD_BYTES: u32 = 20;
/// The smallest MTU that IPv4 allows (RFC 791 §3.2).
const MIN_MTU_BYTES: u32 = 68;

/// Why the daemon cannot run with this network configuration on this host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The configuration breaks a rule of Flannel's.
    #[error(transparent)]
    Invalid(#[from] NetConfError),
    /// It asks for the tunnel in user space.
    #[error(
        "Backend.Type \"udp\" in the network configuration is not built: its tunnel in user space was for kernels \
         without VXLAN, and needs a privileged process; use vxlan, or host-gw where all nodes share one link"
    )]
    UdpBackend,
    /// It asks for IPv6 in tunnels of IP in IP.
    #[error(
        "Backend.Type \"ipip\" in the network configuration is for IPv4 alone, as upstream's is: switch EnableIPv6 off, or \
         use vxlan, wireguard or host-gw"
    )]
    IpipIsIpv4Only,
    /// Peers would send to an address that is not this node's on the shared link.
    #[error(
        "the public IP {public_ip} differs from the address {local} of {link}, which is not supported by the host-gw \
         backend: leave out --public-ip, name the interface that has it with --iface, or use vxlan"
    )]
    PublicIpElsewhere {
        /// What peers are told.
        public_ip: IpAddr,
        /// What the interface has.
        local: IpAddr,
        /// The interface.
        link: IfName,
    },
    /// Nothing is left for pods after the outer headers.
    #[error(
        "the MTU {mtu_bytes} is too small: {tunnel} takes {overhead_bytes} bytes of it, and {least_bytes} must be left; \
         raise the MTU of {link}{}",
        if *.is_configured { " or in the network configuration" } else { "" }
    )]
    MtuTooSmall {
        /// What carries the packets.
        tunnel: &'static str,
        /// The MTU that the outer packets may have.
        mtu_bytes: u32,
        /// What the outer headers take.
        overhead_bytes: u32,
        /// What a family must have.
        least_bytes: u32,
        /// Whether the network configuration gives an MTU.
        is_configured: bool,
        /// The interface.
        link: IfName,
    },
    /// The interface lacks an address of a family that is on.
    #[error("{link} has no {family} address, which the network configuration needs")]
    NoAddress {
        /// The interface.
        link: IfName,
        /// The family.
        family: &'static str,
    },
    /// The device cannot be named.
    #[error("the device cannot be named")]
    DeviceName(#[source] IfNameError),
    /// Peers are to be reached by addresses of a family that this node has none of.
    #[error(
        "Backend.Mode {mode:?} in the network configuration needs an address of {family} on {link}, and Enable{family}: \
         choose the mode separate"
    )]
    NoUnderlay {
        /// The mode.
        mode: &'static str,
        /// The family.
        family: &'static str,
        /// The interface.
        link: IfName,
    },
    /// The secret that nodes share cannot be used. It is not shown.
    #[error("Backend.PSK in the network configuration cannot be used")]
    PresharedKey(#[source] WgKeyError),
    /// This node has no private key.
    #[error(transparent)]
    WireguardKey(#[from] KeyFileError),
}

/// What no other node has.
pub struct Identity<'a> {
    /// A MAC address for the device of each family, unless the stored lease or the device has one.
    pub random_macs: [MacAddr; 2],
    /// Has the private key of the WireGuard devices; called only if that is the backend.
    pub wireguard_key: &'a dyn Fn() -> Result<WgSecret, KeyFileError>,
}

/// Tells what no interface can make good, before one is waited for.
///
/// # Errors
/// The configuration is invalid, or asks for something that is not built.
pub fn check(conf: &NetConf) -> Result<(), SettingsError> {
    supported(&conf.validated()?).map(|_| ())
}

/// Puts together what the node needs.
///
/// # Errors
/// The configuration is invalid, asks for something that is not built, or does not fit the interface.
pub fn settings(
    config: &Config,
    conf: &NetConf,
    external: &External,
    identity: &Identity<'_>,
    (rules, rules_audit): (RuleSettings, Duration),
) -> Result<Settings, SettingsError> {
    let valid = conf.validated()?;
    let backend = supported(&valid)?;
    let mut sides = Vec::new();
    if let Some(pool) = valid.ipv4() {
        sides.push(side(IpNetwork::V4(pool.network()), backend, external, identity)?);
    }
    if let Some(pool) = valid.ipv6() {
        sides.push(side(IpNetwork::V6(pool.network()), backend, external, identity)?);
    }
    let mtus = sides.iter().map(|side| match &side.carrier {
        CarrierSettings::Vxlan(vxlan) => vxlan.mtu_bytes,
        CarrierSettings::Wireguard(device) => device.mtu_bytes,
        CarrierSettings::Ipip(device) => device.mtu_bytes,
        CarrierSettings::HostGw | CarrierSettings::Alloc | CarrierSettings::Extension => external.mtu_bytes,
    });
    Ok(Settings {
        // A pod has one MTU. Upstream takes IPv4's, and leaves IPv6 to find out that less gets through.
        pod_mtu_bytes: mtus.min().unwrap_or_default(),
        former_devices: Vec::new(),
        former_networks: Vec::new(),
        tx_checksum: None,
        direct_routing: backend.routes_directly(),
        sides,
        parent: external.link.clone(),
        conf: conf.clone(),
        renew_margin: config.lease_renew_margin,
        mass_loss_grace: config.mass_loss_grace,
        rules,
        rules_audit,
        blackhole: config.blackhole,
        is_on_trial: false,
        refused: None,
        extension: match backend {
            Supported::Extension(extension) => Some(extension::settings(extension)),
            Supported::Vxlan(_)
            | Supported::HostGw
            | Supported::Wireguard(_)
            | Supported::Ipip { .. }
            | Supported::Alloc => None,
        },
    })
}

/// The pod networks of the families that are off, as the subnet file of an earlier run, this configuration and one that
/// could not go on tell them.
#[must_use]
pub fn former_networks(
    conf: &NetConf,
    previous: &PreviousSubnets,
    refused: Option<&NetConf>,
) -> Vec<IpNetwork> {
    let v4 = [
        previous.network,
        conf.network,
        refused.and_then(|refused| refused.network),
    ];
    let v6 = [
        previous.ipv6_network,
        conf.ipv6_network,
        refused.and_then(|refused| refused.ipv6_network),
    ];
    let v4 = v4
        .into_iter()
        .flatten()
        .filter(|_| !conf.enable_ipv4)
        .map(IpNetwork::V4);
    let v6 = v6
        .into_iter()
        .flatten()
        .filter(|_| !conf.enable_ipv6)
        .map(IpNetwork::V6);
    let networks: BTreeSet<_> = v4.chain(v6).collect();
    networks.into_iter().collect()
}

/// What one family needs.
fn side(
    network: IpNetwork,
    backend: Supported<'_>,
    external: &External,
    identity: &Identity<'_>,
) -> Result<SideSettings, SettingsError> {
    let (ends, family) = if network.is_ipv6() {
        (external.v6, "IPv6")
    } else {
        (external.v4, "IPv4")
    };
    let link = || external.link.clone();
    let ends = ends.ok_or_else(|| SettingsError::NoAddress { link: link(), family })?;
    let carrier = match backend {
        Supported::Vxlan(vxlan) => {
            CarrierSettings::Vxlan(vxlan_settings(vxlan, external, network.is_ipv6(), identity)?)
        }
        Supported::Wireguard(conf) => {
            CarrierSettings::Wireguard(wireguard::device(conf, external, network.is_ipv6(), identity)?)
        }
        Supported::Ipip { .. } => CarrierSettings::Ipip(IpipDevice {
            name: IPIP_DEVICE.parse().map_err(SettingsError::DeviceName)?,
            mtu_bytes: inner_mtu_bytes(None, external, Tunnel::IPIP)?,
        }),
        Supported::Alloc => CarrierSettings::Alloc,
        Supported::Extension(_) => CarrierSettings::Extension,
        Supported::HostGw if ends.public_ip == ends.local => CarrierSettings::HostGw,
        Supported::HostGw => {
            return Err(SettingsError::PublicIpElsewhere {
                public_ip: ends.public_ip,
                local: ends.local,
                link: link(),
            });
        }
    };
    Ok(SideSettings {
        network,
        local: ends.local,
        public_ip: ends.public_ip,
        carrier,
    })
}

/// The device of one family. Its tunnel is of the same family, as upstream's is.
fn vxlan_settings(
    vxlan: &Vxlan,
    external: &External,
    is_ipv6: bool,
    identity: &Identity<'_>,
) -> Result<VxlanSettings, SettingsError> {
    let [mac_v4, mac_v6] = identity.random_macs;
    let (prefix, random_mac) = if is_ipv6 {
        (VXLAN_V6_DEVICE_PREFIX, mac_v6)
    } else {
        (VXLAN_DEVICE_PREFIX, mac_v4)
    };
    let mtu_bytes = inner_mtu_bytes(vxlan.mtu, external, Tunnel::vxlan(is_ipv6))?;
    let device = format!("{prefix}{}", vxlan.vni);
    Ok(VxlanSettings {
        device: device.parse().map_err(SettingsError::DeviceName)?,
        vni: vxlan.vni,
        port: if vxlan.port == 0 { VXLAN_PORT } else { vxlan.port },
        learning: vxlan.learning,
        gbp: vxlan.gbp,
        mtu_bytes,
        random_mac,
    })
}

/// What a tunnel does to the MTU.
#[derive(Debug, Clone, Copy)]
struct Tunnel {
    name: &'static str,
    /// What the outer headers take.
    overhead_bytes: u32,
    /// What the family inside must have.
    least_bytes: u32,
}

impl Tunnel {
    /// Of IPv4 in IPv4: the outer header alone.
    const IPIP: Self = Self {
        name: "IP in IP",
        overhead_bytes: IPIP_OVERHEAD_BYTES,
        least_bytes: MIN_MTU_BYTES,
    };

    /// Of one family, over the same one.
    const fn vxlan(is_ipv6: bool) -> Self {
        Self {
            name: "VXLAN",
            overhead_bytes: if is_ipv6 {
                IPV6_OVERHEAD_BYTES
            } else {
                OVERHEAD_BYTES
            },
            least_bytes: least_bytes(is_ipv6),
        }
    }

    /// What is left of what the outer packets may have: of what is configured, but no more than the interface carries. The
    /// kernel would lower the device's MTU by itself, and pods would be told another one.
    fn inner_bytes(self, configured: Option<u32>, carried: u32) -> Option<u32> {
        let outer_bytes = configured.map_or(carried, |configured| configured.min(carried));
        let inner_bytes = outer_bytes.checked_sub(self.overhead_bytes);
        inner_bytes.filter(|inner| *inner >= self.least_bytes)
    }
}

const fn least_bytes(is_ipv6: bool) -> u32 {
    if is_ipv6 {
        IPV6_MIN_MTU_BYTES
    } else {
        MIN_MTU_BYTES
    }
}

/// The MTU of packets in a tunnel.
fn inner_mtu_bytes(
    configured: Option<u32>,
    external: &External,
    tunnel: Tunnel,
) -> Result<u32, SettingsError> {
    let carried = external.mtu_bytes;
    if let Some(configured) = configured.filter(|configured| *configured > carried) {
        warn!(configured, carried, link = %external.link, "the configured MTU is larger than the interface's");
    }
    let inner = tunnel.inner_bytes(configured, carried);
    inner.ok_or_else(|| SettingsError::MtuTooSmall {
        tunnel: tunnel.name,
        mtu_bytes: configured.map_or(carried, |configured| configured.min(carried)),
        overhead_bytes: tunnel.overhead_bytes,
        least_bytes: tunnel.least_bytes,
        is_configured: configured.is_some(),
        link: external.link.clone(),
    })
}

/// The MTU of one family's packets over an interface that carries so much, as at a start with it; `None` if it leaves them
/// too little. Under 1280 bytes the kernel would take all IPv6 addresses from the device.
pub(crate) fn mtu_over(side: &SideSettings, backend: &Backend, carried_bytes: u32) -> Option<u32> {
    match (&side.carrier, backend) {
        (CarrierSettings::Vxlan(_), Backend::Vxlan(vxlan)) => {
            Tunnel::vxlan(side.is_ipv6()).inner_bytes(vxlan.mtu, carried_bytes)
        }
        (CarrierSettings::Wireguard(_), Backend::Wireguard(wireguard)) => {
            wireguard::tunnel(side.is_ipv6()).inner_bytes(wireguard.mtu, carried_bytes)
        }
        (CarrierSettings::Ipip(_), Backend::Ipip { .. }) => Tunnel::IPIP.inner_bytes(None, carried_bytes),
        _ => Some(carried_bytes).filter(|carried| *carried >= least_bytes(side.is_ipv6())),
    }
}

/// A backend that is built.
#[derive(Clone, Copy)]
enum Supported<'a> {
    Vxlan(&'a Vxlan),
    HostGw,
    Wireguard(&'a Wireguard),
    Ipip { direct_routing: bool },
    Alloc,
    Extension(&'a Extension),
}

impl Supported<'_> {
    /// Whether peers on a link of this host have plain routes.
    const fn routes_directly(self) -> bool {
        match self {
            Self::Vxlan(vxlan) => vxlan.direct_routing,
            Self::Ipip { direct_routing } => direct_routing,
            Self::HostGw | Self::Wireguard(_) | Self::Alloc | Self::Extension(_) => false,
        }
    }
}

fn supported(valid: &ValidNetConf) -> Result<Supported<'_>, SettingsError> {
    match valid.backend() {
        Backend::Vxlan(vxlan) => Ok(Supported::Vxlan(vxlan)),
        Backend::HostGw => Ok(Supported::HostGw),
        Backend::Alloc => Ok(Supported::Alloc),
        Backend::Udp { .. } => Err(SettingsError::UdpBackend),
        Backend::Wireguard(wireguard) => Ok(Supported::Wireguard(wireguard)),
        Backend::Extension(extension) => Ok(Supported::Extension(extension)),
        Backend::Ipip { .. } if valid.ipv6().is_some() => Err(SettingsError::IpipIsIpv4Only),
        Backend::Ipip { direct_routing } => Ok(Supported::Ipip {
            direct_routing: *direct_routing,
        }),
    }
}
