use std::net::IpAddr;

use cni_types::{NetworkName, Target};
use ipnetwork::IpNetwork;
use net_types::{IfName, MacAddr};

/// How many names an attachment's host interface may have; the next is taken when another attachment, whose digest
/// happens to be equal, has the first.
const CANDIDATES: u8 = 3;

/// What identifies an attachment's host interface: its name, one of few, and its hardware address.
///
/// All follow from network, container and interface name, so that a DEL finds the interface without the container's
/// namespace, and takes no other attachment's: 32 bits of the name and 46 of the address must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostVeth {
    /// Possible names, the preferred one first.
    pub(crate) names: Vec<IfName>,
    pub(crate) mac: MacAddr,
    /// The hardware address of the container's end if it has no IP address to derive it from.
    pub(crate) container_mac: MacAddr,
}

impl HostVeth {
    pub(crate) fn of(network: &NetworkName, target: &Target) -> Self {
        let parts = [
            network.as_str(),
            target.container_id.as_str(),
            target.ifname.as_str(),
        ];
        let names = (0..CANDIDATES).filter_map(|candidate| {
            let [a, b, c, d, ..] = digest(candidate, &parts).to_be_bytes();
            let number = u32::from_be_bytes([a, b, c, d]);
            IfName::new(&format!("veth{number:08x}")).ok()
        });
        Self {
            names: names.collect(),
            mac: mac(digest(u8::MAX, &parts)),
            container_mac: mac(digest(u8::MAX - 1, &parts)),
        }
    }
}

/// The port of a bridge whose other end is the gateway of a VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GatewayPort {
    pub(crate) name: IfName,
    pub(crate) mac: MacAddr,
}

impl GatewayPort {
    /// Name and hardware address follow from bridge and VLAN, so that containers which are attached at once make one.
    pub(crate) fn of(bridge: &IfName, vlan: u16) -> Option<Self> {
        let vlan = vlan.to_string();
        let parts = [bridge.as_str(), vlan.as_str()];
        let [a, b, c, d, ..] = digest(0, &parts).to_be_bytes();
        let number = u32::from_be_bytes([a, b, c, d]);
        Some(Self {
            name: IfName::new(&format!("veth{number:08x}")).ok()?,
            mac: mac(digest(u8::MAX, &parts)),
        })
    }
}

/// The hardware address of the interface that holds an address: whoever gets the address next has the same, so no
/// neighbour's cache is ever wrong. For IPv4 it is Kubernetes' traditional form, `0a:58` and the address.
pub(crate) fn mac_of_holder(address: IpNetwork) -> MacAddr {
    match address.ip() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            MacAddr::new([0x0a, 0x58, a, b, c, d])
        }
        IpAddr::V6(v6) => mac(digest(u8::MAX, &[&v6.to_string()])),
    }
}

/// A hardware address of 46 bits of these.
pub(crate) fn mac(bits: u64) -> MacAddr {
    let [a, b, c, d, e, f, ..] = bits.to_be_bytes();
    MacAddr::local_from_random([a, b, c, d, e, f])
}

/// FNV-1a over the parts, with a separator that none contains, and a final mix (MurmurHash3's) so that every bit
/// depends on every byte. It must never change: interfaces of running pods are found by it.
fn digest(salt: u8, parts: &[&str]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let bytes = parts.iter().flat_map(|part| part.bytes().chain([0]));
    let mut hash = bytes
        .chain([salt])
        .fold(OFFSET, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use cni_types::ContainerId;

    use super::*;

    fn veth(network: &str, id: &str, ifname: &str) -> HostVeth {
        let target = Target {
            container_id: ContainerId::new(id).unwrap(),
            ifname: IfName::new(ifname).unwrap(),
        };
        HostVeth::of(&NetworkName::new(network).unwrap(), &target)
    }

    #[test]
    fn names_of_running_pods_never_change() {
        let veth = veth("cbr0", "a3", "eth0");
        let names: Vec<_> = veth.names.iter().map(IfName::as_str).collect();
        assert_eq!(names, ["vetha5901cdb", "veth9d4c0046", "veth3000b662"]);
        assert_eq!(veth.mac.to_string(), "82:00:7c:0d:d7:70");
    }

    #[test]
    fn network_container_and_interface_each_make_a_difference() {
        let all = [
            veth("net", "a", "eth0"),
            veth("net", "a", "eth1"),
            veth("net", "b", "eth0"),
            veth("other", "a", "eth0"),
            veth("net", "aeth0", "eth"),
        ];
        let names: BTreeSet<_> = all.iter().flat_map(|veth| veth.names.clone()).collect();
        let macs: BTreeSet<_> = all.iter().map(|veth| veth.mac).collect();
        assert_eq!((names.len(), macs.len()), (15, 5));
        assert!(macs.iter().all(|mac| mac.is_unicast()));
    }

    #[test]
    fn thousands_of_attachments_have_names_of_their_own() {
        let names: BTreeSet<_> = (0..5000)
            .map(|i| veth("cbr0", &format!("{i:064x}"), "eth0").names[0].clone())
            .collect();
        assert_eq!(names.len(), 5000);
    }

    #[test]
    fn the_holder_of_an_address_has_its_mac() {
        let mac = |text: &str| mac_of_holder(text.parse().unwrap());
        assert_eq!(mac("10.244.7.2/24").to_string(), "0a:58:0a:f4:07:02");
        assert_eq!(mac("fd00::2/64"), mac("fd00::2/48"));
        assert_ne!(mac("fd00::2/64"), mac("fd00::3/64"));
        assert!(mac("fd00::2/64").is_unicast());
    }
}
