use std::collections::{BTreeMap, BTreeSet};

use netstate::iptables::{IptablesKey, JumpRule, OwnRules};
use netstate::nft::{Table, TableKey};
use netstate::{IptablesChange, Scope, State};

use crate::refusal::{Answer, not_found};

/// Packet filter rules: whole tables of nf_tables, and of iptables' tables the chains that users made, with the rules
/// that lead into them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Rules {
    nft: BTreeMap<TableKey, Table>,
    iptables: BTreeMap<IptablesKey, OwnRules>,
}

impl Rules {
    pub(crate) fn set_nft_table(&mut self, key: &TableKey, table: &Table) {
        self.nft.insert(key.clone(), table.clone());
    }

    pub(crate) fn del_nft_table(&mut self, key: &TableKey) -> Answer {
        match self.nft.remove(key) {
            Some(_) => Ok(()),
            None => Err(not_found("ENOENT: no such table")),
        }
    }

    /// As one restore does it: what was observed and is not wanted goes, what is wanted comes; other rules stay.
    pub(crate) fn set_iptables(&mut self, key: &IptablesKey, change: &IptablesChange) -> Answer {
        let table = self.iptables.entry(key.clone()).or_default();
        for jump in &change.observed.jumps {
            let Some(at) = table.jumps.iter().position(|held| held == jump) else {
                return Err(not_found("ENOENT: no such rule"));
            };
            table.jumps.remove(at);
        }
        for name in change.observed.chains.keys() {
            table.chains.remove(name);
        }
        table.chains.extend(change.desired.chains.clone());
        table.jumps.extend(change.desired.jumps.iter().cloned());
        if table.is_empty() {
            self.iptables.remove(key);
        }
        Ok(())
    }

    pub(crate) fn observe(&self, scope: &Scope, state: &mut State) {
        for key in &scope.nft {
            if let Some(table) = self.nft.get(key) {
                state.nft.insert(key.clone(), table.clone());
            }
        }
        for (key, ours) in &scope.iptables {
            let shown = self.iptables.get(key).map(|table| pick(table, ours));
            if let Some(own) = shown.filter(|own| !own.is_empty()) {
                state.iptables.insert(key.clone(), own);
            }
        }
    }

    pub(crate) fn dump(&self, state: &mut State) {
        state.nft.clone_from(&self.nft);
        state.iptables.clone_from(&self.iptables);
    }
}

fn pick(table: &OwnRules, ours: &BTreeSet<String>) -> OwnRules {
    let chains = table.chains.iter().filter(|(name, _)| ours.contains(*name));
    let leads_here = |jump: &&JumpRule| jump.target().is_some_and(|target| ours.contains(target));
    OwnRules {
        chains: chains
            .map(|(name, rules)| (name.clone(), rules.clone()))
            .collect(),
        jumps: table.jumps.iter().filter(leads_here).cloned().collect(),
    }
}
