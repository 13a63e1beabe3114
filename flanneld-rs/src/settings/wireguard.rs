//! From the configuration of the WireGuard backend to the device of one family.

use std::net::IpAddr;

use flannel_types::{Secret, Wireguard, WireguardMode};
use net_types::WgSecret;
use net_types::registry::{WIREGUARD_DEVICE, WIREGUARD_V6_DEVICE};

use super::{Identity, SettingsError, Tunnel, inner_mtu_bytes, least_bytes};
use crate::desired::{Underlay, WireguardDevice};
use crate::iface_match::External;
use crate::wireguard_key::public_key;

/// What a packet of WireGuard adds over IPv6, and the most over IPv4: IPv6 40, UDP 8, WireGuard 32 (flannel
/// `pkg/backend/wireguard/wireguard_network.go`).
const OVERHEAD_BYTES: u32 = 80;

/// The device of one family; in other modes than `separate` it is the same one for both.
pub(super) fn device(
    wireguard: &Wireguard,
    external: &External,
    is_ipv6: bool,
    identity: &Identity<'_>,
) -> Result<WireguardDevice, SettingsError> {
    let underlay = underlay(wireguard.mode, external, is_ipv6)?;
    let is_second = is_ipv6 && wireguard.mode == WireguardMode::Separate;
    let (name, listen_port) = if is_second {
        (WIREGUARD_V6_DEVICE, wireguard.listen_port_v6)
    } else {
        (WIREGUARD_DEVICE, wireguard.listen_port)
    };
    let preshared_key = wireguard.psk.as_ref().map(preshared_key).transpose()?;
    let mtu_bytes = inner_mtu_bytes(wireguard.mtu, external, tunnel(is_ipv6))?;
    let keepalive_secs = wireguard.persistent_keepalive.map_or(0, |every| every.as_secs());
    // Last, because it may make one.
    let private_key = (identity.wireguard_key)()?;
    Ok(WireguardDevice {
        name: name.parse().map_err(SettingsError::DeviceName)?,
        public_key: public_key(&private_key),
        private_key,
        listen_port,
        preshared_key,
        keepalive_secs: u16::try_from(keepalive_secs).unwrap_or(u16::MAX),
        underlay,
        mtu_bytes,
    })
}

/// Of one family, over either.
pub(super) const fn tunnel(is_ipv6: bool) -> Tunnel {
    Tunnel {
        name: "WireGuard",
        overhead_bytes: OVERHEAD_BYTES,
        least_bytes: least_bytes(is_ipv6),
    }
}

fn preshared_key(psk: &Secret) -> Result<WgSecret, SettingsError> {
    psk.reveal().parse().map_err(SettingsError::PresharedKey)
}

/// By which addresses peers are reached. This node must have one of the same family itself.
fn underlay(mode: WireguardMode, external: &External, is_ipv6: bool) -> Result<Underlay, SettingsError> {
    let needs = |has: bool, underlay, mode, family| {
        let link = external.link.clone();
        let missing = SettingsError::NoUnderlay { mode, family, link };
        has.then_some(underlay).ok_or(missing)
    };
    let (has_v4, has_v6) = (external.v4.is_some(), external.v6.is_some());
    match mode {
        WireguardMode::Separate if is_ipv6 => Ok(Underlay::Ipv6),
        WireguardMode::Separate => Ok(Underlay::Ipv4),
        WireguardMode::Ipv4 => needs(has_v4, Underlay::Ipv4, "ipv4", "IPv4"),
        WireguardMode::Ipv6 => needs(has_v6, Underlay::Ipv6, "ipv6", "IPv6"),
        WireguardMode::Auto if !has_v6 => Ok(Underlay::Ipv4),
        WireguardMode::Auto if !has_v4 => Ok(Underlay::Ipv6),
        WireguardMode::Auto => {
            let is_public = |ip| matches!(ip, IpAddr::V6(ip) if !ip.is_unique_local());
            let reaches_public = external.v6.as_ref().is_some_and(|ends| is_public(ends.public_ip));
            Ok(if reaches_public {
                Underlay::PreferPublic
            } else {
                Underlay::PreferIpv4
            })
        }
    }
}
