use std::net::Ipv4Addr;

use flannel_types::{LeaseAttrs, NetConf};
use proptest::prelude::*;

use super::*;

const OWN: PublicAddrs = PublicAddrs {
    v4: Some(Ipv4Addr::new(192, 168, 77, 1)),
    v6: None,
};
const NOW: UnixTime = UnixTime::from_secs(1_000_000);
const LIVE: Option<u64> = Some(1_000_001);
const EXPIRED: Option<u64> = Some(1_000_000);
const RESERVED: Option<u64> = None;

const SMALL: &str = r#"{"Network":"10.5.0.0/22","SubnetMin":"10.5.1.0","SubnetMax":"10.5.3.0"}"#;
const DUAL: &str = r#"{"Network":"10.5.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:5::/48"}"#;

type Leases = BTreeMap<SubnetKey, Lease>;

#[test]
fn an_empty_store_gives_one_of_the_first_hundred_subnets() {
    let conf = r#"{"Network":"10.5.0.0/16"}"#;
    assert_eq!(decide(conf, &[], 0), Ok(Decision::Create(key("10.5.1.0-24"))));
    assert_eq!(decide(conf, &[], 99), Ok(Decision::Create(key("10.5.100.0-24"))));
    assert_eq!(decide(conf, &[], 100), Ok(Decision::Create(key("10.5.1.0-24"))));
}

#[test]
fn the_own_lease_is_reused_where_it_fits() {
    for (expires, other) in [(LIVE, LIVE), (EXPIRED, LIVE), (RESERVED, RESERVED)] {
        let leases = [("10.5.2.0-24", 1, expires), ("10.5.1.0-24", 2, other)];
        assert_eq!(run(SMALL, &leases, 0).unwrap(), reuse("10.5.2.0-24", &[]));
    }
}

#[test]
fn of_two_leases_with_the_own_address_the_one_that_the_node_had_last_is_reused() {
    let leases = leases(&[("10.5.1.0-24", 1, LIVE), ("10.5.2.0-24", 1, LIVE)]);
    for (subnet, key) in [
        (None, "10.5.1.0-24"),
        (Some("10.5.2.0/24"), "10.5.2.0-24"),
        (Some("10.5.3.0/24"), "10.5.1.0-24"),
    ] {
        let previous = PreviousSubnets {
            subnet: subnet.map(|subnet| subnet.parse().unwrap()),
            ..PreviousSubnets::default()
        };
        let allocation = with_previous(SMALL, &leases, previous, 0);
        assert_eq!(allocation.unwrap(), reuse(key, &[]), "{subnet:?}");
    }
}

#[test]
fn own_leases_that_no_longer_fit_are_removed() {
    for stale in [
        "10.5.0.0-24",
        "10.9.1.0-24",
        "10.5.1.0-25",
        "10.5.1.0-24&fd00::-64",
    ] {
        let created = if stale.starts_with("10.5.1.0-24&") {
            moved(stale, "10.5.1.0-24")
        } else {
            create("10.5.1.0-24", &[stale])
        };
        assert_eq!(run(SMALL, &[(stale, 1, LIVE)], 0).unwrap(), created, "{stale}");
        let reused = reuse("10.5.3.0-24", &[stale]);
        assert_eq!(
            run(SMALL, &[(stale, 1, LIVE), ("10.5.3.0-24", 1, LIVE)], 0).unwrap(),
            reused,
            "{stale}"
        );
    }
}

#[test]
fn a_family_that_is_switched_on_or_off_leaves_the_other_s_subnet_as_it_is() {
    let v6_only = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48"}"#;
    let v4_only = r#"{"Network":"10.5.0.0/16"}"#;
    let dual = "10.5.9.0-24&fd00:5:0:7::-64";
    for (conf, from, to) in [
        (DUAL, "10.5.9.0-24", "10.5.9.0-24&fd00:5:0:1::-64"),
        (DUAL, "fd00:5:0:7::-64", "10.5.1.0-24&fd00:5:0:7::-64"),
        (v4_only, dual, "10.5.9.0-24"),
        (v6_only, dual, "fd00:5:0:7::-64"),
    ] {
        assert_eq!(
            run(conf, &[(from, 1, LIVE)], 0).unwrap(),
            moved(from, to),
            "{from} {to}"
        );
    }
    let taken = [
        ("10.5.9.0-24", 1, LIVE),
        ("10.5.1.0-24&fd00:5:0:1::-64", 2, LIVE),
        ("10.5.9.128-25", 3, EXPIRED),
    ];
    assert_eq!(
        run(DUAL, &taken, 0).unwrap(),
        create("10.5.2.0-24&fd00:5:0:2::-64", &["10.5.9.0-24"])
    );
}

