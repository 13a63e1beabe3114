use super::super::attachment::tests::{REFERENCES_MAPPINGS, attachment};
use super::*;

fn wanted(attachments: &[&Attachment], family: IpFamily) -> Wanted {
    Wanted::of(&attachments[0].target.container_id, attachments, family).unwrap()
}

fn texts(rules: &[Rule]) -> Vec<String> {
    rules.iter().map(ToString::to_string).collect()
}

/// A table as the changes make an empty one, with rules numbered from 1.
fn made(changes: &[Change]) -> (Table, BTreeMap<String, Vec<u64>>) {
    let (mut table, mut handles) = (Table::default(), BTreeMap::<String, Vec<u64>>::new());
    let mut next = 0;
    for change in changes {
        match change.clone() {
            Change::AddTable { comment, .. } => table.comment = comment,
            Change::AddChain { chain, base, .. } => drop(table.chains.insert(
                chain,
                Chain {
                    base,
                    ..Chain::default()
                },
            )),
            Change::FlushChain { chain, .. } => table.chains.get_mut(&chain).unwrap().rules.clear(),
            Change::AppendRule { chain, rule, .. } => {
                next += 1;
                table.chains.get_mut(&chain).unwrap().rules.push(rule);
                handles.entry(chain).or_default().push(next);
            }
            Change::InsertRule { chain, rule, .. } => {
                next += 1;
                table.chains.get_mut(&chain).unwrap().rules.insert(0, rule);
                handles.entry(chain).or_default().insert(0, next);
            }
            Change::DelTable(_) | Change::DelChain { .. } | Change::DelRule { .. } => {
                panic!("{change} in an empty table")
            }
        }
    }
    (table, handles)
}

#[test]
fn the_references_rules_are_among_ours() {
    let attachment = attachment(
        "icee6giejonei6so",
        &["10.0.0.2/24", "2001:db8::2/64"],
        REFERENCES_MAPPINGS,
    );
    let v4 = wanted(&[&attachment], IpFamily::V4);
    let is_mark = |rule: &&String| rule.contains("mark set");
    let (marks, dnats): (Vec<_>, Vec<_>) = texts(&v4.hostports).into_iter().partition(|rule| is_mark(&rule));
    assert_eq!(
        dnats,
        [
            r#"tcp dport 8080 dnat to 10.0.0.2:80 comment "icee6giejonei6so""#,
            r#"tcp dport 8081 dnat to 10.0.0.2:80 comment "icee6giejonei6so""#,
            r#"udp dport 8080 dnat to 10.0.0.2:81 comment "icee6giejonei6so""#,
            r#"udp dport 8082 dnat to 10.0.0.2:82 comment "icee6giejonei6so""#,
            r#"ip daddr 192.168.0.2 tcp dport 8083 dnat to 10.0.0.2:83 comment "icee6giejonei6so""#,
            r#"tcp dport 8084 dnat to 10.0.0.2:84 comment "icee6giejonei6so""#,
        ]
    );
    assert_eq!(marks.len(), 6);
    assert_eq!(
        marks[4],
        "ip saddr 10.0.0.0/24 ip daddr 192.168.0.2 tcp dport 8083 meta mark set meta mark | 0x00002000 \
         comment \"icee6giejonei6so\""
    );
    assert_eq!(
        texts(&v4.masquerading),
        [
            r#"ip saddr 10.0.0.2 ip daddr 10.0.0.2 masquerade comment "icee6giejonei6so""#,
            r#"ip saddr 127.0.0.1 ip daddr 10.0.0.2 masquerade comment "icee6giejonei6so""#,
            r#"meta mark & 0x00002000 == 0x00002000 ip daddr 10.0.0.2 masquerade comment "icee6giejonei6so""#,
        ]
    );
    let v6 = wanted(&[&attachment], IpFamily::V6);
    let dnats = texts(&v6.hostports);
    let dnats: Vec<_> = dnats.iter().filter(|rule| !is_mark(rule)).collect();
    assert_eq!(dnats.len(), 6);
    assert_eq!(
        dnats[4],
        r#"ip6 daddr 2001:db8:a::1 tcp dport 8085 dnat to [2001:db8::2]:85 comment "icee6giejonei6so""#
    );
    assert_eq!(v6.masquerading.len(), 2);
}

