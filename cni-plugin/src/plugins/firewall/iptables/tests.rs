use netstate::iptables::parse_save;

use super::*;

fn table(text: &str) -> IptablesTable {
    parse_save(text).unwrap().remove(TABLE).unwrap()
}

fn empty() -> IptablesTable {
    table("*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")
}

/// What the reference made with policy same-bridge.
fn reference() -> IptablesTable {
    table(include_str!("../../../../tests/data/firewall-reference.v4"))
}

fn conf() -> Conf {
    Conf {
        backend: None,
        admin_chain: "CNI-ADMIN".to_owned(),
        ingress: IngressPolicy::SameBridge,
    }
}

fn attachment(policy: IngressPolicy) -> Attachment {
    Attachment {
        hosts: hosts(),
        restricted: match policy {
            IngressPolicy::Open => None,
            IngressPolicy::SameBridge | IngressPolicy::Isolated => Some(("cni0".parse().unwrap(), policy)),
        },
    }
}

fn hosts() -> Vec<IpNetwork> {
    vec!["10.244.7.2/32".parse().unwrap()]
}

fn changes(table: &IptablesTable, policy: IngressPolicy) -> String {
    setup(table, &conf(), &attachment(policy), &hosts())
        .unwrap()
        .to_string()
}

#[test]
fn nothing_is_missing_in_what_the_reference_made() {
    assert_eq!(changes(&reference(), IngressPolicy::SameBridge), "");
    assert_eq!(
        missing(
            &reference(),
            &conf(),
            &attachment(IngressPolicy::SameBridge),
            &hosts()
        ),
        None
    );
    assert!(missing(&empty(), &conf(), &attachment(IngressPolicy::Open), &hosts()).is_some());
}

#[test]
fn chains_that_others_fill_are_made_but_never_emptied() {
    let text = changes(&empty(), IngressPolicy::SameBridge);
    for chain in [CONTAINERS, "CNI-ADMIN", STAGE_1, STAGE_2] {
        assert!(text.contains(&format!("-N {chain}\n")), "{text}");
    }
    assert!(!text.contains(" - [0:0]"), "{text}");
}

#[test]
fn isolation_stays_before_what_accepts() {
    let mut table = reference();
    let forward = table.chains.get_mut(FORWARD).unwrap();
    forward.rules.retain(|rule| !rule.ends_with(CONTAINERS));
    let text = changes(&table, IngressPolicy::Open);
    let places: Vec<_> = [
        "-D FORWARD",
        "-j CNI-FORWARD",
        "-I FORWARD -m comment --comment \"CNI firewall plugin rules (ing",
    ]
    .iter()
    .map(|part| text.find(part).unwrap_or_else(|| panic!("{part}: {text}")))
    .collect();
    assert!(places.is_sorted(), "{text}");
}

#[test]
fn an_isolated_bridge_drops_what_stays_on_it() {
    let text = changes(&reference(), IngressPolicy::Isolated);
    assert_eq!(
        text,
        "*filter\n-I CNI-ISOLATION-STAGE-1 -i cni0 -o cni0 -m comment --comment \"CNI firewall plugin rules \
         (ingressPolicy: isolated)\" -j DROP\nCOMMIT\n"
    );
}

#[test]
fn only_an_addresses_own_rules_are_removed_as_often_as_they_are_there() {
    let text = teardown(&reference(), &hosts()).unwrap().to_string();
    assert_eq!(
        text,
        "*filter\n-D CNI-FORWARD -d 10.244.7.2/32 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n\
         -D CNI-FORWARD -s 10.244.7.2/32 -j ACCEPT\nCOMMIT\n"
    );
    assert!(teardown(&empty(), &hosts()).unwrap().is_empty());
    let mut twice = reference();
    let rules = &mut twice.chains.get_mut(CONTAINERS).unwrap().rules;
    rules.extend(rules.clone());
    assert_eq!(
        teardown(&twice, &hosts()).unwrap().to_string().lines().count(),
        2 + 4
    );
}
