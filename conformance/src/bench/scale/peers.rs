use std::net::Ipv4Addr;

use serde_json::json;

use super::super::peer_watch::PeerKeys;
use crate::lab::{NODE_LINK, TUNNEL};

const FIRST_SUBNET: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 0);
const FIRST_PUBLIC_IP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);
/// All public addresses.
pub(super) const PUBLIC_IPS: &str = "172.16.0.0/12";

/// How the peers are reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Backend {
    Vxlan,
    HostGw,
}

impl Backend {
    fn name(self) -> &'static str {
        match self {
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
        }
    }

    /// The network configuration: of the pod network the first /16 is left to the node itself.
    pub(super) fn net_conf(self) -> String {
        let range = r#""Network":"10.0.0.0/8","SubnetMin":"10.0.0.0","SubnetMax":"10.0.255.0""#;
        format!(r#"{{{range},"Backend":{{"Type":"{}"}}}}"#, self.name())
    }

    /// The device that the peers' routes go through.
    pub(super) fn device(self) -> &'static str {
        match self {
            Self::Vxlan => TUNNEL,
            Self::HostGw => NODE_LINK,
        }
    }

    /// The gateway of a peer's route.
    pub(super) fn gateway(self, peer: StorePeer) -> Ipv4Addr {
        match self {
            Self::Vxlan => peer.subnet(),
            Self::HostGw => peer.public_ip(),
        }
    }
}

/// A peer that exists in the store only. Its number names it; its generation tells how often it has moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StorePeer {
    pub(super) number: u16,
    pub(super) generation: u32,
}

impl StorePeer {
    /// The first peers.
    pub(super) fn all(count: u16, generation: u32) -> Vec<Self> {
        let peer = |number| Self { number, generation };
        (0..count).map(peer).collect()
    }

    /// The one that comes after the first `count`.
    pub(super) const fn one_more(count: u16) -> Self {
        Self {
            number: count,
            generation: 0,
        }
    }

    /// The first address of its subnet.
    pub(super) fn subnet(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(FIRST_SUBNET.to_bits() + (u32::from(self.number) << 8))
    }

    pub(super) fn vtep_mac(self) -> [u8; 6] {
        let [high, low] = self.number.to_be_bytes();
        [0x02, 0x5c, 0, 0, high, low]
    }

    /// Its underlay address, another one in each of several generations.
    pub(super) fn public_ip(self) -> Ipv4Addr {
        let block = (self.generation % 8) << 16;
        Ipv4Addr::from_bits(FIRST_PUBLIC_IP.to_bits() + block + u32::from(self.number))
    }

    /// The name below `subnets` and the value of its lease.
    pub(super) fn lease(self, backend: Backend) -> (String, String) {
        let mut value = json!({
            "PublicIP": self.public_ip().to_string(), "PublicIPv6": null, "BackendType": backend.name(),
        });
        if let (Backend::Vxlan, Some(members)) = (backend, value.as_object_mut()) {
            let mac = self.vtep_mac().map(|byte| format!("{byte:02x}")).join(":");
            members.insert("BackendData".to_owned(), json!({"VNI": 1, "VtepMAC": mac}));
        }
        (format!("{}-24", self.subnet()), value.to_string())
    }

    /// What names it in a node's kernel.
    pub(super) fn keys(self) -> PeerKeys {
        PeerKeys {
            subnet: self.subnet(),
            vtep_mac: self.vtep_mac(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_peers_share_anything() {
        let peers = StorePeer::all(10_001, 1);
        let distinct =
            |of: &dyn Fn(&StorePeer) -> String| peers.iter().map(of).collect::<BTreeSet<_>>().len();
        assert_eq!(distinct(&|peer| peer.subnet().to_string()), peers.len());
        assert_eq!(distinct(&|peer| peer.public_ip().to_string()), peers.len());
        assert_eq!(distinct(&|peer| format!("{:?}", peer.vtep_mac())), peers.len());
        assert!(peers.iter().all(|peer| peer.public_ip().is_private()));
    }

    #[test]
    fn a_configuration_names_its_backend() {
        for (backend, name) in [(Backend::Vxlan, "vxlan"), (Backend::HostGw, "host-gw")] {
            let conf: serde_json::Value = serde_json::from_str(&backend.net_conf()).unwrap();
            assert_eq!(conf["Backend"]["Type"], name);
            assert_eq!(conf["Network"], "10.0.0.0/8");
        }
    }

    #[test]
    fn a_lease_is_written_as_the_daemon_writes_it() {
        let peer = StorePeer {
            number: 258,
            generation: 0,
        };
        let (name, value) = peer.lease(Backend::Vxlan);
        assert_eq!(name, "10.2.2.0-24");
        let expected = r#"{"BackendData":{"VNI":1,"VtepMAC":"02:5c:00:00:01:02"},"BackendType":"vxlan","PublicIP":"172.16.1.3","PublicIPv6":null}"#;
        assert_eq!(value, expected);
        let (name, value) = peer.lease(Backend::HostGw);
        assert_eq!(name, "10.2.2.0-24");
        let expected = r#"{"BackendType":"host-gw","PublicIP":"172.16.1.3","PublicIPv6":null}"#;
        assert_eq!(value, expected);
    }
}
