//! The rules in iptables, as the reference makes them (containernetworking/plugins `pkg/ip/ipmasq_iptables_linux.go`)
//! and `iptables-save` prints them: a chain for each container of a network, whichever its interfaces.

use std::collections::BTreeSet;

use cni_types::{ContainerId, NetworkName, hashed_name, network_of};
use ipnetwork::IpNetwork;
use netstate::iptables::{IptablesTable, JumpRule, OwnRules, Restore, RestoreError, save_word};

/// Where the rules are.
pub(super) const TABLE: &str = "nat";

/// Leads to the containers' chains.
const ENTRY: &str = "POSTROUTING";

const CHAIN_PREFIX: &str = "CNI-";
const CHAIN_CHARS: usize = 28;

/// Longest comment (linux `xt_comment.h`, `XT_MAX_COMMENT_LEN` less the end); a longer one is refused by iptables.
const COMMENT_MAX_BYTES: usize = 255;

/// The chain of a container.
pub(super) fn chain_name(network: &NetworkName, container_id: &ContainerId) -> String {
    hashed_name(CHAIN_PREFIX, CHAIN_CHARS, &format!("{network}{container_id}"))
}

/// Whether a chain may be a container's.
pub(super) fn is_chain(name: &str) -> bool {
    name.starts_with(CHAIN_PREFIX) && name.len() == CHAIN_CHARS
}

/// The changes that add the rules for these addresses of one family, so far as they are missing.
pub(super) fn setup(
    table: &IptablesTable,
    network: &NetworkName,
    container_id: &ContainerId,
    addresses: &[IpNetwork],
) -> Result<Restore, RestoreError> {
    let wanted = Wanted::of(network, container_id, addresses);
    let found = table
        .chains
        .get(&wanted.chain)
        .map(|chain| chain.rules.as_slice());
    let mut changes = Restore::default();
    if found.is_none_or(|found| wanted.missing_in(found).is_some()) {
        // Rules of the container's other interfaces stay; those of this one come before the masquerading.
        let others = found
            .into_iter()
            .flatten()
            .filter(|rule| !wanted.rules.contains(rule));
        let others = others.filter(|rule| rule.ends_with("-j ACCEPT"));
        changes.fresh_chain(TABLE, &wanted.chain)?;
        for rule in others.chain(&wanted.rules) {
            changes.append(TABLE, &wanted.chain, rule)?;
        }
    }
    let entries = rules_of(table, ENTRY);
    for entry in wanted.entries.iter().filter(|entry| !entries.contains(entry)) {
        changes.append(TABLE, ENTRY, entry)?;
    }
    Ok(changes)
}

/// The changes that remove containers' chains and the rules that lead to them.
pub(super) fn teardown(table: &IptablesTable, chains: &BTreeSet<String>) -> Result<Restore, RestoreError> {
    let mut changes = Restore::default();
    for jump in OwnRules::pick(table, chains).jumps {
        changes.delete(TABLE, &jump.chain, &jump.rule)?;
    }
    for chain in chains.iter().filter(|chain| table.chains.contains_key(*chain)) {
        changes.delete_chain(TABLE, chain)?;
    }
    Ok(changes)
}

/// The chains of a network's containers that are not valid, by the comments on their rules.
pub(super) fn stale<'a>(
    table: &IptablesTable,
    network: &NetworkName,
    valid: impl IntoIterator<Item = &'a ContainerId>,
) -> BTreeSet<String> {
    let valid: BTreeSet<_> = valid.into_iter().map(|id| chain_name(network, id)).collect();
    let comment = format!("--comment \"name: \\\"{network}\\\" id: \\\"");
    let mut found = BTreeSet::new();
    for (name, chain) in &table.chains {
        for rule in chain.rules.iter().filter(|rule| rule.contains(&comment)) {
            let of_container = [Some(name.as_str()), target(rule)];
            let of_container = of_container.into_iter().flatten().find(|name| is_chain(name));
            found.extend(
                of_container
                    .filter(|name| !valid.contains(*name))
                    .map(str::to_owned),
            );
        }
    }
    found
}

/// The first rule for these addresses of one family that should be there and is not.
pub(super) fn missing(
    table: &IptablesTable,
    network: &NetworkName,
    container_id: &ContainerId,
    addresses: &[IpNetwork],
) -> Option<JumpRule> {
    let wanted = Wanted::of(network, container_id, addresses);
    let rule = wanted.missing_in(rules_of(table, &wanted.chain));
    if let Some(rule) = rule {
        return Some(JumpRule {
            chain: wanted.chain.clone(),
            rule: rule.clone(),
        });
    }
    let entries = rules_of(table, ENTRY);
    let entry = wanted.entries.iter().find(|entry| !entries.contains(entry));
    entry.map(|entry| JumpRule {
        chain: ENTRY.to_owned(),
        rule: entry.clone(),
    })
}

/// What a container with these addresses has in one family.
struct Wanted {
    chain: String,
    rules: Vec<String>,
    entries: Vec<String>,
}

impl Wanted {
    fn of(network: &NetworkName, container_id: &ContainerId, addresses: &[IpNetwork]) -> Self {
        let chain = chain_name(network, container_id);
        let comment = comment(network, container_id);
        let comment = format!("-m comment --comment {comment}");
        let spared = addresses.iter().map(|address| network_of(*address));
        let mut rules: Vec<_> = spared
            .map(|net| format!("-d {net} {comment} -j ACCEPT"))
            .collect();
        let multicast = match addresses.first() {
            None => None,
            Some(IpNetwork::V4(_)) => Some("224.0.0.0/4"),
            Some(IpNetwork::V6(_)) => Some("ff00::/8"),
        };
        rules.extend(multicast.map(|net| format!("! -d {net} {comment} -j MASQUERADE")));
        let hosts = addresses.iter().map(|address| IpNetwork::from(address.ip()));
        Self {
            rules,
            entries: hosts
                .map(|host| format!("-s {host} {comment} -j {chain}"))
                .collect(),
            chain,
        }
    }

    fn missing_in(&self, found: &[String]) -> Option<&String> {
        self.rules.iter().find(|rule| !found.contains(rule))
    }
}

/// The comment that the reference gives, as iptables-restore reads it and iptables-save prints it.
fn comment(network: &NetworkName, container_id: &ContainerId) -> String {
    let text = format!("name: \"{network}\" id: \"{container_id}\"");
    let text: String = text.chars().take(COMMENT_MAX_BYTES).collect();
    save_word(&text)
}

fn rules_of<'a>(table: &'a IptablesTable, chain: &str) -> &'a [String] {
    table
        .chains
        .get(chain)
        .map_or(&[], |chain| chain.rules.as_slice())
}

/// The target of a rule, which is printed last; no comment of ours holds ` -j `.
fn target(rule: &str) -> Option<&str> {
    let (_, target) = rule.rsplit_once(" -j ")?;
    target.split(' ').next()
}

#[cfg(test)]
mod tests;
