//! The kernel's side: makes, verifies and removes the rules of containers, and what goes with them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use cni_types::{Code, ContainerId, NetworkName};
use netlink::RealKernel;
use netlink::conntrack::{Conntrack, OriginalDestination};
use netlink::netfilter::is_absent;
use netstate::nft::Rule;
use netstate::{Kernel, KernelError, Op, Scope, SysctlKey};
use nftables::{Listing, Nftables};

use super::attachment::{Attachment, IpFamily};
use super::conf::Backend;
use super::iptables;
use super::nft::{self, ConditionError, Found};
use super::xtables;
use crate::error::CniError;
use crate::plugins::netfilter::{self, NetfilterError, Until};

/// Why rules could not be made, found or removed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RulesError {
    #[error("{0}")]
    Condition(ConditionError),
    #[error(transparent)]
    Netfilter(NetfilterError),
    #[error("the kernel has no nftables with address translation; set backend to iptables")]
    NoNftables,
    #[error("port mapping: chain {chain:?} lacks the rule \"{rule}\"")]
    MissingRule { chain: String, rule: String },
    #[error("port mapping: there is no chain {0:?} that packets come to")]
    MissingChain(String),
    #[error("cannot let packets from 127.0.0.1 reach {address}")]
    Localhost {
        address: IpAddr,
        #[source]
        source: KernelError,
    },
    #[error("cannot forget tracked UDP flows")]
    Flows(#[source] KernelError),
}

impl CniError for RulesError {
    fn code(&self) -> Code {
        match self {
            Self::Condition(_) => Code::BAD_CONFIG,
            Self::Localhost { .. } | Self::Flows(_) => Code::KERNEL,
            Self::NoNftables => Code::KERNEL,
            Self::Netfilter(error) => error.code(),
            Self::MissingRule { .. } | Self::MissingChain(_) => Code::CHECK_FAILED,
        }
    }
}

/// Where rules of a container are looked for that should not be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Look {
    /// New: none were made before these, which go to this back end.
    New(Backend),
    /// Only in this back end.
    Own(Backend),
    /// Where some should be.
    Wanted,
    /// In both.
    Everywhere,
}

/// What the rules of a container should be, and only these.
#[derive(Debug)]
pub(crate) struct Goal {
    nft: Vec<nft::Wanted>,
    iptables: Vec<(IpFamily, iptables::Wanted)>,
}

/// What was found on the way to a goal.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Whether anything had to be changed.
    pub(crate) changed: bool,
    /// Where the UDP flows went that led to the container before.
    pub(crate) udp_destinations: BTreeSet<OriginalDestination>,
}

impl Goal {
    /// The rules of a container's attachments. In iptables they are those of one network, as its chains are.
    pub(crate) fn of(
        network: &NetworkName,
        container_id: &ContainerId,
        attachments: &[Attachment],
    ) -> Result<Self, RulesError> {
        let with = |backend| {
            attachments
                .iter()
                .filter(move |attachment| attachment.backend == backend)
        };
        let in_nft: Vec<_> = with(Backend::Nftables).collect();
        let in_iptables = with(Backend::Iptables).filter(|attachment| attachment.network == *network);
        let in_iptables: Vec<_> = in_iptables.collect();
        let nft = IpFamily::BOTH.map(|family| nft::Wanted::of(container_id, &in_nft, family));
        let nft: Result<_, _> = nft.into_iter().collect();
        let iptables = IpFamily::BOTH.map(|family| {
            let wanted = iptables::Wanted::of(network, container_id, &in_iptables, family);
            (family, wanted)
        });
        Ok(Self {
            nft: nft.map_err(RulesError::Condition)?,
            iptables: iptables.into(),
        })
    }

    /// Makes the rules so.
    pub(crate) fn reach(&self, look: Look) -> Result<Outcome, RulesError> {
        let mut outcome = Outcome::default();
        let in_nft = match look {
            Look::New(backend) | Look::Own(backend) => backend == Backend::Nftables,
            Look::Wanted => self.nft.iter().any(|wanted| !wanted.is_empty()),
            Look::Everywhere => true,
        };
        if in_nft {
            let has_rules = !matches!(look, Look::New(_));
            self.reach_in_nft(has_rules, &mut outcome)?;
        }
        let in_iptables = match look {
            Look::New(backend) | Look::Own(backend) => backend == Backend::Iptables,
            Look::Wanted => self.iptables.iter().any(|(_, wanted)| !wanted.is_empty()),
            Look::Everywhere => true,
        };
        if in_iptables {
            xtables::reach(&self.iptables, &mut outcome).map_err(RulesError::Netfilter)?;
        }
        Ok(outcome)
    }

