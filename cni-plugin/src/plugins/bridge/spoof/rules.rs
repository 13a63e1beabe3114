//! The rules against forged hardware addresses, as the reference makes them (containernetworking/plugins
//! `pkg/link/spoofcheck.go`): frames from a container's host interface pass only with the container's own address.

use cni_types::{ContainerId, NetworkName, Target};
use net_types::{IfName, MacAddr};
use netstate::nft::{
    BaseChain, ChainKind, Change, Comparison, Family, Hook, Match, Policy, Rule, Statement, TableKey, Verdict,
};
use nftables::Listing;

use crate::plugins::bridge::names::HostVeth;

const PREROUTING: &str = "PREROUTING";
const CHAIN_PREFIX: &str = "cni-br-iface-";
const MAC_SUFFIX: &str = "-mac";

/// Longest name of a chain (linux `NFT_CHAIN_MAXNAMELEN` less the end).
const CHAIN_MAX_BYTES: usize = 255;

/// Before the other chains of the hook, `NF_BR_PRI_NAT_DST_BRIDGED`.
const BASE: BaseChain = BaseChain {
    kind: ChainKind::Filter,
    hook: Hook::Prerouting,
    priority: -300,
    policy: Policy::Accept,
};

/// Where the rules are.
pub(super) fn table() -> TableKey {
    TableKey {
        family: Family::Bridge,
        name: "nat".to_owned(),
    }
}

/// What of the rules is one attachment's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Names {
    /// The chain that frames of its interface are led to.
    pub(super) chain: String,
    mac_chain: String,
    comment: String,
}

impl Names {
    pub(super) fn of(target: &Target) -> Self {
        let id = format!("{}-{}", target.container_id, target.ifname);
        let chain = format!("{CHAIN_PREFIX}{id}");
        Self {
            mac_chain: format!("{chain}{MAC_SUFFIX}"),
            comment: format!("macspoofchk-{id}"),
            chain,
        }
    }

    /// Whether the kernel can have such chains.
    pub(super) fn are_possible(&self) -> bool {
        self.mac_chain.len() <= CHAIN_MAX_BYTES
    }

    fn rule(&self, statements: Vec<Statement>) -> Rule {
        Rule {
            statements,
            comment: Some(self.comment.clone()),
        }
    }

    fn jump(&self, to: &str) -> Rule {
        self.rule(vec![Statement::Verdict(Verdict::Jump(to.to_owned()))])
    }

    fn entry(&self, interface: &IfName) -> Rule {
        self.rule(vec![
            Statement::Match(Comparison::Is, Match::Iifname(interface.clone())),
            Statement::Verdict(Verdict::Jump(self.chain.clone())),
        ])
    }

    fn mac_rules(&self, mac: MacAddr) -> [Rule; 2] {
        let own = Statement::Match(Comparison::Is, Match::EtherSaddr(mac));
        [
            self.rule(vec![own, Statement::Verdict(Verdict::Return)]),
            self.rule(vec![Statement::Verdict(Verdict::Drop)]),
        ]
    }

    /// The rules that lead to the chain, by their numbers.
    fn entries<'a>(&'a self, found: &'a Listing) -> impl Iterator<Item = (u64, &'a Rule)> {
        found
            .rules(PREROUTING)
            .filter(|(_, rule)| jumps_to(rule) == Some(&self.chain))
    }
}

/// The changes that let only frames with this address pass from an attachment's host interface.
pub(super) fn setup(found: Option<&Listing>, names: &Names, interface: &IfName, mac: MacAddr) -> Vec<Change> {
    let mut changes = vec![
        Change::AddTable {
            table: table(),
            comment: None,
        },
        add_chain(PREROUTING, Some(BASE)),
        add_chain(&names.chain, None),
        add_chain(&names.mac_chain, None),
        flush(&names.chain),
        flush(&names.mac_chain),
    ];
    // What an earlier container of this name left leads from an interface that is gone.
    let left = found.into_iter().flat_map(|found| names.entries(found));
    changes.extend(left.map(|(handle, _)| removal(handle)));
    changes.push(append(&names.chain, names.jump(&names.mac_chain)));
    changes.extend(names.mac_rules(mac).map(|rule| append(&names.mac_chain, rule)));
    changes.push(append(PREROUTING, names.entry(interface)));
    changes
}

