//! Packet filter rules of every shape.

use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::{IfName, MacAddr};
use netstate::nft::{Comparison, CtStates, Family, Match, Rule, Statement, Verdict};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

/// A family of tables.
pub fn any_family() -> impl Strategy<Value = Family> {
    select(vec![Family::Ip, Family::Ip6, Family::Inet, Family::Bridge])
}

/// A rule of statements in any order, whether or not they make sense in a table together.
pub fn any_rule() -> impl Strategy<Value = Rule> {
    let comment = option::of("[a-z ]{1,8}");
    (vec(statement(), 0..6), comment).prop_map(|(statements, comment)| Rule { statements, comment })
}

fn statement() -> impl Strategy<Value = Statement> {
    let comparison = select(vec![Comparison::Is, Comparison::IsNot]);
    let names = || select(vec!["CHAIN".to_owned(), "b-c".to_owned()]);
    prop_oneof![
        6 => (comparison, property()).prop_map(|(comparison, property)| Statement::Match(comparison, property)),
        1 => Just(Statement::Counter),
        1 => (any::<u32>(), mask()).prop_map(|(value, mask)| Statement::SetMark { value, mask }),
        1 => any::<bool>().prop_map(|fully_random| Statement::Masquerade { fully_random }),
        1 => (any::<IpAddr>(), any::<Option<u16>>()).prop_map(|(addr, port)| Statement::Dnat { addr, port }),
        1 => prop_oneof![
            Just(Verdict::Accept),
            Just(Verdict::Drop),
            Just(Verdict::Return),
            names().prop_map(Verdict::Jump),
            names().prop_map(Verdict::Goto),
        ]
        .prop_map(Statement::Verdict),
    ]
}

fn mask() -> impl Strategy<Value = u32> {
    prop_oneof![
        Just(u32::MAX),
        Just(0),
        Just(0x2000),
        Just(0x8000_0000),
        any::<u32>()
    ]
}

fn net() -> impl Strategy<Value = IpNetwork> {
    (any::<IpAddr>(), 0_u8..=128).prop_filter_map("a prefix that is too long", |(ip, prefix)| {
        let prefix = if ip.is_ipv4() { prefix % 33 } else { prefix };
        IpNetwork::new(ip, prefix).ok()
    })
}

fn property() -> impl Strategy<Value = Match> {
    let names = ["eth0", "flannel.1", "eth*", "a\"b"].map(|name| IfName::new(name).ok());
    let names: Vec<IfName> = names.into_iter().flatten().collect();
    let name = || select(names.clone());
    prop_oneof![
        net().prop_map(Match::Saddr),
        net().prop_map(Match::Daddr),
        Just(Match::DaddrIsLocal),
        select(vec![6_u8, 17, 132, 47, 77]).prop_map(Match::L4Proto),
        select(vec![Family::Ip, Family::Ip6]).prop_map(Match::NfProto),
        any::<u16>().prop_map(Match::Sport),
        any::<u16>().prop_map(Match::Dport),
        (any::<u32>(), mask()).prop_map(|(value, mask)| Match::Mark { value, mask }),
        name().prop_map(Match::Iifname),
        name().prop_map(Match::Oifname),
        (1..16_u32)
            .prop_filter_map("states", CtStates::from_bits)
            .prop_map(Match::CtState),
        any::<[u8; 6]>().prop_map(|octets| Match::EtherSaddr(MacAddr::new(octets))),
    ]
}
