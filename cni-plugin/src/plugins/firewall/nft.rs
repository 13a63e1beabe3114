//! The rules in nf_tables: a table of our own, with a chain that the administrator may fill.
//!
//! A verdict to accept ends only its own base chain: **it cannot save a packet from another base chain of the hook that
//! drops it**, of whatever table and priority. So these rules are for nodes where no other table drops what containers send; where
//! iptables does, its back end is chosen ([`super::backend`]).

use std::collections::{BTreeMap, BTreeSet};

use cni_types::{NetworkName, Target, hashed_name};
use ipnetwork::IpNetwork;
use net_types::IfName;
use net_types::registry::NF_PRIORITY_FILTER;
use netstate::nft::{
    BaseChain, ChainKind, Change, Comparison, CtStates, Family, Hook, Match, Policy, Rule, Statement,
    TableKey, Verdict,
};
use nftables::Listing;

use super::conf::{Attachment, IngressPolicy};

const FORWARD: &str = "forward";
const ADMIN: &str = "admin";
const CONTAINERS: &str = "containers";
const STAGE_1: &str = "isolation_stage_1";
const STAGE_2: &str = "isolation_stage_2";

/// Every chain, and what its comment says.
const CHAINS: [(&str, &str); 4] = [
    (
        STAGE_1,
        "Traffic that leaves a bridge whose ingress is restricted, or stays on it",
    ),
    (STAGE_2, "Traffic from such a bridge to another"),
    (ADMIN, "For the administrator: asked before the containers' rules"),
    (CONTAINERS, "What containers send, and the answers to it"),
];

/// Length of each of the hashes in a comment.
const HASH_CHARS: usize = 16;

/// Longest comment of a rule (libnftables `NFTNL_UDATA_COMMENT_MAXLEN` less the end).
const COMMENT_MAX_BYTES: usize = 128;

const POLICY_WORD: &str = "policy: ";

const BASE: BaseChain = BaseChain {
    kind: ChainKind::Filter,
    hook: Hook::Forward,
    priority: NF_PRIORITY_FILTER,
    policy: Policy::Accept,
};

/// Where the rules are.
pub(super) fn table() -> TableKey {
    TableKey {
        family: Family::Inet,
        name: "flannel_cni_firewall".to_owned(),
    }
}

/// The changes that make the table hold these rules of an attachment, and no others of it; none when it does.
pub(super) fn setup(
    found: Option<&Listing>,
    network: &NetworkName,
    target: &Target,
    attachment: &Attachment,
) -> Vec<Change> {
    let wanted = rules(network, target, attachment);
    let of_target = instance(network, target);
    let is_own = |rule: &Rule| comment_of(rule).starts_with(&of_target);
    let mut policies = policies(found, |rule| !is_own(rule));
    policies.extend(attachment.restricted.clone());
    let mut changes = Vec::new();
    if !found.is_some_and(has_frame) {
        changes.extend(frame());
    }
    let owned: Vec<_> = container_rules(found).filter(|(_, rule)| is_own(rule)).collect();
    if !owned.iter().map(|(_, rule)| *rule).eq(&wanted) {
        changes.extend(owned.into_iter().map(|(handle, _)| removal(handle)));
        changes.extend(wanted.into_iter().map(|rule| append(CONTAINERS, rule)));
    }
    changes.extend(isolation(found, &policies));
    changes
}

/// The changes that remove the rules of an attachment, and those of its bridge if no other needs them. A container's
/// interface is of one attachment: under another network's name, the network was renamed since.
pub(super) fn teardown(found: &Listing, target: &Target) -> Vec<Change> {
    let of_target = target_hash(target);
    remove(found, |rule| {
        let comment = comment_of(rule).split_once('-');
        comment.is_some_and(|(_, rest)| rest.starts_with(&of_target))
    })
}

