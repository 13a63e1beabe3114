//! The facts that planning relies on, each shown by both kernels at once.

use netstate::ErrorClass;

use super::common::in_netns;
use super::twin::Twin;

const VXLAN: &str =
    "link x0 vxlan vni 1 port 8472 local 10.0.0.1 parent u0 nolearning mac 02:00:00:00:00:01 mtu 1450 down";
const ROUTE: &str = "route 10.2.0.0/24 via 10.2.0.0 dev x0 onlink proto 3";
const NEIGH: &str = "neigh x0 10.2.0.0 mac 02:00:00:00:00:02";
const FDB: &str = "fdb x0 02:00:00:00:00:02 remote 10.0.0.2";
const ADDR: &str = "addr x0 10.1.0.0/32";

/// Runs a test on an underlay `u0` with 10.0.0.1/24 and on it a VXLAN device `x0`, both up.
fn with_vxlan(test: impl FnOnce(&mut Twin) + Send + 'static) {
    in_netns(|| {
        let mut twin = Twin::new();
        twin.apply_all(
            "add link u0 veth peer u1 peermac 02:00:00:00:00:f1 mac 02:00:00:00:00:f0 mtu 1500 down
             set link u0 up
             set link u1 up
             add addr u0 10.0.0.1/24",
        );
        twin.apply_all(&format!("add {VXLAN}"));
        twin.apply_all("set link x0 up");
        test(&mut twin);
    });
}

/// Runs a test with a device that has its address and one peer.
fn with_peer(test: impl FnOnce(&mut Twin) + Send + 'static) {
    with_vxlan(|twin| {
        twin.apply_all(&format!("add {ADDR}\nset {NEIGH}\nset {FDB}\nadd {ROUTE}"));
        test(twin);
    });
}

#[test]
fn a_route_via_a_down_link_is_refused_but_neighbours_and_fdb_are_accepted() {
    with_vxlan(|twin| {
        twin.apply_all("set link x0 down");
        assert_eq!(twin.apply(&format!("add {ROUTE}")), Err(ErrorClass::LinkDown));
        twin.apply_all(&format!("add {ADDR}\nset {NEIGH}\nset {FDB}"));
        assert!(twin.holds(NEIGH) && twin.holds(FDB) && twin.holds(ADDR));
    });
}

#[test]
fn an_onlink_route_needs_no_address_and_another_does() {
    with_vxlan(|twin| {
        let unreachable = "add route 10.2.0.0/24 via 10.2.0.0 dev x0 proto 3";
        assert_eq!(twin.apply(unreachable), Err(ErrorClass::Unreachable));
        twin.apply_all(&format!("add {ROUTE}"));
        assert!(twin.holds(ROUTE));
    });
}

/// The gateway of such a route is found by the very route that is replaced.
#[test]
fn an_ipv6_route_moves_between_links_although_its_gateway_is_in_its_own_destination() {
    with_vxlan(|twin| {
        twin.apply_all("add addr u0 fd00::1/64 nodad");
        let plain = "route fd02::/64 via fd00::2 dev u0 proto 102 metric 1024";
        let tunnelled = "route fd02::/64 via fd02:: dev x0 onlink proto 3 metric 1024";
        twin.apply_all(&format!("add {plain}"));
        for route in [tunnelled, plain, tunnelled, tunnelled] {
            twin.apply_all(&format!("replace {route}"));
            assert!(twin.holds(route) && !twin.holds("route fd02::/128"));
        }
        twin.apply_all(&format!("del {tunnelled}"));
        // What an earlier life left half-done is neither in the way nor stays.
        let stone = "route fd02::/128 dev x0 proto 3 metric 1024";
        twin.apply_all(&format!("add {plain}\nadd {stone}\nreplace {tunnelled}"));
        assert!(twin.holds(tunnelled) && !twin.holds(stone));
        // A stranger's route to the gateway is: the change is refused, and nothing of theirs is touched.
        let strangers = "route fd02::/128 via fd00::3 dev u0 proto 80 metric 1024";
        twin.apply_all(&format!("replace {plain}\nadd {strangers}"));
        assert!(twin.apply(&format!("replace {tunnelled}")).is_err());
        assert!(twin.holds(plain) && twin.holds(strangers));
    });
}

#[test]
fn an_ipv6_route_is_made_although_another_one_leads_its_gateway_elsewhere() {
    with_vxlan(|twin| {
        twin.apply_all("add addr u0 fd00::1/64 nodad");
        let covering = "route fd00::/8 via fd00::3 dev u0 proto 80 metric 1024";
        let tunnelled = "route fd02::/64 via fd02:: dev x0 onlink proto 3 metric 1024";
        twin.apply_all(&format!("add {covering}\nadd {tunnelled}"));
        assert!(twin.holds(tunnelled) && twin.holds(covering) && !twin.holds("route fd02::/128"));
        // A stranger's route to the gateway is not touched.
        let strangers = "route fd03::/128 via fd00::3 dev u0 proto 80 metric 1024";
        twin.apply_all(&format!("add {strangers}"));
        let refused = "add route fd03::/64 via fd03:: dev x0 onlink proto 3 metric 1024";
        assert!(twin.apply(refused).is_err());
        assert!(twin.holds(strangers));
    });
}

