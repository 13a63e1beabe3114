//! The rules in nftables, as the reference makes them (`plugins/meta/portmap/portmap_nftables.go`), but for this:
//!
//! - Of the connections to a mapped port, those from the container's own network are masqueraded as in iptables, told
//!   by the mark. The reference leaves out all but the container's own; the answers to the others then go straight
//!   over the bridge, past the translation back, unless the kernel passes bridged packets through the packet filter.
//!   Likewise `masqAll` is for connections to mapped ports, not for every packet to the container.
//! - Conditions stand in the rules that they are for. The reference writes those of whoever came last into the rules
//!   that all networks share.
//! - The container that came last is served first, so that nothing that one left behind stands in another's way.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use cni_types::{ContainerId, hashed_name};
use ipnetwork::IpNetwork;
use net_types::registry::{NF_PRIORITY_DSTNAT, NF_PRIORITY_SRCNAT, PORTMAP_NFT_TABLE};
use netlink::conntrack::OriginalDestination;
use netstate::TextError;
use netstate::nft::{
    BaseChain, Chain, ChainKind, Change, Comparison, Family, Hook, Match, Policy, Rule, Statement, Table,
    TableKey, Verdict,
};
use nftables::Selection;

use super::attachment::{Attachment, IpFamily, Mapping, MarkBy, Protocol};

const TABLE_COMMENT: &str = "CNI portmap plugin";

/// Rules of the containers.
const HOSTPORTS: &str = "hostports";
/// Where earlier versions of the reference put the rules for one address of the host.
const HOSTIP_HOSTPORTS: &str = "hostip_hostports";
const HOSTPORTS_ALL: &str = "hostports_all";
const MASQUERADING: &str = "masquerading";
const PREROUTING: &str = "prerouting";
const OUTPUT: &str = "output";

/// The chains that hold rules of containers.
const CONTAINERS_CHAINS: [&str; 3] = [HOSTPORTS, HOSTIP_HOSTPORTS, MASQUERADING];

/// The chains that all containers share.
const SHARED_CHAINS: [&str; 3] = [HOSTPORTS_ALL, PREROUTING, OUTPUT];

/// Longest comment that nft takes (libnftnl `udata.h`, `NFTNL_UDATA_COMMENT_MAXLEN`).
const COMMENT_MAX_BYTES: usize = 128;

fn table_key(family: IpFamily) -> TableKey {
    let family = match family {
        IpFamily::V4 => Family::Ip,
        IpFamily::V6 => Family::Ip6,
    };
    TableKey {
        family,
        name: PORTMAP_NFT_TABLE.to_owned(),
    }
}

/// What the table of a family holds: the content, and the kernel's number of each rule, by chain.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found<'a> {
    pub(crate) table: &'a Table,
    pub(crate) handles: &'a BTreeMap<String, Vec<u64>>,
}

/// What a container has in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    family: IpFamily,
    /// The comment that tells the container's rules.
    comment: String,
    hostports: Vec<Rule>,
    masquerading: Vec<Rule>,
}

/// A condition that is none, or none that is understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("conditions {text:?}: {reason}")]
pub(crate) struct ConditionError {
    text: String,
    reason: String,
}

impl Wanted {
    /// The rules of a container's attachments; none of its attachments is none of its rules.
    pub(crate) fn of(
        container_id: &ContainerId,
        attachments: &[&Attachment],
        family: IpFamily,
    ) -> Result<Self, ConditionError> {
        let mut wanted = Self {
            family,
            comment: comment(container_id),
            hostports: Vec::new(),
            masquerading: Vec::new(),
        };
        for attachment in attachments {
            let Some(address) = attachment.address(family) else {
                continue;
            };
            let conditions = parse_conditions(attachment.conf.conditions(family))?;
            for mapping in attachment.mappings(family) {
                wanted.map(attachment, mapping, &conditions, address);
            }
            if attachment.conf.snat && attachment.is_mapped_in(family) {
                wanted.masquerade(attachment, address.ip());
            }
        }
        Ok(wanted)
    }

    fn map(
        &mut self,
        attachment: &Attachment,
        mapping: &Mapping,
        conditions: &[Statement],
        address: IpNetwork,
    ) {
        let mut matches = conditions.to_vec();
        if let Some(ip) = mapping.one_host_ip() {
            matches.push(is(Match::Daddr(ip.into())));
        }
        matches.push(is(Match::L4Proto(mapping.protocol.number())));
        matches.push(is(Match::Dport(mapping.host_port)));
        if let (true, MarkBy::Bit(mask)) = (attachment.conf.snat, &attachment.conf.mark) {
            let mut statements = matches.clone();
            if !attachment.conf.masq_all {
                let subnet = attachment.subnet(self.family).unwrap_or(address);
                statements.insert(0, is(Match::Saddr(subnet)));
            }
            statements.push(Statement::SetMark {
                value: *mask,
                mask: *mask,
            });
            let rule = self.rule(statements);
            self.hostports.push(rule);
        }
        matches.push(Statement::Dnat {
            addr: address.ip(),
            port: Some(mapping.container_port),
        });
        let rule = self.rule(matches);
        self.hostports.push(rule);
    }

