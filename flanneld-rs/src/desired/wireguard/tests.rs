use std::collections::BTreeMap;

use flannel_types::Lease;

use super::super::{Peers, desired, scope};
use super::*;
use crate::desired::Way;
use crate::testing::{
    dual_lease, key, shared_wireguard, side, side_v6, wireguard, wireguard_key, wireguard_lease,
};

#[test]
fn each_family_has_a_device_a_route_for_all_pods_and_a_peer_a_lease() {
    let leases = [47, 84].map(wireguard_lease);
    let mut state = State::default();
    for side in [wireguard(side()), wireguard(side_v6())] {
        let peers = accepted(&side, &leases);
        join(&mut state, desired(&side, &peers, |_| Way::Carrier));
    }
    let [one, other] = [47, 84].map(wireguard_key);
    let expected = format!(
        "\
link flannel-wg wireguard mtu 1420 up
link flannel-wg-v6 wireguard mtu 1420 up
wireguard flannel-wg port 51820
wireguard flannel-wg-v6 port 51821
addr flannel-wg 10.244.250.0/32
addr flannel-wg-v6 fd00:10:244:fa::/128 nodad
wgpeer flannel-wg {one} endpoint 192.168.77.47:51820 allowed 10.244.47.0/24 psk
wgpeer flannel-wg {other} endpoint 192.168.77.84:51820 allowed 10.244.84.0/24 psk
wgpeer flannel-wg-v6 {one} endpoint [fd00:77::2f]:51821 allowed fd00:10:244:2f::/64 psk
wgpeer flannel-wg-v6 {other} endpoint [fd00:77::54]:51821 allowed fd00:10:244:54::/64 psk
route 10.244.0.0/16 dev flannel-wg proto 3
route fd00:10:244::/48 dev flannel-wg-v6 proto 3 metric 1024
"
    );
    assert_eq!(sorted(&state.to_string()), sorted(&expected));
}

#[test]
fn families_that_share_a_device_share_its_peers() {
    for (underlay, endpoint) in [
        (Underlay::Ipv4, "192.168.77.47:51820"),
        (Underlay::Ipv6, "[fd00:77::2f]:51821"),
        (Underlay::PreferIpv4, "192.168.77.47:51820"),
        // Both are private.
        (Underlay::PreferPublic, "192.168.77.47:51820"),
    ] {
        let mut state = State::default();
        for side in [side(), side_v6()] {
            let side = shared_wireguard(side, underlay);
            join(
                &mut state,
                desired(&side, &accepted(&side, &[wireguard_lease(47)]), |_| Way::Carrier),
            );
        }
        let peer = format!(
            "wgpeer flannel-wg {} endpoint {endpoint} allowed 10.244.47.0/24 allowed fd00:10:244:2f::/64 psk",
            wireguard_key(47)
        );
        let text = state.to_string();
        assert_eq!(text.matches("wgpeer").count(), 1, "{text}");
        assert!(text.lines().any(|line| line == peer), "{peer} is not in\n{text}");
        assert_eq!(text.matches("link flannel-wg").count(), 1, "{text}");
        let ours = scope([
            &shared_wireguard(side(), underlay),
            &shared_wireguard(side_v6(), underlay),
        ]);
        let inside = &ours.links[&"flannel-wg".parse().unwrap()].addrs_inside;
        assert!(inside.contains(&side().network) && inside.contains(&side_v6().network));
    }
}

#[test]
fn a_public_address_is_preferred_to_a_private_one() {
    let attrs = |v4: &str, v6: &str| LeaseAttrs {
        public_ip: Some(v4.parse().unwrap()),
        public_ipv6: Some(v6.parse().unwrap()),
        ..wireguard_lease(47).attrs
    };
    let rows = [
        ("10.0.0.1", "2001:db8::1", true),
        ("198.51.100.1", "2001:db8::1", false),
        ("10.0.0.1", "fd00::1", false),
    ];
    for (v4, v6, expected) in rows {
        assert_eq!(
            over_ipv6(Underlay::PreferPublic, &attrs(v4, v6)),
            expected,
            "{v4} {v6}"
        );
    }
}

