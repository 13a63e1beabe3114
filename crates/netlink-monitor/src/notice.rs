use std::net::IpAddr;

use net_types::{IfIndex, IfName, MacAddr};
use netstate::RouteKey;

use crate::pending::Lossy;

/// Where kernel networking changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Notice {
    /// Notices were lost, or the connection was: anything may have changed.
    Lost,
    /// A link appeared, changed or went.
    Link {
        /// Its number.
        index: IfIndex,
        /// Its name at that time.
        name: IfName,
        /// Whether it is there.
        presence: Presence,
    },
    /// An address of a link was added, changed or removed.
    Addr {
        /// The link.
        link: IfIndex,
        /// The address.
        ip: IpAddr,
    },
    /// A route of the main table was added, replaced or removed.
    Route {
        /// The link that it leads or led through. `None` when it has several or none, and when it replaced another
        /// one, which may have led through any.
        link: Option<IfIndex>,
        /// Which one. In place of several of equal table, destination and metric only one can be.
        key: RouteKey,
    },
    /// A neighbour or forwarding entry changed.
    Neigh {
        /// The link.
        link: IfIndex,
        /// Which one.
        entry: NeighEntry,
        /// How.
        change: NeighChange,
    },
}

/// Whether a link is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Presence {
    /// It is.
    Present,
    /// It was removed, or moved to another namespace.
    Gone,
}

/// A neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeighEntry {
    /// The neighbour (ARP, NDP) of an address.
    Neigh(IpAddr),
    /// A forwarding entry (bridge, VXLAN) of a hardware address.
    Fdb(MacAddr),
}

/// What happened to a neighbour entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeighChange {
    /// A permanent entry was added or altered.
    Permanent,
    /// An entry was removed.
    Removed,
    /// An entry is, or became, one that the kernel keeps as it likes. Reported only for links that are watched closely
    /// ([`crate::Monitor::watch_closely`]).
    Transient,
}

impl Lossy for Notice {
    const LOST: Self = Self::Lost;
}
