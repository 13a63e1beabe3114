//! As much of rtnetlink as a measurement needs: batches of requests on one socket, and notices.
//!
//! Numbers are those of linux/rtnetlink.h, linux/if_link.h, linux/neighbour.h and linux/netlink.h.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

/// Makes or changes a link.
pub const RTM_NEWLINK: u16 = 16;
/// Deletes a link.
pub const RTM_DELLINK: u16 = 17;
/// Makes an address.
pub const RTM_NEWADDR: u16 = 20;
/// Makes a route; also a notice and an answer.
pub const RTM_NEWROUTE: u16 = 24;
/// A notice: a route is gone.
pub const RTM_DELROUTE: u16 = 25;
/// Asks for routes.
pub const RTM_GETROUTE: u16 = 26;
/// Makes a neighbour or a forwarding entry; also a notice and an answer.
pub const RTM_NEWNEIGH: u16 = 28;
/// A notice: a neighbour or a forwarding entry is gone.
pub const RTM_DELNEIGH: u16 = 29;
/// Asks for neighbours or forwarding entries.
pub const RTM_GETNEIGH: u16 = 30;

/// The flag of every request, `NLM_F_REQUEST`.
pub const REQUEST: u16 = 0x001;
/// The flag of a request that is acknowledged, `NLM_F_ACK`.
pub const ACKNOWLEDGE: u16 = 0x004;
/// The flags, beside [`REQUEST`], of a request for a whole table, `NLM_F_DUMP`.
pub const DUMP: u16 = 0x300;
/// The flags of a request that changes something, `NLM_F_REQUEST | NLM_F_ACK`.
pub const CHANGE: u16 = REQUEST | ACKNOWLEDGE;
/// The flags of a request for a new object, those of [`CHANGE`] and `NLM_F_CREATE | NLM_F_EXCL`.
pub const CREATE: u16 = 0x605;

/// The multicast groups `RTMGRP_NEIGH | RTMGRP_IPV4_ROUTE`.
pub const NEIGHBOURS_AND_ROUTES: u32 = 0x4 | 0x40;

const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const HEADER_BYTES: usize = 16;

/// A netlink socket in the network namespace in which it was opened.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

impl Socket {
    /// Opens a socket that hears some multicast groups, or none.
    ///
    /// # Errors
    /// Fails when the kernel gives no socket.
    pub fn open(groups: u32) -> Result<Self> {
        let protocol = SockProtocol::NetlinkRoute;
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            protocol,
        );
        let fd = fd.context("opening a netlink socket")?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, groups)).context("binding a netlink socket")?;
        Ok(Self { fd })
    }

    /// Sends requests in one batch, each with the flags of [`CHANGE`], and waits until all are acknowledged.
    ///
    /// # Errors
    /// Fails when the kernel refuses one of them.
    pub fn apply(&self, requests: &[Vec<u8>]) -> Result<()> {
        self.send(&requests.concat())?;
        let mut buffer = vec![0; 1 << 16];
        let mut open = requests.len();
        while open > 0 {
            for message in self.receive(&mut buffer)? {
                if message.kind != NLMSG_ERROR {
                    continue;
                }
                message.result()?;
                open = open.saturating_sub(1);
            }
        }
        Ok(())
    }

    /// Sends a batch of which only the last request is acknowledged, and waits until it is.
    ///
    /// # Errors
    /// Fails when the kernel refuses a request; it answers for the first that it does.
    pub fn apply_batch(&self, batch: &[u8]) -> Result<()> {
        self.send(batch)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            for message in self.receive(&mut buffer)? {
                if message.kind == NLMSG_ERROR {
                    return message.result();
                }
            }
        }
    }

    /// Asks for one object; hands on the kernel's answer, which may be a refusal.
    ///
    /// # Errors
    /// Fails when the kernel takes no question or gives no answer.
    pub fn ask(&self, question: &[u8], mut each: impl FnMut(&Message<'_>)) -> Result<()> {
        self.send(question)?;
        let mut buffer = vec![0; 1 << 16];
        self.receive(&mut buffer)?.iter().for_each(&mut each);
        Ok(())
    }

    /// Asks for a table, and hands on each object.
    ///
    /// # Errors
    /// Fails when the kernel refuses.
    pub fn list(&self, question: &[u8], mut each: impl FnMut(&Message<'_>)) -> Result<()> {
        self.send(question)?;
        let mut buffer = vec![0; 1 << 16];
        loop {
            for message in self.receive(&mut buffer)? {
                match message.kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return message.result(),
                    _ => each(&message),
                }
            }
        }
    }

    fn send(&self, batch: &[u8]) -> Result<()> {
        let sent = send(self.fd.as_raw_fd(), batch, MsgFlags::empty()).context("sending to the kernel")?;
        if sent != batch.len() {
            bail!("the kernel took {sent} of {} bytes", batch.len());
        }
        Ok(())
    }

    /// Waits for messages.
    ///
    /// # Errors
    /// Fails when the kernel cannot be heard, also where it had more to say than the socket holds.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Vec<Message<'a>>> {
        let length =
            recv(self.fd.as_raw_fd(), buffer, MsgFlags::empty()).context("receiving from the kernel")?;
        Ok(messages(buffer.get(..length).unwrap_or_default()))
    }

    /// Waits until there is something to receive; `false` when the limit passes first.
    ///
    /// # Errors
    /// Fails when the kernel lets nobody wait.
    pub fn wait(&self, until: Instant) -> Result<bool> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
            let mut ready = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match poll(&mut ready, timeout) {
                Ok(0) if left.is_zero() => return Ok(false),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) => return Ok(true),
                Err(err) => return Err(err).context("waiting for the kernel"),
            }
        }
    }
}

