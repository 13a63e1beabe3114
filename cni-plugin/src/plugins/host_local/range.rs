use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_types::{CidrError, DecodeError, Object, parse_cidr};
use ipnetwork::IpNetwork;

/// Addresses of one subnet that may be given out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Range {
    /// The subnet, without host bits.
    pub(crate) subnet: IpNetwork,
    /// The first address given out.
    pub(crate) start: IpAddr,
    /// The last address given out.
    pub(crate) end: IpAddr,
    /// The gateway; never given out.
    pub(crate) gateway: IpAddr,
}

/// Ranges of one family of which a container gets one address. It is never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RangeSet(Vec<Range>);

/// Why ranges cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RangeError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error("a range has no subnet")]
    NoSubnet,
    #[error("subnet {0}")]
    Subnet(CidrError),
    #[error("{key} {text:?} is not an IP address")]
    Address { key: &'static str, text: String },
    #[error("network {0} too small to allocate from")]
    TooSmall(IpNetwork),
    #[error("network {0} has host bits set; for a subnet mask of length {len} the network address is {network}", len = .0.prefix(), network = .0.network())]
    HostBits(IpNetwork),
    #[error("{key} {address} not in network {subnet}")]
    Outside {
        key: &'static str,
        address: IpAddr,
        subnet: IpNetwork,
    },
    #[error("range start {start} comes after range end {end}")]
    Reversed { start: IpAddr, end: IpAddr },
    #[error("range set {0} is empty")]
    EmptySet(usize),
    #[error("mixed address families in range set {0}")]
    MixedFamilies(usize),
    #[error("subnets {0} and {1} overlap")]
    Overlap(IpNetwork, IpNetwork),
}

impl Range {
    /// Reads a range, with the reference's defaults: gateway and start are the subnet's first address, the end is its
    /// last one (for IPv4 the last before the broadcast address).
    pub(crate) fn parse(object: &Object) -> Result<Self, RangeError> {
        let subnet = object.string("subnet").map_err(RangeError::Decode)?;
        let subnet = parse_cidr(subnet.ok_or(RangeError::NoSubnet)?).map_err(RangeError::Subnet)?;
        let width = if subnet.is_ipv4() { 32 } else { 128 };
        if subnet.prefix() > width - 2 {
            return Err(RangeError::TooSmall(subnet));
        }
        if subnet.ip() != subnet.network() {
            return Err(RangeError::HostBits(subnet));
        }
        let first = from_number(subnet, number(subnet.network()).saturating_add(1));
        let last = number(subnet.broadcast()).saturating_sub(u128::from(subnet.is_ipv4()));
        let range = Self {
            subnet,
            start: address(object, "rangeStart")?.unwrap_or(first),
            end: address(object, "rangeEnd")?.unwrap_or(from_number(subnet, last)),
            gateway: address(object, "gateway")?.unwrap_or(first),
        };
        for (key, address) in [("rangeStart", range.start), ("rangeEnd", range.end)] {
            if !subnet.contains(address) {
                return Err(RangeError::Outside { key, address, subnet });
            }
        }
        if range.start > range.end {
            let (start, end) = (range.start, range.end);
            return Err(RangeError::Reversed { start, end });
        }
        Ok(range)
    }

    pub(crate) fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.subnet.is_ipv4() && self.start <= ip && ip <= self.end
    }

    /// Whether the address can be a container's: neither gateway, network nor IPv4 broadcast address.
    fn is_assignable(&self, ip: IpAddr) -> bool {
        let broadcast = self.subnet.is_ipv4() && ip == self.subnet.broadcast();
        ip != self.gateway && ip != self.subnet.network() && !broadcast
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.contains(other.start) || self.contains(other.end) || other.contains(self.start)
    }
}

impl RangeSet {
    /// Groups ranges; `position` is that of the set in the configuration, for errors.
    pub(crate) fn new(ranges: Vec<Range>, position: usize) -> Result<Self, RangeError> {
        let Some(first) = ranges.first() else {
            return Err(RangeError::EmptySet(position));
        };
        let v4 = first.subnet.is_ipv4();
        if ranges.iter().any(|range| range.subnet.is_ipv4() != v4) {
            return Err(RangeError::MixedFamilies(position));
        }
        Ok(Self(ranges))
    }

