//! What `plan` promises, on random states of a kernel in memory.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::collections::BTreeSet;
use std::net::IpAddr;

use fake_kernel::FakeKernel;
use ipnetwork::IpNetwork;
use net_types::{IfName, MacAddr, Vni, WgPublicKey, WgSecret};
use netstate::{
    Addr, AddrKey, AdminState, FdbKey, Kernel, Link, LinkChange, LinkKind, LinkScope, Neigh, NeighKey,
    Nexthop, ObjectKey, Op, Prune, Route, RouteKey, RouteKind, Scope, State, SysctlKey, Vxlan, WgPeer,
    WgPeerKey, Wireguard, plan,
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn one_pass_leaves_nothing_to_do(desired in node(), history in history()) {
        let mut kernel = kernel_after(&history);
        apply_plan(&mut kernel, &desired, Prune::Remove);
        let again = plan(&desired, &kernel.observe(&scope()).unwrap(), Prune::Remove);
        prop_assert!(again.is_empty(), "left to do: {again:?}");
    }

    #[test]
    fn every_change_of_a_plan_is_accepted(desired in node(), history in history()) {
        let mut kernel = kernel_after(&history);
        let refused = apply_plan(&mut kernel, &desired, Prune::Remove);
        prop_assert!(refused.is_empty(), "{refused:?}");
    }

    #[test]
    fn nothing_outside_the_scope_changes(desired in node(), history in history()) {
        let mut kernel = kernel_after(&history);
        let before = foreign(&kernel);
        apply_plan(&mut kernel, &desired, Prune::Remove);
        prop_assert_eq!(foreign(&kernel), before);
    }

    #[test]
    fn without_pruning_nothing_observed_goes_but_what_the_kernel_flushes(
        desired in node(),
        history in history(),
    ) {
        let mut kernel = kernel_after(&history);
        let observed = kernel.observe(&scope()).unwrap();
        let ops = plan(&desired, &observed, Prune::Keep);
        let keeps = |op: &Op| match op {
            Op::DelLink(_) | Op::DelAddr(_) | Op::DelRoute(..) | Op::DelNeigh(_) | Op::DelFdb(_) | Op::DelWgPeer(_) => false,
            Op::AddLink(..)
            | Op::ReplaceLink(..)
            | Op::SetLink(..)
            | Op::AddAddr(..)
            | Op::AddRoute(..)
            | Op::ReplaceRoute(..)
            | Op::SetNeigh(..)
            | Op::SetFdb(..)
            | Op::SetWireguard(..)
            | Op::SetWgPeer(..)
            | Op::SetSysctl(..)
            | Op::SetNftTable(..)
            | Op::DelNftTable(_)
            | Op::SetIptables(..) => true,
        };
        prop_assert!(ops.iter().all(keeps), "{ops:?}");
    }

    #[test]
    fn a_plan_is_minimal(desired in node(), history in history()) {
        let observed = kernel_after(&history).observe(&scope()).unwrap();
        let ops = plan(&desired, &observed, Prune::Remove);
        let mut seen = BTreeSet::new();
        for op in &ops {
            let text = format!("{op:?}");
            prop_assert!(seen.insert(text), "twice: {op:?}");
        }
        let recreated = ops.iter().any(|op| matches!(op, Op::AddLink(..) | Op::ReplaceLink(..)));
        if !recreated && desired.addrs.is_empty() == observed.addrs.is_empty() {
            let mac_set = ops.iter().any(|op| matches!(op, Op::SetLink(_, LinkChange::Mac(_))));
            for op in &ops {
                let unchanged = match op.object() {
                    ObjectKey::Route(key) => desired.routes.get(&key) == observed.routes.get(&key),
                    ObjectKey::Neigh(key) => !mac_set && desired.neighs.get(&key) == observed.neighs.get(&key),
                    ObjectKey::Fdb(key) => desired.fdb.contains(&key) == observed.fdb.contains(&key),
                    ObjectKey::Addr(key) => desired.addrs.contains_key(&key) == observed.addrs.contains_key(&key),
                    ObjectKey::WgPeer(key) => desired.wg_peers.get(&key) == observed.wg_peers.get(&key),
                    ObjectKey::Wireguard(link) => desired.wireguard.get(&link) == observed.wireguard.get(&link),
                    ObjectKey::Link(_)
                    | ObjectKey::Sysctl(_)
                    | ObjectKey::NftTable(_)
                    | ObjectKey::Iptables(_) => false,
                };
                prop_assert!(!unchanged, "needless: {op:?}");
            }
        }
    }

    #[test]
    fn a_peer_that_stays_is_reachable_after_every_single_change(
        desired in node_on_default_device(),
        leaving in peers(),
    ) {
        let mut with_old = desired.clone();
        for (subnet, mac, remote) in leaving {
            add_peer(&mut with_old, subnet, mac, remote);
        }
        let mut kernel = kernel_after(&[]);
        apply_plan(&mut kernel, &with_old, Prune::Remove);
        let observed = kernel.observe(&scope()).unwrap();
        for op in plan(&desired, &observed, Prune::Remove) {
            kernel.apply(std::slice::from_ref(&op));
            let now = kernel.observe(&scope()).unwrap();
            for (key, route) in desired.routes.iter().filter(|(key, _)| observed.routes.contains_key(key)) {
                prop_assert_eq!(now.routes.get(key), Some(route), "after {:?}", op);
            }
        }
    }
}