/// A message from the kernel.
#[derive(Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its type.
    pub kind: u16,
    /// What follows its header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// What an answer of the type `NLMSG_ERROR` says.
    fn result(&self) -> Result<()> {
        match self.body.first_chunk().copied().map(i32::from_ne_bytes) {
            Some(0) => Ok(()),
            Some(code) => bail!("the kernel refused: {}", Errno::from_raw(code.saturating_neg())),
            None => bail!("the kernel's answer is cut short"),
        }
    }

    /// The value of an attribute that follows a fixed part of `fixed` bytes; `None` where there is none, or none whole.
    #[must_use]
    pub fn attribute(&self, fixed: usize, wanted: u16) -> Option<&'a [u8]> {
        let mut rest = self.body.get(fixed..)?;
        loop {
            let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
            let kind = u16::from_ne_bytes(*rest.get(2..)?.first_chunk()?);
            if kind == wanted {
                return rest.get(4..length);
            }
            rest = rest.get(length.max(4).next_multiple_of(4)..)?;
        }
    }
}

fn messages(mut bytes: &[u8]) -> Vec<Message<'_>> {
    let mut messages = Vec::new();
    while let Some(length) = bytes.first_chunk().copied().map(u32::from_ne_bytes) {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let kind = bytes
            .get(4..)
            .and_then(<[u8]>::first_chunk)
            .copied()
            .map(u16::from_ne_bytes);
        let (Some(kind), Some(body)) = (kind, bytes.get(HEADER_BYTES..length)) else {
            break;
        };
        messages.push(Message { kind, body });
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    messages
}

/// A request: header, fixed part, attributes.
#[must_use]
pub fn request(kind: u16, flags: u16, fixed: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    let body = [fixed, &attributes.concat()].concat();
    let length = u32::try_from(HEADER_BYTES + body.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence and port: batches are answered in order, on a socket of their own.
    bytes.extend([0; 8]);
    bytes.extend(body);
    bytes
}

/// An attribute, padded to the next multiple of four bytes.
#[must_use]
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// An attribute with a text that ends with a zero byte.
#[must_use]
pub fn text_attribute(kind: u16, value: &str) -> Vec<u8> {
    attribute(kind, &[value.as_bytes(), &[0]].concat())
}

/// The fixed part of a link message (`struct ifinfomsg`); `up` sets the link up.
#[must_use]
pub fn link_part(index: u32, up: bool) -> Vec<u8> {
    const IFF_UP: u32 = 1;
    let flags = if up { IFF_UP } else { 0 };
    let words = [0, index, flags, flags];
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_found_behind_padded_ones() {
        let attributes = [
            text_attribute(1, "ab"),
            attribute(2, &[1, 2, 3, 4, 5]),
            attribute(9, &[7]),
        ];
        let bytes = request(RTM_NEWNEIGH, CHANGE, &[0; 12], &attributes);
        let twice = [bytes.clone(), bytes].concat();
        let found = messages(&twice);
        assert_eq!(found.len(), 2);
        for message in found {
            assert_eq!(message.kind, RTM_NEWNEIGH);
            assert_eq!(message.attribute(12, 1), Some(&b"ab\0"[..]));
            assert_eq!(message.attribute(12, 2), Some(&[1, 2, 3, 4, 5][..]));
            assert_eq!(message.attribute(12, 9), Some(&[7][..]));
            assert_eq!(message.attribute(12, 3), None);
        }
    }

    #[test]
    fn messages_cut_short_are_left_out() {
        let bytes = request(RTM_NEWLINK, CHANGE, &link_part(3, true), &[attribute(1, &[9; 6])]);
        for length in 0..bytes.len() {
            for message in messages(&bytes[..length]) {
                assert_eq!(message.attribute(16, 1), None);
            }
        }
    }
}
