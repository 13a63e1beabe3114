//! Rules of iptables as plain data: the text that `iptables-save` prints, by table and chain.
//!
//! [`parse_save`] reads that text, [`Restore`] builds one for `iptables-restore`, and [`save_word`] quotes a
//! word as iptables does. The crate `nftables` runs the programs.

mod restore;
mod save;
#[cfg(test)]
mod tests;
mod version;
mod words;

pub use restore::{Restore, RestoreError};
pub use save::{SaveError, parse_save};
pub use version::{IptablesVersion, IptablesVersionError};
pub use words::save_word;

use std::collections::{BTreeMap, BTreeSet};

/// Which of the two programs, `iptables` or `ip6tables`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IptablesFamily {
    /// `iptables`
    V4,
    /// `ip6tables`
    V6,
}

/// Which of iptables' two implementations holds rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IptablesVariant {
    /// The one that keeps them in nf_tables (`iptables-nft`).
    Nft,
    /// The one with tables of its own (`iptables-legacy`).
    Legacy,
}

/// The chains of one table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IptablesTable {
    /// Chains by name.
    pub chains: BTreeMap<String, IptablesChain>,
}

/// A chain with its rules in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IptablesChain {
    /// Policy of a built-in chain, as printed (`ACCEPT`); `None` for a chain of users.
    pub policy: Option<String>,
    /// Rules as `iptables-save` prints them, less `-A CHAIN `.
    pub rules: Vec<String>,
}

/// Identity of a table of iptables'.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IptablesKey {
    /// Which program's.
    pub family: IptablesFamily,
    /// Which implementation's.
    pub variant: IptablesVariant,
    /// Its name: `nat`, `filter`.
    pub table: String,
}

/// What is ours of a table: chains of our own, whole, and the rules by which other chains lead into them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OwnRules {
    /// Rules of our chains, as `iptables-save` prints them, less `-A CHAIN `.
    pub chains: BTreeMap<String, Vec<String>>,
    /// Rules of others' chains whose target is one of ours, in order, duplicates included.
    pub jumps: Vec<JumpRule>,
}

/// A rule in a chain of others' that leads into one of ours.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct JumpRule {
    /// The chain that holds it.
    pub chain: String,
    /// The rule as `iptables-save` prints it, less `-A CHAIN `.
    pub rule: String,
}

impl JumpRule {
    /// The chain that it leads into.
    #[must_use]
    pub fn target(&self) -> Option<&str> {
        target(&self.rule)
    }
}

impl OwnRules {
    /// Picks what is ours from a whole table.
    #[must_use]
    pub fn pick(table: &IptablesTable, ours: &BTreeSet<String>) -> Self {
        let mut own = Self::default();
        for (name, chain) in &table.chains {
            if ours.contains(name) {
                own.chains.insert(name.clone(), chain.rules.clone());
                continue;
            }
            let leads_here = |rule: &&String| target(rule).is_some_and(|target| ours.contains(target));
            own.jumps
                .extend(chain.rules.iter().filter(leads_here).map(|rule| JumpRule {
                    chain: name.clone(),
                    rule: rule.clone(),
                }));
        }
        own
    }

    /// Whether there is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }
}

/// The chain that a rule jumps or goes to, or its target.
fn target(rule: &str) -> Option<&str> {
    let mut words = rule.split(' ');
    words.find(|word| matches!(*word, "-j" | "-g"))?;
    words.next()
}
