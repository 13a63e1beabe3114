use std::collections::BTreeMap;
use std::net::IpAddr;

use net_types::{MacAddr, Vni};

use super::*;
use crate::iptables::{IptablesFamily, IptablesVariant};
use crate::nft::{Family, Table, TableKey};
use crate::{Addr, FdbKey, Neigh, NeighKey, Nexthop, Route, RouteKey, RouteKind, SysctlKey};

#[test]
fn nothing_is_planned_when_nothing_differs() {
    let state = node(&[peer(1), peer(2)]);
    assert_eq!(plan(&state, &state, Prune::Remove), []);
}

#[test]
fn a_new_device_is_made_before_what_stands_on_it() {
    let desired = node(&[peer(1)]);

    let ops = plan(&desired, &State::default(), Prune::Remove);

    assert_eq!(
        kinds(&ops),
        [
            "add link",
            "set sysctl",
            "set link",
            "add addr",
            "set fdb",
            "set neigh",
            "add route"
        ]
    );
    assert_eq!(ops[2], Op::SetLink(device(), LinkChange::Admin(AdminState::Up)));
}

#[test]
fn routes_leave_a_device_for_a_steady_link_before_it_goes() {
    let observed = node(&[peer(1), peer(2)]);
    let subnet = peer(1).subnet;
    let moved: State = format!("route 10.244.{subnet}.0/24 via 192.168.77.1 dev eth0 proto 102")
        .parse()
        .unwrap();

    let ops = plan(&moved, &observed, Prune::Remove);

    assert_eq!(kinds(&ops), ["replace route", "del link"]);
    assert_eq!(plan(&moved, &observed, Prune::Keep), ops[..1]);
}

#[test]
fn a_peer_that_left_goes_route_first() {
    let ops = plan(&node(&[peer(1)]), &node(&[peer(1), peer(2)]), Prune::Remove);
    assert_eq!(kinds(&ops), ["del route", "del neigh", "del fdb"]);
}

#[test]
fn nothing_is_removed_while_the_desired_state_is_incomplete() {
    let mut observed = node(&[peer(1), peer(2)]);
    observed.addrs.insert(addr("10.244.9.0/32"), Addr::default());
    assert_eq!(plan(&node(&[]), &observed, Prune::Keep), []);
}

#[test]
fn a_peer_with_a_new_mac_gets_its_new_entries_before_the_old_go() {
    let mut moved = peer(2);
    moved.mac = mac(77);

    let ops = plan(&node(&[moved]), &node(&[peer(2)]), Prune::Remove);

    assert_eq!(kinds(&ops), ["set fdb", "set neigh", "del fdb"]);
}

#[test]
fn a_peer_at_a_new_address_has_its_forwarding_entry_replaced_not_removed() {
    let mut moved = peer(2);
    moved.remote = "192.168.77.99".parse().unwrap();
    let ops = plan(&node(&[moved]), &node(&[peer(2)]), Prune::Remove);
    assert_eq!(kinds(&ops), ["set fdb"]);
}

#[test]
fn peers_are_made_again_on_a_device_that_must_be_recreated() {
    let mut observed = node(&[peer(1)]);
    vxlan_of(&mut observed).port = 4789;

    let ops = plan(&node(&[peer(1)]), &observed, Prune::Keep);

    let expected = [
        "replace link",
        "set sysctl",
        "set link",
        "add addr",
        "set fdb",
        "set neigh",
        "add route",
    ];
    assert_eq!(kinds(&ops), expected);
}

#[test]
fn attributes_that_the_kernel_can_change_are_changed_in_place() {
    let mut observed = node(&[peer(1)]);
    vxlan_of(&mut observed).learning = true;
    vxlan_of(&mut observed).local = Some("192.168.77.200".parse().unwrap());
    observed.links.get_mut(&device()).unwrap().mtu_bytes = Some(1400);

    let ops = plan(&node(&[peer(1)]), &observed, Prune::Remove);

    assert_eq!(kinds(&ops), ["set link", "set link", "set link"]);
}