#[test]
fn link_down_flushes_routes_neighbours_and_ipv6_addresses_and_up_restores_none() {
    with_peer(|twin| {
        twin.apply_all(
            "add addr x0 fd01::/128 nodad
             set neigh x0 fd02:: mac 02:00:00:00:00:02
             add route fd02::/64 via fd02:: dev x0 onlink proto 3
             set link x0 down",
        );
        for _ in 0..2 {
            assert!(!twin.holds("route") && !twin.holds("neigh") && !twin.holds("addr x0 fd01"));
            assert!(twin.holds(ADDR) && twin.holds(FDB));
            twin.apply_all("set link x0 up");
        }
    });
}

#[test]
fn the_last_ipv4_address_takes_ipv4_routes_and_neighbours_along() {
    with_peer(|twin| {
        twin.apply_all(
            "set neigh x0 fd02:: mac 02:00:00:00:00:02
             add route fd02::/64 via fd02:: dev x0 onlink proto 3 metric 1024",
        );
        twin.apply_all(&format!("del {ADDR}"));
        assert!(!twin.holds(ROUTE) && !twin.holds(NEIGH));
        assert!(twin.holds(FDB) && twin.holds("route fd02::/64") && twin.holds("neigh x0 fd02::"));
    });
}

#[test]
fn a_new_address_added_first_keeps_routes_and_neighbours() {
    with_peer(|twin| {
        twin.apply_all(&format!("add addr x0 10.1.1.0/32\ndel {ADDR}"));
        assert!(twin.holds(ROUTE) && twin.holds(NEIGH) && twin.holds(FDB));
    });
}

#[test]
fn setting_the_mac_flushes_neighbours_even_if_it_is_the_same() {
    with_peer(|twin| {
        twin.apply_all("set link x0 mac 02:00:00:00:00:01");
        assert!(!twin.holds(NEIGH));
        assert!(twin.holds(ROUTE) && twin.holds(FDB) && twin.holds(ADDR));
    });
}

#[test]
fn an_mtu_change_flushes_nothing() {
    with_peer(|twin| {
        twin.apply_all("set link x0 mtu 1400");
        assert!(twin.holds(NEIGH) && twin.holds(ROUTE) && twin.holds(FDB) && twin.holds(ADDR));
    });
}

#[test]
fn an_mtu_above_the_parents_is_refused_and_at_creation_lowered() {
    with_vxlan(|twin| {
        assert_eq!(twin.apply("set link x0 mtu 1451"), Err(ErrorClass::Other(22)));
        twin.apply_all("del link x0");
        twin.apply_all(&format!("add {}", VXLAN.replace("mtu 1450", "mtu 1500")));
        let made = VXLAN.replace(" mac", " txcsum mac");
        assert!(twin.holds(&made), "the MTU is 1450");
    });
}

#[test]
fn deleting_the_underlay_deletes_the_vxlan_device_and_underlay_down_does_not() {
    with_peer(|twin| {
        twin.apply_all("set link u0 down");
        assert!(twin.holds("link x0 ") && twin.holds(ROUTE) && twin.holds(NEIGH) && twin.holds(FDB));
        twin.apply_all("del link u0");
        assert!(!twin.holds("link x0 ") && !twin.holds(ROUTE));
        assert_eq!(twin.apply("set link x0 up"), Err(ErrorClass::NoDevice));
    });
}

#[test]
fn learning_and_local_change_in_place() {
    with_peer(|twin| {
        twin.apply_all("set link x0 learning\nset link x0 local 10.0.0.9");
        assert!(twin.holds("link x0 vxlan vni 1 port 8472 local 10.0.0.9 parent u0 learning"));
        assert!(twin.holds(NEIGH) && twin.holds(ROUTE) && twin.holds(FDB) && twin.holds(ADDR));
    });
}

#[test]
fn a_second_vxlan_device_with_equal_vni_and_port_is_refused() {
    with_vxlan(|twin| {
        let second = format!("add {VXLAN}").replace("x0", "x1");
        assert_eq!(twin.apply(&second), Err(ErrorClass::Exists));
        let [fake, real] = twin.refusals(&second);
        assert_eq!(fake, real);
        assert!(real.starts_with("the link \"x0\" already has VNI 1"), "{real}");
        twin.apply_all(&second.replace("vni 1", "vni 2"));
        twin.apply_all("del link x1");
        twin.apply_all(&second.replace("port 8472", "port 4789"));
    });
}

#[test]
fn a_route_replaces_that_of_equal_destination_and_metric_across_links() {
    with_peer(|twin| {
        let other = "route 10.2.0.0/24 via 10.0.0.2 dev u0 proto 80";
        twin.apply_all(&format!("replace {other}"));
        assert!(twin.holds(other) && !twin.holds(ROUTE));
        twin.apply_all(&format!("replace {ROUTE}"));
        assert!(twin.holds(ROUTE) && !twin.holds(other));
    });
}

