//! The rules in iptables, as `iptables-save` prints them and the reference makes them
//! (`plugins/meta/portmap/portmap_iptables.go`).

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_types::{ContainerId, NetworkName, hashed_name};
use ipnetwork::IpNetwork;
use net_types::registry::{
    PORTMAP_DNAT_CHAIN as DNAT_CHAIN, PORTMAP_MASQ_CHAIN as MASQ_CHAIN,
    PORTMAP_SETMARK_CHAIN as SETMARK_CHAIN,
};
use netlink::conntrack::OriginalDestination;
use netstate::iptables::{IptablesTable, Restore, RestoreError, save_word};

use super::attachment::{Attachment, IpFamily, Mapping, MarkBy, Protocol};

/// Where rules are.
pub(crate) const TABLE: &str = "nat";

/// Begins the names of the containers' chains.
const CHAIN_PREFIX: &str = "CNI-DN-";
const CHAIN_NAME_BYTES: usize = 28;

/// Most ports that one rule can name (linux `xt_multiport.h`, `XT_MULTI_PORTS`).
const PORTS_MAX: usize = 15;

/// Longest comment (linux `xt_comment.h`, `XT_MAX_COMMENT_LEN` less the end). The reference cuts one byte later, at
/// which iptables refuses the rule.
const COMMENT_MAX_BYTES: usize = 255;

/// What a container of a network has in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    family: IpFamily,
    chain: String,
    /// Rules of [`DNAT_CHAIN`] that lead to the chain.
    entries: Vec<String>,
    rules: Vec<String>,
    /// The bits of the mark by which packets are masqueraded, if they are by our own chains.
    masks: BTreeSet<u32>,
}

/// The chain of a container: the same for all its interfaces in a network.
pub(crate) fn chain_name(network: &NetworkName, container_id: &ContainerId) -> String {
    hashed_name(
        CHAIN_PREFIX,
        CHAIN_NAME_BYTES,
        &format!("{network}{container_id}"),
    )
}

impl Wanted {
    /// The rules of a container's attachments to a network; none of its attachments is none of its rules.
    pub(crate) fn of(
        network: &NetworkName,
        container_id: &ContainerId,
        attachments: &[&Attachment],
        family: IpFamily,
    ) -> Self {
        let chain = chain_name(network, container_id);
        let mut wanted = Self {
            family,
            entries: Vec::new(),
            rules: Vec::new(),
            masks: BTreeSet::new(),
            chain,
        };
        for attachment in attachments {
            let Some(address) = attachment.address(family) else {
                continue;
            };
            wanted.entries.extend(entries(attachment, family, &wanted.chain));
            for mapping in attachment.mappings(family) {
                wanted.rules.extend(rules(attachment, mapping, address.ip()));
            }
            let is_masquerading = attachment.conf.snat && attachment.is_mapped_in(family);
            if let (true, MarkBy::Bit(mask)) = (is_masquerading, &attachment.conf.mark) {
                wanted.masks.insert(*mask);
            }
        }
        wanted
    }

    pub(crate) fn chain(&self) -> &str {
        &self.chain
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules that every container shares, by chain, and where each goes if it is missing.
    fn shared(&self) -> Vec<(&'static str, Place, String)> {
        let mut shared = Vec::new();
        for mask in &self.masks {
            shared.push((
                SETMARK_CHAIN,
                Place::End,
                format!("-m comment --comment \"CNI portfwd masquerade mark\" -j MARK --set-xmark {mask:#x}/{mask:#x}"),
            ));
            let rule = format!("-m mark --mark {mask:#x}/{mask:#x} -j MASQUERADE");
            shared.push((MASQ_CHAIN, Place::End, rule));
        }
        if !self.masks.is_empty() {
            let rule = format!("-m comment --comment \"CNI portfwd requiring masquerade\" -j {MASQ_CHAIN}");
            // Before others' masquerading, which ends the packet's way.
            shared.push(("POSTROUTING", Place::Start, rule));
        }
        for chain in ["PREROUTING", "OUTPUT"] {
            let rule = format!("-m addrtype --dst-type LOCAL -j {DNAT_CHAIN}");
            shared.push((chain, Place::End, rule));
        }
        shared
    }

    fn shared_chains(&self) -> &'static [&'static str] {
        if self.masks.is_empty() {
            &[DNAT_CHAIN]
        } else {
            &[DNAT_CHAIN, MASQ_CHAIN, SETMARK_CHAIN]
        }
    }

