//! The edge that observes and changes packet filter rules, for the thread that owns it.

use std::collections::BTreeMap;

use net_types::sentence;
use netstate::iptables::{
    IptablesFamily, IptablesKey, IptablesTable, IptablesVariant, IptablesVersion, OwnRules, Restore,
    RestoreError,
};
use netstate::nft::{self, Change, TableKey};
use netstate::{ErrorClass, IptablesChange, Kernel, KernelError, Op, Scope, State};
use nftables::Nftables;
use nftables::iptables::{
    HolderError, Iptables, IptablesError, hides_legacy_tables, iptables_use, programs_holding,
};
use tracing::{info, warn};

use crate::config::RulesConfig;
use crate::desired::{FilterMode, Masquerade, RuleSettings};

/// The packet filter rules of the namespace that it was opened in, in which its thread must be as well: iptables'
/// programs work where they are started.
pub struct RulesKernel {
    /// `None` until the kernel has nf_tables and it could be opened.
    nft: Option<Nftables>,
    /// Tables that this user may not see, and what their program said.
    unseen: BTreeMap<IptablesKey, String>,
}

impl RulesKernel {
    /// Opens the rules of the calling thread's namespace. A kernel without nf_tables has no such rules.
    #[must_use]
    pub fn open() -> Self {
        // A failure is told when the rules are looked at, which opens them again.
        let nft = Nftables::open_if_present().ok().flatten();
        Self {
            nft,
            unseen: BTreeMap::new(),
        }
    }

    /// Tables of legacy iptables that the last look could not see, with the reason.
    pub fn unseen(&self) -> impl Iterator<Item = (&IptablesKey, &str)> {
        self.unseen.iter().map(|(key, words)| (key, words.as_str()))
    }

    /// nf_tables; `None` if the kernel has none, which may change when its module is loaded.
    fn nft(&mut self) -> Result<Option<&mut Nftables>, KernelError> {
        if self.nft.is_none() {
            self.nft = Nftables::open_if_present()?;
        }
        Ok(self.nft.as_mut())
    }

    /// The rules that can be had of those that are wanted: nf_tables where iptables is asked for but not installed.
    #[must_use]
    pub fn settings(&mut self, enable_nftables: bool, wanted: RulesConfig) -> RuleSettings {
        let iptables = if enable_nftables { None } else { self.iptables() };
        let has_random_fully = iptables.is_none_or(|version| version.has_random_fully());
        RuleSettings {
            mode: match iptables {
                Some(version) if version.in_nf_tables => FilterMode::Iptables(IptablesVariant::Nft),
                Some(_) => FilterMode::Iptables(IptablesVariant::Legacy),
                None => FilterMode::Nftables,
            },
            masquerade: match (wanted.masquerade, wanted.fully_random && has_random_fully) {
                (false, _) => Masquerade::Off,
                (true, true) => Masquerade::FullyRandom,
                (true, false) => Masquerade::KeepPort,
            },
            forward: wanted.forward,
        }
    }

    /// The version of the iptables that this node's rules are written with; `None` without one.
    fn iptables(&mut self) -> Option<IptablesVersion> {
        let variant = self
            .nft()
            .and_then(|nft| iptables_use(nft, IptablesFamily::V4))
            .map_or(None, |found| found.variant());
        let version = Iptables::find(IptablesFamily::V4, variant).and_then(|iptables| iptables.version());
        version
            .inspect_err(|err| {
                warn!(
                    reason = sentence(err),
                    "iptables cannot be used, the rules are made in nf_tables: set EnableNFTables, or install iptables"
                );
            })
            .ok()
    }

