use std::fmt::{Display, Write};
use std::path::{Path, PathBuf};

use ipnetwork::{Ipv4Network, Ipv6Network};
use net_types::SubnetKey;

use crate::cidr::{self, IpNet};

const NETWORK: &str = "FLANNEL_NETWORK";
const SUBNET: &str = "FLANNEL_SUBNET";
const IPV6_NETWORK: &str = "FLANNEL_IPV6_NETWORK";
const IPV6_SUBNET: &str = "FLANNEL_IPV6_SUBNET";
const MTU: &str = "FLANNEL_MTU";
const IPMASQ: &str = "FLANNEL_IPMASQ";

/// The subnet file `subnet.env`: what flanneld tells the CNI plugin (flannel `pkg/subnet/subnet.go`,
/// `WriteSubnetFile`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SubnetEnv {
    /// The pod network; several where a list is configured, none where IPv4 is off.
    pub networks: Vec<Ipv4Network>,
    /// The node's subnet; its address is the gateway's (the subnet's first host).
    pub subnet: Option<Ipv4Network>,
    /// The IPv6 pod network.
    pub ipv6_networks: Vec<Ipv6Network>,
    /// The node's IPv6 subnet; its address is the gateway's.
    pub ipv6_subnet: Option<Ipv6Network>,
    /// MTU for pods in bytes.
    pub mtu: u32,
    /// Whether flanneld masquerades, so that the plugins must not.
    pub ip_masq: bool,
}

/// The subnets that an earlier run left in the subnet file, without host bits: a wish, not a claim.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct PreviousSubnets {
    /// The pod network.
    pub network: Option<Ipv4Network>,
    /// The node's subnet.
    pub subnet: Option<Ipv4Network>,
    /// The IPv6 pod network.
    pub ipv6_network: Option<Ipv6Network>,
    /// The node's IPv6 subnet.
    pub ipv6_subnet: Option<Ipv6Network>,
}

impl PreviousSubnets {
    /// Whether a subnet of a lease was the node's.
    #[must_use]
    pub fn has_of(&self, key: SubnetKey) -> bool {
        key.v4().is_some() && key.v4() == self.subnet || key.v6().is_some() && key.v6() == self.ipv6_subnet
    }
}

/// Why a subnet file cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SubnetEnvError {
    /// Required keys are absent; the text is the reference's.
    #[error("{} is missing {}", .file.display(), .keys.join(", "))]
    Missing {
        /// The file.
        file: PathBuf,
        /// The absent keys, in the reference's order.
        keys: Vec<&'static str>,
    },
    /// A line has a known key and no `=`.
    #[error("{} has no = after {key}", .file.display())]
    NoValue {
        /// The file.
        file: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// The value of a key cannot be read.
    #[error("{}: {key} is {value:?}, which is not {expected}", .file.display())]
    Malformed {
        /// The file.
        file: PathBuf,
        /// The key.
        key: &'static str,
        /// The value found.
        value: String,
        /// What the key demands.
        expected: &'static str,
    },
}

/// The subnet with the address of its first host, which is the pods' gateway.
#[must_use]
pub fn gateway_v4(subnet: Ipv4Network) -> Ipv4Network {
    let address = std::net::Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1));
    Ipv4Network::new(address, subnet.prefix()).unwrap_or(subnet)
}

/// The IPv6 subnet with the address of its first host, which is the pods' gateway.
#[must_use]
pub fn gateway_v6(subnet: Ipv6Network) -> Ipv6Network {
    let address = std::net::Ipv6Addr::from(u128::from(subnet.network()).saturating_add(1));
    Ipv6Network::new(address, subnet.prefix()).unwrap_or(subnet)
}

impl SubnetEnv {
    /// The file's text, line by line as the reference writes it.
    #[must_use]
    pub fn render(&self) -> String {
        let lines = [
            (NETWORK, list(&self.networks)),
            (SUBNET, self.subnet.map(|net| net.to_string())),
            (IPV6_NETWORK, list(&self.ipv6_networks)),
            (IPV6_SUBNET, self.ipv6_subnet.map(|net| net.to_string())),
            (MTU, Some(self.mtu.to_string())),
            (IPMASQ, Some(self.ip_masq.to_string())),
        ];
        let present = lines.into_iter().filter_map(|(key, value)| Some((key, value?)));
        present.map(|(key, value)| format!("{key}={value}\n")).collect()
    }

