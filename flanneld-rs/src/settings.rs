//! From configuration and host facts to what is fixed for the life of the daemon.

use std::time::Duration;

use flannel_types::{Backend, NetConf, NetConfError, Vxlan};
use net_types::registry::{VXLAN_DEVICE_PREFIX, VXLAN_PORT};
use net_types::{IfName, IfNameError, MacAddr};
use tracing::warn;

use crate::config::Config;
use crate::desired::RuleSettings;
use crate::iface_match::External;
use crate::node::Settings;

#[cfg(test)]
mod tests;

/// What a VXLAN packet adds in IPv4: Ethernet 14, IPv4 20, UDP 8, VXLAN 8 (RFC 7348 §5).
const ENCAP_OVERHEAD_BYTES: u32 = 50;
/// The smallest MTU that IPv4 allows (RFC 791 §3.2).
const MIN_MTU_BYTES: u32 = 68;

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
        "the MTU {mtu_bytes} is too small: VXLAN takes {ENCAP_OVERHEAD_BYTES} bytes of it; raise the MTU of {link} \
         or in the network configuration"
    )]
    MtuTooSmall {
        /// The MTU that the outer packets may have.
        mtu_bytes: u32,
        /// The interface.
        link: IfName,
    },
    /// The device cannot be named.
    #[error("the VXLAN device cannot be named")]
    DeviceName(#[source] IfNameError),
}

/// Puts together what the node needs.
///
/// # Errors
/// The configuration is invalid, asks for something that is not built, or does not fit the interface.
pub fn settings(
    config: &Config,
    conf: &NetConf,
    external: &External,
    random_mac: MacAddr,
    (rules, rules_audit): (RuleSettings, Duration),
) -> Result<Settings, SettingsError> {
    let valid = conf.validated()?;
    if valid.ipv6().is_some() {
        return Err(not_supported("EnableIPv6".to_owned(), "set it to false"));
    }
    let Some(pool) = valid.ipv4() else {
        return Err(not_supported("EnableIPv4 false".to_owned(), "set it to true"));
    };
    let vxlan = vxlan_of(valid.backend())?;
    let outer_mtu_bytes = outer_mtu_bytes(vxlan, external);
    let mtu_bytes = outer_mtu_bytes
        .checked_sub(ENCAP_OVERHEAD_BYTES)
        .filter(|mtu| *mtu >= MIN_MTU_BYTES);
    let too_small = || SettingsError::MtuTooSmall {
        mtu_bytes: outer_mtu_bytes,
        link: external.link.clone(),
    };
    Ok(Settings {
        device: format!("{VXLAN_DEVICE_PREFIX}{}", vxlan.vni)
            .parse()
            .map_err(SettingsError::DeviceName)?,
        vni: vxlan.vni,
        port: if vxlan.port == 0 { VXLAN_PORT } else { vxlan.port },
        learning: vxlan.learning,
        gbp: vxlan.gbp,
        mtu_bytes: mtu_bytes.ok_or_else(too_small)?,
        parent: external.link.clone(),
        local: external.local,
        public_ip: external.public_ip,
        network: pool.network(),
        conf: conf.clone(),
        random_mac,
        renew_margin: config.lease_renew_margin,
        mass_loss_grace: config.mass_loss_grace,
        rules,
        rules_audit,
        blackhole: config.blackhole,
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
