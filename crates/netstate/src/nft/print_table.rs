//! Printing tables, chains and changes in the syntax of nft(8), as its version 1.0.6 lists them.

use std::fmt::{self, Display, Formatter};

use super::{BaseChain, Chain, ChainKind, Change, Family, Hook, Policy, RuleIn, Table, TableKey};

/// How far from a named priority another is still printed relative to it (nftables `rule.c`).
const PRIORITY_REACH: i32 = 10;

/// The text of a table as `nft list table` prints it, but for the order of its chains, which is here by name, and for
/// the figures of counters, which are no state.
#[must_use]
pub fn listing(key: &TableKey, table: &Table) -> String {
    let mut text = format!("table {key} {{\n");
    if let Some(comment) = &table.comment {
        text += &format!("\tcomment \"{comment}\"\n");
    }
    if table.other_objects > 0 {
        text += &format!("\t# and {} other objects\n", table.other_objects);
    }
    for (index, (name, chain)) in table.chains.iter().enumerate() {
        if index > 0 {
            text += "\n";
        }
        text += &chain_listing(key.family, name, chain);
    }
    text += "}\n";
    text
}

fn chain_listing(family: Family, name: &str, chain: &Chain) -> String {
    let mut text = format!("\tchain {name} {{\n");
    if let Some(comment) = &chain.comment {
        text += &format!("\t\tcomment \"{comment}\"\n");
    }
    if let Some(base) = &chain.base {
        text += &format!("\t\t{}\n", BaseIn(family, base));
    }
    for rule in &chain.rules {
        text += &format!("\t\t{}\n", RuleIn(family, rule));
    }
    text += "\t}\n";
    text
}

/// How a chain of a family is hooked.
struct BaseIn<'a>(Family, &'a BaseChain);

impl Display for BaseIn<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self(family, base) = self;
        let kind = match base.kind {
            ChainKind::Filter => "filter",
            ChainKind::Nat => "nat",
            ChainKind::Route => "route",
        };
        let hook = match base.hook {
            Hook::Prerouting => "prerouting",
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
            Hook::Postrouting => "postrouting",
        };
        let policy = match base.policy {
            Policy::Accept => "accept",
            Policy::Drop => "drop",
        };
        write!(f, "type {kind} hook {hook} priority ")?;
        print_priority(f, *family, base)?;
        write!(f, "; policy {policy};")
    }
}

/// The priorities that have names (nftables `rule.c`; linux `NF_IP_PRI_*`, `NF_BR_PRI_*`), and the one hook, if any,
/// where the name is known.
const PRIORITIES: [(i32, &str, Option<Hook>); 6] = [
    (-300, "raw", None),
    (-150, "mangle", None),
    (-100, "dstnat", Some(Hook::Prerouting)),
    (0, "filter", None),
    (50, "security", None),
    (100, "srcnat", Some(Hook::Postrouting)),
];
const BRIDGE_PRIORITIES: [(i32, &str, Option<Hook>); 4] = [
    (-300, "dstnat", Some(Hook::Prerouting)),
    (-200, "filter", None),
    (100, "out", Some(Hook::Output)),
    (300, "srcnat", Some(Hook::Postrouting)),
];

fn print_priority(f: &mut Formatter<'_>, family: Family, base: &BaseChain) -> fmt::Result {
    let names: &[_] = match family {
        Family::Bridge => &BRIDGE_PRIORITIES,
        Family::Ip | Family::Ip6 | Family::Inet => &PRIORITIES,
    };
    let near = names
        .iter()
        .find(|(named, ..)| base.priority.abs_diff(*named) <= PRIORITY_REACH.unsigned_abs());
    let Some((named, name, _)) = near.filter(|(_, _, hook)| hook.is_none_or(|hook| hook == base.hook)) else {
        return write!(f, "{}", base.priority);
    };
    match base.priority - named {
        0 => f.write_str(name),
        offset if offset > 0 => write!(f, "{name} + {offset}"),
        offset => write!(f, "{name} - {}", offset.abs()),
    }
}

impl Display for Change {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::AddTable { table, .. } => write!(f, "add table {table}"),
            Self::DelTable(table) => write!(f, "delete table {table}"),
            Self::AddChain {
                table, chain, base, ..
            } => {
                write!(f, "add chain {table} {chain}")?;
                match base {
                    Some(base) => write!(f, " {{ {} }}", BaseIn(table.family, base)),
                    None => Ok(()),
                }
            }
            Self::FlushChain { table, chain } => write!(f, "flush chain {table} {chain}"),
            Self::DelChain { table, chain } => write!(f, "delete chain {table} {chain}"),
            Self::AppendRule { table, chain, rule } => {
                write!(f, "add rule {table} {chain} {}", RuleIn(table.family, rule))
            }
            Self::InsertRule { table, chain, rule } => {
                write!(f, "insert rule {table} {chain} {}", RuleIn(table.family, rule))
            }
            Self::DelRule { table, chain, handle } => {
                write!(f, "delete rule {table} {chain} handle {handle}")
            }
        }
    }
}