#[test]
fn ipv6_alone_is_leased_by_itself() {
    let conf = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:5::/48"}"#;
    let leases = [("10.5.1.0-24", 2, LIVE), ("fd00:5:0:1::-64", 3, LIVE)];
    assert_eq!(run(conf, &leases, 0).unwrap(), create("fd00:5:0:2::-64", &[]));
}

#[test]
fn a_live_own_lease_goes_before_an_expired_one() {
    let leases = [("10.5.1.0-24", 1, EXPIRED), ("10.5.2.0-24", 1, LIVE)];
    assert_eq!(run(SMALL, &leases, 0).unwrap(), reuse("10.5.2.0-24", &[]));
}

#[test]
fn of_several_own_leases_that_of_the_previous_subnet_is_reused() {
    let list = [("10.5.1.0-24", 1, LIVE), ("10.5.2.0-24", 1, LIVE)];
    for (subnet, expected) in [
        (None, "10.5.1.0-24"),
        (Some("10.5.3.0/24"), "10.5.1.0-24"),
        (Some("10.5.2.0/24"), "10.5.2.0-24"),
    ] {
        let previous = PreviousSubnets {
            subnet: subnet.map(|subnet| subnet.parse().unwrap()),
            ..PreviousSubnets::default()
        };
        let result = with_previous(SMALL, &leases(&list), previous, 0).unwrap();
        assert_eq!(result, reuse(expected, &[]), "{subnet:?}");
    }
}

#[test]
fn an_expired_own_lease_yields_to_a_live_one_that_overlaps() {
    let leases = [("10.5.1.0-24", 1, EXPIRED), ("10.5.1.128-25", 2, LIVE)];
    assert_eq!(run(SMALL, &leases, 0).unwrap(), create("10.5.2.0-24", &[]));
}

#[test]
fn the_previous_subnet_is_preferred_where_it_is_free_and_fits() {
    let table = [
        ("10.5.3.7/24", None, "10.5.3.0-24"),
        ("10.5.3.0/24", Some("10.5.3.0-24"), "10.5.1.0-24"),
        ("10.5.3.0/24", Some("10.5.3.64-26"), "10.5.1.0-24"),
        ("10.5.0.0/24", None, "10.5.1.0-24"),
        ("10.5.3.0/25", None, "10.5.1.0-24"),
        ("10.9.3.0/24", None, "10.5.1.0-24"),
    ];
    for (previous, other, expected) in table {
        let others: Vec<_> = other.iter().map(|other| (*other, 2, LIVE)).collect();
        let previous = PreviousSubnets {
            subnet: Some(previous.parse().unwrap()),
            ..PreviousSubnets::default()
        };
        let result = with_previous(SMALL, &leases(&others), previous, 0).unwrap();
        assert_eq!(result, create(expected, &[]), "{previous:?} {other:?}");
    }
}

#[test]
fn in_dual_stack_each_family_keeps_its_previous_subnet() {
    let previous = PreviousSubnets {
        subnet: Some("10.5.9.0/24".parse().unwrap()),
        ..PreviousSubnets::default()
    };
    let allocation = with_previous(DUAL, &Leases::new(), previous, 4).unwrap();
    assert_eq!(allocation, create("10.5.9.0-24&fd00:5:0:5::-64", &[]));
    let previous = PreviousSubnets {
        ipv6_subnet: Some("fd00:5:0:77::/64".parse().unwrap()),
        ..previous
    };
    let allocation = with_previous(DUAL, &Leases::new(), previous, 4).unwrap();
    assert_eq!(allocation, create("10.5.9.0-24&fd00:5:0:77::-64", &[]));
}

