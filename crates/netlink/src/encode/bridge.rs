use net_types::{IfIndex, IfName};
use netlink_packet_route::link::{
    AfSpecBridge, BridgeFlag, BridgeVlanInfo, BridgeVlanInfoFlags, InfoBridge, InfoData, InfoKind,
    LinkAttribute, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::Request;
use super::link::change_info;
use crate::bridge::PortVlans;

pub(crate) fn set_vlan_filtering(bridge: &IfName) -> Request {
    let data = InfoData::Bridge(vec![InfoBridge::VlanFiltering(true)]);
    change_info(
        bridge,
        vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(data)],
    )
}

/// Puts a port into VLANs (linux `br_netlink.c`, `br_afspec`).
pub(crate) fn add_port_vlans(port: IfIndex, vlans: &PortVlans) -> Request {
    let entries = match vlans {
        PortVlans::Access(vlan) => {
            vec![entry(
                *vlan,
                BridgeVlanInfoFlags::Pvid | BridgeVlanInfoFlags::Untagged,
            )]
        }
        PortVlans::Trunk(ranges) => ranges
            .iter()
            .flat_map(|range| match (*range.start(), *range.end()) {
                (first, last) if first == last => vec![entry(first, BridgeVlanInfoFlags::empty())],
                (first, last) => vec![
                    entry(first, BridgeVlanInfoFlags::RangeBegin),
                    entry(last, BridgeVlanInfoFlags::RangeEnd),
                ],
            })
            .collect(),
    };
    Request {
        message: RouteNetlinkMessage::SetLink(port_message(port, entries)),
        flags: 0,
    }
}

pub(crate) fn del_port_vlan(port: IfIndex, vlan: u16) -> Request {
    let entries = vec![entry(vlan, BridgeVlanInfoFlags::empty())];
    Request {
        message: RouteNetlinkMessage::DelLink(port_message(port, entries)),
        flags: 0,
    }
}

/// A message of the bridge's own family, which takes the port by number only.
fn port_message(port: IfIndex, entries: Vec<AfSpecBridge>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.interface_family = AddressFamily::Bridge;
    message.header.index = port.get();
    let mut spec = vec![AfSpecBridge::Flags(BridgeFlag::Controller)];
    spec.extend(entries);
    message.attributes.push(LinkAttribute::AfSpecBridge(spec));
    message
}

fn entry(vid: u16, flags: BridgeVlanInfoFlags) -> AfSpecBridge {
    AfSpecBridge::VlanInfo(BridgeVlanInfo { flags, vid })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::{NLM_F_REQUEST, NetlinkMessage};

    use super::*;

    /// The attributes of a request after the header of its message (16 + 16 bytes), as the kernel gets them.
    fn sent(request: Request) -> (u16, Vec<u8>) {
        let mut message = NetlinkMessage::from(request.message);
        message.header.flags = NLM_F_REQUEST | request.flags;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        (message.header.message_type, bytes[16..].to_vec())
    }

    fn words(values: &[u16]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_ne_bytes()).collect()
    }

    /// `ifinfomsg` of `AF_BRIDGE` (7) for link 5, less the flags.
    fn header() -> Vec<u8> {
        [vec![7, 0, 0, 0], 5_u32.to_ne_bytes().to_vec(), vec![0; 8]].concat()
    }

    /// As `bridge vlan add dev X vid 100 pvid untagged master` sends it, which iproute2 6.1 does with flags in this
    /// order.
    #[test]
    fn an_access_port_is_asked_for_with_pvid_and_untagged() {
        let (kind, bytes) = sent(add_port_vlans(IfIndex::new(5).unwrap(), &PortVlans::Access(100)));
        // RTM_SETLINK; IFLA_AF_SPEC with IFLA_BRIDGE_FLAGS 1 (master) and IFLA_BRIDGE_VLAN_INFO.
        let spec = [words(&[20, 26]), words(&[6, 0, 1, 0]), words(&[8, 2, 0b110, 100])].concat();
        assert_eq!((kind, bytes), (19, [header(), spec].concat()));
    }

    #[test]
    fn a_trunk_is_asked_for_by_ranges() {
        let vlans = PortVlans::Trunk(vec![5..=5, 10..=4094]);
        let (kind, bytes) = sent(add_port_vlans(IfIndex::new(5).unwrap(), &vlans));
        let ranges = [
            words(&[8, 2, 0, 5]),
            words(&[8, 2, 0b1000, 10]),
            words(&[8, 2, 0b1_0000, 4094]),
        ]
        .concat();
        let spec = [words(&[36, 26]), words(&[6, 0, 1, 0]), ranges].concat();
        assert_eq!((kind, bytes), (19, [header(), spec].concat()));
    }

    #[test]
    fn a_vlan_is_left_by_the_same_form_as_a_removal() {
        let (kind, bytes) = sent(del_port_vlan(IfIndex::new(5).unwrap(), 1));
        let spec = [words(&[20, 26]), words(&[6, 0, 1, 0]), words(&[8, 2, 0, 1])].concat();
        assert_eq!((kind, bytes), (17, [header(), spec].concat()));
    }
}
