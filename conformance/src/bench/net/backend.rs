//! The backends that carry packets in the kernel.

/// The family of the addresses between which is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// A backend of Flannel's (flannel Documentation/backends.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Vxlan,
    DirectRouting,
    HostGw,
    WireGuard,
    Ipip,
}

impl Backend {
    /// The backends that have a family.
    pub(super) fn of(family: Family) -> Vec<Self> {
        let mut all = vec![Self::Vxlan, Self::DirectRouting, Self::HostGw, Self::WireGuard];
        // Upstream's ipip is IPv4's alone, as ours.
        if family == Family::V4 {
            all.push(Self::Ipip);
        }
        all
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::DirectRouting => "vxlan direct",
            Self::HostGw => "host-gw",
            Self::WireGuard => "wireguard",
            Self::Ipip => "ipip",
        }
    }

    /// The network configuration; of IPv6 it is dual stack's, because pods always have an IPv4 address in the lab.
    pub(super) fn net_conf(self, family: Family) -> String {
        let backend = match self {
            Self::Vxlan => r#"{"Type":"vxlan"}"#,
            Self::DirectRouting => r#"{"Type":"vxlan","DirectRouting":true}"#,
            Self::HostGw => r#"{"Type":"host-gw"}"#,
            Self::WireGuard => r#"{"Type":"wireguard"}"#,
            Self::Ipip => r#"{"Type":"ipip"}"#,
        };
        let v6 = match family {
            Family::V4 => "",
            Family::V6 => r#""EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","#,
        };
        format!(r#"{{"Network":"10.244.0.0/16",{v6}"Backend":{backend}}}"#)
    }

    /// What `ip link add` has to be able to make for it, beyond what every kernel with namespaces has.
    pub(super) fn driver(self) -> Option<&'static str> {
        match self {
            Self::Vxlan | Self::DirectRouting => Some("vxlan id 4095 dstport 4789"),
            Self::HostGw => None,
            Self::WireGuard => Some("wireguard"),
            Self::Ipip => Some("ipip remote 192.0.2.1 local 192.0.2.2"),
        }
    }

    /// Whether the commands of [`super::plain`] make its state; WireGuard's need keys, ipip's are few enough to be
    /// compared with the underlay alone.
    pub(super) fn has_twin(self) -> bool {
        match self {
            Self::Vxlan | Self::DirectRouting | Self::HostGw => true,
            Self::WireGuard | Self::Ipip => false,
        }
    }

    /// Whether the nodes have VXLAN devices.
    pub(super) fn has_vxlan(self) -> bool {
        match self {
            Self::Vxlan | Self::DirectRouting => true,
            Self::HostGw | Self::WireGuard | Self::Ipip => false,
        }
    }

    /// Whether peers on the same link are reached by plain routes.
    pub(super) fn is_direct(self) -> bool {
        match self {
            Self::DirectRouting | Self::HostGw => true,
            Self::Vxlan | Self::WireGuard | Self::Ipip => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_backend_has_a_configuration_in_its_families() {
        for (family, count) in [(Family::V4, 5), (Family::V6, 4)] {
            let backends = Backend::of(family);
            assert_eq!(backends.len(), count);
            for backend in backends {
                let conf: Value = serde_json::from_str(&backend.net_conf(family)).unwrap();
                assert_eq!(conf["Network"], "10.244.0.0/16");
                assert_eq!(conf.get("IPv6Network").is_some(), family == Family::V6);
                assert!(conf["Backend"]["Type"].is_string());
            }
        }
    }
}
