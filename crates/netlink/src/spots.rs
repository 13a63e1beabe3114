//! Reads single routes, neighbours and forwarding entries instead of whole tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::registry::RT_TABLE_MAIN;
use net_types::{IfIndex, IfName, MacAddr};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netstate::{ErrorClass, FdbKey, KernelError, LinkScope, Neigh, NeighKey, RouteKey, Scope, Spot, State};

use crate::attr::only;
use crate::decode::{self, RawLink, RawRoute};
use crate::encode;
use crate::marked;
use crate::observe::{self, QUESTIONS_PER_SEND};
use crate::raw::Requests;
use crate::socket::Socket;

/// Reads what stands at some spots within a scope. It finds what [`observe::observe`] finds there; where the kernel has
/// no question for a single object, or an answer that says too little, the table is listed.
pub(crate) fn observe_at(
    socket: &mut Socket,
    scope: &Scope,
    spots: &BTreeSet<Spot>,
) -> Result<State, KernelError> {
    let links = observe::links(socket, scope)?;
    let scoped = links
        .iter()
        .filter_map(|link| Some((link, scope.links.get(&link.name)?)));
    let links: Links<'_> = scoped
        .map(|(link, content)| (&link.name, (link, content)))
        .collect();
    let questions: Vec<_> = spots
        .iter()
        .filter_map(|spot| question(scope, &links, spot))
        .collect();
    let mut reading = Reading {
        scope,
        links: &links,
        state: State::default(),
        tables: BTreeSet::new(),
        others: BTreeMap::new(),
    };
    for part in questions.chunks(QUESTIONS_PER_SEND) {
        reading.ask(socket, part)?;
    }
    reading.list(socket, spots)?;
    Ok(reading.state)
}

/// The links in scope that are there.
type Links<'a> = BTreeMap<&'a IfName, (&'a RawLink, &'a LinkScope)>;

/// How a spot is asked for; `None` where nothing in scope can stand.
fn question<'a>(scope: &Scope, links: &Links<'a>, spot: &'a Spot) -> Option<Question<'a>> {
    match spot {
        Spot::Route(key) if is_marked_at(scope, key) => Some(Question::Route(key)),
        Spot::Route(key) => {
            let mut tables = links.values().map(|(_, content)| content);
            let in_scope = |content: &&LinkScope| {
                content.routes && key.table == RT_TABLE_MAIN || content.other_tables.contains(&key.table)
            };
            tables.any(in_scope).then_some(Question::Route(key))
        }
        Spot::Neigh(key) => {
            let (link, content) = links.get(&key.link)?;
            content.neighs.then_some(Question::Neigh(link, key.ip))
        }
        Spot::Fdb(name, mac) => {
            let (link, content) = links.get(name)?;
            content.fdb.then_some(Question::Fdb(link, *mac))
        }
        // Route netlink knows nothing of it.
        Spot::WgPeer(_) => None,
    }
}

/// Whether a route there can be in scope by its protocol.
fn is_marked_at(scope: &Scope, key: &RouteKey) -> bool {
    let marked = scope.marked.as_ref();
    key.table == RT_TABLE_MAIN && marked.is_some_and(|marked| marked.covers(key.dst))
}

enum Question<'a> {
    Route(&'a RouteKey),
    Neigh(&'a RawLink, IpAddr),
    Fdb(&'a RawLink, MacAddr),
}

impl Question<'_> {
    /// The kernel's own question. It has none for a route of another table than `main`, for an IPv6 one (measured on
    /// 6.18: it answers with one of several of equal destination), and tells one remote of a group MAC only.
    fn message(&self) -> Option<RouteNetlinkMessage> {
        match self {
            Self::Route(key) if key.table == RT_TABLE_MAIN && key.dst.is_ipv4() => {
                Some(encode::route_match(key.dst.network()))
            }
            Self::Neigh(link, ip) => Some(encode::neigh(link.index, *ip)),
            Self::Fdb(link, mac) if mac.is_unicast() => Some(encode::fdb_entry(link.index, *mac)),
            Self::Route(_) | Self::Fdb(..) => None,
        }
    }
}

/// A table that must be listed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Table {
    V4(u32),
    V6(u32),
    Fdb(IfName),
}

struct Reading<'a> {
    scope: &'a Scope,
    links: &'a Links<'a>,
    state: State,
    tables: BTreeSet<Table>,
    /// Names of links that are not in scope.
    others: BTreeMap<IfIndex, Option<IfName>>,
}

