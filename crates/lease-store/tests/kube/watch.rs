//! What a node hears of the others.

use serde_json::json;

use crate::support::{Bed, bare, peer, put, removed, snapshot_of, watching};

#[tokio::test]
async fn peers_are_told_with_either_kind_of_list() {
    for has_streaming_lists in [true, false] {
        let bed = Bed::new().await;
        bed.cluster().set_streaming_lists(has_streaming_lists);
        bed.cluster()
            .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
        bed.cluster().put_node(&bare("unmanaged", &["10.244.2.0/24"]));
        let store = bed.store();
        let mut watch = watching(&bed, &store).await;
        snapshot_of(&mut watch, &["10.244.0.0-24", "10.244.1.0-24"]).await;
        bed.cluster()
            .put_node(&peer("b", "10.244.3.0/24", "192.168.77.4"));
        let expected = ("10.244.3.0-24".to_owned(), Some([192, 168, 77, 4].into()));
        assert_eq!(put(&mut watch).await, expected);
        bed.cluster().remove_node("a");
        assert_eq!(removed(&mut watch).await, "10.244.1.0-24");
        let asked = bed
            .cluster()
            .take_log()
            .into_iter()
            .filter(|request| request.uri.contains("limit=500"));
        assert_eq!(asked.count(), usize::from(!has_streaming_lists));
    }
}

#[tokio::test]
async fn heartbeats_are_no_news_and_other_changes_are() {
    let bed = Bed::new().await;
    bed.cluster()
        .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
    let store = bed.store();
    let mut watch = watching(&bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24", "10.244.1.0-24"]).await;
    for _ in 0..20 {
        bed.cluster().heartbeat("a");
    }
    // Another subnet for the same node, as after its Node was made anew.
    bed.cluster()
        .put_node(&peer("a", "10.244.7.0/24", "192.168.77.2"));
    assert_eq!(removed(&mut watch).await, "10.244.1.0-24");
    assert_eq!(put(&mut watch).await.0, "10.244.7.0-24");
    let unmanage =
        json!({"metadata":{"annotations":{"flannel.alpha.coreos.com/kube-subnet-manager":"false"}}});
    bed.cluster().patch_node("a", &unmanage);
    assert_eq!(removed(&mut watch).await, "10.244.7.0-24");
}

#[tokio::test]
async fn another_subnet_for_this_node_takes_its_lease_away() {
    let bed = Bed::new().await;
    let store = bed.store();
    let mut watch = watching(&bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24"]).await;
    bed.cluster().remove_node("own");
    bed.cluster().put_node(&bare("own", &["10.244.9.0/24"]));
    assert_eq!(removed(&mut watch).await, "10.244.0.0-24");
}

#[tokio::test]
async fn many_pages_make_one_list() {
    let bed = Bed::new().await;
    bed.cluster().set_streaming_lists(false);
    fake_apiserver::many(1201, 0).for_each(|node| bed.cluster().put_node(&node));
    let store = bed.store();
    let mut watch = watching(&bed, &store).await;
    let lease_store::LeaseEvent::Snapshot { leases, .. } = crate::support::next(&mut watch).await else {
        panic!("no snapshot");
    };
    assert_eq!(leases.len(), 1202);
    let pages = bed
        .cluster()
        .take_log()
        .into_iter()
        .filter(|request| request.uri.contains("limit=500"));
    assert_eq!(pages.count(), 3);
}
