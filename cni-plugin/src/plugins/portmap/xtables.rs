//! The rules in iptables on the real kernel, by its programs: made where the node's other rules of iptables are, and
//! removed wherever they are.

use std::collections::BTreeSet;

use cni_types::{ContainerId, NetworkName};
use net_types::registry::PORTMAP_DNAT_CHAIN;
use netstate::iptables::{IptablesFamily, IptablesTable};

use super::attachment::IpFamily;
use super::iptables::{self, TABLE, Wanted};
use super::rules::Outcome;
use crate::plugins::netfilter::{self, FAMILIES, NetfilterError};

/// Makes the rules of a container so, in both families.
pub(crate) fn reach(all: &[(IpFamily, Wanted)], outcome: &mut Outcome) -> Result<(), NetfilterError> {
    let mut nftables = netfilter::open_if_present()?;
    for (family, wanted) in all {
        let family = of_iptables(*family);
        let programs = if wanted.is_empty() {
            netfilter::iptables_with(nftables.as_mut(), family, TABLE, wanted.chain())?
        } else {
            let programs = netfilter::iptables_for_chain(nftables.as_mut(), family, TABLE, wanted.chain())?;
            vec![programs]
        };
        for iptables in programs {
            outcome.changed |= netfilter::settle_iptables(&iptables, TABLE, |table| {
                let flows = wanted.found_udp_destinations(table);
                outcome.udp_destinations.extend(flows);
                wanted.changes(table)
            })?;
        }
    }
    Ok(())
}

/// Removes the rules of a network's containers but those that are valid, in both families.
pub(crate) fn gc(network: &NetworkName, valid: &BTreeSet<ContainerId>) -> Result<(), NetfilterError> {
    let mut nftables = netfilter::open_if_present()?;
    for family in FAMILIES {
        let all = netfilter::iptables_with(nftables.as_mut(), family, TABLE, PORTMAP_DNAT_CHAIN)?;
        for iptables in all {
            netfilter::settle_iptables(&iptables, TABLE, |table| {
                iptables::gc_changes(table, network, valid)
            })?;
        }
    }
    Ok(())
}

/// The table with the rules of a container; `None` if none has its chain.
pub(crate) fn table(family: IpFamily, wanted: &Wanted) -> Result<Option<IptablesTable>, NetfilterError> {
    let mut nftables = netfilter::open_if_present()?;
    let family = of_iptables(family);
    for iptables in netfilter::iptables_with(nftables.as_mut(), family, TABLE, wanted.chain())? {
        let table = iptables.save(TABLE).map_err(NetfilterError::Iptables)?;
        if table.chains.contains_key(wanted.chain()) {
            return Ok(Some(table));
        }
    }
    Ok(None)
}

/// Fails unless the programs of both families are there.
pub(crate) fn usable() -> Result<(), NetfilterError> {
    let mut nftables = netfilter::open_if_present()?;
    for family in FAMILIES {
        netfilter::iptables_for(nftables.as_mut(), family)?;
    }
    Ok(())
}

const fn of_iptables(family: IpFamily) -> IptablesFamily {
    match family {
        IpFamily::V4 => IptablesFamily::V4,
        IpFamily::V6 => IptablesFamily::V6,
    }
}
