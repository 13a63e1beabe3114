mod backend;
mod validation;

use std::net::{Ipv4Addr, Ipv6Addr};

use ipnetwork::{Ipv4Network, Ipv6Network};
use net_types::VniError;

use crate::cidr::{self, IpNet};
use crate::go_json::{JsonError, Object};

pub use backend::{
    ALLOC_TYPE, Backend, EXTENSION_TYPE, Extension, HOST_GW_TYPE, IPIP_TYPE, Secret, VXLAN_TYPE, Vxlan,
    WIREGUARD_TYPE, Wireguard, WireguardMode,
};
pub use validation::{SubnetPool, ValidNetConf};

/// The network configuration as written: etcd's `<prefix>/config`, a file `net-conf.json` or a lease directory's
/// `config` (flannel `pkg/subnet/config.go`).
///
/// It is syntactically right, no more. Stores that hand out subnets validate it ([`Self::validated`]); the Kubernetes
/// store does not, because Kubernetes chooses the subnets.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NetConf {
    /// `EnableIPv4`; true unless given.
    pub enable_ipv4: bool,
    /// `EnableIPv6`; false unless given.
    pub enable_ipv6: bool,
    /// `EnableNFTables`: nftables instead of iptables; false unless given.
    pub enable_nftables: bool,
    /// `Network` without host bits; `None` also for `0.0.0.0/0`.
    pub network: Option<Ipv4Network>,
    /// `IPv6Network` without host bits; `None` also for `::/0`.
    pub ipv6_network: Option<Ipv6Network>,
    /// `SubnetLen`, unchecked; `None` also for 0.
    pub subnet_len: Option<u64>,
    /// `IPv6SubnetLen`, unchecked; `None` also for 0.
    pub ipv6_subnet_len: Option<u64>,
    /// `SubnetMin`; `None` also for `0.0.0.0`.
    pub subnet_min: Option<Ipv4Addr>,
    /// `SubnetMax`; `None` also for `0.0.0.0`.
    pub subnet_max: Option<Ipv4Addr>,
    /// `IPv6SubnetMin`; `None` also for `::`.
    pub ipv6_subnet_min: Option<Ipv6Addr>,
    /// `IPv6SubnetMax`; `None` also for `::`.
    pub ipv6_subnet_max: Option<Ipv6Addr>,
    /// `Backend`, or vxlan with its defaults.
    pub backend: Backend,
    /// Whether `Backend` is absent, which deserves a warning: the reference then uses `udp`.
    pub backend_defaulted: bool,
}

/// The address families, as net-conf's keys and error texts name them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// Why a network configuration cannot be used; the texts of validation are Flannel's own.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NetConfError {
    /// The text is not JSON, or a member has the wrong type or is too large.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// `Network` is not an IPv4 subnet.
    #[error("invalid IPv4 CIDR format: Network of net-conf is {0:?}")]
    NotIpv4Cidr(String),
    /// `IPv6Network` is not an IPv6 subnet.
    #[error("invalid IPv6 CIDR format: IPv6Network of net-conf is {0:?}")]
    NotIpv6Cidr(String),
    /// A subnet bound is not an address of its family.
    #[error("{key} of net-conf is {text:?}, which is not an {} address", family.name())]
    NotAddress {
        /// The key.
        key: &'static str,
        /// The family that the key demands.
        family: Family,
        /// The text found.
        text: String,
    },
    /// The type of the backend is none of Flannel's, or one that is not offered here.
    #[error("unknown backend type: {0}; choose one of {types}", types = Backend::TYPES.join(", "))]
    UnknownBackend(String),
    /// `VNI` of the VXLAN backend has more than 24 bits.
    #[error(transparent)]
    Vni(#[from] VniError),
    /// `Mode` of the WireGuard backend is not one of its four words.
    #[error("no valid Mode configured")]
    NoWireguardMode,
    /// An enabled family has no network.
    #[error("please define a correct {} parameter in the flannel config", .0.network_key())]
    NoNetwork(Family),
    /// The subnet length leaves too few addresses.
    #[error("SubnetLen must be less than /{}", .0.longest_subnet() + 1)]
    SubnetLenTooLong(Family),
    /// The subnet length leaves fewer than four subnets.
    #[error("network must be able to accommodate at least four subnets")]
    TooFewSubnets(Family),
    /// The network has no room for four subnets of useful size.
    #[error("{} is too small. Minimum useful network prefix is /{}", .0.small_network_name(), .0.longest_subnet() - 2)]
    NetworkTooSmall(Family),
    /// A subnet bound lies outside the network.
    #[error("{key} is not in the range of the {}", family.network_key())]
    OutsideNetwork {
        /// The key of the bound.
        key: &'static str,
        /// The family.
        family: Family,
    },
    /// A subnet bound is not the first address of a subnet.
    #[error("{key} is not on a SubnetLen boundary: {address}")]
    NotOnBoundary {
        /// The key of the bound.
        key: &'static str,
        /// The bound.
        address: std::net::IpAddr,
    },
    /// The bounds leave no subnet.
    #[error("{} {min} is above {} {max}, which leaves no subnet", family.min_key(), family.max_key())]
    MinAboveMax {
        /// The family.
        family: Family,
        /// The lower bound.
        min: std::net::IpAddr,
        /// The upper bound.
        max: std::net::IpAddr,
    },
    /// Neither family is enabled.
    #[error("none defined stack")]
    NoFamily,
}