proptest! {
    #[test]
    fn wireguard_is_as_desired_after_one_pass_whatever_was_there(
        before in wireguard_node(),
        desired in wireguard_node(),
        strangers in proptest::collection::vec(wireguard_edit(), 0..4),
    ) {
        let mut kernel = kernel_after(&[Past::Made(Box::new(before))]);
        kernel.apply(&strangers);
        let refused = apply_plan(&mut kernel, &desired, Prune::Remove);
        prop_assert!(refused.is_empty(), "{refused:?}");
        let observed = kernel.observe(&scope()).unwrap();
        prop_assert_eq!(&observed.wg_peers, &desired.wg_peers);
        prop_assert_eq!(plan(&desired, &observed, Prune::Remove), vec![]);
    }
}

/// Which peers there are, with what: keys are given to other subnets, and subnets to other keys.
fn wireguard_node() -> impl Strategy<Value = State> {
    let peers = proptest::collection::btree_map(1..5_u8, (1..5_u8, any::<bool>(), 1..3_u8), 0..4);
    (peers, 1..3_u8, 1..3_u16).prop_map(|(by_subnet, private, port)| {
        let mut state = State::default();
        let link = Link {
            kind: LinkKind::Wireguard,
            mac: None,
            mtu_bytes: Some(1420),
            admin: AdminState::Up,
            port: None,
        };
        state.links.insert(name(), link);
        let device = Wireguard {
            private_key: Some(WgSecret::new([private; 32])),
            listen_port: port,
        };
        state.wireguard.insert(name(), device);
        for (subnet, (key, psk, endpoint)) in by_subnet {
            let allowed = route_key(subnet).dst;
            let peer = state
                .wg_peers
                .entry(wg_key(key))
                .or_insert_with(|| wg_peer(psk, endpoint));
            peer.allowed_ips.insert(allowed);
        }
        state
    })
}

fn wireguard_edit() -> impl Strategy<Value = Op> {
    prop_oneof![
        (1..6_u8).prop_map(|key| Op::DelWgPeer(wg_key(key))),
        (1..6_u8, 1..5_u8, any::<bool>()).prop_map(|(key, subnet, psk)| {
            let mut peer = wg_peer(psk, 9);
            peer.allowed_ips.insert(route_key(subnet).dst);
            Op::SetWgPeer(wg_key(key), peer)
        }),
        Just(Op::DelLink(name())),
    ]
}

fn wg_key(n: u8) -> WgPeerKey {
    WgPeerKey {
        link: name(),
        public_key: WgPublicKey::new([n; 32]),
    }
}

fn wg_peer(psk: bool, endpoint: u8) -> WgPeer {
    WgPeer {
        preshared_key: psk.then(|| WgSecret::new([9; 32])),
        endpoint: Some((IpAddr::from([192, 168, 77, endpoint]), 51820).into()),
        keepalive_secs: 0,
        allowed_ips: BTreeSet::new(),
        answers: false,
    }
}

/// A subnet number, the last octet of a MAC, the last octet of an outer address.
type PeerNumbers = (u8, u8, u8);

