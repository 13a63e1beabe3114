//! What is read, and above all what is not: the scope is the limit, and what the kernel or others made is left out.
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
use netstate::{ErrorClass, Kernel, LinkKind, LinkScope, MarkedRoutes, Prune, Scope, State, plan};

#[test]
fn what_the_kernel_makes_itself_is_not_observed() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        run_all(
            "ip addr add fe80::1/64 dev flannel.1
             ip addr add 10.244.200.1/24 dev flannel.1
             ip neigh add 10.244.5.5 lladdr 02:00:00:00:00:05 dev flannel.1 nud reachable
             ip neigh add fd00::5 lladdr 02:00:00:00:00:05 dev flannel.1 nud stale
             bridge fdb add 02:00:00:00:00:06 dst 192.168.77.6 dev flannel.1 self dynamic
             ip route add 10.9.0.0/16 dev flannel.1 table 99
             ip route add 10.10.0.0/16 dev flannel.1 proto ra",
        );
        let routes = run("ip route show table main dev flannel.1");
        assert!(routes.contains("10.244.200.0/24 proto kernel"), "{routes}");

        let state = observe(&mut kernel, "flannel.1");

        let addrs: Vec<_> = state.addrs.into_keys().collect();
        assert_eq!(
            addrs,
            [
                addr_key("flannel.1", "10.244.4.0/32"),
                addr_key("flannel.1", "10.244.200.1/24")
            ]
        );
        assert_eq!(state.neighs, [].into());
        assert_eq!(state.fdb, [].into());
        assert_eq!(state.routes, [].into());
    });
}

#[test]
fn objects_of_other_links_and_inexpressible_ones_are_not_observed() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        run_all(
            "ip link add flannel.2 type vxlan id 2 dev eth0 dstport 8472
             ip link set flannel.2 up
             ip neigh add 10.1.0.5 lladdr 02:00:00:00:00:05 dev flannel.2
             bridge fdb add 02:00:00:00:00:06 dst 192.168.77.6 dev flannel.2 self permanent
             ip route add 10.8.0.0/16 dev flannel.2
             ip route add 10.9.0.0/16 via 192.168.77.1 dev eth0
             ip route add 10.10.0.0/16 nexthop via 10.10.0.1 dev flannel.1 onlink nexthop via 192.168.77.1 dev eth0
             ip -6 route add fd00:9::/32 nexthop via fd00:77::1 dev eth0 nexthop via fd00:77::2 dev eth0
             ip route add 10.11.0.0/16 dev flannel.1 tos 8
             ip route add unreachable 10.12.0.0/16
             bridge fdb add 02:00:00:00:00:07 dst 192.168.77.6 port 4789 dev flannel.1 self permanent
             bridge fdb add 02:00:00:00:00:08 dst 192.168.77.6 vni 9 dev flannel.1 self permanent",
        );

        let state = observe(&mut kernel, "flannel.1");

        assert_eq!(state.neighs, [].into());
        assert_eq!(state.fdb, [].into());
        assert_eq!(state.routes, [].into());
    });
}

#[test]
fn only_what_the_scope_names_is_read() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        all_ok(kernel.apply(&peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5")));
        run("ip addr add 10.99.0.1/32 dev flannel.1");
        let full = observe(&mut kernel, "flannel.1");
        let look = |kernel: &mut RealKernel, content: LinkScope| {
            let scope = Scope {
                links: [(name("flannel.1"), content)].into(),
                ..Scope::default()
            };
            kernel.observe(&scope).unwrap()
        };
        let link_only = State {
            links: full.links.clone(),
            ..State::default()
        };

        assert_eq!(look(&mut kernel, LinkScope::default()), link_only);
        let inside = LinkScope {
            addrs_inside: vec!["10.244.0.0/16".parse().unwrap()],
            ..LinkScope::default()
        };
        let addrs = look(&mut kernel, inside).addrs;
        assert_eq!(
            addrs.into_keys().collect::<Vec<_>>(),
            [addr_key("flannel.1", "10.244.4.0/32")]
        );
        let neighs = LinkScope {
            neighs: true,
            ..LinkScope::default()
        };
        let expected = State {
            neighs: full.neighs,
            ..link_only
        };
        assert_eq!(look(&mut kernel, neighs), expected);
        assert_eq!(kernel.observe(&Scope::default()).unwrap(), State::default());
    });
}

