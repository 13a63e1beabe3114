//! The packet filter rules of a node: which traffic leaves under the node's address, and that pods' traffic is let
//! through.
//!
//! The texts are upstream's (flannel `pkg/trafficmngr`), but for two defects of its nftables rules: the third `return`
//! says there what iptables says, and the mark is compared by its bit, not as a whole.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnetwork::IpNetwork;
use net_types::registry::{
    IPTABLES_FORWARD_CHAIN, IPTABLES_POSTROUTING_CHAIN, KUBE_MASQUERADE_MARK, NF_PRIORITY_FILTER,
    NF_PRIORITY_SRCNAT, NFT_TABLE_V4, NFT_TABLE_V6,
};
use netstate::iptables::{IptablesFamily, IptablesKey, IptablesVariant, JumpRule, OwnRules};
use netstate::nft::{
    BaseChain, Chain, ChainKind, Comparison, Family, Hook, Match, Policy, Rule, Statement, Table, TableKey,
    Verdict,
};
use netstate::{Scope, State};

#[cfg(test)]
mod tests;

/// Which part of the kernel holds the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterMode {
    /// nf_tables, programmed directly.
    Nftables,
    /// iptables, through its programs.
    Iptables(IptablesVariant),
}

/// Which rules a node wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuleSettings {
    /// Where they are.
    pub mode: FilterMode,
    /// Whether traffic that leaves the pod network is masqueraded.
    pub masquerade: Masquerade,
    /// Whether rules accept the pod network's forwarded traffic.
    pub forward: bool,
}

/// Whether and how the source address of traffic that leaves the pod network is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Masquerade {
    /// It is not.
    Off,
    /// The kernel keeps the port if it can.
    KeepPort,
    /// The port is chosen at random, so that two connections opened at once do not get the same one.
    FullyRandom,
}

/// The pod network and this node's part of it, of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// All pods.
    pub cluster: IpNetwork,
    /// This node's pods.
    pub subnet: IpNetwork,
}

/// Returns the rules that the node should have for its networks.
#[must_use]
pub fn rules(settings: RuleSettings, networks: &[Network]) -> State {
    let mut state = State::default();
    for network in networks {
        match settings.mode {
            FilterMode::Nftables => add_nft(&mut state, settings, network),
            FilterMode::Iptables(variant) => add_iptables(&mut state, settings, variant, network),
        }
    }
    state
}

/// Returns what is ours of a node's rules, whatever the mode: what another mode left behind is ours as well.
#[must_use]
pub fn rules_scope() -> Scope {
    let mut scope = Scope {
        nft: BTreeSet::from([nft_key(Family::Ip), nft_key(Family::Ip6)]),
        ..Scope::default()
    };
    let postrouting = IPTABLES_POSTROUTING_CHAIN.to_owned();
    let forward = IPTABLES_FORWARD_CHAIN.to_owned();
    for family in [IptablesFamily::V4, IptablesFamily::V6] {
        for variant in [IptablesVariant::Nft, IptablesVariant::Legacy] {
            let tables = [("nat", &postrouting), ("filter", &forward)];
            scope.iptables.extend(tables.map(|(table, chain)| {
                (
                    iptables_key(family, variant, table),
                    BTreeSet::from([chain.clone()]),
                )
            }));
        }
    }
    scope
}

/// Returns the part of that scope in which a mode's own rules are.
#[must_use]
pub fn rules_scope_of(mode: FilterMode) -> Scope {
    let mut scope = rules_scope();
    match mode {
        FilterMode::Nftables => scope.iptables.clear(),
        FilterMode::Iptables(variant) => {
            scope.nft.clear();
            scope.iptables.retain(|key, _| key.variant == variant);
        }
    }
    scope
}

fn nft_key(family: Family) -> TableKey {
    let name = match family {
        Family::Ip6 => NFT_TABLE_V6,
        Family::Ip | Family::Inet | Family::Bridge => NFT_TABLE_V4,
    };
    TableKey {
        family,
        name: name.to_owned(),
    }
}

fn add_nft(state: &mut State, settings: RuleSettings, network: &Network) {
    let family = if network.cluster.is_ipv6() {
        Family::Ip6
    } else {
        Family::Ip
    };
    let key = nft_key(family);
    let mut chains = BTreeMap::new();
    if settings.masquerade != Masquerade::Off {
        chains.insert(
            "postrtg".to_owned(),
            nft_postrouting(settings.masquerade, network),
        );
    }
    if settings.forward {
        chains.insert("forward".to_owned(), nft_forward(network));
    }
    if chains.is_empty() {
        return;
    }
    let table = Table {
        comment: Some(format!("rules for {}", key.name)),
        chains,
        ..Table::default()
    };
    state.nft.insert(key, table);
}

