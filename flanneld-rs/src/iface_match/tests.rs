use netlink::inventory::{AddrScope, DefaultRoute, HostAddr};
use netstate::AdminState;
use regex::bytes::RegexBuilder;

use super::*;

const NO_FLAGS: [&str; 0] = [];
const NO_PUBLIC: PublicAddrs = PublicAddrs { v4: None, v6: None };
const V4: Families = Families { v4: true, v6: false };
const V6: Families = Families { v4: false, v6: true };
const DUAL: Families = Families { v4: true, v6: true };

#[test]
fn without_flags_the_default_route_decides() {
    let chosen = choose(&flags(NO_FLAGS), NO_PUBLIC, V4, &vagrant(), None).unwrap();
    assert_eq!(chosen, external("eth0", "10.0.2.15", "10.0.2.15", 1500));
}

#[test]
fn the_default_route_of_the_smallest_metric_decides() {
    let mut host = vagrant();
    host.default_routes_v4 = vec![default_via("eth1"), default_via("eth0")];
    assert_eq!(chosen(&flags(NO_FLAGS), &host), ("eth1", "192.168.56.11"));
}

#[test]
fn without_a_default_route_the_error_names_the_candidates_and_the_way_out() {
    let mut host = vagrant();
    host.default_routes_v4.clear();
    assert_eq!(
        error(&flags(NO_FLAGS), &host),
        "unable to find default route: choose an interface with --iface; this host has eth0 (10.0.2.15), eth1 \
         (192.168.56.11)"
    );
}

#[test]
fn of_a_default_route_over_several_interfaces_the_first_by_name_is_chosen_whatever_their_order() {
    for order in [["eth1", "eth0", "eth1"], ["eth0", "eth1", "eth0"]] {
        let mut host = vagrant();
        host.default_routes_v4 = vec![default_over(&order)];
        let chosen = choose(&flags(NO_FLAGS), NO_PUBLIC, V4, &host, None).unwrap();
        assert_eq!(chosen.link, name("eth0"));
        assert_eq!(chosen.alternatives, [name("eth1")]);
    }
}

#[test]
fn of_a_default_route_over_several_interfaces_one_without_ipv4_is_passed_over() {
    let mut host = vagrant();
    host.links.push(link(5, "a-tun", &["2001:db8::5/64"]));
    host.default_routes_v4 = vec![default_over(&["a-tun", "eth1"])];
    assert_eq!(chosen(&flags(NO_FLAGS), &host), ("eth1", "192.168.56.11"));
}

#[test]
fn two_gateways_on_one_interface_leave_no_choice() {
    let mut host = vagrant();
    host.default_routes_v4 = vec![default_over(&["eth1", "eth1"])];
    let chosen = choose(&flags(NO_FLAGS), NO_PUBLIC, V4, &host, None).unwrap();
    assert_eq!((chosen.link, chosen.alternatives), (name("eth1"), Vec::new()));
}

#[test]
fn a_default_route_with_hidden_next_hops_is_an_error_that_names_the_way_out() {
    let mut host = vagrant();
    host.default_routes_v4 = vec![default_over(&[])];
    let text = error(&flags(NO_FLAGS), &host);
    assert!(
        text.starts_with("found default route but could not determine interface"),
        "{text}"
    );
    assert!(
        text.contains("choose an interface with --iface; this host has eth0"),
        "{text}"
    );
}

#[test]
fn a_default_route_by_an_interface_without_ipv4_is_an_error() {
    let mut host = vagrant();
    host.links.push(link(5, "tun0", &["2001:db8::5/64"]));
    host.default_routes_v4 = vec![default_via("tun0")];
    assert!(error(&flags(NO_FLAGS), &host).starts_with("failed to find IPv4 address for interface tun0: "));
}

#[test]
fn without_flags_the_owner_of_the_public_address_is_chosen() {
    let public = Ipv4Addr::new(192, 168, 56, 11);
    let chosen = choose(&flags(NO_FLAGS), public_v4(public), V4, &vagrant(), None).unwrap();
    assert_eq!(chosen, external("eth1", "192.168.56.11", "192.168.56.11", 1500));
}

