//! Packet filter rules of nf_tables as plain data: what `nft list ruleset` prints, typed.
//!
//! A rule is a list of statements as nft's own syntax has them, not the kernel's register expressions: encoding and
//! reading them back is the crate `nftables`' work. Statements that we never write are kept as
//! [`Statement::Other`], so that a foreign or altered rule is seen as different, not as absent.
//!
//! Rules print and read in nft's own syntax: `rule.to_string()`, `text.parse::<Rule>()`, and [`listing`] for a whole
//! table. One rule can be written in several ways that mean the same; what is read from the kernel is in the form of
//! [`Rule::canonical`], so bring a rule into it before comparing.

mod canonical;
mod parse;
mod print;
mod print_table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnetwork::IpNetwork;
use net_types::{IfName, MacAddr};

use crate::iptables::IptablesFamily;

pub use print::RuleIn;
pub use print_table::listing;

/// The family that a table belongs to (nft(8), "address families").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 packets.
    Ip,
    /// IPv6 packets.
    Ip6,
    /// Both.
    Inet,
    /// Frames that cross a bridge.
    Bridge,
}

impl Family {
    /// The kernel's number for it (linux `netfilter.h`, `NFPROTO_*`).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Inet => 1,
            Self::Ip => 2,
            Self::Bridge => 7,
            Self::Ip6 => 10,
        }
    }

    /// The family of a number; `None` for one that we never use.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Inet),
            2 => Some(Self::Ip),
            7 => Some(Self::Bridge),
            10 => Some(Self::Ip6),
            _ => None,
        }
    }
}

impl From<IptablesFamily> for Family {
    /// The family of the tables in which iptables keeps its rules in nf_tables.
    fn from(family: IptablesFamily) -> Self {
        match family {
            IptablesFamily::V4 => Self::Ip,
            IptablesFamily::V6 => Self::Ip6,
        }
    }
}

/// Identity of a table.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableKey {
    /// Its family.
    pub family: Family,
    /// Its name, unique in the family.
    pub name: String,
}

/// The content of a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// What it is for, in words.
    pub comment: Option<String>,
    /// Chains by name.
    pub chains: BTreeMap<String, Chain>,
    /// How many sets, maps and other named objects it holds; we make none.
    pub other_objects: usize,
}

/// A chain with its rules in order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Where packets enter it; a chain without is only jumped to.
    pub base: Option<BaseChain>,
    /// What it is for, in words.
    pub comment: Option<String>,
    /// Rules in the order in which they are evaluated.
    pub rules: Vec<Rule>,
}

/// How a base chain is hooked into the packet path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BaseChain {
    /// What its verdicts may do.
    pub kind: ChainKind,
    /// Where in the packet path.
    pub hook: Hook,
    /// Order among the chains of a hook; smaller first (`NF_IP_PRI_*`, `NF_BR_PRI_*`).
    pub priority: i32,
    /// The verdict on packets that no rule decides.
    pub policy: Policy,
}

/// Type of a base chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChainKind {
    /// Accepts and drops.
    Filter,
    /// Translates the first packet of a connection.
    Nat,
    /// Routes again if the packet was changed.
    Route,
}

/// A place in the packet path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// Before the routing decision.
    Prerouting,
    /// To a local process.
    Input,
    /// Routed through.
    Forward,
    /// From a local process.
    Output,
    /// After the routing decision.
    Postrouting,
}

/// Verdict of a base chain's end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Let it through.
    #[default]
    Accept,
    /// Drop it.
    Drop,
}

/// A rule: all matches hold, then its statements act, left to right.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rule {
    /// Matches and actions in order.
    pub statements: Vec<Statement>,
    /// Text for people, and for finding it again.
    pub comment: Option<String>,
}

/// One part of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Statement {
    /// Goes on only if the packet matches.
    Match(Comparison, Match),
    /// Counts packets and bytes; the figures are not state.
    Counter,
    /// Sets the bits of `mask` in the packet's mark to those of `value`: `meta mark set …`.
    SetMark {
        /// New bits.
        value: u32,
        /// Which bits change.
        mask: u32,
    },
    /// Replaces the source address by the outgoing interface's.
    Masquerade {
        /// Whether the port is chosen at random (`fully-random`), against races of conntrack's.
        fully_random: bool,
    },
    /// Replaces the destination.
    Dnat {
        /// New address.
        addr: IpAddr,
        /// New port; `None` keeps it.
        port: Option<u16>,
    },
    /// Ends the rule with a decision.
    Verdict(Verdict),
    /// Something that we never write, named as the kernel names its expression.
    Other(String),
}

