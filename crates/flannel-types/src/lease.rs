use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use net_types::{MacAddr, SubnetKey, Vni, VniError, WgPublicKey};

use crate::go_json::{self, JsonError, Object};

/// A node's claim to a subnet, with what its peers must know to reach it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lease {
    /// The subnet, in both families where IPv6 is enabled.
    pub key: SubnetKey,
    /// What peers must know.
    pub attrs: LeaseAttrs,
    /// When the claim ends unless it is renewed; `None` for a reservation, which does not end.
    pub expires: Option<UnixTime>,
}

/// The value of a lease in a store (flannel `pkg/lease/lease.go`, `LeaseAttrs`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct LeaseAttrs {
    /// The IPv4 address at which peers reach the node; `None` where IPv4 is off.
    pub public_ip: Option<Ipv4Addr>,
    /// The same for IPv6.
    pub public_ipv6: Option<Ipv6Addr>,
    /// The backend's name; empty where the backend publishes none.
    pub backend_type: String,
    /// The backend's own data as compact JSON text, for VXLAN a [`VxlanData`].
    pub backend_data: Option<String>,
    /// The same for IPv6.
    pub backend_v6_data: Option<String>,
}

/// The addresses at which peers reach a node; they also tell whose a lease is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicAddrs {
    /// Of IPv4, where it is on.
    pub v4: Option<Ipv4Addr>,
    /// Of IPv6, where it is on.
    pub v6: Option<Ipv6Addr>,
}

/// The backend data of a VXLAN lease (flannel `pkg/backend/vxlan/vxlan.go`, `vxlanLeaseAttrs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct VxlanData {
    /// The node's VNI.
    pub vni: Vni,
    /// The MAC address of the node's VXLAN device.
    pub vtep_mac: MacAddr,
}

/// The backend data of a WireGuard lease (flannel `pkg/backend/wireguard/wireguard_network.go`, `wireguardLeaseAttrs`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct WireguardData {
    /// The public key of the node's WireGuard device.
    pub public_key: WgPublicKey,
    /// The UDP port that it listens on; `None` in leases of old versions, which listen where their peers do.
    pub port: Option<u16>,
}

/// The backend data of a lease of the backend `extension`: what the node's `PreStartupCommand` printed (flannel
/// `pkg/backend/extension`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct ExtensionData(pub String);

/// A moment in whole seconds since 1970 (UTC).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(u64);

/// Why a text is not the value of a lease, or not the data of its backend.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseValueError {
    /// The text is not JSON, or a member has the wrong type.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A member that is required is absent.
    #[error("the lease has no {0}")]
    Missing(&'static str),
    /// A member's text cannot be read as what its key demands.
    #[error("{key} of the lease is {text:?}, which is not {expected}")]
    Malformed {
        /// The key.
        key: &'static str,
        /// What the key demands.
        expected: &'static str,
        /// The text found.
        text: String,
    },
    /// The data of the backend `extension` is something else than a text.
    #[error("it is no JSON string")]
    NoString,
    /// The VNI has more than 24 bits.
    #[error(transparent)]
    Vni(#[from] VniError),
}

impl LeaseAttrs {
    /// The same of a node that has other public addresses now.
    #[must_use]
    pub fn at(&self, addrs: PublicAddrs) -> Self {
        Self {
            public_ip: addrs.v4,
            public_ipv6: addrs.v6,
            ..self.clone()
        }
    }

    /// Reads the value of a lease; members of other names are ignored.
    ///
    /// # Errors
    /// Names the member that is absent or malformed.
    pub fn parse(text: &str) -> Result<Self, LeaseValueError> {
        let object = Object::parse("the lease", text)?;
        let public_ip = address(&object, "PublicIP", "an IPv4 address")?;
        let public_ip = public_ip.filter(|ip: &Ipv4Addr| !ip.is_unspecified());
        let public_ipv6 = address(&object, "PublicIPv6", "an IPv6 address")?;
        if public_ip.is_none() && public_ipv6.is_none() {
            return Err(LeaseValueError::Missing("PublicIP"));
        }
        Ok(Self {
            public_ip,
            public_ipv6,
            backend_type: object.string("BackendType")?.unwrap_or_default(),
            backend_data: object.raw("BackendData").map(go_json::compact),
            backend_v6_data: object.raw("BackendV6Data").map(go_json::compact),
        })
    }

    /// The addresses of the node that holds the lease.
    #[must_use]
    pub const fn addrs(&self) -> PublicAddrs {
        PublicAddrs {
            v4: self.public_ip,
            v6: self.public_ipv6,
        }
    }

    /// The value as the reference writes it: compact, members in its order, empty ones omitted. An IPv4 address that
    /// is not there is `0.0.0.0`, as Go prints the zero value, and is read back so.
    #[must_use]
    pub fn to_json(&self) -> String {
        let public_ipv6 = self
            .public_ipv6
            .map_or_else(|| "null".to_owned(), |ip| format!("\"{ip}\""));
        let mut text = format!(
            "{{\"PublicIP\":\"{}\",\"PublicIPv6\":{public_ipv6}",
            self.public_ip.unwrap_or(Ipv4Addr::UNSPECIFIED)
        );
        if !self.backend_type.is_empty() {
            let quoted = serde_json::Value::String(self.backend_type.clone());
            text.push_str(&format!(",\"BackendType\":{quoted}"));
        }
        if let Some(data) = &self.backend_data {
            text.push_str(&format!(",\"BackendData\":{data}"));
        }
        if let Some(data) = &self.backend_v6_data {
            text.push_str(&format!(",\"BackendV6Data\":{data}"));
        }
        text.push('}');
        text
    }
}

impl PublicAddrs {
    /// Whether these are addresses of one node: IPv4 decides where both have it, as it does upstream; else IPv6. So a
    /// node stays the same one while a family is switched on or off.
    #[must_use]
    pub fn is_same_node(self, other: Self) -> bool {
        match (self.v4, other.v4) {
            (Some(one), Some(other)) => one == other,
            (_, None) | (None, _) => self.v6.is_some() && self.v6 == other.v6,
        }
    }

    /// The address that names the node to a person: IPv4's, or else IPv6's.
    #[must_use]
    pub fn first(self) -> Option<IpAddr> {
        self.v4.map(IpAddr::V4).or(self.v6.map(IpAddr::V6))
    }
}

impl fmt::Display for PublicAddrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.v4, self.v6) {
            (Some(v4), Some(v6)) => write!(f, "{v4} and {v6}"),
            (Some(v4), None) => v4.fmt(f),
            (None, Some(v6)) => v6.fmt(f),
            (None, None) => f.write_str("no address"),
        }
    }
}