/// The changes that remove what is an attachment's.
pub(super) fn teardown(found: &Listing, names: &Names) -> Vec<Change> {
    let mut changes: Vec<_> = names.entries(found).map(|(handle, _)| removal(handle)).collect();
    // The chain is removed before the one that it jumps to.
    let chains = [&names.chain, &names.mac_chain];
    let present = chains
        .into_iter()
        .filter(|chain| found.table.chains.contains_key(*chain));
    for chain in present {
        changes.push(flush(chain));
        changes.push(Change::DelChain {
            table: table(),
            chain: chain.clone(),
        });
    }
    changes
}

/// The attachments of a network that have rules and are not valid. A rule tells no network, but the name of our host
/// interface follows from it; the reference's are random, and stay.
pub(super) fn stale<'a>(
    found: &Listing,
    network: &NetworkName,
    valid: impl IntoIterator<Item = &'a Target>,
) -> Vec<Names> {
    let valid: Vec<_> = valid.into_iter().map(Names::of).collect();
    let owned = found.rules(PREROUTING).filter_map(|(_, rule)| {
        let id = jumps_to(rule)?.strip_prefix(CHAIN_PREFIX)?;
        let interface = interface_of(rule)?;
        let mut targets = id.match_indices('-').filter_map(|(dash, _)| target(id, dash));
        targets.find(|target| HostVeth::of(network, target).names.contains(interface))
    });
    let names = owned.map(|target| Names::of(&target));
    names.filter(|names| !valid.contains(names)).collect()
}

/// Whether everything is as it shall be.
pub(super) fn is_complete(found: &Listing, names: &Names, interface: &IfName, mac: MacAddr) -> bool {
    let chain = |name: &str| found.table.chains.get(name);
    chain(PREROUTING).is_some_and(|base| base.base == Some(BASE))
        && names
            .entries(found)
            .any(|(_, rule)| *rule == names.entry(interface))
        && chain(&names.chain).is_some_and(|chain| chain.rules == [names.jump(&names.mac_chain)])
        && chain(&names.mac_chain).is_some_and(|chain| chain.rules == names.mac_rules(mac))
}

fn target(id: &str, dash: usize) -> Option<Target> {
    let (container_id, rest) = id.split_at_checked(dash)?;
    Some(Target {
        container_id: ContainerId::new(container_id).ok()?,
        ifname: IfName::new(rest.strip_prefix('-')?).ok()?,
    })
}

fn jumps_to(rule: &Rule) -> Option<&String> {
    rule.statements.iter().find_map(|statement| match statement {
        Statement::Verdict(Verdict::Jump(chain)) => Some(chain),
        Statement::Verdict(Verdict::Accept | Verdict::Drop | Verdict::Return | Verdict::Goto(_))
        | Statement::Match(..)
        | Statement::Counter
        | Statement::SetMark { .. }
        | Statement::Masquerade { .. }
        | Statement::Dnat { .. }
        | Statement::Other(_) => None,
    })
}

fn interface_of(rule: &Rule) -> Option<&IfName> {
    rule.statements.iter().find_map(|statement| {
        if let Statement::Match(Comparison::Is, Match::Iifname(name)) = statement {
            Some(name)
        } else {
            None
        }
    })
}

fn add_chain(name: &str, base: Option<BaseChain>) -> Change {
    Change::AddChain {
        table: table(),
        chain: name.to_owned(),
        base,
        comment: None,
    }
}

fn flush(chain: &str) -> Change {
    Change::FlushChain {
        table: table(),
        chain: chain.to_owned(),
    }
}

fn append(chain: &str, rule: Rule) -> Change {
    Change::AppendRule {
        table: table(),
        chain: chain.to_owned(),
        rule,
    }
}

fn removal(handle: u64) -> Change {
    Change::DelRule {
        table: table(),
        chain: PREROUTING.to_owned(),
        handle,
    }
}
