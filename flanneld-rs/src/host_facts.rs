//! What the daemon must know of its host: the interface that carries the outer packets.

use flannel_types::NetConf;
use net_types::IfName;
use netlink::RealKernel;
use netstate::KernelError;
use tracing::warn;

use crate::config::{ChecksumOffload, Config};
use crate::desired::is_former_device;
use crate::iface_match::{self, External, Families, IfaceError};
use crate::kernel_version::KernelVersion;
use crate::node::{HostLinks, Settings};

/// Why the external interface is not known.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HostFactsError {
    /// The kernel could not be asked.
    #[error("cannot list the interfaces of this host")]
    Unobservable(#[source] KernelError),
    /// No interface fits.
    #[error(transparent)]
    NoInterface(#[from] IfaceError),
}

impl HostFactsError {
    /// Whether it may be otherwise soon, without anybody correcting the daemon's flags.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Unobservable(_) => false,
            Self::NoInterface(err) => err.may_pass(),
        }
    }
}

/// Chooses the external interface as the flags say.
///
/// # Errors
/// The kernel cannot be asked, or no interface fits.
pub fn external(
    kernel: &mut RealKernel,
    config: &Config,
    conf: &NetConf,
) -> Result<External, HostFactsError> {
    let inventory = kernel.inventory().map_err(HostFactsError::Unobservable)?;
    let can_reach = match config.iface.can_reach {
        Some(destination) => kernel
            .route_get(destination)
            .map_err(HostFactsError::Unobservable)?,
        None => None,
    };
    Ok(iface_match::choose(
        &config.iface,
        config.public,
        families(conf),
        &inventory,
        can_reach.as_ref(),
    )?)
}

/// The links with names of devices of flannel's.
///
/// # Errors
/// The kernel cannot be asked.
pub fn former_devices(kernel: &mut RealKernel) -> Result<Vec<IfName>, HostFactsError> {
    let inventory = kernel.inventory().map_err(HostFactsError::Unobservable)?;
    let names = inventory.links.into_iter().map(|link| link.name);
    Ok(names.filter(is_former_device).collect())
}

/// The links of this host. An address that only the loopback link has is on none: no other host reaches it.
///
/// # Errors
/// The kernel cannot be asked.
pub fn links() -> Result<HostLinks, KernelError> {
    let inventory = RealKernel::open()?.inventory()?;
    let mut found = HostLinks::default();
    for link in inventory.links {
        for held in &link.addrs {
            let holders = found.addrs.entry(held.addr.ip()).or_default();
            holders.extend((!link.loopback).then(|| link.name.clone()));
        }
        found.mtus.insert(link.name, link.mtu_bytes);
    }
    Ok(found)
}

/// Whether VXLAN devices may leave checksums to the hardware; `None` leaves them as they are.
#[must_use]
pub fn tx_checksum(choice: ChecksumOffload, settings: &Settings) -> Option<bool> {
    match choice {
        ChecksumOffload::On => Some(true),
        ChecksumOffload::Off => Some(false),
        ChecksumOffload::Auto => {
            let version = KernelVersion::running().filter(|version| version.spoils_checksums());
            let version = version.filter(|_| settings.has_vxlan())?;
            warn!(
                kernel = %version,
                "this kernel spoils checksums of tunnelled packets that are translated twice: the VXLAN device computes \
                 its own, which costs throughput; --vxlan-checksum-offload=on if its distributor has mended that"
            );
            Some(false)
        }
    }
}

const fn families(conf: &NetConf) -> Families {
    Families {
        v4: conf.enable_ipv4,
        v6: conf.enable_ipv6,
    }
}
