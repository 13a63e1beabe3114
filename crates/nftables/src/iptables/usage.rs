use std::collections::BTreeSet;
use std::{fs, io};

use netstate::KernelError;
use netstate::iptables::{IptablesFamily, IptablesKey, IptablesTable, IptablesVariant};
use netstate::nft::{Chain, Family, Policy, Statement, Table, TableKey};

use super::{Iptables, IptablesError};
use crate::Nftables;

/// The tables of iptables; in nf_tables they have the same names.
const TABLES: [&str; 5] = ["filter", "nat", "mangle", "raw", "security"];

/// Of these, those that are asked for by name where the kernel does not list legacy tables: whoever relies on iptables
/// has rules in one of them, and asking makes the kernel make a table.
const ASKED_FOR: [&str; 2] = ["filter", "nat"];

/// The chains that iptables makes in them.
const CHAINS: [&str; 5] = ["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"];

/// Which tables of iptables hold anything in a network namespace, by variant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct IptablesUse {
    /// Tables that iptables keeps in nf_tables.
    pub nft: BTreeSet<String>,
    /// Tables of the variant with tables of its own.
    pub legacy: BTreeSet<String>,
}

impl IptablesUse {
    /// The variant that is in use; `None`, the administrator's choice, if neither or both hold something.
    #[must_use]
    pub fn variant(&self) -> Option<IptablesVariant> {
        match (self.nft.is_empty(), self.legacy.is_empty()) {
            (true, false) => Some(IptablesVariant::Legacy),
            (false, true) => Some(IptablesVariant::Nft),
            (true, true) | (false, false) => None,
        }
    }
}

/// Finds out which tables of iptables hold anything in the calling thread's network namespace, in which `nftables` must
/// have been opened too. It changes nothing and runs no program, unless the kernel says that legacy tables exist.
///
/// A table in nf_tables counts if it has a name of iptables', and in it one of iptables' chains with a rule, or with a
/// policy other than accept, or a rule with an extension of iptables' (`xt`). A legacy table counts if
/// `iptables-legacy-save` shows a rule, a chain of users' or a policy other than `ACCEPT`: the kernel lists a table as
/// soon as anybody has looked at it (`/proc/net/ip_tables_names`). Where that program is missing or fails, a table that
/// the kernel lists counts. Where this user may not read the list, the program is asked for the usual tables, and what it
/// cannot show either does not count: this user could not write to it.
///
/// # Errors
/// The rules of nf_tables cannot be read. A kernel without nf_tables has none.
pub fn iptables_use(
    nftables: Option<&mut Nftables>,
    family: IptablesFamily,
) -> Result<IptablesUse, KernelError> {
    let mut found = IptablesUse {
        nft: BTreeSet::new(),
        legacy: legacy_tables(family),
    };
    let Some(nftables) = nftables else {
        return Ok(found);
    };
    let nft_family = Family::from(family);
    for name in nftables.tables(nft_family)? {
        if !TABLES.contains(&name.as_str()) {
            continue;
        }
        let key = TableKey {
            family: nft_family,
            name,
        };
        if let Some(listing) = nftables.table(&key)?
            && is_used(&listing.table)
        {
            found.nft.insert(key.name);
        }
    }
    Ok(found)
}

/// Whether a table is one of iptables' with something in it.
fn is_used(table: &Table) -> bool {
    let decides = |chain: &Chain| {
        let drops = chain.base.is_some_and(|base| base.policy != Policy::Accept);
        drops || !chain.rules.is_empty()
    };
    let built_in = table
        .chains
        .iter()
        .filter(|(name, _)| CHAINS.contains(&name.as_str()));
    let mut statements = table
        .chains
        .values()
        .flat_map(|chain| &chain.rules)
        .flat_map(|rule| &rule.statements);
    built_in.map(|(_, chain)| chain).any(decides) || statements.any(is_extension)
}

/// Whether a statement is an extension of iptables' (linux `nft_compat.c`).
fn is_extension(statement: &Statement) -> bool {
    matches!(statement, Statement::Other(name) if name == "match" || name == "target")
}

