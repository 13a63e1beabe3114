//! What another backend, the same with other settings, or a family that was switched off left on this node.

use std::collections::BTreeSet;

use ipnetwork::IpNetwork;
use net_types::registry::{
    IPIP_DEVICE, VXLAN_DEVICE_PREFIX, VXLAN_V6_DEVICE_PREFIX, WIREGUARD_DEVICE, WIREGUARD_V6_DEVICE,
};
use net_types::{IfName, Vni};
use netstate::{LinkKind, LinkScope, Scope, State};

/// The network identifier in the name of a device of the VXLAN backend.
#[must_use]
pub fn vni_in(name: &IfName) -> Option<Vni> {
    let name = name.as_str();
    let number = name
        .strip_prefix(VXLAN_V6_DEVICE_PREFIX)
        .or_else(|| name.strip_prefix(VXLAN_DEVICE_PREFIX))?;
    let canonical = number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0');
    let number: u32 = number.parse().ok().filter(|_| canonical)?;
    Vni::try_from(number).ok()
}

/// Whether a device of the WireGuard backend has this name.
#[must_use]
pub fn is_wireguard_device(name: &IfName) -> bool {
    [WIREGUARD_DEVICE, WIREGUARD_V6_DEVICE].contains(&name.as_str())
}

/// Whether the device of the backend of IP in IP has this name.
#[must_use]
pub fn is_ipip_device(name: &IfName) -> bool {
    name.as_str() == IPIP_DEVICE
}

/// Whether a device of some backend has this name.
#[must_use]
pub fn is_former_device(name: &IfName) -> bool {
    vni_in(name).is_some() || is_wireguard_device(name) || is_ipip_device(name)
}

/// What a former life of this node left, until it is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Left {
    /// Devices.
    pub devices: BTreeSet<IfName>,
    /// Pod networks of families that are off, inside which routes with our mark are.
    pub networks: Vec<IpNetwork>,
}

/// The devices of a former life of this node: they have such a name, are of the kind and have the network identifier that
/// it tells, and an address of a pod network. A device of another daemon on this host, which has another pod network, is not.
#[must_use]
pub fn leftovers<'a>(
    state: &State,
    networks: &[IpNetwork],
    own: impl IntoIterator<Item = &'a IfName>,
) -> BTreeSet<IfName> {
    let own: BTreeSet<_> = own.into_iter().collect();
    let is_as_named = |name: &IfName| match state.links.get(name).map(|link| &link.kind) {
        Some(LinkKind::Vxlan(vxlan)) => Some(vxlan.vni) == vni_in(name),
        Some(LinkKind::Wireguard) => is_wireguard_device(name),
        Some(LinkKind::Ipip(_)) => is_ipip_device(name),
        Some(LinkKind::Bridge | LinkKind::Veth(_) | LinkKind::Other(_)) | None => false,
    };
    let inside = |ip| networks.iter().any(|network| network.contains(ip));
    let holders = state.addrs.keys().filter(|key| inside(key.addr.ip()));
    let names = holders.map(|key| &key.link);
    names
        .filter(|name| is_as_named(name) && !own.contains(name))
        .cloned()
        .collect()
}

/// Takes what was left into a scope. The devices' addresses are not: without them the kernel would drop the routes before
/// there are others.
pub(super) fn add_scope(scope: &mut Scope, left: &Left) {
    if let Some(marked) = &mut scope.marked {
        marked.inside.extend(&left.networks);
    }
    let routes_only = LinkScope {
        routes: true,
        ..LinkScope::default()
    };
    scope.links.extend(
        left.devices
            .iter()
            .map(|name| (name.clone(), routes_only.clone())),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_device_of_its_name_with_an_address_of_the_pod_network_is_left_over() {
        let state: State = "link flannel.1 vxlan vni 1 port 8472 nolearning up
             link flannel.2 vxlan vni 2 port 8472 nolearning up
             link flannel.3 vxlan vni 4 port 8472 nolearning up
             link flannel.5 bridge up
             link flannel-v6.1 vxlan vni 1 port 8472 nolearning up
             link flannel.7 vxlan vni 7 port 8472 nolearning up
             link flannel.8 wireguard up
             link flannel-wg wireguard up
             link flannel-wg-v6 bridge up
             link flannel.ipip ipip local 192.168.77.1 up
             link tunl0 ipip up
             addr flannel.1 10.244.5.0/32
             addr flannel.2 10.9.5.0/32
             addr flannel.3 10.244.5.0/32
             addr flannel.5 10.244.5.0/32
             addr flannel-v6.1 fd00:10:244:5::/128
             addr flannel.7 10.244.5.0/32
             addr flannel.8 10.244.5.0/32
             addr flannel-wg 10.244.5.0/32
             addr flannel-wg-v6 10.244.5.0/32
             addr flannel.ipip 10.244.5.0/32
             addr tunl0 10.244.5.0/32"
            .parse()
            .unwrap();
        let networks = ["10.244.0.0/16", "fd00:10:244::/48"].map(|net| net.parse().unwrap());
        let own = "flannel.7".parse().unwrap();
        let found = leftovers(&state, &networks, [&own]);
        let found: Vec<_> = found.iter().map(IfName::as_str).collect();
        assert_eq!(found, ["flannel-v6.1", "flannel-wg", "flannel.1", "flannel.ipip"]);
    }
}