#[test]
fn a_device_of_the_other_family_is_made_anew() {
    for observed_local in [None, Some("192.168.77.200".parse().unwrap())] {
        let mut observed = node(&[]);
        vxlan_of(&mut observed).local = observed_local;
        let mut desired = node(&[]);
        vxlan_of(&mut desired).local = Some("fd00::1".parse().unwrap());
        let ops = plan(&desired, &observed, Prune::Keep);
        assert_eq!(kinds(&ops)[0], "replace link");
    }
}

#[test]
fn neighbours_are_made_again_when_the_device_gets_its_mac_back() {
    let mut observed = node(&[peer(1)]);
    observed.links.get_mut(&device()).unwrap().mac = Some(mac(66));
    let ops = plan(&node(&[peer(1)]), &observed, Prune::Remove);
    assert_eq!(kinds(&ops), ["set link", "set neigh"]);
}

#[test]
fn an_address_is_added_before_the_old_one_is_removed() {
    let mut observed = node(&[peer(1)]);
    observed.addrs.clear();
    observed.addrs.insert(addr("10.244.9.0/32"), Addr::default());
    let ops = plan(&node(&[peer(1)]), &observed, Prune::Remove);
    assert_eq!(kinds(&ops), ["add addr", "del addr"]);
}

#[test]
fn routes_are_made_again_when_the_last_address_must_go() {
    let mut desired = node(&[peer(1)]);
    desired.addrs.clear();
    let ops = plan(&desired, &node(&[peer(1)]), Prune::Remove);
    assert_eq!(kinds(&ops), ["del addr", "set neigh", "add route"]);
}

#[test]
fn a_route_of_ours_with_other_attributes_is_replaced_in_place() {
    let mut observed = node(&[peer(1)]);
    for route in observed.routes.values_mut() {
        route.protocol = 4;
    }
    let ops = plan(&node(&[peer(1)]), &observed, Prune::Remove);
    assert_eq!(kinds(&ops), ["replace route"]);
}

#[test]
fn a_tunnel_of_ip_in_ip_changes_its_local_address_and_is_replaced_if_it_is_bound_to_a_remote() {
    let state = |text: &str| text.parse::<State>().unwrap();
    let route = "route 10.244.2.0/24 via 192.168.77.2 dev flannel.ipip onlink proto 3";
    let desired = state(&format!(
        "link flannel.ipip ipip local 192.168.77.1 mtu 1480 up\n{route}"
    ));
    for (observed, changes) in [
        ("ipip local 192.168.77.1 mtu 1480 up", &[][..]),
        ("ipip local 192.168.77.9 mtu 1480 up", &["set link"][..]),
        ("ipip mtu 1300 up", &["set link", "set link"][..]),
        (
            "other ipip mtu 1480 up",
            &["replace link", "set link", "add route"][..],
        ),
    ] {
        let present = state(&format!("link flannel.ipip {observed}\n{route}"));
        assert_eq!(
            kinds(&plan(&desired, &present, Prune::Remove)),
            changes,
            "{observed}"
        );
    }
}

#[test]
fn a_parameter_that_the_kernel_lacks_is_not_written() {
    let mut observed = node(&[]);
    observed.sysctls.clear();
    assert_eq!(plan(&node(&[]), &observed, Prune::Remove), []);
}

struct Peer {
    subnet: u8,
    mac: MacAddr,
    remote: IpAddr,
}

fn peer(n: u8) -> Peer {
    Peer {
        subnet: n,
        mac: mac(n),
        remote: format!("192.168.77.{n}").parse().unwrap(),
    }
}

fn mac(n: u8) -> MacAddr {
    MacAddr::new([2, 0, 0, 0, 0, n])
}

fn device() -> IfName {
    IfName::new("flannel.1").unwrap()
}

fn addr(text: &str) -> AddrKey {
    AddrKey {
        link: device(),
        addr: text.parse().unwrap(),
    }
}

fn vxlan_of(state: &mut State) -> &mut Vxlan {
    let LinkKind::Vxlan(vxlan) = &mut state.links.get_mut(&device()).unwrap().kind else {
        panic!("flannel.1 is not a VXLAN device");
    };
    vxlan
}

