use netstate::iptables::IptablesChain;

use super::super::attachment::tests::{REFERENCES_MAPPINGS, attachment};
use super::*;

const LONG_ID: &str = "icee6giejonei6sohng6ahngee7laquohquee9shiGo7fohferakah3Feiyoolu2pei7ciPhoh7shaoX6vai3vuf0ahfaeng8yohb9ceu0daez5hashee8ooYai5wa3y";

fn wanted(attachments: &[&Attachment], family: IpFamily) -> Wanted {
    let first = attachments[0];
    Wanted::of(&first.network, &first.target.container_id, attachments, family)
}

fn table(chains: &[(&str, &[&str])]) -> IptablesTable {
    let chains = chains.iter().map(|(name, rules)| {
        let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
        ((*name).to_owned(), IptablesChain { policy: None, rules })
    });
    IptablesTable {
        chains: chains.collect(),
    }
}

#[test]
fn chains_have_the_references_names() {
    let name = |network: &str, id: &str| {
        chain_name(
            &NetworkName::new(network).unwrap(),
            &ContainerId::new(id).unwrap(),
        )
    };
    // Vectors of the reference's tests and of what it made.
    assert_eq!(name("testNetName", LONG_ID), "CNI-DN-bfd599665540dd91d5d28");
    assert_eq!(name("test", LONG_ID), "CNI-DN-67e92b96e692a494b6b85");
    assert_eq!(name("cbr0", "a2"), "CNI-DN-1802f8610169aa9dfd2d7");
    assert_eq!(
        name("cbr0", "cnitool-0cea03627191eaa6cdf9"),
        "CNI-DN-e633fabc8c0c870791387"
    );
}

#[test]
fn a_containers_rules_are_those_of_the_references_capture() {
    let ports = r#","backend":"iptables","runtimeConfig":{"portMappings":[
        {"containerPort":80,"hostPort":20001,"protocol":"tcp"},
        {"containerPort":53,"hostPort":20053,"protocol":"udp"}]}"#;
    let id = "cnitool-0cea03627191eaa6cdf9";
    let attachment = attachment(id, &["10.244.7.2/24", "fd00:10:244:7::2/64"], ports);
    let v4 = wanted(&[&attachment], IpFamily::V4);
    let changes = v4.changes(&IptablesTable::default()).unwrap().to_string();
    assert_eq!(
        changes,
        r#"*nat
-N CNI-HOSTPORT-DNAT
-N CNI-HOSTPORT-MASQ
-N CNI-HOSTPORT-SETMARK
:CNI-DN-e633fabc8c0c870791387 - [0:0]
-A CNI-HOSTPORT-SETMARK -m comment --comment "CNI portfwd masquerade mark" -j MARK --set-xmark 0x2000/0x2000
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-I POSTROUTING -m comment --comment "CNI portfwd requiring masquerade" -j CNI-HOSTPORT-MASQ
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-DN-e633fabc8c0c870791387 -s 10.244.7.0/24 -p tcp -m tcp --dport 20001 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-e633fabc8c0c870791387 -s 127.0.0.1/32 -p tcp -m tcp --dport 20001 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-e633fabc8c0c870791387 -p tcp -m tcp --dport 20001 -j DNAT --to-destination 10.244.7.2:80
-A CNI-DN-e633fabc8c0c870791387 -s 10.244.7.0/24 -p udp -m udp --dport 20053 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-e633fabc8c0c870791387 -s 127.0.0.1/32 -p udp -m udp --dport 20053 -j CNI-HOSTPORT-SETMARK
-A CNI-DN-e633fabc8c0c870791387 -p udp -m udp --dport 20053 -j DNAT --to-destination 10.244.7.2:53
-I CNI-HOSTPORT-DNAT -p udp -m comment --comment "dnat name: \"cbr0\" id: \"cnitool-0cea03627191eaa6cdf9\"" -m multiport --dports 20053 -j CNI-DN-e633fabc8c0c870791387
-I CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \"cbr0\" id: \"cnitool-0cea03627191eaa6cdf9\"" -m multiport --dports 20001 -j CNI-DN-e633fabc8c0c870791387
COMMIT
"#
    );
    let v6 = wanted(&[&attachment], IpFamily::V6).rules;
    assert_eq!(
        v6[..2],
        [
            "-s fd00:10:244:7::/64 -p tcp -m tcp --dport 20001 -j CNI-HOSTPORT-SETMARK",
            "-p tcp -m tcp --dport 20001 -j DNAT --to-destination [fd00:10:244:7::2]:80"
        ]
    );
    assert_eq!(v6.len(), 4);
}