impl Reading<'_> {
    fn ask(&mut self, socket: &mut Socket, questions: &[Question<'_>]) -> Result<(), KernelError> {
        let mut requests = Requests::default();
        let mut asked = Vec::new();
        for question in questions {
            match question.message() {
                Some(message) => {
                    requests.push_route(message, 0);
                    asked.push(question);
                }
                None => self.list_for(question),
            }
        }
        let answers = socket.ask(&mut requests)?;
        for (question, answer) in asked.into_iter().zip(answers) {
            self.take(socket, question, answer)?;
        }
        Ok(())
    }

    fn list_for(&mut self, question: &Question<'_>) {
        self.tables.insert(match question {
            Question::Route(key) if key.dst.is_ipv4() => Table::V4(key.table),
            Question::Route(key) => Table::V6(key.table),
            Question::Fdb(link, _) | Question::Neigh(link, _) => Table::Fdb(link.name.clone()),
        });
    }

    fn take(
        &mut self,
        socket: &mut Socket,
        question: &Question<'_>,
        answer: Result<RouteNetlinkMessage, KernelError>,
    ) -> Result<(), KernelError> {
        match (question, answer) {
            (Question::Route(key), answer) => self.take_route(socket, key, answer),
            (_, Err(err)) if matches!(err.class, ErrorClass::NotFound | ErrorClass::NoDevice) => Ok(()),
            (_, Err(err)) => Err(err),
            (Question::Neigh(link, ip), Ok(answer)) => {
                let message = only!(answer, RouteNetlinkMessage::NewNeighbour);
                let found = message.as_ref().and_then(decode::neigh);
                let (link, ip) = (link.name.clone(), *ip);
                let entry = found.map(|(_, _, mac)| (NeighKey { link, ip }, Neigh { mac }));
                self.state.neighs.extend(entry);
                Ok(())
            }
            (Question::Fdb(link, _), Ok(answer)) => {
                let message = only!(answer, RouteNetlinkMessage::NewNeighbour);
                let found = message.as_ref().and_then(decode::fdb);
                let link = link.name.clone();
                self.state
                    .fdb
                    .extend(found.map(|(_, mac, remote)| FdbKey { link, mac, remote }));
                Ok(())
            }
        }
    }

    /// The kernel tells the best match of a destination. It is the route itself, or, where it has a shorter prefix or
    /// there is none, shows that the route is absent; every other answer leaves that open.
    fn take_route(
        &mut self,
        socket: &mut Socket,
        key: &RouteKey,
        answer: Result<RouteNetlinkMessage, KernelError>,
    ) -> Result<(), KernelError> {
        match answer.map(|answer| only!(answer, RouteNetlinkMessage::NewRoute)) {
            Ok(Some(message)) => match matched(&message) {
                Some(found) if found == *key => {
                    if let Some(route) = decode::route(&message) {
                        self.put_route(socket, &route)?;
                    }
                }
                Some(found) if found.table == key.table && found.dst.prefix() < key.dst.prefix() => {}
                Some(_) | None => self.list_for(&Question::Route(key)),
            },
            Ok(None) => self.list_for(&Question::Route(key)),
            Err(err) if err.class == ErrorClass::Unreachable => {}
            Err(err) if err.class == ErrorClass::Busy => return Err(err),
            Err(_) => self.list_for(&Question::Route(key)),
        }
        Ok(())
    }

    fn put_route(&mut self, socket: &mut Socket, route: &RawRoute) -> Result<(), KernelError> {
        let mut links = self.links.values();
        let in_scope = |content: &LinkScope| match route.table {
            RT_TABLE_MAIN => content.routes,
            other => content.other_tables.contains(&other),
        };
        let link = links.find(|(link, content)| link.index == route.oif && in_scope(content));
        let name = match link {
            Some((link, _)) => Some(link.name.clone()),
            None if self.is_marked(route) => self.name_of(socket, route.oif)?,
            None => None,
        };
        self.state
            .routes
            .extend(name.map(|name| observe::route_of(name, route)));
        Ok(())
    }

    fn is_marked(&self, route: &RawRoute) -> bool {
        let marked = self.scope.marked.as_ref();
        marked.is_some_and(|marked| {
            route.table == RT_TABLE_MAIN && route.protocol == marked.protocol && marked.covers(route.dst)
        })
    }

    /// The name of a link that is not in scope; none if it is gone meanwhile. Asked for once.
    fn name_of(&mut self, socket: &mut Socket, index: IfIndex) -> Result<Option<IfName>, KernelError> {
        if let Some(known) = self.others.get(&index) {
            return Ok(known.clone());
        }
        let found = observe::names_of(socket, [index].into())?.remove(&index);
        self.others.insert(index, found.clone());
        Ok(found)
    }

    /// Lists the tables whose single objects could not be asked for.
    fn list(&mut self, socket: &mut Socket, spots: &BTreeSet<Spot>) -> Result<(), KernelError> {
        let mut listed = State::default();
        for table in &self.tables {
            match table {
                Table::V4(RT_TABLE_MAIN) => {
                    marked::read(socket, self.scope, AddressFamily::Inet, &mut listed)?;
                }
                Table::V6(RT_TABLE_MAIN) => {
                    marked::read(socket, self.scope, AddressFamily::Inet6, &mut listed)?;
                }
                Table::V4(_) | Table::V6(_) | Table::Fdb(_) => {}
            }
            for (link, content) in self.links.values() {
                let list = |family, table| (family, table);
                let (family, number) = match table {
                    Table::V4(number) => list(AddressFamily::Inet, *number),
                    Table::V6(number) => list(AddressFamily::Inet6, *number),
                    Table::Fdb(name) => {
                        if link.name == *name {
                            observe::fdb(socket, link, &mut listed).or_else(absent)?;
                        }
                        continue;
                    }
                };
                if content.routes && number == RT_TABLE_MAIN || content.other_tables.contains(&number) {
                    observe::routes(socket, link, family, number, &mut listed).or_else(absent)?;
                }
            }
        }
        self.state.absorb(listed.at(spots));
        Ok(())
    }
}

/// A link that went away meanwhile holds nothing.
fn absent(err: KernelError) -> Result<(), KernelError> {
    if err.class == ErrorClass::NoDevice {
        Ok(())
    } else {
        Err(err)
    }
}

/// The key of an IPv4 route, of whatever kind it is.
fn matched(message: &RouteMessage) -> Option<RouteKey> {
    let dst = decode::destination(message)?;
    Some(RouteKey {
        table: decode::table(message),
        dst: IpNetwork::new(dst, message.header.destination_prefix_length).ok()?,
        metric: decode::metric(message),
    })
}
