use std::collections::BTreeMap;

use super::super::desired;
use super::*;
use crate::testing::{device, key, mac, public_ip};

/// The reference's objects for the same leases, as its captured state shows them (spec §5.1 and §5.2).
#[test]
fn the_state_of_two_peers_is_the_reference_s() {
    let peer = |n| {
        (
            key(n),
            Peer {
                public_ip: public_ip(n),
                vtep_mac: mac(n),
            },
        )
    };

    let state = desired(&device(), &BTreeMap::from([peer(47), peer(84)]));

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