    fn masquerade(&mut self, attachment: &Attachment, address: IpAddr) {
        let to = is(Match::Daddr(address.into()));
        let masquerade = Statement::Masquerade { fully_random: false };
        if !attachment.conf.masq_all {
            let localhost = address.is_ipv4().then_some(IpAddr::from(Ipv4Addr::LOCALHOST));
            for from in [Some(address), localhost].into_iter().flatten() {
                let from = is(Match::Saddr(from.into()));
                let rule = self.rule(vec![from, to.clone(), masquerade.clone()]);
                self.masquerading.push(rule);
            }
        }
        if let MarkBy::Bit(mask) = &attachment.conf.mark {
            let marked = is(Match::Mark {
                value: *mask,
                mask: *mask,
            });
            let rule = self.rule(vec![marked, to, masquerade]);
            self.masquerading.push(rule);
        }
    }

    fn rule(&self, statements: Vec<Statement>) -> Rule {
        let rule = Rule {
            statements,
            comment: Some(self.comment.clone()),
        };
        rule.canonical(self.table().family)
    }

    pub(crate) fn table(&self) -> TableKey {
        table_key(self.family)
    }

    /// What of the table has to be known: what all share, and the container's own rules unless there can be none. The
    /// kernel has no question for one container's rules; those of the others are passed over as they come.
    pub(crate) fn selection(&self, has_rules: bool) -> Selection {
        Selection {
            chains: SHARED_CHAINS.map(str::to_owned).into(),
            comment: has_rules.then(|| self.comment.clone()),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hostports.is_empty()
    }

    /// The changes that make the table hold these rules of the container and no others; none when it does. All other
    /// rules stay.
    pub(crate) fn changes(&self, found: Option<Found<'_>>) -> Vec<Change> {
        let mut changes = Vec::new();
        if !self.is_empty() {
            self.skeleton_changes(found, &mut changes);
        }
        for chain in CONTAINERS_CHAINS {
            self.chain_changes(chain, found, &mut changes);
        }
        changes
    }

    fn wanted_in(&self, chain: &str) -> &[Rule] {
        match chain {
            HOSTPORTS => &self.hostports,
            MASQUERADING => &self.masquerading,
            _ => &[],
        }
    }

    fn chain_changes(&self, chain: &str, found: Option<Found<'_>>, changes: &mut Vec<Change>) {
        let own: Vec<_> = found.map_or_else(Vec::new, |found| self.own_rules(found, chain));
        let wanted = self.wanted_in(chain);
        if own.iter().map(|(rule, _)| *rule).eq(wanted) {
            return;
        }
        let table = self.table();
        let removed = own.into_iter().map(|(_, handle)| Change::DelRule {
            table: table.clone(),
            chain: chain.to_owned(),
            handle,
        });
        changes.extend(removed);
        // Each goes to the start of the chain, so the last one first.
        changes.extend(wanted.iter().rev().map(|rule| Change::InsertRule {
            table: table.clone(),
            chain: chain.to_owned(),
            rule: rule.clone(),
        }));
    }

    /// The container's rules in a chain with their numbers.
    fn own_rules<'a>(&self, found: Found<'a>, chain: &str) -> Vec<(&'a Rule, u64)> {
        let Some(content) = found.table.chains.get(chain) else {
            return Vec::new();
        };
        let handles = found.handles.get(chain).map(Vec::as_slice).unwrap_or_default();
        let rules = content.rules.iter().zip(handles.iter().copied());
        rules
            .filter(|(rule, _)| rule.comment.as_ref() == Some(&self.comment))
            .collect()
    }

    /// Table, chains and rules that all containers share.
    fn skeleton(&self) -> Vec<(&'static str, Chain)> {
        let jump = |to: &str| Statement::Verdict(Verdict::Jump(to.to_owned()));
        let plain = |statements| Rule {
            statements,
            comment: None,
        };
        let to_containers = || vec![plain(vec![is(Match::DaddrIsLocal), jump(HOSTPORTS_ALL)])];
        let both = vec![plain(vec![jump(HOSTIP_HOSTPORTS)]), plain(vec![jump(HOSTPORTS)])];
        let mut skeleton = vec![
            (HOSTPORTS, Chain::default()),
            (HOSTIP_HOSTPORTS, Chain::default()),
            (HOSTPORTS_ALL, chain(None, both)),
            (
                PREROUTING,
                chain(Some(nat(Hook::Prerouting, NF_PRIORITY_DSTNAT)), to_containers()),
            ),
            (
                OUTPUT,
                chain(Some(nat(Hook::Output, NF_PRIORITY_DSTNAT)), to_containers()),
            ),
        ];
        if !self.masquerading.is_empty() {
            let base = Some(nat(Hook::Postrouting, NF_PRIORITY_SRCNAT));
            skeleton.push((MASQUERADING, chain(base, Vec::new())));
        }
        skeleton
    }

