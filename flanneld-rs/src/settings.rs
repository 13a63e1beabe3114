//! From configuration and host facts to what is fixed for the life of the daemon.

use std::time::Duration;

use flannel_types::{Backend, NetConf, NetConfError, Vxlan};
use ipnetwork::IpNetwork;
use net_types::registry::{VXLAN_DEVICE_PREFIX, VXLAN_PORT, VXLAN_V6_DEVICE_PREFIX};
use net_types::{IfName, IfNameError, MacAddr};
use tracing::warn;

use crate::config::Config;
use crate::desired::RuleSettings;
use crate::iface_match::External;
use crate::node::{CarrierSettings, Settings, SideSettings, VxlanSettings};

#[cfg(test)]
mod tests;

/// What a VXLAN packet adds over IPv4: Ethernet 14, IPv4 20, UDP 8, VXLAN 8 (RFC 7348 §5).
pub(crate) const OVERHEAD_BYTES: u32 = 50;
/// The same over IPv6, whose header has 40 bytes.
pub(crate) const IPV6_OVERHEAD_BYTES: u32 = 70;
/// The smallest MTU that IPv4 allows (RFC 791 §3.2).
const MIN_MTU_BYTES: u32 = 68;
/// The smallest MTU that IPv6 allows (RFC 8200 §5).
const IPV6_MIN_MTU_BYTES: u32 = 1280;

/// Why the daemon cannot run with this network configuration on this host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The configuration breaks a rule of Flannel's.
    #[error(transparent)]
    Invalid(#[from] NetConfError),
    /// It asks for something that is not built.
    #[error("{what} in the network configuration is not supported yet: {way_out}")]
    NotSupported {
        /// The key with its value.
        what: String,
        /// What to do instead.
        way_out: &'static str,
    },
    /// Nothing is left for pods after the outer headers.
    #[error(
        "the MTU {mtu_bytes} is too small: VXLAN takes {overhead_bytes} bytes of it, and {least_bytes} must be left; \
         raise the MTU of {link} or in the network configuration"
    )]
    MtuTooSmall {
        /// The MTU that the outer packets may have.
        mtu_bytes: u32,
        /// What the outer headers take.
        overhead_bytes: u32,
        /// What a family must have.
        least_bytes: u32,
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
    #[error("the VXLAN device cannot be named")]
    DeviceName(#[source] IfNameError),
}

/// Puts together what the node needs; each family's device gets its own random MAC address.
///
/// # Errors
/// The configuration is invalid, asks for something that is not built, or does not fit the interface.
pub fn settings(
    config: &Config,
    conf: &NetConf,
    external: &External,
    random_macs: [MacAddr; 2],
    (rules, rules_audit): (RuleSettings, Duration),
) -> Result<Settings, SettingsError> {
    let valid = conf.validated()?;
    let vxlan = vxlan_of(valid.backend())?;
    let [mac_v4, mac_v6] = random_macs;
    let mut sides = Vec::new();
    if let Some(pool) = valid.ipv4() {
        sides.push(side(IpNetwork::V4(pool.network()), vxlan, external, mac_v4)?);
    }
    if let Some(pool) = valid.ipv6() {
        sides.push(side(IpNetwork::V6(pool.network()), vxlan, external, mac_v6)?);
    }
    let mtus = sides.iter().map(|side| {
        let CarrierSettings::Vxlan(vxlan) = &side.carrier;
        vxlan.mtu_bytes
    });
    Ok(Settings {
        // A pod has one MTU. Upstream takes IPv4's, and leaves IPv6 to find out that less gets through.
        pod_mtu_bytes: mtus.min().unwrap_or_default(),
        sides,
        parent: external.link.clone(),
        conf: conf.clone(),
        renew_margin: config.lease_renew_margin,
        mass_loss_grace: config.mass_loss_grace,
        rules,
        rules_audit,
        blackhole: config.blackhole,
    })
}

/// What one family needs. Its tunnel is of the same family, as upstream's is.
fn side(
    network: IpNetwork,
    vxlan: &Vxlan,
    external: &External,
    random_mac: MacAddr,
) -> Result<SideSettings, SettingsError> {
    let (ends, prefix, overhead_bytes, least_bytes, family) = if network.is_ipv6() {
        let prefix = VXLAN_V6_DEVICE_PREFIX;
        (
            external.v6,
            prefix,
            IPV6_OVERHEAD_BYTES,
            IPV6_MIN_MTU_BYTES,
            "IPv6",
        )
    } else {
        (
            external.v4,
            VXLAN_DEVICE_PREFIX,
            OVERHEAD_BYTES,
            MIN_MTU_BYTES,
            "IPv4",
        )
    };
    let link = || external.link.clone();
    let ends = ends.ok_or_else(|| SettingsError::NoAddress { link: link(), family })?;
    let outer_mtu_bytes = outer_mtu_bytes(vxlan, external);
    let mtu_bytes = outer_mtu_bytes
        .checked_sub(overhead_bytes)
        .filter(|mtu| *mtu >= least_bytes)
        .ok_or_else(|| SettingsError::MtuTooSmall {
            mtu_bytes: outer_mtu_bytes,
            overhead_bytes,
            least_bytes,
            link: link(),
        })?;
    let device = format!("{prefix}{}", vxlan.vni);
    Ok(SideSettings {
        network,
        local: ends.local,
        public_ip: ends.public_ip,
        carrier: CarrierSettings::Vxlan(VxlanSettings {
            device: device.parse().map_err(SettingsError::DeviceName)?,
            vni: vxlan.vni,
            port: if vxlan.port == 0 { VXLAN_PORT } else { vxlan.port },
            learning: vxlan.learning,
            gbp: vxlan.gbp,
            mtu_bytes,
            random_mac,
        }),
    })
}

/// The MTU of the outer packets: what is configured, but no more than the interface carries. The kernel would lower
/// the device's MTU by itself, and pods would be told another one.
fn outer_mtu_bytes(vxlan: &Vxlan, external: &External) -> u32 {
    let carried = external.mtu_bytes;
    match vxlan.mtu {
        Some(configured) if configured > carried => {
            warn!(configured, carried, link = %external.link, "the configured MTU is larger than the interface's");
            carried
        }
        configured => configured.unwrap_or(carried),
    }
}

fn vxlan_of(backend: &Backend) -> Result<&Vxlan, SettingsError> {
    let Backend::Vxlan(vxlan) = backend else {
        return Err(not_supported(
            format!("Backend.Type {:?}", backend.name()),
            "use vxlan",
        ));
    };
    if vxlan.direct_routing {
        return Err(not_supported(
            "Backend.DirectRouting".to_owned(),
            "set it to false: all peers are tunnelled",
        ));
    }
    Ok(vxlan)
}

const fn not_supported(what: String, way_out: &'static str) -> SettingsError {
    SettingsError::NotSupported { what, way_out }
}
