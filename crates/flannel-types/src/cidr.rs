use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};

/// What the IPv4 and the IPv6 form of a subnet have in common, as numbers.
///
/// Subnet arithmetic (validation of a pool, search for a free subnet) is written once over this trait. Numbers are
/// 128 bits wide; an IPv4 address uses the low 32.
pub trait IpNet: Copy + Ord + fmt::Debug + fmt::Display {
    /// The family's address.
    type Addr: Copy + Ord + fmt::Debug + fmt::Display;
    /// Bits of an address: 32 or 128.
    const WIDTH: u8;

    /// The subnet of this length that contains the address; `None` if either number is too large for the family.
    fn containing(address: u128, prefix: u8) -> Option<Self>;
    /// The address as a number.
    fn address_bits(address: Self::Addr) -> u128;
    /// The first address of the subnet, as a number.
    fn first_bits(self) -> u128;
    /// The last address of the subnet, as a number.
    fn last_bits(self) -> u128;
    /// The first address of the subnet.
    fn first(self) -> Self::Addr;
    /// The length of the prefix in bits.
    fn prefix_len(self) -> u8;
    /// The address given together with the prefix; it may have host bits.
    fn address(self) -> Self::Addr;

    /// Whether the two subnets share an address.
    fn overlaps_with(self, other: Self) -> bool {
        self.first_bits() <= other.last_bits() && other.first_bits() <= self.last_bits()
    }

    /// The same subnet without host bits.
    #[must_use]
    fn masked(self) -> Self {
        Self::containing(self.first_bits(), self.prefix_len()).unwrap_or(self)
    }
}

impl IpNet for Ipv4Network {
    type Addr = Ipv4Addr;
    const WIDTH: u8 = 32;

    fn containing(address: u128, prefix: u8) -> Option<Self> {
        let net = Self::new(Ipv4Addr::from(u32::try_from(address).ok()?), prefix).ok()?;
        Self::new(net.network(), prefix).ok()
    }

    fn address_bits(address: Ipv4Addr) -> u128 {
        u128::from(u32::from(address))
    }

    fn first_bits(self) -> u128 {
        Self::address_bits(self.network())
    }

    fn last_bits(self) -> u128 {
        Self::address_bits(self.broadcast())
    }

    fn first(self) -> Ipv4Addr {
        self.network()
    }

    fn prefix_len(self) -> u8 {
        self.prefix()
    }

    fn address(self) -> Ipv4Addr {
        self.ip()
    }
}

impl IpNet for Ipv6Network {
    type Addr = Ipv6Addr;
    const WIDTH: u8 = 128;

    fn containing(address: u128, prefix: u8) -> Option<Self> {
        let net = Self::new(Ipv6Addr::from(address), prefix).ok()?;
        Self::new(net.network(), prefix).ok()
    }

    fn address_bits(address: Ipv6Addr) -> u128 {
        u128::from(address)
    }

    fn first_bits(self) -> u128 {
        Self::address_bits(self.network())
    }

    fn last_bits(self) -> u128 {
        Self::address_bits(self.broadcast())
    }

    fn first(self) -> Ipv6Addr {
        self.network()
    }

    fn prefix_len(self) -> u8 {
        self.prefix()
    }

    fn address(self) -> Ipv6Addr {
        self.ip()
    }
}

/// Reads `a.b.c.d/len`, as Go's `net.ParseCIDR` does: the length is required and is a number of bits.
pub(crate) fn parse_v4(text: &str) -> Option<Ipv4Network> {
    let (address, prefix) = text.split_once('/')?;
    Ipv4Network::new(address.parse().ok()?, prefix_len(prefix)?).ok()
}

/// Reads an IPv6 subnet by the same rule.
pub(crate) fn parse_v6(text: &str) -> Option<Ipv6Network> {
    let (address, prefix) = text.split_once('/')?;
    Ipv6Network::new(address.parse().ok()?, prefix_len(prefix)?).ok()
}

fn prefix_len(text: &str) -> Option<u8> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_with_a_prefix_length_is_a_subnet() {
        assert_eq!(parse_v4("10.5.57.1/24").unwrap().to_string(), "10.5.57.1/24");
        assert_eq!(parse_v6("fd00::1/64").unwrap().to_string(), "fd00::1/64");
        for text in [
            "",
            "10.5.0.0",
            "10.5.0.0/",
            "10.5.0.0/33",
            "10.5.0.0/255.255.0.0",
            "10.5/16",
            "10.5.0.0/+6",
            "fd00::/16",
        ] {
            assert_eq!(parse_v4(text), None, "{text:?}");
        }
        for text in ["fd00::", "fd00::/129", "10.5.0.0/16", "fe80::1%eth0/64"] {
            assert_eq!(parse_v6(text), None, "{text:?}");
        }
    }

    #[test]
    fn numbers_and_subnets_agree_in_both_families() {
        let v4: Ipv4Network = "10.5.57.9/24".parse().unwrap();
        assert_eq!(v4.masked().to_string(), "10.5.57.0/24");
        assert_eq!(v4.last_bits() - v4.first_bits(), 255);
        assert_eq!(Ipv4Network::containing(1 << 32, 24), None);
        let v6 = Ipv6Network::containing(u128::MAX, 127).unwrap();
        assert_eq!(v6.last_bits(), u128::MAX);
        assert!(v6.overlaps_with("ffff::/16".parse().unwrap()));
    }
}