    /// The range of a set that has only one.
    pub(crate) fn single(&self) -> Option<&Range> {
        match self.0.as_slice() {
            [range] => Some(range),
            _ => None,
        }
    }

    pub(crate) fn is_ipv4(&self) -> bool {
        self.0.first().is_some_and(|range| range.subnet.is_ipv4())
    }

    /// The range that holds an address.
    pub(crate) fn range_of(&self, ip: IpAddr) -> Option<&Range> {
        self.0.iter().find(|range| range.contains(ip))
    }

    /// The next free address after the last reserved one, through all ranges and round again.
    pub(crate) fn next_free(
        &self,
        last: Option<IpAddr>,
        taken: &BTreeSet<IpAddr>,
    ) -> Option<(IpAddr, &Range)> {
        let at = last.and_then(|ip| self.0.iter().position(|range| range.contains(ip)));
        let (position, after) = (at.unwrap_or(0), last.filter(|_| at.is_some()));
        // The range of the last address comes twice: what follows it first, what precedes it at the end.
        let head = self.0.get(position);
        let others = self.0.iter().cycle().skip(position + 1);
        let others = others.take(self.0.len().saturating_sub(1));
        let free = |range: &Range, from: u128| first_free(range, from, taken);
        let ahead = head.and_then(|range| {
            let from = match after {
                Some(ip) => number(ip).checked_add(1)?,
                None => number(range.start),
            };
            Some((free(range, from)?, range))
        });
        ahead.or_else(|| {
            let mut rest = others.chain(head);
            rest.find_map(|range| Some((free(range, number(range.start))?, range)))
        })
    }

