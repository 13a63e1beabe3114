//! Peers as the kernel holds them, compared with what the reference daemon made and with iproute2.
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
use netstate::{ErrorClass, Kernel, LinkKind, Neigh, Op, State};

#[test]
fn peers_look_as_the_reference_makes_them() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);

        for (subnet, lladdr, public_ip) in [
            ("10.244.47.0/24", "ee:a0:95:3e:f2:fa", "192.168.77.12"),
            ("10.244.84.0/24", "72:e5:67:00:44:8c", "192.168.77.13"),
        ] {
            all_ok(kernel.apply(&peer(subnet, lladdr, public_ip)));
        }

        // The texts are from a node of the reference daemon (flannel v0.28.9).
        assert_eq!(
            sorted(&run("bridge fdb show dev flannel.1")),
            [
                "72:e5:67:00:44:8c dst 192.168.77.13 self permanent",
                "ee:a0:95:3e:f2:fa dst 192.168.77.12 self permanent",
            ]
        );
        assert_eq!(
            sorted(&run("ip neigh show dev flannel.1")),
            [
                "10.244.47.0 lladdr ee:a0:95:3e:f2:fa PERMANENT",
                "10.244.84.0 lladdr 72:e5:67:00:44:8c PERMANENT",
            ]
        );
        let routes = run("ip -d route show table all");
        let ours: Vec<_> = routes
            .lines()
            .map(str::trim)
            .filter(|line| line.contains("onlink"))
            .collect();
        assert_eq!(
            ours,
            [
                "unicast 10.244.47.0/24 via 10.244.47.0 dev flannel.1 table main proto boot scope global onlink",
                "unicast 10.244.84.0/24 via 10.244.84.0 dev flannel.1 table main proto boot scope global onlink",
            ]
        );
    });
}

#[test]
fn an_ipv6_peer_looks_as_the_reference_makes_it() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        let mut device = flannel_link();
        let LinkKind::Vxlan(vxlan) = &mut device.kind else {
            panic!()
        };
        vxlan.local = Some("fd00:77::11".parse().unwrap());
        device.mtu_bytes = Some(1430);

        all_ok(kernel.apply(&[
            Op::AddLink(name("flannel.1"), device),
            up("flannel.1"),
            add_addr("flannel.1", "fd00:10:244:4e::/128"),
        ]));
        all_ok(kernel.apply(&peer("fd00:10:244:5f::/64", "0e:2f:7b:13:fd:4b", "fd00:77::13")));

        let routes = run("ip -6 -d route show");
        let expected = "unicast fd00:10:244:5f::/64 via fd00:10:244:5f:: dev flannel.1 proto boot scope global \
                        metric 1024 onlink pref medium";
        assert!(routes.lines().any(|line| line.trim() == expected), "{routes}");
        let neighs = run("ip -6 neigh show dev flannel.1");
        assert!(
            neighs.contains("fd00:10:244:5f:: lladdr 0e:2f:7b:13:fd:4b PERMANENT"),
            "{neighs}"
        );
        let fdb = run("bridge fdb show dev flannel.1");
        assert!(
            fdb.contains("0e:2f:7b:13:fd:4b dst fd00:77::13 self permanent"),
            "{fdb}"
        );
        let state = observe(&mut kernel, "flannel.1");
        assert!(state.routes.contains_key(&route_key("fd00:10:244:5f::/64", 1024)));
        assert!(
            state
                .addrs
                .contains_key(&addr_key("flannel.1", "fd00:10:244:4e::/128"))
        );
    });
}

#[test]
fn what_is_observed_is_what_was_applied_and_can_be_removed() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        let empty = observe(&mut kernel, "flannel.1");
        let mut special = route("flannel.1", Some("10.244.9.0"), true);
        special.protocol = 77;
        special.source = Some("10.244.4.0".parse().unwrap());
        special.mtu_bytes = Some(1300);
        let key = route_key("10.244.9.0/24", 7);
        let on_link = (route_key("10.244.10.0/24", 0), route("flannel.1", None, false));

        all_ok(kernel.apply(&[
            Op::AddRoute(key.clone(), special.clone()),
            Op::AddRoute(on_link.0.clone(), on_link.1.clone()),
        ]));
        all_ok(kernel.apply(&peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5")));

        let full = observe(&mut kernel, "flannel.1");
        assert_eq!(full.routes[&key], special);
        assert_eq!(full.routes[&on_link.0], on_link.1);
        let mut removal: Vec<Op> = full
            .routes
            .into_iter()
            .map(|(key, route)| Op::DelRoute(key, route))
            .collect();
        removal.extend(full.fdb.into_iter().map(Op::DelFdb));
        removal.extend(full.neighs.into_keys().map(Op::DelNeigh));
        assert_eq!(removal.len(), 5);
        all_ok(kernel.apply(&removal));
        assert_eq!(observe(&mut kernel, "flannel.1"), empty);
    });
}

