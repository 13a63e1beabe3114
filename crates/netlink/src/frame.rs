//! Netlink messages as bytes, whatever the protocol.

use netlink_packet_core::NLM_F_DUMP_INTR;
use netstate::KernelError;

use crate::errno::refusal;
use crate::tlv;

/// Attribute of an error answer that holds the kernel's words (linux `include/uapi/linux/netlink.h`).
const NLMSGERR_ATTR_MSG: u16 = 1;

/// Error answer holds only the header of the request (`NLM_F_CAPPED`).
const NLM_F_CAPPED: u16 = 0x100;

/// Error answer ends in attributes (`NLM_F_ACK_TLVS`).
const NLM_F_ACK_TLVS: u16 = 0x200;

/// Types of messages that every protocol has (`NLMSG_NOOP` and so on).
const NLMSG_NOOP: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLMSG_OVERRUN: u16 = 4;

/// Length of a message header in bytes.
pub(crate) const HEADER_LEN: usize = 16;

/// Messages are padded to this.
const ALIGNMENT: usize = 4;

/// Bytes that are no netlink message.
#[derive(Debug, thiserror::Error)]
#[error("cannot read a netlink message of the kernel: {0}")]
pub struct MalformedMessage(pub(crate) String);

/// A message of a datagram, undecoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Type.
    pub kind: u16,
    /// Flags (`NLM_F_*`).
    pub flags: u16,
    /// The number of the request that it answers.
    pub sequence: u32,
    /// What follows the header.
    pub payload: &'a [u8],
    /// All of it, with its header.
    pub bytes: &'a [u8],
}

/// Whether a list shows what there was at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consistency {
    /// It does, as far as the kernel tells.
    Whole,
    /// What it shows changed while it was made.
    Changed,
}

/// What the kernel says about a request.
#[derive(Debug)]
pub enum Answer<'a> {
    /// An object that was asked for.
    Object(Frame<'a>),
    /// The end of a list, and whether the list is one of a single moment.
    End(Result<Consistency, KernelError>),
    /// The result of a request that asked for one, or was refused.
    Result(Result<(), KernelError>),
    /// The rest of a datagram cannot be read; whose answers it held is unknown.
    Malformed(MalformedMessage),
    /// Answers were lost.
    Overrun,
}

/// Splits a datagram into its messages. A malformed one ends the iteration.
pub fn frames(datagram: &[u8]) -> impl Iterator<Item = Result<Frame<'_>, MalformedMessage>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let frame = first(rest);
        rest = match &frame {
            Some(frame) => rest
                .get(frame.bytes.len().next_multiple_of(ALIGNMENT)..)
                .unwrap_or(&[]),
            None => &[],
        };
        Some(frame.ok_or_else(|| MalformedMessage("its length is wrong".to_owned())))
    })
}

fn first(bytes: &[u8]) -> Option<Frame<'_>> {
    let header = bytes.first_chunk::<HEADER_LEN>()?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = *header;
    let len = usize::try_from(u32::from_ne_bytes([a, b, c, d])).ok()?;
    Some(Frame {
        kind: u16::from_ne_bytes([e, f]),
        flags: u16::from_ne_bytes([g, h]),
        sequence: u32::from_ne_bytes([i, j, k, l]),
        payload: bytes.get(HEADER_LEN..len)?,
        bytes: bytes.get(..len)?,
    })
}

impl Consistency {
    /// That of a list of which parts say this and that.
    pub(crate) const fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Whole, Self::Whole) => Self::Whole,
            (Self::Changed, _) | (_, Self::Changed) => Self::Changed,
        }
    }
}

impl Frame<'_> {
    /// What the message says of the list that it is part of; its end may be the only part that does (linux
    /// `af_netlink.c`, `netlink_dump_done`).
    pub(crate) const fn consistency(&self) -> Consistency {
        if self.flags & NLM_F_DUMP_INTR == 0 {
            Consistency::Whole
        } else {
            Consistency::Changed
        }
    }
}

impl<'a> Answer<'a> {
    /// Reads what a message says; `None` for one that says nothing.
    pub(crate) fn read(frame: Frame<'a>) -> Option<Self> {
        Some(match frame.kind {
            NLMSG_NOOP => return None,
            NLMSG_OVERRUN => Self::Overrun,
            NLMSG_ERROR => match error_number(frame.payload) {
                Some((0, _)) => Self::Result(Ok(())),
                Some((number, rest)) => {
                    let words = words_of_error(frame.flags, rest);
                    Self::Result(Err(refusal(number.saturating_abs(), words.as_deref())))
                }
                None => Self::Malformed(MalformedMessage("an error has no number".to_owned())),
            },
            NLMSG_DONE => match error_number(frame.payload) {
                Some((number, rest)) if number != 0 => {
                    let words = words(rest);
                    Self::End(Err(refusal(number.saturating_abs(), words.as_deref())))
                }
                _ => Self::End(Ok(frame.consistency())),
            },
            _ => Self::Object(frame),
        })
    }
}

fn error_number(payload: &[u8]) -> Option<(i32, &[u8])> {
    let (number, rest) = payload.split_first_chunk::<4>()?;
    Some((i32::from_ne_bytes(*number), rest))
}

/// The kernel's words in an error answer: `payload` is what follows the error number, `flags` the header's.
fn words_of_error(flags: u16, payload: &[u8]) -> Option<String> {
    if flags & NLM_F_ACK_TLVS == 0 {
        return None;
    }
    let request_len = if flags & NLM_F_CAPPED != 0 {
        HEADER_LEN
    } else {
        let len = u32::from_ne_bytes(*payload.first_chunk::<4>()?);
        usize::try_from(len)
            .ok()?
            .max(HEADER_LEN)
            .checked_next_multiple_of(ALIGNMENT)?
    };
    words(payload.get(request_len..)?)
}

/// The kernel's words in a list of extended acknowledgement attributes.
fn words(attributes: &[u8]) -> Option<String> {
    tlv::attribute(attributes, NLMSGERR_ATTR_MSG).map(tlv::text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_may_tell_only_at_its_end_that_it_changed() {
        let end = |flags: u16| {
            let mut bytes = 20u32.to_ne_bytes().to_vec();
            bytes.extend(NLMSG_DONE.to_ne_bytes());
            bytes.extend(flags.to_ne_bytes());
            bytes.extend([0; 12]);
            let frame = frames(&bytes).next().unwrap().unwrap();
            match Answer::read(frame) {
                Some(Answer::End(Ok(consistency))) => consistency,
                answer => panic!("{answer:?}"),
            }
        };
        const MULTI: u16 = 0x2;
        assert_eq!(end(MULTI), Consistency::Whole);
        assert_eq!(end(MULTI | NLM_F_DUMP_INTR), Consistency::Changed);
    }
}
