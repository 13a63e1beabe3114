//! What else a host has, does and lacks: interfaces, udev, IPv6, an uplink that comes late.

use std::fs;
use std::process::Command;

use serde_json::Value;

use super::node::{Node, ip, on_a_node};

const HTTP: &str = "--healthz-port=8081";

/// A machine boots before its uplink is there: an exit would make a loop of restarts, each later than the one before.
#[test]
fn a_node_without_a_default_route_waits_for_one_and_says_so() {
    on_a_node(|node| {
        ip("route del default");
        node.configure();
        node.start(&[HTTP]);
        let told = "waiting for an interface to reach other nodes by";
        node.wait("the word on it", || node.log().contains(told));
        let text = node.print(&["status"]);
        let reason = "ready     no: waiting for an interface: unable to find default route";
        assert!(text.contains(reason), "{text}");
        ip("route add default via 192.168.77.254 dev eth0");
        node.wait_ready();
        assert_eq!(node.log().matches(told).count(), 1, "{}", node.log());
        ip("route del default");
        node.stop();
        node.start(&[HTTP]);
        node.wait("the word on it", || node.log().contains(told));
        node.stop();
    });
}

/// Tunnels leave under the chosen interface's address, and what the node itself sends to pods under the device's.
#[test]
fn of_several_interfaces_the_first_of_the_default_route_is_taken_and_sources_are_set() {
    on_a_node(|node| {
        ip("link add eth1 type veth peer name wire1");
        ip("link set wire1 up");
        ip("link set eth1 up");
        ip("addr add 192.168.78.1/24 dev eth1");
        let hops = "nexthop via 192.168.78.254 dev eth1 nexthop via 192.168.77.254 dev eth0";
        ip(&format!("route replace default {hops}"));
        node.configure();
        node.add_peer(2);
        node.start(&[HTTP]);
        node.wait_ready();
        assert!(
            node.log()
                .contains("the default route spreads over several interfaces")
        );
        assert!(
            ids(node).contains(&"interface.ecmp".to_owned()),
            "{:?}",
            ids(node)
        );

        let status: Value = serde_json::from_str(&node.print(&["status", "--json"])).unwrap();
        assert_eq!(status["status"]["device"]["local"], "192.168.77.1");
        let subnet = status["status"]["lease"]["subnet"].as_str().unwrap();
        let own = subnet.split('/').next().unwrap();
        let route = ip("route get 10.244.0.33");
        assert!(route.contains(&format!("dev flannel.1 src {own} ")), "{route}");
        // Somebody's address before it takes its place, which is named.
        ip("addr add 192.0.2.7/32 dev flannel.1");
        ip(&format!("addr del {own}/32 dev flannel.1"));
        node.wait("the device's own address", || {
            ip("addr show dev flannel.1").contains(&format!("{own}/32"))
        });
        let route = ip("route get 10.244.0.33");
        assert!(route.contains("src 192.0.2.7 "), "{route}");
        assert!(ids(node).contains(&"device.source".to_owned()), "{:?}", ids(node));
    });
}

/// udev gives a device another address, by `MACAddressPolicy=persistent`, only where the kernel chose it by chance.
#[test]
fn a_device_is_made_with_its_address_so_that_udev_keeps_it() {
    const NET_ADDR_SET: &str = "3";
    on_a_node(|node| {
        node.configure();
        node.start(&[HTTP]);
        node.wait_ready();
        // The files of this namespace are seen in a mount of its own.
        let script = "mount -t sysfs none /sys && cat /sys/class/net/flannel.1/addr_assign_type";
        let output = Command::new("unshare")
            .args(["--mount", "--propagation=private", "sh", "-c", script])
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8_lossy(&output.stdout).trim(),
            NET_ADDR_SET,
            "{output:?}"
        );
    });
}

#[test]
fn a_host_without_ipv6_is_a_good_node_of_an_ipv4_network() {
    on_a_node(|node| {
        for place in ["all", "default"] {
            fs::write(format!("/proc/sys/net/ipv6/conf/{place}/disable_ipv6"), "1").unwrap();
        }
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        node.configure();
        node.add_peer(2);
        node.start(&[HTTP, "--ip-masq"]);
        node.wait_ready();
        let named = ids(node);
        assert!(!named.iter().any(|id| id.starts_with("kernel.ipv6")), "{named:?}");
        assert!(!node.log().contains(" WARN "), "{}", node.log());
    });
}

/// Others apply their lists of kernel parameters whenever they like.
#[test]
fn kernel_parameters_that_others_set_are_named() {
    on_a_node(|node| {
        node.configure();
        node.start(&[HTTP]);
        node.wait_ready();
        let rows = [
            ("ipv4/ip_forward", "0", "kernel.ip-forward"),
            ("ipv4/ip_forward", "1", ""),
            ("ipv4/conf/flannel.1/forwarding", "0", "kernel.link-forward"),
            ("ipv4/ip_forward", "1", "kernel.link-forward"),
            ("ipv4/conf/flannel.1/forwarding", "1", ""),
            ("bridge/bridge-nf-call-iptables", "0", "kernel.bridge-nf-call"),
            ("bridge/bridge-nf-call-iptables", "1", ""),
            ("ipv4/conf/all/rp_filter", "1", "kernel.rp-filter"),
        ];
        for (path, value, expected) in rows {
            fs::write(format!("/proc/sys/net/{path}"), value).unwrap();
            let named = ids(node);
            let of_kernel = named.iter().filter(|id| id.starts_with("kernel."));
            let of_kernel: Vec<_> = of_kernel.map(String::as_str).collect();
            assert_eq!(of_kernel.join(" "), expected, "{path}={value}");
        }
    });
}

/// The names of what `flanneld check` finds.
fn ids(node: &Node) -> Vec<String> {
    let output = node.run(&["check", "--json", "--probes=0"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = document["findings"].as_array().unwrap().iter();
    findings
        .map(|finding| finding["id"].as_str().unwrap().to_owned())
        .collect()
}