    fn skeleton_changes(&self, found: Option<Found<'_>>, changes: &mut Vec<Change>) {
        let table = self.table();
        if found.is_none() {
            changes.push(Change::AddTable {
                table: table.clone(),
                comment: Some(TABLE_COMMENT.to_owned()),
            });
        }
        for (name, chain) in self.skeleton() {
            let present = found.and_then(|found| found.table.chains.get(name));
            if present.is_none_or(|present| present.base != chain.base) {
                changes.push(Change::AddChain {
                    table: table.clone(),
                    chain: name.to_owned(),
                    base: chain.base,
                    comment: None,
                });
            }
            let holds_containers = CONTAINERS_CHAINS.contains(&name);
            if holds_containers || present.is_some_and(|present| present.rules == chain.rules) {
                continue;
            }
            changes.push(Change::FlushChain {
                table: table.clone(),
                chain: name.to_owned(),
            });
            changes.extend(chain.rules.into_iter().map(|rule| Change::AppendRule {
                table: table.clone(),
                chain: name.to_owned(),
                rule,
            }));
        }
    }

    /// The first rule that should be there and is not, with its chain, or a chain itself.
    pub(crate) fn missing(&self, found: Option<Found<'_>>) -> Option<(String, Option<Rule>)> {
        if self.is_empty() {
            return None;
        }
        for (name, wanted) in self.skeleton() {
            let present = found.and_then(|found| found.table.chains.get(name));
            let Some(present) = present.filter(|present| present.base == wanted.base) else {
                return Some((name.to_owned(), None));
            };
            let mut rules = wanted.rules.iter().chain(self.wanted_in(name));
            if let Some(rule) = rules.find(|rule| !present.rules.contains(rule)) {
                return Some((name.to_owned(), Some(rule.clone())));
            }
        }
        None
    }

    /// Where the UDP flows went that the table leads to the container.
    pub(crate) fn found_udp_destinations(&self, found: Option<Found<'_>>) -> BTreeSet<OriginalDestination> {
        let Some(found) = found else {
            return BTreeSet::new();
        };
        let chains = [HOSTPORTS, HOSTIP_HOSTPORTS].into_iter();
        let own = chains.flat_map(|chain| self.own_rules(found, chain));
        own.filter_map(|(rule, _)| udp_destination(self.family, rule))
            .collect()
    }
}

/// Where the flows went that a rule translates.
fn udp_destination(family: IpFamily, rule: &Rule) -> Option<OriginalDestination> {
    let statements = &rule.statements;
    let is_translation = |statement: &Statement| matches!(statement, Statement::Dnat { .. });
    let udp = is(Match::L4Proto(Protocol::Udp.number()));
    if !statements.contains(&udp) || !statements.iter().any(is_translation) {
        return None;
    }
    let (mut addr, mut port) = (None, None);
    for statement in statements {
        if let Statement::Match(Comparison::Is, Match::Daddr(net)) = statement {
            addr = (*net == IpNetwork::from(net.ip())).then(|| net.ip());
        }
        if let Statement::Match(Comparison::Is, Match::Dport(found)) = statement {
            port = Some(*found);
        }
    }
    Some(OriginalDestination {
        version: family.version(),
        addr,
        port: port?,
    })
}

/// The container id, as the reference has it; one that nft would not take is cut and told apart by a digest.
fn comment(container_id: &ContainerId) -> String {
    const DIGEST_BYTES: usize = 32;
    let id = container_id.as_str();
    if id.len() <= COMMENT_MAX_BYTES {
        return id.to_owned();
    }
    let kept: String = id.chars().take(COMMENT_MAX_BYTES - DIGEST_BYTES).collect();
    kept + &hashed_name("", DIGEST_BYTES, id)
}

/// Conditions in the syntax of nft; each text may be a word of one or a whole one.
fn parse_conditions(texts: &[String]) -> Result<Vec<Statement>, ConditionError> {
    let text = texts.join(" ");
    let refused = |reason| ConditionError {
        text: text.clone(),
        reason,
    };
    let rule: Rule = text.parse().map_err(|e: TextError| refused(e.to_string()))?;
    let are_matches = rule
        .statements
        .iter()
        .all(|part| matches!(part, Statement::Match(..)));
    if are_matches && rule.comment.is_none() {
        Ok(rule.statements)
    } else {
        Err(refused("it must match packets and do nothing else".to_owned()))
    }
}

fn is(what: Match) -> Statement {
    Statement::Match(Comparison::Is, what)
}

fn chain(base: Option<BaseChain>, rules: Vec<Rule>) -> Chain {
    Chain {
        base,
        comment: None,
        rules,
    }
}

const fn nat(hook: Hook, priority: i32) -> BaseChain {
    BaseChain {
        kind: ChainKind::Nat,
        hook,
        priority,
        policy: Policy::Accept,
    }
}

#[cfg(test)]
mod tests;