/// The changes that remove the rules of a network's attachments that are not valid.
pub(super) fn gc<'a>(
    found: &Listing,
    network: &NetworkName,
    valid: impl IntoIterator<Item = &'a Target>,
) -> Vec<Change> {
    let valid: Vec<_> = valid
        .into_iter()
        .map(|target| instance(network, target))
        .collect();
    let of_network = format!("{}-", hash(network.as_str()));
    remove(found, |rule| {
        let comment = comment_of(rule);
        comment.starts_with(&of_network) && !valid.iter().any(|instance| comment.starts_with(instance))
    })
}

/// Whether the table holds everything that an attachment needs.
pub(super) fn is_complete(
    found: Option<&Listing>,
    network: &NetworkName,
    target: &Target,
    attachment: &Attachment,
) -> bool {
    setup(found, network, target, attachment).is_empty()
}

fn remove(found: &Listing, is_stale: impl Fn(&Rule) -> bool) -> Vec<Change> {
    let stale = container_rules(Some(found)).filter(|(_, rule)| is_stale(rule));
    let mut changes: Vec<_> = stale.map(|(handle, _)| removal(handle)).collect();
    if has_frame(found) {
        changes.extend(isolation(
            Some(found),
            &policies(Some(found), |rule| !is_stale(rule)),
        ));
    }
    changes
}

fn container_rules(found: Option<&Listing>) -> impl Iterator<Item = (u64, &Rule)> {
    found.into_iter().flat_map(|found| found.rules(CONTAINERS))
}

/// How bridges are restricted by the attachments whose rules are kept.
fn policies(found: Option<&Listing>, is_kept: impl Fn(&Rule) -> bool) -> BTreeSet<(IfName, IngressPolicy)> {
    let kept = container_rules(found).filter(|(_, rule)| is_kept(rule));
    kept.filter_map(|(_, rule)| policy_of(comment_of(rule))).collect()
}

/// The changes that make the chains of isolation as the policies ask for.
fn isolation(found: Option<&Listing>, policies: &BTreeSet<(IfName, IngressPolicy)>) -> Vec<Change> {
    let mut bridges: BTreeMap<&IfName, bool> = BTreeMap::new();
    for (bridge, policy) in policies {
        *bridges.entry(bridge).or_default() |= *policy == IngressPolicy::Isolated;
    }
    let mut first = Vec::new();
    let mut second = Vec::new();
    for (bridge, is_isolated) in bridges {
        let from = is(Match::Iifname(bridge.clone()));
        let to = |comparison| Statement::Match(comparison, Match::Oifname(bridge.clone()));
        let drop = || Statement::Verdict(Verdict::Drop);
        if is_isolated {
            first.push(vec![from.clone(), to(Comparison::Is), drop()]);
        }
        let jump = Statement::Verdict(Verdict::Jump(STAGE_2.to_owned()));
        first.push(vec![from, to(Comparison::IsNot), jump]);
        second.push(vec![to(Comparison::Is), drop()]);
    }
    let mut changes = Vec::new();
    for (chain, rules) in [(STAGE_1, first), (STAGE_2, second)] {
        let rules: Vec<_> = rules.into_iter().map(plain).collect();
        let present = found.and_then(|found| found.table.chains.get(chain));
        if present.map_or(&[][..], |present| &present.rules) != rules {
            changes.push(Change::FlushChain {
                table: table(),
                chain: chain.to_owned(),
            });
            changes.extend(rules.into_iter().map(|rule| append(chain, rule)));
        }
    }
    changes
}

/// Whether packets reach the rules in the way that they shall.
fn has_frame(found: &Listing) -> bool {
    let chains = &found.table.chains;
    let forward = chains.get(FORWARD);
    forward.is_some_and(|chain| chain.base == Some(BASE) && chain.rules == entry_rules())
        && CHAINS
            .iter()
            .all(|(chain, _)| chains.get(*chain).is_some_and(|chain| chain.base.is_none()))
}

