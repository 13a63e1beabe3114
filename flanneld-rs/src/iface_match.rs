//! The choice of the interface that carries the traffic between nodes, as a function of plain data.
//!
//! The order is upstream's (flannel `main.go`, `pkg/ipmatch/match.go`): with any of the interface flags, all `--iface`
//! in order, then each `--iface-regex`, then `--iface-can-reach`; without them the owner of `--public-ip`, or else the
//! interface of the default route. Some things are kinder than there: a pattern that matches the names of several
//! interfaces takes the first that has the addresses needed, an `--iface` that is an address chooses its owner whatever
//! the family, a default route that spreads over several interfaces takes the first of them by name that can be used,
//! and dual stack needs no default route of IPv6.
//!
//! Start at [`choose`]. Nothing here looks at the host: [`Inventory`] tells what is there.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use flannel_types::PublicAddrs;
use net_types::IfName;
use netlink::inventory::{DefaultTarget, Hop, HostLink, Inventory};
use regex::bytes::Regex;

use crate::config::{IfaceChoice, IfaceRef};
use crate::desired::is_usable_public_ip;

/// How many interfaces an error lists; a busy node has hundreds.
const MAX_LISTED: usize = 16;

/// Which address families the network has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Families {
    /// Whether IPv4 is on.
    pub v4: bool,
    /// Whether IPv6 is on.
    pub v6: bool,
}

/// This node's addresses in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The source address of what this node sends to its peers; the interface holds it.
    pub local: IpAddr,
    /// The address that peers send to.
    pub public_ip: IpAddr,
}

/// The interface that carries the traffic between nodes, and this node's addresses on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Its name.
    pub link: IfName,
    /// This node's IPv4 addresses, if IPv4 is on.
    pub v4: Option<Ends>,
    /// This node's IPv6 addresses, if IPv6 is on.
    pub v6: Option<Ends>,
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

impl IfaceError {
    /// Whether it may be otherwise soon: a host that boots has no default route, or the interface of it no address, before
    /// its network is up. Flags that lead nowhere are more likely wrong.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::NoDefault { miss, .. } => matches!(miss, Miss::NoDefaultRoute | Miss::NoAddress(..)),
            Self::NoMatch { .. } => false,
        }
    }
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
    /// The interface has no address of a family that peers could send to.
    #[error("failed to find {1} address for interface {0}")]
    NoAddress(IfName, &'static str),
    /// In dual stack, the default routes lead through different interfaces; the text is upstream's.
    #[error("v6 default route interface {v6} must be the same with v4 default route interface {v4}")]
    TwoDefaultRoutes {
        /// IPv4's.
        v4: IfName,
        /// IPv6's.
        v6: IfName,
    },
    /// The kernel names no MTU for the interface.
    #[error("failed to determine MTU for {0} interface")]
    NoMtu(IfName),
}

/// The interfaces of a host that have the addresses that are needed, as an error lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    needed: &'static str,
    links: Vec<(IfName, IpAddr)>,
}

/// Chooses the external interface of a host: one that has an address of each family that is on.
///
/// `can_reach` is the kernel's route to the address of `--iface-can-reach`, `None` if none leads there.
///
/// # Errors
/// Says why each way led nowhere and which interfaces could be chosen.
pub fn choose(
    choice: &IfaceChoice,
    public: PublicAddrs,
    families: Families,
    host: &Inventory,
    can_reach: Option<&Hop>,
) -> Result<External, IfaceError> {
    let search = Search { families, host };
    let candidates = || Candidates::of(&search);
    let found = if choice.is_empty() {
        search.by_default(public).map_err(|miss| IfaceError::NoDefault {
            miss,
            candidates: candidates(),
        })?
    } else {
        search
            .by_flags(choice, can_reach)
            .map_err(|misses| IfaceError::NoMatch {
                misses,
                candidates: candidates(),
            })?
    };
    let ends = |own: IpAddr, public: Option<IpAddr>| {
        let public_ip = public.unwrap_or(own);
        let local = if holds(found.link, public_ip) {
            public_ip
        } else {
            own
        };
        Ends { local, public_ip }
    };
    let (v4, v6) = (found.v4.map(IpAddr::V4), found.v6.map(IpAddr::V6));
    Ok(External {
        link: found.link.name.clone(),
        v4: v4.map(|own| ends(own, public.v4.map(IpAddr::V4))),
        v6: v6.map(|own| ends(own, public.v6.map(IpAddr::V6))),
        mtu_bytes: found.link.mtu_bytes,
        alternatives: found.alternatives,
    })
}

fn holds(link: &HostLink, ip: IpAddr) -> bool {
    link.addrs.iter().any(|addr| addr.addr.ip() == ip)
}