#[test]
fn addresses_of_the_host_choose_family_and_destination() {
    let attachment = attachment("a2", &["10.0.0.2/24", "2001:db8::2/64"], REFERENCES_MAPPINGS);
    let v4 = wanted(&[&attachment], IpFamily::V4);
    assert!(
        v4.entries[0].contains("--dports 8080,8081,8083,8084 "),
        "{}",
        v4.entries[0]
    );
    assert!(v4.entries[1].contains("--dports 8080,8082 "), "{}", v4.entries[1]);
    assert_eq!(v4.rules.len(), 18);
    assert_eq!(
        v4.rules[12..],
        [
            "-s 10.0.0.0/24 -d 192.168.0.2/32 -p tcp -m tcp --dport 8083 -j CNI-HOSTPORT-SETMARK",
            "-s 127.0.0.1/32 -d 192.168.0.2/32 -p tcp -m tcp --dport 8083 -j CNI-HOSTPORT-SETMARK",
            "-d 192.168.0.2/32 -p tcp -m tcp --dport 8083 -j DNAT --to-destination 10.0.0.2:83",
            "-s 10.0.0.0/24 -p tcp -m tcp --dport 8084 -j CNI-HOSTPORT-SETMARK",
            "-s 127.0.0.1/32 -p tcp -m tcp --dport 8084 -j CNI-HOSTPORT-SETMARK",
            "-p tcp -m tcp --dport 8084 -j DNAT --to-destination 10.0.0.2:84",
        ]
    );
    let v6 = wanted(&[&attachment], IpFamily::V6);
    assert!(
        v6.entries[0].contains("--dports 8080,8081,8085,8086 "),
        "{}",
        v6.entries[0]
    );
    assert_eq!(
        v6.rules[8..10],
        [
            "-s 2001:db8::/64 -d 2001:db8:a::1/128 -p tcp -m tcp --dport 8085 -j CNI-HOSTPORT-SETMARK",
            "-d 2001:db8:a::1/128 -p tcp -m tcp --dport 8085 -j DNAT --to-destination [2001:db8::2]:85",
        ]
    );
}

