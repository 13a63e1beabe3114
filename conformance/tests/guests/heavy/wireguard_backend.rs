//! The daemon's WireGuard backend, end to end.

use std::net::IpAddr;
use std::time::Duration;

use conformance::guest::{Guest, GuestLab};

use crate::heavy::{
    LIMIT, configure, end_with_pods, guests, loses_nothing, reaches, restart, start_with_pods,
};

const NETWORKS: &str =
    r#""Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","EnableNFTables":true"#;
const WIREGUARD: &str = r#"{"Type":"wireguard","PSK":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}"#;
const SHARED: &str = r#"{"Type":"wireguard","Mode":"auto"}"#;
const VXLAN: &str = r#"{"Type":"vxlan"}"#;

#[test]
fn pods_talk_in_ciphertext_through_restarts_and_no_device_outlives_its_backend() {
    let mut lab = guests();
    let flags = backend(&lab, WIREGUARD);
    let [first, second] = start_with_pods(&mut lab, &flags);
    reaches_all(lab.guest(1).unwrap(), &second);
    reaches_all(lab.guest(2).unwrap(), &first);
    only_ciphertext(&mut lab, &second);
    a_restart_costs_nothing(&mut lab, &flags, &first);
    a_peer_goes_with_its_lease(&mut lab);

    // One device for both families, and then none.
    for (conf, gone) in [(SHARED, "flannel-wg-v6"), (VXLAN, "flannel-wg")] {
        for number in 1..=2 {
            lab.guest(number).unwrap().stop_flanneld().unwrap();
        }
        let flags = backend(&lab, conf);
        for number in 1..=2 {
            let guest = lab.guest(number).unwrap();
            guest.start_flanneld(&flags).unwrap();
            let is_gone = format!("! ip link show {gone} && ! ip route show dev {gone}");
            guest.wait_for(&is_gone, LIMIT).unwrap();
        }
        reaches_all(lab.guest(1).unwrap(), &second);
        reaches_all(lab.guest(2).unwrap(), &first);
    }
    end_with_pods(&mut lab);
}

/// Writes the configuration of this case with a backend.
fn backend(lab: &GuestLab, backend: &str) -> String {
    configure(lab, "wireguard", &format!("{{{NETWORKS},\"Backend\":{backend}}}"))
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

/// The device, its key and its sessions stay: of what a pod sends from before the daemon's end until after its new start,
/// nothing is lost.
fn a_restart_costs_nothing(lab: &mut GuestLab, flags: &str, first: &[IpAddr]) {
    let [address, _] = first else {
        panic!("two families")
    };
    let guest = lab.guest(2).unwrap();
    let identity =
        "cat /sys/class/net/flannel-wg/ifindex /sys/class/net/flannel-wg-v6/ifindex /run/flannel/wgkey
                    stat -c %a /run/flannel/wgkey";
    let before = guest.sh(identity).unwrap();
    assert!(before.ends_with("600\n"), "mode: {before}");
    loses_nothing(lab, 2, *address, |lab| restart(lab.guest(2).unwrap(), flags));
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
    lab.guest(1).unwrap().wait_for(&has_one, LIMIT).unwrap();
    // Etcd removes it.
    put(lab, Some(Duration::from_secs(2)));
    lab.guest(1).unwrap().wait_for(HAS_NONE, LIMIT).unwrap();
}