/// A link with the address to use on it in each family that is on.
struct Found<'a> {
    link: &'a HostLink,
    v4: Option<Ipv4Addr>,
    v6: Option<Ipv6Addr>,
    alternatives: Vec<IfName>,
}

/// A search on a host for what some families need.
struct Search<'a> {
    families: Families,
    host: &'a Inventory,
}

impl<'a> Search<'a> {
    /// A link with an address that is given, and the best one in the other family.
    fn with(&self, link: &'a HostLink, given: Option<IpAddr>) -> Result<Found<'a>, Miss> {
        if link.mtu_bytes == 0 {
            return Err(Miss::NoMtu(link.name.clone()));
        }
        let missing = |family| Miss::NoAddress(link.name.clone(), family);
        let v4 = match given {
            _ if !self.families.v4 => None,
            Some(IpAddr::V4(ip)) => Some(ip),
            Some(IpAddr::V6(_)) | None => Some(best_v4(link).ok_or_else(|| missing("IPv4"))?),
        };
        let v6 = match given {
            _ if !self.families.v6 => None,
            Some(IpAddr::V6(ip)) => Some(ip),
            Some(IpAddr::V4(_)) | None => Some(best_v6(link).ok_or_else(|| missing("IPv6"))?),
        };
        Ok(Found {
            link,
            v4,
            v6,
            alternatives: Vec::new(),
        })
    }

    fn by_default(&self, public: PublicAddrs) -> Result<Found<'a>, Miss> {
        let v4 = public.v4.filter(|_| self.families.v4).map(IpAddr::V4);
        let v6 = public.v6.filter(|_| self.families.v6).map(IpAddr::V6);
        if let Some(ip) = v4.or(v6) {
            return self.owner(ip);
        }
        let (routes, others) = if self.families.v4 {
            (&self.host.default_routes_v4, &self.host.default_routes_v6)
        } else {
            (&self.host.default_routes_v6, &self.host.default_routes_v4)
        };
        let route = routes.first().ok_or(Miss::NoDefaultRoute)?;
        let found = match &route.target {
            DefaultTarget::Single(hop) => self.named(&hop.link)?,
            DefaultTarget::Several(hops) => self.first_by_name(hops)?,
        };
        // A cluster with addresses of its own (RFC 4193) may have no default route of IPv6 at all.
        match others.first().map(|route| &route.target) {
            Some(DefaultTarget::Single(hop))
                if self.families.v4 && self.families.v6 && hop.link != found.link.name =>
            {
                let v4 = found.link.name.clone();
                let v6 = hop.link.clone();
                Err(Miss::TwoDefaultRoutes { v4, v6 })
            }
            Some(DefaultTarget::Single(_) | DefaultTarget::Several(_)) | None => Ok(found),
        }
    }

    /// Of several next hops the first interface by name that can be used: names stay over a restart of the host, the
    /// order of next hops need not.
    fn first_by_name(&self, hops: &[Hop]) -> Result<Found<'a>, Miss> {
        let names: BTreeSet<&IfName> = hops.iter().map(|hop| &hop.link).collect();
        let mut miss = Miss::HiddenNextHops;
        for name in &names {
            match self.named(name) {
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
    fn by_flags(&self, choice: &IfaceChoice, can_reach: Option<&Hop>) -> Result<Found<'a>, Vec<Miss>> {
        let by_iface = choice.ifaces.iter().map(|iface| match iface {
            IfaceRef::Ip(ip) => self.owner(*ip),
            IfaceRef::Name(name) => self.named(name),
        });
        let by_regex = choice.regexes.iter().map(|regex| self.matching(regex));
        let by_route = choice.can_reach.iter().map(|ip| self.routed(*ip, can_reach));
        let mut misses = Vec::new();
        for outcome in by_iface.chain(by_regex).chain(by_route) {
            match outcome {
                Ok(found) => return Ok(found),
                Err(miss) => misses.push(miss),
            }
        }
        Err(misses)
    }

    /// The interface that has an address. The address is then used as it is, also when it is deprecated.
    fn owner(&self, ip: IpAddr) -> Result<Found<'a>, Miss> {
        let owns = |link: &&HostLink| holds(link, ip);
        let link = self.host.links.iter().find(owns).ok_or(Miss::NoOwner(ip))?;
        self.with(link, Some(ip))
    }

