use std::collections::BTreeMap;

use super::{IptablesChain, IptablesTable};

/// Why a text is not what `iptables-save` prints.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SaveError {
    /// A line is not understood.
    #[error("line {number} of iptables-save is not understood: {line:?}")]
    Line {
        /// Its number; the first is 1.
        number: usize,
        /// The line.
        line: String,
    },
    /// A rule's chain is not declared.
    #[error("iptables-save printed a rule for the chain {0:?} that it did not declare")]
    UnknownChain(String),
    /// The text ends inside a table.
    #[error("iptables-save did not finish the table {0:?}")]
    Unfinished(String),
    /// The table holds rules that iptables cannot show.
    #[error(
        "the table {0:?} holds rules that were not made by iptables, which cannot show them: remove them with nft"
    )]
    Incompatible(String),
}

/// Reads the text that `iptables-save` prints, with or without counters: tables by name.
///
/// # Errors
/// The text is incomplete or not understood, or says that iptables cannot show a table.
pub fn parse_save(text: &str) -> Result<BTreeMap<String, IptablesTable>, SaveError> {
    let mut tables = BTreeMap::new();
    let mut current: Option<(String, IptablesTable)> = None;
    for (index, line) in text.lines().enumerate() {
        let unknown = || SaveError::Line {
            number: index + 1,
            line: line.to_owned(),
        };
        if line.starts_with('#') {
            incompatible(line).map_or(Ok(()), Err)?;
            continue;
        }
        if line.trim().is_empty() {
            continue;
        }
        if let Some(name) = line.strip_prefix('*') {
            if current.is_some() {
                return Err(unknown());
            }
            current = Some((name.trim().to_owned(), IptablesTable::default()));
            continue;
        }
        let Some((_, table)) = &mut current else {
            return Err(unknown());
        };
        if line == "COMMIT" {
            tables.extend(current.take());
        } else if let Some(chain) = line.strip_prefix(':') {
            let (name, chain) = declared(chain).ok_or_else(unknown)?;
            table.chains.insert(name, chain);
        } else {
            let (chain, rule) = rule(line).ok_or_else(unknown)?;
            let chain = table
                .chains
                .get_mut(chain)
                .ok_or_else(|| SaveError::UnknownChain(chain.to_owned()))?;
            chain.rules.push(rule.to_owned());
        }
    }
    match current {
        Some((name, _)) => Err(SaveError::Unfinished(name)),
        None => Ok(tables),
    }
}

/// iptables-nft's remark that it cannot show a table: ``# Table `nat' is incompatible, use 'nft' tool.`` Its other
/// remark, that a table "contains incompatible base-chains", leaves out only those, which are nobody's of iptables.
fn incompatible(line: &str) -> Option<SaveError> {
    let rest = line.split_once("Table `")?.1;
    let (table, _) = rest.split_once("' is incompatible")?;
    Some(SaveError::Incompatible(table.to_owned()))
}

/// `NAME POLICY [packets:bytes]`; the policy of users' chains is `-`.
fn declared(line: &str) -> Option<(String, IptablesChain)> {
    let mut words = line.split_whitespace();
    let (name, policy) = (words.next()?, words.next()?);
    let chain = IptablesChain {
        policy: (policy != "-").then(|| policy.to_owned()),
        rules: Vec::new(),
    };
    Some((name.to_owned(), chain))
}

/// `[packets:bytes] -A NAME RULE`, the counters and the rule being optional.
fn rule(line: &str) -> Option<(&str, &str)> {
    let line = match line.strip_prefix('[') {
        Some(rest) => rest.split_once("] ")?.1,
        None => line,
    };
    let rest = line.strip_prefix("-A ")?;
    Some(rest.split_once(' ').unwrap_or((rest, "")))
}
