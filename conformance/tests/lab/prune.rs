use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use conformance::lab::wait_until;

use crate::support::{Bed, LONG, assert_same, pinging_during, running, stays};

/// How long a daemon without a usable store is watched for a wrong removal: longer than its re-list interval of 2 s.
const WATCHED: Duration = Duration::from_secs(3);

/// Stops the first node's daemon, takes a file of the lease directory away, starts the daemon again, and looks that the
/// node's tunnel and its traffic stay. Then the file is put back, and the daemon has to find to itself.
fn without_at_start(file: &str) -> Bed {
    let mut bed = running(3, 1);
    let before = bed.tunnel(1);
    bed.daemons.remove(0).stop(LONG).unwrap();
    let (here, away) = (bed.lab.shared_file(file), bed.lab.shared_file("away"));
    fs::rename(&here, &away).unwrap();

    let daemon = bed.node(1).spawn_flanneld(&[], &[]).unwrap();
    let targets = bed.pods_beyond(1);
    let ((), sent, lost) = pinging_during(bed.pod_on(1).namespaces(), &targets, || {
        stays(WATCHED, || {
            assert_same(&format!("the tunnel without {file}"), &before, &bed.tunnel(1))
        });
    });
    assert!(sent > 50);
    assert_eq!(lost, 0);

    // The other nodes' daemons may have made the place anew; what was taken away is the truth.
    if here.is_dir() {
        fs::remove_dir_all(&here).unwrap();
    }
    fs::rename(&away, &here).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    assert_same("the tunnel after it is back", &before, &bed.tunnel(1));
    bed.assert_all_ping();
    drop(daemon);
    bed
}

#[test]
fn without_the_lease_directory_at_the_start_all_peers_stay() {
    without_at_start("leases");
}

#[test]
fn without_the_network_configuration_at_the_start_all_peers_stay() {
    without_at_start("leases/config");
}

#[test]
fn without_its_own_lease_at_the_start_a_node_gets_the_same_one_again_and_all_peers_stay() {
    let mut bed = running(3, 1);
    let (before, subnet) = (bed.tunnel(1), bed.node(1).subnet().unwrap());
    // The others must not see the lease leave: they would be right to drop the node.
    for daemon in &mut bed.daemons {
        daemon.stop(LONG).unwrap();
    }
    fs::remove_file(lease_of(&bed, 1)).unwrap();
    let targets = bed.pods_beyond(1);
    let (daemon, _, lost) = pinging_during(bed.pod_on(1).namespaces(), &targets, || {
        let daemon = bed.node(1).start_flanneld(&[]).unwrap();
        stays(WATCHED, || assert_same("the tunnel", &before, &bed.tunnel(1)));
        daemon
    });
    assert_eq!(lost, 0);
    assert_eq!(bed.node(1).subnet().unwrap(), subnet);
    assert!(lease_of(&bed, 1).is_file());
    bed.assert_all_ping();
    drop(daemon);
}

#[test]
fn a_peer_that_left_while_the_daemon_was_down_is_removed_after_the_restart_and_nothing_else() {
    let mut bed = running(3, 1);
    let (gone, stays) = (
        bed.node(3).address().to_string(),
        bed.node(2).address().to_string(),
    );
    bed.daemons.remove(0).stop(LONG).unwrap();
    bed.daemons.remove(1).stop(LONG).unwrap();
    fs::remove_file(lease_of(&bed, 3)).unwrap();
    assert!(bed.tunnel(1).has("fdb", &gone));

    let daemon = bed.node(1).start_flanneld(&[]).unwrap();
    let of_one_peer = |kind| bed.tunnel(1).count(kind) == 1;
    let took = wait_until("the stale peer to be gone", LONG, || {
        Ok(!bed.tunnel(1).has("fdb", &gone) && of_one_peer("fdb") && of_one_peer("neighbour"))
    });
    println!("the stale peer was gone after {:?}", took.unwrap());
    let (subnet, length) = bed.node(3).subnet().unwrap();
    assert!(!bed.tunnel(1).has("route", &format!("\"{subnet}/{length}\"")));
    assert!(bed.tunnel(1).has("fdb", &stays));
    bed.pods.retain(|pod| pod.node_number() != 3);
    bed.assert_all_ping_between(&[1, 2]);
    drop(daemon);
}

#[test]
fn a_peer_that_leaves_or_joins_while_the_daemon_runs_is_followed() {
    let mut bed = running(2, 1);
    let (with, lease) = (bed.tunnel(1), lease_of(&bed, 2));
    bed.daemons.remove(1).stop(LONG).unwrap();
    fs::remove_file(&lease).unwrap();
    wait_until(
        "the peer to be gone",
        LONG,
        || Ok(bed.tunnel(1).count("fdb") == 0),
    )
    .unwrap();
    let daemon = bed.node(2).start_flanneld(&[]).unwrap();
    wait_until("the peer to be back", LONG, || Ok(bed.tunnel(1) == with)).unwrap();
    bed.assert_all_ping();
    drop(daemon);
}

#[test]
fn a_lease_directory_that_vanishes_while_the_daemon_runs_takes_no_peer_with_it() {
    let mut bed = running(3, 1);
    let before = bed.tunnel(1);
    let (here, away) = (bed.lab.shared_file("leases"), bed.lab.shared_file("away"));
    fs::rename(&here, &away).unwrap();
    stays(WATCHED, || assert_same("the tunnel", &before, &bed.tunnel(1)));
    if here.is_dir() {
        fs::remove_dir_all(&here).unwrap();
    }
    fs::rename(&away, &here).unwrap();

    // The daemons have to see what comes next, not only what was.
    bed.daemons.remove(2).stop(LONG).unwrap();
    fs::remove_file(lease_of(&bed, 3)).unwrap();
    let gone = bed.node(3).address().to_string();
    wait_until("the peer to be gone", LONG, || {
        Ok(!bed.tunnel(1).has("fdb", &gone))
    })
    .unwrap();
    let daemon = bed.node(3).start_flanneld(&[]).unwrap();
    wait_until("the peer to be back", LONG, || Ok(bed.tunnel(1) == before)).unwrap();
    bed.assert_all_ping();
    drop(daemon);
}

/// The lease file of a node, named for its subnet as the keys in etcd are.
pub(crate) fn lease_of(bed: &Bed, number: u8) -> PathBuf {
    let (subnet, length) = bed.node(number).subnet().unwrap();
    bed.lab.shared_file(&format!("leases/subnets/{subnet}-{length}"))
}
