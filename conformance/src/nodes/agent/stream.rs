use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};

use super::echo::ECHO;
use super::exchange::datagram_socket;
use super::server::make_room;
use crate::nodes::protocol::Counted;

/// How long the receiver waits before it looks whether to end.
const TURN: Duration = Duration::from_millis(20);
/// How long packets on their way may take after the last one was sent, in intervals between two: who sends seldom is slow.
const STRAGGLERS: u32 = 500;
/// Room for what arrives while the machine is busy elsewhere, in bytes.
const RECEIVE_BUFFER: usize = 8 << 20;
/// How often the first packet is sent, a turn each.
const FIRST_TRIES: u16 = 250;

/// The streams that run.
#[derive(Default)]
pub(super) struct Streams(Mutex<BTreeMap<u64, Stream>>);

struct Stream {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<u64>,
    receiver: JoinHandle<(u64, Duration)>,
}

/// Opens a stream's socket in the calling thread's network namespace, over which a first packet came back.
///
/// # Errors
/// Fails when none comes back.
pub(super) fn open(target: SocketAddr) -> Result<UdpSocket> {
    let socket = datagram_socket(target)?;
    socket.set_read_timeout(Some(TURN)).context("limiting a wait")?;
    make_room(&socket, RECEIVE_BUFFER)?;
    for _ in 0..FIRST_TRIES {
        // A refusal is a packet that does not come back.
        if socket.send(&[ECHO]).is_ok() && socket.recv(&mut [0; 16]).is_ok() {
            return Ok(socket);
        }
    }
    bail!("no first packet of a stream came back from {target}")
}

impl Streams {
    /// Starts a stream, with this long between two packets.
    ///
    /// # Errors
    /// Fails when the process has no descriptor left.
    pub(super) fn start(&self, number: u64, socket: UdpSocket, interval: Duration) -> Result<()> {
        let stop = Arc::new(AtomicBool::new(false));
        let sending = socket.try_clone().context("duplicating a socket")?;
        let (stop_sender, stop_receiver) = (Arc::clone(&stop), Arc::clone(&stop));
        let stream = Stream {
            sender: thread::spawn(move || send(&sending, interval, &stop_sender)),
            receiver: thread::spawn(move || receive(&socket, interval * STRAGGLERS, &stop_receiver)),
            stop,
        };
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(number, stream);
        Ok(())
    }

    /// Ends a stream, and counts.
    ///
    /// # Errors
    /// Fails when there is none of this number.
    pub(super) fn stop(&self, number: u64) -> Result<Counted> {
        let stream = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&number);
        let stream = stream.context("there is no such stream")?;
        stream.stop.store(true, Ordering::Relaxed);
        let panicked = || anyhow!("a thread of a stream panicked");
        let sent = stream.sender.join().map_err(|_| panicked())?;
        let (answered, longest_gap) = stream.receiver.join().map_err(|_| panicked())?;
        Ok(Counted {
            sent,
            answered,
            longest_gap,
        })
    }
}

fn send(socket: &UdpSocket, interval: Duration, stop: &AtomicBool) -> u64 {
    let (mut next, mut sent) = (Instant::now(), 0_u64);
    while !stop.load(Ordering::Relaxed) {
        let mut packet = [ECHO; 9];
        packet
            .iter_mut()
            .skip(1)
            .zip(sent.to_be_bytes())
            .for_each(|(old, new)| *old = new);
        // A refusal is a packet that does not come back.
        socket.send(&packet).ok();
        sent += 1;
        // What was missed while the machine was busy elsewhere is not made up for: that would be a burst.
        next = (next + interval).max(Instant::now());
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    sent
}

/// The number of different packets that come back, and the longest time in which none did.
fn receive(socket: &UdpSocket, stragglers: Duration, stop: &AtomicBool) -> (u64, Duration) {
    let (mut seen, mut packet) = (BTreeSet::new(), [0; 9]);
    let (mut last, mut longest, mut ends) = (Instant::now(), Duration::ZERO, None);
    loop {
        let received = socket.recv(&mut packet);
        if stop.load(Ordering::Relaxed) && ends.is_none() {
            // A wait that was just for the end is no gap.
            if last.elapsed() > 2 * TURN {
                longest = longest.max(last.elapsed());
            }
            ends = Some(Instant::now() + stragglers);
        }
        match received {
            Ok(length) if length == packet.len() => {
                if ends.is_none() {
                    longest = longest.max(last.elapsed());
                    last = Instant::now();
                }
                seen.insert(packet);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                if ends.is_some_and(|ends| Instant::now() >= ends) {
                    return (seen.len() as u64, longest);
                }
            }
            // The answer to the first packet, or a message about a packet that did not arrive.
            Ok(_) | Err(_) => {}
        }
    }
}
