//! What a lease announces of its node's device.

use flannel_types::{Lease, VxlanData, WireguardData};
use net_types::{MacAddr, WgPublicKey};

/// The MAC address that a lease announces in one family.
pub(super) fn vtep_mac(lease: &Lease, of_ipv6: bool) -> Option<MacAddr> {
    let data = backend_data(lease, of_ipv6)?;
    VxlanData::parse(data).ok().map(|data| data.vtep_mac)
}

/// The public key that a lease announces in one family.
pub(super) fn public_key(lease: &Lease, of_ipv6: bool) -> Option<WgPublicKey> {
    let data = backend_data(lease, of_ipv6)?;
    WireguardData::parse(data).ok().map(|data| data.public_key)
}

fn backend_data(lease: &Lease, of_ipv6: bool) -> Option<&str> {
    let attrs = &lease.attrs;
    let data = if of_ipv6 {
        &attrs.backend_v6_data
    } else {
        &attrs.backend_data
    };
    data.as_deref()
}
