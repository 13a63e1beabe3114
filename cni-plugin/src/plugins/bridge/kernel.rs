use std::fmt::Display;
use std::time::Duration;

use cni_types::Code;
use ipnetwork::IpNetwork;
use net_types::IfName;
use netlink::{Netns, NetnsError, RealKernel};
use netstate::{ErrorClass, Kernel, KernelError, LinkScope, Op, Scope, State};

use crate::error::CniError;

/// How long each end of a pair may take to come up (the reference waits 2.55 s in all).
pub(crate) const UP_TIMEOUT: Duration = Duration::from_millis(2550);

/// How long the detection of duplicate addresses may take: up to a second before it begins, and one for the question
/// (RFC 4862 §5.4.2).
pub(crate) const DAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The kernel, or what is there, stands in the way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LinkError {
    #[error("cannot open the kernel's networking")]
    Open(#[source] KernelError),
    #[error("cannot observe {place}")]
    Observe {
        place: String,
        #[source]
        source: KernelError,
    },
    #[error("cannot {op} in {place}")]
    Apply {
        op: Box<Op>,
        place: String,
        #[source]
        source: KernelError,
    },
    #[error("cannot enter the container's network namespace")]
    Enter(#[source] NetnsError),
    #[error("the interface does not come up")]
    Port(#[source] KernelError),
    #[error("interface {ifname:?} already exists in {netns:?}; remove it or choose another name")]
    Exists { ifname: String, netns: String },
    #[error(
        "host interface {veth:?} of container {container} already exists, in use by another namespace; \
         detach it by DEL first"
    )]
    Attached { veth: String, container: String },
    #[error("{0:?} already exists but is not a bridge; remove it or choose another bridge")]
    NotABridge(String),
    #[error("host interfaces {0} belong to others; remove one of them")]
    NamesTaken(String),
    #[error(
        "failed to set bridge addr: {link:?} already has an IP address different from {wanted}: {}; \
         remove that, or set forceAddress",
        list(found)
    )]
    Address {
        link: String,
        wanted: String,
        found: Vec<IpNetwork>,
    },
    #[error(
        "failed to set bridge addr: {link:?} already has an IP address different from {wanted}: {}, and {} \
         interfaces that may use it are attached ({}); delete their pods (drain the node), or set forceAddress",
        list(found), ports.len(), list(ports)
    )]
    AddressInUse {
        link: String,
        wanted: String,
        found: Vec<IpNetwork>,
        ports: Vec<IfName>,
    },
    #[error(
        "bridge {0:?} cannot tell VLANs apart: this kernel is built without CONFIG_BRIDGE_VLAN_FILTERING; \
         remove the keys vlan and vlanTrunk, or boot another kernel"
    )]
    NoVlans(String),
    #[error("cannot set the VLANs of {link:?}")]
    Vlan {
        link: String,
        #[source]
        source: KernelError,
    },
    #[error("cannot switch promiscuous mode of {bridge:?} on")]
    Promiscuous {
        bridge: String,
        #[source]
        source: KernelError,
    },
    #[error("an address cannot be used")]
    Duplicate(#[source] KernelError),
    #[error("cannot lock the host's bridges")]
    LockFile(#[source] statefile::Error),
    #[error("another call keeps the host's bridges locked; try again")]
    BridgesBusy,
    #[error("the kernel's networking changes too fast: {0} attempts failed")]
    Unsettled(u32),
}

impl CniError for LinkError {
    fn code(&self) -> Code {
        match self {
            Self::Open(_)
            | Self::Observe { .. }
            | Self::Apply { .. }
            | Self::Port(_)
            | Self::NoVlans(_)
            | Self::Vlan { .. }
            | Self::Promiscuous { .. } => Code::KERNEL,
            Self::Enter(_) => Code::BAD_NETNS,
            Self::Exists { .. }
            | Self::Attached { .. }
            | Self::NotABridge(_)
            | Self::NamesTaken(_)
            | Self::Address { .. }
            | Self::AddressInUse { .. }
            | Self::Duplicate(_) => Code::CONFLICT,
            Self::LockFile(_) => Code::IO,
            Self::BridgesBusy | Self::Unsettled(_) => Code::TRY_LATER,
        }
    }
}

/// The first few of a list, for a message.
pub(crate) fn list<T: Display>(items: &[T]) -> String {
    const SHOWN: usize = 5;
    let mut texts: Vec<_> = items.iter().take(SHOWN).map(ToString::to_string).collect();
    if items.len() > SHOWN {
        texts.push("…".to_owned());
    }
    texts.join(", ")
}

/// A scope of links of which only the attributes matter.
pub(crate) fn links_only<'a>(names: impl IntoIterator<Item = &'a IfName>) -> Scope {
    let links = names.into_iter().map(|name| (name.clone(), LinkScope::default()));
    Scope {
        links: links.collect(),
        ..Scope::default()
    }
}

/// Observes, naming the place in the error.
pub(crate) fn observe(kernel: &mut RealKernel, scope: &Scope, place: &str) -> Result<State, LinkError> {
    kernel.observe(scope).map_err(|source| LinkError::Observe {
        place: place.to_owned(),
        source,
    })
}

/// Removes a link; one that is gone is fine.
pub(crate) fn remove_link(kernel: &mut RealKernel, name: &IfName, place: &str) -> Result<(), LinkError> {
    let op = Op::DelLink(name.clone());
    let result = kernel.apply(std::slice::from_ref(&op)).pop();
    match result {
        Some(Err(source)) if source.class != ErrorClass::NoDevice => Err(refused(&op, place, source)),
        Some(Ok(()) | Err(_)) | None => Ok(()),
    }
}

/// The error for a change that the kernel refused.
pub(crate) fn refused(op: &Op, place: &str, source: KernelError) -> LinkError {
    LinkError::Apply {
        op: Box::new(op.clone()),
        place: place.to_owned(),
        source,
    }
}

/// Runs a closure in a namespace.
pub(crate) fn inside<T>(netns: &Netns, work: impl FnOnce() -> Result<T, LinkError>) -> Result<T, LinkError> {
    netns.run(work).map_err(LinkError::Enter)?
}
