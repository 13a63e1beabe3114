//! The daemon's ipip backend, end to end.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use conformance::guest::{Capture, Guest, GuestLab};

use crate::heavy::{
    self, LIMIT, configure, end_with_pods, guests, loses_nothing, mtu, reaches, restart, run_test_program,
    start_with_pods,
};

const IPIP: &str = r#"{"Type":"ipip"}"#;
const DIRECT: &str = r#"{"Type":"ipip","DirectRouting":true}"#;
const VXLAN: &str = r#"{"Type":"vxlan"}"#;

/// Nearly as many as a pod may send.
const LARGE_BYTES: u16 = 1400;

/// The route to the other node's pods, by the tunnel and without it.
const BY_TUNNEL: &str = "ip route | grep -E '^10.244.* via 192.168.88.. dev flannel.ipip onlink'";
const PLAIN: &str = "ip route | grep -E '^10.244.* via 192.168.88.. dev eth0 proto 102'";

#[test]
fn devices_are_made_and_changed_over_netlink() {
    let mut lab = guests();
    let said = run_test_program(lab.guest(1).unwrap(), heavy::IPIP, "");
    // The kernel loads the module by itself, as for any program.
    assert!(said.contains("\nipip "), "{said}");
}

#[test]
fn pods_talk_by_ipip_and_without_it_and_no_device_outlives_its_backend() {
    let mut lab = guests();
    let flags = backend(&lab, VXLAN);
    let [first, second] = start_with_pods(&mut lab, &flags).map(|addresses| addresses[0]);
    let reach_each_other = |lab: &mut GuestLab| {
        reaches(lab.guest(1).unwrap(), second, LARGE_BYTES);
        reaches(lab.guest(2).unwrap(), first, LARGE_BYTES);
    };
    reach_each_other(&mut lab);
    change_backend(&mut lab, IPIP, "flannel.1");
    reach_each_other(&mut lab);
    as_upstream_makes_it(lab.guest(1).unwrap());
    assert!(
        tunnelled(&mut lab, second) >= 4,
        "requests and answers are in outer packets"
    );
    what_is_deleted_returns(lab.guest(1).unwrap());
    mtu::follows_under_traffic(&mut lab, second, &["flannel.ipip"], 20);
    reach_each_other(&mut lab);

    let flags = backend(&lab, IPIP);
    loses_nothing(&mut lab, 2, first, |lab| restart(lab.guest(2).unwrap(), &flags));

    // The guests are on one link. Where they are not, the way leads by a gateway.
    loses_nothing(&mut lab, 2, first, |lab| {
        let flags = backend(lab, DIRECT);
        for number in 1..=2 {
            let guest = lab.guest(number).unwrap();
            restart(guest, &flags);
            guest.wait_for(PLAIN, LIMIT).unwrap();
        }
        for number in 1..=2 {
            let guest = lab.guest(number).unwrap();
            let other = format!("192.168.88.{}", 3 - number);
            guest
                .sh(&format!("ip route add {other} via {other} dev eth0 onlink"))
                .unwrap();
            guest.wait_for(BY_TUNNEL, LIMIT).unwrap();
            guest.sh(&format!("ip route del {other}")).unwrap();
            guest.wait_for(PLAIN, LIMIT).unwrap();
        }
    });
    assert_eq!(tunnelled(&mut lab, second), 0, "packets need no tunnel");

    change_backend(&mut lab, VXLAN, "flannel.ipip");
    reach_each_other(&mut lab);
    end_with_pods(&mut lab);
}

