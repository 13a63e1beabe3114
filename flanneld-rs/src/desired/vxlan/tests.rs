use std::collections::BTreeMap;

use super::super::{Way, desired, of_peer};
use super::*;
use crate::testing::{peer, side, side_v6, subnet};

/// The reference's objects for the same leases, as its captured state shows them (spec §5.1 and §5.2).
#[test]
fn the_state_of_two_peers_is_the_reference_s() {
    let peers = [47, 84].map(|n| (subnet(n), peer(n)));

    let state = desired(&side(), &BTreeMap::from(peers), |_| Way::Carrier);

    let expected = "\
link flannel.1 vxlan vni 1 port 8472 local 192.168.77.250 parent eth0 nolearning mac 02:00:00:00:00:fa mtu 1450 up
addr flannel.1 10.244.250.0/32
route 10.244.47.0/24 via 10.244.47.0 dev flannel.1 onlink proto 3
route 10.244.84.0/24 via 10.244.84.0 dev flannel.1 onlink proto 3
neigh flannel.1 10.244.47.0 mac 02:00:00:00:00:2f
neigh flannel.1 10.244.84.0 mac 02:00:00:00:00:54
fdb flannel.1 02:00:00:00:00:2f remote 192.168.77.47
fdb flannel.1 02:00:00:00:00:54 remote 192.168.77.84
sysctl net/ipv6/conf/flannel.1/accept_ra 0
";
    assert_eq!(state.to_string(), expected);
}

/// The same for IPv6, as the reference's captured state in dual stack shows it.
#[test]
fn the_state_of_an_ipv6_peer_is_the_reference_s() {
    let peer = Peer {
        lease: "10.244.95.0-24&fd00:10:244:5f::-64".parse().unwrap(),
        public_ip: "fd00:77::13".parse().unwrap(),
        vtep_mac: Some("0e:2f:7b:13:fd:4b".parse().unwrap()),
        wireguard: None,
    };
    let subnet = "fd00:10:244:5f::/64".parse().unwrap();

    let state = desired(&side_v6(), &BTreeMap::from([(subnet, peer)]), |_| Way::Carrier);

    let expected = "\
link flannel-v6.1 vxlan vni 1 port 8472 local fd00:77::fa parent eth0 nolearning mac 02:00:00:00:06:fa mtu 1430 up
addr flannel-v6.1 fd00:10:244:fa::/128 nodad
route fd00:10:244:5f::/64 via fd00:10:244:5f:: dev flannel-v6.1 onlink proto 3 metric 1024
neigh flannel-v6.1 fd00:10:244:5f:: mac 0e:2f:7b:13:fd:4b
fdb flannel-v6.1 0e:2f:7b:13:fd:4b remote fd00:77::13
sysctl net/ipv6/conf/flannel-v6.1/accept_ra 0
";
    assert_eq!(state.to_string(), expected);
}

/// With `DirectRouting` as the reference's routes are (spec §5.2), but with our mark, and nothing in the tunnel.
#[test]
fn a_peer_on_a_link_has_a_plain_route_through_it_and_nothing_else() {
    let v6: Peer = Peer {
        lease: "10.244.47.0-24&fd00:10:244:2f::-64".parse().unwrap(),
        public_ip: "fd00:77::2f".parse().unwrap(),
        ..peer(47)
    };
    for (side, net, peer, link, expected) in [
        (
            side(),
            subnet(47),
            peer(47),
            "eth0",
            "route 10.244.47.0/24 via 192.168.77.47 dev eth0 proto 102\n",
        ),
        (
            side(),
            subnet(47),
            peer(47),
            "bond1",
            "route 10.244.47.0/24 via 192.168.77.47 dev bond1 proto 102\n",
        ),
        (
            side_v6(),
            "fd00:10:244:2f::/64".parse().unwrap(),
            v6,
            "eth0",
            "route fd00:10:244:2f::/64 via fd00:77::2f dev eth0 proto 102 metric 1024\n",
        ),
    ] {
        let way = Way::Direct(link.parse().unwrap());
        assert_eq!(of_peer(&side, net, &peer, &way).to_string(), expected);
        let all = desired(&side, &BTreeMap::from([(net, peer)]), |_| way.clone());
        let routes = all.to_string();
        assert!(
            routes.contains(expected) && all.neighs.is_empty() && all.fdb.is_empty(),
            "{routes}"
        );
        assert!(!all.links.is_empty(), "others may still use the tunnel");
    }
}
