use std::net::IpAddr;

use ipnetwork::{Ipv4Network, Ipv6Network};

use super::{Backend, Family, NetConf, NetConfError};
use crate::cidr::IpNet;

/// A network configuration from which subnets can be handed out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ValidNetConf {
    ipv4: Option<SubnetPool<Ipv4Network>>,
    ipv6: Option<SubnetPool<Ipv6Network>>,
    enable_nftables: bool,
    backend: Backend,
}

/// The subnets of one length that a network hands out: from the first to the last, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubnetPool<N: IpNet> {
    network: N,
    first: N,
    last: N,
}

impl ValidNetConf {
    pub(super) fn of(conf: &NetConf) -> Result<Self, NetConfError> {
        let ipv4 = PoolConf {
            family: Family::V4,
            network: conf.network,
            len: conf.subnet_len,
            min: conf.subnet_min,
            max: conf.subnet_max,
        };
        let ipv6 = PoolConf {
            family: Family::V6,
            network: conf.ipv6_network,
            len: conf.ipv6_subnet_len,
            min: conf.ipv6_subnet_min,
            max: conf.ipv6_subnet_max,
        };
        let valid = Self {
            ipv4: conf.enable_ipv4.then(|| ipv4.validated()).transpose()?,
            ipv6: conf.enable_ipv6.then(|| ipv6.validated()).transpose()?,
            enable_nftables: conf.enable_nftables,
            backend: conf.backend.clone(),
        };
        let some_family = valid.ipv4.is_some() || valid.ipv6.is_some();
        some_family.then_some(valid).ok_or(NetConfError::NoFamily)
    }

    /// The IPv4 subnets; `None` when IPv4 is switched off.
    #[must_use]
    pub const fn ipv4(&self) -> Option<&SubnetPool<Ipv4Network>> {
        self.ipv4.as_ref()
    }

    /// The IPv6 subnets; `None` when IPv6 is switched off.
    #[must_use]
    pub const fn ipv6(&self) -> Option<&SubnetPool<Ipv6Network>> {
        self.ipv6.as_ref()
    }

    /// Whether rules go to nftables instead of iptables.
    #[must_use]
    pub const fn enable_nftables(&self) -> bool {
        self.enable_nftables
    }

    /// The backend and its settings.
    #[must_use]
    pub const fn backend(&self) -> &Backend {
        &self.backend
    }
}

impl<N: IpNet> SubnetPool<N> {
    /// The network that the subnets are parts of.
    #[must_use]
    pub const fn network(&self) -> N {
        self.network
    }

    /// The first subnet of the pool.
    #[must_use]
    pub const fn first(&self) -> N {
        self.first
    }

    /// The last subnet of the pool.
    #[must_use]
    pub const fn last(&self) -> N {
        self.last
    }

    /// The length of each subnet's prefix in bits.
    #[must_use]
    pub fn subnet_len(&self) -> u8 {
        self.first.prefix_len()
    }

    /// Whether a subnet is one of the pool's; its host bits do not count.
    #[must_use]
    pub fn holds(&self, subnet: N) -> bool {
        let subnet = subnet.masked();
        subnet.prefix_len() == self.subnet_len()
            && (self.first.first_bits()..=self.last.first_bits()).contains(&subnet.first_bits())
    }
}

/// The part of net-conf that describes one family.
struct PoolConf<N: IpNet> {
    family: Family,
    network: Option<N>,
    len: Option<u64>,
    min: Option<N::Addr>,
    max: Option<N::Addr>,
}

impl<N: IpNet> PoolConf<N>
where
    IpAddr: From<N::Addr>,
{
    /// Applies flannel's rules in flannel's order (`pkg/subnet/config.go`, `CheckNetworkConfig`).
    fn validated(&self) -> Result<SubnetPool<N>, NetConfError> {
        let family = self.family;
        let network = self.network.ok_or(NetConfError::NoNetwork(family))?;
        let len = self.subnet_len(network)?;
        // A valid length is at least two bits longer than the network's, so the size has a bit to spare.
        let size = 1_u128 << (N::WIDTH - len);
        let min = self.bound(network, self.min, family.min_key(), network.first_bits() + size)?;
        let max = self.bound(
            network,
            self.max,
            family.max_key(),
            network.last_bits() - (size - 1),
        )?;
        let first = self.subnet(min, len, family.min_key())?;
        let last = self.subnet(max, len, family.max_key())?;
        if min > max {
            let (min, max) = (first.first().into(), last.first().into());
            return Err(NetConfError::MinAboveMax { family, min, max });
        }
        Ok(SubnetPool { network, first, last })
    }

    fn subnet_len(&self, network: N) -> Result<u8, NetConfError> {
        let family = self.family;
        let (prefix, longest) = (network.prefix_len(), family.longest_subnet());
        let Some(given) = self.len else {
            return match prefix {
                _ if prefix > longest - 2 => Err(NetConfError::NetworkTooSmall(family)),
                _ if prefix + 2 <= family.usual_subnet() => Ok(family.usual_subnet()),
                _ => Ok(prefix + 2),
            };
        };
        let len = u8::try_from(given).ok().filter(|len| *len <= longest);
        let len = len.ok_or(NetConfError::SubnetLenTooLong(family))?;
        if len < prefix + 2 {
            return Err(NetConfError::TooFewSubnets(family));
        }
        Ok(len)
    }

    fn bound(
        &self,
        network: N,
        given: Option<N::Addr>,
        key: &'static str,
        default: u128,
    ) -> Result<u128, NetConfError> {
        let Some(address) = given.map(N::address_bits) else {
            return Ok(default);
        };
        let inside = (network.first_bits()..=network.last_bits()).contains(&address);
        inside.then_some(address).ok_or(NetConfError::OutsideNetwork {
            key,
            family: self.family,
        })
    }

    fn subnet(&self, start: u128, len: u8, key: &'static str) -> Result<N, NetConfError> {
        let subnet = N::containing(start, len).ok_or(NetConfError::OutsideNetwork {
            key,
            family: self.family,
        })?;
        if subnet.first_bits() == start {
            return Ok(subnet);
        }
        let address = N::containing(start, N::WIDTH).unwrap_or(subnet).first().into();
        Err(NetConfError::NotOnBoundary { key, address })
    }
}