/// Writes the configuration of this case with a backend. Without `--ip-masq` the plugin masquerades what pods send, and
/// of a connection that is masqueraded the kernel drops the packet that leaves by another link than those before (linux
/// `nf_nat_core.c`, `nf_nat_oif_changed`).
fn backend(lab: &GuestLab, backend: &str) -> String {
    let conf = format!(r#"{{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{backend}}}"#);
    format!("{} --ip-masq", configure(lab, "ipip", &conf))
}

/// Restarts all daemons with a backend, until the device of the former one is gone.
fn change_backend(lab: &mut GuestLab, conf: &str, gone: &str) {
    let flags = backend(lab, conf);
    for number in 1..=2 {
        let guest = lab.guest(number).unwrap();
        restart(guest, &flags);
        let is_gone = format!("! ip link show {gone} && ! ip route show dev {gone}");
        guest.wait_for(&is_gone, LIMIT).unwrap();
    }
}

/// The device's attributes, and what tells of it (flannel `pkg/backend/ipip/ipip.go`).
fn as_upstream_makes_it(guest: &mut Guest) {
    let shown = guest
        .sh("ip -d link show flannel.ipip; ip addr show flannel.ipip")
        .unwrap();
    for part in [
        "mtu 1480",
        "remote any local 192.168.88.1 ttl inherit nopmtudisc",
        "inet 10.244.",
        ".0/32 scope global flannel.ipip",
    ] {
        assert!(shown.contains(part), "{part} is not in\n{shown}");
    }
    guest.sh(BY_TUNNEL).unwrap();
    guest.sh("grep FLANNEL_MTU=1480 /run/flannel/subnet.env").unwrap();
    let status = guest.sh("/opt/cni/bin/flanneld status").unwrap();
    assert!(
        status.contains("backend   ipip over eth0, MTU of pods 1480"),
        "{status}"
    );
    let check = guest.sh("/opt/cni/bin/flanneld check --probes=1; true").unwrap();
    // The bridge has the MTU of the backend that it was made with.
    assert!(check.contains("[mtu.bridge]"), "{check}");
    assert!(check.contains(" errors, ") && check.contains(" notes"), "{check}");
    for area in ["[daemon.", "[device.", "[path.", "[leftover."] {
        assert!(!check.contains(area), "{check}");
    }
    assert!(
        status.contains("flannel.ipip ok: on eth0 (192.168.88.1), MTU 1480"),
        "{status}"
    );
}

/// How many frames have one packet in another while a pod on the first node pings one on the second.
fn tunnelled(lab: &mut GuestLab, second: IpAddr) -> usize {
    lab.wire().capture();
    assert_eq!(lab.guest(1).unwrap().ping("pod", second, 2).unwrap(), 2);
    let Capture { frames } = lab.wire().captured();
    let IpAddr::V4(second) = second else {
        panic!("IPv4 alone")
    };
    frames.iter().filter(|frame| has_inside(frame, second)).count()
}

/// Whether a frame of IPv4 has a packet of IPv4 inside, from or to an address (RFC 2003 §3).
fn has_inside(frame: &[u8], address: Ipv4Addr) -> bool {
    const ETHERNET: usize = 14;
    const HEADER: usize = 20;
    const IPV4_IN_IPV4: u8 = 4;
    let inner = frame.get(ETHERNET + HEADER..ETHERNET + 2 * HEADER);
    let is_tunnelled = frame.get(ETHERNET + 9) == Some(&IPV4_IN_IPV4);
    is_tunnelled && inner.is_some_and(|inner| inner.windows(4).any(|bytes| bytes == address.octets()))
}

fn what_is_deleted_returns(guest: &mut Guest) {
    for what in [
        "ip link del flannel.ipip",
        "ip link set flannel.ipip type ipip local 192.168.88.77",
        "ip route flush dev flannel.ipip proto boot",
        "ip link set flannel.ipip down",
    ] {
        guest.sh(what).unwrap();
        let is_back =
            format!("{BY_TUNNEL} && ip -d link show up dev flannel.ipip | grep 'local 192.168.88.1 '");
        guest
            .wait_for(&is_back, Duration::from_secs(20))
            .unwrap_or_else(|error| panic!("{what}: {error:#}"));
    }
}
