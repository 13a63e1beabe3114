//! Three servers that elect a leader.

use std::time::Instant;

use etcd::Client;
use lease_store::{EtcdStore, LeaseEvent, LeaseStore};

use crate::member::Member;
use crate::support::{
    CONFIG, PREFIX, Raw, in_netns, key, lease, next, options, request, snapshot, unsynced, value,
};

const CLUSTER: &str = "m1=http://127.0.0.1:2380,m2=http://127.0.0.1:3380,m3=http://127.0.0.1:4380";

struct Cluster {
    members: Vec<Member>,
}

impl Cluster {
    async fn start() -> Self {
        let prepare = |(name, port): (&str, u16)| {
            let mut member = Member::prepare(name, port, CLUSTER, &[], None);
            member.spawn();
            member
        };
        let members = [("m1", 2379), ("m2", 3379), ("m3", 4379)]
            .into_iter()
            .map(prepare)
            .collect();
        let cluster = Self { members };
        cluster.raw(0).put("config", CONFIG, 0).await;
        cluster.raw(0).put("subnets/10.5.1.0-24", &value(1), 0).await;
        cluster
    }

    fn raw(&self, member: usize) -> Raw {
        Raw(Client::new(options(&[&self.members[member].own_url()])))
    }

    fn store(&self) -> EtcdStore {
        let urls: Vec<_> = self.members.iter().map(Member::url).collect();
        EtcdStore::new(
            options(&urls.iter().map(String::as_str).collect::<Vec<_>>()),
            PREFIX,
        )
    }
}

#[test]
fn when_a_member_dies_another_one_serves_and_nothing_is_missed() {
    in_netns(async {
        let mut cluster = Cluster::start().await;
        let store = cluster.store();
        let mut watch = store.watch().unwrap();
        assert_eq!(snapshot(&mut watch).await.len(), 1);
        let mine = store.acquire(&request(CONFIG, 2)).await.unwrap();
        assert!(matches!(next(&mut watch).await, LeaseEvent::Put(_)));
        // Each in turn, so that the leader is among them.
        for dead in 0..3 {
            cluster.members[dead].kill();
            let start = Instant::now();
            while let Err(err) = store.renew(&mine).await {
                assert!(start.elapsed().as_secs() < 60, "{err}");
            }
            println!("renewed {:?} after the end of a member", start.elapsed());
            let node = u8::try_from(dead).unwrap() + 10;
            cluster
                .raw((dead + 1) % 3)
                .put("subnets/10.5.1.0-24", &value(node), 0)
                .await;
            let expected = lease("10.5.1.0-24", node);
            loop {
                let seen = match next(&mut watch).await {
                    LeaseEvent::Snapshot { leases, .. } => leases.get(&key("10.5.1.0-24")).cloned(),
                    LeaseEvent::Put(lease) => Some(lease),
                    LeaseEvent::Unsynced { .. } => None,
                    LeaseEvent::Remove(key) => panic!("{key} is said to be gone"),
                };
                if seen.as_ref() == Some(&expected) {
                    break;
                }
            }
            println!("seen {:?} after the end of a member", start.elapsed());
            cluster.members[dead].restart();
            cluster.raw(dead).put("other", "1", 0).await;
        }
    });
}

#[test]
fn a_frozen_member_is_left_for_another_one() {
    in_netns(async {
        let cluster = Cluster::start().await;
        let store = cluster.store();
        let mut watch = store.watch().unwrap();
        assert_eq!(snapshot(&mut watch).await.len(), 1);
        cluster.members[0].freeze();
        let start = Instant::now();
        let mine = store.acquire(&request(CONFIG, 2)).await.unwrap();
        println!("acquired {:?} after the member froze", start.elapsed());
        loop {
            match next(&mut watch).await {
                LeaseEvent::Put(lease) if lease.key == mine.key => break,
                LeaseEvent::Snapshot { leases, .. } if leases.contains_key(&mine.key) => break,
                LeaseEvent::Put(_) | LeaseEvent::Snapshot { .. } | LeaseEvent::Unsynced { .. } => {}
                LeaseEvent::Remove(key) => panic!("{key} is said to be gone"),
            }
        }
        println!("seen {:?} after the member froze", start.elapsed());
        cluster.members[0].thaw();
    });
}

#[test]
fn without_a_majority_the_store_is_out_of_reach_until_it_is_back() {
    in_netns(async {
        let mut cluster = Cluster::start().await;
        let store = cluster.store();
        let mut watch = store.watch().unwrap();
        assert_eq!(snapshot(&mut watch).await.len(), 1);
        cluster.members[1].kill();
        cluster.members[2].kill();
        let start = Instant::now();
        let reason = unsynced(&mut watch).await;
        println!("unsynced after {:?}: {reason}", start.elapsed());
        cluster.members[1].restart();
        let start = Instant::now();
        assert_eq!(snapshot(&mut watch).await.len(), 1);
        println!("back after {:?}", start.elapsed());
    });
}
