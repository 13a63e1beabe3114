//! Reads single routes, neighbours and forwarding entries instead of whole tables.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::registry::RT_TABLE_MAIN;
use net_types::{IfName, MacAddr};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netstate::{ErrorClass, FdbKey, KernelError, LinkScope, Neigh, NeighKey, RouteKey, Scope, Spot, State};

use crate::attr::only;
use crate::decode::{self, RawLink, RawRoute};
use crate::encode;
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
        Spot::Route(key) if key.table == RT_TABLE_MAIN && scope.blackholes_of.is_some() => {
            Some(Question::Route(key))
        }
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
            self.take(question, answer)?;
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
        question: &Question<'_>,
        answer: Result<RouteNetlinkMessage, KernelError>,
    ) -> Result<(), KernelError> {
        match (question, answer) {
            (Question::Route(key), answer) => self.take_route(key, answer),
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
        key: &RouteKey,
        answer: Result<RouteNetlinkMessage, KernelError>,
    ) -> Result<(), KernelError> {
        match answer.map(|answer| only!(answer, RouteNetlinkMessage::NewRoute)) {
            Ok(Some(message)) => match matched(&message) {
                Some(found) if found == *key => {
                    self.put_route(decode::route(&message));
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

    fn put_route(&mut self, found: Option<RawRoute>) {
        let Some(route) = found else { return };
        let mut links = self.links.values();
        if let Some((link, _)) = links.find(|(link, _)| link.index == route.oif) {
            let (key, route) = observe::route_of(link.name.clone(), &route);
            self.state.routes.insert(key, route);
        }
    }

    /// Lists the tables whose single objects could not be asked for.
    fn list(&mut self, socket: &mut Socket, spots: &BTreeSet<Spot>) -> Result<(), KernelError> {
        let mut listed = State::default();
        for table in &self.tables {
            match table {
                Table::V4(RT_TABLE_MAIN) => {
                    observe::blackholes(socket, self.scope, AddressFamily::Inet, &mut listed)?;
                }
                Table::V6(RT_TABLE_MAIN) => {
                    observe::blackholes(socket, self.scope, AddressFamily::Inet6, &mut listed)?;
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
