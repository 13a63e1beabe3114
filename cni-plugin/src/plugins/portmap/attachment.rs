use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_types::{
    AddResult, ConfError as NetConfError, ContainerId, DecodeError, IdError, NetConf, NetworkName, Object,
    Target, network_of, parse_cidr,
};
use ipnetwork::IpNetwork;
use net_types::{IfName, IfNameError};
use netlink::conntrack::{IpVersion, OriginalDestination};
use serde_json::{Value, json};

use super::conf::{Backend, Conf, ConfError, host_ip};

/// One of the two families that host ports are mapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum IpFamily {
    V4,
    V6,
}

impl IpFamily {
    pub(crate) const BOTH: [Self; 2] = [Self::V4, Self::V6];

    pub(crate) const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    pub(crate) const fn version(self) -> IpVersion {
        match self {
            Self::V4 => IpVersion::V4,
            Self::V6 => IpVersion::V6,
        }
    }
}

/// A protocol with ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Protocol {
    Sctp,
    Tcp,
    Udp,
}

impl Protocol {
    /// In the order of their names, which is the reference's order of entry rules.
    pub(crate) const ALL: [Self; 3] = [Self::Sctp, Self::Tcp, Self::Udp];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sctp => "sctp",
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    /// IANA's number of it.
    pub(crate) const fn number(self) -> u8 {
        match self {
            Self::Sctp => 132,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// A port of the host that leads to one of the container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mapping {
    pub(crate) protocol: Protocol,
    pub(crate) host_port: u16,
    pub(crate) container_port: u16,
    /// `None` is every address of either family, an unspecified address every one of its family.
    pub(crate) host_ip: Option<IpAddr>,
}

/// Why a mapping cannot be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MappingError {
    #[error("{0}")]
    Decode(DecodeError),
    #[error("invalid {key} number {value}: it must be between 1 and 65535")]
    Port { key: &'static str, value: i64 },
    #[error("unknown protocol {0:?}; choose tcp, udp or sctp")]
    Protocol(String),
    #[error("hostIP {0:?} is no IP address")]
    HostIp(String),
}

impl Mapping {
    pub(crate) fn parse(entry: &Object) -> Result<Self, MappingError> {
        let text = |key| {
            let found = entry.string(key).map_err(MappingError::Decode);
            found.map(Option::unwrap_or_default)
        };
        let name = text("protocol")?;
        let mut known = Protocol::ALL.into_iter();
        let protocol = known.find(|protocol| protocol.as_str().eq_ignore_ascii_case(name));
        let host_ip_text = text("hostIP")?;
        let host_ip = match host_ip_text {
            "" => None,
            given => Some(host_ip(given).ok_or_else(|| MappingError::HostIp(given.to_owned()))?),
        };
        Ok(Self {
            protocol: protocol.ok_or_else(|| MappingError::Protocol(name.to_owned()))?,
            host_port: port(entry, "hostPort")?,
            container_port: port(entry, "containerPort")?,
            host_ip,
        })
    }

    /// Whether it is for packets of this family.
    pub(crate) fn is_in(&self, family: IpFamily) -> bool {
        self.host_ip.is_none_or(|ip| IpFamily::of(ip) == family)
    }

    /// The one address of the host that it is for, if it is not for all.
    pub(crate) fn one_host_ip(&self) -> Option<IpAddr> {
        self.host_ip.filter(|ip| !ip.is_unspecified())
    }

    /// Where the UDP flows went that it is for; none if it is for another protocol.
    pub(crate) fn udp_destinations(&self) -> impl Iterator<Item = OriginalDestination> + use<> {
        let (addr, port) = (self.one_host_ip(), self.host_port);
        let this = *self;
        let families = IpFamily::BOTH.into_iter();
        families
            .filter(move |family| this.protocol == Protocol::Udp && this.is_in(*family))
            .map(move |family| OriginalDestination {
                version: family.version(),
                addr,
                port,
            })
    }

    fn to_value(self) -> Value {
        let mut value = json!({
            "protocol": self.protocol.as_str(),
            "hostPort": self.host_port,
            "containerPort": self.container_port,
        });
        if let (Some(ip), Some(map)) = (self.host_ip, value.as_object_mut()) {
            map.insert("hostIP".to_owned(), ip.to_string().into());
        }
        value
    }
}

fn port(entry: &Object, key: &'static str) -> Result<u16, MappingError> {
    let value = entry.int(key).map_err(MappingError::Decode)?.unwrap_or_default();
    let port = u16::try_from(value).ok().filter(|port| *port != 0);
    port.ok_or(MappingError::Port { key, value })
}

/// How packets that are to be masqueraded are told to the rule that does it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum MarkBy {
    /// By this bit of the mark.
    Bit(u32),
    /// By whatever this chain of iptables does.
    Chain(String),
}

/// All that the rules of an attachment follow from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attachment {
    pub(crate) network: NetworkName,
    pub(crate) target: Target,
    /// What made the rules.
    pub(crate) backend: Backend,
    pub(crate) conf: Conf,
    /// The container's addresses with the length of their network's prefix, at most one of a family.
    pub(crate) addresses: Vec<IpNetwork>,
}