    /// Reads the file as the CNI plugin must; `file` names it in errors. Of several lines with one key the last
    /// counts, other keys and lines are ignored.
    ///
    /// # Errors
    /// A required key is absent, or a known key has no or a malformed value.
    pub fn parse(text: &str, file: &Path) -> Result<Self, SubnetEnvError> {
        let reader = Reader { text, file };
        let networks = reader.value(NETWORK, "a list of IPv4 subnets", |value| {
            each(value, cidr::parse_v4)
        })?;
        let ipv6_networks = reader.value(IPV6_NETWORK, "a list of IPv6 subnets", |value| {
            each(value, cidr::parse_v6)
        })?;
        let subnet = reader.value(SUBNET, "an IPv4 subnet", cidr::parse_v4)?;
        let ipv6_subnet = reader.value(IPV6_SUBNET, "an IPv6 subnet", cidr::parse_v6)?;
        let mtu = reader.value(MTU, "a number of bytes", decimal)?;
        let ip_masq = reader.value(IPMASQ, "true or false", |value| value.parse().ok())?;

        let mut keys = Vec::new();
        if networks.is_none() && ipv6_networks.is_none() {
            keys.extend([NETWORK, IPV6_NETWORK]);
        }
        if subnet.is_none() && ipv6_subnet.is_none() {
            keys.extend([SUBNET, IPV6_SUBNET]);
        }
        keys.extend(mtu.is_none().then_some(MTU));
        keys.extend(ip_masq.is_none().then_some(IPMASQ));
        let (Some(mtu), Some(ip_masq), true) = (mtu, ip_masq, keys.is_empty()) else {
            return Err(SubnetEnvError::Missing {
                file: file.to_owned(),
                keys,
            });
        };
        Ok(Self {
            networks: networks.unwrap_or_default(),
            subnet,
            ipv6_networks: ipv6_networks.unwrap_or_default(),
            ipv6_subnet,
            mtu,
            ip_masq,
        })
    }
}

impl PreviousSubnets {
    /// Reads what it can of a subnet file; a value that is a list or cannot be read counts as absent.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        let reader = Reader {
            text,
            file: Path::new(""),
        };
        Self {
            network: reader.lenient(NETWORK, cidr::parse_v4).map(IpNet::masked),
            subnet: reader.lenient(SUBNET, cidr::parse_v4).map(IpNet::masked),
            ipv6_network: reader.lenient(IPV6_NETWORK, cidr::parse_v6).map(IpNet::masked),
            ipv6_subnet: reader.lenient(IPV6_SUBNET, cidr::parse_v6).map(IpNet::masked),
        }
    }
}

struct Reader<'a> {
    text: &'a str,
    file: &'a Path,
}

impl<'a> Reader<'a> {
    fn value<T>(
        &self,
        key: &'static str,
        expected: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>, SubnetEnvError> {
        let mut result = None;
        for line in self.lines(key) {
            let file = || self.file.to_owned();
            let value = line.ok_or_else(|| SubnetEnvError::NoValue { file: file(), key })?;
            let malformed = || SubnetEnvError::Malformed {
                file: file(),
                key,
                value: value.to_owned(),
                expected,
            };
            result = Some(parse(value).ok_or_else(malformed)?);
        }
        Ok(result)
    }

    fn lenient<T>(&self, key: &str, parse: fn(&str) -> Option<T>) -> Option<T> {
        self.lines(key).last().flatten().and_then(parse)
    }

    /// The values of each line with this key; `None` for a line without `=`.
    fn lines(&self, key: &str) -> impl Iterator<Item = Option<&'a str>> {
        self.text
            .lines()
            .filter_map(move |line| match line.split_once('=') {
                Some((name, value)) => (name == key).then_some(Some(value)),
                None => (line == key).then_some(None),
            })
    }
}

fn each<T>(value: &str, parse: fn(&str) -> Option<T>) -> Option<Vec<T>> {
    value.split(',').map(parse).collect()
}

fn decimal(value: &str) -> Option<u32> {
    let digits = !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| value.parse().ok())?
}

fn list<T: Display>(items: &[T]) -> Option<String> {
    let (first, rest) = items.split_first()?;
    let mut text = first.to_string();
    for item in rest {
        // Writing to a string cannot fail.
        write!(text, ",{item}").ok()?;
    }
    Some(text)
}

#[cfg(test)]
mod tests;
