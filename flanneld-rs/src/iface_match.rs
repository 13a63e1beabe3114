//! The choice of the interface that carries the traffic between nodes, as a function of plain data.
//!
//! The order is upstream's (flannel `main.go`, `pkg/ipmatch/match.go`): with any of the interface flags, all `--iface`
//! in order, then each `--iface-regex`, then `--iface-can-reach`; without them the owner of `--public-ip`, or else the
//! interface of the default route. Three things are kinder than there: a pattern that matches the names of several
//! interfaces takes the first that has an IPv4 address, an `--iface` that is an IPv6 address chooses its owner, and a
//! default route that spreads over several interfaces takes the first of them by name that can be used.
//!
//! Start at [`choose`]. Nothing here looks at the host: [`Inventory`] tells what is there.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use net_types::IfName;
use netlink::inventory::{DefaultTarget, Hop, HostAddr, HostLink, Inventory};
use regex::bytes::Regex;

use crate::config::{IfaceChoice, IfaceRef};

/// How many interfaces an error lists; a busy node has hundreds.
const MAX_LISTED: usize = 16;

/// The interface that carries the traffic between nodes, and this node's addresses on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Its name.
    pub link: IfName,
    /// The source address of what this node sends to its peers; the interface holds it.
    pub local: Ipv4Addr,
    /// The address that peers send to.
    pub public_ip: Ipv4Addr,
    /// Its largest payload in bytes.
    pub mtu_bytes: u32,
    /// The other interfaces that the default route spreads over, if that decided.
    pub alternatives: Vec<IfName>,
}

/// Why no interface could be chosen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IfaceError {
    /// No interface flag is given, and what stands in for them leads to no interface.
    #[error("{miss}: choose an interface with --iface; {candidates}")]
    NoDefault {
        /// What led nowhere.
        miss: Miss,
        /// What could be chosen.
        candidates: Candidates,
    },
    /// None of the interface flags leads to an interface; the text up to the colon is upstream's.
    #[error(
        "Failed to find interface to use that matches the interfaces and/or regexes provided: {}; correct the \
         interface flags, {candidates}",
        Listed(misses)
    )]
    NoMatch {
        /// What led nowhere, flag by flag.
        misses: Vec<Miss>,
        /// What could be chosen.
        candidates: Candidates,
    },
}

/// Why one way to an interface led nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Miss {
    /// No interface has this address.
    #[error("no interface with given IP found ({0})")]
    NoOwner(IpAddr),
    /// No interface has this name.
    #[error("no interface is named {0}")]
    NoLink(IfName),
    /// No interface has an address or name that matches this pattern.
    #[error("no interface matches the pattern {0:?}")]
    NoPattern(String),
    /// No route leads to this address.
    #[error("no route leads to {0}")]
    NoRoute(IpAddr),
    /// The route to this address does not leave the host.
    #[error("{0} is an address of this host itself")]
    OwnAddress(IpAddr),
    /// The main routing table has no default route.
    #[error("unable to find default route")]
    NoDefaultRoute,
    /// The default route is a next-hop object that the kernel does not show.
    #[error("found default route but could not determine interface, as its next hops are hidden")]
    HiddenNextHops,
    /// The interface has no IPv4 address that peers could send to.
    #[error("failed to find IPv4 address for interface {0}")]
    NoAddress(IfName),
    /// The kernel names no MTU for the interface.
    #[error("failed to determine MTU for {0} interface")]
    NoMtu(IfName),
}

/// The interfaces of a host that have an IPv4 address, as an error lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates(Vec<(IfName, Ipv4Addr)>);

