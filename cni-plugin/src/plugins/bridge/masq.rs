//! The key `ipMasq`: what containers send to addresses outside their own networks carries the host's address.
//!
//! The rules are in nf_tables where the kernel has it, else in iptables; `ipMasqBackend` overrules this. The reference
//! prefers iptables and means to change that. Nothing is lost by it here: a packet's source is translated once, by the
//! first table that does, and what one table accepts another still translates, so the rules need not be where
//! others' are. They need no program, and are removed by handle.

mod iptables;
mod nft;

use cni_types::{Code, NetworkName, Target};
use ipnetwork::IpNetwork;
use netstate::iptables::JumpRule;
use netstate::nft::Rule;

use super::guards::OtherInterfaces;
use crate::context::Attachments;
use crate::error::CniError;
use crate::plugins::netfilter::{self, Backend, FAMILIES, NetfilterError, Until};

/// Masquerading is not as it shall be.
#[derive(Debug, thiserror::Error)]
pub(super) enum MasqError {
    #[error("cannot masquerade")]
    Netfilter(#[source] NetfilterError),
    #[error("masquerading is incomplete: table {table} lacks \"{rule}\"", table = nft::table(), rule = .0)]
    MissingNft(Rule),
    #[error("masquerading is incomplete: iptables lacks \"-A {} {}\"", .0.chain, .0.rule)]
    MissingIptables(JumpRule),
}

impl CniError for MasqError {
    fn code(&self) -> Code {
        match self {
            Self::Netfilter(error) => error.code(),
            Self::MissingNft(_) | Self::MissingIptables(_) => Code::CHECK_FAILED,
        }
    }
}

impl From<NetfilterError> for MasqError {
    fn from(error: NetfilterError) -> Self {
        Self::Netfilter(error)
    }
}

/// Masquerades what these addresses of an attachment send.
pub(super) fn setup(
    backend: Option<Backend>,
    network: &NetworkName,
    target: &Target,
    addresses: &[IpNetwork],
) -> Result<(), MasqError> {
    let mut nftables = netfilter::open_if_present()?;
    if backend != Some(Backend::Iptables)
        && let Some(nftables) = &mut nftables
    {
        let made = netfilter::settle(nftables, &nft::table(), Until::Made, |found| {
            nft::setup(found, network, target, addresses)
        });
        match made {
            // A kernel may have nf_tables without translation.
            Err(_) if backend.is_none() && !nftables.is_available() => {}
            made => return Ok(made?),
        }
    } else if backend == Some(Backend::Nftables) {
        netfilter::open()?;
    }
    for (family, addresses) in netfilter::by_family(addresses) {
        let programs = netfilter::iptables_for(nftables.as_mut(), family)?;
        netfilter::settle_iptables(&programs, iptables::TABLE, |table| {
            iptables::setup(table, network, &target.container_id, &addresses)
        })?;
    }
    Ok(())
}

/// Removes what is an attachment's, in every back end. The chain in iptables is the container's, and stays while
/// other interfaces of it use it.
pub(super) fn teardown(
    network: &NetworkName,
    target: &Target,
    others: OtherInterfaces,
) -> Result<(), MasqError> {
    let mut nftables = netfilter::open_if_present()?;
    if let Some(nftables) = &mut nftables {
        netfilter::settle(nftables, &nft::table(), Until::Made, |found| {
            found.map_or_else(Vec::new, |found| nft::teardown(found, network, target))
        })?;
    }
    if others == OtherInterfaces::Some {
        return Ok(());
    }
    let chain = iptables::chain_name(network, &target.container_id);
    let chains = [chain.clone()].into();
    for family in FAMILIES {
        let all = netfilter::iptables_with(nftables.as_mut(), family, iptables::TABLE, &chain)?;
        for programs in all {
            netfilter::settle_iptables(&programs, iptables::TABLE, |table| {
                iptables::teardown(table, &chains)
            })?;
        }
    }
    Ok(())
}

/// Removes what is of a network's attachments that are not valid.
pub(super) fn gc(network: &NetworkName, valid: &Attachments) -> Result<(), MasqError> {
    let mut nftables = netfilter::open_if_present()?;
    if let Some(nftables) = &mut nftables {
        netfilter::settle(nftables, &nft::table(), Until::Made, |found| {
            found.map_or_else(Vec::new, |found| nft::gc(found, network, &valid.0))
        })?;
    }
    for family in FAMILIES {
        let table = iptables::TABLE;
        let all = netfilter::iptables_with_any(nftables.as_mut(), family, table, iptables::is_chain)?;
        for programs in all {
            netfilter::settle_iptables(&programs, table, |found| {
                let ids = valid.0.iter().map(|target| &target.container_id);
                iptables::teardown(found, &iptables::stale(found, network, ids))
            })?;
        }
    }
    Ok(())
}

/// Fails unless all rules for these addresses are there, in either back end.
pub(super) fn check(
    network: &NetworkName,
    target: &Target,
    addresses: &[IpNetwork],
) -> Result<(), MasqError> {
    let mut nftables = netfilter::open_if_present()?;
    let found = match &mut nftables {
        Some(nftables) => netfilter::read(nftables, &nft::table())?,
        None => None,
    };
    let Some(missing) = nft::missing(found.as_ref(), network, target, addresses) else {
        return Ok(());
    };
    let chain = iptables::chain_name(network, &target.container_id);
    for (family, addresses) in netfilter::by_family(addresses) {
        let programs = netfilter::iptables_with(nftables.as_mut(), family, iptables::TABLE, &chain)?;
        let Some(programs) = programs.first() else {
            return Err(MasqError::MissingNft(missing));
        };
        let table = programs.save(iptables::TABLE).map_err(NetfilterError::Iptables)?;
        if let Some(rule) = iptables::missing(&table, network, &target.container_id, &addresses) {
            return Err(MasqError::MissingIptables(rule));
        }
    }
    Ok(())
}