    fn observe_iptables(&mut self, scope: &Scope, state: &mut State) -> Result<(), KernelError> {
        for (key, ours) in &scope.iptables {
            // A rule that leads into a chain cannot be without it.
            let holds = |nft: &mut Nftables, table: &TableKey| {
                for chain in ours {
                    if nft.has_chain(table, chain)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            };
            let Some(iptables) = programs_holding(self.nft()?, key, holds).map_err(holder)? else {
                continue;
            };
            let Some(table) = self.see(key, iptables.save(&key.table))? else {
                continue;
            };
            let own = OwnRules::pick(&table, ours);
            if !own.is_empty() {
                state.iptables.insert(key.clone(), own);
            }
        }
        Ok(())
    }

    /// What a table holds; `None` if this user may not know. Whoever runs in nf_tables without root's rights is not kept
    /// from it by legacy tables that nobody can tell him of; [`Self::change_iptables`] changes none that was not seen.
    fn see(
        &mut self,
        key: &IptablesKey,
        saved: Result<IptablesTable, IptablesError>,
    ) -> Result<Option<IptablesTable>, KernelError> {
        let err = match saved {
            Ok(table) => {
                self.unseen.remove(key);
                return Ok(Some(table));
            }
            Err(err) => err,
        };
        if key.variant != IptablesVariant::Legacy || !hides_legacy_tables(key.family) {
            return Err(failed(&err));
        }
        let words = sentence(&err);
        if self.unseen.is_empty() {
            // No warning: mostly nobody uses them. Where this node's own rules are to be there, each change is refused.
            info!(
                reason = words,
                "tables of legacy iptables cannot be seen without CAP_NET_RAW, and count as empty: if an earlier flanneld \
                 kept its rules there, flanneld check, run as root, names them"
            );
        }
        self.unseen.insert(key.clone(), words);
        Ok(None)
    }

    /// What was not seen is not written to: its rules would be added again with each attempt.
    fn change_iptables(&self, key: &IptablesKey, change: &IptablesChange) -> Result<(), KernelError> {
        if let Some(words) = self.unseen.get(key) {
            return Err(KernelError {
                class: ErrorClass::Denied,
                message: format!(
                    "the table {} of legacy iptables cannot be seen ({words}): give flanneld CAP_NET_RAW and write \
                     access to /run/xtables.lock, or set EnableNFTables",
                    key.table
                ),
            });
        }
        change_iptables(key, change)
    }

    fn apply_one(&mut self, op: &Op) -> Result<(), KernelError> {
        match op {
            Op::SetNftTable(key, table) => self.change_nft(&nft::replacement(key, table)),
            Op::DelNftTable(key) => self.change_nft(&[Change::DelTable(key.clone())]),
            Op::SetIptables(key, change) => self.change_iptables(key, change),
            Op::AddLink(..)
            | Op::ReplaceLink(..)
            | Op::SetLink(..)
            | Op::DelLink(_)
            | Op::AddAddr(..)
            | Op::DelAddr(_)
            | Op::AddRoute(..)
            | Op::ReplaceRoute(..)
            | Op::DelRoute(..)
            | Op::SetNeigh(..)
            | Op::DelNeigh(_)
            | Op::SetWireguard(..)
            | Op::SetWgPeer(..)
            | Op::DelWgPeer(_)
            | Op::SetFdb(_)
            | Op::DelFdb(_)
            | Op::SetSysctl(..) => Err(other("links and routes are changed by another part".to_owned())),
        }
    }

    fn change_nft(&mut self, changes: &[Change]) -> Result<(), KernelError> {
        let nft = self.nft()?.ok_or_else(|| KernelError {
            class: ErrorClass::Unsupported,
            message: "the kernel has no nf_tables: load the module nf_tables, or install iptables-legacy and leave EnableNFTables out".to_owned(),
        })?;
        nft.apply(changes).map_err(|err| KernelError {
            class: err.class(),
            message: sentence(&err),
        })
    }

    fn nft_table(&mut self, key: &TableKey) -> Result<Option<nft::Table>, KernelError> {
        match self.nft()? {
            Some(nft) => Ok(nft.table(key)?.map(|listing| listing.table)),
            None => Ok(None),
        }
    }
}

impl Kernel for RulesKernel {
    fn observe(&mut self, scope: &Scope) -> Result<State, KernelError> {
        let mut state = State::default();
        for key in &scope.nft {
            if let Some(table) = self.nft_table(key)? {
                state.nft.insert(key.clone(), table);
            }
        }
        self.observe_iptables(scope, &mut state)?;
        Ok(state)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        ops.iter().map(|op| self.apply_one(op)).collect()
    }
}

fn holder(error: HolderError) -> KernelError {
    match error {
        HolderError::Read(_, err) => err,
        HolderError::Programs(err) => failed(&err),
    }
}

fn change_iptables(key: &IptablesKey, change: &IptablesChange) -> Result<(), KernelError> {
    let text = restore(&key.table, change).map_err(|err| other(sentence(&err)))?;
    let iptables = Iptables::find(key.family, Some(key.variant)).map_err(|err| failed(&err))?;
    iptables.restore(&text).map_err(|err| failed(&err))
}

/// Makes our part of a table over, in one transaction: a packet meets the old rules or the new ones.
fn restore(table: &str, change: &IptablesChange) -> Result<Restore, RestoreError> {
    let IptablesChange { observed, desired } = change;
    let mut restore = Restore::default();
    for (chain, rules) in &desired.chains {
        restore.fresh_chain(table, chain)?;
        for rule in rules {
            restore.append(table, chain, rule)?;
        }
    }
    if observed.jumps != desired.jumps {
        for jump in &observed.jumps {
            restore.delete(table, &jump.chain, &jump.rule)?;
        }
        for jump in &desired.jumps {
            restore.append(table, &jump.chain, &jump.rule)?;
        }
    }
    let stale = observed
        .chains
        .keys()
        .filter(|chain| !desired.chains.contains_key(*chain));
    for chain in stale {
        restore.flush(table, chain)?;
        restore.delete_chain(table, chain)?;
    }
    Ok(restore)
}

fn failed(err: &IptablesError) -> KernelError {
    other(sentence(err))
}

const fn other(message: String) -> KernelError {
    KernelError {
        class: ErrorClass::Other(0),
        message,
    }
}