#[test]
fn leases_of_other_lengths_are_stepped_over() {
    let conf = r#"{"Network":"10.5.0.0/16"}"#;
    let leases = [
        ("10.5.0.0-22", 2, LIVE),
        ("10.5.4.128-25", 3, RESERVED),
        ("10.5.5.0-24", 4, LIVE),
    ];
    assert_eq!(run(conf, &leases, 0).unwrap(), create("10.5.6.0-24", &[]));
}

#[test]
fn the_last_subnet_is_handed_out_and_then_no_more() {
    let leases = [("10.5.1.0-24", 2, LIVE), ("10.5.2.0-24", 3, RESERVED)];
    assert_eq!(run(SMALL, &leases, 7).unwrap(), create("10.5.3.0-24", &[]));
    let full = [
        ("10.5.1.0-24", 2, LIVE),
        ("10.5.2.0-24", 3, RESERVED),
        ("10.5.3.0-24", 4, LIVE),
    ];
    assert_eq!(run(SMALL, &full, 7), Err(AllocationError::OutOfSubnets));
    let end = r#"{"Network":"255.255.0.0/16","SubnetMin":"255.255.255.0"}"#;
    assert_eq!(run(end, &[], 5).unwrap(), create("255.255.255.0-24", &[]));
    assert_eq!(
        run(end, &[("255.255.255.0-24", 2, LIVE)], 5),
        Err(AllocationError::OutOfSubnets)
    );
}

#[test]
fn expired_leases_are_taken_over_only_when_nothing_else_is_free() {
    let leases = [("10.5.1.0-24", 2, EXPIRED), ("10.5.2.0-24", 3, LIVE)];
    assert_eq!(run(SMALL, &leases, 0).unwrap(), create("10.5.3.0-24", &[]));
    let full = [
        ("10.5.1.0-25", 2, EXPIRED),
        ("10.5.1.128-25", 3, EXPIRED),
        ("10.5.2.0-24", 4, LIVE),
        ("10.5.3.0-24", 5, LIVE),
    ];
    assert_eq!(
        run(SMALL, &full, 0).unwrap(),
        create("10.5.1.0-24", &["10.5.1.0-25", "10.5.1.128-25"])
    );
}

#[test]
fn ten_thousand_leases_are_searched_quickly() {
    let conf = r#"{"Network":"10.0.0.0/8"}"#;
    let mut leases = Leases::new();
    for n in 1..=10_000_u32 {
        let subnet = format!("10.{}.{}.0-24", n >> 8, n & 255);
        leases.extend([entry(&subnet, 2, LIVE)]);
    }
    let start = std::time::Instant::now();
    let allocation = with_previous(conf, &leases, PreviousSubnets::default(), 0).unwrap();
    assert_eq!(allocation, create("10.39.17.0-24", &[]));
    assert!(
        start.elapsed() < std::time::Duration::from_secs(10),
        "{:?}",
        start.elapsed()
    );
}