#[test]
fn a_missing_link_is_absent_beside_one_that_is_there() {
    in_netns(|| {
        let mut kernel = RealKernel::open().unwrap();
        let mut scope = whole_scope("lo");
        scope.links.extend(whole_scope("flannel.1").links);

        let state = kernel.observe(&scope).unwrap();

        let links: Vec<_> = state
            .links
            .into_iter()
            .map(|(name, link)| (name, link.kind))
            .collect();
        assert_eq!(links, [(name("lo"), LinkKind::Other(String::new()))]);
    });
}

#[test]
fn a_link_is_not_taken_for_its_alternative_name() {
    in_netns(|| {
        run_all(
            "ip link add eth0 type bridge
             ip link property add dev eth0 altname flannel.1",
        );
        let mut kernel = RealKernel::open().unwrap();
        assert_eq!(observe(&mut kernel, "flannel.1"), State::default());
        let results = kernel.apply(&[add_addr("flannel.1", "10.0.0.1/32")]);
        assert_eq!(results[0].as_ref().unwrap_err().class, ErrorClass::NoDevice);
    });
}

#[test]
fn a_renamed_link_is_followed_by_its_name_only() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        run("ip link set flannel.1 name other");

        let results = kernel.apply(&peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5"));
        assert!(
            results
                .iter()
                .all(|r| r.as_ref().is_err_and(|e| e.class == ErrorClass::NoDevice))
        );
        assert_eq!(observe(&mut kernel, "flannel.1"), State::default());
        assert!(
            observe(&mut kernel, "other")
                .addrs
                .contains_key(&addr_key("other", "10.244.4.0/32"))
        );

        run("ip link set other name flannel.1");
        all_ok(kernel.apply(&peer("10.244.5.0/24", "02:00:00:00:00:05", "192.168.77.5")));
    });
}

#[test]
fn a_parent_that_is_renamed_is_observed_by_its_new_name() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        run("ip link set eth0 name uplink0");
        let state = observe(&mut kernel, "flannel.1");
        let LinkKind::Vxlan(vxlan) = &state.links[&name("flannel.1")].kind else {
            panic!()
        };
        assert_eq!(vxlan.parent, Some(name("uplink0")));
    });
}

#[test]
fn a_parent_in_another_namespace_has_no_name_here() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        flannel_device(&mut kernel);
        let other = new_netns();
        let mut inside = RealKernel::open_in(other.try_clone().unwrap()).unwrap();
        let path = {
            use std::os::fd::AsRawFd;
            format!("/proc/{}/fd/{}", std::process::id(), other.as_raw_fd())
        };
        run(&format!("ip link set flannel.1 netns {path}"));
        let state = observe(&mut inside, "flannel.1");
        let LinkKind::Vxlan(vxlan) = &state.links[&name("flannel.1")].kind else {
            panic!()
        };
        assert_eq!(vxlan.parent, None);
    });
}

