use proptest::collection::vec;
use proptest::prelude::*;

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
            changed(&|lease| lease.attrs.public_ip = Some(public_ip(250))),
            "it announces the public IP of this node",
        ),
        (
            changed(&|lease| lease.attrs.public_ip = Some([127, 0, 0, 1].into())),
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
}

#[test]
fn a_division_anew_tells_what_became_otherwise() {
    let mut peers = divide(&[lease(1, None), lease(2, None), lease(3, None)]);
    let mut copied = lease(4, None);
    copied.attrs.backend_data = lease(1, None).attrs.backend_data;
    let mut moved = lease(2, None);
    moved.attrs.public_ip = Some(public_ip(22));
    let leases = [lease(1, None), moved, copied.clone(), lease(5, None)];

    let changes = peers.divide_anew(&device(), leases.iter());

    let before = |n| Peer {
        public_ip: public_ip(n),
        vtep_mac: mac(n),
    };
    let expected = [
        (key(2), Some(before(2))),
        (key(3), Some(before(3))),
        (key(5), None),
    ];
    assert_eq!(changes.before, expected.into());
    assert_eq!(changes.new_problems, [copied.key]);
    let again = peers.divide_anew(&device(), leases.iter());
    assert_eq!(again, PeerChanges::default());
}

proptest! {
    /// Leases come and go one by one, with overlapping subnets, equal MACs and unusable values among them.
    #[test]
    fn one_changed_lease_leads_to_what_a_division_anew_leads_to(
        steps in vec((0_usize..8, prop::option::weighted(0.8, (1_u8..4, 1_u8..5))), 1..60),
    ) {
        let keys = [
            "10.244.0.0-22", "10.244.1.0-24", "10.244.2.0-24", "10.244.0.0-16",
            "10.244.3.0-24", "10.244.8.0-24", "10.244.8.0-23", "10.245.1.0-24",
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
                    changed.attrs.public_ip = Some(if ip_number == 4 { Ipv4Addr::LOCALHOST } else { public_ip(ip_number) });
                    leases.insert(key, changed);
                }
            }
            let accepted = step_by_step.accepted.clone();
            let changes = step_by_step.change(&device(), key, |key| leases.get(key));
            anew = Peers::divide(&device(), leases.values(), &anew);
            prop_assert_eq!(&step_by_step.accepted, &anew.accepted);
            prop_assert!(step_by_step.refused.keys().eq(anew.refused.keys()));
            let otherwise = accepted.keys().chain(step_by_step.accepted.keys());
            let otherwise: BTreeMap<_, _> = otherwise
                .filter(|key| accepted.get(*key) != step_by_step.accepted.get(*key))
                .map(|key| (*key, accepted.get(key).copied()))
                .collect();
            prop_assert_eq!(changes.before, otherwise);
        }
    }
}

fn divide(leases: &[Lease]) -> Peers {
    Peers::divide(&device(), leases.iter(), &Peers::default())
}
