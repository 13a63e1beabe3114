//! Changes as nf_tables messages. Pure.

mod expressions;

use std::net::IpAddr;

use netlink::tlv::{AttributeTooLong, Attributes};
use netstate::nft::{BaseChain, Change, Family, Rule, TableKey};

use self::expressions::Expressions;
use crate::wire::{self, chain, message, rule, table};

/// Longest comment in bytes: a user data element holds 255 with its terminating zero, and the kernel takes 256 in all
/// (linux `nf_tables.h`, `NFT_USERDATA_MAXLEN`).
const COMMENT_MAX_BYTES: usize = 253;

/// `NLM_F_CREATE` and `NLM_F_APPEND` (linux `netlink.h`).
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;

/// A change that has no form in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// A comment is too long.
    #[error("the comment {0:?} is longer than {COMMENT_MAX_BYTES} bytes: shorten it")]
    CommentTooLong(String),
    /// A comment holds a zero.
    #[error("the comment {0:?} contains a zero byte")]
    CommentWithZero(String),
    /// An address of the other family can never match in the table.
    #[error("{addr} cannot stand in a rule of family {family}")]
    WrongFamily {
        /// The address.
        addr: IpAddr,
        /// The table's family.
        family: Family,
    },
    /// The statement has no meaning in tables of the family.
    #[error("{statement:?} cannot stand in a rule of family {family}")]
    WrongTable {
        /// The statement as text.
        statement: String,
        /// The table's family.
        family: Family,
    },
    /// The statement was read from the kernel without being understood.
    #[error("the expression {0:?} can be read, but not written")]
    Unknown(String),
    /// The rule is too long.
    #[error("the rule is longer than the 64 KiB that the kernel takes")]
    TooLong,
}

/// A message without its header.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Encoded {
    pub(crate) message: u8,
    pub(crate) flags: u16,
    pub(crate) payload: Vec<u8>,
}

/// The message for a change.
pub(crate) fn change(change: &Change) -> Result<Encoded, EncodeError> {
    let (message, flags, payload) = match change {
        Change::AddTable { table, comment } => {
            (message::NEW_TABLE, CREATE, add_table(table, comment.as_deref())?)
        }
        Change::DelTable(table) => {
            let mut built = Attributes::after(&wire::header(table.family));
            built.put_text(table::NAME, &table.name);
            (message::DEL_TABLE, 0, built)
        }
        Change::AddChain {
            table,
            chain,
            base,
            comment,
        } => {
            let built = add_chain(table, chain, *base, comment.as_deref())?;
            (message::NEW_CHAIN, CREATE, built)
        }
        Change::FlushChain { table, chain } => (message::DEL_RULE, 0, of_chain(table, chain)),
        Change::DelChain { table, chain } => {
            let mut built = Attributes::after(&wire::header(table.family));
            built.put_text(chain::TABLE, &table.name);
            built.put_text(chain::NAME, chain);
            (message::DEL_CHAIN, 0, built)
        }
        Change::AppendRule { table, chain, rule } => {
            (message::NEW_RULE, CREATE | APPEND, add_rule(table, chain, rule)?)
        }
        Change::InsertRule { table, chain, rule } => {
            (message::NEW_RULE, CREATE, add_rule(table, chain, rule)?)
        }
        Change::DelRule { table, chain, handle } => {
            let mut built = of_chain(table, chain);
            built.put(rule::HANDLE, &handle.to_be_bytes());
            (message::DEL_RULE, 0, built)
        }
    };
    let payload = payload.finish()?;
    Ok(Encoded {
        message,
        flags,
        payload,
    })
}

fn add_table(key: &TableKey, comment: Option<&str>) -> Result<Attributes, EncodeError> {
    let mut built = Attributes::after(&wire::header(key.family));
    built.put_text(table::NAME, &key.name);
    put_comment(&mut built, table::USERDATA, comment)?;
    Ok(built)
}

fn add_chain(
    table: &TableKey,
    name: &str,
    base: Option<BaseChain>,
    comment: Option<&str>,
) -> Result<Attributes, EncodeError> {
    let mut built = Attributes::after(&wire::header(table.family));
    built.put_text(chain::TABLE, &table.name);
    built.put_text(chain::NAME, name);
    if let Some(base) = base {
        built.nest(chain::HOOK, |hook| {
            hook.put_be32(chain::HOOK_NUMBER, wire::hook_number(base.hook));
            hook.put(chain::HOOK_PRIORITY, &base.priority.to_be_bytes());
        });
        built.put_be32(chain::POLICY, wire::policy_number(base.policy));
        built.put_text(chain::TYPE, wire::kind_name(base.kind));
    }
    put_comment(&mut built, chain::USERDATA, comment)?;
    Ok(built)
}

fn of_chain(table: &TableKey, chain: &str) -> Attributes {
    let mut built = Attributes::after(&wire::header(table.family));
    built.put_text(rule::TABLE, &table.name);
    built.put_text(rule::CHAIN, chain);
    built
}

fn add_rule(table: &TableKey, chain: &str, rule: &Rule) -> Result<Attributes, EncodeError> {
    let statements = rule.canonical(table.family).statements;
    let mut built = of_chain(table, chain);
    let mut failure = None;
    built.nest(rule::EXPRESSIONS, |list| {
        let mut expressions = Expressions::new(list, table.family);
        failure = statements.iter().find_map(|s| expressions.statement(s).err());
    });
    failure.map_or(Ok(()), Err)?;
    put_comment(&mut built, rule::USERDATA, rule.comment.as_deref())?;
    Ok(built)
}

/// Adds a comment as nft(8) writes it: type, length, text with its terminating zero.
fn put_comment(built: &mut Attributes, kind: u16, comment: Option<&str>) -> Result<(), EncodeError> {
    let Some(comment) = comment else { return Ok(()) };
    if comment.contains('\0') {
        return Err(EncodeError::CommentWithZero(comment.to_owned()));
    }
    let len = u8::try_from(comment.len() + 1).ok();
    let Some(len) = len.filter(|_| comment.len() <= COMMENT_MAX_BYTES) else {
        return Err(EncodeError::CommentTooLong(comment.to_owned()));
    };
    let mut data = vec![wire::UDATA_COMMENT, len];
    data.extend_from_slice(comment.as_bytes());
    data.push(0);
    built.put(kind, &data);
    Ok(())
}

impl From<AttributeTooLong> for EncodeError {
    fn from(_: AttributeTooLong) -> Self {
        Self::TooLong
    }
}
