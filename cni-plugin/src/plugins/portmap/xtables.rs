//! The rules in iptables on the real kernel, by its programs.
//!
//! Rules are made with the variant that the administrator chose, and removed from both. Which of them holds any is
//! found out without a program: nf_tables is asked for a chain, and the kernel names the legacy tables that exist.

use std::collections::BTreeSet;
use std::fs;

use cni_types::{Code, ContainerId, NetworkName};
use net_types::registry::PORTMAP_DNAT_CHAIN;
use netlink::netfilter::is_absent;
use netstate::KernelError;
use netstate::iptables::{IptablesFamily, IptablesTable, Restore, RestoreError};
use netstate::nft::{Family, TableKey};
use nftables::Nftables;
use nftables::iptables::{Iptables, IptablesError, Variant};

use super::attachment::IpFamily;
use super::iptables::{self, TABLE, Wanted};
use super::rules::Outcome;
use crate::error::CniError;

/// How often rules are read and changed anew that others change at the same time.
const ATTEMPTS: u32 = 10;

/// Why rules in iptables could not be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum XtablesError {
    #[error("cannot ask nf_tables for rules of iptables")]
    Look(#[source] KernelError),
    #[error("cannot use iptables")]
    Find(#[source] IptablesError),
    #[error("cannot read the rules of iptables")]
    Read(#[source] IptablesError),
    #[error("cannot change the rules of iptables")]
    Change(#[source] IptablesError),
    #[error("cannot write a change for iptables")]
    Write(#[source] RestoreError),
}

impl CniError for XtablesError {
    fn code(&self) -> Code {
        match self {
            Self::Look(_) | Self::Find(_) | Self::Read(_) | Self::Change(_) => Code::KERNEL,
            Self::Write(_) => Code::BAD_CONFIG,
        }
    }
}

/// Makes the rules of a container so, in both families.
pub(crate) fn reach(all: &[(IpFamily, Wanted)], outcome: &mut Outcome) -> Result<(), XtablesError> {
    for (family, wanted) in all {
        let variants = if wanted.is_empty() {
            holders(*family, wanted.chain())?
        } else {
            vec![Variant::Default]
        };
        for variant in variants {
            outcome.changed |= change(*family, variant, |table| {
                outcome
                    .udp_destinations
                    .extend(wanted.found_udp_destinations(table));
                wanted.changes(table)
            })?;
        }
    }
    Ok(())
}

/// Removes the rules of a network's containers but those that are valid, in both families.
pub(crate) fn gc(network: &NetworkName, valid: &BTreeSet<ContainerId>) -> Result<(), XtablesError> {
    for family in IpFamily::BOTH {
        for variant in holders(family, PORTMAP_DNAT_CHAIN)? {
            change(family, variant, |table| {
                iptables::gc_changes(table, network, valid)
            })?;
        }
    }
    Ok(())
}

/// The table with the rules of a family.
pub(crate) fn table(family: IpFamily) -> Result<IptablesTable, XtablesError> {
    let iptables = find(family, Variant::Default)?;
    iptables.save(TABLE).map_err(XtablesError::Read)
}

/// Fails unless the programs of both families are there.
pub(crate) fn usable() -> Result<(), XtablesError> {
    for family in IpFamily::BOTH {
        find(family, Variant::Default)?;
    }
    Ok(())
}

/// Makes the changes that follow from what a table holds; tells whether there were any.
fn change(
    family: IpFamily,
    variant: Variant,
    mut changes_of: impl FnMut(&IptablesTable) -> Result<Restore, RestoreError>,
) -> Result<bool, XtablesError> {
    let iptables = find(family, variant)?;
    let mut refused: Option<(Restore, IptablesError)> = None;
    for _ in 0..ATTEMPTS {
        let table = iptables.save(TABLE).map_err(XtablesError::Read)?;
        let changes = changes_of(&table).map_err(XtablesError::Write)?;
        if changes.is_empty() {
            return Ok(refused.is_some());
        }
        if let Some((before, error)) = refused.take()
            && before == changes
        {
            return Err(XtablesError::Change(error));
        }
        match iptables.restore(&changes) {
            Ok(()) => return Ok(true),
            // Another may have changed the rules since they were read; then the next changes are others.
            Err(error) => refused = Some((changes, error)),
        }
    }
    match refused {
        Some((_, error)) => Err(XtablesError::Change(error)),
        None => Ok(false),
    }
}

/// The programs of a variant; where only the plain names exist they are of the one that is in use.
fn find(family: IpFamily, variant: Variant) -> Result<Iptables, XtablesError> {
    let family = match family {
        IpFamily::V4 => IptablesFamily::V4,
        IpFamily::V6 => IptablesFamily::V6,
    };
    let found = Iptables::find(family, variant).or_else(|_| Iptables::find(family, Variant::Default));
    found.map_err(XtablesError::Find)
}

/// The variants that may hold a chain of a family.
fn holders(family: IpFamily, chain: &str) -> Result<Vec<Variant>, XtablesError> {
    let mut holders = Vec::new();
    if is_in_nftables(family, chain).map_err(XtablesError::Look)? {
        holders.push(Variant::Nft);
    }
    let names = match family {
        IpFamily::V4 => "/proc/thread-self/net/ip_tables_names",
        IpFamily::V6 => "/proc/thread-self/net/ip6_tables_names",
    };
    // A kernel without legacy iptables has no such file.
    let legacy = fs::read_to_string(names).unwrap_or_default();
    if legacy.lines().any(|name| name == TABLE) {
        holders.push(Variant::Legacy);
    }
    Ok(holders)
}

fn is_in_nftables(family: IpFamily, chain: &str) -> Result<bool, KernelError> {
    let key = TableKey {
        family: match family {
            IpFamily::V4 => Family::Ip,
            IpFamily::V6 => Family::Ip6,
        },
        name: TABLE.to_owned(),
    };
    match Nftables::open().and_then(|mut nftables| nftables.has_chain(&key, chain)) {
        Err(e) if is_absent(e.class) => Ok(false),
        found => found,
    }
}