#[test]
fn masquerading_is_as_the_configuration_says() {
    let port = r#","runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}"#;
    let with = |rest: &str| {
        wanted(
            &[&attachment("a", &["10.0.0.2/24"], &format!("{rest}{port}"))],
            IpFamily::V4,
        )
    };
    let none = with(r#","snat":false"#);
    assert_eq!(
        texts(&none.hostports),
        [r#"tcp dport 8080 dnat to 10.0.0.2:80 comment "a""#]
    );
    assert!(none.masquerading.is_empty() && !made(&none.changes(None)).0.chains.contains_key(MASQUERADING));
    let all = with(r#","masqAll":true,"markMasqBit":5"#);
    assert_eq!(
        texts(&all.hostports)[0],
        r#"tcp dport 8080 meta mark set meta mark | 0x00000020 comment "a""#
    );
    assert_eq!(
        texts(&all.masquerading),
        [r#"meta mark & 0x00000020 == 0x00000020 ip daddr 10.0.0.2 masquerade comment "a""#]
    );
}

#[test]
fn flows_are_told_by_family_and_address_of_the_host() {
    let port = r#","runtimeConfig":{"portMappings":[
        {"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":"192.168.0.2"},
        {"hostPort":54,"containerPort":53,"protocol":"tcp"}]}"#;
    let attachment = attachment("a", &["10.0.0.2/24", "2001:db8::2/64"], port);
    let wanted = wanted(&[&attachment], IpFamily::V4);
    let (table, handles) = made(&wanted.changes(None));
    let found = Found {
        table: &table,
        handles: &handles,
    };
    let destination = OriginalDestination {
        version: IpFamily::V4.version(),
        addr: Some(IpAddr::from([192, 168, 0, 2])),
        port: 53,
    };
    let all = BTreeSet::from([destination]);
    assert_eq!(wanted.found_udp_destinations(Some(found)), all);
    assert_eq!(attachment.udp_destinations(), all);
}

#[test]
fn a_family_without_mappings_has_no_rules() {
    let port = r#","runtimeConfig":{"portMappings":[
        {"hostPort":8080,"containerPort":80,"protocol":"tcp","hostIP":"0.0.0.0"}]}"#;
    let attachment = attachment("a", &["10.0.0.2/24", "2001:db8::2/64"], port);
    assert_eq!(wanted(&[&attachment], IpFamily::V6).changes(None), []);
    assert_eq!(wanted(&[&attachment], IpFamily::V4).masquerading.len(), 3);
}

#[test]
fn conditions_stand_before_the_port_and_must_be_matches() {
    let port = r#","runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}"#;
    let with = |conditions: &str| {
        let rest = format!(r#","backend":"nftables","snat":false,"conditionsV4":{conditions}{port}"#);
        let attachment = attachment("a", &["10.0.0.2/24"], &rest);
        Wanted::of(&attachment.target.container_id, &[&attachment], IpFamily::V4)
    };
    for conditions in [
        r#"["ip","saddr","!=","10.0.0.0/8"]"#,
        r#"["ip saddr != 10.0.0.0/8"]"#,
    ] {
        assert_eq!(
            texts(&with(conditions).unwrap().hostports),
            [r#"ip saddr != 10.0.0.0/8 tcp dport 8080 dnat to 10.0.0.2:80 comment "a""#]
        );
    }
    for conditions in [
        r#"["ip saddr 10.0.0.0/8 drop"]"#,
        r#"["a b"]"#,
        r#"["iifname eth0 comment \"x\""]"#,
    ] {
        let error = with(conditions).unwrap_err();
        assert!(error.to_string().starts_with("conditions"), "{error}");
    }
}

#[test]
fn what_is_there_is_left_alone_and_what_is_stale_replaced() {
    let old = attachment("a", &["10.0.0.9/24"], REFERENCES_MAPPINGS);
    let other = attachment("b", &["10.0.0.3/24"], REFERENCES_MAPPINGS);
    let new = attachment("a", &["10.0.0.2/24"], REFERENCES_MAPPINGS);
    let (mut table, handles) = made(&wanted(&[&old], IpFamily::V4).changes(None));
    let found = Found {
        table: &table,
        handles: &handles,
    };
    assert_eq!(wanted(&[&old], IpFamily::V4).changes(Some(found)), []);
    assert_eq!(wanted(&[&old], IpFamily::V4).missing(Some(found)), None);
    assert_eq!(
        wanted(&[&old], IpFamily::V4).found_udp_destinations(Some(found)),
        BTreeSet::from([8080, 8082].map(|port| OriginalDestination {
            version: IpFamily::V4.version(),
            addr: None,
            port
        }))
    );
    let added = wanted(&[&other], IpFamily::V4).changes(Some(found));
    assert_eq!(added.len(), 15, "rules only, no chain is touched");
    let replaced = wanted(&[&new], IpFamily::V4).changes(Some(found));
    let removals = replaced
        .iter()
        .filter(|change| matches!(change, Change::DelRule { .. }))
        .count();
    assert_eq!((replaced.len(), removals), (30, 15));
    let none = Wanted::of(&new.target.container_id, &[], IpFamily::V4).unwrap();
    assert_eq!(none.changes(Some(found)).len(), 15);
    assert_eq!(none.changes(None), []);
    assert_eq!(
        wanted(&[&other], IpFamily::V4).found_udp_destinations(Some(found)),
        BTreeSet::new()
    );
    // Someone altered what all containers share.
    table.chains.get_mut("output").unwrap().rules.clear();
    let found = Found {
        table: &table,
        handles: &handles,
    };
    let missing = wanted(&[&old], IpFamily::V4).missing(Some(found)).unwrap();
    assert_eq!(missing.0, "output");
    assert_eq!(wanted(&[&old], IpFamily::V4).changes(Some(found)).len(), 2);
}

#[test]
fn comments_fit_into_nft_and_tell_containers_apart() {
    let comment = |id: &str| comment(&ContainerId::new(id).unwrap());
    assert_eq!(comment("a2"), "a2");
    let (one, other) = ("a".repeat(200), "a".repeat(201));
    assert_eq!(comment(&one).len(), 128);
    assert_ne!(comment(&one), comment(&other));
}
