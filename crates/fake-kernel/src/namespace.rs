use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnetwork::IpNetwork;
use net_types::registry::RT_TABLE_MAIN;
use net_types::{IfName, MacAddr};
use netstate::{
    Addr, AddrKey, AdminState, FdbKey, Link, LinkKind, LinkScope, Neigh, NeighKey, NetnsLabel, Op, Route,
    RouteKey, Scope, State, SysctlKey,
};

use crate::FakeKernel;
use crate::refusal::{Answer, no_device};
use crate::rules::Rules;
use crate::wireguard::{self, HeldWireguard};

/// One network namespace: what the kernel holds and by which rules it changes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Namespace {
    pub(crate) links: BTreeMap<IfName, Device>,
    /// Routes of equal key in the kernel's order; only the kernel itself makes a second one.
    pub(crate) routes: BTreeMap<RouteKey, Vec<Route>>,
    pub(crate) sysctls: BTreeMap<SysctlKey, String>,
    pub(crate) rules: Rules,
    /// Further namespaces, which hold the other ends of veth pairs.
    pub(crate) pods: BTreeMap<NetnsLabel, FakeKernel>,
    pub(crate) macs_made: u32,
}

/// A link with everything that goes when it goes, but for routes and sysctls.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) link: Link,
    pub(crate) mac: MacAddr,
    pub(crate) mtu_bytes: u32,
    pub(crate) addrs: BTreeMap<IpNetwork, HeldAddr>,
    pub(crate) neighs: BTreeMap<IpAddr, HeldNeigh>,
    pub(crate) fdb: BTreeMap<MacAddr, Vec<IpAddr>>,
    pub(crate) wireguard: Option<HeldWireguard>,
    pub(crate) peer: Peer,
    /// Whether a bridge keeps its MAC whatever its ports have.
    pub(crate) mac_is_fixed: bool,
    /// Whether a bridge keeps its MTU whatever its ports have.
    pub(crate) mtu_is_fixed: bool,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct HeldAddr {
    pub(crate) addr: Addr,
    /// Whether an earlier IPv4 address of the same subnet holds the connected route.
    pub(crate) secondary: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct HeldNeigh {
    pub(crate) mac: MacAddr,
    pub(crate) permanent: bool,
}

/// Where the other end of a veth pair is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Peer {
    /// It is no pair.
    None,
    /// In the same namespace.
    Here(IfName),
    /// In a namespace that this one holds.
    In(NetnsLabel, IfName),
    /// In the namespace that holds this one.
    Outside,
}

impl Device {
    pub(crate) fn is_up(&self) -> bool {
        self.link.admin == AdminState::Up
    }

    pub(crate) fn is_bridge(&self) -> bool {
        self.link.kind == LinkKind::Bridge
    }

    /// Whether it carries IP packets without an Ethernet header.
    pub(crate) fn is_without_ethernet(&self) -> bool {
        match self.link.kind {
            LinkKind::Wireguard | LinkKind::Ipip(_) => true,
            LinkKind::Vxlan(_) | LinkKind::Bridge | LinkKind::Veth(_) | LinkKind::Other(_) => false,
        }
    }

    pub(crate) fn has_ipv4(&self) -> bool {
        self.addrs.keys().any(IpNetwork::is_ipv4)
    }

    pub(crate) fn holds(&self, ip: IpAddr) -> bool {
        self.addrs.keys().any(|held| held.ip() == ip)
    }

    /// The link as it is observed.
    fn observed(&self) -> Link {
        Link {
            // A tunnel of IP packets has no hardware address.
            mac: (!self.is_without_ethernet()).then_some(self.mac),
            mtu_bytes: Some(self.mtu_bytes),
            ..self.link.clone()
        }
    }
}

impl Namespace {
    pub(crate) fn apply(&mut self, op: &Op) -> Answer {
        self.forget_ends_of_deleted_pairs();
        match op {
            Op::AddLink(name, link) => self.add_link(name, link),
            Op::ReplaceLink(name, link) => self.replace_link(name, link),
            Op::SetLink(name, change) => self.set_link(name, change),
            Op::DelLink(name) => self.del_link(name),
            Op::AddAddr(key, addr) => self.add_addr(key, *addr),
            Op::DelAddr(key) => self.del_addr(key),
            Op::AddRoute(key, route) => self.make_route(key, route),
            Op::ReplaceRoute(key, route) => self.replace_route(key, route),
            Op::DelRoute(key, route) => self.del_route(key, route),
            Op::SetNeigh(key, neigh) => self.set_neigh(key, neigh.mac, true),
            Op::DelNeigh(key) => self.del_neigh(key),
            Op::SetFdb(key) => self.set_fdb(key),
            Op::DelFdb(key) => self.del_fdb(key),
            Op::SetWireguard(name, settings) => self.set_wireguard(name, settings),
            Op::SetWgPeer(key, peer) => self.set_wg_peer(key, peer),
            Op::DelWgPeer(key) => self.del_wg_peer(key),
            Op::SetSysctl(key, value) => self.set_sysctl(key, value),
            Op::SetNftTable(key, table) => {
                self.rules.set_nft_table(key, table);
                Ok(())
            }
            Op::DelNftTable(key) => self.rules.del_nft_table(key),
            Op::SetIptables(key, change) => self.rules.set_iptables(key, change),
        }
    }

