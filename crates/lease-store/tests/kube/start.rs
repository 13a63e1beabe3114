//! Starts while the API server is out of reach.

use std::time::{Duration, Instant};

use fake_apiserver::{Fault, Trouble};
use flannel_types::PublicAddrs;
use lease_store::{KubeStore, LeaseEvent, LeaseStore};
use serde_json::json;

use crate::support::{
    Bed, DATA, UNAVAILABLE, acquire, bare, eventually, next, peer, put, removed, snapshot_of, unsynced,
    watching,
};

/// A server that a node has run with, which kept what it knew.
async fn known() -> Bed {
    let bed = Bed::new().await;
    bed.cluster()
        .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
    let store = KubeStore::new(bed.options_with_cache());
    let mut watch = watching(&bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24", "10.244.1.0-24"]).await;
    eventually("the file", async || {
        std::fs::read_to_string(bed.cache_path())
            .ok()
            .filter(|text| text.contains("10.244.1.0-24") && text.contains("kube-subnet-manager"))
    })
    .await;
    bed
}

fn silence(bed: &Bed, trouble: Trouble) {
    bed.cluster().add_fault(Fault {
        at: String::new(),
        trouble,
        times: None,
    });
    bed.cluster().restart();
}

#[tokio::test]
async fn a_node_starts_from_its_last_known_state_and_corrects_itself() {
    let bed = known().await;
    for trouble in [UNAVAILABLE, Trouble::Hang] {
        silence(&bed, trouble);
        let start = Instant::now();
        let store = KubeStore::new(bed.options_with_cache());
        let nobody = PublicAddrs { v4: None, v6: None };
        let found = store.find(nobody).await.unwrap().unwrap();
        assert_eq!(found.attrs.backend_data.as_deref(), Some(DATA));
        let mut watch = watching(&bed, &store).await;
        assert_eq!(put(&mut watch).await.0, "10.244.1.0-24");
        assert!(unsynced(&mut watch).await.contains("out of reach"));
        assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
        bed.cluster()
            .put_node(&peer("b", "10.244.2.0/24", "192.168.77.3"));
        bed.cluster().clear_faults();
        snapshot_of(&mut watch, &["10.244.0.0-24", "10.244.1.0-24", "10.244.2.0-24"]).await;
        bed.cluster().remove_node("b");
        assert_eq!(removed(&mut watch).await, "10.244.2.0-24");
    }
}

#[tokio::test]
async fn what_changed_meanwhile_on_the_own_node_is_put_right_once_it_can_be() {
    let bed = known().await;
    silence(&bed, UNAVAILABLE);
    let store = KubeStore::new(bed.options_with_cache());
    let _watch = watching(&bed, &store).await;
    let forget = json!({"metadata":{"annotations":{"flannel.alpha.coreos.com/public-ip":null}}});
    bed.cluster().patch_node("own", &forget);
    bed.cluster().clear_faults();
    bed.wait_for_annotation("own", "public-ip", "192.168.77.1").await;
}

#[tokio::test]
async fn a_subnet_that_is_another_one_by_now_ends_the_lease() {
    let bed = known().await;
    silence(&bed, UNAVAILABLE);
    let store = KubeStore::new(bed.options_with_cache());
    let mut watch = watching(&bed, &store).await;
    bed.cluster().remove_node("own");
    bed.cluster().put_node(&bare("own", &["10.244.9.0/24"]));
    bed.cluster().clear_faults();
    loop {
        if let LeaseEvent::Snapshot { leases, .. } = next(&mut watch).await {
            let keys: Vec<_> = leases.keys().map(ToString::to_string).collect();
            assert_eq!(keys, ["10.244.1.0-24"]);
            break;
        }
    }
}

#[tokio::test]
async fn a_server_that_answers_decides_whatever_the_file_says() {
    let bed = known().await;
    bed.cluster().remove_node("own");
    bed.cluster().put_node(&bare("own", &["10.244.9.0/24"]));
    let store = KubeStore::new(bed.options_with_cache());
    assert_eq!(acquire(&bed, &store).await.key.to_string(), "10.244.9.0-24");
}

#[tokio::test]
async fn without_a_file_a_node_waits_and_a_damaged_one_is_none() {
    let bed = known().await;
    silence(&bed, UNAVAILABLE);
    std::fs::write(bed.cache_path(), "{").unwrap();
    for options in [bed.options(), bed.options_with_cache()] {
        let nobody = PublicAddrs { v4: None, v6: None };
        let err = KubeStore::new(options).find(nobody).await.unwrap_err();
        assert_eq!(err.class(), lease_store::ErrorClass::Retry);
    }
}
