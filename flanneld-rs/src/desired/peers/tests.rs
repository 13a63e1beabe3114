use super::*;
use crate::testing::{device, key, lease, mac, public_ip};

#[test]
fn leases_of_other_nodes_become_peers() {
    let peers = divide(&[lease(1, None), lease(2, Some(5))]);
    assert_eq!(
        peers.accepted[&key(1)],
        Peer {
            public_ip: public_ip(1),
            vtep_mac: mac(1)
        }
    );
    assert_eq!(peers.accepted.len(), 2);
    assert!(peers.refused.is_empty());
}

#[test]
fn leases_that_would_break_traffic_are_refused_with_the_reason() {
    let changed = |change: &dyn Fn(&mut Lease)| {
        let mut lease = lease(7, None);
        change(&mut lease);
        lease
    };
    let with_mac = |mac: &str| {
        let data = format!("{{\"VNI\":1,\"VtepMAC\":\"{mac}\"}}");
        changed(&|lease| lease.attrs.backend_data = Some(data.clone()))
    };
    let with_key = |text: &str| changed(&|lease| lease.key = text.parse().unwrap());
    let cases = [
        (
            changed(&|lease| lease.attrs.backend_type = "host-gw".to_owned()),
            "its backend is \"host-gw\", not vxlan",
        ),
        (
            changed(&|lease| lease.attrs.backend_data = None),
            "its backend data is unusable",
        ),
        (with_mac("nonsense"), "its backend data is unusable"),
        (with_key("10.245.7.0-24"), "its subnet is outside the pod network"),
        (with_key("10.0.0.0-8"), "its subnet is outside the pod network"),
        (
            with_key("10.244.240.0-20"),
            "its subnet overlaps the subnet of this node",
        ),
        (
            changed(&|lease| lease.attrs.public_ip = public_ip(250)),
            "it announces the public IP of this node",
        ),
        (
            changed(&|lease| lease.attrs.public_ip = [127, 0, 0, 1].into()),
            "its public IP 127.0.0.1 is not an address",
        ),
        (
            with_mac("02:00:00:00:00:fa"),
            "it announces the VTEP MAC of this node",
        ),
        (
            with_mac("ff:ff:ff:ff:ff:ff"),
            "its VTEP MAC ff:ff:ff:ff:ff:ff is not a unicast address",
        ),
    ];
    for (lease, reason) in cases {
        let peers = divide(std::slice::from_ref(&lease));
        let problem = peers.refused[&lease.key].to_string();
        assert!(problem.starts_with(reason), "{problem}");
        assert!(peers.accepted.is_empty());
    }
}

#[test]
fn of_two_overlapping_leases_the_smaller_key_is_accepted() {
    let mut wide = lease(3, None);
    wide.key = "10.244.0.0-20".parse().unwrap();
    for (narrow, expected) in [(lease(1, None), 1), (lease(16, None), 2)] {
        let peers = divide(&[wide.clone(), narrow]);
        assert_eq!(peers.accepted.len(), expected);
    }
}

#[test]
fn a_newcomer_does_not_displace_a_peer_that_works() {
    let incumbent = lease(9, None);
    let before = divide(std::slice::from_ref(&incumbent));
    let mut copied = lease(2, None);
    copied.attrs.backend_data = incumbent.attrs.backend_data.clone();

    let peers = Peers::divide(&device(), [&copied, &incumbent].into_iter(), &before);

    assert!(peers.accepted.contains_key(&incumbent.key));
    assert_eq!(
        peers.refused[&copied.key],
        PeerProblem::SameVtepMac(incumbent.key)
    );
    assert_eq!(peers.new_problems(&before).count(), 1);
    assert_eq!(peers.new_problems(&peers).count(), 0);
}

fn divide(leases: &[Lease]) -> Peers {
    Peers::divide(&device(), leases.iter(), &Peers::default())
}
