use std::time::{Duration, Instant};

use lease_store::{ErrorClass, EtcdStore, EtcdWatch, LeaseEvent, LeaseStore};

use crate::admin::compact;
use crate::member::Member;
use crate::support::{
    CONFIG, Lab, PREFIX, Raw, attrs, in_netns, key, lease, next, nft, options, request, snapshot, unsynced,
    value,
};

const ADMIN: u16 = 12_379;
const CUT: &str = "table inet cut { chain in { type filter hook input priority 0; tcp dport 2379 drop; }; }";
const MEND: &str = "delete table inet cut";

/// A server with one lease, and a watch that has seen it.
async fn watched() -> (Lab, EtcdWatch) {
    let lab = Lab::new(CONFIG).await;
    lab.raw.put("subnets/10.5.1.0-24", &value(1), 0).await;
    let mut watch = lab.store().watch().unwrap();
    assert_eq!(snapshot(&mut watch).await.len(), 1);
    (lab, watch)
}

#[test]
fn what_changed_while_the_server_was_out_of_reach_comes_although_it_was_compacted() {
    in_netns(async {
        let (lab, mut watch) = watched().await;
        nft(CUT);
        let reason = unsynced(&mut watch).await;
        assert!(reason.contains("http://127.0.0.1:2379"), "{reason}");
        lab.raw.put("subnets/10.5.1.0-24", &value(9), 0).await;
        lab.raw.put("subnets/10.5.2.0-24", &value(2), 0).await;
        compact(ADMIN);
        nft(MEND);
        let start = Instant::now();
        let leases = snapshot(&mut watch).await;
        println!("back after {:?}", start.elapsed());
        assert_eq!(
            leases,
            [
                (key("10.5.1.0-24"), lease("10.5.1.0-24", 9)),
                (key("10.5.2.0-24"), lease("10.5.2.0-24", 2)),
            ]
            .into()
        );
        lab.raw.delete("subnets/10.5.1.0-24").await;
        assert_eq!(next(&mut watch).await, LeaseEvent::Remove(key("10.5.1.0-24")));
    });
}

#[test]
fn a_connection_that_breaks_is_taken_up_where_it_ended() {
    in_netns(async {
        let (lab, mut watch) = watched().await;
        lab.raw.put("subnets/10.5.2.0-24", &value(2), 0).await;
        assert_eq!(next(&mut watch).await, LeaseEvent::Put(lease("10.5.2.0-24", 2)));
        reset_connections(2379);
        lab.raw.delete("subnets/10.5.2.0-24").await;
        assert_eq!(next(&mut watch).await, LeaseEvent::Remove(key("10.5.2.0-24")));
    });
}

#[test]
fn a_compacted_revision_leads_to_a_snapshot_and_not_to_a_loop() {
    in_netns(async {
        let (lab, mut watch) = watched().await;
        reset_connections(2379);
        for node in 2..=9 {
            lab.raw.put("subnets/10.5.1.0-24", &value(node), 0).await;
        }
        compact(ADMIN);
        let mut last = None;
        while last != Some(lease("10.5.1.0-24", 9)) {
            last = match next(&mut watch).await {
                LeaseEvent::Snapshot { leases, .. } => leases.get(&key("10.5.1.0-24")).cloned(),
                LeaseEvent::Put(lease) => Some(lease),
                other @ (LeaseEvent::Remove(_) | LeaseEvent::Unsynced { .. }) => panic!("{other:?}"),
            };
        }
        lab.raw.put("subnets/10.5.2.0-24", &value(2), 0).await;
        assert_eq!(next(&mut watch).await, LeaseEvent::Put(lease("10.5.2.0-24", 2)));
    });
}

/// Ends all connections to a port, as a load balancer does.
fn reset_connections(port: u16) {
    let filter = format!("dport = :{port}");
    let killed = std::process::Command::new("ss")
        .args(["-K", "-t", &filter])
        .output()
        .unwrap();
    let text = String::from_utf8(killed.stdout).unwrap();
    assert!(text.contains("ESTAB"), "nothing was ended: {text}");
}

#[test]
fn a_frozen_server_is_noticed_and_its_return_too() {
    in_netns(async {
        let (lab, mut watch) = watched().await;
        let store = lab.store();
        lab.member.freeze();
        let start = Instant::now();
        let err = store.acquire(&request(CONFIG, 2)).await.unwrap_err();
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        assert_eq!(err.class(), ErrorClass::Retry);
        let reason = unsynced(&mut watch).await;
        println!("unsynced after {:?}: {reason}", start.elapsed());
        assert!(reason.contains("did not answer within 5 s"), "{reason}");
        lab.member.thaw();
        let start = Instant::now();
        snapshot(&mut watch).await;
        println!("back after {:?}", start.elapsed());
        store.acquire(&request(CONFIG, 2)).await.unwrap();
    });
}

#[test]
fn a_killed_server_that_comes_back_is_found_again() {
    in_netns(async {
        let (mut lab, mut watch) = watched().await;
        let store = lab.store();
        let mine = store.acquire(&request(CONFIG, 2)).await.unwrap();
        assert!(matches!(next(&mut watch).await, LeaseEvent::Put(_)));
        lab.member.kill();
        let reason = unsynced(&mut watch).await;
        assert!(
            reason.contains("cannot connect to etcd at http://127.0.0.1:2379"),
            "{reason}"
        );
        assert!(reason.contains("refused"), "{reason}");
        assert_eq!(store.renew(&mine).await.unwrap_err().class(), ErrorClass::Retry);
        lab.member.restart();
        let start = Instant::now();
        assert_eq!(snapshot(&mut watch).await.len(), 2);
        println!("back after {:?}", start.elapsed());
        assert_eq!(store.renew(&mine).await.unwrap().key, mine.key);
    });
}

#[test]
fn a_server_that_lost_everything_tells_nothing_of_the_leases() {
    in_netns(async {
        let (mut lab, mut watch) = watched().await;
        lab.member.kill();
        unsynced(&mut watch).await;
        lab.member.wipe();
        lab.member.restart();
        tokio::time::timeout(Duration::from_secs(8), next(&mut watch))
            .await
            .unwrap_err();
        lab.raw.put("config", CONFIG, 0).await;
        assert!(snapshot(&mut watch).await.is_empty());
    });
}

#[test]
fn a_server_that_is_not_there_yet_is_waited_for() {
    in_netns(async {
        let mut member = Member::prepare("m1", 2379, "m1=http://127.0.0.1:2380", &[], None);
        let endpoints = ["http://127.0.0.1:4001", &member.url()];
        let store = EtcdStore::new(options(&endpoints), PREFIX);
        let err = store.read_config().await.unwrap_err();
        assert_eq!(err.class(), ErrorClass::Retry);
        assert!(
            err.to_string()
                .starts_with("cannot reach /coreos.com/network/config in etcd"),
            "{err}"
        );
        let mut watch = store.watch().unwrap();
        unsynced(&mut watch).await;
        member.restart();
        let raw = Raw(etcd::Client::new(options(&[&member.own_url()])));
        raw.put("config", CONFIG, 0).await;
        assert!(snapshot(&mut watch).await.is_empty());
        assert_eq!(store.acquire(&request(CONFIG, 1)).await.unwrap().attrs, attrs(1));
    });
}
