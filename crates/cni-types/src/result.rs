use std::net::IpAddr;

use ipnetwork::IpNetwork;
use serde_json::{Map, Value};

use crate::Dns;

/// What an ADD did, in no version's form: [`AddResult::parse`] reads it from any, [`AddResult::render`] writes it in
/// each. Members that the specification does not know are kept, so that a chain loses nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AddResult {
    /// Interfaces made or changed, host's and container's.
    pub interfaces: Vec<Interface>,
    /// Addresses.
    pub ips: Vec<IpConfig>,
    /// Routes of the container.
    pub routes: Vec<ResultRoute>,
    /// Name service settings.
    pub dns: Dns,
    /// Members that the specification does not know.
    pub extra: Map<String, Value>,
}

/// An interface of a result.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Hardware address.
    pub mac: Option<String>,
    /// MTU in bytes (from 1.1.0).
    pub mtu_bytes: Option<i64>,
    /// Path of the namespace it is in; absent or empty for the host's.
    pub sandbox: Option<String>,
    /// Path of a socket that serves the interface (from 1.1.0).
    pub socket_path: Option<String>,
    /// PCI address of the device (from 1.1.0).
    pub pci_id: Option<String>,
    /// Members that the specification does not know.
    pub extra: Map<String, Value>,
}

/// An address of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct IpConfig {
    /// Address and prefix length.
    pub address: IpNetwork,
    /// Default gateway of its network.
    pub gateway: Option<IpAddr>,
    /// Position of its interface in the list; may be out of range in what another plugin wrote.
    pub interface: Option<i64>,
    /// Members that the specification does not know.
    pub extra: Map<String, Value>,
}

/// A route of a result.
#[derive(Debug, Clone, PartialEq)]
pub struct ResultRoute {
    /// Destination.
    pub dst: IpNetwork,
    /// Next hop; absent means the gateway of the address.
    pub gw: Option<IpAddr>,
    /// Path MTU in bytes (from 1.1.0).
    pub mtu_bytes: Option<i64>,
    /// Advertised maximum segment size in bytes (from 1.1.0).
    pub advmss_bytes: Option<i64>,
    /// Metric (from 1.1.0).
    pub priority: Option<i64>,
    /// Routing table (from 1.1.0).
    pub table: Option<i64>,
    /// Scope number (from 1.1.0).
    pub scope: Option<i64>,
    /// Members that the specification does not know.
    pub extra: Map<String, Value>,
}

impl IpConfig {
    /// An address with its gateway, not yet on an interface.
    #[must_use]
    pub fn new(address: IpNetwork, gateway: Option<IpAddr>) -> Self {
        Self {
            address,
            gateway,
            interface: None,
            extra: Map::new(),
        }
    }
}

impl ResultRoute {
    /// A plain route.
    #[must_use]
    pub fn new(dst: IpNetwork, gw: Option<IpAddr>) -> Self {
        Self {
            dst,
            gw,
            mtu_bytes: None,
            advmss_bytes: None,
            priority: None,
            table: None,
            scope: None,
            extra: Map::new(),
        }
    }
}

impl AddResult {
    /// The addresses, without the lengths of their prefixes.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        self.ips.iter().map(|ip| ip.address.ip()).collect()
    }

    /// The container's interface of this name: the first with a sandbox, and its position in the list.
    #[must_use]
    pub fn container_interface(&self, ifname: &str) -> Option<(usize, &Interface)> {
        let mut all = self.interfaces.iter().enumerate();
        all.find(|(_, interface)| interface.name == ifname && interface.is_in_sandbox())
    }
}

impl Interface {
    /// Whether it is a container's, not the host's.
    #[must_use]
    pub fn is_in_sandbox(&self) -> bool {
        self.sandbox.as_deref().is_some_and(|path| !path.is_empty())
    }
}
