use cni_types::ContainerId;
use netstate::nft::listing;

use super::*;
use crate::plugins::netfilter::testing::after;

fn network(name: &str) -> NetworkName {
    NetworkName::new(name).unwrap()
}

fn target(id: &str) -> Target {
    Target {
        container_id: ContainerId::new(id).unwrap(),
        ifname: IfName::new("eth0").unwrap(),
    }
}

fn attachment(host: &str, policy: IngressPolicy, bridge: &str) -> Attachment {
    Attachment {
        hosts: vec![host.parse().unwrap()],
        restricted: match policy {
            IngressPolicy::Open => None,
            IngressPolicy::SameBridge | IngressPolicy::Isolated => {
                Some((IfName::new(bridge).unwrap(), policy))
            }
        },
    }
}

fn with(listing: &Listing, id: &str, attachment: &Attachment) -> Listing {
    after(
        listing.clone(),
        &setup(Some(listing), &network("net"), &target(id), attachment),
    )
}

fn without(listing: &Listing, id: &str) -> Listing {
    after(listing.clone(), &teardown(listing, &target(id)))
}

fn rules(listing: &Listing, chain: &str) -> Vec<String> {
    listing.rules(chain).map(|(_, rule)| rule.to_string()).collect()
}

#[test]
fn the_table_is_as_documented() {
    let mut dual = attachment("10.1.0.2/32", IngressPolicy::SameBridge, "cni0");
    dual.hosts.push("fd00::2/128".parse().unwrap());
    let made = with(&Listing::default(), "a", &dual);
    assert_eq!(
        listing(&table(), &made.table),
        include_str!("../../../../tests/data/firewall.nft")
    );
    assert!(is_complete(Some(&made), &network("net"), &target("a"), &dual));
    assert!(!is_complete(Some(&made), &network("net"), &target("b"), &dual));
    assert!(!is_complete(None, &network("net"), &target("a"), &dual));
}

#[test]
fn a_bridge_is_restricted_as_long_as_one_of_its_containers_asks_for_it() {
    let none = Listing::default();
    let open = attachment("10.1.0.2/32", IngressPolicy::Open, "");
    let same = attachment("10.1.0.3/32", IngressPolicy::SameBridge, "cni0");
    let isolated = attachment("10.1.0.4/32", IngressPolicy::Isolated, "cni0");
    let other = attachment("10.2.0.4/32", IngressPolicy::SameBridge, "cni1");

    let one = with(&none, "a", &open);
    assert!(rules(&one, STAGE_1).is_empty());
    let two = with(&one, "b", &same);
    let jump = |bridge: &str| format!("iifname \"{bridge}\" oifname != \"{bridge}\" jump isolation_stage_2");
    assert_eq!(rules(&two, STAGE_1), [jump("cni0")]);
    let three = with(&two, "c", &isolated);
    assert_eq!(
        rules(&three, STAGE_1),
        ["iifname \"cni0\" oifname \"cni0\" drop".to_owned(), jump("cni0")]
    );
    let four = with(&three, "d", &other);
    assert_eq!(
        rules(&four, STAGE_2),
        ["oifname \"cni0\" drop", "oifname \"cni1\" drop"]
    );

    assert_eq!(rules(&without(&four, "d"), STAGE_1), rules(&three, STAGE_1));
    assert_eq!(rules(&without(&three, "c"), STAGE_1), rules(&two, STAGE_1));
    let last = without(&without(&two, "b"), "a");
    assert!(
        [STAGE_1, STAGE_2, CONTAINERS]
            .iter()
            .all(|chain| rules(&last, chain).is_empty())
    );
    assert!(teardown(&last, &target("a")).is_empty());
}

#[test]
fn gc_keeps_valid_attachments_and_other_networks() {
    let same = attachment("10.1.0.3/32", IngressPolicy::SameBridge, "cni0");
    let two = with(
        &with(&Listing::default(), "a", &same),
        "b",
        &attachment("10.1.0.4/32", IngressPolicy::Open, ""),
    );
    let foreign = setup(
        Some(&two),
        &network("other"),
        &target("a"),
        &attachment("10.9.0.4/32", IngressPolicy::Open, ""),
    );
    let all = after(two, &foreign);
    let left = after(all.clone(), &gc(&all, &network("net"), [&target("b")]));
    let text = rules(&left, CONTAINERS).join("\n");
    assert!(
        text.contains("10.1.0.4") && text.contains("10.9.0.4") && !text.contains("10.1.0.3"),
        "{text}"
    );
    assert!(rules(&left, STAGE_1).is_empty());
}

#[test]
fn what_an_administrator_added_stays() {
    let open = attachment("10.1.0.2/32", IngressPolicy::Open, "");
    let made = with(&Listing::default(), "a", &open);
    let own = Change::AppendRule {
        table: table(),
        chain: ADMIN.to_owned(),
        rule: "tcp dport 25 drop".parse().unwrap(),
    };
    let changed = after(made, &[own]);
    let more = with(
        &changed,
        "b",
        &attachment("10.1.0.3/32", IngressPolicy::SameBridge, "cni0"),
    );
    assert_eq!(rules(&without(&more, "b"), ADMIN), ["tcp dport 25 drop"]);
}

#[test]
fn a_comment_tells_its_policy_however_long_the_names_are() {
    let isolated = attachment("10.1.0.2/32", IngressPolicy::Isolated, "bridge012345678");
    let text = comment(&network("net"), &target(&"a".repeat(300)), &isolated);
    assert_eq!(text.len(), 128);
    assert_eq!(policy_of(&text), isolated.restricted);
    let open = comment(
        &network("net"),
        &target("a"),
        &attachment("10.1.0.2/32", IngressPolicy::Open, ""),
    );
    assert_eq!(policy_of(&open), None);
    assert_eq!(policy_of("something else"), None);
}
