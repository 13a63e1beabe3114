//! Echo requests of a given size that nobody may divide.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, SockaddrIn6, recvfrom, sendto,
    setsockopt, socket, sockopt,
};

use crate::nodes::protocol::Pinged;

/// How often a target is asked: the first packet can be lost to the resolution of addresses.
const TRIES: u16 = 3;
const TIMEOUT: Duration = Duration::from_millis(700);
/// IPv4's header without options (RFC 791 §3.1), IPv6's (RFC 8200 §3), ICMP's for an echo (RFC 792, RFC 4443 §4.1).
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
const ICMP_HEADER: usize = 8;
/// IPv4's flag that forbids routers to divide a packet (RFC 791 §3.1).
const DONT_FRAGMENT: u8 = 0x40;

/// Tells the answers to one thread from those to another.
static NEXT_ID: AtomicU16 = AtomicU16::new(1);

/// What a packet that came in says of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reply {
    Echo { id: u16, sequence: u16 },
    TooBig { id: u16, sequence: u16 },
}

/// The types of messages of one family's ICMP (RFC 792, RFC 4443).
#[derive(Debug, Clone, Copy)]
struct Types {
    request: u8,
    reply: u8,
    /// Type and code of the message that a packet is too big for the next link.
    too_big: [u8; 2],
    /// Of the packet that such a message quotes.
    ip_header: usize,
}

const ICMP4: Types = Types {
    request: 8,
    reply: 0,
    too_big: [3, 4],
    ip_header: IPV4_HEADER,
};
const ICMP6: Types = Types {
    request: 128,
    reply: 129,
    too_big: [2, 0],
    ip_header: IPV6_HEADER,
};

/// Pings every target, one after another, with packets of this size in bytes, IP header included.
///
/// # Errors
/// Fails when no raw socket can be had.
pub(super) fn ping_all(targets: &[IpAddr], size: u16) -> Result<Vec<Pinged>> {
    targets
        .iter()
        .map(|target| match target {
            IpAddr::V4(target) => ping(&Way4::open(*target)?, size),
            IpAddr::V6(target) => ping(&Way6::open(*target)?, size),
        })
        .collect()
}

/// How requests go out and answers come in, in one family.
trait Way {
    const TYPES: Types;
    fn send(&self, message: &[u8]) -> nix::Result<()>;
    fn receiver(&self) -> &OwnedFd;
    /// The ICMP message in what was received, and who sent it.
    fn message<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]>;
}

fn ping(way: &impl Way, size: u16) -> Result<Pinged> {
    let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
    let mut last = Pinged::Silent;
    for sequence in 1..=TRIES {
        last = ping_once(way, id, sequence, size)?;
        if matches!(last, Pinged::Answered(_) | Pinged::TooBig) {
            break;
        }
    }
    Ok(last)
}

fn ping_once<W: Way>(way: &W, id: u16, sequence: u16, size: u16) -> Result<Pinged> {
    let start = Instant::now();
    match way.send(&request(W::TYPES, id, sequence, size)) {
        Ok(()) => {}
        Err(Errno::EMSGSIZE) => return Ok(Pinged::TooBig),
        // A way that is just being made may be there at the next try.
        Err(errno) => {
            std::thread::sleep(TIMEOUT);
            return Ok(Pinged::Refused(errno as i32));
        }
    }
    let mut buffer = vec![0; 1 << 16];
    loop {
        let left = TIMEOUT.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(Pinged::Silent);
        }
        let mut ready = [PollFd::new(way.receiver().as_fd(), PollFlags::POLLIN)];
        match poll(
            &mut ready,
            PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO),
        ) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno).context("waiting for an echo"),
        }
        let received = recvfrom::<SockaddrIn>(way.receiver().as_raw_fd(), &mut buffer);
        let Ok((length, _)) = received else { continue };
        let message = buffer.get(..length).and_then(|packet| way.message(packet));
        match message.and_then(|message| read(W::TYPES, message)) {
            Some(Reply::Echo { id: i, sequence: s }) if (i, s) == (id, sequence) => {
                return Ok(Pinged::Answered(start.elapsed()));
            }
            Some(Reply::TooBig { id: i, sequence: s }) if (i, s) == (id, sequence) => {
                return Ok(Pinged::TooBig);
            }
            Some(_) | None => {}
        }
    }
}

/// An echo request without its checksum that makes a packet of this size, or the smallest one.
fn request(types: Types, id: u16, sequence: u16, size: u16) -> Vec<u8> {
    let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
    let mut message = vec![types.request, 0, 0, 0, a, b, c, d];
    let length = usize::from(size).saturating_sub(types.ip_header);
    message.resize(length.max(ICMP_HEADER), b'x');
    message
}

/// What an ICMP message says, if it is an echo or quotes one.
fn read(types: Types, message: &[u8]) -> Option<Reply> {
    let numbers = |echo: &[u8]| match echo {
        [_, _, _, _, a, b, c, d, ..] => Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d]))),
        _ => None,
    };
    match message {
        [kind, 0, ..] if *kind == types.reply => {
            let (id, sequence) = numbers(message)?;
            Some(Reply::Echo { id, sequence })
        }
        [kind, code, _, _, _, _, _, _, quoted @ ..] if [*kind, *code] == types.too_big => {
            let (id, sequence) = numbers(quoted.get(types.ip_header..)?)?;
            Some(Reply::TooBig { id, sequence })
        }
        _ => None,
    }
}