impl VxlanData {
    /// Reads the backend data of a VXLAN lease; members of other names are ignored.
    ///
    /// # Errors
    /// Names the member that is absent or malformed.
    pub fn parse(text: &str) -> Result<Self, LeaseValueError> {
        let object = Object::parse("the lease's backend data", text)?;
        let vni = object
            .at_most("VNI", u32::MAX)?
            .ok_or(LeaseValueError::Missing("VNI"))?;
        let vtep_mac = address(&object, "VtepMAC", "a MAC address")?;
        Ok(Self {
            vni: Vni::try_from(vni)?,
            vtep_mac: vtep_mac.ok_or(LeaseValueError::Missing("VtepMAC"))?,
        })
    }

    /// The data as the reference writes it.
    #[must_use]
    pub fn to_json(&self) -> String {
        format!("{{\"VNI\":{},\"VtepMAC\":\"{}\"}}", self.vni, self.vtep_mac)
    }
}

impl WireguardData {
    /// Reads the backend data of a WireGuard lease; members of other names are ignored.
    ///
    /// # Errors
    /// Names the member that is absent or malformed.
    pub fn parse(text: &str) -> Result<Self, LeaseValueError> {
        let object = Object::parse("the lease's backend data", text)?;
        let public_key = address(&object, "PublicKey", "a WireGuard public key")?;
        Ok(Self {
            public_key: public_key.ok_or(LeaseValueError::Missing("PublicKey"))?,
            port: object.at_most("Port", u16::MAX)?.filter(|port| *port != 0),
        })
    }

    /// The data as the reference writes it.
    #[must_use]
    pub fn to_json(&self) -> String {
        let port = self.port.unwrap_or_default();
        format!("{{\"PublicKey\":\"{}\",\"Port\":{port}}}", self.public_key)
    }
}

impl ExtensionData {
    /// Reads the backend data of a lease of the backend `extension`; there is none where nothing was printed.
    ///
    /// # Errors
    /// The data is no JSON string.
    pub fn parse(text: Option<&str>) -> Result<Self, LeaseValueError> {
        let data: Option<String> = text
            .map_or(Ok(None), serde_json::from_str)
            .map_err(|_| LeaseValueError::NoString)?;
        Ok(Self(data.unwrap_or_default()))
    }

    /// The data as the reference writes it.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::Value::from(self.0.as_str()).to_string()
    }
}

impl UnixTime {
    /// Wraps a number of seconds since 1970.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs)
    }

    /// The seconds since 1970.
    #[must_use]
    pub const fn secs(self) -> u64 {
        self.0
    }

    /// This moment, later by a duration's whole seconds.
    #[must_use]
    pub const fn plus(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_secs()))
    }
}

impl From<SystemTime> for UnixTime {
    /// Drops the fraction; a moment before 1970 counts as 1970.
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
    }
}

fn address<A: std::str::FromStr>(
    object: &Object<'_>,
    key: &'static str,
    expected: &'static str,
) -> Result<Option<A>, LeaseValueError> {
    let Some(text) = object.string(key)? else {
        return Ok(None);
    };
    let address = text
        .parse()
        .map_err(|_| LeaseValueError::Malformed { key, expected, text })?;
    Ok(Some(address))
}

#[cfg(test)]
mod tests;
