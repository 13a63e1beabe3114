use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};

/// Longest name of a chain in bytes (iptables `x_tables.h`, `XT_EXTENSION_MAXNAMELEN` less two).
const CHAIN_MAX_BYTES: usize = 28;

/// Changes as a text for `iptables-restore --noflush`: each table's are made at once, or none of them is.
///
/// Chains are declared first, whatever the order of the calls, so that rules may lead into any of them; rules follow in
/// the order of the calls; removals of chains come last.
///
/// ```
/// let mut restore = netstate::iptables::Restore::default();
/// restore.fresh_chain("nat", "OURS")?;
/// restore.append("nat", "OURS", "-s 10.0.0.0/8 -j MASQUERADE")?;
/// restore.insert("nat", "POSTROUTING", "-j OURS")?;
/// assert_eq!(
///     restore.to_string(),
///     "*nat\n:OURS - [0:0]\n-A OURS -s 10.0.0.0/8 -j MASQUERADE\n-I POSTROUTING -j OURS\nCOMMIT\n"
/// );
/// # Ok::<(), netstate::iptables::RestoreError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Restore {
    tables: BTreeMap<String, Lines>,
}

/// Why a change cannot be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    /// It is no name of a table or chain.
    #[error(
        "{0:?} cannot be the name of a table or chain of iptables: up to {CHAIN_MAX_BYTES} bytes without white space, beginning with none of - ! : * # ["
    )]
    Name(String),
    /// A rule would end its line and begin another.
    #[error("the rule {0:?} of iptables contains a line break or a zero byte")]
    Rule(String),
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Lines {
    declared: Vec<String>,
    rules: Vec<String>,
    removed: Vec<String>,
}

impl Restore {
    /// Makes a chain of users' that is empty, whether it was there or not.
    ///
    /// # Errors
    /// A name is malformed.
    pub fn fresh_chain(&mut self, table: &str, chain: &str) -> Result<(), RestoreError> {
        let line = format!(":{} - [0:0]", name(chain)?);
        let lines = self.lines(table)?;
        if !lines.declared.contains(&line) {
            lines.declared.push(line);
        }
        Ok(())
    }

    /// Makes a chain of users' that must not be there: unlike [`Self::fresh_chain`] it never removes the rules of a
    /// chain that another made meanwhile, but fails the table's changes as a whole.
    ///
    /// # Errors
    /// A name is malformed.
    pub fn new_chain(&mut self, table: &str, chain: &str) -> Result<(), RestoreError> {
        let line = format!("-N {}", name(chain)?);
        self.lines(table)?.declared.push(line);
        Ok(())
    }

    /// Removes a chain of users' with its rules, whether it was there or not; nothing else may lead into it by then.
    ///
    /// # Errors
    /// A name is malformed.
    pub fn delete_chain(&mut self, table: &str, chain: &str) -> Result<(), RestoreError> {
        self.fresh_chain(table, chain)?;
        self.lines(table)?.removed.push(format!("-X {chain}"));
        Ok(())
    }

    /// Removes all rules of a chain that is there.
    ///
    /// # Errors
    /// A name is malformed.
    pub fn flush(&mut self, table: &str, chain: &str) -> Result<(), RestoreError> {
        let line = format!("-F {}", name(chain)?);
        self.lines(table)?.rules.push(line);
        Ok(())
    }

    /// Puts a rule at the end of a chain.
    ///
    /// # Errors
    /// A name or the rule is malformed.
    pub fn append(&mut self, table: &str, chain: &str, rule: &str) -> Result<(), RestoreError> {
        self.rule('A', table, chain, rule)
    }

    /// Puts a rule at the start of a chain.
    ///
    /// # Errors
    /// A name or the rule is malformed.
    pub fn insert(&mut self, table: &str, chain: &str, rule: &str) -> Result<(), RestoreError> {
        self.rule('I', table, chain, rule)
    }

    /// Removes the first rule that is equal. One that is absent fails the table's changes as a whole.
    ///
    /// # Errors
    /// A name or the rule is malformed.
    pub fn delete(&mut self, table: &str, chain: &str, rule: &str) -> Result<(), RestoreError> {
        self.rule('D', table, chain, rule)
    }

    /// Whether there is nothing to be changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    fn rule(&mut self, verb: char, table: &str, chain: &str, rule: &str) -> Result<(), RestoreError> {
        if rule.contains(['\n', '\r', '\0']) {
            return Err(RestoreError::Rule(rule.to_owned()));
        }
        let chain = name(chain)?;
        let space = if rule.is_empty() { "" } else { " " };
        let line = format!("-{verb} {chain}{space}{rule}");
        self.lines(table)?.rules.push(line);
        Ok(())
    }

    fn lines(&mut self, table: &str) -> Result<&mut Lines, RestoreError> {
        let table = name(table)?.to_owned();
        Ok(self.tables.entry(table).or_default())
    }
}

fn name(name: &str) -> Result<&str, RestoreError> {
    let first_forbidden = name.starts_with(['-', '!', ':', '*', '#', '[']);
    let forbidden = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '"' | '\'' | '\\');
    if name.is_empty() || name.len() > CHAIN_MAX_BYTES || first_forbidden || name.contains(forbidden) {
        return Err(RestoreError::Name(name.to_owned()));
    }
    Ok(name)
}

impl Display for Restore {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (table, lines) in &self.tables {
            writeln!(f, "*{table}")?;
            for line in lines.declared.iter().chain(&lines.rules).chain(&lines.removed) {
                writeln!(f, "{line}")?;
            }
            writeln!(f, "COMMIT")?;
        }
        Ok(())
    }
}
