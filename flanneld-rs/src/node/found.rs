//! What an earlier life of this node left on its host, as its first look finds it.

use std::collections::{BTreeMap, BTreeSet};

use flannel_types::Lease;
use ipnetwork::IpNetwork;
use net_types::registry::RTPROT_FLANNEL;
use net_types::{IfName, MacAddr, SubnetKey};
use netstate::{LinkKind, Route, RouteKey, State};

use super::{CarrierSettings, Settings, SideSettings, VxlanSettings, telling, vtep_mac};
use crate::desired::{self, Left};

/// What a node finds on its host at the start.
#[derive(Debug, Clone, Default)]
pub(super) struct Found {
    /// Of the devices that exist.
    pub(super) macs: BTreeMap<IfName, MacAddr>,
    /// Those of them that send from another address than this node's.
    pub(super) moved: BTreeSet<IfName>,
    /// In the first family that is on, of which every peer has one.
    pub(super) peer_subnets: BTreeSet<IpNetwork>,
    /// Whether the store knew this node.
    pub(super) was_member: bool,
    /// What goes with the first full snapshot.
    pub(super) left: Left,
}

impl Found {
    /// The MAC address that a device is to have and the lease to announce.
    pub(super) fn settle_mac(&self, vxlan: &VxlanSettings, stored: Option<&Lease>, is_ipv6: bool) -> MacAddr {
        let stored_mac = stored.and_then(|stored| vtep_mac(stored, is_ipv6));
        let stored_mac = stored_mac.filter(|mac| mac.is_unicast());
        // The lease of a former address still has the device's MAC, and the peers take no second one with it.
        let is_taken = stored.is_none() && self.moved.contains(&vxlan.device);
        let present = self.macs.get(&vxlan.device).copied().filter(|_| !is_taken);
        telling::compare_macs(&vxlan.device, present, stored_mac);
        present.or(stored_mac).unwrap_or(vxlan.random_mac)
    }
}

/// The MAC addresses of the devices that are there, and the subnets of the peers that they carry.
pub(super) fn found(state: &State, settings: &Settings) -> Found {
    let mac_of = |name: &IfName| {
        let vxlan = state
            .links
            .get(name)
            .filter(|link| matches!(link.kind, LinkKind::Vxlan(_)));
        vxlan
            .and_then(|link| link.mac)
            .filter(|mac| mac.is_unicast())
            .map(|mac| (name.clone(), mac))
    };
    let moved_device = |side: &SideSettings| {
        let local = state.links.get(side.device()?).and_then(|link| match &link.kind {
            LinkKind::Vxlan(vxlan) => vxlan.local,
            LinkKind::Bridge
            | LinkKind::Veth(_)
            | LinkKind::Wireguard
            | LinkKind::Ipip(_)
            | LinkKind::Other(_) => None,
        });
        let device = side.device()?.clone();
        local.is_some_and(|local| local != side.local).then_some(device)
    };
    let first = settings.sides.first();
    Found {
        macs: settings.devices().filter_map(mac_of).collect(),
        moved: settings.sides.iter().filter_map(moved_device).collect(),
        peer_subnets: first.map_or_else(BTreeSet::new, |side| {
            let mut subnets = peer_subnets(state, side);
            subnets.extend(commanded(settings, side));
            subnets
        }),
        was_member: false,
        left: Left {
            devices: desired::leftovers(state, &settings.all_networks(), settings.devices()),
            networks: settings.former_networks.clone(),
        },
    }
}

/// The subnets of peers for which commands have run, in one family.
fn commanded<'a>(settings: &'a Settings, side: &'a SideSettings) -> impl Iterator<Item = IpNetwork> + 'a {
    let ran = settings
        .extension
        .iter()
        .flat_map(|extension| extension.ran.keys());
    let subnets = ran.flat_map(SubnetKey::subnets);
    subnets.filter(|subnet| subnet.is_ipv6() == side.is_ipv6())
}

/// The subnets of peers that a kernel carries in one family.
fn peer_subnets(state: &State, side: &SideSettings) -> BTreeSet<IpNetwork> {
    // With `DirectRouting`, or by host-gw in an earlier life.
    let is_plain = |key: &RouteKey, route: &Route| {
        let is_marked = route.protocol == RTPROT_FLANNEL && route.kind.link().is_some();
        is_marked && side.is_ipv6() == key.dst.is_ipv6()
    };
    let is_peer_s = |key: &RouteKey, route: &Route| match &side.carrier {
        CarrierSettings::Vxlan(vxlan) => route.kind.link() == Some(&vxlan.device) || is_plain(key, route),
        CarrierSettings::HostGw | CarrierSettings::Alloc => {
            side.is_ipv6() == key.dst.is_ipv6() && route.kind.link().is_some()
        }
        CarrierSettings::Ipip(device) => route.kind.link() == Some(&device.name) || is_plain(key, route),
        // One route is for all of them.
        CarrierSettings::Wireguard(_) => false,
        // What its commands make is known from what was run.
        CarrierSettings::Extension => false,
    };
    let routes = state.routes.iter();
    let routed = routes
        .filter(|(key, route)| is_peer_s(key, route))
        .map(|(key, _)| key.dst);
    let tunnelled = state
        .wg_peers
        .iter()
        .filter(|(key, _)| side.device() == Some(&key.link));
    let allowed = tunnelled.flat_map(|(_, peer)| &peer.allowed_ips).copied();
    let own_family = allowed.filter(|subnet| subnet.is_ipv6() == side.is_ipv6());
    routed.chain(own_family).collect()
}
