use netstate::iptables::IptablesTable;

use super::*;

const NFT: IptablesVariant = IptablesVariant::Nft;
const V4: (&str, &str) = ("10.244.0.0/16", "10.244.58.0/24");
const V6: (&str, &str) = ("fd00:10:244::/48", "fd00:10:244:4e::/64");

#[test]
fn iptables_rules_are_upstreams_word_for_word() {
    let state = rules(all(FilterMode::Iptables(NFT)), &[network(V4)]);
    let table = |name| &state.iptables[&iptables_key(IptablesFamily::V4, NFT, name)];
    assert_eq!(
        table("nat").chains["FLANNEL-POSTRTG"],
        [
            r#"-m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN"#,
            r#"-s 10.244.58.0/24 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j RETURN"#,
            r#"-s 10.244.0.0/16 -d 10.244.58.0/24 -m comment --comment "flanneld masq" -j RETURN"#,
            r#"! -s 10.244.0.0/16 -d 10.244.58.0/24 -m comment --comment "flanneld masq" -j RETURN"#,
            r#"-s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully"#,
            r#"! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully"#,
        ]
    );
    assert_eq!(
        table("filter").chains["FLANNEL-FWD"],
        [
            r#"-s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT"#,
            r#"-d 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT"#,
        ]
    );
    let jumps: Vec<_> = ["nat", "filter"]
        .iter()
        .flat_map(|name| &table(name).jumps)
        .collect();
    let texts = jumps.iter().map(|jump| format!("{} {}", jump.chain, jump.rule));
    assert_eq!(
        texts.collect::<Vec<_>>(),
        [
            r#"POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG"#,
            r#"FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD"#,
        ]
    );
}

#[test]
fn ipv6_has_its_own_programs_tables_and_multicast() {
    let state = rules(all(FilterMode::Iptables(NFT)), &[network(V4), network(V6)]);
    assert_eq!(state.iptables.len(), 4);
    let nat = &state.iptables[&iptables_key(IptablesFamily::V6, NFT, "nat")];
    assert!(nat.chains["FLANNEL-POSTRTG"][4].contains("! -d ff00::/8"));
    let state = rules(all(FilterMode::Nftables), &[network(V4), network(V6)]);
    let names: Vec<_> = state.nft.keys().map(|key| key.name.as_str()).collect();
    assert_eq!(names, ["flannel-ipv4", "flannel-ipv6"]);
}

#[test]
fn what_is_switched_off_is_not_desired_but_stays_in_scope() {
    for mode in [FilterMode::Iptables(NFT), FilterMode::Nftables] {
        let off = RuleSettings {
            mode,
            masquerade: Masquerade::Off,
            forward: false,
        };
        assert_eq!(rules(off, &[network(V4)]), State::default());
    }
    let scope = rules_scope();
    let wanted = [all(FilterMode::Iptables(NFT)), all(FilterMode::Nftables)];
    for settings in wanted {
        let state = rules(settings, &[network(V4), network(V6)]);
        assert!(state.nft.keys().all(|key| scope.nft.contains(key)));
        for (key, own) in &state.iptables {
            assert!(own.chains.keys().all(|chain| scope.iptables[key].contains(chain)));
        }
    }
}

#[test]
fn a_port_is_kept_where_random_ones_are_switched_off() {
    let settings = RuleSettings {
        masquerade: Masquerade::KeepPort,
        ..all(FilterMode::Iptables(NFT))
    };
    let state = rules(settings, &[network(V4)]);
    let nat = &state.iptables[&iptables_key(IptablesFamily::V4, NFT, "nat")];
    assert!(nat.chains["FLANNEL-POSTRTG"][4].ends_with("-j MASQUERADE"));
}

#[test]
fn foreign_chains_and_rules_are_not_picked() {
    let table = |chains: &[(&str, &[&str])]| IptablesTable {
        chains: chains
            .iter()
            .map(|(name, rules)| {
                let rules = rules.iter().map(|rule| (*rule).to_owned()).collect();
                (
                    (*name).to_owned(),
                    netstate::iptables::IptablesChain { policy: None, rules },
                )
            })
            .collect(),
    };
    let ours = BTreeSet::from(["FLANNEL-FWD".to_owned()]);
    let picked = OwnRules::pick(
        &table(&[
            (
                "FORWARD",
                &[
                    "-j KUBE-FORWARD",
                    "-j FLANNEL-FWD",
                    "-i eth0 -j FLANNEL-FWD -m comment",
                ],
            ),
            ("FLANNEL-FWD", &["-s 10.0.0.0/8 -j ACCEPT"]),
            ("KUBE-FORWARD", &[]),
        ]),
        &ours,
    );
    assert_eq!(picked.chains.len(), 1);
    assert_eq!(picked.jumps.len(), 2);
}

fn all(mode: FilterMode) -> RuleSettings {
    RuleSettings {
        mode,
        masquerade: Masquerade::FullyRandom,
        forward: true,
    }
}

fn network((cluster, subnet): (&str, &str)) -> Network {
    Network {
        cluster: cluster.parse().unwrap(),
        subnet: subnet.parse().unwrap(),
    }
}
