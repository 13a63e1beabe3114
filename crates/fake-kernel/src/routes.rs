use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use net_types::IfName;
use net_types::registry::RT_TABLE_MAIN;
use netstate::{ErrorClass, Nexthop, Route, RouteKey, RouteKind};

use crate::addrs::network;
use crate::namespace::{Device, Namespace, is_unicast_link_local};
use crate::refusal::{
    Answer, denied, exists, invalid, is_invalid, link_down, not_found, unreachable_v4, unreachable_v6,
};

/// Metric that the kernel stores for an IPv6 route without one (linux `IP6_RT_PRIO_USER`).
const IPV6_DEFAULT_METRIC: u32 = 1024;

impl Namespace {
    pub(crate) fn add_route(&mut self, key: &RouteKey, route: &Route) -> Answer {
        self.check_route(key, route)?;
        let key = stored_key(key);
        if let Some(present) = self.routes.get(&key) {
            let is_main = key.table == RT_TABLE_MAIN;
            if is_main && present.first().is_some_and(|present| route.takes_over(present)) {
                return self.put_route(&key, route);
            }
            return Err(exists("a route of equal destination and metric"));
        }
        self.routes.insert(key, vec![route.clone()]);
        Ok(())
    }

    /// Over a stepping stone where the gateway is refused.
    pub(crate) fn make_route(&mut self, key: &RouteKey, route: &Route) -> Answer {
        let added = self.add_route(key, route);
        if added.as_ref().is_err_and(is_invalid)
            && let Some(added) = self.over_stepping_stone(key, route, Self::add_route)
        {
            return added;
        }
        added
    }

    /// With the steps of which the change consists.
    pub(crate) fn replace_route(&mut self, key: &RouteKey, route: &Route) -> Answer {
        let replaced = self.over_stepping_stone(key, route, Self::put_route);
        replaced.unwrap_or_else(|| self.put_route(key, route))
    }

    fn over_stepping_stone(
        &mut self,
        key: &RouteKey,
        route: &Route,
        make: impl FnOnce(&mut Self, &RouteKey, &Route) -> Answer,
    ) -> Option<Answer> {
        let (stone_key, stone) = route.stepping_stone(key)?;
        // Whether it could be made is told by what it helps with.
        drop(self.add_route(&stone_key, &stone));
        let made = make(self, key, route);
        let removed = match self.del_route(&stone_key, &stone) {
            Err(refusal) if refusal.class == ErrorClass::NotFound => Ok(()),
            removed => removed,
        };
        Some(made.and(removed))
    }

    fn put_route(&mut self, key: &RouteKey, route: &Route) -> Answer {
        self.check_route(key, route)?;
        let routes = self.routes.entry(stored_key(key)).or_default();
        if routes.iter().skip(1).any(|held| held == route) {
            return Err(exists("the same route stands behind the one to replace"));
        }
        match routes.first_mut() {
            Some(first) => *first = route.clone(),
            None => routes.push(route.clone()),
        }
        Ok(())
    }

    pub(crate) fn del_route(&mut self, key: &RouteKey, route: &Route) -> Answer {
        if let RouteKind::Unicast(hop) = &route.kind {
            self.device(&hop.link)?;
        }
        let key = &RouteKey {
            dst: network(key.dst),
            ..key.clone()
        };
        // A metric of 0 in the request matches every metric.
        let (lowest, highest) = match key.metric {
            0 => (0, u32::MAX),
            metric => (metric, metric),
        };
        let range = RouteKey {
            metric: lowest,
            ..key.clone()
        }..=RouteKey {
            metric: highest,
            ..key.clone()
        };
        let found = self.routes.range(range).find_map(|(key, routes)| {
            let index = routes.iter().position(|held| is_meant(held, route))?;
            Some((key.clone(), index))
        });
        let Some((key, index)) = found else {
            return Err(not_found("ESRCH: no such route"));
        };
        if let Some(routes) = self.routes.get_mut(&key) {
            routes.remove(index);
            if routes.is_empty() {
                self.routes.remove(&key);
            }
        }
        Ok(())
    }