    /// The changes that make the table hold these rules of the container and no others; none when it does. All other
    /// rules stay. The container that came last is served first, so that nothing that one left behind stands in
    /// another's way.
    pub(crate) fn changes(&self, table: &IptablesTable) -> Result<Restore, RestoreError> {
        let found_entries = self.found_entries(table);
        let found_rules = table.chains.get(&self.chain).map(|chain| &chain.rules);
        let is_as_wanted = found_entries == self.entries.iter().collect::<Vec<_>>()
            && found_rules.map_or(self.is_empty(), |found| !self.is_empty() && *found == self.rules);
        let mut changes = Restore::default();
        if !self.is_empty() {
            self.shared_changes(table, &mut changes)?;
        }
        if is_as_wanted {
            return Ok(changes);
        }
        for rule in found_entries {
            changes.delete(TABLE, DNAT_CHAIN, rule)?;
        }
        if self.is_empty() {
            if found_rules.is_some() {
                changes.delete_chain(TABLE, &self.chain)?;
            }
            return Ok(changes);
        }
        changes.fresh_chain(TABLE, &self.chain)?;
        for rule in &self.rules {
            changes.append(TABLE, &self.chain, rule)?;
        }
        for rule in self.entries.iter().rev() {
            changes.insert(TABLE, DNAT_CHAIN, rule)?;
        }
        Ok(changes)
    }

    fn shared_changes(&self, table: &IptablesTable, changes: &mut Restore) -> Result<(), RestoreError> {
        for chain in self.shared_chains() {
            if !table.chains.contains_key(*chain) {
                changes.new_chain(TABLE, chain)?;
            }
        }
        for (chain, place, rule) in self.shared() {
            if !holds(table, chain, &rule) {
                match place {
                    Place::Start => changes.insert(TABLE, chain, &rule)?,
                    Place::End => changes.append(TABLE, chain, &rule)?,
                }
            }
        }
        Ok(())
    }

    fn found_entries<'a>(&self, table: &'a IptablesTable) -> Vec<&'a String> {
        let all = table
            .chains
            .get(DNAT_CHAIN)
            .into_iter()
            .flat_map(|chain| &chain.rules);
        all.filter(|rule| target_of(rule) == Some(&self.chain)).collect()
    }

    /// The first rule that should be there and is not, with its chain. Conditions of the user's are printed in other
    /// words than they were given in, so entries with some are compared by their ports.
    pub(crate) fn missing(&self, table: &IptablesTable) -> Option<(String, String)> {
        if self.is_empty() {
            return None;
        }
        let shared = self.shared().into_iter();
        let mut shared = shared.map(|(chain, _, rule)| (chain.to_owned(), rule));
        if let Some(missing) = shared.find(|(chain, rule)| !holds(table, chain, rule)) {
            return Some(missing);
        }
        let mut rules = self.rules.iter();
        if let Some(rule) = rules.find(|rule| !holds(table, &self.chain, rule)) {
            return Some((self.chain.clone(), rule.clone()));
        }
        let found = self.found_entries(table);
        let is_found = |wanted: &&String| found.iter().any(|rule| ports(rule) == ports(wanted));
        let entry = self.entries.iter().find(|entry| !is_found(entry));
        entry.map(|entry| (DNAT_CHAIN.to_owned(), entry.clone()))
    }

    /// Where the UDP flows went that the table leads to the container.
    pub(crate) fn found_udp_destinations(&self, table: &IptablesTable) -> BTreeSet<OriginalDestination> {
        let chain = table.chains.get(&self.chain).into_iter();
        let rules = chain.flat_map(|chain| &chain.rules);
        rules
            .filter_map(|rule| udp_destination(self.family, rule))
            .collect()
    }
}

/// Where the flows went that a rule translates.
fn udp_destination(family: IpFamily, rule: &str) -> Option<OriginalDestination> {
    let is_udp = word_after(rule, "-p") == Some(Protocol::Udp.as_str());
    if !is_udp || word_after(rule, "-j") != Some("DNAT") {
        return None;
    }
    let net = word_after(rule, "-d").and_then(|text| text.parse::<IpNetwork>().ok());
    Some(OriginalDestination {
        version: family.version(),
        addr: net
            .filter(|net| *net == IpNetwork::from(net.ip()))
            .map(|net| net.ip()),
        port: word_after(rule, "--dport")?.parse().ok()?,
    })
}

/// Where a shared rule goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Start,
    End,
}