/// The checksum of the internet (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(u16::from_be_bytes([*high, 0])),
        _ => 0,
    };
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let [_, _, high, low] = (!sum).to_be_bytes();
    [high, low]
}

struct Way4 {
    sender: OwnedFd,
    receiver: OwnedFd,
    target: Ipv4Addr,
}

impl Way4 {
    fn open(target: Ipv4Addr) -> Result<Self> {
        // With this protocol number the header is the sender's to write (raw(7)).
        Ok(Self {
            sender: raw(AddressFamily::Inet, SockProtocol::Raw)?,
            receiver: raw(AddressFamily::Inet, SockProtocol::Icmp)?,
            target,
        })
    }
}

impl Way for Way4 {
    const TYPES: Types = ICMP4;

    fn send(&self, message: &[u8]) -> nix::Result<()> {
        let mut message = message.to_vec();
        let sum = checksum(&message);
        put(&mut message, 2, sum);
        let length = u16::try_from(IPV4_HEADER + message.len()).map_err(|_| Errno::EMSGSIZE)?;
        // Identification, header checksum and source address are filled in by the kernel (raw(7)).
        let mut packet = vec![0; IPV4_HEADER];
        put(&mut packet, 0, [0x45, 0]);
        put(&mut packet, 2, length.to_be_bytes());
        put(&mut packet, 6, [DONT_FRAGMENT, 0]);
        put(&mut packet, 8, [64, 1]);
        put(&mut packet, 16, self.target.octets());
        packet.extend(message);
        let address = SockaddrIn::from(SocketAddrV4::new(self.target, 0));
        sendto(self.sender.as_raw_fd(), &packet, &address, MsgFlags::empty()).map(drop)
    }

    fn receiver(&self) -> &OwnedFd {
        &self.receiver
    }

    fn message<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        packet.get(usize::from(packet.first()? & 0x0f) * 4..)
    }
}

struct Way6 {
    socket: OwnedFd,
    target: Ipv6Addr,
}

impl Way6 {
    fn open(target: Ipv6Addr) -> Result<Self> {
        let socket = raw(AddressFamily::Inet6, SockProtocol::IcmpV6)?;
        setsockopt(&socket, sockopt::Ipv6DontFrag, &true).context("forbidding to divide packets")?;
        Ok(Self { socket, target })
    }
}

impl Way for Way6 {
    const TYPES: Types = ICMP6;

    fn send(&self, message: &[u8]) -> nix::Result<()> {
        // The kernel fills in the checksum, which covers the source address (RFC 3542 §3.1).
        let address = SockaddrIn6::from(SocketAddrV6::new(self.target, 0, 0, 0));
        sendto(self.socket.as_raw_fd(), message, &address, MsgFlags::empty()).map(drop)
    }

    fn receiver(&self) -> &OwnedFd {
        &self.socket
    }

    fn message<'a>(&self, packet: &'a [u8]) -> Option<&'a [u8]> {
        Some(packet)
    }
}

fn raw(family: AddressFamily, protocol: SockProtocol) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    socket(family, SockType::Raw, flags, protocol).context("opening a raw socket")
}

fn put<const N: usize>(bytes: &mut [u8], at: usize, new: [u8; N]) {
    bytes
        .iter_mut()
        .skip(at)
        .zip(new)
        .for_each(|(old, new)| *old = new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_size_that_was_asked_for_and_a_checksum_that_adds_up() {
        for size in [28, 29, 1450, 1500] {
            let mut message = request(ICMP4, 7, 9, size);
            assert_eq!(message.len() + IPV4_HEADER, usize::from(size));
            let sum = checksum(&message);
            put(&mut message, 2, sum);
            assert_eq!(checksum(&message), [0, 0], "{size}");
        }
        assert_eq!(request(ICMP6, 1, 1, 1280).len(), 1240);
        assert_eq!(request(ICMP4, 1, 1, 0).len(), ICMP_HEADER);
    }

    #[test]
    fn echoes_and_complaints_about_the_size_are_told_apart() {
        for types in [ICMP4, ICMP6] {
            let mut echo = request(types, 0x1234, 7, 100);
            assert_eq!(read(types, &echo), None);
            let mut complaint = vec![types.too_big[0], types.too_big[1], 0, 0, 0, 0, 5, 0xaa];
            complaint.extend(vec![0; types.ip_header]);
            complaint.extend(&echo);
            assert_eq!(
                read(types, &complaint),
                Some(Reply::TooBig {
                    id: 0x1234,
                    sequence: 7
                })
            );
            echo[0] = types.reply;
            assert_eq!(
                read(types, &echo),
                Some(Reply::Echo {
                    id: 0x1234,
                    sequence: 7
                })
            );
            for length in 0..ICMP_HEADER {
                assert_eq!(read(types, &echo[..length]), None);
            }
        }
    }
}