fn node(peers: &[Peer]) -> State {
    let mut state = State::default();
    let vxlan = Vxlan {
        vni: Vni::DEFAULT,
        port: 8472,
        local: Some("192.168.77.250".parse().unwrap()),
        parent: Some(IfName::new("eth0").unwrap()),
        learning: false,
        gbp: false,
        tx_checksum: None,
    };
    let link = Link {
        kind: LinkKind::Vxlan(vxlan),
        mac: Some(mac(250)),
        mtu_bytes: Some(1450),
        admin: AdminState::Up,
        port: None,
    };
    state.links.insert(device(), link);
    state.addrs.insert(addr("10.244.250.0/32"), Addr::default());
    state
        .sysctls
        .insert(SysctlKey::of_link("ipv6", &device(), "accept_ra"), "0".to_owned());
    for peer in peers {
        let ip: IpAddr = format!("10.244.{}.0", peer.subnet).parse().unwrap();
        state.fdb.insert(FdbKey {
            link: device(),
            mac: peer.mac,
            remote: peer.remote,
        });
        state
            .neighs
            .insert(NeighKey { link: device(), ip }, Neigh { mac: peer.mac });
        let nexthop = Nexthop {
            link: device(),
            gateway: Some(ip),
            onlink: true,
        };
        let route = Route {
            kind: RouteKind::Unicast(nexthop),
            protocol: 3,
            source: None,
            mtu_bytes: None,
            advmss_bytes: None,
            scope: None,
        };
        state.routes.insert(
            RouteKey {
                table: 254,
                dst: format!("{ip}/24").parse().unwrap(),
                metric: 0,
            },
            route,
        );
    }
    state
}

fn kinds(ops: &[Op]) -> Vec<&'static str> {
    let kind = |op: &Op| match op {
        Op::AddLink(..) => "add link",
        Op::ReplaceLink(..) => "replace link",
        Op::SetLink(..) => "set link",
        Op::DelLink(..) => "del link",
        Op::AddAddr(..) => "add addr",
        Op::DelAddr(..) => "del addr",
        Op::AddRoute(..) => "add route",
        Op::ReplaceRoute(..) => "replace route",
        Op::DelRoute(..) => "del route",
        Op::SetNeigh(..) => "set neigh",
        Op::DelNeigh(..) => "del neigh",
        Op::SetFdb(..) => "set fdb",
        Op::DelFdb(..) => "del fdb",
        Op::SetWireguard(..) => "set wireguard",
        Op::SetWgPeer(..) => "set wgpeer",
        Op::DelWgPeer(_) => "del wgpeer",
        Op::SetSysctl(..) => "set sysctl",
        Op::SetNftTable(..) | Op::DelNftTable(_) | Op::SetIptables(..) => "rules",
    };
    ops.iter().map(kind).collect()
}

#[test]
fn rules_of_one_kind_come_before_those_of_another_go() {
    let key = IptablesKey {
        family: IptablesFamily::V4,
        variant: IptablesVariant::Nft,
        table: "nat".to_owned(),
    };
    let own = OwnRules {
        chains: BTreeMap::from([("OURS".to_owned(), vec!["-j RETURN".to_owned()])]),
        jumps: Vec::new(),
    };
    let table = TableKey {
        family: Family::Ip,
        name: "ours".to_owned(),
    };
    let of_nft = State {
        nft: BTreeMap::from([(table.clone(), Table::default())]),
        ..State::default()
    };
    let of_iptables = State {
        iptables: BTreeMap::from([(key.clone(), own.clone())]),
        ..State::default()
    };
    let change = |observed: &OwnRules, desired: &OwnRules| {
        let (observed, desired) = (observed.clone(), desired.clone());
        Op::SetIptables(key.clone(), Box::new(IptablesChange { observed, desired }))
    };
    let none = OwnRules::default();
    assert_eq!(
        plan(&of_nft, &of_iptables, Prune::Remove),
        [
            Op::SetNftTable(table.clone(), Table::default()),
            change(&own, &none)
        ]
    );
    assert_eq!(
        plan(&of_iptables, &of_nft, Prune::Remove),
        [change(&none, &own), Op::DelNftTable(table)]
    );
    assert_eq!(plan(&of_nft, &of_nft, Prune::Remove), []);
    assert_eq!(plan(&State::default(), &of_nft, Prune::Keep), []);
}
