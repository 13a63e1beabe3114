//! ICMP echo from the calling thread's network namespace.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, socket,
};

/// How patiently targets are pinged.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How often a target is asked before it counts as unreachable.
    pub tries: u8,
    /// How long each answer may take.
    pub timeout: Duration,
}

impl Patience {
    /// For a matrix: the first packets may be lost to address resolution, or to a route that is just being made.
    pub const MATRIX: Self = Self {
        tries: 3,
        timeout: Duration::from_secs(1),
    };
    /// For measuring when traffic is back: one quick try.
    pub const PROBE: Self = Self {
        tries: 1,
        timeout: Duration::from_millis(10),
    };
}

/// How long a missing answer holds up the next request; one after the other, the round-trip times hold no queueing.
const PACE: Duration = Duration::from_millis(10);
/// ICMP types (RFC 792).
const ECHO_REQUEST: u8 = 8;
const ECHO_REPLY: u8 = 0;

/// Tells the answers to one call from those to another in the same namespace.
static NEXT_ID: AtomicU16 = AtomicU16::new(1);

/// Pings every target, and returns each one's round-trip time, or `None` where no answer came at any try.
///
/// # Errors
/// Fails when no raw socket can be had; an unreachable target is no error.
pub fn ping_all(targets: &[Ipv4Addr], patience: Patience) -> Result<Vec<Option<Duration>>> {
    let mut round_trips = vec![None; targets.len()];
    let mut sender = Sender::new()?;
    for _ in 0..patience.tries {
        let missing = round_trips
            .iter()
            .zip(targets)
            .enumerate()
            .filter(|(_, (rtt, _))| rtt.is_none());
        let missing: Vec<_> = missing.map(|(index, (_, target))| (index, *target)).collect();
        if missing.is_empty() {
            break;
        }
        for (index, rtt) in sender.round(&missing, patience.timeout)? {
            if let Some(slot) = round_trips.get_mut(index) {
                *slot = Some(rtt);
            }
        }
    }
    Ok(round_trips)
}

struct Sender {
    socket: OwnedFd,
    id: u16,
    sequence: u16,
}

/// A request on its way: the target's index, its address and the time of sending.
type Waiting = BTreeMap<u16, (usize, Ipv4Addr, Instant)>;

impl Sender {
    fn new() -> Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp);
        let socket = socket.context("opening a raw socket for pings")?;
        Ok(Self {
            socket,
            id: NEXT_ID.fetch_add(1, Ordering::Relaxed),
            sequence: 0,
        })
    }

    /// Sends one request to each target, paced, and collects the answers until all are there or the time is up.
    fn round(&mut self, targets: &[(usize, Ipv4Addr)], timeout: Duration) -> Result<Vec<(usize, Duration)>> {
        let mut waiting = Waiting::new();
        let mut answers = Vec::new();
        for (index, target) in targets {
            self.sequence = self.sequence.wrapping_add(1);
            let request = echo_request(self.id, self.sequence);
            let sent_at = Instant::now();
            let address = SockaddrIn::from(SocketAddrV4::new(*target, 0));
            // A refusal (no route, no buffer) is an answer that will not come: the next try may fare better.
            if sendto(self.socket.as_raw_fd(), &request, &address, MsgFlags::empty()).is_ok() {
                waiting.insert(self.sequence, (*index, *target, sent_at));
            }
            while waiting.contains_key(&self.sequence) && sent_at.elapsed() < PACE {
                self.receive(&mut waiting, &mut answers, sent_at + PACE)?;
            }
        }
        let end = Instant::now() + timeout;
        while !waiting.is_empty() && Instant::now() < end {
            self.receive(&mut waiting, &mut answers, end)?;
        }
        let refused = targets.len() > answers.len() + waiting.len();
        if refused {
            std::thread::sleep(end.saturating_duration_since(Instant::now()));
        }
        Ok(answers)
    }

    /// Waits for packets until a point in time at the latest, and takes in what has come.
    fn receive(
        &self,
        waiting: &mut Waiting,
        answers: &mut Vec<(usize, Duration)>,
        until: Instant,
    ) -> Result<()> {
        let mut ready = [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)];
        let left = until.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        match poll(
            &mut ready,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(err) => return Err(err).context("waiting for ping answers"),
        }
        let mut packet = [0; 256];
        loop {
            let length = match recv(self.socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Ok(length) => length,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(err) => return Err(err).context("receiving ping answers"),
            };
            let now = Instant::now();
            let Some(reply) = packet.get(..length).and_then(parse_reply) else {
                continue;
            };
            let expected = waiting
                .get(&reply.sequence)
                .filter(|(_, target, _)| *target == reply.source);
            if let Some((index, _, sent_at)) = expected.filter(|_| reply.id == self.id) {
                answers.push((*index, now.duration_since(*sent_at)));
                waiting.remove(&reply.sequence);
            }
        }
    }
}

/// An echo request without data (RFC 792): type, code, checksum, identifier, sequence number.
fn echo_request(id: u16, sequence: u16) -> [u8; 8] {
    let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
    let sum = u32::from(u16::from_be_bytes([ECHO_REQUEST, 0])) + u32::from(id) + u32::from(sequence);
    // The carry is added back (RFC 1071); that may carry once more.
    let folded = (sum & 0xffff) + (sum >> 16);
    let [_, _, high, low] = (!(folded + (folded >> 16))).to_be_bytes();
    [ECHO_REQUEST, 0, high, low, a, b, c, d]
}

#[derive(Debug, PartialEq, Eq)]
struct Reply {
    source: Ipv4Addr,
    id: u16,
    sequence: u16,
}

/// Reads an echo reply with its IPv4 header (RFC 791 §3.1), as a raw socket delivers it.
fn parse_reply(packet: &[u8]) -> Option<Reply> {
    let header_length = usize::from(packet.first()? & 0x0f) * 4;
    let source: [u8; 4] = packet.get(12..16)?.try_into().ok()?;
    match packet.get(header_length..)? {
        [ECHO_REPLY, 0, _, _, a, b, c, d, ..] => Some(Reply {
            source: source.into(),
            id: u16::from_be_bytes([*a, *b]),
            sequence: u16::from_be_bytes([*c, *d]),
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_request_adds_up_to_all_ones() {
        for (id, sequence) in [
            (0, 0),
            (1, 1),
            (0xffff, 0xffff),
            (0x1234, 0xf800),
            (0x0800, 0xf000),
        ] {
            let request = echo_request(id, sequence);
            let words = request
                .chunks(2)
                .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
            let sum: u32 = words.sum();
            assert_eq!(
                (sum & 0xffff) + (sum >> 16),
                0xffff,
                "id {id:#x} sequence {sequence:#x}"
            );
        }
    }

    #[test]
    fn a_reply_is_read_behind_a_header_with_options() {
        let mut packet = vec![0; 24];
        packet[0] = 0x46;
        packet[12..16].copy_from_slice(&[10, 244, 1, 2]);
        packet.extend([ECHO_REPLY, 0, 0, 0, 0x12, 0x34, 0, 7]);
        let expected = Reply {
            source: Ipv4Addr::new(10, 244, 1, 2),
            id: 0x1234,
            sequence: 7,
        };
        assert_eq!(parse_reply(&packet), Some(expected));
    }

    #[test]
    fn a_packet_cut_short_is_no_reply() {
        let packet = [
            0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2, ECHO_REPLY, 0, 0, 0, 0, 1, 0,
            1,
        ];
        assert!(parse_reply(&packet).is_some());
        for length in 0..packet.len() {
            assert_eq!(parse_reply(&packet[..length]), None, "{length} bytes");
        }
    }
}
