//! What becomes of the own Node while the API server is out of reach is put right after it.

use std::time::Duration;

use fake_apiserver::{Cluster, Fault};
use lease_store::{KubeWatch, LeaseEvent, LeaseStore};
use serde_json::{Value, json};

use crate::support::{
    Bed, DATA, UNAVAILABLE, bare, eventually, next, patches, snapshot_of, unsynced, watching,
};

/// Changes the own Node while the server answers nobody, and waits until the node has heard of the server again.
async fn changed_in_an_outage(bed: &Bed, watch: &mut KubeWatch, change: impl FnOnce(&Cluster)) {
    let fault = Fault {
        at: String::new(),
        trouble: UNAVAILABLE,
        times: None,
    };
    bed.cluster().add_fault(fault);
    bed.cluster().break_watches();
    unsynced(watch).await;
    patches(bed);
    change(bed.cluster());
    bed.cluster().clear_faults();
    while !matches!(next(watch).await, LeaseEvent::Snapshot { .. }) {}
}

/// A node that has written on its own Node before; with any of `begin`'s revisions.
async fn settled(bed: &Bed, begin: u64) -> (lease_store::KubeStore, KubeWatch) {
    bed.cluster().set_bookmark_every(Duration::from_millis(50));
    bed.cluster().set_revision(begin);
    let store = bed.store();
    let mut watch = watching(bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24"]).await;
    store.network_is_up();
    eventually("the condition", async || {
        network_is_up(bed.cluster()).then_some(())
    })
    .await;
    (store, watch)
}

fn network_is_up(cluster: &Cluster) -> bool {
    cluster.node("own").unwrap()["status"]["conditions"][0]["status"] == "False"
}

fn annotations(values: Value) -> Value {
    let Value::Object(values) = values else { panic!() };
    let named = values
        .into_iter()
        .map(|(suffix, value)| (format!("flannel.alpha.coreos.com/{suffix}"), value));
    json!({ "metadata": { "annotations": Value::Object(named.collect()) } })
}

/// What is written next.
async fn next_patch(bed: &Bed) -> Value {
    eventually("a patch", async || Some(patches(bed).into_iter().next()?.2)).await
}

#[tokio::test]
async fn annotations_that_were_changed_or_removed_are_put_back_and_nothing_else() {
    // Whether the server still knows where the watch was, or has forgotten it.
    for forgets in [false, true] {
        let bed = Bed::new().await;
        let (_store, mut watch) = settled(&bed, 10).await;
        let change = annotations(json!({"public-ip": "10.9.9.9", "backend-data": null}));
        changed_in_an_outage(&bed, &mut watch, |cluster| {
            cluster.patch_node("own", &change);
            if forgets {
                cluster.compact();
            }
        })
        .await;
        let expected = annotations(json!({"backend-data": DATA, "public-ip": "192.168.77.1"}));
        assert_eq!(next_patch(&bed).await, expected, "{forgets}");
    }
}

#[tokio::test]
async fn a_node_that_was_deleted_and_made_anew_gets_all_annotations_and_the_condition() {
    let bed = Bed::new().await;
    let (_store, mut watch) = settled(&bed, 10).await;
    changed_in_an_outage(&bed, &mut watch, |cluster| {
        cluster.remove_node("own");
        cluster.put_node(&bare("own", &["10.244.0.0/24"]));
        cluster.compact();
    })
    .await;
    let expected = annotations(json!({"backend-data": DATA, "backend-type": "vxlan",
        "kube-subnet-manager": "true", "public-ip": "192.168.77.1"}));
    assert_eq!(next_patch(&bed).await, expected);
    eventually("the condition", async || {
        network_is_up(bed.cluster()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_node_that_returns_after_the_outage_gets_its_annotations_then() {
    let bed = Bed::new().await;
    let (_store, mut watch) = settled(&bed, 10).await;
    changed_in_an_outage(&bed, &mut watch, |cluster| {
        cluster.remove_node("own");
        cluster.compact();
    })
    .await;
    bed.cluster().put_node(&bare("own", &["10.244.0.0/24"]));
    bed.wait_for_annotation("own", "public-ip", "192.168.77.1").await;
    eventually("the condition", async || {
        network_is_up(bed.cluster()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_a_backup_lacks_is_written_although_its_revisions_are_older() {
    for lacks in [
        json!({"public-ip": null}),
        json!({"backend-data": "{}", "backend-type": null}),
    ] {
        let bed = Bed::new().await;
        let (_store, mut watch) = settled(&bed, 9_000).await;
        changed_in_an_outage(&bed, &mut watch, |cluster| {
            cluster.set_revision(100);
            cluster.patch_node("own", &annotations(lacks));
        })
        .await;
        let patch = next_patch(&bed).await;
        bed.wait_for_annotation("own", "backend-data", DATA).await;
        bed.wait_for_annotation("own", "public-ip", "192.168.77.1").await;
        let written = patch["metadata"]["annotations"].as_object().unwrap();
        assert!(!written.contains_key("flannel.alpha.coreos.com/kube-subnet-manager"));
    }
}
