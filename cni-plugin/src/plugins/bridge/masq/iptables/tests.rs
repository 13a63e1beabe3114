use netstate::iptables::parse_save;

use super::*;

fn network() -> NetworkName {
    NetworkName::new("cbr0").unwrap()
}

fn id(text: &str) -> ContainerId {
    ContainerId::new(text).unwrap()
}

fn addresses(texts: &[&str]) -> Vec<IpNetwork> {
    texts.iter().map(|text| text.parse().unwrap()).collect()
}

/// What the reference made for pod a3, as iptables-save and ip6tables-save printed it.
const REFERENCE_V4: &str = include_str!("../../../../../tests/data/masq-reference.v4");
const REFERENCE_V6: &str = include_str!("../../../../../tests/data/masq-reference.v6");

fn table(text: &str) -> IptablesTable {
    parse_save(text).unwrap().remove(TABLE).unwrap()
}

fn empty() -> IptablesTable {
    table("*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\nCOMMIT\n")
}

/// What a table holds after changes of this file's.
fn after(table: &IptablesTable, changes: &Restore) -> IptablesTable {
    let mut table = table.clone();
    for line in changes.to_string().lines() {
        let (verb, rest) = line.split_at(if line.starts_with(':') { 1 } else { 2 });
        let (chain, rule) = rest
            .trim_start()
            .split_once(' ')
            .unwrap_or((rest.trim_start(), ""));
        let rules =
            |table: &mut IptablesTable| table.chains.entry(chain.to_owned()).or_default().rules.clone();
        let mut found = if matches!(verb, "-A" | "-D") {
            rules(&mut table)
        } else {
            Vec::new()
        };
        match verb {
            "-A" => found.push(rule.to_owned()),
            "-D" => {
                let place = found.iter().position(|found| found == rule).unwrap();
                found.remove(place);
            }
            ":" => {}
            "-X" => {
                table.chains.remove(chain).unwrap();
                continue;
            }
            _ => continue,
        }
        table.chains.entry(chain.to_owned()).or_default().rules = found;
    }
    table
}

#[test]
fn the_rules_are_those_that_the_reference_made() {
    for (text, address) in [
        (REFERENCE_V4, "10.244.7.2/24"),
        (REFERENCE_V6, "fd00:10:244:7::2/64"),
    ] {
        let addresses = addresses(&[address]);
        let reference = table(text);
        let made = after(
            &empty(),
            &setup(&empty(), &network(), &id("a3"), &addresses).unwrap(),
        );
        for chain in ["POSTROUTING", "CNI-d85dd46ffa8e748f3e1e5f02"] {
            assert_eq!(made.chains[chain].rules, reference.chains[chain].rules);
        }
        assert!(
            setup(&reference, &network(), &id("a3"), &addresses)
                .unwrap()
                .is_empty()
        );
        assert_eq!(missing(&reference, &network(), &id("a3"), &addresses), None);
    }
}

#[test]
fn a_second_interface_of_a_container_shares_its_chain() {
    let one = after(
        &empty(),
        &setup(&empty(), &network(), &id("a"), &addresses(&["10.1.0.2/24"])).unwrap(),
    );
    let two = after(
        &one,
        &setup(&one, &network(), &id("a"), &addresses(&["10.1.0.3/24"])).unwrap(),
    );
    let chain = &two.chains[&chain_name(&network(), &id("a"))].rules;
    assert_eq!((chain.len(), two.chains["POSTROUTING"].rules.len()), (2, 2));
    let other = after(
        &two,
        &setup(&two, &network(), &id("a"), &addresses(&["10.2.0.3/24"])).unwrap(),
    );
    let chain = &other.chains[&chain_name(&network(), &id("a"))].rules;
    assert!(
        chain[0].starts_with("-d 10.1.0.0/24") && chain[1].starts_with("-d 10.2.0.0/24"),
        "{chain:?}"
    );
    assert!(
        chain[2].ends_with("-j MASQUERADE") && chain.len() == 3,
        "{chain:?}"
    );
}

#[test]
fn teardown_removes_the_chain_and_what_leads_there() {
    let a = addresses(&["10.1.0.2/24"]);
    let one = after(&empty(), &setup(&empty(), &network(), &id("a"), &a).unwrap());
    let two = after(
        &one,
        &setup(&one, &network(), &id("b"), &addresses(&["10.1.0.3/24"])).unwrap(),
    );
    let chains = |text: &str| [chain_name(&network(), &id(text))].into();
    assert_eq!(after(&two, &teardown(&two, &chains("b")).unwrap()), one);
    assert!(teardown(&two, &chains("c")).unwrap().is_empty());
    assert!(missing(&two, &network(), &id("c"), &a).is_some());
}

#[test]
fn the_comments_tell_whose_a_chain_is() {
    let mut all = empty();
    for name in ["a", "b"] {
        all = after(
            &all,
            &setup(&all, &network(), &id(name), &addresses(&["10.1.0.2/24"])).unwrap(),
        );
    }
    let other = NetworkName::new("cbr0-2").unwrap();
    all = after(
        &all,
        &setup(&all, &other, &id("a"), &addresses(&["10.9.0.2/24"])).unwrap(),
    );
    assert_eq!(
        stale(&all, &network(), [&id("b")]),
        [chain_name(&network(), &id("a"))].into()
    );
    // The entry was lost.
    all.chains.get_mut("POSTROUTING").unwrap().rules.clear();
    assert_eq!(stale(&all, &network(), []).len(), 2);
}

#[test]
fn a_comment_is_cut_to_what_iptables_takes() {
    let long = setup(
        &empty(),
        &network(),
        &id(&"a".repeat(300)),
        &addresses(&["10.1.0.2/24"]),
    )
    .unwrap();
    let text = long.to_string();
    let comment = text
        .lines()
        .find_map(|line| line.split("--comment ").nth(1))
        .unwrap();
    let bare = comment.split(" -j ").next().unwrap().replace('\\', "");
    assert_eq!(bare.len(), 255 + 2);
}