#[test]
fn a_port_that_a_lease_does_not_tell_is_this_node_s() {
    let side = wireguard(side());
    for (port, expected) in [(",\"Port\":6000", 6000), ("", 51820), (",\"Port\":0", 51820)] {
        let mut lease = wireguard_lease(47);
        lease.attrs.backend_data = Some(format!("{{\"PublicKey\":\"{}\"{port}}}", wireguard_key(47)));
        let end = accepted(&side, &[lease]).into_values().next().unwrap().wireguard;
        assert_eq!(end.unwrap().endpoint.port(), expected, "{port}");
    }
}

#[test]
fn nodes_behind_one_address_are_told_by_port_and_key() {
    let side = wireguard(side());
    let own = side.wireguard().unwrap().public_key;
    let rows = [
        (
            wireguard_key(47),
            51820,
            "it announces the public IP of this node: it is an old lease",
        ),
        (wireguard_key(47), 51999, ""),
        (
            own,
            51999,
            "it announces the public key of this node: it is an old lease",
        ),
    ];
    for (public_key, port, problem) in rows {
        let mut lease = wireguard_lease(47);
        let IpAddr::V4(own_ip) = side.public_ip else {
            panic!("IPv4's")
        };
        lease.attrs.public_ip = Some(own_ip);
        let port = Some(port);
        lease.attrs.backend_data = Some(WireguardData { public_key, port }.to_json());
        let refused = divided(&side, &[lease]).refused.into_values().next();
        let told = refused.map(|problem| problem.to_string()).unwrap_or_default();
        assert!(
            told.starts_with(problem) && told.is_empty() == problem.is_empty(),
            "{told}"
        );
    }
}

#[test]
fn a_copied_machine_is_refused_and_waits_for_the_key() {
    let side = wireguard(side());
    let [first, mut copy] = [47, 84].map(wireguard_lease);
    copy.attrs.backend_data = first.attrs.backend_data.clone();
    let leases = [first.clone(), copy.clone()];
    let mut peers = divided(&side, &leases);
    let problem = peers.refused[&copy.key].to_string();
    assert!(
        problem.starts_with("it announces the same public key as the lease 10.244.47.0"),
        "{problem}"
    );
    peers.change(&side, first.key, |key| (*key == copy.key).then_some(&copy));
    assert_eq!(peers, divided(&side, &[copy.clone()]));
    assert!(peers.refused.is_empty());
}

#[test]
fn a_lease_without_data_or_address_of_a_family_is_refused_in_it() {
    let side = wireguard(side_v6());
    let mut no_data = wireguard_lease(47);
    no_data.attrs.backend_v6_data = None;
    let mut no_address = wireguard_lease(47);
    no_address.attrs.public_ipv6 = None;
    let of_vxlan = dual_lease(47, None);
    for (lease, expected) in [
        (no_data, "its backend data is unusable: it has none for IPv6"),
        (no_address, "it has an IPv6 subnet, but no public IPv6 address"),
        (of_vxlan, "its backend is \"vxlan\", not wireguard"),
    ] {
        let refused = divided(&side, &[lease]).refused;
        assert_eq!(refused.into_values().next().unwrap().to_string(), expected);
    }
    // A node of one family is no peer in the other.
    let mut v4_only = wireguard_lease(47);
    v4_only.key = key(47);
    assert_eq!(divided(&side, &[v4_only]), Peers::default());
}

fn divided(side: &Side, leases: &[Lease]) -> Peers {
    Peers::divide(side, leases.iter(), &Peers::default())
}

fn accepted(side: &Side, leases: &[Lease]) -> BTreeMap<IpNetwork, Peer> {
    let peers = divided(side, leases);
    assert!(peers.refused.is_empty(), "{:?}", peers.refused);
    peers.accepted
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    lines
}
