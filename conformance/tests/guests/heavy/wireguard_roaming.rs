//! Where a peer of WireGuard is: the kernel hears it, and the lease tells it.

use std::net::IpAddr;

use conformance::guest::{Capture, Guest, GuestLab};

use crate::heavy::{LIMIT, reaches, restart};

/// WireGuard's port, and the one that the second node is heard from for a while.
const PORT: u16 = 51820;
const ROAMED: u16 = 41000;

/// The second node's packets to the first one leave from another port, as behind a NAT; answers to that port reach it.
const ROAM: &str = "nft 'table ip roam {
    chain leave { type filter hook output priority 100; ip daddr 192.168.88.1 udp sport 51820 udp sport set 41000; }
    chain enter { type filter hook prerouting priority -300; ip saddr 192.168.88.1 udp dport 41000 udp dport set 51820; }
}'";

/// The kernel follows a peer that is heard from elsewhere, and the daemon leaves it there, also where it starts anew or has
/// the device to mend; where the lease tells another address, that counts.
pub(super) fn endpoints_follow(lab: &mut GuestLab, flags: &str, [first, second]: [IpAddr; 2], case: &str) {
    lab.guest(2).unwrap().sh(ROAM).unwrap();
    reaches(lab.guest(2).unwrap(), first, 56);
    stays_roamed(lab, second);
    restart(lab.guest(1).unwrap(), flags);
    stays_roamed(lab, second);
    let guest = lab.guest(1).unwrap();
    guest.sh("ip link set flannel-wg mtu 1400").unwrap();
    guest
        .wait_for("grep -x 1420 /sys/class/net/flannel-wg/mtu", LIMIT)
        .unwrap();
    stays_roamed(lab, second);
    the_lease_counts(lab, flags, second, case);
}

fn stays_roamed(lab: &mut GuestLab, second: IpAddr) {
    let Capture { frames } = pinged(lab, second);
    let status = lab.guest(1).unwrap().sh("/opt/cni/bin/flanneld status").unwrap();
    assert_eq!(
        sent(&frames, "192.168.88.2", PORT),
        0,
        "sent as the lease says\n{status}"
    );
    assert!(sent(&frames, "192.168.88.2", ROAMED) >= 2, "{status}");
    assert!(status.contains(" 192.168.88.2:41000 "), "{status}");
}

/// The second node's daemon, which would put its lease back, does not run meanwhile.
fn the_lease_counts(lab: &mut GuestLab, flags: &str, second: IpAddr, case: &str) {
    let guest = lab.guest(2).unwrap();
    guest.stop_flanneld().unwrap();
    guest
        .sh("nft delete table ip roam; ip addr add 192.168.88.22/24 dev eth0")
        .unwrap();
    let name = lease_name(guest);
    let lease = lab
        .lab()
        .value_in_etcd(&format!("{case}/subnets/{name}"))
        .unwrap()
        .unwrap_or_else(|| panic!("no lease {name}"));
    let moved = lease.replace(r#""PublicIP":"192.168.88.2""#, r#""PublicIP":"192.168.88.22""#);
    assert_ne!(moved, lease);
    let put = |lab: &GuestLab, lease: &str| {
        lab.lab()
            .put_in_etcd(&format!("{case}/subnets/{name}"), lease, None)
            .unwrap();
    };
    put(lab, &moved);
    reaches(lab.guest(1).unwrap(), second, 56);
    let Capture { frames } = pinged(lab, second);
    assert!(
        sent(&frames, "192.168.88.22", PORT) >= 2,
        "not sent as the lease says"
    );
    put(lab, &lease);
    let guest = lab.guest(2).unwrap();
    guest.start_flanneld(flags).unwrap();
    reaches(lab.guest(1).unwrap(), second, 56);
    lab.guest(2)
        .unwrap()
        .sh("ip addr del 192.168.88.22/24 dev eth0")
        .unwrap();
}

/// The lease of a node of both families, as etcd names it.
fn lease_name(guest: &mut Guest) -> String {
    let name = guest
        .sh(". /run/flannel/subnet.env
             echo $FLANNEL_SUBNET'&'$FLANNEL_IPV6_SUBNET | sed 's|[.]1/24|.0-24|; s|::1/64|::-64|'")
        .unwrap();
    name.trim().to_owned()
}

/// What is on the wire while the first node's pod asks the second node's for two answers.
fn pinged(lab: &mut GuestLab, second: IpAddr) -> Capture {
    lab.wire().capture();
    assert_eq!(lab.guest(1).unwrap().ping("pod", second, 2).unwrap(), 2);
    lab.wire().captured()
}

/// How many of the frames are of UDP over IPv4, from WireGuard's port to a port at an address.
fn sent(frames: &[Vec<u8>], address: &str, port: u16) -> usize {
    const ETHERNET: usize = 14;
    let IpAddr::V4(address) = address.parse().unwrap() else {
        panic!("IPv4 alone")
    };
    let ports = [PORT.to_be_bytes(), port.to_be_bytes()].concat();
    let is_sent = |frame: &&Vec<u8>| {
        frame.get(ETHERNET + 16..ETHERNET + 20) == Some(&address.octets())
            && frame.get(ETHERNET + 20..ETHERNET + 24) == Some(&ports)
    };
    frames.iter().filter(is_sent).count()
}