    fn check_route(&self, key: &RouteKey, route: &Route) -> Answer {
        if let RouteKind::Unicast(hop) = &route.kind {
            let device = self.device(&hop.link)?;
            match (key.dst, hop.gateway) {
                (IpNetwork::V4(_), None | Some(IpAddr::V4(_))) => {
                    self.check_hop_v4(key.table, hop, device)?
                }
                (IpNetwork::V6(_), None | Some(IpAddr::V6(_))) => {
                    self.check_hop_v6(key.table, hop, device)?
                }
                (IpNetwork::V4(_), Some(IpAddr::V6(_))) | (IpNetwork::V6(_), Some(IpAddr::V4(_))) => {
                    return Err(invalid("the gateway is of another family"));
                }
            }
        }
        match route.source {
            Some(source) if !self.owns(source) => Err(invalid("invalid prefsrc address")),
            Some(_) | None => Ok(()),
        }
    }

    /// Linux `fib_semantics.c`, `fib_check_nh`.
    fn check_hop_v4(&self, table: u32, hop: &Nexthop, device: &Device) -> Answer {
        let Some(IpAddr::V4(gateway)) = hop.gateway else {
            if hop.onlink {
                return Err(invalid("onlink is for a next hop with a gateway"));
            }
            return require_up(device);
        };
        if hop.onlink {
            require_up(device)?;
            if !self.is_unicast(gateway) {
                return Err(invalid("nexthop has invalid gateway"));
            }
            return Ok(());
        }
        if device.is_up() && has_broadcast(device, gateway) {
            return Err(invalid("nexthop has invalid gateway"));
        }
        if device.holds(IpAddr::V4(gateway)) {
            return require_up(device);
        }
        // Routes that have gateways themselves are passed over.
        let direct = |route: &Route| matches!(&route.kind, RouteKind::Unicast(other) if other.link == hop.link && other.gateway.is_none());
        let mut networks = networks_of(IpAddr::V4(gateway));
        if !networks.any(|net| self.routes_to(table, net).any(|(_, route)| direct(route))) {
            return Err(unreachable_v4());
        }
        require_up(device)
    }

    /// Linux `net/ipv6/route.c`, `fib6_nh_init` and `ip6_validate_gw`.
    fn check_hop_v6(&self, table: u32, hop: &Nexthop, device: &Device) -> Answer {
        if hop.onlink {
            require_up(device)?;
        }
        if let Some(IpAddr::V6(gateway)) = hop.gateway {
            if self.owns(IpAddr::V6(gateway)) {
                return Err(invalid("gateway can not be a local address"));
            }
            self.check_reach_v6(table, hop, gateway)?;
        }
        if self.ipv6_is_off(&hop.link) {
            return Err(denied("IPv6 is disabled on nexthop device"));
        }
        require_up(device)
    }

    fn check_reach_v6(&self, table: u32, hop: &Nexthop, gateway: Ipv6Addr) -> Answer {
        let gateway_ip = IpAddr::V6(gateway);
        if hop.onlink {
            if self.leads_elsewhere(table, gateway_ip, &hop.link) {
                return Err(invalid("nexthop has invalid gateway or device mismatch"));
            }
            return Ok(());
        }
        let direct = |hop: &Nexthop| hop.gateway.is_none();
        if is_unicast_link_local(gateway) || self.is_reached(table, gateway_ip, &hop.link, direct) {
            return Ok(());
        }
        Err(unreachable_v6())
    }

    /// Whether the longest-prefix routes to `ip`, a default route aside, avoid `link`.
    fn leads_elsewhere(&self, table: u32, ip: IpAddr, link: &IfName) -> bool {
        for net in networks_of(ip).filter(|net| net.prefix() > 0) {
            let mut routes = self.routes_to(table, net).peekable();
            if routes.peek().is_some() {
                return !routes.any(|(_, route)| match &route.kind {
                    RouteKind::Unicast(hop) => hop.link == *link,
                    RouteKind::Blackhole => true,
                });
            }
        }
        false
    }

    /// Whether an address is neither local nor the broadcast address of a subnet (linux `inet_addr_type`).
    fn is_unicast(&self, ip: Ipv4Addr) -> bool {
        let has_broadcast = |device: &Device| device.is_up() && has_broadcast(device, ip);
        !self.owns(IpAddr::V4(ip)) && !self.links.values().any(has_broadcast)
    }

