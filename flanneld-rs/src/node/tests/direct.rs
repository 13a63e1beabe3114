//! Peers on a link of this host, which need no tunnel.

use netstate::Op;

use super::*;

#[test]
fn a_peer_on_a_link_has_a_plain_route_and_the_others_a_tunnel() {
    let mut bench = Bench::direct(State::default(), &[1], &[1, 2]);
    bench.run(|_, _| {});
    assert_eq!(shown(&bench), [DIRECT_1, TUNNEL_2].concat());
    assert!(bench.node.readiness(bench.now).is_ok());
    let ways: Vec<_> = bench
        .node
        .peers_after(None, 9)
        .into_iter()
        .map(|(_, peer)| peer.way)
        .collect();
    assert_eq!(ways, [Some(PeerWay::Direct), Some(PeerWay::Tunnel)]);
    let status = bench.node.status(bench.clock());
    assert_eq!(
        (status.peers.programmed, status.backend.unwrap().direct_peers),
        (2, [("ipv4".to_owned(), 1)].into())
    );
}

#[test]
fn a_restart_changes_nothing_and_drops_only_what_is_stale() {
    let mut before = Bench::direct(State::default(), &[1, 3], &[1, 2, 3]);
    before.run(|_, _| {});
    let mut bench = Bench::direct(before.kernel.clone(), &[1, 3], &[1, 2, 3]);
    assert_eq!(changes(&bench.run(|_, _| {})), Vec::<String>::new());
    // A peer that left, and one whose link did, while the daemon was away.
    let mut bench = Bench::direct(before.kernel, &[1], &[1, 3]);
    let done = changes(&bench.run(|_, _| {}));
    assert_eq!(shown(&bench), [DIRECT_1, TUNNEL_3].concat());
    assert!(!done.iter().any(|op| op.contains("10.244.1.0")), "{done:?}");
}

#[test]
fn without_direct_routing_the_plain_routes_of_an_earlier_run_become_tunnels() {
    let mut before = Bench::direct(State::default(), &[1, 2], &[1, 2]);
    before.run(|_, _| {});
    let mut bench = Bench::found(before.kernel, Some(own_lease(mac(250), None)));
    bench.acquire();
    bench.deliver(snapshot(&[lease(2, None), own_lease(mac(250), None)]));
    let actions = bench.run(|_, _| {});
    assert_eq!(shown(&bench), TUNNEL_2);
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::LookUpRoutes(_)))
    );
}

/// The new way is complete before the old one goes, and the route changes places in one step.
#[test]
fn a_peer_moves_to_the_tunnel_and_back_without_a_gap() {
    let mut bench = Bench::direct(State::default(), &[1], &[1]);
    bench.run(|_, _| {});

    let on_link = std::mem::take(&mut bench.on_link);
    bench.deliver(Event::HostRoutesChanged);
    assert_eq!(
        changes(&bench.tick_after(1)),
        [
            "set fdb flannel.1 02:00:00:00:00:01 remote 192.168.77.1",
            "set neigh flannel.1 10.244.1.0 mac 02:00:00:00:00:01",
            "replace route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink proto 3",
        ]
    );

    bench.on_link = on_link;
    bench.deliver(Event::HostRoutesChanged);
    assert_eq!(
        changes(&bench.tick_after(1)),
        [
            "replace route 10.244.1.0/24 via 192.168.77.1 dev eth0 proto 102",
            "del neigh flannel.1 10.244.1.0",
            "del fdb flannel.1 02:00:00:00:00:01 remote 192.168.77.1",
        ]
    );
    assert_eq!(shown(&bench), DIRECT_1);
}