/// The changes that remove the rules of a network's containers but those that are valid; none when there are no
/// others. The containers are told by the comment on the rule that leads to their chain.
pub(crate) fn gc_changes(
    table: &IptablesTable,
    network: &NetworkName,
    valid: &BTreeSet<ContainerId>,
) -> Result<Restore, RestoreError> {
    let valid: BTreeSet<_> = valid.iter().map(|id| chain_name(network, id)).collect();
    let of_network = format!("--comment \"dnat name: \\\"{network}\\\" id: \\\"");
    let all = table
        .chains
        .get(DNAT_CHAIN)
        .into_iter()
        .flat_map(|chain| &chain.rules);
    let mut changes = Restore::default();
    let mut chains = BTreeSet::new();
    for rule in all.filter(|rule| rule.contains(&of_network)) {
        let target = target_of(rule).filter(|target| target.starts_with(CHAIN_PREFIX));
        if let Some(chain) = target.filter(|chain| !valid.contains(*chain)) {
            changes.delete(TABLE, DNAT_CHAIN, rule)?;
            chains.insert(chain);
        }
    }
    for chain in chains {
        changes.delete_chain(TABLE, chain)?;
    }
    Ok(changes)
}

fn entries(attachment: &Attachment, family: IpFamily, chain: &str) -> Vec<String> {
    let comment = comment(&attachment.network, &attachment.target.container_id);
    let conditions = attachment
        .conf
        .conditions(family)
        .iter()
        .map(|word| save_word(word));
    let conditions: String = conditions.map(|word| format!("{word} ")).collect();
    let mut entries = Vec::new();
    for protocol in Protocol::ALL {
        let mut ports = Vec::new();
        for mapping in attachment
            .mappings(family)
            .filter(|mapping| mapping.protocol == protocol)
        {
            if !ports.contains(&mapping.host_port) {
                ports.push(mapping.host_port);
            }
        }
        entries.extend(ports.chunks(PORTS_MAX).map(|ports| {
            let ports: Vec<_> = ports.iter().map(ToString::to_string).collect();
            format!(
                "-p {} -m comment --comment {comment} -m multiport --dports {} {conditions}-j {chain}",
                protocol.as_str(),
                ports.join(",")
            )
        }));
    }
    entries
}

fn rules(attachment: &Attachment, mapping: &Mapping, address: IpAddr) -> Vec<String> {
    let family = IpFamily::of(address);
    let (protocol, port) = (mapping.protocol.as_str(), mapping.host_port);
    let dst = mapping
        .one_host_ip()
        .map(|ip| format!("-d {} ", IpNetwork::from(ip)));
    let dst = dst.unwrap_or_default();
    let rule =
        |src: &str, action: &str| format!("{src}{dst}-p {protocol} -m {protocol} --dport {port} -j {action}");
    let mut rules = Vec::new();
    if attachment.conf.snat {
        let mark = match &attachment.conf.mark {
            MarkBy::Bit(_) => SETMARK_CHAIN,
            MarkBy::Chain(chain) => chain,
        };
        if attachment.conf.masq_all {
            rules.push(rule("", mark));
        } else {
            let subnet = attachment.subnet(family).unwrap_or(address.into());
            rules.push(rule(&format!("-s {subnet} "), mark));
            if family == IpFamily::V4 {
                rules.push(rule("-s 127.0.0.1/32 ", mark));
            }
        }
    }
    let to = match address {
        IpAddr::V4(ip) => format!("{ip}:{}", mapping.container_port),
        IpAddr::V6(ip) => format!("[{ip}]:{}", mapping.container_port),
    };
    rules.push(rule("", &format!("DNAT --to-destination {to}")));
    rules
}

fn comment(network: &NetworkName, container_id: &ContainerId) -> String {
    let text = format!("dnat name: \"{network}\" id: \"{container_id}\"");
    let text = if text.len() > COMMENT_MAX_BYTES {
        text.chars()
            .take(COMMENT_MAX_BYTES - 3)
            .chain("...".chars())
            .collect()
    } else {
        text
    };
    save_word(&text)
}

fn holds(table: &IptablesTable, chain: &str, rule: &str) -> bool {
    let chain = table.chains.get(chain);
    chain.is_some_and(|chain| chain.rules.iter().any(|found| found == rule))
}

/// The chain that a rule jumps to; it is always named last.
fn target_of(rule: &str) -> Option<&str> {
    let (_, target) = rule.rsplit_once("-j ")?;
    (!target.contains(' ')).then_some(target)
}

/// Protocol and ports of a rule that leads to a container's chain.
fn ports(rule: &str) -> (Option<&str>, Option<&str>) {
    (word_after(rule, "-p"), word_after(rule, "--dports"))
}

/// The word that follows another; comments hold none of those that are asked for.
fn word_after<'a>(rule: &'a str, word: &str) -> Option<&'a str> {
    let mut words = rule.split(' ').skip_while(|found| *found != word);
    words.next()?;
    words.next()
}

#[cfg(test)]
mod tests;