#[test]
fn a_public_address_that_no_interface_has_needs_an_interface_flag() {
    let public = Ipv4Addr::new(203, 0, 113, 7);
    let error = choose(&flags(NO_FLAGS), public_v4(public), V4, &vagrant(), None)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "no interface with given IP found (203.0.113.7): choose an interface with --iface; this host has eth0 \
         (10.0.2.15), eth1 (192.168.56.11)"
    );
    let chosen = choose(&flags(["eth1"]), public_v4(public), V4, &vagrant(), None).unwrap();
    assert_eq!(chosen, external("eth1", "192.168.56.11", "203.0.113.7", 1500));
}

#[test]
fn an_interface_is_chosen_by_name_or_by_address() {
    assert_eq!(chosen(&flags(["eth1"]), &vagrant()), ("eth1", "192.168.56.11"));
    assert_eq!(
        chosen(&flags(["192.168.56.11"]), &vagrant()),
        ("eth1", "192.168.56.11")
    );
}

#[test]
fn the_address_that_names_an_interface_is_the_one_used() {
    let mut host = vagrant();
    let mut second = addr("192.168.56.99/24");
    second.temporary = true;
    second.deprecated = true;
    host.links[2].addrs.push(second);
    assert_eq!(
        chosen(&flags(["192.168.56.99"]), &host),
        ("eth1", "192.168.56.99")
    );
}

#[test]
fn an_ipv6_address_chooses_its_owner_whose_ipv4_address_is_used() {
    let mut host = vagrant();
    host.links[2].addrs.insert(0, addr("2001:db8::11/64"));
    assert_eq!(chosen(&flags(["2001:db8::11"]), &host), ("eth1", "192.168.56.11"));
}

#[test]
fn the_first_interface_flag_that_leads_somewhere_counts() {
    let mut host = vagrant();
    host.links.push(link(5, "eth2", &[]));
    let choice = flags(["enp0s8", "10.99.0.1", "eth2", "eth1", "eth0"]);
    assert_eq!(chosen(&choice, &host), ("eth1", "192.168.56.11"));
}

#[test]
fn patterns_are_tried_after_all_names_and_before_the_route() {
    let hop = hop("eth0", Some("10.0.2.15"));
    let choice = IfaceChoice {
        can_reach: Some("198.51.100.1".parse().unwrap()),
        ..patterns(["^eth1$"])
    };
    assert_eq!(
        choose(&choice, NO_PUBLIC, V4, &vagrant(), Some(&hop))
            .unwrap()
            .link,
        name("eth1")
    );
    let choice = IfaceChoice {
        ifaces: flags(["eth0"]).ifaces,
        ..patterns(["^eth1$"])
    };
    assert_eq!(chosen(&choice, &vagrant()), ("eth0", "10.0.2.15"));
    assert_eq!(
        chosen(&patterns(["^wlan", "^eth1$", "^eth0$"]), &vagrant()),
        ("eth1", "192.168.56.11")
    );
}

#[test]
fn a_pattern_is_matched_with_all_addresses_before_any_name() {
    let mut host = vagrant();
    host.links.insert(1, link(2, "net192.168", &["172.16.0.1/24"]));
    assert_eq!(chosen(&patterns([r"192\.168"]), &host), ("eth1", "192.168.56.11"));
    assert_eq!(
        chosen(&patterns(["^net192"]), &host),
        ("net192.168", "172.16.0.1")
    );
}

#[test]
fn the_address_that_a_pattern_matches_is_the_one_used() {
    let mut host = vagrant();
    host.links[2].addrs.push(addr("10.20.0.5/16"));
    assert_eq!(chosen(&patterns([r"^10\.20\."]), &host), ("eth1", "10.20.0.5"));
}

#[test]
fn a_pattern_never_matches_a_loopback_or_deprecated_address() {
    let mut host = vagrant();
    let mut old = addr("10.20.0.5/16");
    old.deprecated = true;
    host.links[2].addrs.push(old);
    for pattern in [r"^127\.", r"^10\.20\."] {
        let text = error(&patterns([pattern]), &host);
        assert!(text.contains("no interface matches the pattern"), "{text}");
    }
}

