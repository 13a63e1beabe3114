//! Hosts that have what is this node's, and addresses that it has no more.

use super::*;
use crate::iface_match::{Ends, External};

#[test]
fn another_host_that_announces_the_own_lease_is_told_of_until_it_is_gone() {
    let log = logged(|| {
        let mut bench = Bench::holding(&[1]);
        bench.run(|_, _| {});
        let shared_with = |bench: &Bench| bench.node.status(bench.clock()).lease.unwrap().shared_with;
        assert_eq!(shared_with(&bench), None);
        for _ in 0..3 {
            bench.deliver(Event::Lease(LeaseEvent::Put(own_lease(mac(9), Some(DAY_SECS)))));
        }
        assert_eq!(shared_with(&bench), Some(format!("the VTEP MAC {}", mac(9))));
        // It is no peer, and no reason to end.
        assert_eq!(bench.run(|_, _| {}), []);
        bench.deliver(snapshot(&[lease(1, None), own_lease(mac(8), Some(DAY_SECS))]));
        assert_eq!(shared_with(&bench), Some(format!("the VTEP MAC {}", mac(8))));
        bench.deliver(snapshot(&[lease(1, None), own_lease(mac(250), Some(DAY_SECS))]));
        assert_eq!(shared_with(&bench), None);
    });
    assert_eq!(
        log.matches("another host announces this node's lease").count(),
        2,
        "{log}"
    );
    assert_eq!(log.matches("announces this node again").count(), 1, "{log}");
}

#[test]
fn a_second_host_with_one_public_ip_is_told_that_it_may_be_one() {
    for (stored, told) in [(None, 0), (Some(mac(8)), 0), (Some(mac(9)), 1)] {
        let log = logged(|| {
            let mut node = Node::new(settings());
            let found = device_state(mac(8), LinkKindOf::Vxlan);
            asks_for_lease(&mut node, found, stored.map(|mac| own_lease(mac, None)));
        });
        assert_eq!(
            log.matches("both share one lease").count(),
            told,
            "{stored:?}: {log}"
        );
    }
}

#[test]
fn the_address_that_other_nodes_send_to_is_told_when_it_goes_and_when_it_is_back() {
    let own = IpAddr::from(public_ip(250));
    let other = IpAddr::from(public_ip(251));
    let rows = [
        (settings().sides.remove(0).carrier, 1),
        (CarrierSettings::HostGw, 1),
        // Nobody sends to it.
        (CarrierSettings::Alloc, 0),
    ];
    for (carrier, told) in rows {
        let what = format!("{carrier:?}");
        let log = logged(|| {
            let mut settings = settings();
            settings.sides[0].carrier = carrier;
            let mut node = Node::new(settings);
            for held in [vec![own, other], vec![other], vec![], vec![own]] {
                node.handle(at(0), links_with(addrs_on("eth0", &held)));
            }
        });
        let count = |words: &str| log.matches(words).count();
        assert_eq!(
            count("has lost the address that other nodes reach it by"),
            told,
            "{what}: {log}"
        );
        assert_eq!(count("reach this host by is back"), told, "{what}: {log}");
    }
}

#[test]
fn the_own_address_is_followed_to_the_link_that_has_it() {
    let own = IpAddr::from(public_ip(250));
    let other = IpAddr::from(public_ip(251));
    let on_both = [(own, [if_name("br0"), if_name("eth0")].into())].into();
    let on_loopback = [(own, BTreeSet::new())].into();
    let rows = [
        (addrs_on("lan0", &[own, other]), "lan0"),
        (addrs_on("eth0", &[own, other]), "eth0"),
        (addrs_on("lan0", &[other]), "eth0"),
        (on_both, "eth0"),
        (on_loopback, "eth0"),
        (HostAddrs::new(), "eth0"),
    ];
    for (addrs, parent) in rows {
        let mut node = Node::new(settings());
        node.handle(at(0), links_with(addrs.clone()));
        assert_eq!(node.parent().as_str(), parent, "{addrs:?}");
    }
}

#[test]
fn of_two_families_on_different_links_the_first_one_is_followed() {
    let [own, own_v6] = [side(), side_v6()].map(|side| side.local);
    for (v4, v6, parent) in [("br0", "eth0", "br0"), ("eth0", "br0", "eth0")] {
        let mut addrs = addrs_on(v4, &[own]);
        addrs.extend(addrs_on(v6, &[own_v6]));
        let mut node = Node::new(dual_settings());
        node.handle(at(0), links_with(addrs));
        assert_eq!(node.parent().as_str(), parent);
    }
}

#[test]
fn the_device_lies_on_the_link_that_has_the_own_address() {
    let renamed = |name: &str| Event::ParentRenamed(if_name(name));
    let moved = |name| links_with(addrs_on(name, &[public_ip(250).into()]));
    let mut bench = Bench::holding(&[1, 2]);
    bench.run(|_, _| {});
    for event in [renamed("lan0"), moved("br0"), renamed("eth0")] {
        bench.deliver(event);
        bench.run(|_, _| {});
        let parent = bench.node.parent().clone();
        let LinkKind::Vxlan(vxlan) = &bench.kernel.links[&device_name()].kind else {
            panic!("the device is gone");
        };
        assert_eq!(vxlan.parent, Some(parent));
        assert!(bench.node.engine().is_clean());
    }
}

