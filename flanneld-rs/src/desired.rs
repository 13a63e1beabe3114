//! What the kernel of this node should hold: a pure function of this node's part of the overlay and its peers.
//!
//! Each family is by itself: a [`Side`] with the peers that can be reached in this family. What happens to a peer's
//! IPv6 never touches its IPv4, and the reverse.

use std::collections::BTreeMap;
use std::net::IpAddr;

use flannel_types::{EXTENSION_TYPE, HOST_GW_TYPE, IPIP_TYPE, VXLAN_TYPE, WIREGUARD_TYPE};
use ipnetwork::IpNetwork;
use net_types::registry::{RT_TABLE_MAIN, RTPROT_FLANNEL};
use net_types::{IfName, SubnetKey};
use netstate::{Addr, AddrKey, LinkScope, MarkedRoutes, Nexthop, Route, RouteKey, RouteKind, Scope, State};

pub use ipip::IpipDevice;
pub use leftovers::{Left, is_former_device, is_ipip_device, is_wireguard_device, leftovers, vni_in};
pub use own_subnets::blackholes;
pub use peers::{DeviceId, MAX_DATA_BYTES, Peer, PeerChanges, PeerProblem, Peers, is_usable_public_ip};
pub use rules::{FilterMode, Masquerade, Network, RuleSettings, rules, rules_scope, rules_scope_of};
pub use vxlan::VxlanDevice;
pub use wireguard::{Underlay, WireguardDevice, WireguardEnd, join};

mod host_gw;
mod ipip;
mod leftovers;
mod own_subnets;
mod peers;
mod rules;
mod vxlan;
mod wireguard;

/// This node's part of the overlay in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// The whole pod network.
    pub network: IpNetwork,
    /// The subnet of this node.
    pub subnet: IpNetwork,
    /// Outer source address, one that this node holds.
    pub local: IpAddr,
    /// The address at which the peers reach this node, as its lease announces it.
    pub public_ip: IpAddr,
    /// What carries the packets.
    pub carrier: Carrier,
}

/// What carries packets to the peers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Carrier {
    /// VXLAN tunnels.
    Vxlan(VxlanDevice),
    /// The network that the nodes share, through this interface.
    HostGw(IfName),
    /// WireGuard tunnels.
    Wireguard(WireguardDevice),
    /// Tunnels of IP in IP.
    Ipip(IpipDevice),
    /// Nothing of ours: somebody else brings packets to the peers.
    Alloc,
    /// What the administrator's commands make.
    Extension,
}

impl Carrier {
    /// What the leases of this backend name as its type.
    #[must_use]
    pub const fn backend_type(&self) -> &'static str {
        match self {
            Self::Vxlan(_) => VXLAN_TYPE,
            Self::HostGw(_) => HOST_GW_TYPE,
            Self::Wireguard(_) => WIREGUARD_TYPE,
            Self::Ipip(_) => IPIP_TYPE,
            Self::Alloc => "",
            Self::Extension => EXTENSION_TYPE,
        }
    }
}

impl Side {
    /// Its WireGuard device, if that is what carries the packets.
    #[must_use]
    pub const fn wireguard(&self) -> Option<&WireguardDevice> {
        match &self.carrier {
            Carrier::Wireguard(device) => Some(device),
            Carrier::Vxlan(_)
            | Carrier::HostGw(_)
            | Carrier::Ipip(_)
            | Carrier::Alloc
            | Carrier::Extension => None,
        }
    }

    /// Whether this is IPv6's side.
    #[must_use]
    pub fn is_ipv6(&self) -> bool {
        self.network.is_ipv6()
    }

    /// The subnet that a lease has in this family.
    #[must_use]
    pub fn subnet_of(&self, lease: SubnetKey) -> Option<IpNetwork> {
        lease.subnets().find(|subnet| subnet.is_ipv6() == self.is_ipv6())
    }
}

/// The way to a peer, where the backend leaves a choice: `DirectRouting` of VXLAN and ipip.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Way {
    /// The backend's own.
    Carrier,
    /// A plain route to the peer's address, which is on this link, as the host-gw backend has it.
    Direct(IfName),
}

/// Returns what the kernel should hold for one family; `way` tells the way to each peer.
#[must_use]
pub fn desired(side: &Side, peers: &BTreeMap<IpNetwork, Peer>, way: impl Fn(&Peer) -> Way) -> State {
    let mut state = State::default();
    match &side.carrier {
        Carrier::Vxlan(device) => vxlan::add_device(&mut state, side, device),
        Carrier::Wireguard(device) => wireguard::add_device(&mut state, side, device),
        Carrier::Ipip(device) => ipip::add_device(&mut state, side, device),
        Carrier::HostGw(_) | Carrier::Alloc | Carrier::Extension => {}
    }
    for (subnet, peer) in peers {
        add_peer(&mut state, side, *subnet, (peer, &way(peer)));
    }
    state
}

