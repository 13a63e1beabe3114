//! Rules of iptables as plain data: the text that `iptables-save` prints, by table and chain.

use std::collections::BTreeMap;

/// Which of the two programs, `iptables` or `ip6tables`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IptablesFamily {
    /// `iptables`
    V4,
    /// `ip6tables`
    V6,
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
