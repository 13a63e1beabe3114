use conformance::lab::wait_until;

use crate::support::{Bed, LONG, run_all, running};

#[test]
fn an_underlay_that_is_renamed_or_becomes_a_port_of_a_bridge_is_followed() {
    let bed = running(3, 1);
    let device = index_of_device(&bed);
    // There and back: notices that come together are sorted by name.
    for (before, now) in [("eth0", "lan0"), ("lan0", "eth0")] {
        let down = format!("ip link set {before} down");
        let name = format!("ip link set {before} name {now}");
        let up = format!("ip link set {now} up");
        let route = format!("ip route replace default via 192.168.77.1 dev {now}");
        move_underlay(&bed, &[&down, &name, &up, &route], now);
        assert_eq!(index_of_device(&bed), device, "the device was made anew");
    }
    let bridged = [
        "ip link add br0 type bridge stp_state 0 forward_delay 0",
        "ip address flush dev eth0",
        "ip link set eth0 master br0",
        "ip link set br0 up",
        "ip address add 192.168.77.11/24 dev br0",
        "ip route replace default via 192.168.77.1 dev br0",
    ];
    move_underlay(&bed, &bridged, "br0");
    let log = bed.node(1).log("flanneld").unwrap();
    assert_eq!(log.matches("following it").count(), 3, "{log}");
}

/// Runs what moves the first node's underlay to another link, until the tunnel lies on that and all pods reach each other.
fn move_underlay(bed: &Bed, commands: &[&str], link: &str) {
    run_all(bed.node(1), commands);
    let lies_on = format!(" dev {link} ");
    wait_until("the tunnel to lie on the new link", LONG, || {
        let device = bed.node(1).ip(&["-d", "link", "show", "flannel.1"]);
        Ok(device.is_ok_and(|device| device.contains(&lies_on)))
    })
    .unwrap();
    bed.assert_all_ping();
}

fn index_of_device(bed: &Bed) -> String {
    let shown = bed.node(1).ip(&["link", "show", "flannel.1"]).unwrap();
    shown.split(':').next().unwrap().to_owned()
}