#[test]
fn a_route_of_any_kind_is_replaced_and_removed() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        run("ip route add 10.244.5.0/24 via 192.168.77.1 dev eth0 proto static");
        let key = route_key("10.244.5.0/24", 0);
        let wanted = route("flannel.1", Some("10.244.5.0"), true);

        all_ok(kernel.apply(&[Op::ReplaceRoute(key.clone(), wanted.clone())]));
        assert_eq!(observe(&mut kernel, "flannel.1").routes[&key], wanted);
        assert!(observe(&mut kernel, "eth0").routes.is_empty());

        let black_hole = netstate::Route {
            kind: netstate::RouteKind::Blackhole,
            ..wanted
        };
        for dst in ["10.244.0.0/16", "fd00:10::/32"] {
            let key = route_key(dst, 2000);
            all_ok(kernel.apply(&[Op::AddRoute(key.clone(), black_hole.clone())]));
            let flag = if key.dst.is_ipv6() { "-6" } else { "-4" };
            assert!(run(&format!("ip {flag} route show {dst}")).starts_with("blackhole"));
            all_ok(kernel.apply(&[Op::DelRoute(key, black_hole.clone())]));
            assert_eq!(run(&format!("ip {flag} route show {dst}")), "");
        }
    });
}

#[test]
fn two_thousand_peers_are_written_in_one_apply_and_read_back() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        let mut wanted = observe(&mut kernel, "flannel.1");
        let before = kernel.writes().requests;

        let ops: Vec<Op> = (0..2000).flat_map(numbered_peer).collect();
        all_ok(kernel.apply(&ops));

        ops.into_iter().for_each(|op| expect(&mut wanted, op));
        assert_eq!(observe(&mut kernel, "flannel.1"), wanted);
        assert_eq!(
            (wanted.routes.len(), wanted.neighs.len(), wanted.fdb.len()),
            (2000, 2000, 2000)
        );
        assert_eq!(kernel.writes().requests - before, 6000);
    });
}

#[test]
fn each_failure_in_a_batch_is_that_of_its_own_change() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        let good = |n: u8| {
            let key = neigh_key("flannel.1", &format!("10.244.{n}.0"));
            let mac = mac("02:00:00:00:00:01");
            Op::SetNeigh(key, Neigh { mac })
        };
        let absent = || Op::DelNeigh(neigh_key("flannel.1", "10.9.9.9"));
        let elsewhere = || Op::DelNeigh(neigh_key("flannel.9", "10.9.9.9"));

        let before = kernel.writes().requests;
        let mut ops = vec![good(1), absent(), elsewhere(), good(2), elsewhere()];
        ops.extend((0..250).map(|_| absent()));
        ops.push(good(3));
        ops.push(absent());
        let results = kernel.apply(&ops);

        let class = |n: usize| results[n].as_ref().err().map(|e| e.class);
        assert_eq!(
            [class(0), class(1), class(2), class(3), class(4)],
            [
                None,
                Some(ErrorClass::NotFound),
                Some(ErrorClass::NoDevice),
                None,
                Some(ErrorClass::NoDevice)
            ]
        );
        assert!((5..255).all(|n| class(n) == Some(ErrorClass::NotFound)));
        assert_eq!((class(255), class(256)), (None, Some(ErrorClass::NotFound)));
        assert_eq!(observe(&mut kernel, "flannel.1").neighs.len(), 3);
        assert_eq!(
            kernel.writes().requests - before,
            255,
            "a change on an absent link is no request"
        );
    });
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().map(str::trim).collect();
    lines.sort_unstable();
    lines
}

fn numbered_peer(n: u32) -> [Op; 3] {
    let [_, a, b, c] = n.to_be_bytes();
    peer(
        &format!("10.{}.{c}.0/24", 100 + b),
        &format!("02:00:00:{a:02x}:{b:02x}:{c:02x}"),
        &format!("172.16.{b}.{c}"),
    )
}

fn expect(state: &mut State, op: Op) {
    if let Op::SetNeigh(key, neigh) = op {
        state.neighs.insert(key, neigh);
    } else if let Op::SetFdb(key) = op {
        state.fdb.insert(key);
    } else if let Op::AddRoute(key, route) = op {
        state.routes.insert(key, route);
    }
}
