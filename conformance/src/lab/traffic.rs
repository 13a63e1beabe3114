//! Traffic that is counted: a steady stream both ways, and connections whose far end says whom it sees.

use std::collections::BTreeSet;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::thread::{self, JoinHandle, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use super::namespaces::Namespaces;
use super::wait::wait_until;

/// Each stream has a port of its own, the same at both ends, so that it is one connection to whoever tracks connections.
/// A socket that is closed can be held for a moment by a process that is just being started.
static NEXT_PORT: AtomicU16 = AtomicU16::new(9000);
/// What each processor did with packets.
const SOFTNET: &str = "/proc/net/softnet_stat";
/// Between two packets of a stream in one direction.
const STREAM_INTERVAL: Duration = Duration::from_millis(1);
/// How long packets on their way may take to arrive after the last was sent.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// How long threads wait in the kernel before they look whether to end.
const TURN_MILLIS: i64 = 20;
/// How long a connection may take: longer than the second after which its first packet is sent again.
const CONNECT_LIMIT: Duration = Duration::from_secs(4);
/// How long the first packet of a stream may take on a busy machine.
const ESTABLISH_LIMIT: Duration = Duration::from_secs(60);
/// A packet that is not counted.
const FIRST: [u8; 1] = [0];
/// Room for what arrives while the machine is busy elsewhere, in bytes: some ten thousand packets.
const RECEIVE_BUFFER: usize = 8 << 20;
/// Between two connections.
const CONNECT_INTERVAL: Duration = Duration::from_millis(2);

/// One end of a stream.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Where it is.
    pub namespaces: &'a Namespaces,
    /// The address that the other end sends to.
    pub address: IpAddr,
}

/// What became of the packets of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// How many were sent, or could not be.
    pub sent: usize,
    /// How many came through.
    pub arrived: usize,
}

impl Count {
    /// How many were lost.
    #[must_use]
    pub fn lost(self) -> usize {
        self.sent.saturating_sub(self.arrived)
    }
}

/// Sends a packet each millisecond both ways all through some action, and returns how many there and back came through.
///
/// # Errors
/// Fails when there are no sockets to be had.
pub fn stream_during<T>(near: End<'_>, far: End<'_>, action: impl FnOnce() -> T) -> Result<(T, [Count; 2])> {
    let port = NEXT_PORT.fetch_add(1, Ordering::Relaxed);
    let (near_socket, far_socket) = (stream_socket(near, far, port)?, stream_socket(far, near, port)?);
    establish(&near_socket, &far_socket)?;
    let (stop, done) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let _ends_all = [SetAtEnd(&stop), SetAtEnd(&done)];
        let senders = [&near_socket, &far_socket].map(|socket| scope.spawn(|| send(socket, &stop)));
        let receivers = [&far_socket, &near_socket].map(|socket| scope.spawn(|| receive(socket, &done)));
        let result = action();
        stop.store(true, Ordering::Relaxed);
        let [there_sent, back_sent] = senders.map(joined);
        thread::sleep(STRAGGLERS);
        done.store(true, Ordering::Relaxed);
        let [there_arrived, back_arrived] = receivers.map(joined);
        let there = Count {
            sent: there_sent?,
            arrived: there_arrived?,
        };
        let back = Count {
            sent: back_sent?,
            arrived: back_arrived?,
        };
        Ok((result, [there, back]))
    })
}

/// Tells threads to end, also when what they accompany panics: the scope would wait for them for ever.
#[derive(Debug)]
pub struct SetAtEnd<'a>(pub &'a AtomicBool);

impl Drop for SetAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// How many packets this machine has dropped because its processors were too busy to take them from their queues: the
/// second number of each line (linux `net/core/net-procfs.c`, `softnet_seq_show`).
///
/// # Errors
/// Fails when the kernel's count cannot be read.
pub fn dropped_when_busy() -> Result<usize> {
    let text = fs::read_to_string(SOFTNET).with_context(|| format!("reading {SOFTNET}"))?;
    let dropped = text.lines().map(|line| {
        let number = line.split_whitespace().nth(1).unwrap_or_default();
        usize::from_str_radix(number, 16).with_context(|| format!("reading {line:?} of {SOFTNET}"))
    });
    dropped.sum()
}

fn joined(thread: ScopedJoinHandle<'_, usize>) -> Result<usize> {
    thread
        .join()
        .map_err(|_| anyhow!("a thread of a stream panicked"))
}

fn stream_socket(own: End<'_>, other: End<'_>, port: u16) -> Result<UdpSocket> {
    own.namespaces.run(|| {
        let socket = UdpSocket::bind((own.address, port)).context("opening a stream")?;
        socket
            .connect((other.address, port))
            .context("opening a stream")?;
        let turn = Duration::from_millis(TURN_MILLIS.unsigned_abs());
        socket.set_read_timeout(Some(turn)).context("limiting a wait")?;
        setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).context("making room for packets")?;
        Ok(socket)
    })
}

