//! Which addresses are on a link of this host, by the routes that packets to them would take.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use net_types::{IfIndex, IfName};
use netlink_packet_route::route::{RouteAttribute, RouteMessage, RouteScope, RouteType};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netstate::KernelError;

use crate::attr::find;
use crate::inventory::is_no_route;
use crate::observe::{QUESTIONS_PER_SEND, names_of};
use crate::raw::Requests;
use crate::{RealKernel, encode};

impl RealKernel {
    /// Looks up the routes to some addresses, and returns those that are on a link, with the link: a single route leads
    /// there, without a gateway. Routes can be made that have them as their next hops.
    ///
    /// # Errors
    /// The questions cannot be asked.
    pub fn on_link(
        &mut self,
        destinations: &BTreeSet<IpAddr>,
    ) -> Result<BTreeMap<IpAddr, IfName>, KernelError> {
        let mut found = BTreeMap::new();
        let mut rest = destinations.iter().copied().peekable();
        while rest.peek().is_some() {
            let part: Vec<_> = rest.by_ref().take(QUESTIONS_PER_SEND).collect();
            let mut requests = Requests::default();
            for destination in &part {
                requests.push_route(question(*destination), 0);
            }
            for (destination, answer) in part.into_iter().zip(self.socket.ask(&mut requests)?) {
                match answer {
                    Ok(RouteNetlinkMessage::NewRoute(route)) => {
                        found.extend(link_of(&route).map(|link| (destination, link)));
                    }
                    Ok(_) => {}
                    Err(refusal) if is_no_route(refusal.class) => {}
                    Err(refusal) => return Err(refusal),
                }
            }
        }
        let names = names_of(&mut self.socket, found.values().copied().collect())?;
        let named = found.into_iter();
        Ok(named
            .filter_map(|(destination, link)| Some((destination, names.get(&link)?.clone())))
            .collect())
    }
}

/// IPv4's answer to a look-up hides the scope of the route, without which the kernel refuses next hops there; the route
/// itself shows it. IPv6 shows one of several routes when it is asked for that.
fn question(destination: IpAddr) -> RouteNetlinkMessage {
    if destination.is_ipv4() {
        encode::route_match(destination)
    } else {
        encode::route_to(destination)
    }
}

/// The link of a route without a gateway. In IPv4 it must be of a scope that next hops may have: wider than the host, but
/// not global (linux `fib_semantics.c`, `fib_check_nh_v4_gw`).
fn link_of(route: &RouteMessage) -> Option<IfIndex> {
    let is_far = |attribute: &RouteAttribute| {
        matches!(
            attribute,
            RouteAttribute::Gateway(_)
                | RouteAttribute::Via(_)
                | RouteAttribute::MultiPath(_)
                | RouteAttribute::Encap(_)
                | RouteAttribute::EncapType(_)
        )
    };
    let is_v4 = route.header.address_family == AddressFamily::Inet;
    let fits = !is_v4 || route.header.scope == RouteScope::Link;
    if !fits || route.header.kind != RouteType::Unicast || route.attributes.iter().any(is_far) {
        return None;
    }
    find!(route.attributes, RouteAttribute::Oif).and_then(|oif| IfIndex::new(*oif))
}