    /// Refuses sets that share addresses. In the order of their first addresses, a range that meets any later one meets
    /// the next.
    pub(crate) fn check_overlaps(sets: &[Self]) -> Result<(), RangeError> {
        let mut all: Vec<_> = sets.iter().flat_map(|set| &set.0).collect();
        all.sort_by_key(|range| range.start);
        let mut pairs = all.iter().zip(all.iter().skip(1));
        match pairs.find(|(range, next)| range.overlaps(next)) {
            Some((range, next)) => Err(RangeError::Overlap(range.subnet, next.subnet)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for RangeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, range) in self.0.iter().enumerate() {
            let comma = if position == 0 { "" } else { "," };
            write!(f, "{comma}{}-{}", range.start, range.end)?;
        }
        Ok(())
    }
}

/// The first free address of a range from a number on. Each step that finds none is owed to an address taken or not
/// assignable, so the search is no longer than the list of those.
fn first_free(range: &Range, from: u128, taken: &BTreeSet<IpAddr>) -> Option<IpAddr> {
    let mut at = from;
    while at <= number(range.end) {
        let ip = from_number(range.subnet, at);
        if range.is_assignable(ip) && !taken.contains(&ip) {
            return Some(ip);
        }
        at = at.checked_add(1)?;
    }
    None
}

fn address(object: &Object, key: &'static str) -> Result<Option<IpAddr>, RangeError> {
    let text = object.string(key).map_err(RangeError::Decode)?;
    let parsed = text.filter(|t| !t.is_empty()).map(|text| {
        text.parse().map_err(|_| RangeError::Address {
            key,
            text: text.to_owned(),
        })
    });
    parsed.transpose()
}

fn number(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(v4) => u128::from(u32::from(v4)),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

/// The address of this number in the subnet's family; IPv4 numbers never exceed 32 bits here.
fn from_number(subnet: IpNetwork, number: u128) -> IpAddr {
    if subnet.is_ipv4() {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        IpAddr::V4(Ipv4Addr::from(number))
    } else {
        IpAddr::V6(Ipv6Addr::from(number))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn object(text: &str) -> Object {
        Object::parse(text.as_bytes()).unwrap()
    }

    fn range(text: &str) -> Result<Range, RangeError> {
        Range::parse(&object(text))
    }

    fn set(texts: &[&str]) -> RangeSet {
        RangeSet::new(texts.iter().map(|t| range(t).unwrap()).collect(), 0).unwrap()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn taken(texts: &[&str]) -> BTreeSet<IpAddr> {
        texts.iter().map(|t| ip(t)).collect()
    }

    #[test]
    fn defaults_are_the_references() {
        let v4 = range(r#"{"subnet":"10.244.1.0/24"}"#).unwrap();
        assert_eq!(
            (v4.start, v4.end, v4.gateway),
            (ip("10.244.1.1"), ip("10.244.1.254"), ip("10.244.1.1"))
        );
        let v6 = range(r#"{"subnet":"fd00::/126"}"#).unwrap();
        assert_eq!(
            (v6.start, v6.end, v6.gateway),
            (ip("fd00::1"), ip("fd00::3"), ip("fd00::1"))
        );
        assert_eq!(
            set(&[
                r#"{"subnet":"10.1.0.0/24"}"#,
                r#"{"subnet":"10.2.0.0/30","rangeEnd":"10.2.0.1"}"#
            ])
            .to_string(),
            "10.1.0.1-10.1.0.254,10.2.0.1-10.2.0.1"
        );
    }

    #[test]
    fn ranges_that_cannot_be_used_are_refused_with_the_reason() {
        for (text, words) in [
            ("{}", "no subnet"),
            (r#"{"subnet":"10.0.0.0"}"#, "prefix length"),
            (r#"{"subnet":"010.0.0.0/24"}"#, "prefix length"),
            (r#"{"subnet":"10.0.0.0/31"}"#, "too small"),
            (r#"{"subnet":"10.0.0.0/32"}"#, "too small"),
            (r#"{"subnet":"fd00::/127"}"#, "too small"),
            (r#"{"subnet":"10.1.17.1/24"}"#, "network address is 10.1.17.0"),
            (
                r#"{"subnet":"10.0.0.0/24","rangeStart":"10.0.1.1"}"#,
                "rangeStart 10.0.1.1 not in network",
            ),
            (
                r#"{"subnet":"10.0.0.0/24","rangeEnd":"fd00::1"}"#,
                "rangeEnd fd00::1 not in network",
            ),
            (
                r#"{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9","rangeEnd":"10.0.0.8"}"#,
                "comes after",
            ),
            (
                r#"{"subnet":"10.0.0.0/24","gateway":"x"}"#,
                "gateway \"x\" is not",
            ),
            (r#"{"subnet":5}"#, "must be a string"),
        ] {
            let error = range(text).unwrap_err().to_string();
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn sets_must_be_of_one_family_and_share_nothing() {
        let v4 = range(r#"{"subnet":"10.0.0.0/24"}"#).unwrap();
        let v6 = range(r#"{"subnet":"fd00::/64"}"#).unwrap();
        assert!(matches!(
            RangeSet::new(vec![v4.clone(), v6.clone()], 0),
            Err(RangeError::MixedFamilies(0))
        ));
        assert!(matches!(RangeSet::new(vec![], 3), Err(RangeError::EmptySet(3))));
        let inner = set(&[r#"{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.10","rangeEnd":"10.0.0.12"}"#]);
        let outer = RangeSet::new(vec![v4], 0).unwrap();
        let other = RangeSet::new(vec![v6], 1).unwrap();
        assert!(RangeSet::check_overlaps(&[outer.clone(), inner]).is_err());
        assert!(RangeSet::check_overlaps(&[outer, other]).is_ok());
    }

    #[test]
    fn allocation_goes_round_from_the_last_reserved_address() {
        let set = set(&[r#"{"subnet":"10.0.0.0/29"}"#]);
        let next =
            |last: Option<&str>, used: &[&str]| set.next_free(last.map(ip), &taken(used)).map(|(ip, _)| ip);
        assert_eq!(next(None, &[]), Some(ip("10.0.0.2")));
        assert_eq!(next(Some("10.0.0.2"), &[]), Some(ip("10.0.0.3")));
        assert_eq!(next(Some("10.0.0.6"), &[]), Some(ip("10.0.0.2")));
        assert_eq!(
            next(Some("10.0.0.5"), &["10.0.0.6", "10.0.0.2"]),
            Some(ip("10.0.0.3"))
        );
        assert_eq!(next(Some("192.168.0.1"), &[]), Some(ip("10.0.0.2")));
        let all = ["10.0.0.2", "10.0.0.3", "10.0.0.4", "10.0.0.5", "10.0.0.6"];
        assert_eq!(next(Some("10.0.0.4"), &all), None);
        assert_eq!(next(Some("10.0.0.4"), &all[..4]), Some(ip("10.0.0.6")));
        assert_eq!(
            next(
                Some("10.0.0.4"),
                &["10.0.0.2", "10.0.0.3", "10.0.0.5", "10.0.0.6"]
            ),
            Some(ip("10.0.0.4"))
        );
    }

    #[test]
    fn allocation_goes_through_every_range_of_a_set() {
        let set = set(&[
            r#"{"subnet":"10.0.0.0/30"}"#,
            r#"{"subnet":"10.0.1.0/30","gateway":"10.0.1.2"}"#,
            r#"{"subnet":"10.0.2.0/30","rangeStart":"10.0.2.2","rangeEnd":"10.0.2.3"}"#,
        ]);
        let mut last = None;
        let mut order = Vec::new();
        for _ in 0..4 {
            let (ip, range) = set.next_free(last, &BTreeSet::new()).unwrap();
            assert!(range.contains(ip));
            order.push(ip.to_string());
            last = Some(ip);
        }
        assert_eq!(order, ["10.0.0.2", "10.0.1.1", "10.0.2.2", "10.0.0.2"]);
    }

    #[test]
    fn the_last_address_of_an_ipv6_subnet_is_given_out() {
        let set = set(&[r#"{"subnet":"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffc/126"}"#]);
        let last = ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe");
        let end = ip("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff");
        assert_eq!(set.next_free(Some(last), &BTreeSet::new()).unwrap().0, end);
        assert_eq!(set.next_free(Some(end), &BTreeSet::new()).unwrap().0, last);
    }

    proptest! {
        #[test]
        fn an_overlap_is_found_exactly_when_two_ranges_share_an_address(
            ends in prop::collection::vec((1_u8..200, 0_u8..20), 1..8),
        ) {
            let ranges = ends.iter().map(|(start, more)| {
                let end = start + more;
                range(&format!(r#"{{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.{start}","rangeEnd":"10.0.0.{end}"}}"#))
            });
            let sets: Vec<_> = ranges.map(|range| RangeSet::new(vec![range.unwrap()], 0).unwrap()).collect();
            let pairs = |at: usize| (0..at).map(move |before| (before, at));
            let shared = (0..ends.len()).flat_map(pairs).any(|(one, other)| {
                let (one, other) = (ends[one], ends[other]);
                one.0 <= other.0 + other.1 && other.0 <= one.0 + one.1
            });
            prop_assert_eq!(RangeSet::check_overlaps(&sets).is_err(), shared);
        }

        #[test]
        fn an_address_is_found_exactly_when_one_is_free(
            last in prop::option::of(0_u8..40),
            used in prop::collection::btree_set(0_u8..40, 0..16),
            start in 1_u8..6,
            gateway in 1_u8..14,
        ) {
            let ranges = [
                format!(r#"{{"subnet":"10.0.0.0/28","rangeStart":"10.0.0.{start}","gateway":"10.0.0.{gateway}"}}"#),
                r#"{"subnet":"10.0.0.16/29"}"#.to_owned(),
            ];
            let set = set(&[&ranges[0], &ranges[1]]);
            let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
            let taken: BTreeSet<_> = used.into_iter().map(ip).collect();
            let is_free = |n: u8| {
                let assignable = (start..=14).contains(&n) && n != gateway || (18..=22).contains(&n);
                assignable && !taken.contains(&ip(n))
            };
            match set.next_free(last.map(ip), &taken) {
                Some((found, range)) => {
                    let IpAddr::V4(v4) = found else { unreachable!() };
                    prop_assert!(is_free(v4.octets()[3]) && range.contains(found));
                }
                None => prop_assert!(!(0..40).any(is_free)),
            }
        }
    }
}
