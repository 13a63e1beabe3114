//! A multicast connection of any protocol: it outlives its socket, and tells what it has missed.

use std::io;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// Size of the receive queue: some thousands of notices, each about 1 KiB with the kernel's overhead.
const RECEIVE_QUEUE_BYTES: usize = 4 << 20;

/// Longest datagram that is received; a notice is one message of at most a few KiB, or some of them.
const DATAGRAM_MAX_BYTES: usize = 64 << 10;

/// How many datagrams are read before others have their turn.
const DATAGRAMS_PER_TURN: u32 = 256;

/// First and longest pause before a broken connection is opened again.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The connection cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen to the kernel's network changes")]
pub struct MonitorError(#[source] io::Error);

/// What a connection listens to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Groups {
    /// The netlink protocol.
    pub(crate) protocol: isize,
    /// Its multicast groups.
    pub(crate) groups: &'static [u32],
}

/// Whether everything that the kernel told was heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub(crate) enum Heard {
    Everything,
    NotEverything,
}

pub(crate) struct Listener {
    groups: Groups,
    connection: Connection,
    datagram: Vec<u8>,
}

enum Connection {
    Open(AsyncFd<Socket>),
    Broken { retry_at: Instant, pause: Duration },
}

impl Listener {
    /// Opens the connection; from then on no change goes unnoticed.
    pub(crate) fn open(groups: Groups) -> Result<Self, MonitorError> {
        Ok(Self {
            groups,
            connection: Connection::Open(connect(groups).map_err(MonitorError)?),
            datagram: Vec::with_capacity(DATAGRAM_MAX_BYTES),
        })
    }

    /// Waits until something can be read, and hands on each datagram, up to a turn's worth. It may be dropped while it
    /// waits without losing one.
    ///
    /// `each` says whether it could read the datagram. A connection that breaks is opened again, with growing pauses,
    /// and has then not heard everything.
    pub(crate) async fn listen(&mut self, each: impl FnMut(&[u8]) -> Heard) -> Heard {
        match &self.connection {
            Connection::Open(_) => match self.receive(each).await {
                Ok(heard) => heard,
                Err(_) => {
                    self.break_off(PAUSE_MIN);
                    Heard::Everything
                }
            },
            Connection::Broken { retry_at, pause } => {
                let pause = *pause;
                sleep_until(*retry_at).await;
                self.reconnect(pause)
            }
        }
    }

    async fn receive(&mut self, mut each: impl FnMut(&[u8]) -> Heard) -> io::Result<Heard> {
        let mut heard = Heard::Everything;
        let Connection::Open(socket) = &self.connection else {
            return Ok(heard);
        };
        let mut ready = socket.readable().await?;
        for _ in 0..DATAGRAMS_PER_TURN {
            self.datagram.clear();
            let received = ready.try_io(|socket| socket.get_ref().recv(&mut self.datagram, libc::MSG_TRUNC));
            match received {
                Err(_would_block) => break,
                Ok(Ok(len)) => {
                    let whole = len == self.datagram.len() && each(&self.datagram) == Heard::Everything;
                    if !whole {
                        heard = Heard::NotEverything;
                    }
                }
                Ok(Err(e)) if e.raw_os_error() == Some(libc::ENOBUFS) => heard = Heard::NotEverything,
                Ok(Err(e)) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(e)) => return Err(e),
            }
        }
        Ok(heard)
    }

    fn break_off(&mut self, pause: Duration) {
        self.connection = Connection::Broken {
            retry_at: Instant::now() + pause,
            pause,
        };
    }

    fn reconnect(&mut self, pause: Duration) -> Heard {
        match connect(self.groups) {
            Ok(socket) => {
                self.connection = Connection::Open(socket);
                Heard::NotEverything
            }
            Err(_) => {
                self.break_off((pause * 2).min(PAUSE_MAX));
                Heard::Everything
            }
        }
    }
}

fn connect(groups: Groups) -> io::Result<AsyncFd<Socket>> {
    let mut socket = Socket::new(groups.protocol)?;
    // The forced size is not bound by net.core.rmem_max, but needs CAP_NET_ADMIN; a mere listener does without.
    if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_QUEUE_BYTES).is_err() {
        socket.set_rx_buf_sz(i32::try_from(RECEIVE_QUEUE_BYTES).unwrap_or(i32::MAX))?;
    }
    socket.set_non_blocking(true)?;
    socket.bind(&SocketAddr::new(0, 0))?;
    for group in groups.groups {
        socket.add_membership(*group)?;
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
mod tests {
    use netlink_sys::protocols::NETLINK_ROUTE;

    use super::*;

    #[test]
    fn a_broken_connection_is_opened_again_and_has_not_heard_everything() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let groups = Groups {
                protocol: NETLINK_ROUTE,
                groups: &[libc::RTNLGRP_LINK],
            };
            let mut listener = Listener::open(groups).unwrap();
            let before = Instant::now();
            listener.break_off(PAUSE_MIN);

            assert_eq!(listener.listen(|_| Heard::Everything).await, Heard::NotEverything);

            assert!(before.elapsed() >= PAUSE_MIN);
            assert!(matches!(listener.connection, Connection::Open(_)));
        });
    }
}
