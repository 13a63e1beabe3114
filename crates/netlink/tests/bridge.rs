//! Ports of bridges, VLANs, routes with every attribute, and the detection of duplicate addresses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::time::Duration;

use common::*;
use net_types::registry::RTPROT_BOOT;
use netlink::{BridgeVlans, PortVlans, RealKernel};
use netstate::{
    BridgePort, ErrorClass, Kernel, LinkChange, LinkScope, Nexthop, Op, Route, RouteKey, RouteKind, Scope,
};

#[test]
fn a_port_is_isolated_and_freed_again() {
    in_netns(|| {
        run_all(
            "ip link add br0 type bridge
             ip link add va type veth peer name vb",
        );
        let mut kernel = RealKernel::open().unwrap();
        for (hairpin, isolated) in [(false, true), (true, true), (true, false), (false, false)] {
            let port = BridgePort {
                bridge: name("br0"),
                hairpin,
                isolated,
            };
            all_ok(kernel.apply(&[Op::SetLink(name("va"), LinkChange::Port(port.clone()))]));
            let link = observe(&mut kernel, "va").links.remove(&name("va")).unwrap();
            assert_eq!(link.port, Some(port));
            let expected = if isolated { "isolated on" } else { "isolated off" };
            assert!(run("bridge -d link show dev va").contains(expected));
        }
    });
}

#[test]
fn every_attribute_of_a_route_is_set_and_read_in_any_table() {
    in_netns(|| {
        run_all(
            "ip link add va type veth peer name vb
             ip link set va up
             ip link set vb up
             ip addr add 10.1.0.1/24 dev va
             ip addr add fd00::1/64 dev va nodad",
        );
        let mut kernel = RealKernel::open().unwrap();
        let route = |gateway: Option<&str>, scope| Route {
            kind: RouteKind::Unicast(Nexthop {
                link: name("va"),
                gateway: gateway.map(|ip| ip.parse().unwrap()),
                onlink: false,
            }),
            protocol: RTPROT_BOOT,
            source: None,
            mtu_bytes: Some(1400),
            advmss_bytes: Some(1300),
            scope,
        };
        let key = |table, dst: &str, metric| RouteKey {
            table,
            dst: dst.parse().unwrap(),
            metric,
        };
        let routes = [
            (key(254, "10.2.0.0/16", 7), route(Some("10.1.0.2"), None)),
            (key(254, "10.3.0.0/16", 0), route(None, Some(0))),
            (key(254, "10.4.0.0/16", 0), route(None, None)),
            (key(100, "10.5.0.0/16", 0), route(Some("10.1.0.2"), None)),
            (key(70_000, "fd01::/64", 1024), route(Some("fd00::2"), None)),
        ];
        let adds: Vec<_> = routes
            .iter()
            .map(|(key, route)| Op::AddRoute(key.clone(), route.clone()))
            .collect();
        all_ok(kernel.apply(&adds));
        let of_tables = |kernel: &mut RealKernel, routes, other_tables: &[u32]| {
            let content = LinkScope {
                routes,
                other_tables: other_tables.iter().copied().collect(),
                ..LinkScope::default()
            };
            let scope = Scope {
                links: [(name("va"), content)].into(),
                ..Scope::default()
            };
            kernel.observe(&scope).unwrap().routes
        };
        assert_eq!(
            of_tables(&mut kernel, true, &[100, 70_000]),
            routes.clone().into()
        );
        assert_eq!(of_tables(&mut kernel, false, &[100]), [routes[3].clone()].into());
        assert_eq!(of_tables(&mut kernel, false, &[99]), [].into());
        let shown = run("ip route show 10.3.0.0/16");
        assert!(
            shown.contains("mtu 1400 advmss 1300") && !shown.contains("scope link"),
            "{shown}"
        );
        let dels: Vec<_> = routes
            .iter()
            .map(|(key, route)| Op::DelRoute(key.clone(), route.clone()))
            .collect();
        all_ok(kernel.apply(&dels));
        assert_eq!(of_tables(&mut kernel, true, &[100, 70_000]), [].into());
    });
}

