use std::net::Ipv4Addr;

use serde_json::json;

use super::super::peer_watch::PeerKeys;

/// The pod network, of which the first /16 is left to the node itself.
pub(super) const NET_CONF: &str =
    r#"{"Network":"10.0.0.0/8","SubnetMin":"10.0.0.0","SubnetMax":"10.0.255.0","Backend":{"Type":"vxlan"}}"#;
const FIRST_SUBNET: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 0);
const FIRST_PUBLIC_IP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 1);

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
    pub(super) fn lease(self) -> (String, String) {
        let mac = self.vtep_mac().map(|byte| format!("{byte:02x}")).join(":");
        let value = json!({
            "PublicIP": self.public_ip().to_string(), "PublicIPv6": null, "BackendType": "vxlan",
            "BackendData": {"VNI": 1, "VtepMAC": mac},
        });
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
    fn a_lease_is_written_as_the_daemon_writes_it() {
        let peer = StorePeer {
            number: 258,
            generation: 0,
        };
        let (name, value) = peer.lease();
        assert_eq!(name, "10.2.2.0-24");
        let expected = r#"{"BackendData":{"VNI":1,"VtepMAC":"02:5c:00:00:01:02"},"BackendType":"vxlan","PublicIP":"172.16.1.3","PublicIPv6":null}"#;
        assert_eq!(value, expected);
    }
}
