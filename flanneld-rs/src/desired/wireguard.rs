//! The WireGuard backend (flannel `pkg/backend/wireguard`): a device with a key of its own, one peer a lease, and one
//! route for the whole pod network, so that packets to pods whose peer is not known never leave in the clear.
//!
//! Each family has a device, or both share one (`Mode`). The kernel moves a peer's endpoint by itself when it hears the
//! peer from elsewhere; what that means for reconciling is in [`crate::reconciler`].

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use flannel_types::{LeaseAttrs, WireguardData};
use ipnetwork::{IpNetwork, Ipv6Network};
use net_types::registry::RTPROT_BOOT;
use net_types::{IfName, WgPublicKey, WgSecret};
use netstate::{AdminState, Link, LinkKind, LinkScope, Nexthop, Scope, State, WgPeer, WgPeerKey, Wireguard};

use super::{Peer, PeerProblem, Side, add_own_addr, route};

#[cfg(test)]
mod tests;

/// A WireGuard device of this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireguardDevice {
    /// Its name.
    pub name: IfName,
    /// Its private key, which no other node has.
    pub private_key: WgSecret,
    /// The public key that belongs to it, as the lease announces it to the peers.
    pub public_key: WgPublicKey,
    /// The UDP port that it listens on.
    pub listen_port: u16,
    /// The secret that all nodes mix into their handshakes, if there is one.
    pub preshared_key: Option<WgSecret>,
    /// How often something is sent even if there is nothing to send, in seconds; 0 for never.
    pub keepalive_secs: u16,
    /// Which of a peer's addresses packets are sent to.
    pub underlay: Underlay,
    /// Its own MTU in bytes, the outer headers already subtracted.
    pub mtu_bytes: u32,
}

/// Which of a peer's addresses packets are sent to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Underlay {
    /// The one of IPv4.
    Ipv4,
    /// The one of IPv6.
    Ipv6,
    /// IPv4's if it has one.
    PreferIpv4,
    /// IPv4's if it has one, unless that is private and IPv6's is not (flannel `selectMode`). For nodes whose own
    /// address of IPv6 is not private.
    PreferPublic,
}

/// Where a peer's WireGuard device is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WireguardEnd {
    /// Its public key.
    pub public_key: WgPublicKey,
    /// Where its lease says that it listens.
    pub endpoint: SocketAddr,
}

/// Adds the device with its address, as VXLAN's has it, and the route to all pods.
pub(super) fn add_device(state: &mut State, side: &Side, device: &WireguardDevice) {
    let link = Link {
        kind: LinkKind::Wireguard,
        mac: None,
        mtu_bytes: Some(device.mtu_bytes),
        admin: AdminState::Up,
        port: None,
    };
    state.links.insert(device.name.clone(), link);
    let settings = Wireguard {
        private_key: Some(device.private_key.clone()),
        listen_port: device.listen_port,
    };
    state.wireguard.insert(device.name.clone(), settings);
    add_own_addr(state, side, &device.name);
    let hop = Nexthop {
        link: device.name.clone(),
        gateway: None,
        onlink: false,
    };
    let (key, route) = route(side.network, hop, RTPROT_BOOT);
    state.routes.insert(key, route);
}

/// Adds one peer. One that is in both families of a shared device has the subnets of both.
pub(super) fn add_peer(state: &mut State, device: &WireguardDevice, subnet: IpNetwork, peer: &Peer) {
    // Without one the lease is refused.
    let Some(end) = peer.wireguard else { return };
    let key = WgPeerKey {
        link: device.name.clone(),
        public_key: end.public_key,
    };
    let wanted = WgPeer {
        preshared_key: device.preshared_key.clone(),
        endpoint: Some(end.endpoint),
        keepalive_secs: device.keepalive_secs,
        allowed_ips: [subnet].into(),
        answers: false,
    };
    state.wg_peers.insert(key, wanted);
}

/// Takes a further part of what the kernel should hold. A WireGuard peer that several parts name has the subnets of all.
pub fn join(state: &mut State, mut part: State) {
    for (key, peer) in &mut part.wg_peers {
        let present = state.wg_peers.get(key);
        peer.allowed_ips
            .extend(present.into_iter().flat_map(|present| &present.allowed_ips));
    }
    state.absorb(part);
}

/// On the device everything is ours, but for addresses outside the pod network; of IPv6 every address is that the kernel
/// did not make.
pub(super) fn add_scope(scope: &mut Scope, side: &Side, device: &WireguardDevice) {
    let any_v6 = Ipv6Network::new(Ipv6Addr::UNSPECIFIED, 0).map(IpNetwork::V6);
    let link = scope
        .links
        .entry(device.name.clone())
        .or_insert_with(|| LinkScope {
            addrs_inside: any_v6.into_iter().collect(),
            wireguard: true,
            routes: true,
            ..LinkScope::default()
        });
    link.addrs_inside.push(side.network);
}

/// What a lease of this backend says of its device, for one family.
///
/// # Errors
/// It says too little, or something that cannot be read.
pub(super) fn end(
    device: &WireguardDevice,
    side: &Side,
    attrs: &LeaseAttrs,
) -> Result<WireguardEnd, PeerProblem> {
    let data = data_of(attrs, side.is_ipv6())?.ok_or_else(|| {
        let family = family(side.is_ipv6());
        PeerProblem::BadBackendData(format!("it has none for {family}"))
    })?;
    let over_ipv6 = over_ipv6(device.underlay, attrs);
    let address = if over_ipv6 {
        attrs.public_ipv6.map(IpAddr::V6)
    } else {
        attrs.public_ip.map(IpAddr::V4)
    };
    let address = address.ok_or(PeerProblem::NoPublicIp(family(over_ipv6)))?;
    // Each family's data has the port of that family's device.
    let of_address = if over_ipv6 == side.is_ipv6() {
        Some(data)
    } else {
        data_of(attrs, over_ipv6)?
    };
    let port = of_address
        .and_then(|data| data.port)
        .or(data.port)
        .unwrap_or(device.listen_port);
    Ok(WireguardEnd {
        public_key: data.public_key,
        endpoint: SocketAddr::new(address, port),
    })
}

fn over_ipv6(underlay: Underlay, attrs: &LeaseAttrs) -> bool {
    match (underlay, attrs.public_ip, attrs.public_ipv6) {
        (Underlay::Ipv4, ..) | (Underlay::PreferIpv4 | Underlay::PreferPublic, _, None) => false,
        (Underlay::Ipv6, ..) | (Underlay::PreferIpv4 | Underlay::PreferPublic, None, Some(_)) => true,
        (Underlay::PreferIpv4, Some(_), Some(_)) => false,
        (Underlay::PreferPublic, Some(v4), Some(v6)) => v4.is_private() && !v6.is_unique_local(),
    }
}

fn data_of(attrs: &LeaseAttrs, of_ipv6: bool) -> Result<Option<WireguardData>, PeerProblem> {
    let text = if of_ipv6 {
        &attrs.backend_v6_data
    } else {
        &attrs.backend_data
    };
    let data = text.as_deref().map(WireguardData::parse).transpose();
    data.map_err(|err| PeerProblem::BadBackendData(err.to_string()))
}

const fn family(is_ipv6: bool) -> &'static str {
    if is_ipv6 { "IPv6" } else { "IPv4" }
}
