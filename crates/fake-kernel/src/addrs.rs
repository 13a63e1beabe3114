use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::IfName;
use net_types::registry::{RT_TABLE_MAIN, RTPROT_KERNEL};
use netstate::{Addr, AddrKey, Nexthop, Route, RouteKey, RouteKind};

use crate::namespace::{HeldAddr, Namespace};
use crate::refusal::{Answer, denied, exists, not_found};

/// Metric of the connected routes of IPv6 addresses (linux `IP6_RT_PRIO_ADDRCONF`).
const IPV6_CONNECTED_METRIC: u32 = 256;

impl Namespace {
    pub(crate) fn add_addr(&mut self, key: &AddrKey, addr: Addr) -> Answer {
        let ipv6_is_off = key.addr.is_ipv6() && self.ipv6_is_off(&key.link);
        let device = self.device_mut(&key.link)?;
        if ipv6_is_off {
            return Err(denied("IPv6 is disabled on this device"));
        }
        // IPv6 knows an address of a link without its prefix, IPv4 with it.
        let is_same = |held: &IpNetwork| match key.addr {
            IpNetwork::V4(_) => *held == key.addr,
            IpNetwork::V6(_) => held.ip() == key.addr.ip(),
        };
        if device.addrs.keys().any(is_same) {
            return Err(exists("address already assigned"));
        }
        let secondary = device
            .addrs
            .iter()
            .any(|(held, how)| !how.secondary && held.is_ipv4() && network(*held) == network(key.addr));
        device.addrs.insert(key.addr, HeldAddr { addr, secondary });
        if device.is_up() && !secondary {
            self.add_connected_route(&key.link, key.addr);
        }
        Ok(())
    }

    pub(crate) fn del_addr(&mut self, key: &AddrKey) -> Answer {
        let device = self.device_mut(&key.link)?;
        let Some(held) = device.addrs.remove(&key.addr) else {
            return Err(not_found("EADDRNOTAVAIL: address not found"));
        };
        let mut gone = vec![key.addr];
        if key.addr.is_ipv4() && !held.secondary {
            // The kernel removes the secondary addresses with their primary one (promote_secondaries is 0).
            let subnet = network(key.addr);
            let secondaries = device
                .addrs
                .extract_if(.., |addr, how| how.secondary && network(*addr) == subnet);
            gone.extend(secondaries.map(|(addr, _)| addr));
        }
        let was_last_ipv4 = key.addr.is_ipv4() && !device.has_ipv4();
        if was_last_ipv4 {
            device.neighs.retain(|ip, _| ip.is_ipv6());
        }
        if !held.secondary {
            self.del_connected_route(&key.link, key.addr);
        }
        if was_last_ipv4 {
            self.flush_routes_through(&key.link, |key| key.dst.is_ipv4());
        }
        for addr in gone {
            self.forget_source(addr.ip());
        }
        Ok(())
    }

    /// Makes the connected routes that a link lost while it was down.
    pub(crate) fn add_connected_routes(&mut self, link: &IfName) {
        let Some(device) = self.links.get(link) else {
            return;
        };
        let primary = device.addrs.iter().filter(|(_, held)| !held.secondary);
        let primary: Vec<IpNetwork> = primary.map(|(addr, _)| *addr).collect();
        for addr in primary {
            self.add_connected_route(link, addr);
        }
    }

    fn add_connected_route(&mut self, link: &IfName, addr: IpNetwork) {
        if addr.is_ipv4() && addr.prefix() == 32 {
            return;
        }
        let (key, route) = connected_route(link, addr);
        let routes = self.routes.entry(key).or_default();
        if !routes.contains(&route) {
            routes.push(route);
        }
    }

    fn del_connected_route(&mut self, link: &IfName, addr: IpNetwork) {
        let device = self.links.get(link);
        let still_covered = device.is_some_and(|device| {
            addr.is_ipv6() && device.addrs.keys().any(|held| network(*held) == network(addr))
        });
        if still_covered {
            return;
        }
        let (key, route) = connected_route(link, addr);
        self.remove_routes(&key, |held| *held == route);
    }

    /// Takes the IPv6 addresses from a link. Routes keep a source address that goes in this way (measured on 6.18).
    pub(crate) fn flush_ipv6_addrs(&mut self, link: &IfName) {
        if let Some(device) = self.links.get_mut(link) {
            device.addrs.retain(|addr, _| !addr.is_ipv6());
        }
    }

    /// Forgets an address as the preferred source of routes once no link holds it.
    pub(crate) fn forget_source(&mut self, ip: IpAddr) {
        if self.owns(ip) {
            return;
        }
        match ip {
            IpAddr::V4(_) => self.flush_routes(|_, route| route.source == Some(ip)),
            IpAddr::V6(_) => {
                for route in self.routes.values_mut().flatten() {
                    if route.source == Some(ip) {
                        route.source = None;
                    }
                }
            }
        }
    }

    /// Whether a link holds this address.
    pub(crate) fn owns(&self, ip: IpAddr) -> bool {
        self.links.values().any(|device| device.holds(ip))
    }
}

/// The network that an address lies in.
pub(crate) fn network(addr: IpNetwork) -> IpNetwork {
    IpNetwork::new(addr.network(), addr.prefix()).unwrap_or(addr)
}

fn connected_route(link: &IfName, addr: IpNetwork) -> (RouteKey, Route) {
    let (metric, source) = match addr {
        IpNetwork::V4(_) => (0, Some(addr.ip())),
        IpNetwork::V6(_) => (IPV6_CONNECTED_METRIC, None),
    };
    let key = RouteKey {
        table: RT_TABLE_MAIN,
        dst: network(addr),
        metric,
    };
    let route = Route {
        kind: RouteKind::Unicast(Nexthop {
            link: link.clone(),
            gateway: None,
            onlink: false,
        }),
        protocol: RTPROT_KERNEL,
        source,
        mtu_bytes: None,
        advmss_bytes: None,
        scope: None,
    };
    (key, route)
}
