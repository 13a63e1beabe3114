use std::io;
use std::time::Duration;

use net_types::IfIndex;
use netlink_packet_core::{
    NLM_F_ACK, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::route::RouteMessage;
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{SocketAddr, protocols::NETLINK_ROUTE};
use netstate::{ErrorClass, KernelError};
use nix::libc::MSG_TRUNC;
use nix::sys::socket::{setsockopt, sockopt};
use nix::sys::time::TimeVal;

use crate::attr::only;
use crate::encode;
use crate::errno::{busy, failed_call, other, refusal};
use crate::message::{messages, words, words_of_error};

/// Longest datagram that is received. The kernel packs dumps into at most 32 KiB (linux `af_netlink.c`).
const ANSWER_MAX_BYTES: usize = 64 << 10;

/// Size of the receive queue: holds the answers to a full batch, even if each one is an error.
const RECEIVE_QUEUE_BYTES: usize = 1 << 20;

/// How long the kernel may take to answer; it holds a lock for milliseconds, so this is a bug or a stalled machine.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a dump that changed under way is made again.
const DUMP_ATTEMPTS: u32 = 10;

/// Requests packed for one send.
#[derive(Default)]
pub(crate) struct Requests {
    bytes: Vec<u8>,
    starts: Vec<usize>,
}

/// A route netlink socket of one namespace. It has one owner: a second dump on a busy socket is refused.
pub(crate) struct Socket {
    inner: netlink_sys::Socket,
    answer: Vec<u8>,
    sequence: u32,
    requests_sent: u64,
}

impl Requests {
    /// Most requests and bytes of one send. Their answers must fit into the receive queue, and the requests into the
    /// send queue (212,992 bytes by default, `net.core.wmem_default`).
    const MAX: usize = 200;
    const MAX_BYTES: usize = 64 << 10;

    /// Adds a request with flags beside `NLM_F_REQUEST`.
    pub(crate) fn push(&mut self, message: RouteNetlinkMessage, flags: u16) {
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

    /// Whether another request should wait for the next send. One request is at most a few hundred bytes long.
    pub(crate) fn is_full(&self) -> bool {
        self.starts.len() >= Self::MAX || self.bytes.len() >= Self::MAX_BYTES
    }

    pub(crate) fn len(&self) -> usize {
        self.starts.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.starts.clear();
    }

    fn number(&mut self, first: u32) {
        let mut sequence = first;
        for start in &self.starts {
            if let Some(bytes) = self.bytes.get_mut(*start..) {
                NetlinkBuffer::new(bytes).set_sequence_number(sequence);
            }
            sequence = sequence.wrapping_add(1);
        }
    }

    fn acknowledge_last(&mut self) {
        let last = self.starts.last().and_then(|start| self.bytes.get_mut(*start..));
        if let Some(bytes) = last {
            let mut request = NetlinkBuffer::new(bytes);
            let flags = request.flags();
            request.set_flags(flags | NLM_F_ACK);
        }
    }
}

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self, KernelError> {
        Self::try_open().map_err(|e| failed_call("open a netlink socket", &e))
    }

    fn try_open() -> io::Result<Self> {
        let inner = netlink_sys::Socket::new(NETLINK_ROUTE)?;
        inner.set_ext_ack(true)?;
        inner.set_cap_ack(true)?;
        inner.set_netlink_get_strict_chk(true)?;
        // The forced size is not bound by net.core.rmem_max but needs CAP_NET_ADMIN; a mere reader does without.
        if setsockopt(&inner, sockopt::RcvBufForce, &RECEIVE_QUEUE_BYTES).is_err() {
            inner.set_rx_buf_sz(i32::try_from(RECEIVE_QUEUE_BYTES).unwrap_or(i32::MAX))?;
        }
        let timeout = TimeVal::new(i64::try_from(ANSWER_TIMEOUT.as_secs()).unwrap_or(i64::MAX), 0);
        setsockopt(&inner, sockopt::ReceiveTimeout, &timeout)?;
        // A connected socket hears nobody but the kernel.
        inner.connect(&SocketAddr::new(0, 0))?;
        Ok(Self {
            inner,
            answer: Vec::with_capacity(ANSWER_MAX_BYTES),
            sequence: 1,
            requests_sent: 0,
        })
    }

    /// How many changes were sent.
    pub(crate) const fn requests_sent(&self) -> u64 {
        self.requests_sent
    }

    /// Sends changes at once and returns the result of each.
    ///
    /// Only the last one asks for an acknowledgement: the kernel works through them in order and reports every
    /// refusal unasked, so the last answer ends the batch. A lost answer makes every result unknown.
    pub(crate) fn change(&mut self, requests: &mut Requests) -> Vec<Result<(), KernelError>> {
        let mut results = vec![Ok(()); requests.len()];
        requests.acknowledge_last();
        if let Err(lost) = self.try_change(requests, &mut results) {
            for result in &mut results {
                if result.is_ok() {
                    *result = Err(lost.clone());
                }
            }
        }
        results
    }

    fn try_change(
        &mut self,
        requests: &mut Requests,
        results: &mut [Result<(), KernelError>],
    ) -> Result<(), KernelError> {
        let Some(last) = results.len().checked_sub(1) else {
            return Ok(());
        };
        let first = self.send(requests)?;
        self.requests_sent = self
            .requests_sent
            .saturating_add(requests.len().try_into().unwrap_or(0));
        loop {
            self.receive()?;
            for message in messages(&self.answer) {
                let message = message.map_err(|e| other(e.to_string()))?;
                let Some((index, result)) = slot(results, first, message.header.sequence_number) else {
                    continue;
                };
                let NetlinkPayload::Error(error) = message.payload else {
                    continue;
                };
                *result = match error.code {
                    None => Ok(()),
                    Some(code) => Err(refusal(
                        code.get().saturating_abs(),
                        words_of_error(message.header.flags, &error.header).as_deref(),
                    )),
                };
                if index == last {
                    return Ok(());
                }
            }
        }
    }

    /// Sends questions at once that have one answer each, and returns the answers in order.
    pub(crate) fn ask(
        &mut self,
        requests: &mut Requests,
    ) -> Result<Vec<Result<RouteNetlinkMessage, KernelError>>, KernelError> {
        let mut answers = vec![None; requests.len()];
        let first = self.send(requests)?;
        let mut missing = answers.len();
        while missing > 0 {
            self.receive()?;
            for message in messages(&self.answer) {
                let message = message.map_err(|e| other(e.to_string()))?;
                let Some((_, slot)) = slot(&mut answers, first, message.header.sequence_number) else {
                    continue;
                };
                let answer = match message.payload {
                    NetlinkPayload::InnerMessage(inner) => Ok(inner),
                    NetlinkPayload::Error(error) => Err(refusal(
                        error.raw_code().saturating_abs(),
                        words_of_error(message.header.flags, &error.header).as_deref(),
                    )),
                    NetlinkPayload::Overrun(_) => Err(busy("the kernel's answer was lost")),
                    NetlinkPayload::Done(_) | NetlinkPayload::Noop | _ => continue,
                };
                if slot.replace(answer).is_none() {
                    missing -= 1;
                }
            }
        }
        Ok(answers.into_iter().flatten().collect())
    }

    /// Asks one question that has one answer.
    pub(crate) fn ask_one(
        &mut self,
        question: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, KernelError> {
        let mut requests = Requests::default();
        requests.push(question, 0);
        let answer = self.ask(&mut requests)?.pop();
        answer.unwrap_or_else(|| Err(other("the kernel gave no answer")))
    }

    /// Lists objects, keeping what `select` makes of each. A list that changed while it was read is read again.
    pub(crate) fn dump<T>(
        &mut self,
        question: &RouteNetlinkMessage,
        mut select: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut found = Vec::new();
            if self.dump_once(question, |object| found.extend(select(object)))? {
                return Ok(found);
            }
        }
        Err(busy(format!(
            "the kernel's tables changed in each of {DUMP_ATTEMPTS} readings"
        )))
    }

    /// Lists routes of a table; a namespace without any has no such table, and says so.
    pub(crate) fn dump_routes<T>(
        &mut self,
        family: AddressFamily,
        table: u32,
        link: Option<IfIndex>,
        mut select: impl FnMut(&RouteMessage) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        let found = self.dump(&encode::routes(family, table, link), |message| {
            select(&only!(message, RouteNetlinkMessage::NewRoute)?)
        });
        match found {
            Err(e) if e.class == ErrorClass::NotFound => Ok(Vec::new()),
            found => found,
        }
    }

    /// Returns whether the list is consistent.
    fn dump_once(
        &mut self,
        question: &RouteNetlinkMessage,
        mut each: impl FnMut(RouteNetlinkMessage),
    ) -> Result<bool, KernelError> {
        let mut requests = Requests::default();
        requests.push(question.clone(), NLM_F_DUMP);
        let sequence = self.send(&mut requests)?;
        let mut consistent = true;
        // A list must be read to its end, or the socket refuses the next one.
        let mut failure = None;
        loop {
            self.receive()?;
            for message in messages(&self.answer) {
                let message = match message {
                    Ok(message) => message,
                    Err(e) => {
                        failure.get_or_insert(other(e.to_string()));
                        continue;
                    }
                };
                if message.header.sequence_number != sequence {
                    continue;
                }
                consistent &= message.header.flags & NLM_F_DUMP_INTR == 0;
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => each(inner),
                    NetlinkPayload::Done(done) if done.code == 0 => {
                        return failure.map_or(Ok(consistent), Err);
                    }
                    NetlinkPayload::Done(done) => {
                        let text = words(&done.extended_ack);
                        return Err(refusal(done.code.saturating_abs(), text.as_deref()));
                    }
                    NetlinkPayload::Error(error) => {
                        let text = words_of_error(message.header.flags, &error.header);
                        return Err(refusal(error.raw_code().saturating_abs(), text.as_deref()));
                    }
                    NetlinkPayload::Overrun(_) => return Err(busy("the kernel's answer was lost")),
                    NetlinkPayload::Noop | _ => {}
                }
            }
        }
    }

    /// Numbers and sends requests; returns the first number.
    fn send(&mut self, requests: &mut Requests) -> Result<u32, KernelError> {
        let first = self.sequence;
        let count = u32::try_from(requests.len()).unwrap_or(u32::MAX);
        self.sequence = first.wrapping_add(count);
        requests.number(first);
        loop {
            match self.inner.send(&requests.bytes, 0) {
                Ok(_) => return Ok(first),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed_call("send a netlink request", &e)),
            }
        }
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

/// The place of the answer with a sequence number; `None` for answers to earlier requests that were given up.
fn slot<T>(answers: &mut [T], first: u32, sequence: u32) -> Option<(usize, &mut T)> {
    let index = usize::try_from(sequence.wrapping_sub(first)).ok()?;
    Some((index, answers.get_mut(index)?))
}
