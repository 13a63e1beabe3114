use flannel_types::PreviousSubnets;

use super::*;
use crate::ErrorClass;

fn conf() -> NetConf {
    NetConf::parse(r#"{"Network":"10.5.0.0/16"}"#).unwrap()
}

fn attrs(owner: u8) -> LeaseAttrs {
    LeaseAttrs::parse(&format!(r#"{{"PublicIP":"192.168.77.{owner}"}}"#)).unwrap()
}

fn request(owner: u8) -> LeaseRequest {
    LeaseRequest {
        conf: conf(),
        attrs: attrs(owner),
        previous: PreviousSubnets::default(),
    }
}

fn store() -> MemoryStore {
    let store = MemoryStore::new(1);
    store.set_config(Some(conf()));
    store
}

#[test]
fn one_seed_gives_the_same_subnets_again() {
    let keys = |seed| {
        let store = MemoryStore::new(seed);
        (1..20)
            .map(|owner| store.acquire_now(&request(owner)).unwrap().key)
            .collect::<Vec<_>>()
    };
    assert_eq!(keys(7), keys(7));
    assert_ne!(keys(7), keys(8));
}

#[test]
fn leases_are_acquired_renewed_and_end() {
    let store = store();
    let lease = store.acquire_now(&request(1)).unwrap();
    assert_eq!(lease.expires, Some(UnixTime::from_secs(86_400)));
    assert_eq!(store.acquire_now(&request(1)).unwrap(), lease);
    assert_eq!(store.find_now(lease.attrs.addrs()).unwrap(), Some(lease.clone()));
    store.set_now(UnixTime::from_secs(1_000));
    assert_eq!(
        store.renew_now(&lease).unwrap().expires,
        Some(UnixTime::from_secs(87_400))
    );
    store.set_now(UnixTime::from_secs(87_400));
    assert!(store.leases().is_empty());
    assert_eq!(store.renew_now(&lease).unwrap_err().class(), ErrorClass::Lost);
}

#[test]
fn a_reservation_stays_one() {
    let store = store();
    let reserved = Lease {
        key: "10.5.9.0-24".parse().unwrap(),
        attrs: attrs(1),
        expires: None,
    };
    store.put(reserved.clone());
    assert_eq!(store.acquire_now(&request(1)).unwrap(), reserved);
    assert_eq!(store.renew_now(&reserved).unwrap(), reserved);
}

#[test]
fn a_store_out_of_reach_fails_every_call() {
    let store = store();
    let lease = store.acquire_now(&request(1)).unwrap();
    store.set_reach(Reach::Unreachable);
    assert_eq!(
        store.acquire_now(&request(2)).unwrap_err().class(),
        ErrorClass::Retry
    );
    assert_eq!(store.renew_now(&lease).unwrap_err().class(), ErrorClass::Retry);
    assert_eq!(
        store.find_now(lease.attrs.addrs()).unwrap_err().class(),
        ErrorClass::Retry
    );
    assert_eq!(store.leases().len(), 1);
}

#[tokio::test]
async fn a_watch_reports_single_changes_alone_and_the_rest_as_snapshots() {
    let store = MemoryStore::new(1);
    let mut watch = store.watch().unwrap();
    assert!(matches!(watch.next_event().await, LeaseEvent::Unsynced { .. }));
    store.set_config(Some(conf()));
    assert_eq!(
        watch.next_event().await,
        LeaseEvent::Snapshot {
            config: conf(),
            leases: BTreeMap::new()
        }
    );
    let lease = store.acquire_now(&request(1)).unwrap();
    assert_eq!(watch.next_event().await, LeaseEvent::Put(lease.clone()));
    store.remove(lease.key);
    assert_eq!(watch.next_event().await, LeaseEvent::Remove(lease.key));
    store.acquire_now(&request(1)).unwrap();
    store.acquire_now(&request(2)).unwrap();
    assert_eq!(watch.next_event().await, store.snapshot());
    store.set_reach(Reach::Unreachable);
    store.set_config(None);
    assert!(matches!(watch.next_event().await, LeaseEvent::Unsynced { .. }));
    store.set_config(Some(conf()));
    store.set_reach(Reach::Reachable);
    assert_eq!(watch.next_event().await, store.snapshot());
}