    /// Whether the longest-prefix route through `link` to `ip` is one that `suits`.
    fn is_reached(&self, table: u32, ip: IpAddr, link: &IfName, suits: impl Fn(&Nexthop) -> bool) -> bool {
        for net in networks_of(ip) {
            let hops = self
                .routes_to(table, net)
                .filter_map(|(_, route)| match &route.kind {
                    RouteKind::Unicast(hop) if hop.link == *link => Some(hop),
                    RouteKind::Unicast(_) | RouteKind::Blackhole => None,
                });
            let mut hops = hops.peekable();
            if hops.peek().is_some() {
                return hops.any(suits);
            }
        }
        false
    }

    /// The route that a packet to `ip` takes.
    pub(crate) fn look_up(&self, table: u32, ip: IpAddr) -> Option<(&RouteKey, &Route)> {
        networks_of(ip).find_map(|net| self.routes_to(table, net).next())
    }

    /// The routes to exactly this network, best first.
    fn routes_to(&self, table: u32, dst: IpNetwork) -> impl Iterator<Item = (&RouteKey, &Route)> {
        let key = |metric| RouteKey { table, dst, metric };
        let range = self.routes.range(key(0)..=key(u32::MAX));
        range.flat_map(|(key, routes)| routes.iter().map(move |route| (key, route)))
    }

    /// Removes the routes through a link whose keys match.
    pub(crate) fn flush_routes_through(&mut self, link: &IfName, matches: impl Fn(&RouteKey) -> bool) {
        self.flush_routes(|key, route| match &route.kind {
            RouteKind::Unicast(hop) => hop.link == *link && matches(key),
            RouteKind::Blackhole => false,
        });
    }

    pub(crate) fn flush_routes(&mut self, goes: impl Fn(&RouteKey, &Route) -> bool) {
        self.routes.retain(|key, routes| {
            routes.retain(|route| !goes(key, route));
            !routes.is_empty()
        });
    }

    pub(crate) fn remove_routes(&mut self, key: &RouteKey, goes: impl Fn(&Route) -> bool) {
        if let Some(routes) = self.routes.get_mut(key) {
            routes.retain(|route| !goes(route));
            if routes.is_empty() {
                self.routes.remove(key);
            }
        }
    }
}

/// Whether a deletion request means this route: the kernel compares what the request gives, and a request names
/// neither source nor MTU.
fn is_meant(held: &Route, request: &Route) -> bool {
    let hop_matches = match (&held.kind, &request.kind) {
        (RouteKind::Blackhole, RouteKind::Blackhole) => true,
        (RouteKind::Unicast(held), RouteKind::Unicast(request)) => {
            held.link == request.link && (request.gateway.is_none() || held.gateway == request.gateway)
        }
        (RouteKind::Unicast(_), RouteKind::Blackhole) | (RouteKind::Blackhole, RouteKind::Unicast(_)) => {
            false
        }
    };
    hop_matches && (request.protocol == 0 || held.protocol == request.protocol)
}

fn require_up(device: &Device) -> Answer {
    if device.is_up() {
        return Ok(());
    }
    Err(link_down("the device of the next hop is not up"))
}

/// Whether an address is the broadcast address of a subnet on this link.
fn has_broadcast(device: &Device, ip: Ipv4Addr) -> bool {
    device.addrs.keys().any(|held| match held {
        IpNetwork::V4(held) => held.prefix() < 31 && held.broadcast() == ip,
        IpNetwork::V6(_) => false,
    })
}

fn stored_key(key: &RouteKey) -> RouteKey {
    let metric = match (key.dst, key.metric) {
        (IpNetwork::V6(_), 0) => IPV6_DEFAULT_METRIC,
        (IpNetwork::V4(_) | IpNetwork::V6(_), metric) => metric,
    };
    RouteKey {
        dst: network(key.dst),
        metric,
        ..key.clone()
    }
}

/// The networks that hold an address, the longest prefix first.
fn networks_of(ip: IpAddr) -> impl Iterator<Item = IpNetwork> {
    let longest: u8 = match ip {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    };
    (0..=longest).rev().filter_map(move |prefix| {
        let ip = match ip {
            IpAddr::V4(ip) => {
                let mask = u32::MAX.checked_shl(u32::from(32 - prefix)).unwrap_or(0);
                IpAddr::V4(Ipv4Addr::from_bits(ip.to_bits() & mask))
            }
            IpAddr::V6(ip) => {
                let mask = u128::MAX.checked_shl(u32::from(128 - prefix)).unwrap_or(0);
                IpAddr::V6(Ipv6Addr::from_bits(ip.to_bits() & mask))
            }
        };
        IpNetwork::new(ip, prefix).ok()
    })
}
