//! Routes that are told by who made them, and what stands in the place of new ones.

use ipnetwork::IpNetwork;
use net_types::registry::{RT_TABLE_MAIN, RTPROT_BOOT};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netstate::{KernelError, Route, RouteKey, Scope, State};

use crate::attr::only;
use crate::decode::{self, RawRoute};
use crate::encode;
use crate::observe::{QUESTIONS_PER_SEND, names_of, route_of};
use crate::raw::Requests;
use crate::socket::Socket;

enum Found {
    Hop(RawRoute),
    Nowhere(RouteKey, Route),
}

/// Reads the routes of one family that are in scope by their protocol.
pub(crate) fn read(
    socket: &mut Socket,
    scope: &Scope,
    family: AddressFamily,
    state: &mut State,
) -> Result<(), KernelError> {
    let Some(marked) = &scope.marked else {
        return Ok(());
    };
    let is_meant = |table, dst: IpNetwork, protocol| {
        table == RT_TABLE_MAIN && protocol == marked.protocol && marked.covers(dst)
    };
    let found = socket.dump_routes(encode::routes_of(family, marked.protocol), |message| {
        let hop = decode::route(message).filter(|raw| is_meant(raw.table, raw.dst, raw.protocol));
        let nowhere = || {
            let found = decode::blackhole(message);
            found.filter(|(key, route)| is_meant(key.table, key.dst, route.protocol))
        };
        let hop = hop.map(Found::Hop);
        hop.or_else(|| nowhere().map(|(key, route)| Found::Nowhere(key, route)))
    })?;
    put(socket, found, state)
}

/// Puts in what was found, but what leads through a link that is gone meanwhile.
fn put(socket: &mut Socket, found: Vec<Found>, state: &mut State) -> Result<(), KernelError> {
    let oif = |found: &Found| match found {
        Found::Hop(raw) => Some(raw.oif),
        Found::Nowhere(..) => None,
    };
    let names = names_of(socket, found.iter().filter_map(oif).collect())?;
    let named = found.into_iter().filter_map(|found| match found {
        Found::Hop(raw) => Some(route_of(names.get(&raw.oif)?.clone(), &raw)),
        Found::Nowhere(key, route) => Some((key, route)),
    });
    state.routes.append(&mut named.collect());
    Ok(())
}

/// Which of these routes, whose places are taken, may take them over.
pub(crate) fn takeovers(
    socket: &mut Socket,
    refused: &[(&RouteKey, &Route)],
) -> Result<Vec<bool>, KernelError> {
    let mut found = Vec::new();
    let v4: Vec<_> = refused.iter().filter(|(key, _)| key.dst.is_ipv4()).collect();
    for part in v4.chunks(QUESTIONS_PER_SEND) {
        let mut requests = Requests::default();
        for (key, _) in part {
            requests.push_route(encode::route_match(key.dst.network()), 0);
        }
        // The best match is what would be replaced; a refusal says that nothing leads there.
        let answers = socket.ask(&mut requests)?.into_iter().flatten();
        let messages = answers.filter_map(|answer| only!(answer, RouteNetlinkMessage::NewRoute));
        found.extend(
            messages
                .filter_map(|message| decode::route(&message))
                .map(Found::Hop),
        );
    }
    if refused.iter().any(|(key, _)| key.dst.is_ipv6()) {
        // IPv6 answers such a question with one of several.
        let question = encode::routes_of(AddressFamily::Inet6, RTPROT_BOOT);
        found.extend(socket.dump_routes(question, |message| decode::route(message).map(Found::Hop))?);
    }
    let mut present = State::default();
    put(socket, found, &mut present)?;
    let may = |(key, route): &(&RouteKey, &Route)| {
        let taken = present.routes.get(*key).filter(|_| key.table == RT_TABLE_MAIN);
        taken.is_some_and(|taken| route.takes_over(taken))
    };
    Ok(refused.iter().map(may).collect())
}
