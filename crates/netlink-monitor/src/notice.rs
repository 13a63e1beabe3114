use net_types::{IfIndex, IfName};

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
    },
    /// A route of the main table was added, replaced or removed.
    Route {
        /// The link that it leads or led through. `None` when it has several or none, and when it replaced another
        /// one, which may have led through any.
        link: Option<IfIndex>,
    },
    /// A neighbour or forwarding entry changed.
    Neigh {
        /// The link.
        link: IfIndex,
        /// Which of its tables.
        table: NeighTable,
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

/// A table of neighbour entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum NeighTable {
    /// Neighbours (ARP, NDP).
    Neigh,
    /// Forwarding entries (bridge, VXLAN).
    Fdb,
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
