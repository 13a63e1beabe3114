//! What the daemon must know of its host: the interface that carries the outer packets.

use std::net::{IpAddr, Ipv4Addr};

use net_types::IfName;
use netlink::RealKernel;
use netlink::inventory::Inventory;
use netstate::KernelError;

use crate::config::Config;
use crate::iface_match::{self, IfaceError};

/// The interface that carries the outer packets, and this node's addresses on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct External {
    /// Its name.
    pub link: IfName,
    /// Its MTU in bytes.
    pub mtu_bytes: u32,
    /// The outer source address, one that the interface holds.
    pub local: Ipv4Addr,
    /// The address at which peers reach this node.
    pub public_ip: Ipv4Addr,
}

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

/// Chooses the external interface as the flags say.
///
/// # Errors
/// The kernel cannot be asked, or no interface fits.
pub fn external(kernel: &mut RealKernel, config: &Config) -> Result<External, HostFactsError> {
    let inventory = kernel.inventory().map_err(HostFactsError::Unobservable)?;
    let can_reach = match config.iface.can_reach {
        Some(destination) => kernel
            .route_get(destination)
            .map_err(HostFactsError::Unobservable)?,
        None => None,
    };
    let chosen = iface_match::choose(&config.iface, config.public_ip, &inventory, can_reach.as_ref())?;
    let local = if holds(&inventory, &chosen.ifname, chosen.public_ip) {
        chosen.public_ip
    } else {
        chosen.ip
    };
    Ok(External {
        link: chosen.ifname,
        mtu_bytes: chosen.mtu_bytes,
        local,
        public_ip: chosen.public_ip,
    })
}

fn holds(inventory: &Inventory, name: &IfName, ip: Ipv4Addr) -> bool {
    let mut link = inventory.links.iter().filter(|link| link.name == *name);
    link.any(|link| link.addrs.iter().any(|addr| addr.addr.ip() == IpAddr::V4(ip)))
}
