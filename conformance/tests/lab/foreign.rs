use conformance::lab::faults::Fault;
use conformance::lab::observe::Dump;
use conformance::lab::{Node, TUNNEL, wait_until};

use crate::support::{LONG, assert_same, bare, dump, run_all, tunnel};

/// What others have on a node: links, addresses, routes (inside the pods' network too), neighbours, forwarding entries
/// of another VXLAN, and rules.
const STRANGERS: &[&str] = &[
    "ip link add foreign0 type veth peer name foreign1",
    "ip link set foreign0 up",
    "ip link set foreign1 up",
    "ip address add 10.99.0.1/24 dev foreign0",
    "ip route add 10.200.0.0/16 via 10.99.0.2 dev foreign0",
    "ip route add 10.244.222.0/24 dev foreign0",
    "ip route add blackhole 10.244.223.0/24",
    "ip route add 172.30.0.0/16 via 192.168.77.1 dev eth0 proto static metric 50",
    "ip route add 10.244.9.0/24 via 192.168.77.1 dev eth0 table 100",
    "ip rule add from 10.98.0.0/16 table 100",
    "ip address add 10.98.0.1/32 dev lo",
    "ip neighbour add 192.168.77.250 lladdr 02:00:00:00:00:50 dev eth0 nud permanent",
    "ip neighbour add 10.99.0.9 lladdr 02:00:00:00:00:99 dev foreign0 nud permanent",
    "ip link add vxlan99 type vxlan id 99 dstport 4790 dev eth0 local 192.168.77.11 nolearning",
    "ip link set vxlan99 up",
    "bridge fdb add 02:00:00:00:00:98 dev vxlan99 dst 192.168.77.240 self permanent",
    "nft add table inet foreign",
    "nft add chain inet foreign forward { type filter hook forward priority 5 ; policy accept ; }",
    "nft add rule inet foreign forward ip saddr 10.250.0.0/16 drop",
];

/// Everything that is neither the tunnel's nor the pods'.
fn foreign(node: &Node) -> Dump {
    dump(node).without_devices(|device| device == TUNNEL || device == "cni0" || device.starts_with("veth"))
}

/// Rules of its own would be in what the node's programs print.
const NO_RULES: &[&str] = &["--iptables-forward-rules=false"];

#[test]
fn what_belongs_to_others_is_never_touched() {
    let lab = bare(3);
    let (node, peer) = (&lab.nodes()[0], &lab.nodes()[1]);
    run_all(node, STRANGERS);
    let before = foreign(node);

    let mut daemon = node.start_flanneld(NO_RULES).unwrap();
    let _peer_daemon = peer.start_flanneld(NO_RULES).unwrap();
    let third = lab.nodes()[2].start_flanneld(NO_RULES).unwrap();
    wait_until("two peers", LONG, || Ok(tunnel(node).count("fdb") == 2)).unwrap();
    assert_same("others' state after the start", &before, &foreign(node));

    let pod = node.add_pod("pod").unwrap();
    assert_same("others' state after ADD", &before, &foreign(node));

    for fault in [Fault::RouteDeleted, Fault::FdbAltered, Fault::DeviceDeleted] {
        let whole = tunnel(node);
        fault.inject(node, peer).unwrap();
        wait_until(fault.name(), LONG, || Ok(tunnel(node) == whole)).unwrap();
        assert_same(
            &format!("others' state after {}", fault.name()),
            &before,
            &foreign(node),
        );
    }

    drop(third);
    let (subnet, length) = lab.nodes()[2].subnet().unwrap();
    std::fs::remove_file(lab.shared_file(&format!("leases/subnets/{subnet}-{length}"))).unwrap();
    wait_until("one peer", LONG, || Ok(tunnel(node).count("fdb") == 1)).unwrap();
    assert_same("others' state after a peer left", &before, &foreign(node));

    daemon.stop(LONG).unwrap();
    let restarted = node.start_flanneld(NO_RULES).unwrap();
    assert_same("others' state after a restart", &before, &foreign(node));

    node.del_pod(&pod).unwrap();
    assert_same("others' state after DEL", &before, &foreign(node));
    drop(restarted);
}

#[test]
fn what_others_keep_on_our_own_device_stays_too() {
    let lab = bare(2);
    let node = &lab.nodes()[0];
    let mut daemon = node.start_flanneld(NO_RULES).unwrap();
    let _peer_daemon = lab.nodes()[1].start_flanneld(NO_RULES).unwrap();
    wait_until("the peer", LONG, || Ok(tunnel(node).count("fdb") == 1)).unwrap();
    run_all(
        node,
        &[
            "ip address add 192.0.2.7/32 dev flannel.1",
            "ip route add 10.244.77.0/24 dev flannel.1 table 100",
            "nft add table ip foreign",
        ],
    );
    let before = dump(node);
    daemon.stop(LONG).unwrap();
    let restarted = node.start_flanneld(NO_RULES).unwrap();
    Fault::RouteDeleted.inject(node, &lab.nodes()[1]).unwrap();
    wait_until("the route", LONG, || Ok(dump(node) == before)).unwrap();
    assert_same("the node", &before, &dump(node));
    drop(restarted);
}

#[test]
fn a_strangers_tunnel_with_our_number_is_named_and_left_alone() {
    let lab = bare(1);
    let node = &lab.nodes()[0];
    run_all(
        node,
        &["ip link add stranger type vxlan id 1 dstport 8472 dev eth0 local 192.168.77.11"],
    );
    let before = dump(node);
    let leases = format!("--lease-dir={}", conformance::lab::LEASE_DIR);
    let attempt = node
        .try_flanneld(
            &[&leases, "--iptables-forward-rules=false"],
            std::time::Duration::from_secs(3),
        )
        .unwrap();
    assert!(
        attempt.stderr.contains("stranger"),
        "the error does not name the link: {}",
        attempt.stderr
    );
    assert_same("the node", &before, &dump(node));
}
