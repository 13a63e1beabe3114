use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use net_types::IfIndex;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

use crate::notice::{Notice, Pending};
use crate::read::notices;

/// The multicast groups (linux `include/uapi/linux/rtnetlink.h`, `RTNLGRP_*`): links, neighbours, addresses, routes.
const GROUPS: [u32; 6] = [
    libc::RTNLGRP_LINK,
    libc::RTNLGRP_NEIGH,
    libc::RTNLGRP_IPV4_IFADDR,
    libc::RTNLGRP_IPV4_ROUTE,
    libc::RTNLGRP_IPV6_IFADDR,
    libc::RTNLGRP_IPV6_ROUTE,
];

/// Size of the receive queue: some thousands of notices, each about 1 KiB with the kernel's overhead.
const RECEIVE_QUEUE_BYTES: usize = 4 << 20;

/// Longest datagram that is received; a notice is one message of at most a few KiB.
const DATAGRAM_MAX_BYTES: usize = 64 << 10;

/// How many datagrams are read before others have their turn.
const DATAGRAMS_PER_TURN: u32 = 256;

/// First and longest pause before a broken connection is opened again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A connection that hears of changes to links, addresses, routes of the main table, and permanent neighbours, in the
/// network namespace of the thread that opens it.
pub struct Monitor {
    connection: Connection,
    datagram: Vec<u8>,
    pending: Pending,
    close: BTreeSet<IfIndex>,
}

/// The connection cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen to the kernel's network changes")]
pub struct MonitorError(#[source] io::Error);

enum Connection {
    Open(AsyncFd<Socket>),
    Broken { retry_at: Instant, pause: Duration },
}

impl Monitor {
    /// Opens the connection; from then on no change goes unnoticed. It belongs to the tokio runtime that it is opened
    /// in, which must have I/O and time enabled.
    ///
    /// # Errors
    /// There is no socket to be had, or it cannot join the kernel's groups.
    pub fn open() -> Result<Self, MonitorError> {
        Ok(Self {
            connection: Connection::Open(connect().map_err(MonitorError)?),
            datagram: Vec::with_capacity(DATAGRAM_MAX_BYTES),
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
            match &self.connection {
                Connection::Open(_) => {
                    if self.receive().await.is_err() {
                        self.break_off(PAUSE_MIN);
                    }
                }
                Connection::Broken { retry_at, pause } => {
                    let pause = *pause;
                    sleep_until(*retry_at).await;
                    self.reconnect(pause);
                }
            }
        }
    }

    /// Takes a notice that is there already, without waiting.
    pub fn try_next(&mut self) -> Option<Notice> {
        self.pending.take()
    }

    /// Waits until something can be read, and reads it, up to a turn's worth.
    async fn receive(&mut self) -> io::Result<()> {
        let Connection::Open(socket) = &self.connection else {
            return Ok(());
        };
        let mut ready = socket.readable().await?;
        for _ in 0..DATAGRAMS_PER_TURN {
            self.datagram.clear();
            let received = ready.try_io(|socket| socket.get_ref().recv(&mut self.datagram, libc::MSG_TRUNC));
            match received {
                Err(_would_block) => break,
                Ok(Ok(len)) => {
                    let whole = len == self.datagram.len()
                        && notices(&self.datagram, &self.close, |notice| self.pending.add(notice));
                    if !whole {
                        self.pending.lose();
                    }
                }
                Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => self.pending.lose(),
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Err(e),
            }
        }
        Ok(())
    }

    fn break_off(&mut self, pause: Duration) {
        self.connection = Connection::Broken {
            retry_at: Instant::now() + pause,
            pause,
        };
    }

    fn reconnect(&mut self, pause: Duration) {
        match connect() {
            Ok(socket) => {
                self.connection = Connection::Open(socket);
                self.pending.lose();
            }
            Err(_) => self.break_off((pause * 2).min(PAUSE_MAX)),
        }
    }
}

fn connect() -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(NETLINK_ROUTE)?;
    // The forced size is not bound by net.core.rmem_max, but needs CAP_NET_ADMIN; a mere listener does without.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_QUEUE_BYTES).is_err() {
        socket.set_rx_buf_sz(i32::try_from(RECEIVE_QUEUE_BYTES).unwrap_or(i32::MAX))?;
    }
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in GROUPS {
        socket.add_membership(group)?;
    }
    register(socket)
}

#[expect(
    deprecated,
    reason = "its successor is the same but unsafe, and demands a descriptor that is owned, as this socket's is"
)]
fn register(socket: Socket) -> io::Result<AsyncFd<Socket>> {
    AsyncFd::with_interest(socket, Interest::READABLE)
}

#[cfg(test)]
mod tests;