/// Whether a match must hold or must not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `==`
    Is,
    /// `!=`
    IsNot,
}

/// A property of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Match {
    /// Source address inside a network: `ip saddr`, `ip6 saddr`.
    Saddr(IpNetwork),
    /// Destination address inside a network: `ip daddr`, `ip6 daddr`.
    Daddr(IpNetwork),
    /// The destination is one of this host's addresses: `fib daddr type local`.
    DaddrIsLocal,
    /// Transport protocol number (IANA): `meta l4proto`.
    L4Proto(u8),
    /// Network layer of an `inet` packet, IPv4 or IPv6: `meta nfproto`. An address needs none before it.
    NfProto(Family),
    /// Source port: `tcp sport` and the like; needs [`Self::L4Proto`] before it.
    Sport(u16),
    /// Destination port: `tcp dport` and the like; needs [`Self::L4Proto`] before it.
    Dport(u16),
    /// Bits of the packet's mark: `meta mark & mask == value`; `meta mark value` if the mask is all ones.
    Mark {
        /// Wanted bits.
        value: u32,
        /// Which bits are looked at.
        mask: u32,
    },
    /// Incoming interface: `iifname`.
    Iifname(IfName),
    /// Outgoing interface: `oifname`.
    Oifname(IfName),
    /// The connection is in one of these states: `ct state`.
    CtState(CtStates),
    /// Source hardware address: `ether saddr`.
    EtherSaddr(MacAddr),
}

/// States of a connection (`NF_CT_STATE_BIT`, linux `nf_conntrack_common.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CtStates {
    /// Not a valid packet of any connection.
    pub invalid: bool,
    /// Of a connection that was answered.
    pub established: bool,
    /// Opened by another connection.
    pub related: bool,
    /// First packet.
    pub new: bool,
}

/// The decision of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Let it through this chain's hook.
    Accept,
    /// Drop it.
    Drop,
    /// Back to the chain that jumped here.
    Return,
    /// To another chain, and back.
    Jump(String),
    /// To another chain, not back here.
    Goto(String),
}

/// One change; a list of them is applied by the kernel as a whole or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Makes a table, empty; one that exists is kept as it is.
    AddTable {
        /// Which.
        table: TableKey,
        /// Given only to a new one.
        comment: Option<String>,
    },
    /// Removes a table with all that it holds.
    DelTable(TableKey),
    /// Makes a chain without rules; one that exists is kept, and must be hooked alike.
    AddChain {
        /// In which table.
        table: TableKey,
        /// Its name.
        chain: String,
        /// How it is hooked.
        base: Option<BaseChain>,
        /// Given only to a new one.
        comment: Option<String>,
    },
    /// Removes all rules of a chain.
    FlushChain {
        /// In which table.
        table: TableKey,
        /// Its name.
        chain: String,
    },
    /// Removes a chain that nothing jumps to.
    DelChain {
        /// In which table.
        table: TableKey,
        /// Its name.
        chain: String,
    },
    /// Puts a rule at the end of a chain.
    AppendRule {
        /// In which table.
        table: TableKey,
        /// In which chain.
        chain: String,
        /// What it says.
        rule: Rule,
    },
    /// Puts a rule at the start of a chain.
    InsertRule {
        /// In which table.
        table: TableKey,
        /// In which chain.
        chain: String,
        /// What it says.
        rule: Rule,
    },
    /// Removes one rule.
    DelRule {
        /// In which table.
        table: TableKey,
        /// In which chain.
        chain: String,
        /// The kernel's number for it.
        handle: u64,
    },
}

/// The changes that give a table exactly this content at one instant, whatever it held before.
#[must_use]
pub fn replacement(key: &TableKey, table: &Table) -> Vec<Change> {
    let add = Change::AddTable {
        table: key.clone(),
        comment: table.comment.clone(),
    };
    // A table that is absent cannot be removed; so it is made first.
    let mut changes = vec![add.clone(), Change::DelTable(key.clone()), add];
    // A rule may jump to any chain, so all are made before the first rule.
    for (name, chain) in &table.chains {
        changes.push(Change::AddChain {
            table: key.clone(),
            chain: name.clone(),
            base: chain.base,
            comment: chain.comment.clone(),
        });
    }
    for (name, chain) in &table.chains {
        changes.extend(chain.rules.iter().map(|rule| Change::AppendRule {
            table: key.clone(),
            chain: name.clone(),
            rule: rule.clone(),
        }));
    }
    changes
}