fn nft_postrouting(masquerade: Masquerade, network: &Network) -> Chain {
    use Comparison::{Is, IsNot};
    let Network { cluster, subnet } = *network;
    let from = |comparison, net| Statement::Match(comparison, Match::Saddr(net));
    let to = |comparison, net| Statement::Match(comparison, Match::Daddr(net));
    let marked = Match::Mark {
        value: KUBE_MASQUERADE_MARK,
        mask: KUBE_MASQUERADE_MARK,
    };
    let back = || Statement::Verdict(Verdict::Return);
    let masquerade = || Statement::Masquerade {
        fully_random: masquerade == Masquerade::FullyRandom,
    };
    let rules = vec![
        vec![Statement::Match(Is, marked), back()],
        vec![from(Is, subnet), to(Is, cluster), back()],
        vec![from(Is, cluster), to(Is, subnet), back()],
        vec![from(IsNot, cluster), to(Is, subnet), back()],
        vec![from(Is, cluster), to(IsNot, multicast(cluster)), masquerade()],
        vec![from(IsNot, cluster), to(Is, cluster), masquerade()],
    ];
    Chain {
        base: Some(BaseChain {
            kind: ChainKind::Nat,
            hook: Hook::Postrouting,
            priority: NF_PRIORITY_SRCNAT,
            policy: Policy::Accept,
        }),
        comment: Some("chain to manage traffic masquerading by flannel".to_owned()),
        rules: rules.into_iter().map(rule).collect(),
    }
}

fn nft_forward(network: &Network) -> Chain {
    let accept = |direction| {
        rule(vec![
            Statement::Match(Comparison::Is, direction),
            Statement::Verdict(Verdict::Accept),
        ])
    };
    Chain {
        base: Some(BaseChain {
            kind: ChainKind::Filter,
            hook: Hook::Forward,
            priority: NF_PRIORITY_FILTER,
            policy: Policy::Accept,
        }),
        comment: Some("chain to accept flannel traffic".to_owned()),
        rules: vec![
            accept(Match::Saddr(network.cluster)),
            accept(Match::Daddr(network.cluster)),
        ],
    }
}

const fn rule(statements: Vec<Statement>) -> Rule {
    Rule {
        statements,
        comment: None,
    }
}

/// The multicast addresses of a network's family: they are never masqueraded.
fn multicast(of: IpNetwork) -> IpNetwork {
    let (ip, prefix_len) = if of.is_ipv4() {
        (IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4)
    } else {
        (IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8)
    };
    IpNetwork::new(ip, prefix_len).unwrap_or_else(|_| IpNetwork::from(ip))
}

fn iptables_key(family: IptablesFamily, variant: IptablesVariant, table: &str) -> IptablesKey {
    IptablesKey {
        family,
        variant,
        table: table.to_owned(),
    }
}

fn add_iptables(state: &mut State, settings: RuleSettings, variant: IptablesVariant, network: &Network) {
    let family = if network.cluster.is_ipv6() {
        IptablesFamily::V6
    } else {
        IptablesFamily::V4
    };
    if settings.masquerade != Masquerade::Off {
        let rules = OwnRules {
            chains: BTreeMap::from([(
                IPTABLES_POSTROUTING_CHAIN.to_owned(),
                iptables_postrouting(settings.masquerade, network),
            )]),
            jumps: vec![jump("POSTROUTING", MASQ_COMMENT, IPTABLES_POSTROUTING_CHAIN)],
        };
        state.iptables.insert(iptables_key(family, variant, "nat"), rules);
    }
    if settings.forward {
        let cluster = network.cluster;
        let rules = OwnRules {
            chains: BTreeMap::from([(
                IPTABLES_FORWARD_CHAIN.to_owned(),
                vec![
                    format!("-s {cluster} {FORWARD_COMMENT} -j ACCEPT"),
                    format!("-d {cluster} {FORWARD_COMMENT} -j ACCEPT"),
                ],
            )]),
            jumps: vec![jump("FORWARD", FORWARD_COMMENT, IPTABLES_FORWARD_CHAIN)],
        };
        state
            .iptables
            .insert(iptables_key(family, variant, "filter"), rules);
    }
}

const MASQ_COMMENT: &str = r#"-m comment --comment "flanneld masq""#;
const FORWARD_COMMENT: &str = r#"-m comment --comment "flanneld forward""#;

fn jump(chain: &str, comment: &str, target: &str) -> JumpRule {
    JumpRule {
        chain: chain.to_owned(),
        rule: format!("{comment} -j {target}"),
    }
}

fn iptables_postrouting(masquerade: Masquerade, network: &Network) -> Vec<String> {
    let Network { cluster, subnet } = *network;
    let multicast = multicast(cluster);
    let masquerade = match masquerade {
        Masquerade::FullyRandom => "MASQUERADE --random-fully",
        Masquerade::KeepPort | Masquerade::Off => "MASQUERADE",
    };
    let mark = KUBE_MASQUERADE_MARK;
    vec![
        format!("-m mark --mark {mark:#x}/{mark:#x} {MASQ_COMMENT} -j RETURN"),
        format!("-s {subnet} -d {cluster} {MASQ_COMMENT} -j RETURN"),
        format!("-s {cluster} -d {subnet} {MASQ_COMMENT} -j RETURN"),
        format!("! -s {cluster} -d {subnet} {MASQ_COMMENT} -j RETURN"),
        format!("-s {cluster} ! -d {multicast} {MASQ_COMMENT} -j {masquerade}"),
        format!("! -s {cluster} -d {cluster} {MASQ_COMMENT} -j {masquerade}"),
    ]
}
