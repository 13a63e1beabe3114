use conformance::guest::POD_CONF;

use crate::heavy::{clean, configure, guests};

#[test]
fn pods_of_two_nodes_reach_each_other_by_vxlan() {
    let mut lab = guests();
    let prefix = configure(
        &lab,
        "vxlan",
        r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#,
    );
    let mut pods = Vec::new();
    for number in 1..=2 {
        let guest = lab.guest(number).unwrap();
        clean(guest);
        guest.start_flanneld(&prefix).unwrap();
        pods.push(guest.add_pod("pod", POD_CONF).unwrap()[0]);
    }
    for (number, target) in [(1, pods[1]), (2, pods[0])] {
        let guest = lab.guest(number).unwrap();
        assert!(
            guest.ping("pod", target, 3).unwrap() >= 2,
            "{}",
            guest.flanneld_log().unwrap()
        );
    }
    // Upstream's daemon refuses to start where br_netfilter is not loaded.
    let guest = lab.guest(1).unwrap();
    guest.sh("! test -e /proc/sys/net/bridge").unwrap();
    let check = guest.sh("/opt/cni/bin/flanneld check --probes=0; true").unwrap();
    assert!(check.contains("[kernel.br-netfilter]"), "{check}");
    for number in 1..=2 {
        let guest = lab.guest(number).unwrap();
        guest.delete_pod("pod", POD_CONF).unwrap();
        guest.stop_flanneld().unwrap();
        clean(guest);
    }
}
