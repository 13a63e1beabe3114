//! What a host has: links, addresses with their flags, default routes, and the way to an address.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use common::*;
use netlink::RealKernel;
use netlink::inventory::{AddrScope, DefaultTarget, Hop, HostAddr};
use netstate::{AdminState, ErrorClass};

#[test]
fn links_and_addresses_are_listed_with_their_flags() {
    in_netns(|| {
        underlay();
        run_all(
            "ip addr add 192.168.77.12/24 dev eth0
             ip addr add 169.254.1.1/16 dev eth0 scope link
             ip addr add fd00:77::12/64 dev eth0 nodad preferred_lft 0 valid_lft 1000
             ip addr add fd00:77::13/64 dev eth0 nodad preferred_lft 500 valid_lft 1000
             ip link set eth0 mtu 1400
             ip link add idle type bridge",
        );
        let mut kernel = RealKernel::open().unwrap();

        let inventory = kernel.inventory().unwrap();

        let link = |text: &str| {
            inventory
                .links
                .iter()
                .find(|link| link.name == name(text))
                .unwrap()
        };
        assert_eq!(inventory.links.len(), 4);
        assert!(link("lo").loopback && link("lo").mtu_bytes == 65536);
        assert_eq!(link("idle").admin, AdminState::Down);
        let eth0 = link("eth0");
        assert_eq!(
            (eth0.mtu_bytes, eth0.admin, eth0.loopback),
            (1400, AdminState::Up, false)
        );
        let addr = |text: &str| -> HostAddr {
            let found = eth0.addrs.iter().find(|addr| addr.addr == text.parse().unwrap());
            found
                .unwrap_or_else(|| panic!("{text} of {:?}", eth0.addrs))
                .clone()
        };
        let plain = HostAddr {
            addr: "192.168.77.11/24".parse().unwrap(),
            scope: AddrScope::Global,
            permanent: true,
            temporary: false,
            deprecated: false,
            tentative: false,
        };
        assert_eq!(addr("192.168.77.11/24"), plain);
        assert!(
            addr("192.168.77.12/24").temporary,
            "a secondary address has the same flag"
        );
        assert_eq!(addr("169.254.1.1/16").scope, AddrScope::Link);
        let deprecated = addr("fd00:77::12/64");
        assert!(deprecated.deprecated && !deprecated.permanent);
        let dynamic = addr("fd00:77::13/64");
        assert!(!dynamic.deprecated && !dynamic.permanent && !dynamic.tentative);
        assert!(
            eth0.addrs
                .iter()
                .any(|addr| addr.scope == AddrScope::Link && addr.addr.is_ipv6())
        );
        assert_eq!(link("lo").addrs[0].scope, AddrScope::Host);
    });
}

#[test]
fn a_host_without_anything_has_an_empty_inventory_but_the_loopback() {
    in_netns(|| {
        let inventory = RealKernel::open().unwrap().inventory().unwrap();
        assert_eq!(inventory.links.len(), 1);
        assert!(inventory.default_routes_v4.is_empty() && inventory.default_routes_v6.is_empty());
    });
}

#[test]
fn default_routes_come_in_order_of_preference() {
    in_netns(|| {
        underlay();
        run_all(
            "ip route add default via 192.168.77.2 dev eth0 metric 50
             ip route add default via 192.168.77.1 dev eth0
             ip route add default metric 70 nexthop via 192.168.77.3 dev eth0 nexthop via 192.168.77.4 dev eth0
             ip route add default via 192.168.77.9 dev eth0 table 99
             ip route add unreachable default metric 900
             ip route add 10.0.0.0/8 via 192.168.77.5 dev eth0
             ip nexthop add id 1 via 192.168.77.6 dev eth0
             ip nexthop add id 2 via 192.168.77.7 dev eth0
             ip nexthop add id 10 group 1/2
             ip route add default metric 80 nhid 10
             ip route add default metric 90 nhid 2
             ip -6 route add default via fd00:77::1 dev eth0",
        );
        let inventory = RealKernel::open().unwrap().inventory().unwrap();

        let hop = |gateway: &str| Hop {
            link: name("eth0"),
            gateway: Some(gateway.parse().unwrap()),
            source: None,
        };
        let single = |gateway: &str| DefaultTarget::Single(hop(gateway));
        let several = |gateways: [&str; 2]| DefaultTarget::Several(gateways.map(hop).into());
        let v4: Vec<_> = inventory
            .default_routes_v4
            .into_iter()
            .map(|route| (route.metric, route.target))
            .collect();
        assert_eq!(
            v4,
            [
                (0, single("192.168.77.1")),
                (50, single("192.168.77.2")),
                (70, several(["192.168.77.3", "192.168.77.4"])),
                (80, several(["192.168.77.6", "192.168.77.7"])),
                (90, single("192.168.77.7")),
            ]
        );
        let v6: Vec<_> = inventory
            .default_routes_v6
            .into_iter()
            .map(|route| route.target)
            .collect();
        assert_eq!(v6, [single("fd00:77::1")]);
    });
}

#[test]
fn a_next_hop_object_that_the_kernel_does_not_show_is_several_unknown_hops() {
    in_netns(|| {
        underlay();
        run_all(
            "ip nexthop add id 1 via 192.168.77.6 dev eth0
             ip route add default nhid 1",
        );
        std::fs::write("/proc/sys/net/ipv4/nexthop_compat_mode", "0").unwrap();
        let inventory = RealKernel::open().unwrap().inventory().unwrap();
        let targets: Vec<_> = inventory
            .default_routes_v4
            .into_iter()
            .map(|route| route.target)
            .collect();
        assert_eq!(targets, [DefaultTarget::Several(Vec::new())]);
    });
}

#[test]
fn the_way_to_an_address_is_the_kernels_choice() {
    in_netns(|| {
        underlay();
        run_all(
            "ip route add 10.1.0.0/16 via 192.168.77.1 dev eth0
             ip route add unreachable 10.2.0.0/16
             ip route add blackhole 10.3.0.0/16
             ip route add prohibit 10.4.0.0/16",
        );
        let mut kernel = RealKernel::open().unwrap();
        let mut way = |ip: &str| kernel.route_get(ip.parse().unwrap()).unwrap();

        let direct = Hop {
            link: name("eth0"),
            gateway: None,
            source: Some("192.168.77.11".parse().unwrap()),
        };
        assert_eq!(way("192.168.77.12"), Some(direct.clone()));
        let through = Hop {
            gateway: Some("192.168.77.1".parse().unwrap()),
            ..direct
        };
        assert_eq!(way("10.1.2.3"), Some(through));
        let v6 = way("fd00:77::12").unwrap();
        assert_eq!((v6.link, v6.gateway), (name("eth0"), None));
        for ip in ["10.2.0.1", "10.3.0.1", "10.4.0.1", "10.5.0.1", "fd01::1"] {
            assert_eq!(way(ip), None, "{ip}");
        }
    });
}

#[test]
fn a_question_without_an_answer_is_no_device() {
    in_netns(|| {
        let mut kernel = RealKernel::open().unwrap();
        let error = kernel
            .wait_oper_up(&name("eth0"), std::time::Duration::ZERO)
            .unwrap_err();
        assert_eq!(
            (error.class, error.message.as_str()),
            (ErrorClass::NoDevice, "there is no link \"eth0\"")
        );
    });
}
