use std::time::Duration;

use etcd::Options;
use lease_store::{EtcdStore, LeaseEvent, LeaseStore};

use crate::support::{
    CONFIG, DUAL_STACK, Lab, PREFIX, in_netns, key, lease, next, options, request, snapshot, unsynced, value,
};

#[test]
fn a_watch_begins_with_everything_and_goes_on_with_each_change() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        lab.raw.put("subnets/10.5.1.0-24", &value(1), 0).await;
        let mut watch = lab.store().watch().unwrap();
        let LeaseEvent::Snapshot { config, leases } = next(&mut watch).await else {
            panic!("a snapshot comes first")
        };
        assert_eq!(config, request(CONFIG, 1).conf);
        assert_eq!(leases, [(key("10.5.1.0-24"), lease("10.5.1.0-24", 1))].into());
        lab.raw.put("subnets/10.5.2.0-24", &value(2), 0).await;
        assert_eq!(next(&mut watch).await, LeaseEvent::Put(lease("10.5.2.0-24", 2)));
        lab.raw.put("subnets/10.5.2.0-24", &value(3), 0).await;
        assert_eq!(next(&mut watch).await, LeaseEvent::Put(lease("10.5.2.0-24", 3)));
        lab.raw.delete("subnets/10.5.1.0-24").await;
        assert_eq!(next(&mut watch).await, LeaseEvent::Remove(key("10.5.1.0-24")));
        // Of another network below, and of names that are none, nothing is heard.
        lab.raw.put("other/subnets/10.5.9.0-24", &value(9), 0).await;
        lab.raw.put("subnets/10.5.9.0", &value(9), 0).await;
        lab.raw.delete("subnets/10.5.2.0-24").await;
        assert_eq!(next(&mut watch).await, LeaseEvent::Remove(key("10.5.2.0-24")));
    });
}

#[test]
fn a_changed_configuration_comes_in_a_snapshot_and_a_bad_or_missing_one_does_not_count() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        lab.raw.put("subnets/10.5.1.0-24", &value(1), 0).await;
        let mut watch = lab.store().watch().unwrap();
        assert_eq!(snapshot(&mut watch).await.len(), 1);
        for (text, counts) in [(DUAL_STACK, DUAL_STACK), ("{}", DUAL_STACK), (CONFIG, CONFIG)] {
            lab.raw.put("config", text, 0).await;
            let LeaseEvent::Snapshot { config, leases } = next(&mut watch).await else {
                panic!("a snapshot comes")
            };
            assert_eq!((config, leases.len()), (request(counts, 1).conf, 1));
        }
        lab.raw.delete("config").await;
        let LeaseEvent::Snapshot { config, leases } = next(&mut watch).await else {
            panic!("a snapshot comes")
        };
        assert_eq!((config, leases.len()), (request(CONFIG, 1).conf, 1));
    });
}

#[test]
fn without_a_configuration_there_is_no_snapshot_until_it_comes() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        lab.raw.delete("config").await;
        let mut watch = lab.store().watch().unwrap();
        assert!(
            unsynced(&mut watch)
                .await
                .starts_with("flannel config not found in /coreos.com/network/config")
        );
        lab.raw.put("config", CONFIG, 0).await;
        assert!(snapshot(&mut watch).await.is_empty());
    });
}

#[test]
fn of_a_lease_that_turned_unreadable_the_value_before_counts() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        lab.raw.put("subnets/10.5.1.0-24", &value(1), 0).await;
        lab.raw.put("subnets/10.5.1.0-24", "{\"PublicIP\":7}", 0).await;
        lab.raw.put("subnets/10.5.2.0-24", "\u{7f}", 0).await;
        let mut watch = lab.store().watch().unwrap();
        let leases = snapshot(&mut watch).await;
        assert_eq!(leases, [(key("10.5.1.0-24"), lease("10.5.1.0-24", 1))].into());
        lab.raw.put("subnets/10.5.1.0-24", "[]", 0).await;
        lab.raw.put("subnets/10.5.2.0-24", &value(2), 0).await;
        assert_eq!(next(&mut watch).await, LeaseEvent::Put(lease("10.5.2.0-24", 2)));
    });
}

#[test]
fn a_lease_that_nobody_renews_ends_by_itself() {
    in_netns(async {
        let lab = Lab::new(CONFIG).await;
        let short = |options: Options| EtcdStore::with_lease_ttl(options, PREFIX, Duration::from_secs(3));
        let store = short(options(&[&lab.member.url()]));
        let mine = store.acquire(&request(CONFIG, 1)).await.unwrap();
        let theirs = store.acquire(&request(CONFIG, 2)).await.unwrap();
        let mut watch = lab.store().watch().unwrap();
        assert_eq!(snapshot(&mut watch).await.len(), 2);
        let mut events = Vec::new();
        for _ in 0..6 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            store.renew(&mine).await.unwrap();
        }
        events.push(next(&mut watch).await);
        assert_eq!(events, [LeaseEvent::Remove(theirs.key)]);
        assert_eq!(
            store
                .find(mine.attrs.addrs())
                .await
                .unwrap()
                .map(|lease| lease.key),
            Some(mine.key)
        );
    });
}