#[test]
fn the_detection_of_duplicates_is_waited_for_and_its_finding_told() {
    in_netns(|| {
        run_all(
            "ip link add va type veth peer name vb
             ip link set va up
             ip link set vb up
             ip addr add fd00::1/64 dev va",
        );
        let mut kernel = RealKernel::open().unwrap();
        let ips = ["fd00::1".parse().unwrap()];
        let unsettled = kernel
            .wait_settled(&name("va"), &ips, Duration::ZERO)
            .unwrap_err();
        assert_eq!(unsettled.class, ErrorClass::Busy);
        kernel
            .wait_settled(&name("va"), &ips, Duration::from_secs(20))
            .unwrap();
        // Only this address was waited for: the link-local one may take longer.
        assert_eq!(run("ip -6 addr show dev va to fd00::1 tentative"), "");
        // The other end of the cable asks for the same address.
        run("ip addr add fd00::1/64 dev vb");
        let found = kernel
            .wait_settled(&name("vb"), &ips, Duration::from_secs(20))
            .unwrap_err();
        assert_eq!(found.class, ErrorClass::Exists);
        assert!(
            found.message.contains("address fd00::1") && found.message.contains("\"vb\""),
            "{found}"
        );
    });
}

/// Whether the kernel's bridges know VLANs, as iproute2 sees it.
fn kernel_knows_vlans() -> bool {
    run("ip link add probe type bridge");
    let shown = run("ip -d -j link show dev probe");
    run("ip link del probe");
    shown.contains("vlan_default_pvid")
}

#[test]
fn vlans_are_set_where_the_kernel_knows_them_and_refused_elsewhere() {
    in_netns(|| {
        let known = kernel_knows_vlans();
        run_all(
            "ip link add br0 type bridge
             ip link add va type veth peer name vb
             ip link set va master br0",
        );
        let mut kernel = RealKernel::open().unwrap();
        let vlans = kernel.bridge_vlans(&name("br0")).unwrap();
        let trunk = PortVlans::Trunk(vec![5..=5, 10..=12]);
        if !known {
            assert_eq!(vlans, None);
            let refusals = [
                kernel.set_vlan_filtering(&name("br0")),
                kernel.add_port_vlans(&name("va"), &PortVlans::Access(100)),
                kernel.add_port_vlans(&name("va"), &trunk),
            ];
            for refusal in refusals {
                assert_eq!(refusal.unwrap_err().class, ErrorClass::Unsupported);
            }
            return;
        }
        assert_eq!(
            vlans,
            Some(BridgeVlans {
                filtering: false,
                default_vlan: 1
            })
        );
        kernel.set_vlan_filtering(&name("br0")).unwrap();
        assert!(kernel.bridge_vlans(&name("br0")).unwrap().unwrap().filtering);
        for _ in 0..2 {
            kernel.del_port_vlan(&name("va"), 1).unwrap();
            kernel
                .add_port_vlans(&name("va"), &PortVlans::Access(100))
                .unwrap();
            kernel.add_port_vlans(&name("va"), &trunk).unwrap();
        }
        let shown: String = run("bridge vlan show dev va").split_whitespace().collect();
        assert!(shown.ends_with("va5101112100PVIDEgressUntagged"), "{shown}");
    });
}

#[test]
fn a_link_that_is_absent_or_no_bridge_has_no_vlans() {
    in_netns(|| {
        let mut kernel = RealKernel::open().unwrap();
        assert_eq!(
            kernel.bridge_vlans(&name("br0")).unwrap_err().class,
            ErrorClass::NoDevice
        );
        assert_eq!(kernel.bridge_vlans(&name("lo")).unwrap(), None);
        let refusal = kernel
            .add_port_vlans(&name("lo"), &PortVlans::Access(2))
            .unwrap_err();
        assert_eq!(refusal.class, ErrorClass::Unsupported);
    });
}
