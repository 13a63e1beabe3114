use super::*;
use crate::testing::{key, lease};

const GRACE: Duration = Duration::from_secs(60);

#[test]
fn nothing_is_removed_before_a_snapshot_that_counts() {
    let mut view = view(&[]);
    assert_eq!(view.prune(at(0)), Prune::Addrs);
    assert_eq!(
        view.snapshot(at(0), leases(&[1, 2])),
        SnapshotOutcome::OwnLeaseGone
    );
    assert_eq!(view.prune(at(0)), Prune::Addrs);
    assert_eq!(
        view.snapshot(at(1), leases(&[1, 2, 250])),
        SnapshotOutcome::Synced
    );
    assert_eq!(view.prune(at(1)), Prune::Remove);
    assert_eq!(peers(&view), [1, 2]);
}

#[test]
fn an_own_lease_that_vanishes_is_told_from_one_that_is_not_seen_yet() {
    let mut view = synced(&[1]);
    assert_eq!(view.snapshot(at(1), leases(&[1])), SnapshotOutcome::OwnLeaseGone);
    assert_eq!(view.prune(at(1)), Prune::Addrs);
}

#[test]
fn nothing_is_removed_while_the_store_is_out_of_reach() {
    let mut view = synced(&[1, 2]);
    view.unsynced();
    assert_eq!(view.prune(at(5)), Prune::Addrs);
    assert_eq!(peers(&view), [1, 2]);
    view.snapshot(at(6), leases(&[1, 250]));
    assert_eq!(view.prune(at(6)), Prune::Remove);
    assert_eq!(peers(&view), [1]);
}

#[test]
fn a_few_lost_leases_are_believed_at_once() {
    let all: Vec<u8> = (1..=18).collect();
    let mut view = synced(&all);
    let left: Vec<u8> = (10..=18).chain([250]).collect();
    assert_eq!(view.snapshot(at(1), leases(&left)), SnapshotOutcome::Synced);
    assert_eq!(peers(&view).len(), 9);
}

#[test]
fn a_mass_loss_is_held_for_the_grace_time_and_then_believed() {
    let all: Vec<u8> = (1..=20).collect();
    let mut view = synced(&all);
    let outcome = view.snapshot(at(1), leases(&[1, 2, 250]));
    assert_eq!(outcome, SnapshotOutcome::MassLoss { lost: 18, known: 21 });
    assert_eq!(peers(&view).len(), 20);
    assert_eq!(view.prune(at(1)), Prune::Remove);
    assert_eq!(view.wake_at(at(1)), Some(at(61)));
    assert!(!view.expire(at(60)));
    assert!(view.expire(at(61)));
    assert_eq!(peers(&view), [1, 2]);
    assert_eq!(view.wake_at(at(61)), None);
}

#[test]
fn held_leases_that_come_back_are_no_longer_held() {
    let all: Vec<u8> = (1..=20).collect();
    let mut view = synced(&all);
    view.snapshot(at(1), leases(&[250]));
    view.put(lease(7, None));
    let back: Vec<u8> = (1..=20).filter(|n| *n != 3).chain([250]).collect();
    view.snapshot(at(2), leases(&back));
    view.expire(at(100));
    let without_3: Vec<u8> = (1..=20).filter(|n| *n != 3).collect();
    assert_eq!(peers(&view), without_3);
}

#[test]
fn peers_of_an_earlier_life_are_held_when_most_are_missing_from_the_first_snapshot() {
    let all: Vec<u8> = (1..=20).collect();
    let mut view = view(&all);
    let outcome = view.snapshot(at(1), leases(&[1, 250]));
    assert_eq!(outcome, SnapshotOutcome::MassLoss { lost: 19, known: 20 });
    assert_eq!(view.prune(at(60)), Prune::Addrs);
    assert_eq!(view.prune(at(61)), Prune::Remove);
}

#[test]
fn a_few_stale_peers_of_an_earlier_life_are_removed_with_the_first_snapshot() {
    let mut view = view(&[1, 2, 3]);
    assert_eq!(view.snapshot(at(1), leases(&[1, 250])), SnapshotOutcome::Synced);
    assert_eq!(view.prune(at(1)), Prune::Remove);
}

#[test]
fn a_store_that_forgot_this_node_is_not_believed_about_the_others() {
    let mut forgotten = view(&[1, 2]);
    forgotten.distrust_store(at(0));
    forgotten.snapshot(at(1), leases(&[250]));
    assert_eq!(forgotten.prune(at(59)), Prune::Addrs);
    assert_eq!(forgotten.wake_at(at(1)), Some(at(60)));
    assert_eq!(forgotten.prune(at(60)), Prune::Remove);

    let mut fresh = view(&[]);
    fresh.distrust_store(at(0));
    fresh.snapshot(at(1), leases(&[250]));
    assert_eq!(
        fresh.prune(at(1)),
        Prune::Remove,
        "a new node has nothing to lose"
    );
}

#[test]
fn removal_of_the_own_lease_is_told_apart() {
    let mut view = synced(&[1, 2]);
    assert!(!view.remove(&key(1)));
    assert!(view.remove(&key(250)));
    assert_eq!(peers(&view), [2]);
}

#[test]
fn an_own_subnet_that_another_node_took_is_no_longer_ours() {
    let mut view = synced(&[1]);
    let mut taken = lease(250, None);
    taken.attrs.public_ip = Some([192, 168, 77, 99].into());
    assert!(view.put(taken.clone()));
    assert!(!view.put(lease(250, None)));
    let mut snapshot = leases(&[1]);
    snapshot.insert(taken.key, taken);
    assert_eq!(view.snapshot(at(1), snapshot), SnapshotOutcome::OwnLeaseGone);
}

fn at(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn view(adopted: &[u8]) -> LeaseView {
    LeaseView::new(
        &lease(250, None),
        adopted.iter().flat_map(|n| key(*n).subnets()).collect(),
        GRACE,
    )
}

fn synced(peers: &[u8]) -> LeaseView {
    let mut view = view(&[]);
    let all: Vec<u8> = peers.iter().copied().chain([250]).collect();
    assert_eq!(view.snapshot(at(0), leases(&all)), SnapshotOutcome::Synced);
    view
}

fn leases(nodes: &[u8]) -> BTreeMap<SubnetKey, Lease> {
    nodes.iter().map(|n| (key(*n), lease(*n, None))).collect()
}

fn peers(view: &LeaseView) -> Vec<u8> {
    view.peers()
        .map(|lease| lease.key.v4().unwrap().ip().octets()[2])
        .collect()
}
