//! Links as the kernel makes them, compared with what the reference daemon made and with iproute2.
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
use netlink::{Netns, RealKernel};
use netstate::{
    AdminState, BridgePort, ErrorClass, Kernel, Link, LinkChange, LinkKind, LinkScope, NetnsLabel, Op, Scope,
    VethPeer,
};

/// `ip -d link show flannel.1` of the reference daemon on a node (flannel v0.28.9), from its third line on.
const REFERENCE_DETAILS: &str = "vxlan id 1 local 192.168.77.11 dev eth0 srcport 0 0 dstport 8472 nolearning ttl \
    auto ageing 300 udpcsum noudp6zerocsumtx noudp6zerocsumrx addrgenmode eui64 numtxqueues 1 numrxqueues 1 \
    gso_max_size 65536 gso_max_segs 65535 tso_max_size 524280 tso_max_segs 65535 gro_max_size 65536";

fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn vxlan_device_looks_as_the_reference_makes_it() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();

        flannel_device(&mut kernel);

        let shown = run("ip -d link show flannel.1");
        let lines: Vec<&str> = shown.lines().collect();
        let (_, head) = lines[0].split_once(' ').unwrap();
        assert_eq!(
            words(head),
            "flannel.1: <BROADCAST,MULTICAST,UP,LOWER_UP> mtu 1450 qdisc noqueue state UNKNOWN mode DEFAULT group \
             default"
        );
        assert_eq!(
            words(lines[1]),
            "link/ether e6:2c:26:5a:4c:4a brd ff:ff:ff:ff:ff:ff promiscuity 0 allmulti 0 minmtu 68 maxmtu 65535"
        );
        assert_eq!(words(lines[2]), REFERENCE_DETAILS);
        let addr = run("ip -4 addr show flannel.1");
        assert!(
            addr.contains("inet 10.244.4.0/32 scope global flannel.1\n"),
            "{addr}"
        );
    });
}

#[test]
fn a_link_is_made_down_and_observed_as_it_was_made() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        let wanted = flannel_link();

        all_ok(kernel.apply(&[Op::AddLink(name("flannel.1"), wanted.clone())]));

        let state = observe(&mut kernel, "flannel.1");
        let down = Link {
            admin: AdminState::Down,
            ..wanted
        };
        assert_eq!(state.links[&name("flannel.1")], down);
    });
}

#[test]
fn an_ipv6_device_with_group_policy_is_observed_as_it_was_made() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        let mut wanted = flannel_link();
        wanted.admin = AdminState::Down;
        wanted.mtu_bytes = Some(1430);
        let LinkKind::Vxlan(vxlan) = &mut wanted.kind else {
            panic!()
        };
        vxlan.local = Some("fd00:77::11".parse().unwrap());
        vxlan.gbp = true;
        vxlan.learning = true;

        all_ok(kernel.apply(&[Op::AddLink(name("flannel-v6.1"), wanted.clone())]));

        let state = observe(&mut kernel, "flannel-v6.1");
        assert_eq!(state.links[&name("flannel-v6.1")], wanted);
        let shown = run("ip -d link show flannel-v6.1");
        assert!(
            shown.contains("local fd00:77::11 dev eth0") && shown.contains(" gbp "),
            "{shown}"
        );
    });
}

#[test]
fn a_device_leaves_checksums_to_the_hardware_until_it_is_told_not_to() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        let link = || name("flannel.1");
        let content = LinkScope {
            tx_checksum: true,
            ..LinkScope::default()
        };
        let scope = Scope {
            links: [(link(), content), (name("eth0"), LinkScope::default())].into(),
            ..Scope::default()
        };
        let told = |kernel: &mut RealKernel| {
            let state = kernel.observe(&scope).unwrap();
            let LinkKind::Vxlan(vxlan) = &state.links[&link()].kind else {
                panic!()
            };
            vxlan.tx_checksum
        };
        assert_eq!(told(&mut kernel), Some(true));

        for on in [false, true, false] {
            all_ok(kernel.apply(&[Op::SetLink(link(), LinkChange::VxlanTxChecksum(on))]));
            assert_eq!(told(&mut kernel), Some(on));
        }
        // Without being asked it is not told.
        assert_eq!(observe(&mut kernel, "flannel.1").links[&link()], flannel_link());

        let refused = kernel.apply(&[Op::SetLink(name("gone0"), LinkChange::VxlanTxChecksum(false))]);
        assert_eq!(refused[0].as_ref().unwrap_err().class, ErrorClass::NoDevice);
    });
}

#[test]
fn attributes_of_a_live_device_are_changed_in_place() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        let link = || name("flannel.1");
        let number = number_of("flannel.1");

        all_ok(kernel.apply(&[
            Op::SetLink(link(), LinkChange::VxlanLocal("192.168.77.99".parse().unwrap())),
            Op::SetLink(link(), LinkChange::VxlanLearning(true)),
            Op::SetLink(link(), LinkChange::Mtu(1400)),
            Op::SetLink(link(), LinkChange::Mac(mac("02:00:00:00:00:01"))),
            Op::SetLink(link(), LinkChange::Admin(AdminState::Down)),
        ]));

        let mut wanted = flannel_link();
        wanted.admin = AdminState::Down;
        wanted.mtu_bytes = Some(1400);
        wanted.mac = Some(mac("02:00:00:00:00:01"));
        let LinkKind::Vxlan(vxlan) = &mut wanted.kind else {
            panic!()
        };
        vxlan.local = Some("192.168.77.99".parse().unwrap());
        vxlan.learning = true;
        assert_eq!(observe(&mut kernel, "flannel.1").links[&link()], wanted);
        assert_eq!(number_of("flannel.1"), number);
    });
}

