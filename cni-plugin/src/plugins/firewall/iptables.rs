//! The rules in iptables, as the reference makes them (containernetworking/plugins `plugins/meta/firewall/iptables.go`,
//! `ingresspolicy.go`) and `iptables-save` prints them.

use ipnetwork::IpNetwork;
use net_types::IfName;
use netstate::iptables::{IptablesTable, JumpRule, Restore, RestoreError};

use super::conf::{Attachment, Conf, IngressPolicy};

/// Where the rules are.
pub(super) const TABLE: &str = "filter";

/// Decides about packets that the host forwards.
pub(super) const FORWARD: &str = "FORWARD";

/// Holds the containers' rules.
pub(super) const CONTAINERS: &str = "CNI-FORWARD";

const STAGE_1: &str = "CNI-ISOLATION-STAGE-1";
const STAGE_2: &str = "CNI-ISOLATION-STAGE-2";

/// Where in its chain a rule is put that is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    End,
}

/// A rule that must be in a chain.
struct Wanted {
    chain: &'static str,
    place: Place,
    rule: String,
}

impl Wanted {
    fn new(chain: &'static str, place: Place, rule: impl Into<String>) -> Self {
        Self {
            chain,
            place,
            rule: rule.into(),
        }
    }
}

/// The changes that add what is missing for an attachment's addresses of one family.
pub(super) fn setup(
    table: &IptablesTable,
    conf: &Conf,
    attachment: &Attachment,
    hosts: &[IpNetwork],
) -> Result<Restore, RestoreError> {
    let mut changes = Restore::default();
    for chain in chains(conf, attachment) {
        if !table.chains.contains_key(chain) {
            changes.new_chain(TABLE, chain)?;
        }
    }
    let mut missing: Vec<_> = wanted(conf, attachment, hosts)
        .filter(|wanted| !holds(table, wanted))
        .collect();
    // What accepts must not come before what isolates, though it was lost and that was not.
    let to_isolation = to_isolation();
    if missing.first().is_some_and(|first| first.chain == FORWARD) && holds(table, &to_isolation) {
        changes.delete(TABLE, to_isolation.chain, &to_isolation.rule)?;
        missing.insert(1, to_isolation);
    }
    for wanted in missing {
        match wanted.place {
            Place::Start => changes.insert(TABLE, wanted.chain, &wanted.rule)?,
            Place::End => changes.append(TABLE, wanted.chain, &wanted.rule)?,
        }
    }
    Ok(changes)
}

/// The changes that remove the rules for addresses. What all share stays, and the rules of a bridge, as with the
/// reference: they cannot tell who else is on it.
pub(super) fn teardown(table: &IptablesTable, hosts: &[IpNetwork]) -> Result<Restore, RestoreError> {
    let mut changes = Restore::default();
    let present = table.chains.get(CONTAINERS).map_or(&[][..], |chain| &chain.rules);
    for rule in hosts.iter().flat_map(of_host) {
        for _ in present.iter().filter(|found| **found == rule) {
            changes.delete(TABLE, CONTAINERS, &rule)?;
        }
    }
    Ok(changes)
}

/// Whether a table must have the rules: some of them are in it, or it may drop what the host forwards.
pub(super) fn decides(table: &IptablesTable) -> bool {
    let forward = table.chains.get(FORWARD);
    let may_drop =
        forward.is_some_and(|chain| chain.policy.as_deref() != Some("ACCEPT") || !chain.rules.is_empty());
    may_drop || table.chains.contains_key(CONTAINERS)
}

/// The first rule that should be there and is not.
pub(super) fn missing(
    table: &IptablesTable,
    conf: &Conf,
    attachment: &Attachment,
    hosts: &[IpNetwork],
) -> Option<JumpRule> {
    let missing = wanted(conf, attachment, hosts).find(|wanted| !holds(table, wanted))?;
    Some(JumpRule {
        chain: missing.chain.to_owned(),
        rule: missing.rule,
    })
}

fn holds(table: &IptablesTable, wanted: &Wanted) -> bool {
    let chain = table.chains.get(wanted.chain);
    chain.is_some_and(|chain| chain.rules.contains(&wanted.rule))
}

fn chains<'a>(conf: &'a Conf, attachment: &Attachment) -> Vec<&'a str> {
    let mut chains = vec![CONTAINERS, conf.admin_chain.as_str()];
    if attachment.restricted.is_some() {
        chains.extend([STAGE_1, STAGE_2]);
    }
    chains
}

/// The rules in the order in which they are added; what is put at the start comes before what was put there earlier.
fn wanted(conf: &Conf, attachment: &Attachment, hosts: &[IpNetwork]) -> impl Iterator<Item = Wanted> {
    let admin = &conf.admin_chain;
    let mut wanted = vec![
        Wanted::new(
            FORWARD,
            Place::Start,
            format!("-m comment --comment \"CNI firewall plugin rules\" -j {CONTAINERS}"),
        ),
        Wanted::new(
            CONTAINERS,
            Place::Start,
            format!("-m comment --comment \"CNI firewall plugin admin overrides\" -j {admin}"),
        ),
    ];
    let of_hosts = hosts.iter().flat_map(of_host);
    wanted.extend(of_hosts.map(|rule| Wanted::new(CONTAINERS, Place::End, rule)));
    if let Some((bridge, policy)) = &attachment.restricted {
        wanted.extend(isolation(bridge, *policy));
    }
    wanted.into_iter()
}

fn of_host(host: &IpNetwork) -> [String; 2] {
    [
        format!("-d {host} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"),
        format!("-s {host} -j ACCEPT"),
    ]
}

fn comment(policy: IngressPolicy) -> String {
    let policy = policy.as_str();
    format!("-m comment --comment \"CNI firewall plugin rules (ingressPolicy: {policy})\"")
}

fn to_isolation() -> Wanted {
    let comment = comment(IngressPolicy::SameBridge);
    Wanted::new(FORWARD, Place::Start, format!("{comment} -j {STAGE_1}"))
}

fn isolation(bridge: &IfName, policy: IngressPolicy) -> Vec<Wanted> {
    let shared = comment(IngressPolicy::SameBridge);
    let mut rules = vec![
        to_isolation(),
        Wanted::new(
            STAGE_1,
            Place::Start,
            format!("-i {bridge} ! -o {bridge} {shared} -j {STAGE_2}"),
        ),
    ];
    if policy == IngressPolicy::Isolated {
        let isolated = comment(policy);
        rules.push(Wanted::new(
            STAGE_1,
            Place::Start,
            format!("-i {bridge} -o {bridge} {isolated} -j DROP"),
        ));
    }
    rules.extend([
        Wanted::new(STAGE_1, Place::End, format!("{shared} -j RETURN")),
        Wanted::new(STAGE_2, Place::Start, format!("-o {bridge} {shared} -j DROP")),
        Wanted::new(STAGE_2, Place::End, format!("{shared} -j RETURN")),
    ]);
    rules
}

#[cfg(test)]
mod tests;