/// Chooses the external interface of a host.
///
/// `can_reach` is the kernel's route to the address of `--iface-can-reach`, `None` if none leads there.
///
/// # Errors
/// Says why each way led nowhere and which interfaces could be chosen.
pub fn choose(
    choice: &IfaceChoice,
    public_ip: Option<Ipv4Addr>,
    host: &Inventory,
    can_reach: Option<&Hop>,
) -> Result<External, IfaceError> {
    let candidates = || Candidates::of(host);
    let found = if choice.is_empty() {
        by_default(public_ip, host).map_err(|miss| IfaceError::NoDefault {
            miss,
            candidates: candidates(),
        })?
    } else {
        by_flags(choice, host, can_reach).map_err(|misses| IfaceError::NoMatch {
            misses,
            candidates: candidates(),
        })?
    };
    let public_ip = public_ip.unwrap_or(found.ip);
    Ok(External {
        link: found.link.name.clone(),
        local: if holds(found.link, IpAddr::V4(public_ip)) {
            public_ip
        } else {
            found.ip
        },
        public_ip,
        mtu_bytes: found.link.mtu_bytes,
        alternatives: found.alternatives,
    })
}

fn holds(link: &HostLink, ip: IpAddr) -> bool {
    link.addrs.iter().any(|addr| addr.addr.ip() == ip)
}

/// A link with the address to use on it.
struct Found<'a> {
    link: &'a HostLink,
    ip: Ipv4Addr,
    alternatives: Vec<IfName>,
}

impl<'a> Found<'a> {
    fn new(link: &'a HostLink, ip: Ipv4Addr) -> Result<Self, Miss> {
        match link.mtu_bytes {
            0 => Err(Miss::NoMtu(link.name.clone())),
            _ => Ok(Self {
                link,
                ip,
                alternatives: Vec::new(),
            }),
        }
    }

    fn with_best_address(link: &'a HostLink) -> Result<Self, Miss> {
        let best = addresses(link).first().copied();
        Self::new(link, best.ok_or_else(|| Miss::NoAddress(link.name.clone()))?)
    }
}

fn by_default(public_ip: Option<Ipv4Addr>, host: &Inventory) -> Result<Found<'_>, Miss> {
    if let Some(ip) = public_ip {
        return owner(host, ip.into());
    }
    let route = host.default_routes_v4.first().ok_or(Miss::NoDefaultRoute)?;
    match &route.target {
        DefaultTarget::Single(hop) => named(host, &hop.link),
        DefaultTarget::Several(hops) => first_by_name(host, hops),
    }
}

/// Of several next hops the first interface by name that can be used: names stay over a restart of the host, the order
/// of next hops need not.
fn first_by_name<'a>(host: &'a Inventory, hops: &[Hop]) -> Result<Found<'a>, Miss> {
    let names: BTreeSet<&IfName> = hops.iter().map(|hop| &hop.link).collect();
    let mut miss = Miss::HiddenNextHops;
    for name in &names {
        match named(host, name) {
            Ok(found) => {
                let others = names.iter().filter(|other| *other != name);
                let alternatives = others.map(|other| (*other).clone()).collect();
                return Ok(Found {
                    alternatives,
                    ..found
                });
            }
            Err(err) => miss = err,
        }
    }
    Err(miss)
}

/// The first flag that leads to an interface, or why none does.
fn by_flags<'a>(
    choice: &IfaceChoice,
    host: &'a Inventory,
    can_reach: Option<&Hop>,
) -> Result<Found<'a>, Vec<Miss>> {
    let by_iface = choice.ifaces.iter().map(|iface| match iface {
        IfaceRef::Ip(ip) => owner(host, *ip),
        IfaceRef::Name(name) => named(host, name),
    });
    let by_regex = choice.regexes.iter().map(|regex| matching(host, regex));
    let by_route = choice.can_reach.iter().map(|ip| routed(host, *ip, can_reach));
    let mut misses = Vec::new();
    for outcome in by_iface.chain(by_regex).chain(by_route) {
        match outcome {
            Ok(found) => return Ok(found),
            Err(miss) => misses.push(miss),
        }
    }
    Err(misses)
}