fn peers() -> impl Strategy<Value = Vec<PeerNumbers>> {
    // A MAC belongs to one node, as `flanneld` makes sure.
    proptest::collection::btree_map(1..6_u8, (1..6_u8, 1..5_u8), 0..5).prop_map(|by_mac| {
        by_mac
            .into_iter()
            .map(|(mac, (subnet, remote))| (subnet, mac, remote))
            .collect()
    })
}

fn node_on_default_device() -> impl Strategy<Value = State> {
    peers().prop_map(|peers| node_with(&peers, &device(250, 8472, 1450), Some(250)))
}

fn node() -> impl Strategy<Value = State> {
    let link = (
        249..=250_u8,
        prop_oneof![Just(8472_u16), Just(4789)],
        prop_oneof![Just(1450_u32), Just(1400)],
    );
    (peers(), link, proptest::option::of(249..=250_u8))
        .prop_map(|(peers, (mac, port, mtu), addr)| node_with(&peers, &device(mac, port, mtu), addr))
}

/// What happened to a kernel before: states that an earlier daemon made, and strangers' edits.
#[derive(Debug, Clone)]
enum Past {
    Made(Box<State>),
    Edited(Op),
}

fn history() -> impl Strategy<Value = Vec<Past>> {
    let edit = prop_oneof![
        Just(Op::DelLink(name())),
        any::<bool>().prop_map(|up| {
            Op::SetLink(
                name(),
                LinkChange::Admin(if up { AdminState::Up } else { AdminState::Down }),
            )
        }),
        (1..9_u8).prop_map(|n| Op::SetLink(name(), LinkChange::Mac(mac(n)))),
        (1..9_u8).prop_map(|n| Op::DelNeigh(neigh_key(n))),
        (1..9_u8, 1..9_u8).prop_map(|(n, m)| Op::SetNeigh(neigh_key(n), Neigh { mac: mac(m) })),
        (1..9_u8, 1..9_u8).prop_map(|(m, r)| Op::SetFdb(fdb_key(m, r))),
        (1..9_u8, 1..9_u8).prop_map(|(m, r)| Op::DelFdb(fdb_key(m, r))),
        (1..9_u8, 1..9_u8).prop_map(|(n, via)| Op::AddRoute(route_key(n), route(via, 4))),
        (1..9_u8).prop_map(|n| Op::DelRoute(route_key(n), route(n, 3))),
        prop_oneof![249..=251_u8, 1..9_u8].prop_map(|n| Op::AddAddr(addr_key(n), Addr::default())),
        (249..=251_u8).prop_map(|n| Op::DelAddr(addr_key(n))),
    ];
    let past = prop_oneof![2 => node().prop_map(|state| Past::Made(Box::new(state))), 5 => edit.prop_map(Past::Edited)];
    proptest::collection::vec(past, 0..8)
}

fn kernel_after(history: &[Past]) -> FakeKernel {
    let mut kernel = FakeKernel::new();
    kernel
        .add_physical(
            &eth0(),
            MacAddr::new([2, 9, 9, 9, 9, 9]),
            "192.168.77.250/24".parse().unwrap(),
        )
        .unwrap();
    let foreign = RouteKey {
        table: 254,
        dst: "10.99.0.0/16".parse().unwrap(),
        metric: 0,
    };
    let nexthop = Nexthop {
        link: eth0(),
        gateway: Some("192.168.77.1".parse().unwrap()),
        onlink: false,
    };
    let route = Route {
        kind: RouteKind::Unicast(nexthop),
        protocol: 4,
        source: None,
        mtu_bytes: None,
        advmss_bytes: None,
        scope: None,
    };
    kernel.edit(&Op::AddRoute(foreign, route)).unwrap();
    kernel
        .edit(&Op::SetNeigh(
            NeighKey {
                link: eth0(),
                ip: ip("192.168.77.1"),
            },
            Neigh { mac: mac(99) },
        ))
        .unwrap();
    for past in history {
        match past {
            Past::Made(state) => {
                apply_plan(&mut kernel, state, Prune::Remove);
            }
            Past::Edited(op) => {
                kernel.apply(std::slice::from_ref(op));
            }
        }
    }
    kernel
}

