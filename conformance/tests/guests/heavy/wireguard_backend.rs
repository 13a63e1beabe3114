//! The daemon's WireGuard backend, end to end.

use std::net::IpAddr;
use std::time::Duration;

use conformance::guest::{Guest, GuestLab};

use crate::heavy::wireguard_roaming::endpoints_follow;
use crate::heavy::{
    LIMIT, PING_INTERVAL_SECS, configure, end_with_pods, guests, loses_nothing, mtu, reaches, requests_lost,
    start_with_pods,
};

const NETWORKS: &str =
    r#""Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","EnableNFTables":true"#;
const WIREGUARD: &str = r#"{"Type":"wireguard","PSK":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}"#;
const VXLAN: &str = r#"{"Type":"vxlan"}"#;
const CASE: &str = "wireguard";

/// Both families by one device, over which family that goes, and how often it is heard of without need.
const SHARED: [(&str, EtherType, bool); 3] = [
    (r#"{"Type":"wireguard","Mode":"auto"}"#, IPV4, false),
    (r#"{"Type":"wireguard","Mode":"ipv4"}"#, IPV4, false),
    (
        r#"{"Type":"wireguard","Mode":"ipv6","PersistentKeepaliveInterval":1}"#,
        IPV6,
        true,
    ),
];

type EtherType = [u8; 2];
const IPV4: EtherType = [0x08, 0x00];
const IPV6: EtherType = [0x86, 0xdd];

#[test]
fn pods_talk_in_ciphertext_through_restarts_and_no_device_outlives_its_backend() {
    let mut lab = guests();
    let flags = backend(&lab, WIREGUARD);
    let [first, second] = start_with_pods(&mut lab, &flags);
    reaches_all(lab.guest(1).unwrap(), &second);
    reaches_all(lab.guest(2).unwrap(), &first);
    only_ciphertext(&mut lab, &second);
    nothing_is_wrong(lab.guest(1).unwrap());
    a_restart_costs_nothing(&mut lab, &flags, &first);
    a_peer_goes_with_its_lease(&mut lab);
    endpoints_follow(&mut lab, &flags, [first[0], second[0]], CASE);
    mtu::follows_under_traffic(&mut lab, second[0], &["flannel-wg", "flannel-wg-v6"], 80);
    what_is_wrong_is_named(lab.guest(1).unwrap(), &flags);

    for (conf, family, is_kept_alive) in SHARED {
        change_backend(&mut lab, conf, "flannel-wg-v6");
        reaches_all(lab.guest(1).unwrap(), &second);
        reaches_all(lab.guest(2).unwrap(), &first);
        goes_over(&mut lab, &second, family);
        if is_kept_alive {
            assert!(frames_in_silence(&mut lab) >= 2);
        }
    }
    for (conf, gone) in [
        (VXLAN, "flannel-wg"),
        (WIREGUARD, "flannel.1"),
        (VXLAN, "flannel-wg"),
    ] {
        let lost = requests_lost(&mut lab, 2, first[0], |lab| change_backend(lab, conf, gone));
        let secs = lost.len() as f64 * PING_INTERVAL_SECS;
        println!("from before {conf}: {secs:.1} s without an answer");
        reaches_all(lab.guest(1).unwrap(), &second);
        reaches_all(lab.guest(2).unwrap(), &first);
    }
    end_with_pods(&mut lab);
}

/// Ends both daemons and starts them with another backend, until the device of the former one is gone.
fn change_backend(lab: &mut GuestLab, conf: &str, gone: &str) {
    for number in 1..=2 {
        lab.guest(number).unwrap().stop_flanneld().unwrap();
    }
    let flags = backend(lab, conf);
    for number in 1..=2 {
        lab.guest(number).unwrap().start_flanneld(&flags).unwrap();
    }
    for number in 1..=2 {
        let is_gone = format!("! ip link show {gone} && ! ip route show dev {gone}");
        lab.guest(number).unwrap().wait_for(&is_gone, LIMIT).unwrap();
    }
}

/// Pods' packets of both families are in outer packets of one.
fn goes_over(lab: &mut GuestLab, second: &[IpAddr], family: EtherType) {
    lab.wire().capture();
    for address in second {
        assert_eq!(lab.guest(1).unwrap().ping("pod", *address, 2).unwrap(), 2);
    }
    let frames = lab.wire().captured().frames;
    for some in [IPV4, IPV6] {
        let count = frames.iter().filter(|frame| is_wireguard(frame, some)).count();
        assert_eq!(count >= 8, some == family, "{count} frames of {some:02x?}");
    }
}

/// How many frames cross the wire while pods say nothing.
fn frames_in_silence(lab: &mut GuestLab) -> usize {
    lab.wire().capture();
    lab.guest(1).unwrap().sh("sleep 4").unwrap();
    let frames = lab.wire().captured().frames;
    frames.iter().filter(|frame| is_wireguard(frame, IPV6)).count()
}

/// Whether a frame is of UDP from WireGuard's port to the same port, over a family.
fn is_wireguard(frame: &[u8], family: EtherType) -> bool {
    const ETHERNET: usize = 14;
    let header = if family == IPV4 { 20 } else { 40 };
    let ports = [51820_u16.to_be_bytes(), 51820_u16.to_be_bytes()].concat();
    let at = ETHERNET + header;
    frame.get(12..ETHERNET) == Some(&family) && frame.get(at..at + 4) == Some(&ports)
}

/// What status and check say of a node whose peer answers.
fn nothing_is_wrong(guest: &mut Guest) {
    let status = guest.sh("/opt/cni/bin/flanneld status").unwrap();
    for part in [
        "device    flannel-wg ok: port 51820 ",
        " programmed 192.168.88.2:51820 ",
        " programmed [fd00:88::2]:51821 ",
    ] {
        assert!(status.contains(part), "{part} is not in\n{status}");
    }
    assert_eq!(status.matches(" ago\n").count(), 2, "{status}");
    let check = guest.sh(CHECK).unwrap();
    assert!(check.contains(" errors, ") && check.contains(" notes"), "{check}");
    for area in [
        "[daemon.",
        "[device.",
        "[wireguard.",
        "[path.",
        "[leftover.",
        "[mtu.",
    ] {
        assert!(!check.contains(area), "{check}");
    }
}

const CHECK: &str = "/opt/cni/bin/flanneld check --probes=1; true";

/// A key that others can read, and a port that somebody took while the daemon was away.
fn what_is_wrong_is_named(guest: &mut Guest, flags: &str) {
    guest.stop_flanneld().unwrap();
    let check = guest
        .sh(&format!(
            "chmod 644 /var/lib/flannel/wgkey
             ip link set flannel-wg down
             ip link add other type vxlan id 9 dstport 51820 dev eth0 && ip link set other up
             {CHECK}
             ip link del other
             chmod 600 /var/lib/flannel/wgkey"
        ))
        .unwrap();
    for finding in [
        "[wireguard.port-taken]",
        "[wireguard.key-readable]",
        "[device.down]",
    ] {
        assert!(check.contains(finding), "{finding} is not in\n{check}");
    }
    guest.start_flanneld(flags).unwrap();
}

/// Writes the configuration of this case with a backend.
fn backend(lab: &GuestLab, backend: &str) -> String {
    configure(lab, CASE, &format!("{{{NETWORKS},\"Backend\":{backend}}}"))
}

/// Waits until the pod reaches all addresses of another one.
fn reaches_all(guest: &mut Guest, addresses: &[IpAddr]) {
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    for address in addresses {
        reaches(guest, *address, 56);
    }
}

/// What pods say to each other is on the wire in no frame, although frames of WireGuard are.
fn only_ciphertext(lab: &mut GuestLab, second: &[IpAddr]) {
    lab.wire().capture();
    for address in second {
        assert!(lab.guest(1).unwrap().ping("pod", *address, 2).unwrap() >= 1);
    }
    let capture = lab.wire().captured();
    for address in second {
        let bytes = match address {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        assert_eq!(capture.count_with(&bytes), 0, "{address} is on the wire");
    }
    for port in [51820_u16, 51821] {
        let both_ports = [port.to_be_bytes(), port.to_be_bytes()].concat();
        assert!(capture.count_with(&both_ports) >= 2, "port {port}");
    }
}

/// The device, its key, though its first file goes, and its sessions stay: of what a pod sends from before the daemon's end
/// until after its new start, nothing is lost.
fn a_restart_costs_nothing(lab: &mut GuestLab, flags: &str, first: &[IpAddr]) {
    let [address, _] = first else {
        panic!("two families")
    };
    let guest = lab.guest(2).unwrap();
    let identity =
        "cat /sys/class/net/flannel-wg/ifindex /sys/class/net/flannel-wg-v6/ifindex /run/flannel/wgkey
                    stat -c %a /run/flannel/wgkey /var/lib/flannel/wgkey";
    let before = guest.sh(identity).unwrap();
    assert!(before.ends_with("600\n600\n"), "modes: {before}");
    loses_nothing(lab, 2, *address, |lab| {
        let guest = lab.guest(2).unwrap();
        guest.stop_flanneld().unwrap();
        // A boot takes it.
        guest.sh("rm /run/flannel/wgkey").unwrap();
        guest.start_flanneld(flags).unwrap();
    });
    let guest = lab.guest(2).unwrap();
    assert_eq!(guest.sh(identity).unwrap(), before);
}

/// The kernel sends to a peer that it has, silent as it may be, and refuses to where there is none.
fn a_peer_goes_with_its_lease(lab: &mut GuestLab) {
    const LEASE: &str = r#"{"PublicIP":"192.168.88.99","PublicIPv6":null,"BackendType":"wireguard","BackendData":{"PublicKey":"AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=","Port":51820}}"#;
    const HAS_NONE: &str = "busybox ping -c 1 -W 1 10.244.99.1 2>&1 | grep 'Required key not available'";
    let put = |lab: &GuestLab, ttl| {
        let name = "wireguard/subnets/10.244.99.0-24";
        lab.lab().put_in_etcd(name, LEASE, ttl).unwrap();
    };
    lab.guest(1).unwrap().wait_for(HAS_NONE, LIMIT).unwrap();
    put(lab, None);
    let has_one = format!("! {HAS_NONE}");
    let guest = lab.guest(1).unwrap();
    guest.wait_for(&has_one, LIMIT).unwrap();
    // The kernel tries again after five seconds.
    let check = guest
        .sh(&format!("busybox ping -c 8 -W 1 10.244.99.1; {CHECK}"))
        .unwrap();
    assert!(check.contains("[wireguard.no-handshake]"), "{check}");
    assert!(
        check.contains("10.244.99.0/24 of 192.168.88.99 has never answered"),
        "{check}"
    );
    // Etcd removes it.
    put(lab, Some(Duration::from_secs(2)));
    lab.guest(1).unwrap().wait_for(HAS_NONE, LIMIT).unwrap();
}
