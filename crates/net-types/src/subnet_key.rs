use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use ipnetwork::{Ipv4Network, Ipv6Network};

/// The name of a subnet lease: its IPv4 subnet, and in dual stack its IPv6 subnet.
///
/// Its text is the last part of the lease's etcd key: `10.5.57.0-24` or `10.5.35.0-24&fd00:10:5:46::-64`
/// (flannel `pkg/subnet/subnet.go`, `MakeSubnetKey`). Host bits are always zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubnetKey {
    v4: Ipv4Network,
    v6: Option<Ipv6Network>,
}

/// A text that is not the key of a subnet lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a subnet key of the form 10.5.57.0-24 or 10.5.57.0-24&fd00:10:5:46::-64")]
pub struct SubnetKeyError(String);

impl SubnetKey {
    /// Names the lease of these subnets; host bits are dropped.
    #[must_use]
    pub fn new(v4: Ipv4Network, v6: Option<Ipv6Network>) -> Self {
        let v4 = Ipv4Network::new(v4.network(), v4.prefix()).unwrap_or(v4);
        let v6 = v6.map(|net| Ipv6Network::new(net.network(), net.prefix()).unwrap_or(net));
        Self { v4, v6 }
    }

    /// The IPv4 subnet.
    #[must_use]
    pub const fn v4(&self) -> Ipv4Network {
        self.v4
    }

    /// The IPv6 subnet of a dual-stack lease.
    #[must_use]
    pub const fn v6(&self) -> Option<Ipv6Network> {
        self.v6
    }
}

impl fmt::Display for SubnetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.v4.ip(), self.v4.prefix())?;
        match self.v6 {
            Some(v6) => write!(f, "&{}-{}", v6.ip(), v6.prefix()),
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
    let (v4, v6) = match text.split_once('&') {
        Some((v4, v6)) => (v4, Some(v6)),
        None => (text, None),
    };
    let (ip, len) = v4.split_once('-')?;
    let v4 = Ipv4Network::new(ip.parse::<Ipv4Addr>().ok()?, prefix_len(len, 31)?).ok()?;
    let v6 = match v6 {
        None => None,
        Some(text) => {
            let (ip, len) = text.split_once('-')?;
            let lower = ip.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f' | b':'));
            let ip = lower.then(|| ip.parse::<Ipv6Addr>().ok())??;
            Some(Ipv6Network::new(ip, prefix_len(len, 127)?).ok()?)
        }
    };
    Some(SubnetKey::new(v4, v6))
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
        ];
        for text in bad {
            assert!(text.parse::<SubnetKey>().is_err(), "{text:?}");
        }
    }
}