/// Sends from one end until it arrives, and then from the other: whoever tracks connections drops one of two packets that
/// open the same connection at once.
fn establish(near: &UdpSocket, far: &UdpSocket) -> Result<()> {
    for (from, to) in [(near, far), (far, near)] {
        wait_until("the first packet of a stream", ESTABLISH_LIMIT, || {
            // A refusal is a packet that does not arrive.
            from.send(&FIRST).ok();
            Ok(to.recv(&mut [0; FIRST.len()]).is_ok())
        })?;
    }
    Ok(())
}

fn send(socket: &UdpSocket, stop: &AtomicBool) -> usize {
    let mut next = Instant::now();
    let mut sent: usize = 0;
    while !stop.load(Ordering::Relaxed) {
        // A refusal is a packet that does not arrive.
        socket.send(&sent.to_be_bytes()).ok();
        sent += 1;
        // What was missed while the machine was busy elsewhere is not made up for: that would be a burst.
        next = (next + STREAM_INTERVAL).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    sent
}

/// The number of different packets that arrive until there are no more.
fn receive(socket: &UdpSocket, done: &AtomicBool) -> usize {
    let mut seen = BTreeSet::new();
    let mut packet = [0; size_of::<usize>()];
    loop {
        match socket.recv(&mut packet) {
            Ok(length) if length == packet.len() => drop(seen.insert(packet)),
            // What has come before the end counts, also if this thread did not have its turn for long.
            Err(err) if err.kind() == ErrorKind::WouldBlock && done.load(Ordering::Relaxed) => break,
            // One of the first packets, the end of a turn, or a message about a packet that did not arrive.
            Ok(_) | Err(_) => {}
        }
    }
    seen.len()
}

/// A listener that tells whoever connects the address that it sees.
#[derive(Debug)]
pub struct Mirror {
    address: SocketAddrV4,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Mirror {
    /// Starts to listen at an address of the namespace.
    ///
    /// # Errors
    /// Fails when the address is not one of the namespace's.
    pub fn start(namespaces: &Namespaces, address: Ipv4Addr) -> Result<Self> {
        let listener = namespaces.run(|| TcpListener::bind((address, 0)).context("listening"))?;
        let limit = TimeVal::milliseconds(TURN_MILLIS);
        setsockopt(&listener, sockopt::ReceiveTimeout, &limit).context("limiting a wait")?;
        let port = listener.local_addr().context("listening")?.port();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            while !flag.load(Ordering::Relaxed) {
                if let Ok((mut stream, peer)) = listener.accept() {
                    // Who has hung up does not want to know.
                    stream.write_all(peer.ip().to_string().as_bytes()).ok();
                }
            }
        });
        Ok(Self {
            address: SocketAddrV4::new(address, port),
            stop,
            thread: Some(thread),
        })
    }

    /// Connects from a namespace and returns the address that is seen here.
    ///
    /// # Errors
    /// Fails when the connection does.
    pub fn sees(&self, from: &Namespaces) -> Result<IpAddr> {
        from.run(|| self.ask())
    }

    /// Connects again and again from a namespace all through some action, and returns what was seen each time.
    ///
    /// # Errors
    /// Fails when the namespace cannot be entered.
    pub fn sees_during<T>(
        &self,
        from: &Namespaces,
        action: impl FnOnce() -> T,
    ) -> Result<(T, Vec<Result<IpAddr>>)> {
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let _ends_all = SetAtEnd(&stop);
            let asker = scope.spawn(|| {
                from.run(|| {
                    let mut answers = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        answers.push(self.ask());
                        thread::sleep(CONNECT_INTERVAL);
                    }
                    Ok(answers)
                })
            });
            let result = action();
            stop.store(true, Ordering::Relaxed);
            let answers = asker
                .join()
                .map_err(|_| anyhow!("the thread that connects panicked"))??;
            Ok((result, answers))
        })
    }

    fn ask(&self) -> Result<IpAddr> {
        let address = SocketAddr::V4(self.address);
        let mut stream = TcpStream::connect_timeout(&address, CONNECT_LIMIT)
            .with_context(|| format!("connecting to {address}"))?;
        stream
            .set_read_timeout(Some(CONNECT_LIMIT))
            .context("limiting a wait")?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .context("reading whom a listener sees")?;
        answer
            .parse()
            .with_context(|| format!("reading whom a listener sees in {answer:?}"))
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic would have been a failed answer already.
            thread.join().ok();
        }
    }
}
