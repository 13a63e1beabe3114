//! Tables, chains and rules out of nf_tables messages. Pure, and total: bytes that no kernel would send are an error
//! or a [`Statement::Other`], never a panic.

mod expressions;
mod statements;

use netlink::tlv::{attribute, attributes, be32, text};
use netstate::nft::{BaseChain, Family, Rule};

use crate::wire::{self, chain, rule, table};

/// A table as the kernel describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawTable {
    pub(crate) name: String,
    pub(crate) comment: Option<String>,
    /// How many chains, sets and other named objects it holds.
    pub(crate) objects: usize,
}

/// A chain as the kernel describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawChain {
    pub(crate) table: String,
    pub(crate) name: String,
    pub(crate) base: Option<BaseChain>,
    pub(crate) comment: Option<String>,
}

/// Where a rule stands, and what tells whose it is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) table: String,
    pub(crate) chain: String,
    pub(crate) comment: Option<String>,
}

/// A rule as the kernel describes it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RawRule {
    pub(crate) chain: String,
    pub(crate) handle: u64,
    pub(crate) rule: Rule,
}

pub(crate) fn table(bytes: &[u8]) -> Option<RawTable> {
    Some(RawTable {
        name: attribute(bytes, table::NAME).map(text)?,
        comment: attribute(bytes, table::USERDATA).and_then(comment),
        objects: usize::try_from(attribute(bytes, table::USE).and_then(be32)?).ok()?,
    })
}

/// A chain; `None` for one that is hooked in a way that we never use.
pub(crate) fn chain(bytes: &[u8]) -> Option<RawChain> {
    let base = match attribute(bytes, chain::HOOK) {
        Some(hook) => Some(base(bytes, hook)?),
        None => None,
    };
    Some(RawChain {
        table: attribute(bytes, chain::TABLE).map(text)?,
        name: attribute(bytes, chain::NAME).map(text)?,
        base,
        comment: attribute(bytes, chain::USERDATA).and_then(comment),
    })
}

fn base(bytes: &[u8], hook: &[u8]) -> Option<BaseChain> {
    let priority = attribute(hook, chain::HOOK_PRIORITY)?.try_into().ok()?;
    Some(BaseChain {
        kind: attribute(bytes, chain::TYPE)
            .map(text)
            .and_then(|name| wire::kind(&name))?,
        hook: attribute(hook, chain::HOOK_NUMBER)
            .and_then(be32)
            .and_then(wire::hook)?,
        priority: i32::from_be_bytes(priority),
        policy: attribute(bytes, chain::POLICY)
            .and_then(be32)
            .and_then(wire::policy)?,
    })
}

/// Where a rule stands, without a look at what it does, which takes longer.
pub(crate) fn place(bytes: &[u8]) -> Option<Place> {
    Some(Place {
        table: attribute(bytes, rule::TABLE).map(text)?,
        chain: attribute(bytes, rule::CHAIN).map(text)?,
        comment: attribute(bytes, rule::USERDATA).and_then(comment),
    })
}

pub(crate) fn rule(family: Family, bytes: &[u8], place: Place) -> Option<RawRule> {
    let handle = attribute(bytes, rule::HANDLE)?.try_into().ok()?;
    let expressions = attribute(bytes, rule::EXPRESSIONS).unwrap_or(&[]);
    let rule = Rule {
        statements: statements::statements(family, expressions),
        comment: place.comment,
    };
    Some(RawRule {
        chain: place.chain,
        handle: u64::from_be_bytes(handle),
        rule: rule.canonical(family),
    })
}

/// The comment in user data: type, length, text with its terminating zero, as nft(8) writes it.
fn comment(data: &[u8]) -> Option<String> {
    let mut rest = data;
    loop {
        let [kind, len] = *rest.first_chunk::<2>()?;
        let value = rest.get(2..2 + usize::from(len))?;
        if kind == wire::UDATA_COMMENT {
            return Some(text(value));
        }
        rest = rest.get(2 + usize::from(len)..)?;
    }
}

/// The generation of the rule set, which every change of it advances.
pub(crate) fn generation(bytes: &[u8]) -> Option<u32> {
    attribute(bytes, wire::GEN_ID).and_then(be32)
}

/// The expressions of a rule: name and content of each.
fn expressions(list: &[u8]) -> impl Iterator<Item = (String, &[u8])> {
    attributes(list).map(|(_, element)| {
        let name = attribute(element, wire::expr::NAME).map(text).unwrap_or_default();
        let data = attribute(element, wire::expr::DATA).unwrap_or(&[]);
        (name, data)
    })
}

#[cfg(test)]
mod tests;
