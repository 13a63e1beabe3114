use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{IpNetwork, Ipv4Network, Ipv6Network};

/// The name of a subnet lease: its subnets, of one or of both families.
///
/// Its text is the last part of the lease's etcd key: `10.5.57.0-24` or `10.5.35.0-24&fd00:10:5:46::-64` (flannel
/// `pkg/subnet/subnet.go`, `MakeSubnetKey`), and `fd00:10:5:46::-64` where IPv4 is off. The last form is our own, since
/// upstream cannot lease IPv6 alone: its daemons look for an IPv4 subnet in every key (`ParseSubnetKey`), find none, and
/// ignore the lease with a warning. Host bits are always zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetKey {
    // One of the two is always there.
    v4: Option<Ipv4Network>,
    v6: Option<Ipv6Network>,
}

/// A text that is not the key of a subnet lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a subnet key of the form 10.5.57.0-24, 10.5.57.0-24&fd00:10:5:46::-64 or fd00:10:5:46::-64"
)]
pub struct SubnetKeyError(String);

impl SubnetKey {
    /// Names the lease of an IPv4 subnet, and in dual stack of an IPv6 subnet with it; host bits are dropped.
    #[must_use]
    pub fn new(v4: Ipv4Network, v6: Option<Ipv6Network>) -> Self {
        Self {
            v4: Some(masked_v4(v4)),
            v6: v6.map(masked_v6),
        }
    }

    /// Names the lease of an IPv6 subnet alone; host bits are dropped.
    #[must_use]
    pub fn ipv6(v6: Ipv6Network) -> Self {
        Self {
            v4: None,
            v6: Some(masked_v6(v6)),
        }
    }

    /// Names the lease of these subnets, host bits dropped; `None` where there is none.
    #[must_use]
    pub fn of(v4: Option<Ipv4Network>, v6: Option<Ipv6Network>) -> Option<Self> {
        match (v4, v6) {
            (Some(v4), v6) => Some(Self::new(v4, v6)),
            (None, Some(v6)) => Some(Self::ipv6(v6)),
            (None, None) => None,
        }
    }

    /// The IPv4 subnet; `None` for a lease of IPv6 alone.
    #[must_use]
    pub const fn v4(&self) -> Option<Ipv4Network> {
        self.v4
    }

    /// The IPv6 subnet; `None` for a lease of IPv4 alone.
    #[must_use]
    pub const fn v6(&self) -> Option<Ipv6Network> {
        self.v6
    }

    /// The subnets, IPv4 before IPv6.
    pub fn subnets(&self) -> impl Iterator<Item = IpNetwork> + use<> {
        let v4 = self.v4.map(IpNetwork::V4);
        v4.into_iter().chain(self.v6.map(IpNetwork::V6))
    }

    /// Whether the two leases have an address in common, in either family.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let v4 = self.v4.zip(other.v4);
        let v6 = self.v6.zip(other.v6);
        v4.is_some_and(|(one, other)| one.overlaps(other))
            || v6.is_some_and(|(one, other)| one.overlaps(other))
    }
}

fn masked_v4(net: Ipv4Network) -> Ipv4Network {
    Ipv4Network::new(net.network(), net.prefix()).unwrap_or(net)
}

fn masked_v6(net: Ipv6Network) -> Ipv6Network {
    Ipv6Network::new(net.network(), net.prefix()).unwrap_or(net)
}

impl fmt::Display for SubnetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(v4) = self.v4 {
            write!(f, "{}-{}", v4.ip(), v4.prefix())?;
        }
        if self.v4.is_some() && self.v6.is_some() {
            f.write_str("&")?;
        }
        match self.v6 {
            Some(v6) => write!(f, "{}-{}", v6.ip(), v6.prefix()),
            None => Ok(()),
        }
    }
}

impl FromStr for SubnetKey {
    type Err = SubnetKeyError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        parse(s).ok_or_else(|| SubnetKeyError(s.to_owned()))
    }
}

fn parse(text: &str) -> Option<SubnetKey> {
    match text.split_once('&') {
        Some((v4, v6)) => Some(SubnetKey::new(parse_v4(v4)?, Some(parse_v6(v6)?))),
        None if text.contains(':') => parse_v6(text).map(SubnetKey::ipv6),
        None => parse_v4(text).map(|v4| SubnetKey::new(v4, None)),
    }
}

fn parse_v4(text: &str) -> Option<Ipv4Network> {
    let (ip, len) = text.split_once('-')?;
    Ipv4Network::new(ip.parse::<Ipv4Addr>().ok()?, prefix_len(len, 31)?).ok()
}

fn parse_v6(text: &str) -> Option<Ipv6Network> {
    let (ip, len) = text.split_once('-')?;
    let lower = ip.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b':'));
    let ip = lower.then(|| ip.parse::<Ipv6Addr>().ok())??;
    Ipv6Network::new(ip, prefix_len(len, 127)?).ok()
}

fn prefix_len(text: &str, max: u8) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse::<u8>().ok())?.filter(|len| *len <= max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn etcd_keys_of_the_reference_round_trip() {
        for text in [
            "10.5.57.0-24",
            "10.5.35.0-24&fd00:10:5:46::-64",
            "10.244.79.0-24&fd00:10:244:1c::-64",
            "fd00:10:5:46::-64",
        ] {
            assert_eq!(text.parse::<SubnetKey>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn host_bits_are_dropped() {
        assert_eq!(
            "10.5.57.9-24".parse::<SubnetKey>().unwrap().to_string(),
            "10.5.57.0-24"
        );
    }

    #[test]
    fn other_names_are_refused() {
        let bad = [
            "",
            "10.5.57.0",
            "10.5.57.0/24",
            "10.5.57.0-32",
            "10.5.57.0-+4",
            "10.5.57-24",
            "10.5.57.0-24&",
            "10.5.57.0-24&FD00::-64",
            "10.5.57.0-24&fd00::-128",
            ".10.5.57.0-24.tmp",
            "10.5.57.0-24x",
            "&fd00::-64",
            "fd00::-64&10.5.57.0-24",
            "FD00::-64",
            "fd00::-128",
            "::ffff:10.5.57.0-120",
        ];
        for text in bad {
            assert!(text.parse::<SubnetKey>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn leases_overlap_in_either_family() {
        let key = |text: &str| text.parse::<SubnetKey>().unwrap();
        for (one, other, expected) in [
            ("10.5.1.0-24", "10.5.1.128-25", true),
            ("10.5.1.0-24", "10.5.2.0-24", false),
            ("10.5.1.0-24&fd00::-64", "10.5.2.0-24&fd00::-64", true),
            ("10.5.1.0-24", "fd00::-64", false),
            ("10.5.1.0-24&fd00::-64", "fd00::-65", true),
        ] {
            assert_eq!(key(one).overlaps(&key(other)), expected, "{one} {other}");
            assert_eq!(key(other).overlaps(&key(one)), expected, "{other} {one}");
        }
    }
}