/// The interface that has an address. An IPv4 address is then used as it is, also when it is deprecated.
fn owner(host: &Inventory, ip: IpAddr) -> Result<Found<'_>, Miss> {
    let owns = |link: &&HostLink| holds(link, ip);
    let link = host.links.iter().find(owns).ok_or(Miss::NoOwner(ip))?;
    match ip {
        IpAddr::V4(ip) => Found::new(link, ip),
        IpAddr::V6(_) => Found::with_best_address(link),
    }
}

fn named<'a>(host: &'a Inventory, name: &IfName) -> Result<Found<'a>, Miss> {
    let link = host.links.iter().find(|link| link.name == *name);
    Found::with_best_address(link.ok_or_else(|| Miss::NoLink(name.clone()))?)
}

/// The first interface with an address that matches, else the first whose name does.
fn matching<'a>(host: &'a Inventory, regex: &Regex) -> Result<Found<'a>, Miss> {
    for link in &host.links {
        let ip = addresses(link)
            .into_iter()
            .find(|ip| regex.is_match(ip.to_string().as_bytes()));
        if let Some(ip) = ip {
            return Found::new(link, ip);
        }
    }
    let named = host
        .links
        .iter()
        .filter(|link| regex.is_match(link.name.as_str().as_bytes()));
    let outcomes: Vec<_> = named.map(Found::with_best_address).collect();
    let first = outcomes.iter().position(Result::is_ok).unwrap_or_default();
    let no_pattern = || Err(Miss::NoPattern(regex.as_str().to_owned()));
    outcomes.into_iter().nth(first).unwrap_or_else(no_pattern)
}

/// The interface that the kernel routes by, with the source address that it would use: on a host whose address is on
/// another interface than the one that carries its traffic, that is the right one.
fn routed<'a>(host: &'a Inventory, ip: IpAddr, route: Option<&Hop>) -> Result<Found<'a>, Miss> {
    let hop = route.ok_or(Miss::NoRoute(ip))?;
    let link = host.links.iter().find(|link| link.name == hop.link);
    let link = link.ok_or_else(|| Miss::NoLink(hop.link.clone()))?;
    match hop.source {
        _ if link.loopback => Err(Miss::OwnAddress(ip)),
        Some(IpAddr::V4(source)) => Found::new(link, source),
        Some(IpAddr::V6(_)) | None => Found::with_best_address(link),
    }
}

/// The IPv4 addresses of a link that peers could send to, the best one first (flannel `pkg/ip/iface.go`).
fn addresses(link: &HostLink) -> Vec<Ipv4Addr> {
    let usable = link.addrs.iter().filter(|addr| !addr.deprecated);
    let mut usable: Vec<_> = usable
        .filter_map(|addr| Some((ipv4_unicast(addr)?, addr)))
        .collect();
    usable.sort_by_key(|(ip, addr)| (ip.is_link_local(), !addr.permanent, addr.temporary));
    usable.into_iter().map(|(ip, _)| ip).collect()
}

/// The address if it is an IPv4 address of one host, beyond the host itself.
fn ipv4_unicast(addr: &HostAddr) -> Option<Ipv4Addr> {
    let IpAddr::V4(ip) = addr.addr.ip() else {
        return None;
    };
    let elsewhere = ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() || ip.is_broadcast();
    (!elsewhere).then_some(ip)
}

impl Candidates {
    fn of(host: &Inventory) -> Self {
        let candidate = |link: &HostLink| Some((link.name.clone(), *addresses(link).first()?));
        Self(host.links.iter().filter_map(candidate).collect())
    }
}

impl fmt::Display for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("no interface of this host has an IPv4 address");
        }
        let listed: Vec<String> = self
            .0
            .iter()
            .take(MAX_LISTED)
            .map(|(name, ip)| format!("{name} ({ip})"))
            .collect();
        write!(f, "this host has {}", listed.join(", "))?;
        match self.0.len().saturating_sub(MAX_LISTED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Several reasons in one sentence.
struct Listed<'a>(&'a [Miss]);

impl fmt::Display for Listed<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, miss) in self.0.iter().enumerate() {
            let separator = if position == 0 { "" } else { ", " };
            write!(f, "{separator}{miss}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
