//! Which addresses count as on a link, and that the kernel takes next hops there.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use common::*;
use netlink::RealKernel;
use netstate::Kernel;

/// What counts as on a link is exactly what the kernel takes for a next hop without `onlink`.
#[test]
fn an_address_is_on_a_link_where_a_single_route_without_a_gateway_leads_there() {
    in_netns(|| {
        underlay();
        run_all(
            "ip link add eth1 type veth peer name far1
             ip link set eth1 up
             ip link set far1 up
             ip addr add 192.168.78.11/24 dev eth1
             ip route add default via 192.168.77.1
             ip -6 route add default via fe80::1 dev eth0
             ip route add 192.168.77.30/32 via 192.168.77.1
             ip route add 192.168.77.31/32 dev eth1
             ip route add 192.168.77.32/32 nexthop dev eth0 nexthop dev eth1
             ip route add 192.168.77.33/32 dev eth0 scope global
             ip route add blackhole 192.168.77.34/32
             ip route add unreachable 192.168.77.35/32
             ip route add 192.168.77.36/32 via inet6 fe80::1 dev eth0
             ip route add 192.168.79.1/32 dev eth0 table 100
             ip rule add to 192.168.79.1 table 100
             ip -6 route add fd00:77::30/128 via fd00:77::1
             ip -6 route add blackhole fd00:77::34/128",
        );
        let mut kernel = RealKernel::open().unwrap();
        let expected = [
            ("192.168.77.12", Some("eth0")),
            ("192.168.78.12", Some("eth1")),
            ("192.168.77.31", Some("eth1")),
            ("192.168.79.1", Some("eth0")),
            ("fd00:77::12", Some("eth0")),
            // Behind a router, also by a more specific route, and by one of IPv6.
            ("192.0.2.1", None),
            ("192.168.77.30", None),
            ("192.168.77.36", None),
            ("fd00:77::30", None),
            ("2001:db8::1", None),
            // By several links, or by a route whose scope allows no next hop.
            ("192.168.77.32", None),
            ("192.168.77.33", None),
            // Nowhere, and this host itself.
            ("192.168.77.34", None),
            ("192.168.77.35", None),
            ("fd00:77::34", None),
            ("192.168.77.11", None),
            ("fd00:77::11", None),
        ];
        let ip = |text: &str| -> IpAddr { text.parse().unwrap() };
        let asked: BTreeSet<IpAddr> = expected.iter().map(|(text, _)| ip(text)).collect();

        let found = kernel.on_link(&asked).unwrap();

        let on_link = expected
            .iter()
            .filter_map(|(text, link)| Some((ip(text), name((*link)?))));
        assert_eq!(found, on_link.collect::<BTreeMap<_, _>>());
        for (number, (gateway, link)) in found.iter().enumerate() {
            let dst = if gateway.is_ipv4() {
                format!("10.244.{number}.0/24")
            } else {
                format!("fd00:10:244:{number}::/64")
            };
            let metric = if gateway.is_ipv4() { "" } else { " metric 1024" };
            let route = format!("add route {dst} via {gateway} dev {link} proto 102{metric}");
            assert_eq!(kernel.apply(&[route.parse().unwrap()]), [Ok(())], "{route}");
        }
    });
}

#[test]
fn thousands_of_addresses_are_looked_up_at_once() {
    in_netns(|| {
        underlay();
        run_all("ip addr add 10.1.0.1/16 dev eth0");
        let asked: BTreeSet<IpAddr> = (0..5000_u32)
            .map(|number| IpAddr::from((0x0a01_0100 + number).to_be_bytes()))
            .collect();
        let mut kernel = RealKernel::open().unwrap();

        let started = std::time::Instant::now();
        let found = kernel.on_link(&asked).unwrap();

        println!("5000 look-ups in {:?}", started.elapsed());
        assert_eq!(found.len(), asked.len());
    });
}
