use std::collections::BTreeMap;

use cni_types::ContainerId;
use netstate::nft::listing;

use super::*;
use crate::plugins::netfilter::testing::after;

fn network(name: &str) -> NetworkName {
    NetworkName::new(name).unwrap()
}

fn target(id: &str, ifname: &str) -> Target {
    Target {
        container_id: ContainerId::new(id).unwrap(),
        ifname: ifname.parse().unwrap(),
    }
}

fn addresses() -> [IpNetwork; 2] {
    ["10.244.7.2/24", "fd00:10:244:7::2/64"].map(|text| text.parse().unwrap())
}

fn with(attachments: &[(&str, &str, &str)]) -> Listing {
    attachments
        .iter()
        .fold(Listing::default(), |listing, (net, id, ifname)| {
            let changes = setup(Some(&listing), &network(net), &target(id, ifname), &addresses());
            after(listing, &changes)
        })
}

fn checks(listing: &Listing) -> Vec<String> {
    let rules = listing.rules(CHECKS);
    rules.map(|(_, rule)| rule.to_string()).collect()
}

#[test]
fn the_table_is_the_references() {
    let made = after(
        Listing::default(),
        &setup(None, &network("cbr0"), &target("a3", "eth0"), &addresses()),
    );
    assert_eq!(
        listing(&table(), &made.table),
        "table inet cni_plugins_masquerade {\n\
         \tcomment \"Masquerading for plugins from github.com/containernetworking/plugins\"\n\
         \tchain masq_checks {\n\
         \t\tcomment \"Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet\"\n\
         \t\tip saddr 10.244.7.2 ip daddr != 10.244.7.0/24 masquerade comment \"cb6e746fae1a4d6c-08152fce10fe4759, net: cbr0, if: eth0, id: a3\"\n\
         \t\tip6 saddr fd00:10:244:7::2 ip6 daddr != fd00:10:244:7::/64 masquerade comment \"cb6e746fae1a4d6c-08152fce10fe4759, net: cbr0, if: eth0, id: a3\"\n\
         \t}\n\
         \n\
         \tchain postrouting {\n\
         \t\ttype nat hook postrouting priority srcnat; policy accept;\n\
         \t\tip daddr 224.0.0.0/4 return\n\
         \t\tip6 daddr ff00::/8 return\n\
         \t\tgoto masq_checks\n\
         \t}\n\
         }\n"
    );
}

#[test]
fn comments_are_the_references() {
    // From containernetworking/plugins `pkg/ip/ipmasq_nftables_linux_test.go`.
    for (net, ifname, id, hashes) in [
        ("unit-test", "eth0", "one", "6fd94d501e58f0aa-287fc69eff0574a2"),
        ("unit-test", "eth0", "two", "6fd94d501e58f0aa-d750b2c8f0f25d5f"),
        ("alternate", "net1", "three", "82783ef24bdc7036-acb19d111858e348"),
    ] {
        let expected = format!("{hashes}, net: {net}, if: {ifname}, id: {id}");
        assert_eq!(comment(&network(net), &target(id, ifname)), expected);
    }
    let long = comment(&network("cbr0"), &target(&"a".repeat(300), "eth0"));
    assert_eq!(long.len(), 128);
    assert!(!comment(&network("cbr0"), &target("a", "e\"th")).contains('"'));
}

#[test]
fn what_is_as_it_shall_be_is_left_alone_and_what_is_not_is_replaced() {
    let made = with(&[("cbr0", "a", "eth0"), ("cbr0", "b", "eth0")]);
    let again =
        |addresses: &[IpNetwork]| setup(Some(&made), &network("cbr0"), &target("a", "eth0"), addresses);
    assert_eq!(again(&addresses()), []);
    let moved = after(made.clone(), &again(&["10.244.7.9/24".parse().unwrap()]));
    assert_eq!(checks(&moved).len(), 3);
    assert!(checks(&moved)[2].starts_with("ip saddr 10.244.7.9 "));

    let mut spoiled = made.clone();
    spoiled.table.chains.get_mut(POSTROUTING).unwrap().rules.remove(0);
    spoiled.handles.get_mut(POSTROUTING).unwrap().remove(0);
    let changes = setup(
        Some(&spoiled),
        &network("cbr0"),
        &target("a", "eth0"),
        &addresses(),
    );
    assert_eq!(after(spoiled, &changes).table, made.table);
}

#[test]
fn only_the_attachments_own_rules_are_removed() {
    let made = with(&[
        ("cbr0", "a", "eth0"),
        ("cbr0", "a", "eth1"),
        ("cbr1", "a", "eth0"),
        ("cbr0", "b", "eth0"),
    ]);
    let left = after(
        made.clone(),
        &teardown(&made, &network("cbr0"), &target("a", "eth0")),
    );
    let expected = with(&[
        ("cbr0", "a", "eth1"),
        ("cbr1", "a", "eth0"),
        ("cbr0", "b", "eth0"),
    ]);
    assert_eq!(checks(&left), checks(&expected));
    assert_eq!(teardown(&left, &network("cbr0"), &target("a", "eth0")), []);
}

#[test]
fn gc_keeps_valid_attachments_and_other_networks() {
    let made = with(&[
        ("cbr0", "a", "eth0"),
        ("cbr0", "a", "eth1"),
        ("cbr1", "a", "eth0"),
        ("cbr0", "b", "eth0"),
    ]);
    let left = after(made.clone(), &gc(&made, &network("cbr0"), [&target("b", "eth0")]));
    assert_eq!(
        checks(&left),
        checks(&with(&[("cbr1", "a", "eth0"), ("cbr0", "b", "eth0")]))
    );
    let none = after(made.clone(), &gc(&made, &network("cbr0"), []));
    assert_eq!(checks(&none), checks(&with(&[("cbr1", "a", "eth0")])));
}

#[test]
fn what_is_missing_is_named() {
    let missing =
        |found: Option<&Listing>| missing(found, &network("cbr0"), &target("a", "eth0"), &addresses());
    let made = with(&[("cbr0", "a", "eth0")]);
    assert_eq!(missing(Some(&made)), None);
    assert!(missing(None).is_some() && missing(Some(&with(&[("cbr0", "b", "eth0")]))).is_some());
    let mut half = made.clone();
    half.table.chains.get_mut(CHECKS).unwrap().rules.pop();
    half.handles.get_mut(CHECKS).unwrap().pop();
    assert!(
        missing(Some(&half))
            .unwrap()
            .to_string()
            .starts_with("ip6 saddr fd00:")
    );
    let mut unhooked = made;
    unhooked.table.chains =
        BTreeMap::from([(CHECKS.to_owned(), unhooked.table.chains.remove(CHECKS).unwrap())]);
    assert!(missing(Some(&unhooked)).is_some());
}
