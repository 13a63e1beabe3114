use std::collections::{BTreeMap, BTreeSet};

use ipnetwork::IpNetwork;
use net_types::registry::RT_TABLE_MAIN;
use net_types::{IfIndex, IfName};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netstate::{
    AddrKey, BridgePort, ErrorClass, FdbKey, KernelError, LinkKind, LinkScope, Neigh, NeighKey, Nexthop,
    Route, RouteKey, RouteKind, Scope, State,
};

use crate::attr::only;
use crate::decode::{self, RawLink, RawRoute};
use crate::encode;
use crate::errno::{no_link, other};
use crate::raw::Requests;
use crate::socket::Socket;
use crate::{devconf, ethtool, marked, sysctl};

const FAMILIES: [AddressFamily; 2] = [AddressFamily::Inet, AddressFamily::Inet6];

/// Most questions in one send; an answer takes up to 4 KiB of the receive queue.
pub(crate) const QUESTIONS_PER_SEND: usize = 32;

/// Reads what is there within a scope, asking only for what the scope names.
///
/// A link that goes away meanwhile is absent, with its content.
pub(crate) fn observe(socket: &mut Socket, scope: &Scope) -> Result<State, KernelError> {
    let mut state = State::default();
    let links = links(socket, scope)?;
    let names = names(socket, &links)?;
    for raw in links {
        let Some(content) = scope.links.get(&raw.name) else {
            continue;
        };
        let read = self::content(socket, &raw, content, &mut state);
        let tx_checksum = match read.and_then(|()| tx_checksum(socket, &raw, content)) {
            Ok(tx_checksum) => tx_checksum,
            Err(e) if e.class == ErrorClass::NoDevice => {
                forget(&mut state, &raw.name);
                continue;
            }
            Err(e) => return Err(e),
        };
        state.sysctls.extend(raw.devconf.told(&raw.name, &scope.sysctls));
        let (name, mut link) = resolved(raw, &names);
        if let LinkKind::Vxlan(vxlan) = &mut link.kind {
            vxlan.tx_checksum = tx_checksum;
        }
        state.links.insert(name, link);
    }
    for family in FAMILIES {
        marked::read(socket, scope, family, &mut state)?;
    }
    for key in &scope.sysctls {
        if state.sysctls.contains_key(key) {
            continue;
        }
        let told = devconf::ask(socket, key);
        let value = if told.is_some() { told } else { sysctl::read(key)? };
        if let Some(value) = value {
            state.sysctls.insert(key.clone(), value);
        }
    }
    Ok(state)
}

pub(crate) fn links(socket: &mut Socket, scope: &Scope) -> Result<Vec<RawLink>, KernelError> {
    let questions = scope.links.keys().map(encode::link_by_name).collect();
    let links = ask_links(socket, questions)?;
    // The kernel also finds a link by an alternative name; such a one is not in scope.
    let named = links
        .into_iter()
        .filter(|link| scope.links.contains_key(&link.name));
    Ok(named.collect())
}

/// The names of the links, and of those that they refer to, by number.
fn names(socket: &mut Socket, links: &[RawLink]) -> Result<BTreeMap<IfIndex, IfName>, KernelError> {
    let mut names: BTreeMap<_, _> = links.iter().map(|link| (link.index, link.name.clone())).collect();
    let referred = links
        .iter()
        .flat_map(|link| link.port.map(|port| port.bridge).into_iter().chain(link.parent));
    let unknown = referred.filter(|index| !names.contains_key(index)).collect();
    names.extend(names_of(socket, unknown)?);
    Ok(names)
}