    fn named(&self, name: &IfName) -> Result<Found<'a>, Miss> {
        let link = self.host.links.iter().find(|link| link.name == *name);
        self.with(link.ok_or_else(|| Miss::NoLink(name.clone()))?, None)
    }

    /// The first interface with an address that matches, else the first whose name does. In dual stack an address of
    /// either family chooses the interface.
    fn matching(&self, regex: &Regex) -> Result<Found<'a>, Miss> {
        let is_match = |ip: &IpAddr| regex.is_match(ip.to_string().as_bytes());
        for link in &self.host.links {
            let found = self.addresses(link).into_iter().find(is_match);
            if let Some(found) = found.and_then(|ip| self.with(link, Some(ip)).ok()) {
                return Ok(found);
            }
        }
        let named = self
            .host
            .links
            .iter()
            .filter(|link| regex.is_match(link.name.as_str().as_bytes()));
        let outcomes: Vec<_> = named.map(|link| self.with(link, None)).collect();
        let first = outcomes.iter().position(Result::is_ok).unwrap_or_default();
        let no_pattern = || Err(Miss::NoPattern(regex.as_str().to_owned()));
        outcomes.into_iter().nth(first).unwrap_or_else(no_pattern)
    }

    /// The interface that the kernel routes by, with the source address that it would use: on a host whose address is on
    /// another interface than the one that carries its traffic, that is the right one.
    fn routed(&self, ip: IpAddr, route: Option<&Hop>) -> Result<Found<'a>, Miss> {
        let hop = route.ok_or(Miss::NoRoute(ip))?;
        let link = self.host.links.iter().find(|link| link.name == hop.link);
        let link = link.ok_or_else(|| Miss::NoLink(hop.link.clone()))?;
        if link.loopback {
            return Err(Miss::OwnAddress(ip));
        }
        let source = hop.source.filter(|source| match source {
            IpAddr::V4(_) => true,
            IpAddr::V6(ip) => !ip.is_unicast_link_local(),
        });
        self.with(link, source)
    }

    /// The addresses of a link that peers could send to in the families that are on, the best ones first.
    fn addresses(&self, link: &HostLink) -> Vec<IpAddr> {
        let v4 = addresses_v4(link).into_iter().map(IpAddr::V4);
        let v6 = addresses_v6(link).into_iter().map(IpAddr::V6);
        let v4 = v4.filter(|_| self.families.v4);
        v4.chain(v6.filter(|_| self.families.v6)).collect()
    }
}

fn best_v4(link: &HostLink) -> Option<Ipv4Addr> {
    addresses_v4(link).first().copied()
}

fn best_v6(link: &HostLink) -> Option<Ipv6Addr> {
    addresses_v6(link).first().copied()
}

/// The IPv4 addresses of a link that peers could send to, the best one first (flannel `pkg/ip/iface.go`).
fn addresses_v4(link: &HostLink) -> Vec<Ipv4Addr> {
    let usable = link.addrs.iter().filter(|addr| !addr.deprecated);
    let mut usable: Vec<_> = usable
        .filter_map(|addr| match addr.addr.ip() {
            IpAddr::V4(ip) if is_usable_public_ip(ip.into()) => Some((ip, addr)),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
        .collect();
    usable.sort_by_key(|(ip, addr)| (ip.is_link_local(), !addr.permanent, addr.temporary));
    usable.into_iter().map(|(ip, _)| ip).collect()
}

/// The IPv6 addresses of a link that peers could send to, the best one first; link-local ones are not, because nobody
/// knows on which link they are.
fn addresses_v6(link: &HostLink) -> Vec<Ipv6Addr> {
    let usable = link.addrs.iter().filter(|addr| !addr.deprecated);
    let mut usable: Vec<_> = usable
        .filter_map(|addr| match addr.addr.ip() {
            IpAddr::V6(ip) if is_usable_public_ip(ip.into()) => Some((ip, addr)),
            IpAddr::V4(_) | IpAddr::V6(_) => None,
        })
        .collect();
    usable.sort_by_key(|(_, addr)| (addr.tentative, !addr.permanent, addr.temporary));
    usable.into_iter().map(|(ip, _)| ip).collect()
}

impl Candidates {
    fn of(search: &Search<'_>) -> Self {
        let candidate = |link: &HostLink| {
            search.with(link, None).ok()?;
            Some((link.name.clone(), *search.addresses(link).first()?))
        };
        Self {
            needed: match search.families {
                Families { v4: true, v6: true } => "an IPv4 and an IPv6 address",
                Families { v4: false, v6: true } => "an IPv6 address",
                Families { v6: false, .. } => "an IPv4 address",
            },
            links: search.host.links.iter().filter_map(candidate).collect(),
        }
    }
}

impl fmt::Display for Candidates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.links.is_empty() {
            return write!(f, "no interface of this host has {}", self.needed);
        }
        let listed: Vec<String> = self
            .links
            .iter()
            .take(MAX_LISTED)
            .map(|(name, ip)| format!("{name} ({ip})"))
            .collect();
        write!(f, "this host has {}", listed.join(", "))?;
        match self.links.len().saturating_sub(MAX_LISTED) {
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