#[test]
fn a_new_peer_is_programmed_once_its_way_is_known_and_an_altered_one_keeps_the_old_until_then() {
    let mut bench = Bench::direct(State::default(), &[1, 2], &[1]);
    bench.run(|_, _| {});
    bench.now += Duration::from_secs(2);

    bench.put(lease(2, None));
    let actions = bench.run(|_, _| {});
    assert_eq!(look_ups(&actions), [vec![IpAddr::from(public_ip(2))]]);
    assert_eq!(
        changes(&actions),
        ["add route 10.244.2.0/24 via 192.168.77.2 dev eth0 proto 102"]
    );

    // It moves to an address that is on no link.
    let mut moved = lease(2, None);
    moved.attrs.public_ip = Some(public_ip(9));
    bench.put(moved);
    let actions = bench.run(|_, _| {});
    let done = changes(&actions);
    assert_eq!(done.len(), 3, "{done:?}");
    assert!(done.iter().all(|op| !op.starts_with("del ")), "{done:?}");
    assert_eq!(look_ups(&actions), [vec![IpAddr::from(public_ip(9))]]);
}

#[test]
fn nothing_of_an_earlier_run_is_removed_before_the_ways_are_known() {
    let mut before = Bench::direct(State::default(), &[1], &[1]);
    before.run(|_, _| {});
    let mut bench = Bench::direct(before.kernel, &[1], &[1]);
    bench.holds_back_look_ups = true;
    bench.run(|_, _| {});
    assert_eq!(shown(&bench), DIRECT_1);
    assert_eq!(bench.node.readiness(bench.now), Err(NotReady::NotConverged));
    bench.holds_back_look_ups = false;
    bench.deliver(Event::RoutesFound(Err("busy".to_owned())));
    bench.run(|_, _| {});
    assert!(bench.node.readiness(bench.now).is_ok());
    bench.tick_after(5);
    assert_eq!(shown(&bench), DIRECT_1);
}

#[test]
fn a_plain_route_that_the_kernel_refuses_gives_way_to_the_tunnel() {
    let mut bench = Bench::direct(State::default(), &[1], &[1, 2]);
    bench.refused = Some("10.244.1.0/24 via 192.168.77.1".to_owned());
    bench.run(|_, _| {});
    bench.tick_after(1);
    assert_eq!(shown(&bench), [TUNNEL_1, TUNNEL_2].concat());
    bench.tick_after(60);
    assert_eq!(shown(&bench), [TUNNEL_1, TUNNEL_2].concat());
    bench.refused = None;
    bench.deliver(Event::KernelChanged);
    bench.tick_after(1);
    assert_eq!(shown(&bench), [DIRECT_1, TUNNEL_2].concat());
}

const DIRECT_1: &str = "route 10.244.1.0/24 via 192.168.77.1 dev eth0 proto 102\n";
const TUNNEL_1: &str = "route 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink proto 3\n";
const TUNNEL_2: &str = "route 10.244.2.0/24 via 10.244.2.0 dev flannel.1 onlink proto 3\n";
const TUNNEL_3: &str = "route 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink proto 3\n";

/// The routes in the kernel. Each through the tunnel has its entries, and no other route has.
fn shown(bench: &Bench) -> String {
    let kernel = &bench.kernel;
    let tunnelled = kernel
        .routes
        .values()
        .filter(|route| route.kind.link() == Some(&device_name()))
        .count();
    assert_eq!(
        (kernel.neighs.len(), kernel.fdb.len()),
        (tunnelled, tunnelled),
        "{kernel}"
    );
    let routes = State {
        routes: kernel.routes.clone(),
        ..State::default()
    };
    routes.to_string()
}

/// The changes of peers among some actions.
fn changes(actions: &[Action]) -> Vec<String> {
    let ops = actions.iter().filter_map(|action| {
        let Action::Kernel(Work::Apply(ops)) = action else {
            return None;
        };
        Some(ops)
    });
    let of_peers = |op: &&Op| {
        matches!(
            op.object(),
            ObjectKey::Route(_) | ObjectKey::Neigh(_) | ObjectKey::Fdb(_)
        )
    };
    ops.flatten().filter(of_peers).map(ToString::to_string).collect()
}

fn look_ups(actions: &[Action]) -> Vec<Vec<IpAddr>> {
    let asked = actions.iter().filter_map(|action| {
        let Action::LookUpRoutes(asked) = action else {
            return None;
        };
        Some(asked.iter().copied().collect())
    });
    asked.collect()
}
