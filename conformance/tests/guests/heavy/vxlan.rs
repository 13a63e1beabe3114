use crate::heavy::{configure, end_with_pods, guests, start_with_pods};

#[test]
fn pods_of_two_nodes_reach_each_other_by_vxlan() {
    let mut lab = guests();
    let prefix = configure(
        &lab,
        "vxlan",
        r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#,
    );
    let pods = start_with_pods(&mut lab, &prefix).map(|addresses| addresses[0]);
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
    end_with_pods(&mut lab);
}
