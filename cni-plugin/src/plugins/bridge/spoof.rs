//! The key `macspoofchk`: a container sends with its own hardware address or not at all.

mod rules;

use cni_types::{Code, NetworkName, Target};
use net_types::{IfName, MacAddr};

use self::rules::Names;
use crate::context::Attachments;
use crate::error::CniError;
use crate::plugins::netfilter::{self, NetfilterError, Until};

/// The rules of an attachment are not as they shall be, or cannot be.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpoofError {
    #[error("container id {0} is too long for the name of a packet filter's chain, which macspoofchk needs")]
    TooLong(String),
    #[error(
        "macspoofchk: the rules that let only {mac} pass from {interface:?} are not as they were made; \
         the container may be cut off"
    )]
    Incomplete { interface: IfName, mac: MacAddr },
    #[error("cannot guard against forged hardware addresses")]
    Netfilter(#[source] NetfilterError),
}

impl CniError for SpoofError {
    fn code(&self) -> Code {
        match self {
            Self::TooLong(_) => Code::BAD_CONFIG,
            Self::Incomplete { .. } => Code::CHECK_FAILED,
            Self::Netfilter(error) => error.code(),
        }
    }
}

/// Lets only frames with this address pass from an attachment's host interface.
pub(super) fn setup(target: &Target, interface: &IfName, mac: MacAddr) -> Result<(), SpoofError> {
    let names = Names::of(target);
    if !names.are_possible() {
        return Err(SpoofError::TooLong(target.container_id.as_str().to_owned()));
    }
    let mut nftables = netfilter::open().map_err(SpoofError::Netfilter)?;
    netfilter::settle(&mut nftables, &rules::table(), Until::Made, |found| {
        rules::setup(found, &names, interface, mac)
    })
    .map_err(SpoofError::Netfilter)
}

/// Removes the rules of an attachment.
pub(super) fn teardown(target: &Target) -> Result<(), SpoofError> {
    remove(&[Names::of(target)])
}

/// Removes the rules of a network's attachments that are not valid.
pub(super) fn gc(network: &NetworkName, valid: &Attachments) -> Result<(), SpoofError> {
    let Some(mut nftables) = netfilter::open_if_present().map_err(SpoofError::Netfilter)? else {
        return Ok(());
    };
    let found = netfilter::read(&mut nftables, &rules::table()).map_err(SpoofError::Netfilter)?;
    let stale = found.map_or_else(Vec::new, |found| rules::stale(&found, network, &valid.0));
    remove(&stale)
}

/// Fails unless the rules are there, whole.
pub(super) fn check(target: &Target, interface: &IfName, mac: MacAddr) -> Result<(), SpoofError> {
    let mut nftables = netfilter::open().map_err(SpoofError::Netfilter)?;
    let found = netfilter::read(&mut nftables, &rules::table()).map_err(SpoofError::Netfilter)?;
    let names = Names::of(target);
    if found.is_some_and(|found| rules::is_complete(&found, &names, interface, mac)) {
        return Ok(());
    }
    let interface = interface.clone();
    Err(SpoofError::Incomplete { interface, mac })
}

fn remove(all: &[Names]) -> Result<(), SpoofError> {
    if all.is_empty() {
        return Ok(());
    }
    let Some(mut nftables) = netfilter::open_if_present().map_err(SpoofError::Netfilter)? else {
        return Ok(());
    };
    netfilter::settle(&mut nftables, &rules::table(), Until::Made, |found| {
        let found = found.into_iter();
        found
            .flat_map(|found| all.iter().flat_map(|names| rules::teardown(found, names)))
            .collect()
    })
    .map_err(SpoofError::Netfilter)
}
