//! The rules in nf_tables, as the reference's HEAD makes them (containernetworking/plugins
//! `pkg/ip/ipmasq_nftables_linux.go`): one rule for each address, found again by a hash in its comment.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cni_types::{NetworkName, Target, hashed_name, network_of};
use ipnetwork::IpNetwork;
use net_types::registry::NF_PRIORITY_SRCNAT;
use netstate::nft::{
    BaseChain, ChainKind, Change, Comparison, Family, Hook, Match, Policy, Rule, Statement, TableKey, Verdict,
};
use nftables::Listing;

/// Length of each of the hashes in a comment.
const HASH_CHARS: usize = 16;

/// Longest comment of a rule (libnftables `NFTNL_UDATA_COMMENT_MAXLEN` less the end).
const COMMENT_MAX_BYTES: usize = 128;

const CHECKS: &str = "masq_checks";
const POSTROUTING: &str = "postrouting";

/// Where the rules are.
pub(super) fn table() -> TableKey {
    TableKey {
        family: Family::Inet,
        name: "cni_plugins_masquerade".to_owned(),
    }
}

/// The changes that make the table hold the rules of an attachment with these addresses, and no others of it; none
/// when it does.
pub(super) fn setup(
    found: Option<&Listing>,
    network: &NetworkName,
    target: &Target,
    addresses: &[IpNetwork],
) -> Vec<Change> {
    let wanted: Vec<_> = addresses
        .iter()
        .map(|address| rule(*address, network, target))
        .collect();
    let mut changes = Vec::new();
    if !found.is_some_and(has_frame) {
        changes.extend(frame());
    }
    let owned: Vec<_> = found
        .into_iter()
        .flat_map(|found| own_rules(found, network, target))
        .collect();
    if owned.iter().map(|(_, rule)| *rule).eq(&wanted) {
        return changes;
    }
    changes.extend(owned.into_iter().map(|(handle, _)| removal(handle)));
    changes.extend(wanted.into_iter().map(|rule| append(CHECKS, rule)));
    changes
}

/// The changes that remove the rules of an attachment.
pub(super) fn teardown(found: &Listing, network: &NetworkName, target: &Target) -> Vec<Change> {
    let owned = own_rules(found, network, target);
    owned.map(|(handle, _)| removal(handle)).collect()
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
    let stale = found.rules(CHECKS).filter(|(_, rule)| {
        let comment = rule.comment.as_deref().unwrap_or_default();
        comment.starts_with(&of_network) && !valid.iter().any(|instance| comment.starts_with(instance))
    });
    stale.map(|(handle, _)| removal(handle)).collect()
}

/// The first rule of an attachment that should be there and is not.
pub(super) fn missing(
    found: Option<&Listing>,
    network: &NetworkName,
    target: &Target,
    addresses: &[IpNetwork],
) -> Option<Rule> {
    let mut wanted = addresses.iter().map(|address| rule(*address, network, target));
    match found {
        Some(found) if has_frame(found) => {
            wanted.find(|wanted| !own_rules(found, network, target).any(|(_, rule)| rule == wanted))
        }
        Some(_) | None => wanted.next(),
    }
}

fn own_rules<'a>(
    found: &'a Listing,
    network: &NetworkName,
    target: &Target,
) -> impl Iterator<Item = (u64, &'a Rule)> {
    let instance = instance(network, target);
    let is_own = move |rule: &Rule| {
        rule.comment
            .as_deref()
            .is_some_and(|text| text.starts_with(&instance))
    };
    found.rules(CHECKS).filter(move |(_, rule)| is_own(rule))
}

/// Whether packets reach the rules in the way that they shall.
fn has_frame(found: &Listing) -> bool {
    let chain = found.table.chains.get(POSTROUTING);
    let checks = found.table.chains.get(CHECKS);
    checks.is_some_and(|checks| checks.base.is_none())
        && chain.is_some_and(|chain| chain.base == Some(BASE) && chain.rules == entry_rules())
}

const BASE: BaseChain = BaseChain {
    kind: ChainKind::Nat,
    hook: Hook::Postrouting,
    priority: NF_PRIORITY_SRCNAT,
    policy: Policy::Accept,
};

fn frame() -> Vec<Change> {
    let mut changes = vec![
        Change::AddTable {
            table: table(),
            comment: Some("Masquerading for plugins from github.com/containernetworking/plugins".to_owned()),
        },
        add_chain(
            CHECKS,
            None,
            Some("Masquerade traffic from certain IPs to any (non-multicast) IP outside their subnet"),
        ),
        add_chain(POSTROUTING, Some(BASE), None),
        Change::FlushChain {
            table: table(),
            chain: POSTROUTING.to_owned(),
        },
    ];
    changes.extend(entry_rules().into_iter().map(|rule| append(POSTROUTING, rule)));
    changes
}

fn entry_rules() -> Vec<Rule> {
    let multicast_v4 = IpNetwork::new(IpAddr::V4(Ipv4Addr::new(224, 0, 0, 0)), 4);
    let multicast_v6 = IpNetwork::new(IpAddr::V6(Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0)), 8);
    let spared = [multicast_v4, multicast_v6].into_iter().flatten();
    let spared = spared.map(|net| vec![is(Match::Daddr(net)), Statement::Verdict(Verdict::Return)]);
    let goto = vec![Statement::Verdict(Verdict::Goto(CHECKS.to_owned()))];
    let rules = spared.chain([goto]).map(|statements| Rule {
        statements,
        comment: None,
    });
    rules.collect()
}

fn rule(address: IpNetwork, network: &NetworkName, target: &Target) -> Rule {
    let rule = Rule {
        statements: vec![
            is(Match::Saddr(IpNetwork::from(address.ip()))),
            Statement::Match(Comparison::IsNot, Match::Daddr(network_of(address))),
            Statement::Masquerade { fully_random: false },
        ],
        comment: Some(comment(network, target)),
    };
    rule.canonical(table().family)
}

const fn is(found: Match) -> Statement {
    Statement::Match(Comparison::Is, found)
}

fn hash(text: &str) -> String {
    hashed_name("", HASH_CHARS, text)
}

/// What the comments of an attachment's rules begin with.
fn instance(network: &NetworkName, target: &Target) -> String {
    let of_target = hash(&format!("{}:{}", target.ifname, target.container_id));
    format!("{}-{of_target}", hash(network.as_str()))
}

fn comment(network: &NetworkName, target: &Target) -> String {
    let Target { container_id, ifname } = target;
    let instance = instance(network, target);
    // No quotes can be in these names but in the interface's, where they would end the comment for nft.
    let ifname = ifname.as_str().replace('"', "");
    let text = format!("{instance}, net: {network}, if: {ifname}, id: {container_id}");
    let end = text.floor_char_boundary(COMMENT_MAX_BYTES);
    text.get(..end).unwrap_or_default().to_owned()
}

fn add_chain(name: &str, base: Option<BaseChain>, comment: Option<&str>) -> Change {
    Change::AddChain {
        table: table(),
        chain: name.to_owned(),
        base,
        comment: comment.map(str::to_owned),
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
        chain: CHECKS.to_owned(),
        handle,
    }
}

#[cfg(test)]
mod tests;