/// Why a stored attachment cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoredError {
    #[error("{0}")]
    NetConf(NetConfError),
    #[error("{0}")]
    Conf(ConfError),
    #[error("{0}")]
    Decode(DecodeError),
    #[error("{0}")]
    ContainerId(IdError),
    #[error("{0}")]
    IfName(IfNameError),
    #[error("address {0:?} is malformed")]
    Address(String),
    #[error("the back end is missing")]
    NoBackend,
}

impl Attachment {
    /// The container's address in a family.
    pub(crate) fn address(&self, family: IpFamily) -> Option<IpNetwork> {
        let mut all = self.addresses.iter().copied();
        all.find(|address| IpFamily::of(address.ip()) == family)
    }

    /// The network of the container's address in a family.
    pub(crate) fn subnet(&self, family: IpFamily) -> Option<IpNetwork> {
        self.address(family).map(network_of)
    }

    /// The mappings that have rules in a family.
    pub(crate) fn mappings(&self, family: IpFamily) -> impl Iterator<Item = &Mapping> {
        self.conf
            .mappings
            .iter()
            .filter(move |mapping| mapping.is_in(family))
    }

    /// Whether any mapping has rules in a family.
    pub(crate) fn is_mapped_in(&self, family: IpFamily) -> bool {
        self.mappings(family).next().is_some()
    }

    /// Where the UDP flows went that its mappings are for.
    pub(crate) fn udp_destinations(&self) -> BTreeSet<OriginalDestination> {
        let mappings = self.conf.mappings.iter();
        mappings.flat_map(Mapping::udp_destinations).collect()
    }

    /// As a network configuration with a few keys more, so that one reader serves both.
    pub(crate) fn to_text(&self) -> String {
        let conf = &self.conf;
        let mut value = json!({
            "cniVersion": "1.0.0",
            "name": self.network.as_str(),
            "type": "portmap",
            "containerID": self.target.container_id.as_str(),
            "ifname": self.target.ifname.as_str(),
            "addresses": self.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "backend": self.backend.as_str(),
            "snat": conf.snat,
            "masqAll": conf.masq_all,
            "conditionsV4": conf.conditions_v4,
            "conditionsV6": conf.conditions_v6,
            "runtimeConfig": {
                "portMappings": conf.mappings.iter().map(|mapping| mapping.to_value()).collect::<Vec<_>>(),
            },
        });
        if let Some(map) = value.as_object_mut() {
            let (key, mark) = match &conf.mark {
                MarkBy::Bit(mask) => ("markMasqBit", Value::from(mask.trailing_zeros())),
                MarkBy::Chain(chain) => ("externalSetMarkChain", Value::from(chain.as_str())),
            };
            map.insert(key.to_owned(), mark);
        }
        value.to_string()
    }

    /// Reads what [`Self::to_text`] wrote.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, StoredError> {
        let netconf = NetConf::parse(text).map_err(StoredError::NetConf)?;
        let conf = Conf::parse(&netconf).map_err(StoredError::Conf)?;
        let text_of = |key| {
            let found = netconf.object.string(key).map_err(StoredError::Decode);
            found.map(Option::unwrap_or_default)
        };
        let target = Target {
            container_id: ContainerId::new(text_of("containerID")?).map_err(StoredError::ContainerId)?,
            ifname: IfName::new(text_of("ifname")?).map_err(StoredError::IfName)?,
        };
        let texts = netconf.object.strings("addresses").map_err(StoredError::Decode)?;
        let addresses = texts
            .into_iter()
            .map(|text| parse_cidr(&text).map_err(|_| StoredError::Address(text)));
        Ok(Self {
            backend: conf.backend.ok_or(StoredError::NoBackend)?,
            conf,
            target,
            addresses: addresses.collect::<Result<_, _>>()?,
            network: netconf.name,
        })
    }
}

/// The container's addresses by the result of the plugins before: the first of each family that is on its interface,
/// or on no interface that is known.
pub(crate) fn addresses_of(result: &AddResult, ifname: &IfName) -> Vec<IpNetwork> {
    let is_meant = |position: Option<i64>| {
        let known = position.and_then(|position| usize::try_from(position).ok());
        let interface = known.and_then(|position| result.interfaces.get(position));
        interface.is_none_or(|interface| interface.is_in_sandbox() && interface.name == ifname.as_str())
    };
    let candidates = || result.ips.iter().filter(|ip| is_meant(ip.interface));
    let first = |family| {
        let mut addresses = candidates().map(|ip| ip.address);
        addresses.find(|address| IpFamily::of(address.ip()) == family)
    };
    IpFamily::BOTH.into_iter().filter_map(first).collect()
}

#[cfg(test)]
pub(super) mod tests;
