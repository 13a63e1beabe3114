//! A netlink socket of any protocol, in bytes.

use std::io;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkMessage};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::SocketAddr;
use netlink_sys::protocols::{NETLINK_GENERIC, NETLINK_NETFILTER, NETLINK_ROUTE};
use netstate::KernelError;
use nix::libc::MSG_TRUNC;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::errno::{busy, failed_call, other};
use crate::frame::{Answer, Consistency, Frame, HEADER_LEN, frames};

/// Longest datagram that is received. The kernel packs dumps into at most 32 KiB (linux `af_netlink.c`).
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// Size of the receive queue: holds the answers to a full send of route changes, even if each one is an error.
const RECEIVE_QUEUE_BYTES: usize = 1 << 20;

/// What an error answer takes of the receive queue: a buffer with its bookkeeping.
const ANSWER_BYTES: usize = 1 << 10;

/// What the kernel gives a socket for sending unless told otherwise (`net.core.wmem_default`).
const SEND_QUEUE_BYTES: usize = 208 << 10;

/// How long the kernel may take to answer; it holds a lock for milliseconds, so this is a bug or a stalled machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a list that changed under way is made again.
const DUMP_ATTEMPTS: u32 = 10;

/// A family of netlink messages (linux `include/uapi/linux/netlink.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses, routes, neighbours.
    Route,
    /// Families with numbers of their own, such as WireGuard.
    Generic,
    /// Packet filter rules and tracked connections.
    Netfilter,
}

/// Requests packed for one send.
#[derive(Debug, Default)]
pub struct Requests {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

/// A netlink socket of one namespace. It has one owner: a second dump on a busy socket is refused.
pub struct RawSocket {
    inner: netlink_sys::Socket,
    answer: Vec<u8>,
    sequence: u32,
    send_queue_bytes: usize,
    receive_queue_bytes: usize,
}

impl Requests {
    /// Adds a request with flags beside `NLM_F_REQUEST`; the payload is what follows the header.
    pub fn push(&mut self, kind: u16, flags: u16, payload: &[u8]) {
        let start = self.bytes.len();
        let len = HEADER_LEN.saturating_add(payload.len());
        self.bytes
            .extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes
            .extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
        // The number follows with the send; the port stays zero, the kernel knows it.
        self.bytes.extend_from_slice(&[0; 8]);
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self.starts.push(start);
    }

    /// Adds a typed request of the route protocol.
    pub(crate) fn push_route(&mut self, message: RouteNetlinkMessage, flags: u16) {
        let mut message = NetlinkMessage::from(message);
        message.header.flags = NLM_F_REQUEST | flags;
        message.finalize();
        let start = self.bytes.len();
        self.bytes.resize(start + message.buffer_len(), 0);
        if let Some(slot) = self.bytes.get_mut(start..) {
            message.serialize(slot);
        }
        self.starts.push(start);
    }

    /// How many requests there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.starts.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    /// How many bytes they take.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Removes them all.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    /// Makes the kernel answer a request, which it else does only to refuse it.
    pub fn acknowledge(&mut self, index: usize) {
        let start = self.starts.get(index).copied();
        let flags = start.and_then(|start| self.bytes.get_mut(start + 6..start + 8));
        if let Some([a, b]) = flags {
            [*a, *b] = (u16::from_ne_bytes([*a, *b]) | NLM_F_ACK).to_ne_bytes();
        }
    }

    fn number(&mut self, first: u32) {
        let mut sequence = first;
        for start in &self.starts {
            if let Some(field) = self.bytes.get_mut(start + 8..start + 12) {
                field.copy_from_slice(&sequence.to_ne_bytes());
            }
            sequence = sequence.wrapping_add(1);
        }
    }
}

impl AsFd for RawSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.inner.as_fd()
    }
}

impl RawSocket {
    /// Opens a socket in the calling thread's namespace.
    ///
    /// # Errors
    /// There is no socket to be had, or the kernel doesn't know the protocol.
    pub fn open(protocol: Protocol) -> Result<Self, KernelError> {
        Self::try_open(protocol).map_err(|e| failed_call("open a netlink socket", &e))
    }

