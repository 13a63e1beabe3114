//! What the kernel does and that the plan and the kernel in memory rely on: error numbers and silent side effects.
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
use netstate::{AdminState, ErrorClass, Kernel, KernelError, LinkChange, LinkKind, Neigh, Op};

fn with_device(test: impl FnOnce(&mut RealKernel) + Send + 'static) {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        test(&mut kernel);
    });
}

#[track_caller]
fn refused(kernel: &mut RealKernel, op: Op) -> KernelError {
    let result = kernel.apply(&[op]).pop().unwrap();
    result.expect_err("the kernel accepted it")
}

fn down(link: &str) -> Op {
    Op::SetLink(name(link), LinkChange::Admin(AdminState::Down))
}

#[test]
fn a_route_on_a_link_that_is_down_is_refused_but_neighbour_and_fdb_are_not() {
    with_device(|kernel| {
        all_ok(kernel.apply(&[down("flannel.1")]));
        let [neigh, fdb, route] = peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5");
        let results = kernel.apply(&[neigh, fdb, route]);
        assert!(results[0].is_ok() && results[1].is_ok());
        assert_eq!(results[2].as_ref().unwrap_err().class, ErrorClass::LinkDown);
    });
}

#[test]
fn a_gateway_out_of_reach_is_refused_in_the_kernels_words() {
    with_device(|kernel| {
        let op = Op::AddRoute(
            route_key("10.244.5.0/24", 0),
            route("flannel.1", Some("10.244.5.0"), false),
        );
        let error = refused(kernel, op);
        assert_eq!(error.class, ErrorClass::Unreachable);
        assert_eq!(error.message, "ENETUNREACH: Nexthop has invalid gateway");
    });
}

#[test]
fn changes_of_a_missing_link_are_refused() {
    with_device(|kernel| {
        let missing = "flannel.2";
        let mac = mac("02:00:00:00:00:05");
        for op in [
            up(missing),
            Op::DelLink(name(missing)),
            add_addr(missing, "10.244.5.0/32"),
            Op::AddRoute(
                route_key("10.244.5.0/24", 0),
                route(missing, Some("10.244.5.0"), true),
            ),
            Op::SetNeigh(neigh_key(missing, "10.244.5.0"), Neigh { mac }),
            Op::SetFdb(fdb_key(missing, "02:00:00:00:00:05", "192.168.77.5")),
            Op::SetLink(name(missing), LinkChange::VxlanLearning(true)),
        ] {
            assert_eq!(refused(kernel, op.clone()).class, ErrorClass::NoDevice, "{op:?}");
        }
    });
}

#[test]
fn a_vxlan_on_a_missing_parent_is_refused() {
    in_netns(|| {
        let mut kernel = RealKernel::open().unwrap();
        let error = refused(&mut kernel, Op::AddLink(name("flannel.1"), flannel_link()));
        assert_eq!(error.class, ErrorClass::NoDevice);
        assert_eq!(error.message, "there is no link \"eth0\"");
    });
}

#[test]
fn duplicates_are_refused() {
    with_device(|kernel| {
        let [_, _, route] = peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5");
        all_ok(kernel.apply(std::slice::from_ref(&route)));
        for op in [
            route,
            add_addr("flannel.1", "10.244.4.0/32"),
            Op::AddLink(name("flannel.1"), flannel_link()),
            Op::AddLink(name("flannel.same"), flannel_link()),
        ] {
            assert_eq!(refused(kernel, op.clone()).class, ErrorClass::Exists, "{op:?}");
        }
    });
}

