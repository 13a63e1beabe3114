//! The state that upstream's daemon and plugins leave on a node, made by plain commands.
//!
//! Devices, addresses, entries and routes as flannel v0.28.9 leaves them (flannel pkg/backend/vxlan, pkg/backend/hostgw,
//! pkg/trafficmngr/iptables), and one pod as the reference plugins attach it (containernetworking/plugins 1.9.1).

use std::fmt::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr};

use super::backend::Backend;
use crate::lab::NODE_LINK;

/// The name of the one pod of each node.
pub(super) const POD: &str = "pod";
/// The networks of all pods.
const NETWORK_V4: &str = "10.244.0.0/16";
const NETWORK_V6: &str = "fd00:10:244::/48";

/// A node in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Side<A> {
    /// The address on the underlay.
    pub(super) underlay: A,
    /// The first address of the subnet, and its length.
    pub(super) subnet: A,
    pub(super) prefix_len: u8,
    /// The device of the VXLAN backend.
    pub(super) tunnel: Option<Tunnel>,
}

/// A node's VXLAN device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tunnel {
    pub(super) mac: String,
    pub(super) mtu: u64,
}

/// A node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PlainNode {
    pub(super) v4: Side<Ipv4Addr>,
    pub(super) v6: Option<Side<Ipv6Addr>>,
    pub(super) pod_mtu: u64,
}

/// What differs between the families.
struct Words {
    tunnel: &'static str,
    iptables: &'static str,
    network: &'static str,
    multicast: &'static str,
    /// Duplicate addresses need not be looked for.
    nodad: &'static str,
    host_bits: u8,
    forwarding: &'static str,
}

const V4: Words = Words {
    tunnel: "flannel.1",
    iptables: "iptables",
    network: NETWORK_V4,
    multicast: "224.0.0.0/4",
    nodad: "",
    host_bits: 32,
    forwarding: "ipv4/ip_forward",
};
const V6: Words = Words {
    tunnel: "flannel-v6.1",
    iptables: "ip6tables",
    network: NETWORK_V6,
    multicast: "ff00::/8",
    nodad: "nodad",
    host_bits: 128,
    forwarding: "ipv6/conf/all/forwarding",
};

/// The script that makes a node's state, its peer being another; it ends at the first failure.
pub(super) fn script(own: &PlainNode, peer: &PlainNode, backend: Backend) -> String {
    let mut text = "set -e\n".to_owned();
    family(&mut text, &V4, &own.v4, &peer.v4, backend);
    if let (Some(own), Some(peer)) = (&own.v6, &peer.v6) {
        family(&mut text, &V6, own, peer, backend);
    }
    pod(&mut text, own);
    text
}

fn family<A: std::fmt::Display>(
    text: &mut String,
    words: &Words,
    own: &Side<A>,
    peer: &Side<A>,
    backend: Backend,
) {
    let Words {
        tunnel,
        nodad,
        host_bits,
        ..
    } = words;
    let (subnet, there) = (&own.subnet, &peer.subnet);
    let mut line = |line: String| writeln!(text, "{line}").ok();
    if let Some(device) = &own.tunnel {
        let (Tunnel { mac, mtu }, local) = (device, &own.underlay);
        line(format!(
            "ip link add {tunnel} address {mac} mtu {mtu} txqueuelen 0 type vxlan id 1 local {local} dev {NODE_LINK} dstport 8472 nolearning udpcsum"
        ));
        line(format!("echo 0 > /proc/sys/net/ipv6/conf/{tunnel}/accept_ra"));
        line(format!(
            "ip address add {subnet}/{host_bits} dev {tunnel} {nodad}"
        ));
        line(format!("ip link set {tunnel} up"));
    }
    let len = peer.prefix_len;
    match &peer.tunnel {
        Some(Tunnel { mac, .. }) if !backend.is_direct() => {
            let remote = &peer.underlay;
            line(format!(
                "ip neighbour add {there} lladdr {mac} dev {tunnel} nud permanent"
            ));
            line(format!(
                "bridge fdb add {mac} dev {tunnel} dst {remote} self permanent"
            ));
            line(format!(
                "ip route add {there}/{len} via {there} dev {tunnel} onlink"
            ));
        }
        Some(_) | None => {
            let gateway = &peer.underlay;
            line(format!(
                "ip route add {there}/{len} via {gateway} dev {NODE_LINK}"
            ));
        }
    }
    rules(text, words, &format!("{subnet}/{}", own.prefix_len));
}