#[test]
fn a_route_of_another_metric_stands_beside() {
    with_peer(|twin| {
        twin.apply_all(&format!("replace {ROUTE} metric 100"));
        assert!(twin.holds(&format!("{ROUTE} metric 100")) && twin.holds(ROUTE));
    });
}

#[test]
fn a_route_of_another_protocol_is_not_found_for_deletion() {
    with_peer(|twin| {
        let other = ROUTE.replace("proto 3", "proto 80");
        assert_eq!(twin.apply(&format!("del {other}")), Err(ErrorClass::NotFound));
        assert!(twin.holds(ROUTE));
    });
}

#[test]
fn a_deletion_without_metric_takes_a_route_of_any_metric() {
    with_vxlan(|twin| {
        twin.apply_all(&format!("add {ROUTE} metric 100\ndel {ROUTE}"));
        assert!(!twin.holds(ROUTE));
    });
}

#[test]
fn an_ipv6_route_without_metric_is_stored_with_1024() {
    with_vxlan(|twin| {
        let route = "route fd02::/64 via fd02:: dev x0 onlink proto 3";
        twin.apply_all(&format!("add {route}"));
        assert!(twin.holds(&format!("{route} metric 1024")));
    });
}

#[test]
fn a_wrong_remote_is_deleted_with_success_and_without_effect() {
    with_peer(|twin| {
        twin.apply_all("del fdb x0 02:00:00:00:00:02 remote 10.0.0.9");
        assert!(twin.holds(FDB));
    });
}

#[test]
fn a_forwarding_entry_is_replaced_in_place() {
    with_peer(|twin| {
        let moved = "fdb x0 02:00:00:00:00:02 remote 10.0.0.9";
        twin.apply_all(&format!("set {moved}"));
        assert!(twin.holds(moved) && !twin.holds(FDB));
    });
}

#[test]
fn refusals_have_their_classes() {
    with_peer(|twin| {
        for (change, class) in [
            (format!("add {VXLAN}"), ErrorClass::Exists),
            (format!("add {ADDR}"), ErrorClass::Exists),
            (format!("add {ROUTE}"), ErrorClass::Exists),
            ("add addr x1 10.0.0.1/32".to_owned(), ErrorClass::NoDevice),
            ("del link x1".to_owned(), ErrorClass::NoDevice),
            ("del addr x0 10.9.0.0/32".to_owned(), ErrorClass::NotFound),
            ("del neigh x0 10.9.0.0".to_owned(), ErrorClass::NotFound),
            (
                "del fdb x0 02:00:00:00:00:09 remote 10.0.0.2".to_owned(),
                ErrorClass::NotFound,
            ),
            (
                "del route 10.9.0.0/24 dev x0 proto 3".to_owned(),
                ErrorClass::NotFound,
            ),
            (
                "set sysctl net/ipv6/conf/x1/accept_ra 0".to_owned(),
                ErrorClass::NotFound,
            ),
            ("set link x0 master u0".to_owned(), ErrorClass::Unsupported),
        ] {
            assert_eq!(twin.apply(&change), Err(class), "{change}");
        }
    });
}

#[test]
fn a_bridge_takes_mac_and_mtu_from_its_ports_unless_they_were_chosen() {
    in_netns(|| {
        let mut twin = Twin::new();
        twin.apply_all(
            "add link p0 veth peer p1 peermac 02:00:00:00:00:02 mac 02:00:00:00:00:01 mtu 1450 down
             add link b0 bridge mac 02:00:00:00:00:b0 mtu 1400 down
             set link p0 master b0",
        );
        let bridge = |mtu: u32| format!("link b0 bridge mac 02:00:00:00:00:b0 mtu {mtu}");
        assert!(twin.holds(&bridge(1450)), "an MTU given at creation is not kept");
        twin.apply_all("set link b0 mtu 1400\nset link p0 mtu 1300");
        assert!(twin.holds(&bridge(1400)), "an MTU that was set is kept");
        twin.apply_all("del link p0");
        assert!(twin.holds(&bridge(1400)));
    });
}

#[test]
fn the_primary_address_takes_its_secondaries_along() {
    with_vxlan(|twin| {
        twin.apply_all("add addr u0 10.0.0.2/24\ndel addr u0 10.0.0.1/24");
        assert!(!twin.holds("addr u0"));
    });
}

#[test]
fn a_port_has_its_hairpin_flag_from_the_start() {
    in_netns(|| {
        let mut twin = Twin::new();
        twin.apply_all(
            "add link b0 bridge mac 02:00:00:00:00:b0 down
             add link p0 veth peer p1 peermac 02:00:00:00:00:02 mac 02:00:00:00:00:01 down master b0 hairpin",
        );
        assert!(twin.holds("link p0 veth mac 02:00:00:00:00:01 mtu 1500 down master b0 hairpin"));
        twin.apply_all("set link p0 master b0");
        assert!(twin.holds("link p0 veth mac 02:00:00:00:00:01 mtu 1500 down master b0"));
    });
}
