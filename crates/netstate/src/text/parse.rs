use std::collections::BTreeMap;
use std::str::FromStr;

use ipnetwork::IpNetwork;
use net_types::registry::RT_TABLE_MAIN;

use super::TextError;
use super::words::Words;
use crate::{
    Addr, AddrKey, AdminState, BridgePort, FdbKey, Ipip, Link, LinkChange, LinkKind, Neigh, NeighKey,
    NetnsLabel, Nexthop, ObjectKey, Op, Route, RouteKey, RouteKind, State, SysctlKey, VethPeer, Vxlan,
};

const OBJECT: &str = "link, addr, route, neigh, fdb or sysctl";
const LINK_NAME: &str = "the name of a link";
const IP: &str = "an IP address";
const NETWORK: &str = "an address with its prefix length";
const MAC: &str = "a MAC address";
const NUMBER: &str = "a number in range";

impl FromStr for State {
    type Err = TextError;

    fn from_str(s: &str) -> Result<Self, TextError> {
        let mut state = Self::default();
        for (index, line) in s.lines().enumerate() {
            if line.trim().is_empty() || line.trim_start().starts_with('#') {
                continue;
            }
            read_object(&mut state, line).map_err(|error| TextError::Line {
                number: index + 1,
                source: Box::new(error),
            })?;
        }
        Ok(state)
    }
}

impl FromStr for Op {
    type Err = TextError;

    fn from_str(s: &str) -> Result<Self, TextError> {
        let mut words = Words::split(s)?;
        let verb = words.next("add, set, replace or del")?;
        let object = words.next(OBJECT)?;
        let op = match (verb.as_str(), object.as_str()) {
            ("add", "link") => link(&mut words).map(|(name, link)| Self::AddLink(name, link)),
            ("replace", "link") => link(&mut words).map(|(name, link)| Self::ReplaceLink(name, link)),
            ("set", "link") => Ok(Self::SetLink(words.value(LINK_NAME)?, change(&mut words)?)),
            ("del", "link") => words.value(LINK_NAME).map(Self::DelLink),
            ("add", "addr") => addr(&mut words).map(|(key, addr)| Self::AddAddr(key, addr)),
            ("del", "addr") => addr_key(&mut words).map(Self::DelAddr),
            ("add", "route") => route(&mut words).map(|(key, route)| Self::AddRoute(key, route)),
            ("replace", "route") => route(&mut words).map(|(key, route)| Self::ReplaceRoute(key, route)),
            ("del", "route") => route(&mut words).map(|(key, route)| Self::DelRoute(key, route)),
            ("set", "neigh") => neigh(&mut words).map(|(key, neigh)| Self::SetNeigh(key, neigh)),
            ("del", "neigh") => neigh_key(&mut words).map(Self::DelNeigh),
            ("set", "fdb") => fdb(&mut words).map(Self::SetFdb),
            ("del", "fdb") => fdb(&mut words).map(Self::DelFdb),
            ("set", "sysctl") => sysctl(&mut words).map(|(key, value)| Self::SetSysctl(key, value)),
            _ => Err(TextError::Unexpected {
                word: format!("{verb} {object}"),
                expected: "add, set, replace or del with an object that knows it",
            }),
        }?;
        words.end()?;
        Ok(op)
    }
}

impl FromStr for ObjectKey {
    type Err = TextError;

    fn from_str(s: &str) -> Result<Self, TextError> {
        let mut words = Words::split(s)?;
        let object = words.next(OBJECT)?;
        let key = match object.as_str() {
            "link" => words.value(LINK_NAME).map(Self::Link),
            "addr" => addr_key(&mut words).map(Self::Addr),
            "route" => {
                let dst = words.value(NETWORK)?;
                let mut given = Attributes::read(&mut words, &["table", "metric"], &[])?;
                route_key(dst, &mut given).map(Self::Route)
            }
            "neigh" => neigh_key(&mut words).map(Self::Neigh),
            "fdb" => fdb(&mut words).map(Self::Fdb),
            "sysctl" => sysctl_key(&mut words).map(Self::Sysctl),
            _ => Err(TextError::Unexpected {
                word: object,
                expected: OBJECT,
            }),
        }?;
        words.end()?;
        Ok(key)
    }
}

fn read_object(state: &mut State, line: &str) -> Result<(), TextError> {
    let mut words = Words::split(line)?;
    let object = words.next(OBJECT)?;
    let fresh = match object.as_str() {
        "link" => insert(&mut state.links, link(&mut words)?),
        "addr" => insert(&mut state.addrs, addr(&mut words)?),
        "route" => insert(&mut state.routes, route(&mut words)?),
        "neigh" => insert(&mut state.neighs, neigh(&mut words)?),
        "fdb" => state.fdb.insert(fdb(&mut words)?),
        "sysctl" => insert(&mut state.sysctls, sysctl(&mut words)?),
        _ => {
            return Err(TextError::Unexpected {
                word: object,
                expected: OBJECT,
            });
        }
    };
    words.end()?;
    if fresh {
        return Ok(());
    }
    Err(TextError::Twice(line.to_owned()))
}