proptest! {
    #[test]
    fn whatever_the_store_holds_the_new_subnet_is_in_the_pool_and_free(
        others in prop::collection::vec((0_u32..1 << 12, 20_u8..=28, 0_u8..4, 0_usize..3), 0..40),
        v6 in any::<bool>(), random in any::<u64>(), previous in prop::option::of(0_u32..1 << 12),
    ) {
        let network = if v6 { r#""EnableIPv6":true,"IPv6Network":"fd00:5::/58","# } else { "" };
        let conf = format!(r#"{{{network}"Network":"10.5.0.0/20"}}"#);
        let subnet = |low: u32, len: u8| ipnetwork::Ipv4Network::containing(u128::from(0x0a05_0000 | low), len).unwrap();
        let leases: Leases = others.iter().map(|(low, len, owner, end)| {
            let v6 = v6.then(|| ipnetwork::Ipv6Network::containing((0xfd00_0005_u128 << 96) | (u128::from(low & 63) << 64), 64).unwrap());
            entry(&SubnetKey::new(subnet(*low, *len), v6).to_string(), *owner, [LIVE, EXPIRED, RESERVED][*end])
        }).collect();
        let previous = PreviousSubnets { subnet: previous.map(|low| subnet(low, 24)), ..PreviousSubnets::default() };

        let valid = valid(&conf);
        match with_previous(&conf, &leases, previous, random) {
            Ok(Allocation { decision: Decision::Reuse(key), remove }) => {
                prop_assert_eq!(leases[&key].attrs.addrs(), OWN);
                prop_assert!(valid.ipv4().unwrap().holds(key.v4().unwrap()));
                prop_assert!(!remove.contains(&key));
                prop_assert!(remove.iter().all(|key| leases[key].attrs.addrs() == OWN));
            }
            Ok(Allocation { decision: decision @ (Decision::Create(key) | Decision::Move { to: key, .. }), remove }) => {
                prop_assert!(valid.ipv4().unwrap().holds(key.v4().unwrap()));
                prop_assert_eq!(key.v6().is_some(), v6);
                prop_assert!(key.v6().is_none_or(|subnet| valid.ipv6().unwrap().holds(subnet)));
                let moved = match decision {
                    Decision::Move { from, .. } => Some(from),
                    Decision::Create(_) | Decision::Reuse(_) => None,
                };
                prop_assert!(moved.is_none_or(|from| leases[&from].attrs.addrs() == OWN));
                let stay = leases.values().filter(|lease| !remove.contains(&lease.key) && Some(lease.key) != moved);
                for lease in stay {
                    prop_assert!(!lease.key.overlaps(&key));
                }
                for key in &remove {
                    let lease = &leases[key];
                    prop_assert!(lease.attrs.addrs() == OWN || lease.expires == EXPIRED.map(UnixTime::from_secs));
                }
            }
            Err(err) => {
                prop_assert_eq!(err, AllocationError::OutOfSubnets);
                let blocking = |lease: &&Lease| lease.attrs.addrs() != OWN && lease.expires != EXPIRED.map(UnixTime::from_secs);
                let blockers: Vec<_> = leases.values().filter(blocking).map(|lease| lease.key).collect();
                let v4_full = (1..16).all(|n| blockers.iter().any(|key| key.v4().unwrap().overlaps_with(subnet(n << 8, 24))));
                let v6_full = v6 && (1..64).all(|n| blockers.iter().any(|key| key.to_string().ends_with(&format!("fd00:5:0:{n:x}::-64"))));
                prop_assert!(v4_full || v6_full);
            }
        }
    }
}

fn decide(conf: &str, leases: &[(&str, u8, Option<u64>)], random: u64) -> Result<Decision, AllocationError> {
    run(conf, leases, random).map(|allocation| allocation.decision)
}

fn run(conf: &str, list: &[(&str, u8, Option<u64>)], random: u64) -> Result<Allocation, AllocationError> {
    with_previous(conf, &leases(list), PreviousSubnets::default(), random)
}

fn with_previous(
    conf: &str,
    leases: &Leases,
    previous: PreviousSubnets,
    random: u64,
) -> Result<Allocation, AllocationError> {
    let conf = valid(conf);
    let input = AllocationInput {
        conf: &conf,
        leases,
        node: OWN,
        previous: &previous,
        now: NOW,
    };
    allocate(&input, &mut || random)
}

fn valid(conf: &str) -> ValidNetConf {
    NetConf::parse(conf).unwrap().validated().unwrap()
}

fn leases(list: &[(&str, u8, Option<u64>)]) -> Leases {
    list.iter()
        .map(|(name, owner, end)| entry(name, *owner, *end))
        .collect()
}

fn entry(name: &str, owner: u8, end: Option<u64>) -> (SubnetKey, Lease) {
    let attrs = LeaseAttrs::parse(&format!(r#"{{"PublicIP":"192.168.77.{owner}"}}"#)).unwrap();
    (
        key(name),
        Lease {
            key: key(name),
            attrs,
            expires: end.map(UnixTime::from_secs),
        },
    )
}

fn key(name: &str) -> SubnetKey {
    name.parse().unwrap()
}

fn create(name: &str, remove: &[&str]) -> Allocation {
    Allocation {
        decision: Decision::Create(key(name)),
        remove: remove.iter().map(|name| key(name)).collect(),
    }
}

fn moved(from: &str, to: &str) -> Allocation {
    Allocation {
        decision: Decision::Move {
            from: key(from),
            to: key(to),
        },
        remove: BTreeSet::new(),
    }
}

fn reuse(name: &str, remove: &[&str]) -> Allocation {
    Allocation {
        decision: Decision::Reuse(key(name)),
        remove: remove.iter().map(|name| key(name)).collect(),
    }
}
