//! The MTU of the interface below a tunnel, changed while pods talk.

use std::net::IpAddr;

use conformance::guest::{Guest, GuestLab};

use crate::heavy::LIMIT;

/// What is written at once; three of them are more than the kernels hold between the pods.
const CHUNK_BYTES: u64 = 64 << 10;

/// Lowers the MTU of the first node's interface and raises it again, while the node's pod sends to that of the second node:
/// devices and subnet file follow, and the connection, which began with larger packets, goes on.
pub(super) fn follows_under_traffic(lab: &mut GuestLab, second: IpAddr, devices: &[&str], overhead: u32) {
    begin(lab, second);
    goes_on(lab);
    for carried in [1400, 1500] {
        let guest = lab.guest(1).unwrap();
        guest.sh(&format!("ip link set eth0 mtu {carried}")).unwrap();
        is_left(guest, devices, carried - overhead);
        goes_on(lab);
    }
    end(lab);
}

fn is_left(guest: &mut Guest, devices: &[&str], left: u32) {
    let of_devices = devices
        .iter()
        .map(|device| format!("grep -x {left} /sys/class/net/{device}/mtu && "));
    let follows = format!(
        "{}grep -x FLANNEL_MTU={left} /run/flannel/subnet.env",
        of_devices.collect::<String>()
    );
    guest.wait_for(&follows, LIMIT).unwrap();
}

/// Begins a transfer from the pod of the first node to that of the second one, which listens while its own input lasts.
fn begin(lab: &mut GuestLab, second: IpAddr) {
    lab.guest(2)
        .unwrap()
        .sh(
            "sleep 300 | ip netns exec pod busybox nc -l -p 5001 >/run/received 2>/run/nc.err &
             true",
        )
        .unwrap();
    let listens = "ip netns exec pod busybox netstat -ltn | grep :5001";
    lab.guest(2).unwrap().wait_for(listens, LIMIT).unwrap();
    lab.guest(1)
        .unwrap()
        .sh(&format!(
            "rm -f /run/enough
             (while test ! -e /run/enough; do dd if=/dev/zero bs={CHUNK_BYTES} count=1 2>/dev/null; usleep 100000; done |
              ip netns exec pod busybox nc {second} 5001) >/run/nc.err 2>&1 </dev/null &
             true"
        ))
        .unwrap();
}

/// Waits until more has arrived than the kernels hold between the pods.
fn goes_on(lab: &mut GuestLab) {
    let guest = lab.guest(2).unwrap();
    let received: u64 = guest
        .sh("stat -c %s /run/received")
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    let enough = received + 3 * CHUNK_BYTES;
    let arrives = format!("test $(stat -c %s /run/received) -ge {enough}");
    guest.wait_for(&arrives, LIMIT).unwrap();
}

fn end(lab: &mut GuestLab) {
    lab.guest(1).unwrap().sh("touch /run/enough").unwrap();
    let is_over = "! ip netns exec pod busybox netstat -tn | grep -q ':5001 .*ESTABLISHED'";
    lab.guest(2).unwrap().wait_for(is_over, LIMIT).unwrap();
    lab.guest(2).unwrap().sh("rm /run/received").unwrap();
}
