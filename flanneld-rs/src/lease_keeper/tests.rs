use super::*;

#[test]
fn a_lease_is_renewed_its_margin_before_its_end_and_asked_for_once() {
    let mut keeper = LeaseKeeper::new(lease(Some(86_400)), Duration::from_secs(3600));
    assert_eq!(keeper.wait(at(0)), Some(Duration::from_secs(82_800)));
    assert_eq!(keeper.due(at(82_799)), None);
    assert!(keeper.due(at(82_800)).is_some());
    assert_eq!(keeper.due(at(82_801)), None);
    assert_eq!(keeper.wait(at(82_801)), None);

    keeper.renewed(at(82_801), Some(lease(Some(172_800))));

    assert_eq!(keeper.lease().expires, Some(at(172_800)));
    assert_eq!(keeper.due(at(90_000)), None);
}

#[test]
fn a_failed_renewal_is_repeated_after_a_minute() {
    let mut keeper = LeaseKeeper::new(lease(Some(1000)), Duration::from_secs(100));
    assert!(keeper.due(at(900)).is_some());
    keeper.renewed(at(901), None);
    assert_eq!(keeper.due(at(960)), None);
    assert!(keeper.due(at(961)).is_some());
}

#[test]
fn a_margin_longer_than_the_lease_does_not_make_renewals_run_hot() {
    let mut keeper = LeaseKeeper::new(lease(Some(100)), Duration::from_secs(3600));
    let mut renewals = 0;
    for second in 0..600 {
        if keeper.due(at(second)).is_some() {
            renewals += 1;
            keeper.renewed(at(second), Some(lease(Some(second + 100))));
        }
    }
    assert_eq!(renewals, 10);
}

#[test]
fn a_reservation_is_never_renewed() {
    let mut keeper = LeaseKeeper::new(lease(None), Duration::from_secs(3600));
    assert_eq!(keeper.due(at(u64::MAX)), None);
    assert_eq!(keeper.wait(at(0)), None);
}

fn at(secs: u64) -> UnixTime {
    UnixTime::from_secs(secs)
}

fn lease(expires: Option<u64>) -> Lease {
    crate::testing::lease(1, expires)
}