/// Returns the changes that were refused.
fn apply_plan(kernel: &mut FakeKernel, desired: &State, prune: Prune) -> Vec<String> {
    let ops = plan(desired, &kernel.observe(&scope()).unwrap(), prune);
    let results = kernel.apply(&ops);
    let refused = ops
        .iter()
        .zip(results)
        .filter_map(|(op, result)| result.err().map(|err| format!("{op:?}: {err}")));
    refused.collect()
}

/// All that the kernel holds outside our device.
fn foreign(kernel: &FakeKernel) -> State {
    let mut state = kernel.dump();
    state.links.remove(&name());
    state.addrs.retain(|key, _| key.link != name());
    state.routes.retain(|_, route| route.kind.link() != Some(&name()));
    state.neighs.retain(|key, _| key.link != name());
    state.fdb.retain(|key| key.link != name());
    state.sysctls.retain(|key, _| !key.as_str().contains("flannel.1"));
    state
}

fn scope() -> Scope {
    let mut scope = Scope::default();
    let network: IpNetwork = "10.244.0.0/16".parse().unwrap();
    scope.links.insert(
        name(),
        LinkScope {
            addrs_inside: vec![network],
            neighs: true,
            fdb: true,
            routes: true,
            wireguard: true,
            ..LinkScope::default()
        },
    );
    scope.sysctls.insert(accept_ra());
    scope
}

fn device(mac_number: u8, port: u16, mtu: u32) -> Link {
    let vxlan = Vxlan {
        vni: Vni::DEFAULT,
        port,
        local: Some(ip("192.168.77.250")),
        parent: Some(eth0()),
        learning: false,
        gbp: false,
        tx_checksum: None,
    };
    Link {
        kind: LinkKind::Vxlan(vxlan),
        mac: Some(mac(mac_number)),
        mtu_bytes: Some(mtu),
        admin: AdminState::Up,
        port: None,
    }
}

fn node_with(peers: &[PeerNumbers], link: &Link, addr: Option<u8>) -> State {
    let mut state = State::default();
    state.links.insert(name(), link.clone());
    state.sysctls.insert(accept_ra(), "0".to_owned());
    if let Some(n) = addr {
        state.addrs.insert(addr_key(n), Addr::default());
    }
    for (subnet, mac, remote) in peers {
        add_peer(&mut state, *subnet, *mac, *remote);
    }
    state
}

fn add_peer(state: &mut State, subnet: u8, mac_number: u8, remote: u8) {
    state.fdb.retain(|key| key.mac != mac(mac_number));
    state.fdb.insert(fdb_key(mac_number, remote));
    state
        .neighs
        .insert(neigh_key(subnet), Neigh { mac: mac(mac_number) });
    state.routes.insert(route_key(subnet), route(subnet, 3));
}

fn route(via: u8, protocol: u8) -> Route {
    let nexthop = Nexthop {
        link: name(),
        gateway: Some(IpAddr::from([10, 244, via, 0])),
        onlink: true,
    };
    Route {
        kind: RouteKind::Unicast(nexthop),
        protocol,
        source: None,
        mtu_bytes: None,
        advmss_bytes: None,
        scope: None,
    }
}

fn route_key(n: u8) -> RouteKey {
    RouteKey {
        table: 254,
        dst: format!("10.244.{n}.0/24").parse().unwrap(),
        metric: 0,
    }
}

fn neigh_key(n: u8) -> NeighKey {
    NeighKey {
        link: name(),
        ip: IpAddr::from([10, 244, n, 0]),
    }
}

fn fdb_key(mac_number: u8, remote: u8) -> FdbKey {
    FdbKey {
        link: name(),
        mac: mac(mac_number),
        remote: IpAddr::from([192, 168, 77, remote]),
    }
}

fn addr_key(n: u8) -> AddrKey {
    AddrKey {
        link: name(),
        addr: format!("10.244.{n}.0/32").parse().unwrap(),
    }
}

fn accept_ra() -> SysctlKey {
    SysctlKey::of_link("ipv6", &name(), "accept_ra")
}

fn name() -> IfName {
    IfName::new("flannel.1").unwrap()
}

fn eth0() -> IfName {
    IfName::new("eth0").unwrap()
}

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}