#[test]
fn devices_and_pods_follow_the_mtu_of_the_interface() {
    let log = logged(|| {
        let mut bench = Bench::holding(&[1, 2]);
        bench.run(|_, _| {});
        // (the interface's MTU, what the device and pods have after it, whether the file is written)
        let rows = [
            (1500, 1450, false),
            (9001, 8951, true),
            (9001, 8951, false),
            (1400, 1350, true),
            (100, 1350, false),
            (100, 1350, false),
            (1400, 1350, false),
            (1500, 1450, true),
        ];
        for (carried, inner, is_written) in rows {
            bench.deliver(Event::HostLinks(HostLinks {
                addrs: addrs_on("eth0", &[public_ip(250).into()]),
                mtus: [(if_name("eth0"), carried)].into(),
            }));
            let done = bench.tick_after(1);
            let written = done.iter().filter_map(|action| {
                let Action::WriteSubnetFile(env) = action else {
                    return None;
                };
                Some(env.mtu)
            });
            let written: Vec<_> = written.collect();
            assert_eq!(written, is_written.then_some(inner).as_slice(), "{carried}");
            assert_eq!(
                bench.kernel.links[&device_name()].mtu_bytes,
                Some(inner),
                "{carried}"
            );
            assert_eq!(bench.node.subnet_env().unwrap().mtu, inner, "{carried}");
            assert!(bench.node.engine().is_clean(), "{carried}");
        }
    });
    assert!(!log.contains("not ready any more"), "{log}");
    assert_eq!(log.matches("flannel is ready").count(), 1, "{log}");
    assert_eq!(log.matches("leaves too little for pods").count(), 1, "{log}");
    assert_eq!(log.matches("is large enough again").count(), 1, "{log}");
    assert_eq!(log.matches("new pods have another one").count(), 3, "{log}");
}

#[test]
fn a_node_moves_to_the_address_that_a_start_would_choose_once_its_own_is_lost() {
    let to = |n: u8| External {
        link: if_name("eth0"),
        v4: Some(Ends {
            local: public_ip(n).into(),
            public_ip: public_ip(n).into(),
        }),
        v6: None,
        mtu_bytes: 1500,
        alternatives: Vec::new(),
    };
    let own = || links_with(addrs_on("eth0", &[public_ip(250).into()]));
    let other = || links_with(addrs_on("eth0", &[public_ip(9).into()]));
    let mut bench = Bench::holding(&[1]);
    bench.run(|_, _| {});
    let mut told = |event: Event| bench.node.handle(bench.clock(), event);

    assert_eq!(told(own()), []);
    assert_eq!(told(other()), [Action::LookForInterface]);
    assert_eq!(told(other()), [], "one look at a time");
    let nowhere = Event::InterfaceFound(Err("no default route".to_owned()));
    assert_eq!(told(nowhere), [Action::LookForInterface], "as long as it is lost");
    // The choice was made before the address went: it says nothing.
    assert_eq!(
        told(Event::InterfaceFound(Ok(to(250)))),
        [Action::LookForInterface]
    );
    let v6_alone = External { v4: None, ..to(9) };
    assert_eq!(
        told(Event::InterfaceFound(Ok(v6_alone))),
        [Action::LookForInterface]
    );
    assert_eq!(told(own()), []);
    assert_eq!(told(Event::InterfaceFound(Ok(to(9)))), [], "it is back");

    assert_eq!(told(other()), [Action::LookForInterface]);
    let reason = "no route to the store".to_owned();
    told(Event::Lease(LeaseEvent::Unsynced { reason }));
    assert_eq!(
        told(Event::InterfaceFound(Ok(to(9)))),
        [Action::LookForInterface],
        "nobody would hear of it"
    );
    told(snapshot(&[lease(1, None), own_lease(mac(250), Some(DAY_SECS))]));
    let lease = own_lease(mac(250), Some(DAY_SECS));
    let moved = Action::Move(Box::new(Move { to: to(9), lease }));
    assert_eq!(told(Event::InterfaceFound(Ok(to(9)))), [moved]);
}

#[test]
fn an_address_that_goes_before_there_is_a_lease_is_followed_once_there_is() {
    let stored = Some(own_lease(mac(250), Some(DAY_SECS)));
    let mut bench = Bench::found(State::default(), stored);
    let other = links_with(addrs_on("eth0", &[public_ip(9).into()]));
    assert_eq!(bench.node.handle(bench.clock(), other), []);
    let acquired = Event::LeaseAcquired(Ok(own_lease(mac(250), Some(DAY_SECS))));
    let actions = bench.node.handle(bench.clock(), acquired);
    let looks = actions
        .iter()
        .filter(|action| **action == Action::LookForInterface);
    assert_eq!(looks.count(), 1, "{actions:?}");
}

fn links_with(addrs: HostAddrs) -> Event {
    Event::HostLinks(HostLinks {
        addrs,
        ..HostLinks::default()
    })
}

fn if_name(name: &str) -> IfName {
    name.parse().unwrap()
}

fn addrs_on(link: &str, addrs: &[IpAddr]) -> HostAddrs {
    let links: BTreeSet<_> = [if_name(link)].into();
    addrs.iter().map(|addr| (*addr, links.clone())).collect()
}