    fn try_open(protocol: Protocol) -> io::Result<Self> {
        let inner = netlink_sys::Socket::new(match protocol {
            Protocol::Route => NETLINK_ROUTE,
            Protocol::Generic => NETLINK_GENERIC,
            Protocol::Netfilter => NETLINK_NETFILTER,
        })?;
        inner.set_ext_ack(true)?;
        inner.set_cap_ack(true)?;
        if protocol == Protocol::Route {
            inner.set_netlink_get_strict_chk(true)?;
        }
        let timeout = TimeVal::new(i64::try_from(ANSWER_TIMEOUT.as_secs()).unwrap_or(i64::MAX), 0);
        setsockopt(&inner, sockopt::ReceiveTimeout, &timeout)?;
        // A connected socket hears nobody but the kernel.
        inner.connect(&SocketAddr::new(0, 0))?;
        let mut socket = Self {
            inner,
            answer: Vec::with_capacity(ANSWER_MAX_BYTES),
            sequence: 1,
            send_queue_bytes: SEND_QUEUE_BYTES,
            receive_queue_bytes: 0,
        };
        socket.grow_receive_queue(RECEIVE_QUEUE_BYTES)?;
        Ok(socket)
    }

    /// Sends requests at once and hands on what the kernel answers to each, by its place, until `each` breaks.
    ///
    /// # Errors
    /// The send failed, no answer came in time, or `each` failed.
    pub fn exchange(
        &mut self,
        requests: &mut Requests,
        mut each: impl FnMut(usize, Answer<'_>) -> Result<ControlFlow<()>, KernelError>,
    ) -> Result<(), KernelError> {
        let first = self.send(requests)?;
        loop {
            self.receive()?;
            for frame in frames(&self.answer) {
                let (index, answer) = match frame {
                    // Answers to earlier requests that were given up have other numbers.
                    Ok(frame) => match place(&frame, first, requests.len()) {
                        Some(index) => (index, Answer::read(frame)),
                        None => continue,
                    },
                    Err(malformed) => (0, Some(Answer::Malformed(malformed))),
                };
                if let Some(answer) = answer
                    && each(index, answer)?.is_break()
                {
                    return Ok(());
                }
            }
        }
    }

    /// Sends changes at once and returns the result of each.
    ///
    /// Only the last one asks for an acknowledgement: the kernel works through them in order and reports every
    /// refusal unasked, so the last answer ends the batch. A lost answer makes every result unknown.
    pub fn change(&mut self, requests: &mut Requests) -> Vec<Result<(), KernelError>> {
        let mut results = vec![Ok(()); requests.len()];
        let Some(last) = results.len().checked_sub(1) else {
            return results;
        };
        requests.acknowledge(last);
        let exchanged = self.exchange(requests, |index, answer| match answer {
            Answer::Result(result) => {
                if let Some(slot) = results.get_mut(index) {
                    *slot = result;
                }
                Ok(until(index == last))
            }
            Answer::Malformed(e) => Err(other(e.to_string())),
            Answer::Object(_) | Answer::End(_) | Answer::Overrun => Ok(ControlFlow::Continue(())),
        });
        if let Err(lost) = exchanged {
            for result in &mut results {
                if result.is_ok() {
                    *result = Err(lost.clone());
                }
            }
        }
        results
    }

    /// Sends questions at once that have one answer each, and returns what `read` makes of the answers, in order.
    ///
    /// # Errors
    /// An answer was lost or cannot be read.
    pub fn ask<T>(
        &mut self,
        requests: &mut Requests,
        mut read: impl FnMut(Frame<'_>) -> Result<T, KernelError>,
    ) -> Result<Vec<Result<T, KernelError>>, KernelError> {
        let mut answers: Vec<Option<Result<T, KernelError>>> = Vec::new();
        answers.resize_with(requests.len(), || None);
        let mut missing = answers.len();
        if missing == 0 {
            return Ok(Vec::new());
        }
        self.exchange(requests, |index, answer| {
            let answer = match answer {
                Answer::Object(frame) => Ok(read(frame)?),
                Answer::Result(Err(e)) => Err(e),
                Answer::Overrun => Err(busy("the kernel's answer was lost")),
                Answer::Malformed(e) => return Err(other(e.to_string())),
                Answer::Result(Ok(())) | Answer::End(_) => return Ok(ControlFlow::Continue(())),
            };
            if let Some(slot) = answers.get_mut(index)
                && slot.replace(answer).is_none()
            {
                missing -= 1;
            }
            Ok(until(missing == 0))
        })?;
        Ok(answers.into_iter().flatten().collect())
    }

    /// Lists objects, keeping what `select` makes of each. A list that changed while it was read is read again.
    ///
    /// # Errors
    /// The kernel refused, an object cannot be read, or the list changed each time.
    pub fn dump<T>(
        &mut self,
        kind: u16,
        payload: &[u8],
        mut select: impl FnMut(Frame<'_>) -> Result<Option<T>, KernelError>,
    ) -> Result<Vec<T>, KernelError> {
        let mut requests = Requests::default();
        requests.push(kind, NLM_F_DUMP, payload);
        self.dump_requests(&mut requests, &mut select)
    }

    pub(crate) fn dump_requests<T>(
        &mut self,
        requests: &mut Requests,
        select: &mut impl FnMut(Frame<'_>) -> Result<Option<T>, KernelError>,
    ) -> Result<Vec<T>, KernelError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            let consistency = self.dump_once(requests, |frame| {
                found.extend(select(frame)?);
                Ok(())
            })?;
            match consistency {
                Consistency::Whole => return Ok(found),
                Consistency::Changed => {}
            }
        }
        Err(busy(format!(
            "the kernel's tables changed in each of {DUMP_ATTEMPTS} readings"
        )))
    }

    fn dump_once(
        &mut self,
        requests: &mut Requests,
        mut each: impl FnMut(Frame<'_>) -> Result<(), KernelError>,
    ) -> Result<Consistency, KernelError> {
        let mut consistency = Consistency::Whole;
        // A list must be read to its end, or the socket refuses the next one.
        let mut failure = None;
        self.exchange(requests, |_, answer| {
            match answer {
                Answer::Object(frame) => {
                    consistency = consistency.and(frame.consistency());
                    if let Err(e) = each(frame) {
                        failure.get_or_insert(e);
                    }
                }
                Answer::End(Ok(end)) => {
                    consistency = consistency.and(end);
                    return Ok(ControlFlow::Break(()));
                }
                Answer::End(Err(e)) | Answer::Result(Err(e)) => return Err(e),
                Answer::Malformed(e) => {
                    failure.get_or_insert(other(e.to_string()));
                }
                Answer::Overrun => return Err(busy("the kernel's answer was lost")),
                Answer::Result(Ok(())) => {}
            }
            Ok(ControlFlow::Continue(()))
        })?;
        failure.map_or(Ok(consistency), Err)
    }

    /// Numbers and sends requests; returns the first number.
    fn send(&mut self, requests: &mut Requests) -> Result<u32, KernelError> {
        let first = self.sequence;
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        self.sequence = first.wrapping_add(count);
        requests.number(first);
        self.fit(requests)
            .map_err(|e| failed_call("enlarge the queues of a netlink socket", &e))?;
        loop {
            match self.inner.send(&requests.bytes, 0) {
                Ok(_) => return Ok(first),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed_call("send a netlink request", &e)),
            }
        }
    }

    /// Enlarges the queues for a large batch: the kernel takes it in one send or not at all, and answers each part.
    fn fit(&mut self, requests: &Requests) -> io::Result<()> {
        let send = requests.bytes.len().saturating_add(4 << 10);
        if send > self.send_queue_bytes {
            // The forced size is not bound by net.core.wmem_max but needs CAP_NET_ADMIN, as the changes do.
            setsockopt(&self.inner, sockopt::SndBufForce, &send)?;
            self.send_queue_bytes = send;
        }
        let receive = requests.len().saturating_mul(ANSWER_BYTES);
        if receive > self.receive_queue_bytes {
            self.grow_receive_queue(receive)?;
        }
        Ok(())
    }

    fn grow_receive_queue(&mut self, bytes: usize) -> io::Result<()> {
        // The forced size is not bound by net.core.rmem_max but needs CAP_NET_ADMIN; a mere reader does without.
        if setsockopt(&self.inner, sockopt::RcvBufForce, &bytes).is_err() {
            self.inner
                .set_rx_buf_sz(i32::try_from(bytes).unwrap_or(i32::MAX))?;
        }
        self.receive_queue_bytes = bytes;
        Ok(())
    }

    /// Receives one datagram into the buffer.
    fn receive(&mut self) -> Result<(), KernelError> {
        loop {
            self.answer.clear();
            match self.inner.recv(&mut self.answer, MSG_TRUNC) {
                Ok(len) if len == self.answer.len() => return Ok(()),
                Ok(len) => return Err(other(format!("the kernel's answer of {len} bytes is too long"))),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    let seconds = ANSWER_TIMEOUT.as_secs();
                    return Err(busy(format!("the kernel did not answer within {seconds} s")));
                }
                Err(e) => return Err(failed_call("receive the kernel's answer", &e)),
            }
        }
    }
}

/// The place of the request that a message answers.
fn place(frame: &Frame<'_>, first: u32, count: usize) -> Option<usize> {
    let index = usize::try_from(frame.sequence.wrapping_sub(first)).ok()?;
    (index < count).then_some(index)
}

const fn until(done: bool) -> ControlFlow<()> {
    if done {
        ControlFlow::Break(())
    } else {
        ControlFlow::Continue(())
    }
}