/// Asks about links; those that are not there have no answer.
fn ask_links(socket: &mut Socket, questions: Vec<RouteNetlinkMessage>) -> Result<Vec<RawLink>, KernelError> {
    let mut links = Vec::new();
    let mut questions = questions.into_iter().peekable();
    while questions.peek().is_some() {
        let mut requests = Requests::default();
        for question in questions.by_ref().take(QUESTIONS_PER_SEND) {
            requests.push_route(question, 0);
        }
        for answer in socket.ask(&mut requests)? {
            match answer {
                Ok(RouteNetlinkMessage::NewLink(message)) => links.extend(decode::link(&message)),
                Ok(_) => {
                    return Err(other(
                        "the kernel answered a question about a link with something else",
                    ));
                }
                Err(e) if e.class == ErrorClass::NoDevice => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(links)
}

/// The names of links by their numbers; those that are gone have none.
pub(crate) fn names_of(
    socket: &mut Socket,
    indexes: BTreeSet<IfIndex>,
) -> Result<BTreeMap<IfIndex, IfName>, KernelError> {
    let questions = indexes.into_iter().map(encode::link_by_index).collect();
    let found = ask_links(socket, questions)?;
    Ok(found.into_iter().map(|link| (link.index, link.name)).collect())
}

/// The number of a link.
pub(crate) fn index_of(socket: &mut Socket, name: &IfName) -> Result<IfIndex, KernelError> {
    let found = ask_links(socket, vec![encode::link_by_name(name)])?;
    let link = found.into_iter().find(|link| link.name == *name);
    link.map(|link| link.index).ok_or_else(|| no_link(name))
}

/// Fills in the names of the links that a link refers to.
fn resolved(raw: RawLink, names: &BTreeMap<IfIndex, IfName>) -> (IfName, netstate::Link) {
    let mut link = raw.link;
    link.port = raw.port.and_then(|port| {
        Some(BridgePort {
            bridge: names.get(&port.bridge)?.clone(),
            hairpin: port.hairpin,
            isolated: port.isolated,
        })
    });
    if let LinkKind::Vxlan(vxlan) = &mut link.kind {
        vxlan.parent = raw.parent.and_then(|parent| names.get(&parent)).cloned();
    }
    (raw.name, link)
}

/// Reads what is on a link. Tables are collected and then put in as a whole: entries that come one by one in their order
/// leave the nodes of a tree half empty.
fn content(
    socket: &mut Socket,
    link: &RawLink,
    scope: &LinkScope,
    state: &mut State,
) -> Result<(), KernelError> {
    if !scope.addrs_inside.is_empty() {
        addrs(socket, link, &scope.addrs_inside, state)?;
    }
    if scope.neighs {
        neighs(socket, link, state)?;
    }
    if scope.fdb {
        fdb(socket, link, state)?;
    }
    let main = scope.routes.then_some(RT_TABLE_MAIN);
    for table in main.iter().chain(&scope.other_tables) {
        for family in FAMILIES {
            routes(socket, link, family, *table, state)?;
        }
    }
    Ok(())
}

fn tx_checksum(socket: &Socket, link: &RawLink, scope: &LinkScope) -> Result<Option<bool>, KernelError> {
    if scope.tx_checksum && matches!(link.link.kind, LinkKind::Vxlan(_)) {
        return ethtool::tx_checksum(socket.as_fd(), &link.name);
    }
    Ok(None)
}

fn addrs(
    socket: &mut Socket,
    link: &RawLink,
    inside: &[IpNetwork],
    state: &mut State,
) -> Result<(), KernelError> {
    let found = socket.dump(&encode::all_addrs(Some(link.index)), |message| {
        decode::addr(&only!(message, RouteNetlinkMessage::NewAddress)?)
    })?;
    let in_scope = found.into_iter().filter(|(index, addr, ..)| {
        let ours = inside.iter().any(|network| network.contains(addr.ip()));
        *index == link.index && ours && !decode::is_v6_link_local(addr.ip())
    });
    state.addrs.extend(in_scope.map(|(_, addr, details, _)| {
        let link = link.name.clone();
        (AddrKey { link, addr }, details)
    }));
    Ok(())
}

fn neighs(socket: &mut Socket, link: &RawLink, state: &mut State) -> Result<(), KernelError> {
    let found = socket.dump(&encode::neighs_of(link.index), |message| {
        let (index, ip, mac) = decode::neigh(&only!(message, RouteNetlinkMessage::NewNeighbour)?)?;
        let link_name = || link.name.clone();
        (index == link.index).then(|| {
            (
                NeighKey {
                    link: link_name(),
                    ip,
                },
                Neigh { mac },
            )
        })
    })?;
    state.neighs.append(&mut found.into_iter().collect());
    Ok(())
}

pub(crate) fn fdb(socket: &mut Socket, link: &RawLink, state: &mut State) -> Result<(), KernelError> {
    let found = socket.dump(&encode::fdb_of(link.index), |message| {
        let (index, mac, remote) = decode::fdb(&only!(message, RouteNetlinkMessage::NewNeighbour)?)?;
        let link_name = || link.name.clone();
        (index == link.index).then(|| FdbKey {
            link: link_name(),
            mac,
            remote,
        })
    })?;
    state.fdb.append(&mut found.into_iter().collect());
    Ok(())
}

pub(crate) fn routes(
    socket: &mut Socket,
    link: &RawLink,
    family: AddressFamily,
    table: u32,
    state: &mut State,
) -> Result<(), KernelError> {
    let question = encode::routes(family, table, Some(link.index));
    let is_meant = |route: &RawRoute| route.oif == link.index && route.table == table;
    let found = socket.dump_routes(question, |message| {
        let route = decode::route(message).filter(is_meant)?;
        Some(route_of(link.name.clone(), &route))
    })?;
    state.routes.append(&mut found.into_iter().collect());
    Ok(())
}

pub(crate) fn route_of(link: IfName, raw: &RawRoute) -> (RouteKey, Route) {
    let key = RouteKey {
        table: raw.table,
        dst: raw.dst,
        metric: raw.metric,
    };
    let hop = Nexthop {
        link,
        gateway: raw.gateway,
        onlink: raw.onlink,
    };
    let kind = RouteKind::Unicast(hop);
    let usual = Route::usual_scope(raw.dst, &kind);
    let route = Route {
        kind,
        protocol: raw.protocol,
        source: raw.source,
        mtu_bytes: raw.mtu_bytes,
        advmss_bytes: raw.advmss_bytes,
        scope: (raw.scope != usual && raw.dst.is_ipv4()).then_some(raw.scope),
    };
    (key, route)
}

/// Removes what was read of a link before it went away.
fn forget(state: &mut State, name: &IfName) {
    state.addrs.retain(|key, _| key.link != *name);
    state.neighs.retain(|key, _| key.link != *name);
    state.fdb.retain(|key| key.link != *name);
    state.routes.retain(|_, route| match &route.kind {
        RouteKind::Unicast(hop) => hop.link != *name,
        RouteKind::Blackhole => true,
    });
}
