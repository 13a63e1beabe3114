use conformance::lab::wait_until;

use crate::LONG;
use crate::machine::Machine;

const SUBNET_FILE: &str = "/run/flannel/subnet.env";

#[test]
fn the_unit_runs_under_systemd_without_root_and_outlives_kills_and_stops() {
    let machine = Machine::boot();
    machine.sh(
        "ip link set lo up
         ip link add eth0 type veth peer name other
         ip address add 192.168.77.11/24 dev eth0
         ip link set eth0 up
         ip link set other up
         ip route add default via 192.168.77.1
         sysctl -qw net.ipv4.ip_forward=1
         /srv/scripts/install --bin-dir /mnt
         install -d -o flannel -g flannel /var/lib/flannel /var/lib/flannel/leases
         echo '{\"Network\":\"10.244.0.0/16\",\"EnableNFTables\":true,\"Backend\":{\"Type\":\"vxlan\"}}' > /var/lib/flannel/leases/config
         printf 'FLANNELD_LEASE_DIR=/var/lib/flannel/leases\nFLANNELD_IP_MASQ=true\n' > /etc/default/flanneld",
    );

    // Type=notify: this returns once the daemon says that it is ready.
    machine.sh("systemctl enable --now flanneld");
    let device = machine.sh("cat /sys/class/net/flannel.1/address");
    let subnet = machine.sh(&format!("cat {SUBNET_FILE}"));
    assert!(subnet.contains("FLANNEL_SUBNET=10.244."), "{subnet}");
    let status = machine.sh("cat /proc/$(systemctl show -p MainPID --value flanneld)/status");
    let field = |name: &str| {
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix(name));
        line.map(|rest| rest.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    let user = machine.sh("id -u flannel");
    let user = user.trim();
    assert_ne!(user, "0");
    assert_eq!(field("Uid:"), Some([user; 4].join(" ")));
    // CAP_NET_ADMIN (12) alone.
    for set in ["CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set).as_deref(), Some("0000000000001000"), "{set}");
    }
    assert_eq!(field("NoNewPrivs:").as_deref(), Some("1"));
    machine.sh("flanneld check");

    machine.sh("kill -9 $(systemctl show -p MainPID --value flanneld)");
    wait_until("the daemon to be started again", LONG, || {
        Ok(machine.sh("systemctl show -p NRestarts -p ActiveState --value flanneld | sort") == "1\nactive\n")
    })
    .unwrap();
    machine.sh("systemctl reload flanneld");

    machine.sh("systemctl stop flanneld");
    assert_eq!(machine.sh(&format!("cat {SUBNET_FILE}")), subnet);
    assert_eq!(machine.sh("cat /sys/class/net/flannel.1/address"), device);
    machine.sh("systemctl start flanneld && flanneld check");
    assert_eq!(machine.sh(&format!("cat {SUBNET_FILE}")), subnet);
    assert_eq!(machine.sh("cat /sys/class/net/flannel.1/address"), device);

    machine.sh("/srv/scripts/install --uninstall");
    let left = machine.sh(&format!(
        "ls /etc/systemd/system/flanneld.service /usr/local/bin/flanneld /sys/class/net/flannel.1 {SUBNET_FILE} 2>/dev/null || true
         nft list tables
         systemctl is-active flanneld || true"
    ));
    assert_eq!(left, "inactive\n");
}
