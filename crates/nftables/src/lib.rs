//! Packet filter rules on the real kernel: writes and reads [`netstate::nft`] over netlink.
//!
//! No program is run for nf_tables: a list of [`Change`](netstate::nft::Change)s is one batch that the kernel carries
//! out as a whole or not at all, and a [`Listing`] is one consistent reading, in which every statement that we never
//! write is a [`Statement::Other`](netstate::nft::Statement::Other). What is written prints with `nft list ruleset`.
//! This crate holds no policy, and touches no table but those that it is told of.
//!
//! ```no_run
//! use netstate::nft::{Change, Family, TableKey};
//! use nftables::Nftables;
//!
//! let key = TableKey { family: Family::Ip, name: "mine".to_owned() };
//! let mut nftables = Nftables::open()?;
//! nftables.apply(&[
//!     Change::AddTable { table: key.clone(), comment: None },
//!     Change::AddChain { table: key.clone(), chain: "c".to_owned(), base: None, comment: None },
//!     Change::AppendRule { table: key.clone(), chain: "c".to_owned(), rule: "ip saddr 10.0.0.0/8 accept".parse()? },
//! ])?;
//! let listing = nftables.table(&key)?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Start at [`Nftables`]; [`iptables`] runs the programs of iptables where rules must be there.

mod decode;
mod encode;
pub mod iptables;
mod kernel;
mod wire;

pub use encode::EncodeError;
pub use kernel::{ApplyError, Listing, Nftables, Selection};
