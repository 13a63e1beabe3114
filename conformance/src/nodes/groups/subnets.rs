//! Subnets, and what is free in them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context, Result};

/// As many subnets or addresses are looked at for one that nobody has.
const MAX_TRIES: usize = 1 << 16;
/// A subnet: its first address and its length.
pub(super) type Subnet = (IpAddr, u8);

/// The first address and the length of a subnet, whichever address of it the text names.
pub(super) fn parse(text: &str) -> Result<(IpAddr, u8)> {
    let (ip, length) = text.split_once('/').context("no subnet")?;
    let (ip, length): (IpAddr, u8) = (
        ip.parse().context("no address")?,
        length.parse().context("no length")?,
    );
    Ok((masked(ip, length), length))
}

pub(super) fn masked(ip: IpAddr, length: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX
                .checked_shl(32_u32.saturating_sub(length.into()))
                .unwrap_or(0);
            Ipv4Addr::from_bits(ip.to_bits() & mask).into()
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX
                .checked_shl(128_u32.saturating_sub(length.into()))
                .unwrap_or(0);
            Ipv6Addr::from_bits(ip.to_bits() & mask).into()
        }
    }
}

/// Whether one subnet is in another.
pub(super) fn overlap((one, long): Subnet, (other, short): Subnet) -> bool {
    let length = long.min(short);
    one.is_ipv4() == other.is_ipv4() && masked(one, length) == masked(other, length)
}

/// The last subnet of a length in a network that overlaps none of some others: who gives subnets away begins with the first.
pub(super) fn free_subnet((first, long): Subnet, length: u8, taken: &[Subnet]) -> Option<Subnet> {
    let step = u32::from(width(first).checked_sub(length)?);
    let count = 1_u128.checked_shl(length.checked_sub(long)?.into()).unwrap_or(0);
    let from_the_last = (0..count).rev().take(MAX_TRIES);
    from_the_last
        .map(|index| (with_bits(first, index.checked_shl(step).unwrap_or(0)), length))
        .find(|subnet| !taken.iter().any(|other| overlap(*subnet, *other)))
}

/// The last address of a subnet that is no broadcast address, nor the subnet's own, nor taken.
pub(super) fn last_free(one: IpAddr, length: u8, taken: &[&IpAddr]) -> Option<IpAddr> {
    let count = 1_u128
        .checked_shl(width(one).checked_sub(length)?.into())
        .unwrap_or(0);
    let from_the_last = (1..count.saturating_sub(1)).rev().take(MAX_TRIES);
    from_the_last
        .map(|host| with_bits(masked(one, length), host))
        .find(|ip| !taken.contains(&ip))
}

/// How many bits an address has.
fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// An address with further bits set.
fn with_bits(ip: IpAddr, bits: u128) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() | u32::try_from(bits).unwrap_or(0)).into(),
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() | bits).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subnet_is_the_same_whichever_address_names_it() {
        let net = |text: &str| parse(text).map(|(ip, length)| format!("{ip}/{length}"));
        assert_eq!(net("10.5.57.1/24").unwrap(), "10.5.57.0/24");
        assert_eq!(net("10.5.57.1/0").unwrap(), "0.0.0.0/0");
        assert_eq!(net("fd00:10:5:46::1/64").unwrap(), "fd00:10:5:46::/64");
        for wrong in ["10.5.57.1", "x/24", "10.5.57.1/x", ""] {
            assert!(net(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn subnets_overlap_when_one_is_in_the_other() {
        let overlaps = |one, other| overlap(parse(one).unwrap(), parse(other).unwrap());
        assert!(overlaps("10.1.0.0/16", "10.1.7.0/24") && overlaps("10.1.7.0/24", "10.1.0.0/16"));
        assert!(!overlaps("10.1.0.0/24", "10.1.1.0/24"));
        assert!(!overlaps("0.0.0.0/0", "fd00::/64"));
    }

    #[test]
    fn the_last_free_subnet_is_taken() {
        let free = |network: &str, length, taken: &[&str]| {
            let taken: Vec<_> = taken.iter().map(|text| parse(text).unwrap()).collect();
            let found = free_subnet(parse(network).unwrap(), length, &taken);
            found.map(|(ip, length)| format!("{ip}/{length}"))
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(free("10.244.0.0/16", 24, &[]), some("10.244.255.0/24"));
        let taken = ["10.244.1.0/24", "10.244.254.0/23"];
        assert_eq!(free("10.244.0.0/16", 24, &taken), some("10.244.253.0/24"));
        assert_eq!(free("10.244.0.0/16", 16, &[]), some("10.244.0.0/16"));
        assert_eq!(free("10.244.0.0/16", 16, &["10.244.1.0/24"]), None);
        assert_eq!(free("10.244.0.0/24", 16, &[]), None);
        assert_eq!(
            free("fd00:10:244::/48", 64, &["fd00:10:244:ffff::/64"]),
            some("fd00:10:244:fffe::/64")
        );
    }

    #[test]
    fn the_last_free_address_of_a_link_is_nobodys() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let free = |one: &str, length, taken: &[&str]| {
            let taken: Vec<_> = taken.iter().map(|text| ip(text)).collect();
            last_free(ip(one), length, &taken.iter().collect::<Vec<_>>())
        };
        assert_eq!(free("192.168.77.11", 24, &[]), Some(ip("192.168.77.254")));
        let taken = ["192.168.77.254", "192.168.77.252"];
        assert_eq!(free("192.168.77.11", 24, &taken), Some(ip("192.168.77.253")));
        assert_eq!(free("192.168.77.11", 32, &[]), None);
        assert_eq!(free("192.168.77.11", 31, &[]), None);
        let last = Some(ip("fd00:77::ffff:ffff:ffff:fffe"));
        assert_eq!(free("fd00:77::1", 64, &[]), last);
    }
}