#[test]
fn absent_objects_are_not_found() {
    with_device(|kernel| {
        all_ok(kernel.apply(&peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5")));
        let mut other_protocol = route("flannel.1", Some("10.244.5.0"), true);
        other_protocol.protocol = 4;
        for op in [
            Op::DelRoute(
                route_key("10.244.6.0/24", 0),
                route("flannel.1", Some("10.244.6.0"), true),
            ),
            Op::DelRoute(route_key("10.244.5.0/24", 0), other_protocol),
            Op::DelNeigh(neigh_key("flannel.1", "10.244.6.0")),
            Op::DelFdb(fdb_key("flannel.1", "02:00:00:00:00:06", "192.168.77.5")),
            Op::DelAddr(addr_key("flannel.1", "10.244.6.0/32")),
            Op::DelAddr(addr_key("flannel.1", "fd00::6/128")),
        ] {
            assert_eq!(refused(kernel, op.clone()).class, ErrorClass::NotFound, "{op:?}");
        }
    });
}

#[test]
fn the_fdb_acknowledges_the_removal_of_a_wrong_remote_without_removing() {
    with_device(|kernel| {
        all_ok(kernel.apply(&peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5")));
        let before = observe(kernel, "flannel.1").fdb;
        all_ok(kernel.apply(&[Op::DelFdb(fdb_key(
            "flannel.1",
            "02:00:00:00:00:05",
            "192.168.77.6",
        ))]));
        assert_eq!(observe(kernel, "flannel.1").fdb, before);
    });
}

#[test]
fn a_neighbour_and_a_remote_are_replaced_in_place() {
    with_device(|kernel| {
        all_ok(kernel.apply(&peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5")));
        let moved = fdb_key("flannel.1", "02:00:00:00:00:05", "192.168.77.6");
        let key = neigh_key("flannel.1", "10.244.5.0");
        let mac = mac("02:00:00:00:00:06");
        all_ok(kernel.apply(&[
            Op::SetFdb(moved.clone()),
            Op::SetNeigh(key.clone(), Neigh { mac }),
        ]));
        let state = observe(kernel, "flannel.1");
        assert_eq!(state.fdb, [moved].into());
        assert_eq!(state.neighs, [(key, Neigh { mac })].into());
    });
}

#[test]
fn link_down_flushes_routes_and_neighbours_and_up_restores_none() {
    with_device(|kernel| {
        all_ok(kernel.apply(&[add_addr("flannel.1", "fd00:10::/128")]));
        all_ok(kernel.apply(&peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5")));
        all_ok(kernel.apply(&[down("flannel.1"), up("flannel.1")]));
        let state = observe(kernel, "flannel.1");
        assert!(state.routes.is_empty() && state.neighs.is_empty());
        assert_eq!(state.fdb.len(), 1);
        assert_eq!(
            state.addrs.into_keys().collect::<Vec<_>>(),
            [addr_key("flannel.1", "10.244.4.0/32")]
        );
    });
}

#[test]
fn an_equal_mac_flushes_the_neighbours_and_an_mtu_nothing() {
    with_device(|kernel| {
        all_ok(kernel.apply(&peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5")));
        all_ok(kernel.apply(&[Op::SetLink(name("flannel.1"), LinkChange::Mtu(1400))]));
        assert_eq!(observe(kernel, "flannel.1").neighs.len(), 1);
        let mac = flannel_link().mac.unwrap();
        all_ok(kernel.apply(&[Op::SetLink(name("flannel.1"), LinkChange::Mac(mac))]));
        let state = observe(kernel, "flannel.1");
        assert_eq!(
            (state.neighs.len(), state.routes.len(), state.fdb.len()),
            (0, 1, 1)
        );
    });
}

#[test]
fn removing_the_last_address_flushes_unless_the_new_one_is_there_first() {
    with_device(|kernel| {
        all_ok(kernel.apply(&peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5")));
        let del = |addr: &str| Op::DelAddr(addr_key("flannel.1", addr));
        all_ok(kernel.apply(&[add_addr("flannel.1", "10.244.7.0/32"), del("10.244.4.0/32")]));
        let state = observe(kernel, "flannel.1");
        assert_eq!((state.neighs.len(), state.routes.len()), (1, 1));
        all_ok(kernel.apply(&[del("10.244.7.0/32")]));
        let state = observe(kernel, "flannel.1");
        assert_eq!(
            (state.neighs.len(), state.routes.len(), state.fdb.len()),
            (0, 0, 1)
        );
    });
}

#[test]
fn a_link_is_replaced_only_where_the_new_one_can_be_made() {
    with_device(|kernel| {
        all_ok(kernel.apply(&peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5")));
        let before = observe(kernel, "flannel.1");
        let on = |parent: &str| {
            let mut link = flannel_link();
            if let LinkKind::Vxlan(vxlan) = &mut link.kind {
                vxlan.parent = Some(name(parent));
            }
            Op::ReplaceLink(name("flannel.1"), link)
        };
        let fdb = Op::SetFdb(fdb_key("flannel.1", "02:00:00:00:00:05", "192.168.77.6"));
        // What was to be made on the new one is not made on the old one.
        for result in kernel.apply(&[on("missing"), fdb]) {
            assert_eq!(result.unwrap_err().class, ErrorClass::NoDevice);
        }
        assert_eq!(observe(kernel, "flannel.1"), before);
        all_ok(kernel.apply(&[on("eth0"), up("flannel.1")]));
        let after = observe(kernel, "flannel.1");
        assert_eq!(after.links, before.links);
        assert!(after.routes.is_empty() && after.fdb.is_empty());
    });
}

#[test]
fn the_device_goes_with_its_parent() {
    with_device(|kernel| {
        all_ok(kernel.apply(&[Op::DelLink(name("eth0"))]));
        assert!(observe(kernel, "flannel.1").links.is_empty());
    });
}

#[test]
fn a_remote_of_the_other_family_than_the_devices_is_not_supported() {
    with_device(|kernel| {
        let op = Op::SetFdb(fdb_key("flannel.1", "02:00:00:00:00:05", "fd00:77::5"));
        assert_eq!(refused(kernel, op).class, ErrorClass::Unsupported);
    });
}

#[test]
fn an_ipv6_gateway_out_of_reach_has_an_error_number_of_its_own() {
    with_device(|kernel| {
        let op = Op::AddRoute(
            route_key("fd00:9::/64", 1024),
            route("flannel.1", Some("fd00:9::"), false),
        );
        let error = refused(kernel, op);
        assert_eq!(error.class, ErrorClass::Other(113), "EHOSTUNREACH");
    });
}
