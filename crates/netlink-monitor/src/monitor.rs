use std::collections::BTreeSet;

use net_types::IfIndex;
use netlink_sys::protocols::NETLINK_ROUTE;
use nix::libc;

use crate::listener::{Groups, Heard, Listener, MonitorError};
use crate::notice::Notice;
use crate::pending::Pending;
use crate::read::notices;

/// The multicast groups (linux `include/uapi/linux/rtnetlink.h`, `RTNLGRP_*`): links, neighbours, addresses, routes.
const GROUPS: Groups = Groups {
    protocol: NETLINK_ROUTE,
    groups: &[
        libc::RTNLGRP_LINK,
        libc::RTNLGRP_NEIGH,
        libc::RTNLGRP_IPV4_IFADDR,
        libc::RTNLGRP_IPV4_ROUTE,
        libc::RTNLGRP_IPV6_IFADDR,
        libc::RTNLGRP_IPV6_ROUTE,
    ],
};

/// A connection that hears of changes to links, addresses, routes of the main table, and permanent neighbours, in the
/// network namespace of the thread that opens it.
pub struct Monitor {
    listener: Listener,
    pending: Pending<Notice>,
    close: BTreeSet<IfIndex>,
}

impl Monitor {
    /// Opens the connection; from then on no change goes unnoticed. It belongs to the tokio runtime that it is opened
    /// in, which must have I/O and time enabled.
    ///
    /// # Errors
    /// There is no socket to be had, or it cannot join the kernel's groups.
    pub fn open() -> Result<Self, MonitorError> {
        Ok(Self {
            listener: Listener::open(GROUPS)?,
            pending: Pending::default(),
            close: BTreeSet::new(),
        })
    }

    /// Names the links on which every change of a neighbour or forwarding entry is reported. On others, entries that
    /// the kernel makes, refreshes and forgets by itself are not: a busy host has thousands of them.
    pub fn watch_closely(&mut self, links: BTreeSet<IfIndex>) {
        self.close = links;
    }

    /// Waits for the next notice. It may be dropped at any time without losing one.
    ///
    /// A connection that breaks is opened again, with growing pauses, and then reported as [`Notice::Lost`].
    pub async fn next(&mut self) -> Notice {
        loop {
            if let Some(notice) = self.pending.take() {
                return notice;
            }
            let Self {
                listener,
                pending,
                close,
            } = self;
            let heard = listener.listen(|datagram| notices(datagram, close, |notice| pending.add(notice)));
            if heard.await == Heard::NotEverything {
                self.pending.lose();
            }
        }
    }

    /// Takes a notice that is there already, without waiting.
    pub fn try_next(&mut self) -> Option<Notice> {
        self.pending.take()
    }
}