#[test]
fn masquerading_is_as_the_configuration_says() {
    let port = r#","runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}"#;
    let with = |rest: &str| {
        wanted(
            &[&attachment("a2", &["10.0.0.2/24"], &format!("{rest}{port}"))],
            IpFamily::V4,
        )
    };
    assert_eq!(
        with(r#","snat":false"#).rules,
        ["-p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.0.0.2:80"]
    );
    assert_eq!(with(r#","snat":false"#).shared().len(), 2);
    assert_eq!(
        with(r#","masqAll":true"#).rules[0],
        "-p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK"
    );
    let external = with(r#","externalSetMarkChain":"PLZ-SET-MARK""#);
    assert!(
        external.rules[0].ends_with("-j PLZ-SET-MARK"),
        "{}",
        external.rules[0]
    );
    assert_eq!(external.shared().len(), 2);
    let bit = with(r#","markMasqBit":5"#).shared();
    assert!(bit[0].2.ends_with("--set-xmark 0x20/0x20"), "{}", bit[0].2);
    assert_eq!(bit[1].2, "-m mark --mark 0x20/0x20 -j MASQUERADE");
}

#[test]
fn a_rule_names_fifteen_ports_at_most_and_comments_fit() {
    let ports: Vec<_> = (1..=200)
        .map(|port| format!(r#"{{"hostPort":{port},"containerPort":{port},"protocol":"tcp"}}"#))
        .collect();
    let rest = format!(
        r#","conditionsV4":["-d","1.2.3.4","-m","comment","--comment","a b"],"runtimeConfig":{{"portMappings":[{}]}}"#,
        ports.join(",")
    );
    let attachment = attachment(&LONG_ID.repeat(2), &["10.0.0.2/24"], &rest);
    let wanted = wanted(&[&attachment], IpFamily::V4);
    assert_eq!((wanted.entries.len(), wanted.rules.len()), (14, 600));
    let entry = &wanted.entries[0];
    assert!(
        entry.contains(
            r#"--dports 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15 -d "1.2.3.4" -m comment --comment "a b" -j CNI-DN-"#
        ),
        "{entry}"
    );
    let comment = entry
        .split("--comment ")
        .nth(1)
        .unwrap()
        .split(" -m multiport")
        .next()
        .unwrap();
    let comment = comment.trim_matches('"').replace("\\\"", "\"");
    assert_eq!(comment.len(), COMMENT_MAX_BYTES);
    assert!(comment.starts_with("dnat name: \"cbr0\" id: \"icee") && comment.ends_with("..."));
}

#[test]
fn what_is_there_is_left_alone_and_what_is_stale_replaced() {
    let port = r#","runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"udp"}]}"#;
    let attachment = attachment("a2", &["10.0.0.2/24"], &format!(r#","snat":false{port}"#));
    let wanted = wanted(&[&attachment], IpFamily::V4);
    let chain = "CNI-DN-1802f8610169aa9dfd2d7";
    let entry = r#"-p udp -m comment --comment "dnat name: \"cbr0\" id: \"a2\"" -m multiport --dports 8080 -j CNI-DN-1802f8610169aa9dfd2d7"#;
    let others = r#"-p tcp -m comment --comment "dnat name: \"cbr0\" id: \"b\"" -m multiport --dports 80 -j CNI-DN-other"#;
    let to_ours = "-m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT";
    let rule = "-p udp -m udp --dport 8080 -j DNAT --to-destination 10.0.0.2:80";
    let with = |entries: &[&str], rules: &[&str]| {
        table(&[
            ("PREROUTING", &[to_ours]),
            ("OUTPUT", &[to_ours]),
            (DNAT_CHAIN, entries),
            (chain, rules),
        ])
    };
    let whole = with(&[others, entry], &[rule]);
    assert!(wanted.changes(&whole).unwrap().is_empty());
    assert_eq!(wanted.missing(&whole), None);
    let destination = |addr| OriginalDestination {
        version: IpFamily::V4.version(),
        addr,
        port: 8080,
    };
    assert_eq!(
        wanted.found_udp_destinations(&whole),
        BTreeSet::from([destination(None)])
    );
    let one = with(&[entry], &[&format!("-d 192.168.0.2/32 {rule}")]);
    assert_eq!(
        wanted.found_udp_destinations(&one),
        BTreeSet::from([destination(Some(IpAddr::from([192, 168, 0, 2])))])
    );
    let stale = with(
        &[entry],
        &["-p udp -m udp --dport 8080 -j DNAT --to-destination 10.0.0.9:80"],
    );
    assert_eq!(
        wanted.changes(&stale).unwrap().to_string(),
        format!(
            "*nat\n:{chain} - [0:0]\n-D {DNAT_CHAIN} {entry}\n-A {chain} {rule}\n-I {DNAT_CHAIN} {entry}\nCOMMIT\n"
        )
    );
    assert_eq!(wanted.missing(&stale), Some((chain.to_owned(), rule.to_owned())));
    assert_eq!(wanted.missing(&with(&[others], &[rule])).unwrap().0, DNAT_CHAIN);
    assert_eq!(wanted.missing(&IptablesTable::default()).unwrap().0, "PREROUTING");

    let none = Wanted::of(
        &attachment.network,
        &attachment.target.container_id,
        &[],
        IpFamily::V4,
    );
    assert_eq!(
        none.changes(&whole).unwrap().to_string(),
        format!("*nat\n:{chain} - [0:0]\n-D {DNAT_CHAIN} {entry}\n-X {chain}\nCOMMIT\n")
    );
    assert!(none.changes(&IptablesTable::default()).unwrap().is_empty());
    assert_eq!(none.missing(&whole), None);
}

#[test]
fn gc_removes_the_networks_other_containers_only() {
    let network = NetworkName::new("cbr0").unwrap();
    let of = |name: &str, id: &str| {
        let chain = chain_name(&NetworkName::new(name).unwrap(), &ContainerId::new(id).unwrap());
        let comment = format!(r#"dnat name: \"{name}\" id: \"{id}\""#);
        (
            format!(r#"-p tcp -m comment --comment "{comment}" -m multiport --dports 80 -j {chain}"#),
            chain,
        )
    };
    let (kept, stale, other) = (of("cbr0", "a"), of("cbr0", "b"), of("cbr00", "b"));
    let strangers = "-p tcp -j STRANGER".to_owned();
    let entries = [&kept.0, &stale.0, &other.0, &strangers].map(String::as_str);
    let table = table(&[
        (DNAT_CHAIN, &entries),
        (&kept.1, &[]),
        (&stale.1, &[]),
        (&other.1, &[]),
    ]);
    let valid = BTreeSet::from([ContainerId::new("a").unwrap()]);
    let (entry, chain) = stale;
    assert_eq!(
        gc_changes(&table, &network, &valid).unwrap().to_string(),
        format!("*nat\n:{chain} - [0:0]\n-D {DNAT_CHAIN} {entry}\n-X {chain}\nCOMMIT\n")
    );
    let all = BTreeSet::from(["a", "b"].map(|id| ContainerId::new(id).unwrap()));
    assert!(gc_changes(&table, &network, &all).unwrap().is_empty());
}
