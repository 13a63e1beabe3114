use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A 48-bit Ethernet address; prints and reads as lower-case hexadecimal pairs with colons.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MacAddr([u8; 6]);

/// A text that is not six hexadecimal pairs with colons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a MAC address of the form 0a:1b:2c:3d:4e:5f")]
pub struct MacAddrError(String);

impl MacAddr {
    /// Wraps six octets in transmission order.
    #[must_use]
    pub const fn new(octets: [u8; 6]) -> Self {
        Self(octets)
    }

    /// Makes a unicast, locally administered address of six random octets (IEEE 802 §8.2: bit 0 of the first octet
    /// clear, bit 1 set), as flannel does for its VXLAN devices.
    #[must_use]
    pub const fn local_from_random(octets: [u8; 6]) -> Self {
        let [first, rest @ ..] = octets;
        let [b, c, d, e, f] = rest;
        Self([(first & 0xfe) | 0x02, b, c, d, e, f])
    }

    /// The six octets in transmission order.
    #[must_use]
    pub const fn octets(self) -> [u8; 6] {
        self.0
    }

    /// Whether the address names one station: neither group nor all-zero.
    #[must_use]
    pub fn is_unicast(self) -> bool {
        let [first, ..] = self.0;
        first & 1 == 0 && self.0 != [0; 6]
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl FromStr for MacAddr {
    type Err = MacAddrError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let error = || MacAddrError(s.to_owned());
        let mut octets = [0; 6];
        let mut pairs = s.split(':');
        for octet in &mut octets {
            let pair = pairs.next().ok_or_else(error)?;
            if pair.len() != 2 || !pair.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(error());
            }
            *octet = u8::from_str_radix(pair, 16).map_err(|_| error())?;
        }
        if pairs.next().is_some() {
            return Err(error());
        }
        Ok(Self(octets))
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_either_case_and_prints_lower() {
        let mac: MacAddr = "AA:0b:2C:3d:4e:5F".parse().unwrap();
        assert_eq!(mac.to_string(), "aa:0b:2c:3d:4e:5f");
    }

    #[test]
    fn malformed_texts_are_refused() {
        for text in [
            "",
            "aa:bb:cc:dd:ee",
            "aa:bb:cc:dd:ee:ff:00",
            "aa:bb:cc:dd:ee:+f",
            "aabb.ccdd.eeff",
            "a:b:c:d:e:f",
        ] {
            assert!(text.parse::<MacAddr>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn random_addresses_are_local_unicast() {
        for first in 0..=255 {
            let mac = MacAddr::local_from_random([first, 1, 2, 3, 4, 5]);
            assert!(mac.is_unicast());
            assert_eq!(mac.octets()[0] & 2, 2);
        }
        assert!(!MacAddr::new([0; 6]).is_unicast());
        assert!(!MacAddr::new([0xff; 6]).is_unicast());
    }
}
