use std::collections::BTreeMap;

use flannel_types::IPIP_TYPE;

use super::super::{Peers, Way, desired, scope};
use crate::testing::{ipip, lease, side, side_v6, subnet};

/// The reference's device and routes (spec §5.6).
#[test]
fn a_device_with_the_nodes_address_and_a_route_by_each_peers_address() {
    let side = ipip(side());
    let leases = [1, 2].map(|n| as_ipip(lease(n, None)));
    let peers = Peers::divide(&side, leases.iter(), &Peers::default());
    assert!(peers.refused.is_empty(), "{:?}", peers.refused);
    let expected = "\
link flannel.ipip ipip local 192.168.77.250 mtu 1480 up
addr flannel.ipip 10.244.250.0/32
route 10.244.1.0/24 via 192.168.77.1 dev flannel.ipip onlink proto 3
route 10.244.2.0/24 via 192.168.77.2 dev flannel.ipip onlink proto 3
";
    assert_eq!(
        desired(&side, &peers.accepted, |_| Way::Carrier).to_string(),
        expected
    );
    let way = Way::Direct("eth0".parse().unwrap());
    let direct = desired(&side, &peers.accepted, |_| way.clone());
    let routes: Vec<_> = direct.to_string().lines().skip(2).map(str::to_owned).collect();
    assert_eq!(
        routes,
        [
            "route 10.244.1.0/24 via 192.168.77.1 dev eth0 proto 102",
            "route 10.244.2.0/24 via 192.168.77.2 dev eth0 proto 102"
        ]
    );
}

#[test]
fn a_lease_of_another_backend_or_with_this_nodes_address_is_refused() {
    let side = ipip(side());
    let mut own_ip = as_ipip(lease(1, None));
    own_ip.attrs.public_ip = lease(250, None).attrs.public_ip;
    let leases = [own_ip, lease(2, None)];
    let peers = Peers::divide(&side, leases.iter(), &Peers::default());
    assert_eq!(peers.accepted, BTreeMap::new());
    let reasons: Vec<_> = peers.refused.values().map(ToString::to_string).collect();
    assert!(
        reasons[0].starts_with("it announces the public IP of this node"),
        "{reasons:?}"
    );
    assert_eq!(reasons[1], "its backend is \"vxlan\", not ipip");
    assert!(!peers.accepted.contains_key(&subnet(1)));
}

#[test]
fn no_device_is_without_a_local_address() {
    let of_v6 = desired(&ipip(side_v6()), &BTreeMap::new(), |_| Way::Carrier);
    assert_eq!(of_v6.to_string(), "");
}

#[test]
fn addresses_outside_the_pod_network_are_not_ours() {
    let scope = scope([&ipip(side())]);
    let (name, link) = scope.links.first_key_value().unwrap();
    assert_eq!(name.as_str(), "flannel.ipip");
    assert_eq!(link.addrs_inside, ["10.244.0.0/16".parse().unwrap()]);
    assert!(link.routes && !link.neighs && !link.fdb && !link.wireguard);
    assert!(scope.sysctls.is_empty());
}

fn as_ipip(mut lease: flannel_types::Lease) -> flannel_types::Lease {
    lease.attrs.backend_type = IPIP_TYPE.to_owned();
    lease.attrs.backend_data = None;
    lease
}