    pub(crate) fn device(&self, name: &IfName) -> Result<&Device, netstate::KernelError> {
        self.links.get(name).ok_or_else(|| no_device(name))
    }

    pub(crate) fn device_mut(&mut self, name: &IfName) -> Result<&mut Device, netstate::KernelError> {
        self.links.get_mut(name).ok_or_else(|| no_device(name))
    }

    /// What a scope shows.
    pub(crate) fn observe(&mut self, scope: &Scope) -> State {
        self.forget_ends_of_deleted_pairs();
        let mut state = State::default();
        for (name, content) in &scope.links {
            if let Some(device) = self.links.get(name) {
                observe_device(&mut state, name, device, |addr| {
                    let mut networks = content.addrs_inside.iter();
                    networks.any(|net| net.contains(addr.ip())) && !is_link_local(addr.ip())
                });
                if !content.tx_checksum
                    && let Some(link) = state.links.get_mut(name)
                    && let LinkKind::Vxlan(vxlan) = &mut link.kind
                {
                    vxlan.tx_checksum = None;
                }
                if !content.neighs {
                    state.neighs.retain(|key, _| key.link != *name);
                }
                if !content.wireguard {
                    state.wireguard.remove(name);
                    state.wg_peers.retain(|key, _| key.link != *name);
                }
                if !content.fdb {
                    state.fdb.retain(|key| key.link != *name);
                }
            }
        }
        let shows = |content: &LinkScope, table| match table {
            RT_TABLE_MAIN => content.routes,
            other => content.other_tables.contains(&other),
        };
        state.routes = self.routes_where(|key, route| {
            let by_link = route.kind.link().and_then(|link| scope.links.get(link));
            let by_link = by_link.is_some_and(|content| shows(content, key.table));
            let by_mark = scope.marked.as_ref().is_some_and(|marked| {
                key.table == RT_TABLE_MAIN && route.protocol == marked.protocol && marked.covers(key.dst)
            });
            (by_link || by_mark) && route.protocol != net_types::registry::RTPROT_KERNEL
        });
        for key in &scope.sysctls {
            if let Some(value) = self.sysctls.get(key) {
                state.sysctls.insert(key.clone(), value.clone());
            }
        }
        self.rules.observe(scope, &mut state);
        state
    }

    /// Everything, the kernel's own routes and foreign objects included.
    pub(crate) fn dump(&self) -> State {
        let mut state = State::default();
        for (name, device) in &self.links {
            observe_device(&mut state, name, device, |_| true);
        }
        state.routes = self.routes_where(|_, _| true);
        state.sysctls = self.sysctls.clone();
        self.rules.dump(&mut state);
        state
    }

    fn routes_where(&self, shown: impl Fn(&RouteKey, &Route) -> bool) -> BTreeMap<RouteKey, Route> {
        let first_shown = |(key, routes): (&RouteKey, &Vec<Route>)| {
            let route = routes.iter().find(|route| shown(key, route))?;
            Some((key.clone(), route.clone()))
        };
        self.routes.iter().filter_map(first_shown).collect()
    }
}

fn observe_device(
    state: &mut State,
    name: &IfName,
    device: &Device,
    shows_addr: impl Fn(&IpNetwork) -> bool,
) {
    state.links.insert(name.clone(), device.observed());
    for (addr, held) in device.addrs.iter().filter(|(addr, _)| shows_addr(addr)) {
        let link = name.clone();
        state.addrs.insert(AddrKey { link, addr: *addr }, held.addr);
    }
    for (ip, neigh) in device.neighs.iter().filter(|(_, neigh)| neigh.permanent) {
        let link = name.clone();
        let neigh = Neigh { mac: neigh.mac };
        state.neighs.insert(NeighKey { link, ip: *ip }, neigh);
    }
    wireguard::observe(state, name, device);
    for (mac, remotes) in &device.fdb {
        for remote in remotes {
            state.fdb.insert(FdbKey {
                link: name.clone(),
                mac: *mac,
                remote: *remote,
            });
        }
    }
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if is_unicast_link_local(ip))
}

pub(crate) fn is_unicast_link_local(ip: Ipv6Addr) -> bool {
    ip.segments()
        .first()
        .is_some_and(|first| first & 0xffc0 == 0xfe80)
}
