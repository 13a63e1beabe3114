use super::*;

fn read(text: &str) -> Rule {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

#[test]
fn rules_print_as_nft_lists_them() {
    for text in [
        "meta mark 0x00004000 return",
        "meta mark & 0x00002000 == 0x00002000 return",
        "meta mark & 0x00002000 != 0x00001000 return",
        "meta mark 0x80000000/1 return",
        "meta mark != 0x12340000/16 return",
        "meta mark 0x00000000/0 return",
        "ip saddr 10.244.57.0/24 ip daddr 10.0.0.0/9 return comment \"hello\"",
        "ip saddr != 10.244.57.0/25 ip daddr 10.1.2.3 return",
        "ip daddr != 224.0.0.0/4 masquerade fully-random",
        "masquerade",
        "oifname \"eth0\" iifname != \"eth1\" accept",
        "iifname \"eth\\*\" accept",
        "tcp dport 80 counter jump d",
        "tcp sport 81 tcp dport 80 counter goto d",
        "udp dport != 80",
        "meta l4proto tcp",
        "meta l4proto != tcp th dport 80",
        "meta l4proto ipv6-icmp drop",
        "meta l4proto 77 accept",
        "th dport 80",
        "fib daddr type local return",
        "fib daddr type != local return",
        "ct state established,related accept",
        "ct state ! invalid,new drop",
        "meta mark set 0x00002000",
        "meta mark set meta mark",
        "meta mark set meta mark | 0x00002000",
        "meta mark set meta mark & 0xffff0000",
        "meta mark set meta mark & 0xffff2000 | 0x00002000",
        "dnat to 10.0.0.1:8080",
        "dnat to 10.0.0.1",
        "dnat to [fd00::1]:80",
        "ip6 saddr fd00::/48 ip6 daddr fd00::1 accept",
        "meta nfproto ipv6 udp dport 53 drop",
        "tcp dport 80 ip saddr 1.2.3.4 tcp sport 1 accept",
        "iifname \"veth0\" ether saddr != 02:00:00:00:00:01 drop",
        "comment \"nothing else\"",
        "",
    ] {
        assert_eq!(read(text).to_string(), text);
    }
}

#[test]
fn other_ways_to_say_the_same_read_alike() {
    for (text, canonical) in [
        ("meta mark and 0x1 == 1", "meta mark & 0x00000001 == 0x00000001"),
        ("mark 0x1/0x1", "meta mark & 0x00000001 == 0x00000001"),
        ("meta mark & 0xffff0000 == 0x10000", "meta mark 0x00010000/16"),
        ("mark != 5", "meta mark != 0x00000005"),
        ("ip saddr == 10.0.0.1/32", "ip saddr 10.0.0.1"),
        ("iifname eth0", "iifname \"eth0\""),
        ("meta oifname eth0", "oifname \"eth0\""),
        ("counter packets 5 bytes 10 accept", "counter accept"),
        ("dnat ip6 to [fd00::1]:80", "dnat to [fd00::1]:80"),
        ("meta l4proto 6 th dport 80", "tcp dport 80"),
        ("ct state != new", "ct state ! new"),
        ("  accept  comment \"a \"", "accept comment \"a \""),
        ("mark set mark or 0x4000", "meta mark set meta mark | 0x00004000"),
    ] {
        assert_eq!(read(text).to_string(), canonical, "{text}");
    }
}

#[test]
fn a_port_of_a_named_protocol_reads_as_protocol_and_port() {
    let tcp = Statement::Match(Comparison::Is, Match::L4Proto(6));
    let port = Statement::Match(Comparison::Is, Match::Dport(80));
    assert_eq!(read("tcp dport 80").statements, [tcp, port]);
}

#[test]
fn what_is_not_known_is_refused_by_the_word() {
    for (text, message) in [
        (
            "tcp dport http",
            "\"http\" stands where a port number is expected",
        ),
        (
            "ip saddr fd00::1",
            "\"fd00::1\" stands where an address or network of this family is expected",
        ),
        (
            "ip protocol tcp",
            "\"protocol\" stands where saddr or daddr is expected",
        ),
        (
            "limit rate 5/second",
            "\"limit\" stands where a match or statement that this program knows is expected",
        ),
        (
            "iifname \"eth*\"",
            "\"\\\"eth*\\\"\" stands where the name of a link is expected",
        ),
        (
            "tcp dport 65536",
            "\"65536\" stands where a port number is expected",
        ),
        (
            "ip saddr",
            "the text ends where an address or network of this family is expected",
        ),
        ("jump", "the text ends where the name of a chain is expected"),
        (
            "accept comment \"a",
            "\"accept comment \\\"a\" is not a properly quoted word",
        ),
    ] {
        assert_eq!(text.parse::<Rule>().unwrap_err().to_string(), message, "{text}");
    }
    assert!("ct state != new,related".parse::<Rule>().is_err());
}

#[test]
fn the_canonical_form_leaves_out_what_is_implied() {
    let canonical = |text: &str| RuleIn(Family::Inet, &read(text).canonical(Family::Inet)).to_string();
    for (text, form) in [
        ("meta nfproto ipv4 ip saddr 10.1.2.3/8", "ip saddr 10.0.0.0/8"),
        (
            "meta nfproto ipv4 tcp dport 80 ip saddr 1.2.3.4",
            "tcp dport 80 ip saddr 1.2.3.4",
        ),
        (
            "meta l4proto tcp ip saddr 1.2.3.4 tcp dport 80",
            "ip saddr 1.2.3.4 tcp dport 80",
        ),
        (
            "meta l4proto tcp counter tcp dport 80",
            "meta l4proto tcp counter tcp dport 80",
        ),
        (
            "meta nfproto ipv4 counter ip saddr 1.2.3.4",
            "meta nfproto ipv4 counter ip saddr 1.2.3.4",
        ),
        (
            "meta nfproto ipv4 meta nfproto != ipv6 ip saddr 1.2.3.4",
            "meta nfproto != ipv6 ip saddr 1.2.3.4",
        ),
        (
            "meta nfproto ipv4 tcp dport 80 meta nfproto ipv4 ip saddr 1.2.3.4",
            "tcp dport 80 ip saddr 1.2.3.4",
        ),
        (
            "meta nfproto ipv6 ip saddr 1.2.3.4",
            "meta nfproto ipv6 ip saddr 1.2.3.4",
        ),
        (
            "ip saddr 1.1.1.1 meta nfproto ipv4",
            "ip saddr 1.1.1.1 meta nfproto ipv4",
        ),
        (
            "meta l4proto tcp meta nfproto ipv4 ip saddr 1.1.1.1 tcp dport 1 dnat to 1.1.1.1",
            "ip saddr 1.1.1.1 tcp dport 1 dnat ip to 1.1.1.1",
        ),
    ] {
        assert_eq!(canonical(text), form, "{text}");
    }
    let of_ip = read("meta nfproto ipv4 meta nfproto != ipv6 accept").canonical(Family::Ip);
    assert_eq!(of_ip.to_string(), "accept");
}

#[test]
fn a_table_is_listed_as_nft_does() {
    let chain = Chain {
        base: Some(BaseChain {
            kind: ChainKind::Nat,
            hook: Hook::Postrouting,
            priority: 101,
            policy: Policy::Accept,
        }),
        comment: Some("what for".to_owned()),
        rules: vec![read("masquerade"), read("dnat to 1.1.1.1")],
    };
    let table = Table {
        comment: Some("whose".to_owned()),
        chains: BTreeMap::from([("a".to_owned(), chain), ("b".to_owned(), Chain::default())]),
        other_objects: 0,
    };
    let key = TableKey {
        family: Family::Inet,
        name: "t".to_owned(),
    };
    let expected = "table inet t {\n\tcomment \"whose\"\n\tchain a {\n\t\tcomment \"what for\"\n\t\ttype nat hook \
                    postrouting priority srcnat + 1; policy accept;\n\t\tmasquerade\n\t\tdnat ip to \
                    1.1.1.1\n\t}\n\n\tchain b {\n\t}\n}\n";
    assert_eq!(listing(&key, &table), expected);
}