/// Whether the kernel may have a table of legacy iptables' in the calling thread's network namespace: it makes one when
/// somebody looks for it, be it to read it. Where [`hides_legacy_tables`] it may have any.
#[must_use]
pub fn has_legacy_table(family: IptablesFamily, table: &str) -> bool {
    listed_tables(family).is_none_or(|listed| listed.contains(table))
}

/// Whether this user may not know which tables of legacy iptables' there are: the kernel lists them for root and root's
/// group alone (linux `net/netfilter/x_tables.c`, `xt_proto_init`).
#[must_use]
pub fn hides_legacy_tables(family: IptablesFamily) -> bool {
    listed_tables(family).is_none()
}

/// The legacy tables that exist; `None` if that cannot be known.
fn listed_tables(family: IptablesFamily) -> Option<BTreeSet<String>> {
    let path = match family {
        IptablesFamily::V4 => "/proc/thread-self/net/ip_tables_names",
        IptablesFamily::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    match fs::read_to_string(path) {
        Ok(listed) => Some(listed.lines().map(str::to_owned).collect()),
        // Nothing else hides tables: asking for one on other grounds would make it, and all later calls slow.
        Err(err) if err.kind() == io::ErrorKind::PermissionDenied => None,
        // A kernel without legacy iptables has no such file.
        Err(_) => Some(BTreeSet::new()),
    }
}

/// Why it is not known which programs can change a table.
#[derive(Debug, thiserror::Error)]
pub enum HolderError {
    /// nf_tables did not tell.
    #[error("cannot read the packet filter's table {0}")]
    Read(TableKey, #[source] KernelError),
    /// The rules are there, and what could change them is not.
    #[error(transparent)]
    Programs(IptablesError),
}

/// The programs for a table in which a variant may hold the chains that are asked for; `None` if it holds none. No
/// program is run to find out: nf_tables is asked by `holds`, and legacy tables are listed by the kernel once they
/// exist. Of a user who may not read that list any of them may be there: their programs then tell.
///
/// Without the programs of the legacy variant nobody wrote to its tables but who brought his own: those rules are his.
///
/// # Errors
/// nf_tables cannot be read, or the programs for what it holds are missing.
pub fn programs_holding(
    nftables: Option<&mut Nftables>,
    key: &IptablesKey,
    holds: impl FnOnce(&mut Nftables, &TableKey) -> Result<bool, KernelError>,
) -> Result<Option<Iptables>, HolderError> {
    let family = key.family;
    match (key.variant, nftables) {
        (IptablesVariant::Nft, None) => Ok(None),
        (IptablesVariant::Nft, Some(nftables)) => {
            let table = TableKey {
                family: family.into(),
                name: key.table.clone(),
            };
            if !holds(nftables, &table).map_err(|e| HolderError::Read(table, e))? {
                return Ok(None);
            }
            let programs = Iptables::find(family, Some(IptablesVariant::Nft));
            programs.map(Some).map_err(HolderError::Programs)
        }
        (IptablesVariant::Legacy, _) if has_legacy_table(family, &key.table) => {
            Ok(Iptables::find(family, Some(IptablesVariant::Legacy)).ok())
        }
        (IptablesVariant::Legacy, _) => Ok(None),
    }
}

/// The legacy tables with something in them.
fn legacy_tables(family: IptablesFamily) -> BTreeSet<String> {
    let listed = listed_tables(family);
    let is_listed = listed.is_some();
    let mut tables = listed.unwrap_or_else(|| ASKED_FOR.map(str::to_owned).into());
    if tables.is_empty() {
        return tables;
    }
    match Iptables::find(family, Some(IptablesVariant::Legacy)) {
        Ok(iptables) => tables.retain(|table| {
            let saved = iptables.save(table);
            saved.map_or(is_listed, |table| holds_anything(&table))
        }),
        Err(_) if is_listed => {}
        Err(_) => tables.clear(),
    }
    tables
}

fn holds_anything(table: &IptablesTable) -> bool {
    table
        .chains
        .values()
        .any(|chain| chain.policy.as_deref() != Some("ACCEPT") || !chain.rules.is_empty())
}