impl NetConf {
    /// Reads the configuration, by the rules of [`crate::go_json`].
    ///
    /// # Errors
    /// Names the key whose value has the wrong type or form.
    pub fn parse(text: &str) -> Result<Self, NetConfError> {
        let object = Object::parse("net-conf", text)?;
        let backend = object.raw("Backend").map(Backend::parse).transpose()?;
        Ok(Self {
            enable_ipv4: object.boolean("EnableIPv4")?.unwrap_or(true),
            enable_ipv6: object.boolean("EnableIPv6")?.unwrap_or(false),
            enable_nftables: object.boolean("EnableNFTables")?.unwrap_or(false),
            network: network(&object, "Network", cidr::parse_v4, NetConfError::NotIpv4Cidr)?,
            ipv6_network: network(&object, "IPv6Network", cidr::parse_v6, NetConfError::NotIpv6Cidr)?,
            subnet_len: object.unsigned("SubnetLen")?.filter(|len| *len != 0),
            ipv6_subnet_len: object.unsigned("IPv6SubnetLen")?.filter(|len| *len != 0),
            subnet_min: bound(&object, Family::V4.min_key(), Family::V4, Ipv4Addr::UNSPECIFIED)?,
            subnet_max: bound(&object, Family::V4.max_key(), Family::V4, Ipv4Addr::UNSPECIFIED)?,
            ipv6_subnet_min: bound(&object, Family::V6.min_key(), Family::V6, Ipv6Addr::UNSPECIFIED)?,
            ipv6_subnet_max: bound(&object, Family::V6.max_key(), Family::V6, Ipv6Addr::UNSPECIFIED)?,
            backend_defaulted: backend.is_none(),
            backend: backend.unwrap_or_default(),
        })
    }

    /// Checks the configuration as Flannel does before it hands out subnets, and fills in what is not given.
    ///
    /// # Errors
    /// The first rule that is broken, IPv4's before IPv6's, in Flannel's own words.
    pub fn validated(&self) -> Result<ValidNetConf, NetConfError> {
        ValidNetConf::of(self)
    }
}

impl Family {
    const fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }

    const fn network_key(self) -> &'static str {
        match self {
            Self::V4 => "Network",
            Self::V6 => "IPv6Network",
        }
    }

    /// The network's name where upstream's text uses another spelling than the key.
    const fn small_network_name(self) -> &'static str {
        match self {
            Self::V4 => "network",
            Self::V6 => "IPv6Network",
        }
    }

    const fn min_key(self) -> &'static str {
        match self {
            Self::V4 => "SubnetMin",
            Self::V6 => "IPv6SubnetMin",
        }
    }

    const fn max_key(self) -> &'static str {
        match self {
            Self::V4 => "SubnetMax",
            Self::V6 => "IPv6SubnetMax",
        }
    }

    /// The longest prefix of a subnet that has room for a tunnel and a bridge address.
    const fn longest_subnet(self) -> u8 {
        match self {
            Self::V4 => 30,
            Self::V6 => 126,
        }
    }

    /// The subnet length for networks with room for at least four such subnets.
    const fn usual_subnet(self) -> u8 {
        match self {
            Self::V4 => 24,
            Self::V6 => 64,
        }
    }
}

fn network<N: IpNet>(
    object: &Object<'_>,
    key: &'static str,
    parse: fn(&str) -> Option<N>,
    error: fn(String) -> NetConfError,
) -> Result<Option<N>, NetConfError> {
    let Some(text) = object.string(key)? else {
        return Ok(None);
    };
    let net = parse(&text).ok_or_else(|| error(text))?;
    Ok(Some(net.masked()).filter(|net| net.prefix_len() != 0))
}

fn bound<A: std::str::FromStr + PartialEq>(
    object: &Object<'_>,
    key: &'static str,
    family: Family,
    unset: A,
) -> Result<Option<A>, NetConfError> {
    let Some(text) = object.string(key)? else {
        return Ok(None);
    };
    let address = text
        .parse()
        .map_err(|_| NetConfError::NotAddress { key, family, text })?;
    Ok(Some(address).filter(|address| *address != unset))
}

#[cfg(test)]
mod tests;
