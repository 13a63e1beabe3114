//! What only the kernel knows of WireGuard's peers: where they were heard, and when. `flanneld status` asks it itself, so
//! that the answer is of this moment; in another network namespace than the daemon's it finds nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use ipnetwork::IpNetwork;
use net_types::WgPublicKey;
use netlink::{RealKernel, WireguardReport};
use serde::{Deserialize, Serialize};

use super::{DeviceStatus, NodeStatus, PeerStatus};

/// What the kernel knows of a peer of WireGuard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Where packets for it go: as its lease says, or from where it was heard last.
    pub endpoint: Option<SocketAddr>,
    /// When the last handshake succeeded, in seconds since 1970; none if none has.
    pub last_handshake: Option<u64>,
    /// What came from it, in bytes.
    pub received_bytes: u64,
    /// What was sent to it, in bytes.
    pub sent_bytes: u64,
}

/// Adds to the peers what the kernel knows of them, where this user may ask.
pub(super) fn look(node: &NodeStatus, peers: &mut [PeerStatus]) {
    if devices(node).next().is_none() {
        return;
    }
    let Ok(mut kernel) = RealKernel::open() else {
        return;
    };
    let mut report = |device: &DeviceStatus| kernel.wireguard_report(&device.name.parse().ok()?).ok()?;
    let reports = devices(node).filter_map(|device| Some((device.name.as_str(), report(device)?)));
    add(node, &reports.collect(), peers);
}

/// Adds to each peer what the device of its family tells, if that is the daemon's.
fn add(node: &NodeStatus, reports: &BTreeMap<&str, WireguardReport>, peers: &mut [PeerStatus]) {
    for peer in peers {
        peer.seen = seen(node, reports, peer);
    }
}

fn seen(node: &NodeStatus, reports: &BTreeMap<&str, WireguardReport>, peer: &PeerStatus) -> Option<Seen> {
    let key = peer.public_key.as_ref()?;
    let is_ipv6 = is_ipv6(&peer.subnet);
    // One device may serve both families.
    let of_family = devices(node).find(|device| is_ipv6 == self::is_ipv6(&device.network));
    let device = of_family.or_else(|| devices(node).next())?;
    let report = reports.get(device.name.as_str())?;
    if report.public_key.map(|own| own.to_string()) != device.public_key {
        return None;
    }
    let key: WgPublicKey = key.parse().ok()?;
    let known = report.peers.get(&key)?;
    Some(Seen {
        endpoint: known.endpoint,
        last_handshake: known.last_handshake.map(|at| at.as_secs()),
        received_bytes: known.received_bytes,
        sent_bytes: known.sent_bytes,
    })
}

fn devices(node: &NodeStatus) -> impl Iterator<Item = &DeviceStatus> {
    let devices = node.device.iter().chain(&node.second_device);
    devices.filter(|device| device.public_key.is_some())
}

fn is_ipv6(network: &str) -> bool {
    let network: Option<IpNetwork> = network.parse().ok();
    matches!(network.map(|network| network.ip()), Some(IpAddr::V6(_)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use net_types::WgPublicKey;
    use netlink::PeerReport;

    use super::*;
    use crate::status::{Part, PeerState};

    #[test]
    fn each_peer_is_looked_up_in_the_device_of_its_family_if_that_is_the_daemons() {
        let mut node = NodeStatus {
            device: Some(device("flannel-wg", "10.244.0.0/16")),
            second_device: Some(device("flannel-wg-v6", "fd00:10:244::/48")),
            ..NodeStatus::default()
        };
        let mut reports = BTreeMap::from([
            ("flannel-wg", report(1, "192.0.2.2:51820")),
            ("flannel-wg-v6", report(1, "[2001:db8::2]:51821")),
        ]);
        let mut peers = [
            peer("10.244.2.0/24", 2),
            peer("fd00:10:244:2::/64", 2),
            peer("10.244.3.0/24", 3),
        ];
        let endpoints = |peers: &[PeerStatus]| {
            let endpoint = |peer: &PeerStatus| peer.seen?.endpoint.map(|at| at.to_string());
            peers.iter().map(endpoint).collect::<Vec<_>>()
        };
        let (v4, v6) = ("192.0.2.2:51820".to_owned(), "[2001:db8::2]:51821".to_owned());
        add(&node, &reports, &mut peers);
        assert_eq!(endpoints(&peers), [Some(v4.clone()), Some(v6), None]);
        assert_eq!(peers[0].seen.unwrap().last_handshake, Some(7));

        node.second_device = None;
        add(&node, &reports, &mut peers);
        assert_eq!(endpoints(&peers), [Some(v4.clone()), Some(v4), None]);

        // The device is that of another namespace.
        reports.insert("flannel-wg", report(9, "192.0.2.2:51820"));
        add(&node, &reports, &mut peers);
        assert_eq!(endpoints(&peers), [None, None, None]);
    }

    fn device(name: &str, network: &str) -> DeviceStatus {
        DeviceStatus {
            name: name.to_owned(),
            vni: None,
            port: Some(51820),
            mac: None,
            public_key: Some(WgPublicKey::new([1; 32]).to_string()),
            mtu_bytes: 1420,
            tx_checksum: None,
            parent: "eth0".to_owned(),
            local: [192, 0, 2, 1].into(),
            network: network.to_owned(),
            state: Part::Ok,
        }
    }

    fn report(own: u8, endpoint: &str) -> WireguardReport {
        let peer = PeerReport {
            endpoint: Some(endpoint.parse().unwrap()),
            last_handshake: Some(Duration::from_secs(7)),
            ..PeerReport::default()
        };
        WireguardReport {
            public_key: Some(WgPublicKey::new([own; 32])),
            listen_port: 51820,
            peers: [(WgPublicKey::new([2; 32]), peer)].into(),
        }
    }

    fn peer(subnet: &str, n: u8) -> PeerStatus {
        PeerStatus {
            subnet: subnet.to_owned(),
            public_ip: None,
            vtep_mac: None,
            public_key: Some(WgPublicKey::new([n; 32]).to_string()),
            way: None,
            state: PeerState::Programmed,
            route: Part::None,
            neigh: Part::None,
            fdb: Part::None,
            wireguard: Part::Ok,
            seen: None,
            error: None,
            attempts: 0,
        }
    }
}