fn frame() -> Vec<Change> {
    let mut changes = vec![Change::AddTable {
        table: table(),
        comment: Some("Forwarding for containers, by the CNI plugin firewall".to_owned()),
    }];
    changes.extend(CHAINS.map(|(chain, comment)| Change::AddChain {
        table: table(),
        chain: chain.to_owned(),
        base: None,
        comment: Some(comment.to_owned()),
    }));
    changes.push(Change::AddChain {
        table: table(),
        chain: FORWARD.to_owned(),
        base: Some(BASE),
        comment: None,
    });
    changes.push(Change::FlushChain {
        table: table(),
        chain: FORWARD.to_owned(),
    });
    changes.extend(entry_rules().into_iter().map(|rule| append(FORWARD, rule)));
    changes
}

/// As with the reference in iptables, isolation comes before everything that accepts.
fn entry_rules() -> Vec<Rule> {
    let jumps = [STAGE_1, ADMIN, CONTAINERS].into_iter();
    let jumps = jumps.map(|chain| plain(vec![Statement::Verdict(Verdict::Jump(chain.to_owned()))]));
    jumps.collect()
}

fn rules(network: &NetworkName, target: &Target, attachment: &Attachment) -> Vec<Rule> {
    let comment = comment(network, target, attachment);
    let rule = |matches: Vec<Statement>| {
        let statements = matches.into_iter().chain([Statement::Verdict(Verdict::Accept)]);
        let rule = Rule {
            statements: statements.collect(),
            comment: Some(comment.clone()),
        };
        rule.canonical(table().family)
    };
    let answers = Match::CtState(CtStates {
        established: true,
        related: true,
        ..CtStates::default()
    });
    let of_host = |host: &IpNetwork| {
        [
            rule(vec![is(Match::Daddr(*host)), is(answers.clone())]),
            rule(vec![is(Match::Saddr(*host))]),
        ]
    };
    attachment.hosts.iter().flat_map(of_host).collect()
}

fn hash(text: &str) -> String {
    hashed_name("", HASH_CHARS, text)
}

/// What the comments of an attachment's rules begin with.
fn instance(network: &NetworkName, target: &Target) -> String {
    format!("{}-{}", hash(network.as_str()), target_hash(target))
}

fn target_hash(target: &Target) -> String {
    hash(&format!("{}:{}", target.ifname, target.container_id))
}

/// Whose the rules are and how their bridge is restricted, then names for people, as far as there is room.
fn comment(network: &NetworkName, target: &Target, attachment: &Attachment) -> String {
    let policy = match &attachment.restricted {
        None => IngressPolicy::Open.as_str().to_owned(),
        Some((bridge, policy)) => format!("{} {bridge}", policy.as_str()),
    };
    let Target { container_id, ifname } = target;
    let ifname = ifname.as_str().replace('"', "");
    let instance = instance(network, target);
    let text = format!("{instance}, {POLICY_WORD}{policy}, net: {network}, if: {ifname}, id: {container_id}");
    let end = text.floor_char_boundary(COMMENT_MAX_BYTES);
    text.get(..end).unwrap_or_default().to_owned()
}

/// Reads back from a comment how a bridge is restricted.
fn policy_of(comment: &str) -> Option<(IfName, IngressPolicy)> {
    let mut parts = comment.split(", ");
    let (policy, bridge) = parts.nth(1)?.strip_prefix(POLICY_WORD)?.split_once(' ')?;
    Some((IfName::new(bridge).ok()?, IngressPolicy::parse(policy)?))
}

fn comment_of(rule: &Rule) -> &str {
    rule.comment.as_deref().unwrap_or_default()
}

const fn is(found: Match) -> Statement {
    Statement::Match(Comparison::Is, found)
}

const fn plain(statements: Vec<Statement>) -> Rule {
    Rule {
        statements,
        comment: None,
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
        chain: CONTAINERS.to_owned(),
        handle,
    }
}

#[cfg(test)]
mod tests;