#[test]
fn a_name_pattern_takes_the_first_interface_that_has_an_ipv4_address() {
    let mut host = vagrant();
    host.links.insert(1, link(2, "ens1", &["2001:db8::1/64"]));
    host.links.push(link(6, "ens2", &["10.9.0.1/24"]));
    assert_eq!(chosen(&patterns(["^ens"]), &host), ("ens2", "10.9.0.1"));
    let text = error(&patterns(["^ens1$"]), &host);
    assert!(
        text.contains("failed to find IPv4 address for interface ens1;"),
        "{text}"
    );
}

#[test]
fn the_interface_that_reaches_an_address_is_used_with_the_routes_source() {
    let choice = reach();
    for (source, ip) in [
        (Some("192.168.56.12"), "192.168.56.12"),
        (None, "192.168.56.11"),
        (Some("fd00::1"), "192.168.56.11"),
    ] {
        let chosen = choose(&choice, NO_PUBLIC, V4, &vagrant(), Some(&hop("eth1", source))).unwrap();
        assert_eq!(chosen, external("eth1", ip, ip, 1500));
    }
}

#[test]
fn an_address_out_of_reach_or_of_the_host_itself_chooses_nothing() {
    let (none, own, gone) = (None, hop("lo", Some("10.0.2.15")), hop("gone0", None));
    for (route, part) in [
        (none, "no route leads to 198.51.100.1"),
        (Some(&own), "198.51.100.1 is an address of this host itself"),
        (Some(&gone), "no interface is named gone0"),
    ] {
        let text = choose(&reach(), NO_PUBLIC, V4, &vagrant(), route)
            .unwrap_err()
            .to_string();
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn when_no_flag_leads_anywhere_each_reason_and_the_candidates_are_told() {
    let choice = IfaceChoice {
        ifaces: flags(["enp0s8", "10.99.0.1"]).ifaces,
        can_reach: reach().can_reach,
        ..patterns(["^wlan"])
    };
    assert_eq!(
        error(&choice, &vagrant()),
        "Failed to find interface to use that matches the interfaces and/or regexes provided: no interface is named \
         enp0s8, no interface with given IP found (10.99.0.1), no interface matches the pattern \"^wlan\", no route \
         leads to 198.51.100.1; correct the interface flags, this host has eth0 (10.0.2.15), eth1 (192.168.56.11)"
    );
}

#[test]
fn addresses_are_preferred_in_upstreams_order() {
    let make = |text: &str, permanent, temporary, deprecated| HostAddr {
        permanent,
        temporary,
        deprecated,
        ..addr(text)
    };
    let mut link = link(1, "eth0", &[]);
    link.addrs = vec![
        make("127.0.0.2/8", true, false, false),
        make("255.255.255.255/32", true, false, false),
        make("169.254.7.7/16", true, false, false),
        make("10.0.0.4/24", false, true, false),
        make("10.0.0.3/24", false, false, false),
        make("10.0.0.2/24", true, true, false),
        make("10.0.0.9/24", true, false, true),
        make("10.0.0.1/24", true, false, false),
        make("10.0.1.1/24", true, false, false),
        make("2001:db8::1/64", true, false, false),
    ];
    let order: Vec<String> = addresses_v4(&link).iter().map(ToString::to_string).collect();
    assert_eq!(
        order,
        [
            "10.0.0.1",
            "10.0.1.1",
            "10.0.0.2",
            "10.0.0.3",
            "10.0.0.4",
            "169.254.7.7"
        ]
    );
}

#[test]
fn a_link_local_address_will_do_when_there_is_no_other() {
    let host = Inventory {
        links: vec![link(1, "eth0", &["169.254.7.7/16"])],
        ..Inventory::default()
    };
    assert_eq!(chosen(&flags(["eth0"]), &host), ("eth0", "169.254.7.7"));
}

#[test]
fn an_interface_without_mtu_is_passed_over() {
    let mut host = vagrant();
    host.links[2].mtu_bytes = 0;
    assert!(error(&flags(["eth1"]), &host).contains("failed to determine MTU for eth1 interface"));
    assert_eq!(chosen(&flags(["eth1", "eth0"]), &host), ("eth0", "10.0.2.15"));
}

#[test]
fn a_host_without_addresses_and_one_with_very_many_get_a_readable_error() {
    let text = error(&flags(["eth7"]), &Inventory::default());
    assert!(
        text.ends_with("no interface of this host has an IPv4 address"),
        "{text}"
    );
    let many = |n: u32| link(n, &format!("veth{n}"), &[&format!("10.0.0.{n}/32")]);
    let host = Inventory {
        links: (1..=100).map(many).collect(),
        ..Inventory::default()
    };
    let text = error(&flags(["eth7"]), &host);
    assert!(text.ends_with("veth16 (10.0.0.16) and 84 more"), "{text}");
}

/// A Vagrant machine: its first interface is the same NAT on every machine and has the default route, the second one
/// reaches the other machines.
fn vagrant() -> Inventory {
    let mut lo = link(1, "lo", &["127.0.0.1/8", "::1/128"]);
    lo.loopback = true;
    Inventory {
        links: vec![
            lo,
            link(3, "eth0", &["10.0.2.15/24", "fe80::1/64"]),
            link(4, "eth1", &["192.168.56.11/24"]),
        ],
        default_routes_v4: vec![default_via("eth0")],
        default_routes_v6: Vec::new(),
    }
}

#[test]
fn ipv6_alone_goes_by_its_own_default_route_and_its_best_address() {
    let mut host = dual();
    host.default_routes_v4.clear();
    let ends = chosen_v6(NO_PUBLIC, V6, &host);
    assert_eq!(ends, ("eth1".to_owned(), None, Some("fd00:77::11".to_owned())));
    host.default_routes_v6 = vec![default_via("eth0")];
    let err = choose(&flags(NO_FLAGS), NO_PUBLIC, V6, &host, None).unwrap_err();
    assert_eq!(
        err.to_string(),
        "failed to find IPv6 address for interface eth0: choose an interface with --iface; this host has eth1 (fd00:77::11)"
    );
}

#[test]
fn dual_stack_needs_both_families_on_one_interface() {
    let mut host = dual();
    let both = (
        "eth1".to_owned(),
        Some("192.168.56.11".to_owned()),
        Some("fd00:77::11".to_owned()),
    );
    let differ = choose(&flags(NO_FLAGS), NO_PUBLIC, DUAL, &host, None).unwrap_err();
    assert!(
        differ
            .to_string()
            .starts_with("failed to find IPv6 address for interface eth0"),
        "{differ}"
    );
    host.default_routes_v4 = vec![default_via("eth1")];
    assert_eq!(chosen_v6(NO_PUBLIC, DUAL, &host), both);
    host.default_routes_v6.clear();
    assert_eq!(chosen_v6(NO_PUBLIC, DUAL, &host), both);
    host.default_routes_v6 = vec![default_via("eth0")];
    let differ = choose(&flags(NO_FLAGS), NO_PUBLIC, DUAL, &host, None).unwrap_err();
    assert!(
        differ.to_string().starts_with(
            "v6 default route interface eth0 must be the same with v4 default route interface eth1"
        ),
        "{differ}"
    );
    for flag in ["eth1", "192.168.56.11", "fd00:77::11"] {
        let chosen = choose(&flags([flag]), NO_PUBLIC, DUAL, &host, None).unwrap();
        assert_eq!(chosen.link, name("eth1"), "{flag}");
    }
    for pattern in ["^fd00:77:", "^192", "^eth"] {
        let chosen = choose(&patterns([pattern]), NO_PUBLIC, DUAL, &host, None).unwrap();
        assert_eq!(chosen.link, name("eth1"), "{pattern}");
    }
}

#[test]
fn public_addresses_of_both_families_are_advertised() {
    let public = PublicAddrs {
        v4: Some([203, 0, 113, 7].into()),
        v6: Some("2001:db8::7".parse().unwrap()),
    };
    let chosen = choose(&flags(["eth1"]), public, DUAL, &dual(), None).unwrap();
    let v6 = chosen.v6.unwrap();
    assert_eq!(chosen.v4.unwrap().public_ip, IpAddr::from([203, 0, 113, 7]));
    assert_eq!(
        (v6.local.to_string(), v6.public_ip.to_string()),
        ("fd00:77::11".to_owned(), "2001:db8::7".to_owned())
    );
    let own = PublicAddrs {
        v4: None,
        v6: Some("2001:db8::11".parse().unwrap()),
    };
    let ends = chosen_v6(own, V6, &dual());
    assert_eq!(ends, ("eth1".to_owned(), None, Some("2001:db8::11".to_owned())));
}

/// A host whose second interface has IPv6 as well, in several addresses.
fn dual() -> Inventory {
    let mut host = vagrant();
    let mut temporary = addr("2001:db8::11/64");
    temporary.temporary = true;
    host.links[2]
        .addrs
        .extend([addr("fe80::11/64"), temporary, addr("fd00:77::11/64")]);
    host.default_routes_v6 = vec![default_via("eth1")];
    host
}

/// The interface that is chosen without flags, and the local address of each family.
fn chosen_v6(
    public: PublicAddrs,
    families: Families,
    host: &Inventory,
) -> (String, Option<String>, Option<String>) {
    let chosen = choose(&flags(NO_FLAGS), public, families, host, None).unwrap();
    let local = |ends: Option<Ends>| ends.map(|ends| ends.local.to_string());
    (chosen.link.to_string(), local(chosen.v4), local(chosen.v6))
}

fn public_v4(ip: Ipv4Addr) -> PublicAddrs {
    PublicAddrs {
        v4: Some(ip),
        v6: None,
    }
}

fn link(index: u32, ifname: &str, addrs: &[&str]) -> HostLink {
    HostLink {
        name: name(ifname),
        index: net_types::IfIndex::new(index).unwrap(),
        mtu_bytes: 1500,
        admin: AdminState::Up,
        loopback: false,
        addrs: addrs.iter().map(|text| addr(text)).collect(),
    }
}

fn addr(text: &str) -> HostAddr {
    HostAddr {
        addr: text.parse().unwrap(),
        scope: AddrScope::Global,
        permanent: true,
        temporary: false,
        deprecated: false,
        tentative: false,
    }
}

fn default_via(ifname: &str) -> DefaultRoute {
    DefaultRoute {
        metric: 0,
        target: DefaultTarget::Single(hop(ifname, None)),
    }
}

fn default_over(ifnames: &[&str]) -> DefaultRoute {
    DefaultRoute {
        metric: 0,
        target: DefaultTarget::Several(ifnames.iter().map(|ifname| hop(ifname, None)).collect()),
    }
}

fn hop(ifname: &str, source: Option<&str>) -> Hop {
    Hop {
        link: name(ifname),
        gateway: None,
        source: source.map(|ip| ip.parse().unwrap()),
    }
}

fn name(ifname: &str) -> IfName {
    ifname.parse().unwrap()
}

fn flags<const N: usize>(ifaces: [&str; N]) -> IfaceChoice {
    IfaceChoice {
        ifaces: ifaces.map(|text| text.parse().unwrap()).to_vec(),
        ..IfaceChoice::default()
    }
}

fn patterns<const N: usize>(patterns: [&str; N]) -> IfaceChoice {
    let regexes = patterns
        .map(|text| RegexBuilder::new(text).unicode(false).build().unwrap())
        .to_vec();
    IfaceChoice {
        regexes,
        ..IfaceChoice::default()
    }
}

fn reach() -> IfaceChoice {
    IfaceChoice {
        can_reach: Some("198.51.100.1".parse().unwrap()),
        ..IfaceChoice::default()
    }
}

fn external(ifname: &str, ip: &str, public_ip: &str, mtu_bytes: u32) -> External {
    External {
        link: name(ifname),
        v4: Some(Ends {
            local: ip.parse().unwrap(),
            public_ip: public_ip.parse().unwrap(),
        }),
        v6: None,
        mtu_bytes,
        alternatives: Vec::new(),
    }
}

/// Asserts that a choice succeeds, and returns it for a comparison of name and address.
fn chosen(choice: &IfaceChoice, host: &Inventory) -> Chosen {
    let chosen = choose(choice, NO_PUBLIC, V4, host, None).unwrap();
    Chosen(chosen.link.to_string(), chosen.v4.unwrap().local.to_string())
}

#[derive(Debug)]
struct Chosen(String, String);

impl PartialEq<(&str, &str)> for Chosen {
    fn eq(&self, (ifname, ip): &(&str, &str)) -> bool {
        self.0 == *ifname && self.1 == *ip
    }
}

fn error(choice: &IfaceChoice, host: &Inventory) -> String {
    choose(choice, NO_PUBLIC, V4, host, None).unwrap_err().to_string()
}