#[test]
fn routes_are_told_by_their_protocol_and_destination_whatever_they_lead_through() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        run_all(
            "ip route add blackhole 10.244.1.0/24
             ip route add blackhole 10.244.2.0/24 proto 102 table 99
             ip route add unreachable 10.244.3.0/24 proto 102
             ip route add 10.244.4.0/24 via 192.168.77.1 dev eth0 proto 4
             ip route add 10.9.4.0/24 via 192.168.77.1 dev eth0 proto 102
             ip route add 10.0.0.0/8 via 192.168.77.1 dev eth0 proto 102",
        );
        let inside = ["10.244.0.0/16", "fd00:10:244::/48"].map(|net| net.parse().unwrap());
        let scope = Scope {
            marked: Some(MarkedRoutes {
                protocol: 102,
                inside: inside.into(),
            }),
            ..Scope::default()
        };
        assert_eq!(kernel.observe(&scope).unwrap(), State::default());

        let wanted: State = "route 10.244.5.0/24 blackhole proto 102 metric 4096
             route fd00:10:244:5::/64 blackhole proto 102 metric 4096
             route 10.244.6.0/24 via 192.168.77.6 dev eth0 proto 102
             route 10.244.7.0/24 via 192.168.77.7 dev eth0 proto 102
             route fd00:10:244:6::/64 via fd00:77::6 dev eth0 proto 102 metric 1024"
            .parse()
            .unwrap();
        all_ok(kernel.apply(&plan(&wanted, &State::default(), Prune::Remove)));
        assert_eq!(kernel.observe(&scope).unwrap(), wanted);
        assert_eq!(kernel.observe_at(&scope, &wanted.spots()).unwrap(), wanted);
        // What the bridge of the pods brings later comes first.
        run("ip addr add 10.244.5.1/24 dev eth0");
        assert_eq!(kernel.observe_at(&scope, &wanted.spots()).unwrap(), wanted);

        all_ok(kernel.apply(&plan(&State::default(), &wanted, Prune::Remove)));
        assert_eq!(kernel.observe(&scope).unwrap(), State::default());
        assert_eq!(
            kernel.observe_at(&scope, &wanted.spots()).unwrap(),
            State::default()
        );
    });
}

#[test]
fn a_marked_route_takes_over_one_without_a_mark_to_the_same_next_hop_and_no_other() {
    in_netns(|| {
        underlay();
        let mut kernel = RealKernel::open().unwrap();
        run_all(
            "ip route add 10.244.1.0/24 via 192.168.77.1 dev eth0
             ip route add 10.244.2.0/24 via 192.168.77.99 dev eth0
             ip route add 10.244.3.0/24 via 192.168.77.3 dev eth0 proto static
             ip route add fd00:10:244:1::/64 via fd00:77::1 dev eth0
             ip route add fd00:10:244:2::/64 via fd00:77::99 dev eth0",
        );
        let wanted: State = "route 10.244.1.0/24 via 192.168.77.1 dev eth0 proto 102
             route 10.244.2.0/24 via 192.168.77.2 dev eth0 proto 102
             route 10.244.3.0/24 via 192.168.77.3 dev eth0 proto 102
             route 10.244.4.0/24 via 192.168.77.4 dev eth0 proto 102
             route fd00:10:244:1::/64 via fd00:77::1 dev eth0 proto 102 metric 1024
             route fd00:10:244:2::/64 via fd00:77::2 dev eth0 proto 102 metric 1024"
            .parse()
            .unwrap();
        let results = kernel.apply(&plan(&wanted, &State::default(), Prune::Remove));
        let classes: Vec<_> = results
            .iter()
            .map(|result| result.as_ref().err().map(|err| err.class))
            .collect();
        let taken = Some(ErrorClass::Exists);
        assert_eq!(classes, [None, taken, taken, None, None, taken]);
        let list = |family| {
            let output = std::process::Command::new("ip")
                .args([family, "route", "show", "proto", "102"])
                .output();
            String::from_utf8(output.unwrap().stdout).unwrap()
        };
        assert_eq!(
            list("-4")
                .split_whitespace()
                .filter(|word| word.starts_with("10.244"))
                .collect::<Vec<_>>(),
            ["10.244.1.0/24", "10.244.4.0/24"]
        );
        assert!(
            list("-6").starts_with("fd00:10:244:1::/64 via fd00:77::1"),
            "{}",
            list("-6")
        );
    });
}