/// The rules of `--ip-masq`, in upstream's order and words.
fn rules(text: &mut String, words: &Words, own: &str) {
    let Words {
        iptables,
        network,
        multicast,
        ..
    } = words;
    let masq = r#"-m comment --comment "flanneld masq""#;
    let forward = r#"-m comment --comment "flanneld forward""#;
    let masquerade = "-j MASQUERADE --random-fully";
    for rule in [
        "-t nat -N FLANNEL-POSTRTG".to_owned(),
        format!("-t nat -A POSTROUTING {masq} -j FLANNEL-POSTRTG"),
        format!("-t nat -A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 {masq} -j RETURN"),
        format!("-t nat -A FLANNEL-POSTRTG -s {own} -d {network} {masq} -j RETURN"),
        format!("-t nat -A FLANNEL-POSTRTG -s {network} -d {own} {masq} -j RETURN"),
        format!("-t nat -A FLANNEL-POSTRTG ! -s {network} -d {own} {masq} -j RETURN"),
        format!("-t nat -A FLANNEL-POSTRTG -s {network} ! -d {multicast} {masq} {masquerade}"),
        format!("-t nat -A FLANNEL-POSTRTG ! -s {network} -d {network} {masq} {masquerade}"),
        "-N FLANNEL-FWD".to_owned(),
        format!("-A FORWARD {forward} -j FLANNEL-FWD"),
        format!("-A FLANNEL-FWD -s {network} {forward} -j ACCEPT"),
        format!("-A FLANNEL-FWD -d {network} {forward} -j ACCEPT"),
    ] {
        // Writing to a string cannot fail.
        writeln!(text, "{iptables} -w {rule}").ok();
    }
}

/// A bridge and one pod in it.
fn pod(text: &mut String, node: &PlainNode) {
    let mtu = node.pod_mtu;
    let mut addresses = String::new();
    let [gateway, own] = [1, 2].map(|host| Ipv4Addr::from_bits(node.v4.subnet.to_bits() + host));
    in_family(&mut addresses, &V4, node.v4.prefix_len, (&gateway, &own));
    if let Some(side) = &node.v6 {
        let [gateway, own] = [1, 2].map(|host| Ipv6Addr::from_bits(side.subnet.to_bits() + host));
        in_family(&mut addresses, &V6, side.prefix_len, (&gateway, &own));
    }
    // Writing to a string cannot fail.
    write!(
        text,
        "ip link add cni0 mtu {mtu} type bridge
ip link set cni0 up
ip netns add {POD}
ip -n {POD} link set lo up
ip link add veth0 mtu {mtu} type veth peer name eth0 mtu {mtu} netns {POD}
ip link set veth0 master cni0 up
bridge link set dev veth0 hairpin on
ip -n {POD} link set eth0 up
{addresses}"
    )
    .ok();
}

