//! What happens when the API server does not do what it should.

use std::time::Duration;

use fake_apiserver::{Fault, Trouble};
use lease_store::LeaseEvent;

use crate::support::{Bed, UNAVAILABLE, eventually, next, peer, put, snapshot_of, unsynced, watching};

fn fault(at: &str, trouble: Trouble, times: Option<u32>) -> Fault {
    let at = at.to_owned();
    Fault { at, trouble, times }
}

/// Waits until a watch that follows changes is open.
async fn followed(bed: &Bed) {
    eventually("a watch from a revision", async || {
        let log = bed.cluster().take_log();
        log.iter()
            .any(|request| request.uri.contains("watch=true") && request.uri.contains("resourceVersion="))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn each_failure_of_the_first_list_is_overcome() {
    let refuse = |code| Trouble::Refuse {
        code,
        retry_after: Some(0),
    };
    for trouble in [
        refuse(500),
        refuse(503),
        refuse(429),
        refuse(403),
        Trouble::Cut(0),
        Trouble::Cut(900),
        Trouble::ErrorEvent { code: 500 },
        Trouble::ErrorEvent { code: 410 },
    ] {
        let bed = Bed::new().await;
        bed.cluster()
            .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
        let store = bed.store();
        crate::support::acquire(&bed, &store).await;
        bed.cluster()
            .add_fault(fault("/nodes?", trouble.clone(), Some(2)));
        let mut watch = lease_store::LeaseStore::watch(&store).unwrap();
        snapshot_of(&mut watch, &["10.244.0.0-24", "10.244.1.0-24"]).await;
        bed.cluster()
            .put_node(&peer("b", "10.244.2.0/24", "192.168.77.3"));
        assert_eq!(put(&mut watch).await.0, "10.244.2.0-24", "{trouble:?}");
    }
}

#[tokio::test]
async fn a_broken_watch_goes_on_where_it_was_and_nobody_hears_of_it() {
    let bed = Bed::new().await;
    let store = bed.store();
    let mut watch = watching(&bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24"]).await;
    bed.cluster().break_watches();
    followed(&bed).await;
    bed.cluster()
        .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
    assert_eq!(put(&mut watch).await.0, "10.244.1.0-24");
}

#[tokio::test]
async fn changes_of_an_outage_are_told_after_it() {
    let bed = Bed::new().await;
    bed.cluster()
        .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
    let store = bed.store();
    let mut watch = watching(&bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24", "10.244.1.0-24"]).await;
    bed.cluster().add_fault(fault("", UNAVAILABLE, None));
    bed.cluster().restart();
    let reason = unsynced(&mut watch).await;
    assert!(reason.contains("503"), "{reason}");
    bed.cluster().remove_node("a");
    bed.cluster()
        .put_node(&peer("b", "10.244.2.0/24", "192.168.77.3"));
    bed.cluster().clear_faults();
    // What was known still counts, or has been read anew.
    let mut known = Vec::new();
    loop {
        match next(&mut watch).await {
            LeaseEvent::Snapshot { leases, .. } => known = leases.into_keys().collect(),
            LeaseEvent::Put(lease) => known.push(lease.key),
            LeaseEvent::Remove(key) => known.retain(|known| *known != key),
            LeaseEvent::Unsynced { reason } => panic!("{reason}"),
        }
        let mut names: Vec<_> = known.iter().map(ToString::to_string).collect();
        names.sort();
        if names == ["10.244.0.0-24", "10.244.2.0-24"] {
            break;
        }
    }
}

#[tokio::test]
async fn a_restarted_server_that_forgot_the_revision_is_read_anew() {
    let bed = Bed::new().await;
    bed.cluster()
        .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
    let store = bed.store();
    let mut watch = watching(&bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24", "10.244.1.0-24"]).await;
    bed.cluster().add_fault(fault("", UNAVAILABLE, Some(1)));
    let bed = bed.restart().await;
    bed.cluster().remove_node("a");
    bed.cluster()
        .put_node(&peer("b", "10.244.2.0/24", "192.168.77.3"));
    bed.cluster().compact();
    eventually("the lease of the new node and no other", async || {
        matches!(
            next(&mut watch).await,
            LeaseEvent::Snapshot { leases, .. }
                if leases.keys().map(ToString::to_string).eq(["10.244.0.0-24", "10.244.2.0-24"])
        )
        .then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_server_restored_from_a_backup_is_read_anew() {
    let bed = Bed::new().await;
    bed.cluster().set_bookmark_every(Duration::from_millis(50));
    bed.cluster().set_revision(9_000);
    let store = bed.store();
    let mut watch = watching(&bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24"]).await;
    bed.cluster().set_revision(100);
    bed.cluster()
        .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
    snapshot_of(&mut watch, &["10.244.0.0-24", "10.244.1.0-24"]).await;
}

#[tokio::test]
async fn a_server_that_is_slow_is_waited_for() {
    let bed = Bed::new().await;
    bed.cluster()
        .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
    bed.cluster().add_fault(fault("", Trouble::Delay(700), None));
    let store = bed.store();
    let mut watch = watching(&bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24", "10.244.1.0-24"]).await;
}