#[test]
fn a_pod_is_attached_to_a_bridge_in_one_apply() {
    in_netns(|| {
        let host = Netns::current().unwrap();
        let pod = new_netns();
        assert!(!pod.is_same(&host));
        let mut kernel = RealKernel::open().unwrap();
        kernel.register_netns(NetnsLabel("pod".into()), pod.try_clone().unwrap());
        let peer = VethPeer {
            name: name("eth0"),
            mac: Some(mac("02:00:00:00:00:22")),
            netns: Some(NetnsLabel("pod".into())),
        };
        let port = BridgePort {
            bridge: name("cni0"),
            hairpin: true,
            isolated: false,
        };
        let veth = Link {
            mac: Some(mac("02:00:00:00:00:11")),
            mtu_bytes: Some(1450),
            port: Some(port.clone()),
            ..link_of_kind(LinkKind::Veth(Some(peer)))
        };
        let bridge = Link {
            mtu_bytes: Some(1450),
            ..link_of_kind(LinkKind::Bridge)
        };

        all_ok(kernel.apply(&[
            Op::AddLink(name("cni0"), bridge),
            up("cni0"),
            Op::AddLink(name("veth0"), veth),
            up("veth0"),
        ]));
        let mut inside = RealKernel::open_in(pod).unwrap();
        all_ok(inside.apply(&[up("eth0"), add_addr("eth0", "10.244.4.2/24")]));
        kernel
            .wait_oper_up(&name("veth0"), Duration::from_secs(5))
            .unwrap();

        let outer = observe(&mut kernel, "veth0")
            .links
            .remove(&name("veth0"))
            .unwrap();
        assert_eq!(outer.port, Some(port));
        assert_eq!((outer.kind, outer.mtu_bytes), (LinkKind::Veth(None), Some(1450)));
        let state = observe(&mut inside, "eth0");
        let inner = &state.links[&name("eth0")];
        assert_eq!(
            (inner.mac, inner.mtu_bytes),
            (Some(mac("02:00:00:00:00:22")), Some(1450))
        );
        assert!(state.addrs.contains_key(&addr_key("eth0", "10.244.4.2/24")));
        assert!(run("bridge -d link show dev veth0").contains("hairpin on"));
    });
}

#[test]
fn hairpin_and_bridge_of_a_port_are_changed_in_place() {
    in_netns(|| {
        run_all(
            "ip link add br0 type bridge
             ip link add br1 type bridge
             ip link add va type veth peer name vb
             ip link set va master br0",
        );
        let mut kernel = RealKernel::open().unwrap();
        for (bridge, hairpin) in [("br0", true), ("br1", true), ("br1", false)] {
            let port = BridgePort {
                bridge: name(bridge),
                hairpin,
                isolated: false,
            };
            all_ok(kernel.apply(&[Op::SetLink(name("va"), LinkChange::Port(port.clone()))]));
            assert_eq!(observe(&mut kernel, "va").links[&name("va")].port, Some(port));
        }
    });
}

#[test]
fn a_link_that_stays_down_is_reported_with_its_state() {
    in_netns(|| {
        run("ip link add va type veth peer name vb");
        let mut kernel = RealKernel::open().unwrap();
        let error = kernel
            .wait_oper_up(&name("va"), Duration::from_millis(5))
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::Busy);
        assert!(
            error.message.contains("\"va\" did not come up within 5 ms"),
            "{error}"
        );
        let error = kernel
            .wait_oper_up(&name("c"), Duration::from_millis(5))
            .unwrap_err();
        assert_eq!(error.class, ErrorClass::NoDevice);
    });
}

#[test]
fn deleting_a_link_takes_its_peer_and_is_seen_by_the_next_change() {
    in_netns(|| {
        run("ip link add va type veth peer name vb");
        let mut kernel = RealKernel::open().unwrap();
        let results = kernel.apply(&[
            add_addr("vb", "10.0.0.1/24"),
            Op::DelLink(name("va")),
            add_addr("vb", "10.0.0.2/24"),
        ]);
        assert!(results[0].is_ok() && results[1].is_ok());
        assert_eq!(results[2].as_ref().unwrap_err().class, ErrorClass::NoDevice);
    });
}

#[test]
fn kinds_that_are_never_made_are_refused_without_a_request() {
    in_netns(|| {
        let mut kernel = RealKernel::open().unwrap();
        let before = kernel.writes();
        for kind in [LinkKind::Other("dummy".into()), LinkKind::Veth(None)] {
            let result = kernel.apply(&[Op::AddLink(name("x"), link_of_kind(kind))]);
            assert_eq!(result[0].as_ref().unwrap_err().class, ErrorClass::Unsupported);
        }
        assert_eq!(kernel.writes(), before);
    });
}

fn number_of(link: &str) -> String {
    let shown = run(&format!("ip -o link show {link}"));
    shown.split_once(':').unwrap().0.to_owned()
}