/// Returns what the kernel should hold for one peer alone.
#[must_use]
pub fn of_peer(side: &Side, subnet: IpNetwork, peer: &Peer, way: &Way) -> State {
    let mut state = State::default();
    add_peer(&mut state, side, subnet, (peer, way));
    state
}

fn add_peer(state: &mut State, side: &Side, subnet: IpNetwork, (peer, way): (&Peer, &Way)) {
    match (&side.carrier, way) {
        (Carrier::Vxlan(device), Way::Carrier) => vxlan::add_peer(state, device, subnet, peer),
        (Carrier::Ipip(device), Way::Carrier) => ipip::add_peer(state, device, subnet, peer),
        (Carrier::Vxlan(_) | Carrier::Ipip(_), Way::Direct(link))
        | (Carrier::HostGw(link), Way::Carrier | Way::Direct(_)) => {
            host_gw::add_peer(state, link, subnet, peer);
        }
        (Carrier::Wireguard(device), Way::Carrier | Way::Direct(_)) => {
            wireguard::add_peer(state, device, subnet, peer);
        }
        (Carrier::Alloc | Carrier::Extension, Way::Carrier | Way::Direct(_)) => {}
    }
}

/// Adds the address of a device: the subnet's first one, with the longest prefix, so that the kernel makes no route of its
/// own for the subnet. The address follows from the lease, which no other node has: nobody is asked whether it is free.
fn add_own_addr(state: &mut State, side: &Side, device: &IfName) {
    let key = AddrKey {
        link: device.clone(),
        addr: IpNetwork::from(side.subnet.network()),
    };
    let addr = Addr {
        nodad: side.is_ipv6(),
        ..Addr::default()
    };
    state.addrs.insert(key, addr);
}

/// The metric that the kernel gives an IPv6 route made without one (linux `IP6_RT_PRIO_USER`).
const IPV6_METRIC: u32 = 1024;

/// A route to the pods of a peer.
fn route(subnet: IpNetwork, hop: Nexthop, protocol: u8) -> (RouteKey, Route) {
    let key = RouteKey {
        table: RT_TABLE_MAIN,
        dst: subnet,
        metric: if subnet.is_ipv6() { IPV6_METRIC } else { 0 },
    };
    let route = Route {
        kind: RouteKind::Unicast(hop),
        protocol,
        source: None,
        mtu_bytes: None,
        advmss_bytes: None,
        scope: None,
    };
    (key, route)
}

/// Returns what is ours on this node in some families, beside what a former life left.
#[must_use]
pub fn scope<'a>(sides: impl IntoIterator<Item = &'a Side>) -> Scope {
    let mut scope = Scope::default();
    let mut inside = Vec::new();
    for side in sides {
        match &side.carrier {
            Carrier::Vxlan(device) => vxlan::add_scope(&mut scope, side, device),
            Carrier::Wireguard(device) => wireguard::add_scope(&mut scope, side, device),
            Carrier::Ipip(device) => ipip::add_scope(&mut scope, side, device),
            Carrier::HostGw(_) | Carrier::Alloc | Carrier::Extension => {}
        }
        inside.push(side.network);
    }
    scope.marked = Some(marked(inside));
    scope
}

/// The same with what a former life left.
#[must_use]
pub fn scope_with<'a>(sides: impl IntoIterator<Item = &'a Side>, left: &Left) -> Scope {
    let mut scope = scope(sides);
    leftovers::add_scope(&mut scope, left);
    scope
}

/// Our routes that no device of ours marks as such. Those outside the pod network may be another daemon's.
const fn marked(inside: Vec<IpNetwork>) -> MarkedRoutes {
    MarkedRoutes {
        protocol: RTPROT_FLANNEL,
        inside,
    }
}

/// What a node looks at before it knows more than its pod networks, its devices' names, and those of devices that it may
/// have had: the links, the routes through them, and those that our mark tells.
#[must_use]
pub fn first_look<'a>(
    networks: &[IpNetwork],
    devices: impl IntoIterator<Item = &'a IfName>,
    former: impl IntoIterator<Item = &'a IfName>,
) -> Scope {
    let routes_only = LinkScope {
        routes: true,
        ..LinkScope::default()
    };
    let addrs_only = LinkScope {
        addrs_inside: networks.to_vec(),
        ..LinkScope::default()
    };
    // Asking for WireGuard's peers loads its module: only where it is the backend.
    let own = |name: &IfName| LinkScope {
        wireguard: is_wireguard_device(name),
        ..routes_only.clone()
    };
    let devices = devices.into_iter().map(|name| (name.clone(), own(name)));
    let former = former.into_iter().map(|name| (name.clone(), addrs_only.clone()));
    Scope {
        links: former.chain(devices).collect(),
        marked: Some(marked(networks.to_vec())),
        ..Scope::default()
    }
}