    fn reach_in_nft(&self, has_rules: bool, outcome: &mut Outcome) -> Result<(), RulesError> {
        let Some(mut nftables) = open()? else {
            let is_wanted = self.nft.iter().any(|wanted| !wanted.is_empty());
            return if is_wanted {
                Err(RulesError::NoNftables)
            } else {
                Ok(())
            };
        };
        let keys: Vec<_> = self.nft.iter().map(nft::Wanted::table).collect();
        // One container's comment is the same in both families.
        let selection = self.nft.first().map(|wanted| wanted.selection(has_rules));
        let selection = selection.unwrap_or_default();
        let read = |nftables: &mut Nftables, key: &_| netfilter::read_part(nftables, key, &selection);
        let changed = netfilter::settle_all(&mut nftables, &keys, Until::Made, read, |listings| {
            let mut changes = Vec::new();
            for (wanted, listing) in self.nft.iter().zip(listings) {
                let found = found(listing.as_ref());
                let flows = wanted.found_udp_destinations(found);
                outcome.udp_destinations.extend(flows);
                changes.extend(wanted.changes(found));
            }
            changes
        });
        outcome.changed |= changed.map_err(RulesError::Netfilter)?;
        Ok(())
    }

    /// Fails unless all the rules are there.
    pub(crate) fn verify(&self) -> Result<(), RulesError> {
        if self.nft.iter().any(|wanted| !wanted.is_empty()) {
            let mut nftables = open()?.ok_or(RulesError::NoNftables)?;
            for wanted in &self.nft {
                let listing = read(&mut nftables, wanted)?;
                if let Some((chain, rule)) = wanted.missing(found(listing.as_ref())) {
                    return Err(missing(chain, rule));
                }
            }
        }
        for (family, wanted) in self.iptables.iter().filter(|(_, wanted)| !wanted.is_empty()) {
            let table = xtables::table(*family, wanted).map_err(RulesError::Netfilter)?;
            let table = table.ok_or_else(|| RulesError::MissingChain(wanted.chain().to_owned()))?;
            if let Some((chain, rule)) = wanted.missing(&table) {
                return Err(RulesError::MissingRule { chain, rule });
            }
        }
        Ok(())
    }
}

fn missing(chain: String, rule: Option<Rule>) -> RulesError {
    match rule {
        Some(rule) => RulesError::MissingRule {
            chain,
            rule: rule.to_string(),
        },
        None => RulesError::MissingChain(chain),
    }
}

/// Opens nftables; `None` if the kernel has none.
fn open() -> Result<Option<Nftables>, RulesError> {
    netfilter::open_if_present().map_err(RulesError::Netfilter)
}

fn read(nftables: &mut Nftables, wanted: &nft::Wanted) -> Result<Option<Listing>, RulesError> {
    let selection = wanted.selection(true);
    netfilter::read_part(nftables, &wanted.table(), &selection).map_err(RulesError::Netfilter)
}

fn found(listing: Option<&Listing>) -> Option<Found<'_>> {
    listing.map(|listing| Found {
        table: &listing.table,
        handles: &listing.handles,
    })
}

/// Whether the kernel has nf_tables.
pub(crate) fn has_nftables() -> Result<bool, RulesError> {
    Ok(open()?.is_some())
}

/// Fails unless a back end can be used.
pub(crate) fn usable(backend: Backend) -> Result<(), RulesError> {
    match backend {
        Backend::Nftables => match open()?.map(|mut nftables| nftables.is_available()) {
            Some(true) => Ok(()),
            Some(false) | None => Err(RulesError::NoNftables),
        },
        Backend::Iptables => xtables::usable().map_err(RulesError::Netfilter),
    }
}

/// Removes the rules in iptables of a network's containers but those that are valid.
pub(crate) fn gc_iptables(network: &NetworkName, valid: &BTreeSet<ContainerId>) -> Result<(), RulesError> {
    xtables::gc(network, valid).map_err(RulesError::Netfilter)
}

/// Lets packets from 127.0.0.1 leave by the link that leads to a container, so that its mapped ports can be reached
/// there as well; where no link leads to it, nothing can.
pub(crate) fn enable_localhost(address: IpAddr) -> Result<(), RulesError> {
    let failed = |source| RulesError::Localhost { address, source };
    let mut kernel = RealKernel::open().map_err(failed)?;
    let Some(hop) = kernel.route_get(address).map_err(failed)? else {
        return Ok(());
    };
    let key = SysctlKey::of_link("ipv4", &hop.link, "route_localnet");
    let scope = Scope {
        sysctls: BTreeSet::from([key.clone()]),
        ..Scope::default()
    };
    let found = kernel.observe(&scope).map_err(failed)?;
    if found.sysctls.get(&key).is_some_and(|value| value == "1") {
        return Ok(());
    }
    let written = kernel.apply(&[Op::SetSysctl(key, "1".to_owned())]).pop();
    written.unwrap_or(Ok(())).map_err(failed)
}

/// Forgets the UDP flows to mapped ports, so that their next packets follow the rules. A kernel that cannot name
/// its flows has this done by time.
pub(crate) fn flush_udp(destinations: &BTreeSet<OriginalDestination>) -> Result<(), RulesError> {
    if destinations.is_empty() {
        return Ok(());
    }
    match Conntrack::open().and_then(|mut flows| flows.forget_udp(destinations)) {
        Err(e) if is_absent(e.class) => Ok(()),
        Err(e) => Err(RulesError::Flows(e)),
        Ok(_) => Ok(()),
    }
}
