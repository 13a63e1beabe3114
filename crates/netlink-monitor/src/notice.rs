use std::collections::BTreeSet;

use net_types::{IfIndex, IfName};

/// Most notices that wait to be taken; with more, the consumer had better look at everything.
const PENDING_MAX: usize = 1024;

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

/// Notices that wait to be taken: equal ones are merged, and too many become [`Notice::Lost`].
#[derive(Debug, Default)]
pub(crate) struct Pending(BTreeSet<Notice>);

impl Pending {
    pub(crate) fn add(&mut self, notice: Notice) {
        if self.0.contains(&Notice::Lost) {
            return;
        }
        self.0.insert(notice);
        if self.0.len() > PENDING_MAX {
            self.lose();
        }
    }

    /// Everything is to be looked at, which says more than any notice.
    pub(crate) fn lose(&mut self) {
        self.0.clear();
        self.0.insert(Notice::Lost);
    }

    pub(crate) fn take(&mut self) -> Option<Notice> {
        self.0.pop_first()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(link: u32) -> Notice {
        let link = IfIndex::new(link).unwrap();
        Notice::Addr { link }
    }

    #[test]
    fn equal_notices_are_merged() {
        let mut pending = Pending::default();
        for link in [1, 2, 1, 2, 1] {
            pending.add(addr(link));
        }
        assert_eq!(pending.take(), Some(addr(1)));
        assert_eq!(pending.take(), Some(addr(2)));
        assert_eq!(pending.take(), None);
    }

    #[test]
    fn a_loss_replaces_what_waits_and_what_comes_until_it_is_taken() {
        let mut pending = Pending::default();
        pending.add(addr(1));
        pending.lose();
        pending.add(addr(2));
        assert_eq!(pending.take(), Some(Notice::Lost));
        assert_eq!(pending.take(), None);
        pending.add(addr(3));
        assert_eq!(pending.take(), Some(addr(3)));
    }

    #[test]
    fn too_many_notices_become_a_loss() {
        let mut pending = Pending::default();
        for link in 1..=u32::try_from(PENDING_MAX).unwrap() {
            pending.add(addr(link));
        }
        assert_eq!(pending.0.len(), PENDING_MAX);
        pending.add(addr(u32::MAX));
        assert_eq!(pending.take(), Some(Notice::Lost));
        assert_eq!(pending.take(), None);
    }
}
