use std::net::Ipv6Addr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;
use crate::testing::{dual_lease, key, lease, mac_v6, peer, public_ip, side, side_v6, subnet};

#[test]
fn leases_of_other_nodes_become_peers() {
    let peers = divide(&[lease(1, None), lease(2, Some(5))]);
    assert_eq!(peers.accepted[&subnet(1)], peer(1));
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
            changed(&|lease| lease.attrs.public_ip = Some(public_ip(250))),
            "it announces the public IP of this node",
        ),
        (
            changed(&|lease| lease.attrs.public_ip = Some([127, 0, 0, 1].into())),
            "its public IP 127.0.0.1 is not an address",
        ),
        (
            changed(&|lease| lease.attrs.public_ip = Some([10, 244, 7, 9].into())),
            "its public IP 10.244.7.9 is inside its own subnet",
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

    let peers = Peers::divide(&side(), [&copied, &incumbent].into_iter(), &before);

    assert!(peers.accepted.contains_key(&subnet(9)));
    assert_eq!(
        peers.refused[&copied.key],
        PeerProblem::SameVtepMac(incumbent.key)
    );
}

#[test]
fn a_division_anew_tells_what_became_otherwise() {
    let mut peers = divide(&[lease(1, None), lease(2, None), lease(3, None)]);
    let mut copied = lease(4, None);
    copied.attrs.backend_data = lease(1, None).attrs.backend_data;
    let mut moved = lease(2, None);
    moved.attrs.public_ip = Some(public_ip(22));
    let leases = [lease(1, None), moved, copied.clone(), lease(5, None)];

    let changes = peers.divide_anew(&side(), leases.iter());

    let expected = [
        (subnet(2), Some(peer(2))),
        (subnet(3), Some(peer(3))),
        (subnet(5), None),
    ];
    assert_eq!(changes.before, expected.into());
    assert_eq!(changes.new_problems, [copied.key]);
    let again = peers.divide_anew(&side(), leases.iter());
    assert_eq!(again, PeerChanges::default());
}

#[test]
fn what_a_lease_lacks_or_spoils_in_one_family_does_not_concern_the_other() {
    let whole = dual_lease(7, None);
    let v6 = |lease: &Lease| Peers::divide(&side_v6(), [lease].into_iter(), &Peers::default());
    let expected = Peer {
        lease: whole.key,
        public_ip: "fd00:77::7".parse().unwrap(),
        vtep_mac: Some(mac_v6(7)),
        wireguard: None,
    };
    assert_eq!(
        v6(&whole).accepted,
        [("fd00:10:244:7::/64".parse().unwrap(), expected)].into()
    );
    let changed = |change: &dyn Fn(&mut Lease)| {
        let mut lease = dual_lease(7, None);
        change(&mut lease);
        lease
    };
    for (lease, reason) in [
        (
            changed(&|lease| lease.attrs.public_ipv6 = None),
            "it has an IPv6 subnet, but no public IPv6 address",
        ),
        (
            changed(&|lease| lease.attrs.backend_v6_data = None),
            "its backend data is unusable",
        ),
        (
            changed(&|lease| lease.attrs.public_ipv6 = Some(Ipv6Addr::LOCALHOST)),
            "its public IP ::1 is not an address",
        ),
        (
            changed(&|lease| lease.attrs.public_ipv6 = Some("fe80::7".parse().unwrap())),
            "its public IP fe80::7 is not an address",
        ),
        (
            changed(&|lease| lease.key = "10.244.7.0-24&fd01::-64".parse().unwrap()),
            "its subnet is outside the pod network",
        ),
    ] {
        let problem = v6(&lease).refused[&lease.key].to_string();
        assert!(problem.starts_with(reason), "{problem}");
        let in_v4 = divide(std::slice::from_ref(&lease));
        assert!(
            in_v4.accepted.contains_key(&subnet(7)) && in_v4.refused.is_empty(),
            "{reason}"
        );
    }
    let broken_v4 = changed(&|lease| lease.attrs.backend_data = None);
    assert_eq!(
        (v6(&broken_v4).accepted.len(), divide(&[broken_v4]).refused.len()),
        (1, 1)
    );
    for lease in [lease(7, None), changed(&|lease| lease.key = key(7))] {
        assert_eq!(v6(&lease), Peers::default());
    }
}

#[test]
fn a_lease_under_another_name_keeps_its_peer() {
    let (old, new) = (lease(7, None), dual_lease(7, None));
    let mut leases = BTreeMap::from([(old.key, old.clone())]);
    let mut peers = divide(std::slice::from_ref(&old));
    leases.insert(new.key, new.clone());
    let changes = peers.change(&side(), new.key, |key| leases.get(key));
    assert!(changes.before.is_empty());
    leases.remove(&old.key);
    let changes = peers.change(&side(), old.key, |key| leases.get(key));
    assert_eq!(changes.before, [(subnet(7), Some(peer(7)))].into());
    assert_eq!(
        peers.accepted[&subnet(7)],
        Peer {
            lease: new.key,
            ..peer(7)
        }
    );
}

proptest! {
    /// Leases come and go one by one, with overlapping subnets, equal MACs and unusable values among them.
    #[test]
    fn one_changed_lease_leads_to_what_a_division_anew_leads_to(
        steps in vec((0_usize..8, prop::option::weighted(0.8, (1_u8..4, 1_u8..5))), 1..60),
    ) {
        let keys = [
            "10.244.0.0-22", "10.244.1.0-24", "10.244.2.0-24", "10.244.0.0-16",
            "10.244.3.0-24", "10.244.1.0-24&fd00::-64", "10.244.8.0-23", "10.245.1.0-24",
        ]
        .map(|text| text.parse::<SubnetKey>().unwrap());
        let mut leases: BTreeMap<SubnetKey, Lease> = BTreeMap::new();
        let (mut step_by_step, mut anew) = (Peers::default(), Peers::default());
        for (place, value) in steps {
            let key = keys[place];
            match value {
                None => drop(leases.remove(&key)),
                Some((mac_number, ip_number)) => {
                    let mut changed = lease(mac_number, None);
                    changed.key = key;
                    // Number 4 is no usable address.
                    changed.attrs.public_ip = Some(if ip_number == 4 { [127, 0, 0, 1].into() } else { public_ip(ip_number) });
                    leases.insert(key, changed);
                }
            }
            let accepted = step_by_step.accepted.clone();
            let changes = step_by_step.change(&side(), key, |key| leases.get(key));
            anew = Peers::divide(&side(), leases.values(), &anew);
            prop_assert_eq!(&step_by_step.accepted, &anew.accepted);
            prop_assert!(step_by_step.refused.keys().eq(anew.refused.keys()));
            let otherwise = accepted.keys().chain(step_by_step.accepted.keys());
            let otherwise: BTreeMap<_, _> = otherwise
                .filter(|subnet| accepted.get(*subnet) != step_by_step.accepted.get(*subnet))
                .map(|subnet| (*subnet, accepted.get(subnet).copied()))
                .collect();
            prop_assert_eq!(changes.before, otherwise);
        }
    }
}

fn divide(leases: &[Lease]) -> Peers {
    Peers::divide(&side(), leases.iter(), &Peers::default())
}
