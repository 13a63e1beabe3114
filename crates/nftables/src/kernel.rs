use std::collections::{BTreeMap, BTreeSet};

use netlink::netfilter::{Ending, Refusal, Socket, Subsystem, is_absent};
use netlink::tlv::Attributes;
use netstate::nft::{
    BaseChain, Chain, ChainKind, Change, Family, Hook, Match, Policy, Rule, Statement, Table, TableKey,
};
use netstate::{ErrorClass, KernelError};

use crate::decode::{self, RawChain, RawRule, RawTable};
use crate::encode::{self, EncodeError};
use crate::wire::{self, message};

/// How often a table is read again that changed under way.
const READINGS: u32 = 20;

/// The packet filter rules of one namespace, over one netlink socket.
///
/// It stays in the namespace that it was opened in, whatever thread uses it.
pub struct Nftables {
    socket: Socket,
}

/// The content of a table, read at one instant.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Listing {
    /// What it holds, its rules in their canonical form.
    pub table: Table,
    /// The kernel's number of each rule, by chain, in the order of the rules. It is never used again in this table.
    pub handles: BTreeMap<String, Vec<u64>>,
}

/// Which of a table's rules are read. Its chains always are, all of them; of a chain whose rules are not, they are
/// missing in the [`Listing`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Chains that are read whole.
    pub chains: BTreeSet<String>,
    /// Of the other chains, the rules with this comment. Without one they are not asked for their rules, however long
    /// they are.
    pub comment: Option<String>,
}

impl Selection {
    fn holds(&self, chain: &str, comment: Option<&str>) -> bool {
        self.chains.contains(chain) || (comment.is_some() && comment == self.comment.as_deref())
    }
}

/// Why changes were not made; none of them was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// A change has no form in the kernel.
    #[error("cannot write the change \"{change}\"")]
    Encode {
        /// The change.
        change: Box<Change>,
        /// Why.
        #[source]
        source: EncodeError,
    },
    /// The kernel refused a change.
    #[error("the kernel refused the change \"{change}\"")]
    Refused {
        /// The first change that it refused.
        change: Box<Change>,
        /// Its place among the changes.
        index: usize,
        /// Why.
        #[source]
        source: KernelError,
    },
    /// The kernel refused them as a whole.
    #[error("cannot change packet filter rules")]
    Batch(#[source] KernelError),
}

impl ApplyError {
    /// What the failure means; [`ErrorClass::Other`] of 0 for changes that never reached the kernel.
    #[must_use]
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::Encode { .. } => ErrorClass::Other(0),
            Self::Refused { source, .. } | Self::Batch(source) => source.class,
        }
    }
}

impl Listing {
    /// The rules of a chain with their numbers; none if there is no such chain.
    pub fn rules(&self, chain: &str) -> impl Iterator<Item = (u64, &Rule)> {
        let handles = self.handles.get(chain).into_iter().flatten().copied();
        let rules = self
            .table
            .chains
            .get(chain)
            .into_iter()
            .flat_map(|chain| &chain.rules);
        handles.zip(rules)
    }
}

