use std::collections::BTreeMap;

use super::super::{Carrier, Side, Way, desired, scope};
use crate::testing::{dual_lease, host_gw, lease, peer, side, side_v6, subnet};

/// The reference's routes for the same leases, as its captured state shows them (spec §5.4), but with our mark.
#[test]
fn each_peer_has_a_route_by_its_own_address_and_nothing_else() {
    let side = host_gw(side());
    let peers = [47, 84].map(|n| {
        let peer = super::Peer {
            vtep_mac: None,
            ..peer(n)
        };
        (subnet(n), peer)
    });
    let expected = "\
route 10.244.47.0/24 via 192.168.77.47 dev eth0 proto 102
route 10.244.84.0/24 via 192.168.77.84 dev eth0 proto 102
";
    assert_eq!(
        desired(&side, &BTreeMap::from(peers), |_| Way::Carrier).to_string(),
        expected
    );
    assert_eq!(desired(&side, &BTreeMap::new(), |_| Way::Carrier).to_string(), "");
}

#[test]
fn in_ipv6_the_route_has_the_metric_that_the_kernel_gives_it() {
    let side = host_gw(side_v6());
    let peers = super::super::Peers::divide(
        &side,
        [as_host_gw(dual_lease(7, None))].iter(),
        &Default::default(),
    );
    assert!(peers.refused.is_empty(), "{:?}", peers.refused);
    assert_eq!(
        desired(&side, &peers.accepted, |_| Way::Carrier).to_string(),
        "route fd00:10:244:7::/64 via fd00:77::7 dev eth0 proto 102 metric 1024\n"
    );
}

#[test]
fn a_lease_needs_no_data_and_one_of_another_backend_is_refused() {
    let side = host_gw(side());
    let leases = [as_host_gw(lease(1, None)), lease(2, None)];
    let peers = super::super::Peers::divide(&side, leases.iter(), &Default::default());
    assert_eq!(peers.accepted[&subnet(1)].vtep_mac, None);
    assert_eq!(
        peers.refused[&leases[1].key].to_string(),
        "its backend is \"vxlan\", not host-gw"
    );
}

/// The interface is not ours: only routes with our mark inside the pod network are, whatever they lead through.
#[test]
fn nothing_of_the_interface_is_in_scope_but_marked_routes() {
    let sides: [Side; 2] = [host_gw(side()), host_gw(side_v6())];
    assert!(matches!(&sides[0].carrier, Carrier::HostGw(link) if link.as_str() == "eth0"));
    let scope = scope(&sides);
    assert!(scope.links.is_empty() && scope.sysctls.is_empty());
    let marked = scope.marked.unwrap();
    assert_eq!(marked.protocol, 102);
    assert!(marked.covers("10.244.1.0/24".parse().unwrap()));
    assert!(marked.covers("fd00:10:244:1::/64".parse().unwrap()));
    assert!(!marked.covers("10.245.1.0/24".parse().unwrap()));
    assert!(!marked.covers("10.0.0.0/8".parse().unwrap()));
}

fn as_host_gw(mut lease: flannel_types::Lease) -> flannel_types::Lease {
    lease.attrs.backend_type = "host-gw".to_owned();
    lease.attrs.backend_data = None;
    lease.attrs.backend_v6_data = None;
    lease
}