fn insert<K: Ord, V>(map: &mut BTreeMap<K, V>, (key, value): (K, V)) -> bool {
    map.insert(key, value).is_none()
}

/// The attributes of an object in whatever order they were written.
struct Attributes(BTreeMap<String, Option<String>>);

impl Attributes {
    /// Takes all words that are left: `valued` attributes with the word after them, and bare `flags`.
    fn read(words: &mut Words, valued: &[&str], flags: &[&str]) -> Result<Self, TextError> {
        let mut given = BTreeMap::new();
        while let Some(word) = words.optional() {
            let value = if valued.contains(&word.as_str()) {
                Some(words.next("the value of an attribute")?)
            } else if flags.contains(&word.as_str()) {
                None
            } else {
                return Err(TextError::Unexpected {
                    word,
                    expected: "an attribute of this object",
                });
            };
            if given.insert(word.clone(), value).is_some() {
                return Err(TextError::Twice(word));
            }
        }
        Ok(Self(given))
    }

    /// Whether a flag was given.
    fn flag(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    /// The value of an attribute if it was given.
    fn value<T: FromStr>(&mut self, name: &str, expected: &'static str) -> Result<Option<T>, TextError> {
        match self.0.remove(name).flatten() {
            None => Ok(None),
            Some(word) => match word.parse() {
                Ok(value) => Ok(Some(value)),
                Err(_) => Err(TextError::Unexpected { word, expected }),
            },
        }
    }

    /// Which one of two flags was given: `true` for the first.
    fn either(&mut self, object: &'static str, first: &str, second: &str) -> Result<bool, TextError> {
        match (self.flag(first), self.flag(second)) {
            (true, true) => Err(TextError::Twice(format!("{first} {second}"))),
            (false, false) if first == "up" => Err(needs(object, "up or down")),
            (false, false) => Err(needs(object, "learning or nolearning")),
            (first, _) => Ok(first),
        }
    }

    /// Checks that every attribute given was one of this object's kind.
    fn end(self) -> Result<(), TextError> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(word) => Err(TextError::Unexpected {
                word,
                expected: "an attribute of this kind of object",
            }),
        }
    }
}

fn needs(object: &'static str, missing: &'static str) -> TextError {
    TextError::Needs { object, missing }
}

fn link(words: &mut Words) -> Result<(net_types::IfName, Link), TextError> {
    const VALUED: &[&str] = &[
        "vni", "port", "local", "parent", "peer", "peermac", "netns", "mac", "mtu", "master",
    ];
    const FLAGS: &[&str] = &[
        "learning",
        "nolearning",
        "gbp",
        "txcsum",
        "notxcsum",
        "up",
        "down",
        "hairpin",
        "isolated",
    ];
    const KIND: &str = "vxlan, wireguard, ipip, bridge, veth, physical or other";
    let name = words.value(LINK_NAME)?;
    let kind = words.next(KIND)?;
    let other = match kind.as_str() {
        "other" => words.next("the kind of the link")?,
        _ => String::new(),
    };
    let mut given = Attributes::read(words, VALUED, FLAGS)?;
    let kind = match kind.as_str() {
        "vxlan" => LinkKind::Vxlan(vxlan(&mut given)?),
        "wireguard" => LinkKind::Wireguard,
        "ipip" => LinkKind::Ipip(Ipip {
            local: given.value("local", "an IPv4 address")?,
        }),
        "bridge" => LinkKind::Bridge,
        "veth" => LinkKind::Veth(veth_peer(&mut given)?),
        "physical" | "other" => LinkKind::Other(other),
        _ => {
            return Err(TextError::Unexpected {
                word: kind,
                expected: KIND,
            });
        }
    };
    let link = Link {
        kind,
        mac: given.value("mac", MAC)?,
        mtu_bytes: given.value("mtu", NUMBER)?,
        admin: if given.either("link", "up", "down")? {
            AdminState::Up
        } else {
            AdminState::Down
        },
        port: given.value("master", LINK_NAME)?.map(|bridge| BridgePort {
            bridge,
            hairpin: given.flag("hairpin"),
            isolated: given.flag("isolated"),
        }),
    };
    given.end()?;
    Ok((name, link))
}

fn vxlan(given: &mut Attributes) -> Result<Vxlan, TextError> {
    let vni: u32 = given.value("vni", NUMBER)?.ok_or_else(|| needs("vxlan", "vni"))?;
    Ok(Vxlan {
        vni: vni.try_into().map_err(|_| TextError::Unexpected {
            word: vni.to_string(),
            expected: NUMBER,
        })?,
        port: given
            .value("port", NUMBER)?
            .ok_or_else(|| needs("vxlan", "port"))?,
        local: given.value("local", IP)?,
        parent: given.value("parent", LINK_NAME)?,
        learning: given.either("vxlan", "learning", "nolearning")?,
        gbp: given.flag("gbp"),
        tx_checksum: match (given.flag("txcsum"), given.flag("notxcsum")) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        },
    })
}