fn in_family<A: std::fmt::Display>(text: &mut String, words: &Words, len: u8, (gateway, own): (&A, &A)) {
    let Words {
        nodad,
        network,
        forwarding,
        ..
    } = words;
    let default = if words.host_bits == 32 {
        "0.0.0.0/0"
    } else {
        "::/0"
    };
    // Writing to a string cannot fail.
    write!(
        text,
        "ip address add {gateway}/{len} dev cni0 {nodad}
ip -n {POD} address add {own}/{len} dev eth0 {nodad}
ip -n {POD} route add {default} via {gateway} dev eth0
ip -n {POD} route add {network} via {gateway} dev eth0
echo 1 > /proc/sys/net/{forwarding}
"
    )
    .ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(number: u8, with_tunnel: bool) -> PlainNode {
        let tunnel = |first: u8, mtu| {
            with_tunnel.then(|| Tunnel {
                mac: format!("{first:02x}:00:00:00:00:{number:02x}"),
                mtu,
            })
        };
        PlainNode {
            v4: Side {
                underlay: Ipv4Addr::new(192, 168, 77, 10 + number),
                subnet: Ipv4Addr::new(10, 244, number, 0),
                prefix_len: 24,
                tunnel: tunnel(2, 1450),
            },
            v6: Some(Side {
                underlay: Ipv6Addr::new(0xfd00, 0x77, 0, 0, 0, 0, 0, u16::from(10 + number)),
                subnet: Ipv6Addr::new(0xfd00, 0x10, 0x244, number.into(), 0, 0, 0, 0),
                prefix_len: 64,
                tunnel: tunnel(6, 1430),
            }),
            pod_mtu: 1430,
        }
    }

    fn lines_with(script: &str, words: &[&str]) -> Vec<String> {
        let wanted = script
            .lines()
            .filter(|line| words.iter().any(|word| line.starts_with(word)));
        wanted.map(|line| line.trim().to_owned()).collect()
    }

    #[test]
    fn a_tunnel_s_peer_has_an_entry_a_neighbour_and_a_route_in_each_family() {
        let script = script(&node(1, true), &node(2, true), Backend::Vxlan);
        assert_eq!(
            lines_with(
                &script,
                &["ip link add flannel", "ip neigh", "bridge fdb", "ip route"]
            ),
            [
                "ip link add flannel.1 address 02:00:00:00:00:01 mtu 1450 txqueuelen 0 type vxlan id 1 local 192.168.77.11 dev eth0 dstport 8472 nolearning udpcsum",
                "ip neighbour add 10.244.2.0 lladdr 02:00:00:00:00:02 dev flannel.1 nud permanent",
                "bridge fdb add 02:00:00:00:00:02 dev flannel.1 dst 192.168.77.12 self permanent",
                "ip route add 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink",
                "ip link add flannel-v6.1 address 06:00:00:00:00:01 mtu 1430 txqueuelen 0 type vxlan id 1 local fd00:77::b dev eth0 dstport 8472 nolearning udpcsum",
                "ip neighbour add fd00:10:244:2:: lladdr 06:00:00:00:00:02 dev flannel-v6.1 nud permanent",
                "bridge fdb add 06:00:00:00:00:02 dev flannel-v6.1 dst fd00:77::c self permanent",
                "ip route add fd00:10:244:2::/64 via fd00:10:244:2:: dev flannel-v6.1 onlink",
            ]
        );
    }

    #[test]
    fn a_direct_peer_has_a_plain_route_alone_with_and_without_a_tunnel_s_device() {
        for (backend, with_tunnel) in [(Backend::DirectRouting, true), (Backend::HostGw, false)] {
            let script = script(&node(1, with_tunnel), &node(2, with_tunnel), backend);
            assert_eq!(script.contains("ip link add flannel.1 "), with_tunnel);
            assert_eq!(
                lines_with(&script, &["ip neigh", "bridge fdb", "ip route"]),
                [
                    "ip route add 10.244.2.0/24 via 192.168.77.12 dev eth0",
                    "ip route add fd00:10:244:2::/64 via fd00:77::c dev eth0",
                ],
                "{}",
                backend.name()
            );
        }
    }

    #[test]
    fn a_pod_has_the_second_address_and_the_rules_name_the_own_subnet() {
        let script = script(&node(3, false), &node(2, false), Backend::HostGw);
        for line in [
            "ip address add 10.244.3.1/24 dev cni0",
            "ip -n pod address add 10.244.3.2/24 dev eth0",
            "ip address add fd00:10:244:3::1/64 dev cni0 nodad",
            "ip -n pod address add fd00:10:244:3::2/64 dev eth0 nodad",
            "ip -n pod route add ::/0 via fd00:10:244:3::1 dev eth0",
            r#"iptables -w -t nat -A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.3.0/24 -m comment --comment "flanneld masq" -j RETURN"#,
            r#"ip6tables -w -A FLANNEL-FWD -s fd00:10:244::/48 -m comment --comment "flanneld forward" -j ACCEPT"#,
        ] {
            assert!(
                script.lines().any(|own| own.trim() == line),
                "{line} is not in\n{script}"
            );
        }
    }
}
