//! The network configuration changes while the store is watched.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use flannel_types::NetConf;
use lease_store::{KubeStore, KubeWatch, LeaseEvent};

use crate::support::{Bed, next, peer, put, snapshot_of, watching};

/// The file is looked at every five seconds.
const MORE_THAN_A_LOOK: Duration = Duration::from_secs(6);
const FIRST: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
const SECOND: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#;
const DUAL: &str =
    r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00::/48","Backend":{"Type":"vxlan"}}"#;

/// Puts a configuration into a volume as the kubelet does: the file is a link into `..data`, which is swapped for a link
/// to another directory (Kubernetes `pkg/volume/util/atomic_writer.go`).
fn mount(volume: &Path, version: &str, text: &str) {
    let dir = volume.join(format!("..{version}"));
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("net-conf.json"), text).unwrap();
    symlink(format!("..{version}"), volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    let link = volume.join("net-conf.json");
    if !link.is_symlink() {
        symlink("..data/net-conf.json", link).unwrap();
    }
}

/// A node whose configuration is mounted, and which knows one peer.
async fn mounted(bed: &Bed) -> (KubeStore, KubeWatch) {
    fs::remove_file(bed.conf_path()).unwrap();
    mount(bed.dir.path(), "1", FIRST);
    bed.cluster()
        .put_node(&peer("a", "10.244.1.0/24", "192.168.77.2"));
    let store = bed.store();
    let mut watch = watching(bed, &store).await;
    snapshot_of(&mut watch, &["10.244.0.0-24", "10.244.1.0-24"]).await;
    (store, watch)
}

async fn told(watch: &mut KubeWatch) -> (NetConf, usize) {
    let event = next(watch).await;
    let LeaseEvent::Snapshot { config, leases } = event else {
        panic!("no snapshot: {event:?}");
    };
    (config, leases.len())
}

#[tokio::test]
async fn a_configuration_that_the_kubelet_swaps_in_is_told_with_all_leases() {
    let bed = Bed::new().await;
    let (_store, mut watch) = mounted(&bed).await;
    for (version, text) in [("2", SECOND), ("3", FIRST)] {
        mount(bed.dir.path(), version, text);
        assert_eq!(told(&mut watch).await, (NetConf::parse(text).unwrap(), 2));
    }
    bed.cluster()
        .put_node(&peer("b", "10.244.2.0/24", "192.168.77.3"));
    assert_eq!(put(&mut watch).await.0, "10.244.2.0-24");
}

#[tokio::test]
async fn a_bad_or_missing_file_changes_nothing_and_the_next_good_one_counts() {
    let bed = Bed::new().await;
    let (_store, mut watch) = mounted(&bed).await;
    mount(bed.dir.path(), "2", "{");
    tokio::time::sleep(MORE_THAN_A_LOOK).await;
    fs::remove_dir_all(bed.dir.path().join("..2")).unwrap();
    tokio::time::sleep(MORE_THAN_A_LOOK).await;
    mount(bed.dir.path(), "3", SECOND);
    assert_eq!(told(&mut watch).await, (NetConf::parse(SECOND).unwrap(), 2));
}

/// The own Node has no subnet of the family that is switched on: that is for whoever applies it to find out.
#[tokio::test]
async fn a_configuration_that_the_own_subnet_does_not_fit_takes_no_lease_away() {
    let bed = Bed::new().await;
    let (_store, mut watch) = mounted(&bed).await;
    mount(bed.dir.path(), "2", DUAL);
    assert_eq!(told(&mut watch).await, (NetConf::parse(DUAL).unwrap(), 2));
    bed.cluster().heartbeat("own");
    bed.cluster()
        .put_node(&peer("b", "10.244.2.0/24", "192.168.77.3"));
    assert_eq!(put(&mut watch).await.0, "10.244.2.0-24");
}

#[tokio::test]
async fn a_configuration_that_changes_in_an_outage_is_told_after_it() {
    let bed = Bed::new().await;
    let (_store, mut watch) = mounted(&bed).await;
    bed.cluster().add_fault(fake_apiserver::Fault {
        at: String::new(),
        trouble: crate::support::UNAVAILABLE,
        times: None,
    });
    bed.cluster().restart();
    crate::support::unsynced(&mut watch).await;
    mount(bed.dir.path(), "2", SECOND);
    bed.cluster().clear_faults();
    let second = NetConf::parse(SECOND).unwrap();
    while told(&mut watch).await != (second.clone(), 2) {}
}