fn veth_peer(given: &mut Attributes) -> Result<Option<VethPeer>, TextError> {
    let Some(name) = given.value("peer", LINK_NAME)? else {
        return Ok(None);
    };
    Ok(Some(VethPeer {
        name,
        mac: given.value("peermac", MAC)?,
        netns: given.value("netns", "a label")?.map(NetnsLabel),
    }))
}

fn change(words: &mut Words) -> Result<LinkChange, TextError> {
    let change = words.next("an attribute of a link that can be changed")?;
    Ok(match change.as_str() {
        "up" => LinkChange::Admin(AdminState::Up),
        "down" => LinkChange::Admin(AdminState::Down),
        "mtu" => LinkChange::Mtu(words.value(NUMBER)?),
        "mac" => LinkChange::Mac(words.value(MAC)?),
        "local" => LinkChange::VxlanLocal(words.value(IP)?),
        "learning" => LinkChange::VxlanLearning(true),
        "nolearning" => LinkChange::VxlanLearning(false),
        "txcsum" => LinkChange::VxlanTxChecksum(true),
        "notxcsum" => LinkChange::VxlanTxChecksum(false),
        "ipiplocal" => LinkChange::IpipLocal(words.value("an IPv4 address")?),
        "master" => {
            let bridge = words.value(LINK_NAME)?;
            let mut given = Attributes::read(words, &[], &["hairpin", "isolated"])?;
            LinkChange::Port(BridgePort {
                bridge,
                hairpin: given.flag("hairpin"),
                isolated: given.flag("isolated"),
            })
        }
        _ => {
            return Err(TextError::Unexpected {
                word: change,
                expected: "an attribute of a link that can be changed",
            });
        }
    })
}

fn addr_key(words: &mut Words) -> Result<AddrKey, TextError> {
    Ok(AddrKey {
        link: words.value(LINK_NAME)?,
        addr: words.value(NETWORK)?,
    })
}

fn addr(words: &mut Words) -> Result<(AddrKey, Addr), TextError> {
    let key = addr_key(words)?;
    let mut given = Attributes::read(words, &["broadcast"], &["nodad"])?;
    let addr = Addr {
        broadcast: given.value("broadcast", "an IPv4 address")?,
        nodad: given.flag("nodad"),
    };
    Ok((key, addr))
}

fn route_key(dst: IpNetwork, given: &mut Attributes) -> Result<RouteKey, TextError> {
    Ok(RouteKey {
        table: given.value("table", NUMBER)?.unwrap_or(RT_TABLE_MAIN),
        dst,
        metric: given.value("metric", NUMBER)?.unwrap_or(0),
    })
}

fn route(words: &mut Words) -> Result<(RouteKey, Route), TextError> {
    const VALUED: &[&str] = &[
        "via", "dev", "proto", "src", "mtu", "advmss", "scope", "table", "metric",
    ];
    let dst = words.value(NETWORK)?;
    let mut given = Attributes::read(words, VALUED, &["blackhole", "onlink"])?;
    let key = route_key(dst, &mut given)?;
    let kind = if given.flag("blackhole") {
        RouteKind::Blackhole
    } else {
        RouteKind::Unicast(Nexthop {
            link: given
                .value("dev", LINK_NAME)?
                .ok_or_else(|| needs("route", "dev or blackhole"))?,
            gateway: given.value("via", IP)?,
            onlink: given.flag("onlink"),
        })
    };
    let route = Route {
        kind,
        protocol: given
            .value("proto", NUMBER)?
            .ok_or_else(|| needs("route", "proto"))?,
        source: given.value("src", IP)?,
        mtu_bytes: given.value("mtu", NUMBER)?,
        advmss_bytes: given.value("advmss", NUMBER)?,
        scope: given.value("scope", NUMBER)?,
    };
    given.end()?;
    Ok((key, route))
}

fn neigh_key(words: &mut Words) -> Result<NeighKey, TextError> {
    Ok(NeighKey {
        link: words.value(LINK_NAME)?,
        ip: words.value(IP)?,
    })
}

fn neigh(words: &mut Words) -> Result<(NeighKey, Neigh), TextError> {
    let key = neigh_key(words)?;
    words.keyword("mac")?;
    Ok((
        key,
        Neigh {
            mac: words.value(MAC)?,
        },
    ))
}

fn fdb(words: &mut Words) -> Result<FdbKey, TextError> {
    let (link, mac) = (words.value(LINK_NAME)?, words.value(MAC)?);
    words.keyword("remote")?;
    let remote = words.value(IP)?;
    Ok(FdbKey { link, mac, remote })
}

fn sysctl_key(words: &mut Words) -> Result<SysctlKey, TextError> {
    const PATH: &str = "a path below /proc/sys";
    let word = words.next(PATH)?;
    SysctlKey::new(&word).ok_or(TextError::Unexpected { word, expected: PATH })
}

fn sysctl(words: &mut Words) -> Result<(SysctlKey, String), TextError> {
    Ok((sysctl_key(words)?, words.next("a value")?))
}