impl Nftables {
    /// Opens the rules of the calling thread's namespace.
    ///
    /// # Errors
    /// There is no socket to be had, or the kernel has no netfilter.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self {
            socket: Socket::open(Subsystem::Nftables)?,
        })
    }

    /// Opens the rules of the calling thread's namespace; `None` if the kernel has no nf_tables.
    ///
    /// Whether it has is asked by a short question. Making rules on trial ([`Self::is_available`]) tells more, but takes
    /// ten milliseconds (measured on 6.18), five times what making rules takes.
    ///
    /// # Errors
    /// There is no socket to be had, or the kernel refused the question.
    pub fn open_if_present() -> Result<Option<Self>, KernelError> {
        let opened = Self::open().and_then(|mut nftables| {
            nftables.tables(Family::Inet)?;
            Ok(nftables)
        });
        match opened {
            Ok(nftables) => Ok(Some(nftables)),
            Err(e) if is_absent(e.class) => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Whether the kernel takes rules as we write them, address translation included. It leaves nothing behind: the
    /// kernel checks the rules, and is told to carry out none of them. A kernel that loads modules may load them.
    pub fn is_available(&mut self) -> bool {
        self.check(&sample()).is_ok()
    }

    /// Makes changes as a whole or not at all; to traffic and to other readers they appear at one instant.
    ///
    /// # Errors
    /// Names the first change that was refused. What passes by itself is tried again a few times.
    pub fn apply(&mut self, changes: &[Change]) -> Result<(), ApplyError> {
        self.transact(Ending::Commit, changes)
    }

    /// Finds out whether the kernel would make changes, without making them.
    ///
    /// # Errors
    /// As [`Self::apply`].
    pub fn check(&mut self, changes: &[Change]) -> Result<(), ApplyError> {
        self.transact(Ending::Abort, changes)
    }

    fn transact(&mut self, ending: Ending, changes: &[Change]) -> Result<(), ApplyError> {
        let mut messages = Vec::with_capacity(changes.len());
        for change in changes {
            messages.push(encode::change(change).map_err(|source| ApplyError::Encode {
                change: Box::new(change.clone()),
                source,
            })?);
        }
        let sent = self.socket.transact(ending, |socket, requests| {
            for message in &messages {
                socket.push(requests, message.message, message.flags, &message.payload);
            }
        });
        sent.map_err(|Refusal { index, error }| {
            let refused = index.and_then(|index| Some((index, changes.get(index)?)));
            match refused {
                Some((index, change)) => ApplyError::Refused {
                    change: Box::new(change.clone()),
                    index,
                    source: error,
                },
                None => ApplyError::Batch(error),
            }
        })
    }

    /// Reads a table with all its chains and rules; `None` if it is absent.
    ///
    /// Chains that are hooked in a way that we never use are among [`Table::other_objects`].
    ///
    /// # Errors
    /// The kernel refused, or the rules changed during each of many readings.
    pub fn table(&mut self, key: &TableKey) -> Result<Option<Listing>, KernelError> {
        self.read(key, None)
    }

    /// As [`Self::table`], with some of the rules only: those of others in a long table cost time.
    ///
    /// # Errors
    /// As [`Self::table`].
    pub fn part(&mut self, key: &TableKey, selection: &Selection) -> Result<Option<Listing>, KernelError> {
        self.read(key, Some(selection))
    }

    fn read(
        &mut self,
        key: &TableKey,
        selection: Option<&Selection>,
    ) -> Result<Option<Listing>, KernelError> {
        for _ in 0..READINGS {
            let before = self.generation()?;
            let listing = match self.listing(key, selection) {
                // It went while it was read, as the generation tells.
                Err(e) if e.class == ErrorClass::NotFound => None,
                listing => listing?,
            };
            if self.generation()? == before {
                return Ok(listing);
            }
        }
        Err(KernelError {
            class: ErrorClass::Busy,
            message: format!(
                "the packet filter rules changed during each of {READINGS} readings of table {key}"
            ),
        })
    }

    /// Whether a table holds a chain; it reads nothing else, however long the table is.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn has_chain(&mut self, key: &TableKey, chain: &str) -> Result<bool, KernelError> {
        let question = question(
            key,
            &[(wire::chain::TABLE, &key.name), (wire::chain::NAME, chain)],
        )?;
        match self.socket.ask(message::GET_CHAIN, &question, |_| Ok(())) {
            Ok(()) => Ok(true),
            Err(e) if e.class == ErrorClass::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The names of a table's chains, in the kernel's order; none if there is no such table. It reads no rules. Chains
    /// that are hooked in a way that we never use are left out.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn chains(&mut self, key: &TableKey) -> Result<Vec<String>, KernelError> {
        match self.raw_chains(key) {
            Ok(chains) => Ok(chains.into_iter().map(|chain| chain.name).collect()),
            Err(e) if e.class == ErrorClass::NotFound => Ok(Vec::new()),
            Err(e) => Err(e),
        }
    }

    /// The names of a family's tables, in the kernel's order.
    ///
    /// # Errors
    /// The kernel refused.
    pub fn tables(&mut self, family: Family) -> Result<Vec<String>, KernelError> {
        let number = family.number();
        self.socket
            .dump(message::GET_TABLE, &wire::header(family), |found, bytes| {
                let table = decode::table(bytes).ok_or_else(|| unreadable("a table"))?;
                Ok((found == number).then_some(table.name))
            })
    }

    fn generation(&mut self) -> Result<u32, KernelError> {
        self.socket
            .ask(message::GET_GEN, &netlink::netfilter::header(0, 0), |bytes| {
                decode::generation(bytes).ok_or_else(|| unreadable("the number of its rules' generation"))
            })
    }

    fn listing(
        &mut self,
        key: &TableKey,
        selection: Option<&Selection>,
    ) -> Result<Option<Listing>, KernelError> {
        let Some(raw) = self.raw_table(key)? else {
            return Ok(None);
        };
        let mut listing = Listing::default();
        for chain in self.raw_chains(key)? {
            listing.handles.insert(chain.name.clone(), Vec::new());
            listing.table.chains.insert(
                chain.name,
                Chain {
                    base: chain.base,
                    comment: chain.comment,
                    rules: Vec::new(),
                },
            );
        }
        let rules = match selection {
            None => self.rules(key, None, |_, _| true)?,
            Some(selection) if selection.comment.is_some() => {
                self.rules(key, None, |chain, comment| selection.holds(chain, comment))?
            }
            Some(selection) => {
                let mut rules = Vec::new();
                for chain in selection
                    .chains
                    .iter()
                    .filter(|chain| listing.handles.contains_key(*chain))
                {
                    // Older kernels list the rules of all chains.
                    rules.extend(self.rules(key, Some(chain), |found, _| found == chain)?);
                }
                rules
            }
        };
        for rule in rules {
            let chain = listing.table.chains.get_mut(&rule.chain);
            let handles = listing.handles.get_mut(&rule.chain);
            if let (Some(chain), Some(handles)) = (chain, handles) {
                chain.rules.push(rule.rule);
                handles.push(rule.handle);
            }
        }
        listing.table.comment = raw.comment;
        listing.table.other_objects = raw.objects.saturating_sub(listing.table.chains.len());
        Ok(Some(listing))
    }

    fn raw_chains(&mut self, key: &TableKey) -> Result<Vec<RawChain>, KernelError> {
        let question = named(key, wire::chain::TABLE)?;
        let number = key.family.number();
        self.socket.dump(message::GET_CHAIN, &question, |family, bytes| {
            // Older kernels list the chains of all tables.
            let chain = decode::chain(bytes);
            Ok(chain.filter(|chain| family == number && chain.table == key.name))
        })
    }

    fn raw_table(&mut self, key: &TableKey) -> Result<Option<RawTable>, KernelError> {
        let question = named(key, wire::table::NAME)?;
        let read = |bytes: &[u8]| decode::table(bytes).ok_or_else(|| unreadable("a table"));
        match self.socket.ask(message::GET_TABLE, &question, read) {
            Ok(table) => Ok(Some(table)),
            Err(e) if e.class == ErrorClass::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    fn rules(
        &mut self,
        key: &TableKey,
        chain: Option<&str>,
        is_wanted: impl Fn(&str, Option<&str>) -> bool,
    ) -> Result<Vec<RawRule>, KernelError> {
        let mut names = vec![(wire::rule::TABLE, key.name.as_str())];
        names.extend(chain.map(|chain| (wire::rule::CHAIN, chain)));
        let question = question(key, &names)?;
        let number = key.family.number();
        self.socket.dump(message::GET_RULE, &question, |family, bytes| {
            let place = decode::place(bytes).ok_or_else(|| unreadable("a rule"))?;
            let is_of_table = family == number && place.table == key.name;
            if !is_of_table || !is_wanted(&place.chain, place.comment.as_deref()) {
                return Ok(None);
            }
            let rule = decode::rule(key.family, bytes, place).ok_or_else(|| unreadable("a rule"))?;
            Ok(Some(rule))
        })
    }
}

/// A question about one table, whose name stands in an attribute of this type.
fn named(key: &TableKey, kind: u16) -> Result<Vec<u8>, KernelError> {
    question(key, &[(kind, &key.name)])
}

/// A question with names in attributes of these types.
fn question(key: &TableKey, names: &[(u16, &str)]) -> Result<Vec<u8>, KernelError> {
    let mut question = Attributes::after(&wire::header(key.family));
    for (kind, name) in names {
        question.put_text(*kind, name);
    }
    question.finish().map_err(|e| KernelError {
        class: ErrorClass::Other(0),
        message: e.to_string(),
    })
}

fn unreadable(what: &str) -> KernelError {
    KernelError {
        class: ErrorClass::Other(0),
        message: format!("the kernel described {what} in a way that cannot be read"),
    }
}

/// Rules that need everything that ours do.
fn sample() -> Vec<Change> {
    let table = TableKey {
        family: Family::Inet,
        name: "flannel-probe".to_owned(),
    };
    let base = BaseChain {
        kind: ChainKind::Nat,
        hook: Hook::Postrouting,
        priority: 100,
        policy: Policy::Accept,
    };
    let chain = "probe".to_owned();
    let statements = vec![
        Statement::Match(netstate::nft::Comparison::Is, Match::DaddrIsLocal),
        Statement::Masquerade { fully_random: true },
    ];
    vec![
        Change::AddTable {
            table: table.clone(),
            comment: None,
        },
        Change::AddChain {
            table: table.clone(),
            chain: chain.clone(),
            base: Some(base),
            comment: None,
        },
        Change::AppendRule {
            table,
            chain,
            rule: Rule {
                statements,
                comment: None,
            },
        },
    ]
}
