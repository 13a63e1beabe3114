use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd;
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, socket,
};

use super::start::{LIMIT, PAUSE};

/// ICMP echo request and reply (RFC 792), with an identifier of our own and its checksum (RFC 1071).
const REQUEST: [u8; 8] = [8, 0, 0xa4, 0xfe, 0x53, 0x01, 0, 0];
const REPLY: u8 = 0;

/// Pings a target ten thousand times a second from the calling thread's network namespace until the first answer, and
/// returns when it came. `begun` is told before the first request.
///
/// # Errors
/// Fails when no answer comes within the limit.
pub(super) fn first_answer(target: Ipv4Addr, begun: &Sender<()>) -> Result<Instant> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Inet, SockType::Raw, flags, SockProtocol::Icmp);
    let socket = socket.context("opening a raw socket for pings")?;
    begun.send(()).context("telling that pinging begins")?;
    let address = SockaddrIn::from(SocketAddrV4::new(target, 0));
    let end = Instant::now() + LIMIT;
    let mut packet = [0; 256];
    while Instant::now() < end {
        // While there is no route, the kernel refuses the request or answers with an error: the next one may fare better.
        sendto(socket.as_raw_fd(), &REQUEST, &address, MsgFlags::empty()).ok();
        thread::sleep(PAUSE);
        loop {
            match recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty()) {
                Ok(length) if is_answer(packet.get(..length).unwrap_or_default(), target) => {
                    return Ok(Instant::now());
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => break,
                Err(err) => return Err(err).context("receiving ping answers"),
            }
        }
    }
    bail!("{target} did not answer within {} s", LIMIT.as_secs())
}

/// Whether an IPv4 packet (RFC 791 §3.1) is the target's reply to our request.
fn is_answer(packet: &[u8], target: Ipv4Addr) -> bool {
    let header_bytes = packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4);
    let (source, icmp) = (packet.get(12..16), packet.get(header_bytes..));
    source == Some(&target.octets()[..])
        && matches!((icmp, REQUEST), (Some([REPLY, 0, _, _, a, b, ..]), [_, _, _, _, c, d, _, _]) if (*a, *b) == (c, d))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_the_request_adds_up_to_all_ones() {
        let words = REQUEST
            .chunks(2)
            .map(|pair| u32::from(pair[0]) * 256 + u32::from(pair[1]));
        let sum: u32 = words.sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
    }

    #[test]
    fn only_the_targets_reply_to_our_request_is_an_answer() {
        let target = Ipv4Addr::new(10, 1, 2, 3);
        let mut packet = vec![0x45; 1];
        packet.resize(12, 0);
        packet.extend([10, 1, 2, 3, 9, 9, 9, 9, REPLY, 0, 1, 1, 0x53, 0x01]);
        assert!(is_answer(&packet, target));
        assert!(!is_answer(&packet, Ipv4Addr::new(10, 1, 2, 4)));
        for length in 0..packet.len() {
            assert!(!is_answer(&packet[..length], target));
        }
        packet[20] = 3;
        assert!(!is_answer(&packet, target));
    }
}
