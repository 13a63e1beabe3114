//! The netfilter protocol in bytes: its message header, questions, lists, and changes that are carried out as a whole.

use std::ops::ControlFlow;

use netstate::{ErrorClass, KernelError};

use crate::errno::{busy, other};
use crate::frame::{Answer, Frame};
use crate::raw::{Protocol, RawSocket, Requests};

/// Begin and end of changes that are carried out as a whole (linux `nfnetlink.h`, `NFNL_MSG_BATCH_BEGIN` and
/// `NFNL_MSG_BATCH_END`).
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;

/// How often changes are sent again that the kernel could not carry out at that moment.
const ATTEMPTS: u32 = 5;

/// A part of netfilter that has messages of its own (linux `nfnetlink.h`, `NFNL_SUBSYS_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subsystem {
    /// Tracked connections.
    Conntrack,
    /// Packet filter rules.
    Nftables,
}

/// What becomes of changes that the kernel would carry out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// They are carried out.
    Commit,
    /// They are checked only: nothing changes.
    Abort,
}

/// Why changes were not carried out; none of them was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The place of the first change that the kernel refused; `None` when it is not one of them.
    pub index: Option<usize>,
    /// Why.
    pub error: KernelError,
}

/// A netfilter socket for one of its parts in one namespace.
pub struct Socket {
    raw: RawSocket,
    subsystem: Subsystem,
}

/// The fixed part of a message (linux `struct nfgenmsg`): an address family, and a number that some messages need.
#[must_use]
pub const fn header(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

/// Whether a failure means that the kernel lacks a part of netfilter, or netfilter's netlink as a whole: it refuses the
/// socket (`EPROTONOSUPPORT`, linux `af_netlink.c`), or does not know that part's messages (`EINVAL`, linux
/// `nfnetlink.c`, `nfnetlink_rcv_msg`).
#[must_use]
pub const fn is_absent(class: ErrorClass) -> bool {
    const EINVAL: i32 = nix::errno::Errno::EINVAL as i32;
    const EPROTONOSUPPORT: i32 = nix::errno::Errno::EPROTONOSUPPORT as i32;
    matches!(
        class,
        ErrorClass::Unsupported | ErrorClass::Other(EINVAL | EPROTONOSUPPORT)
    )
}

impl Subsystem {
    const fn number(self) -> u16 {
        match self {
            Self::Conntrack => 1,
            Self::Nftables => 10,
        }
    }

    const fn kind(self, message: u8) -> u16 {
        let [number, _] = self.number().to_le_bytes();
        u16::from_be_bytes([number, message])
    }
}

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// There is no socket to be had, or the kernel has no netfilter.
    pub fn open(subsystem: Subsystem) -> Result<Self, KernelError> {
        Ok(Self {
            raw: RawSocket::open(Protocol::Netfilter)?,
            subsystem,
        })
    }

    /// Adds a message of this part to requests.
    pub fn push(&self, requests: &mut Requests, message: u8, flags: u16, payload: &[u8]) {
        requests.push(self.subsystem.kind(message), flags, payload);
    }

    /// Asks one question that has one answer, and returns what `read` makes of the bytes after the fixed part.
    ///
    /// # Errors
    /// The kernel refused, or the answer cannot be read.
    pub fn ask<T>(
        &mut self,
        message: u8,
        payload: &[u8],
        mut read: impl FnMut(&[u8]) -> Result<T, KernelError>,
    ) -> Result<T, KernelError> {
        let mut requests = Requests::default();
        self.push(&mut requests, message, 0, payload);
        let answer = self.raw.ask(&mut requests, |frame| read(body(&frame)))?.pop();
        answer.unwrap_or_else(|| Err(other("the kernel gave no answer")))
    }

    /// Lists objects, keeping what `select` makes of the family and the bytes after the fixed part of each. A list that
    /// changed while it was read is read again.
    ///
    /// # Errors
    /// The kernel refused, an object cannot be read, or the list changed each time.
    pub fn dump<T>(
        &mut self,
        message: u8,
        payload: &[u8],
        mut select: impl FnMut(u8, &[u8]) -> Result<Option<T>, KernelError>,
    ) -> Result<Vec<T>, KernelError> {
        self.raw.dump(self.subsystem.kind(message), payload, |frame| {
            let family = frame.payload.first().copied().unwrap_or(0);
            select(family, body(&frame))
        })
    }

    /// Sends changes at once that do not depend on each other, and returns the result of each.
    pub fn change(&mut self, requests: &mut Requests) -> Vec<Result<(), KernelError>> {
        self.raw.change(requests)
    }

    /// Has changes carried out as a whole or not at all; `changes` adds them to the requests.
    ///
    /// # Errors
    /// Says which change the kernel refused. What passes by itself, a competing change or a signal, is tried again a few
    /// times.
    pub fn transact(
        &mut self,
        ending: Ending,
        mut changes: impl FnMut(&Self, &mut Requests),
    ) -> Result<(), Refusal> {
        let mut requests = Requests::default();
        requests.push(BATCH_BEGIN, 0, &header(0, self.subsystem.number()));
        changes(self, &mut requests);
        let last = requests.len() - 1;
        if last == 0 {
            return Ok(());
        }
        requests.acknowledge(last);
        if ending == Ending::Commit {
            requests.push(BATCH_END, 0, &header(0, self.subsystem.number()));
        }
        let mut attempt = 1;
        loop {
            match self.try_transact(&mut requests, last) {
                Err(refusal) if refusal.error.class == ErrorClass::Busy && attempt < ATTEMPTS => attempt += 1,
                result => return result,
            }
        }
    }

    fn try_transact(&mut self, requests: &mut Requests, last: usize) -> Result<(), Refusal> {
        let mut first_refusal: Option<Refusal> = None;
        // Refusals of the whole carry the number of its beginning, and come before the answers to the changes, or
        // instead of them (linux `nfnetlink.c`, `nfnetlink_rcv_batch`).
        let exchanged = self.raw.exchange(requests, |index, answer| {
            let result = match answer {
                Answer::Result(result) => result,
                Answer::Overrun => return Err(busy("the kernel's answer was lost")),
                Answer::Malformed(e) => return Err(other(e.to_string())),
                Answer::Object(_) | Answer::End(_) => return Ok(ControlFlow::Continue(())),
            };
            if let Err(error) = result
                && first_refusal.is_none()
            {
                let index = index.checked_sub(1).filter(|index| *index < last);
                first_refusal = Some(Refusal { index, error });
            }
            Ok(if index == 0 || index >= last {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            })
        });
        match (first_refusal, exchanged) {
            (Some(refusal), _) => Err(refusal),
            (None, Err(error)) => Err(Refusal { index: None, error }),
            (None, Ok(())) => Ok(()),
        }
    }
}

/// What follows the fixed part of a message.
fn body<'a>(frame: &Frame<'a>) -> &'a [u8] {
    frame.payload.get(4..).unwrap_or(&[])
}
