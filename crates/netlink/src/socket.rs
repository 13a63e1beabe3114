use std::os::fd::{AsFd, BorrowedFd};

use netlink_packet_core::{NLM_F_DUMP, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::route::RouteMessage;
use netstate::{ErrorClass, KernelError};

use crate::attr::only;
use crate::errno::other;
use crate::frame::Frame;
use crate::raw::{Protocol, RawSocket, Requests};

/// Most requests and bytes of one send of route changes. Their answers must fit into the receive queue.
const REQUESTS_MAX: usize = 200;
const REQUESTS_MAX_BYTES: usize = 64 << 10;

/// A route netlink socket of one namespace, in the types of `netlink-packet-route`.
pub(crate) struct Socket {
    raw: RawSocket,
    requests_sent: u64,
}

/// Whether another request should wait for the next send. One request is at most a few hundred bytes long.
pub(crate) fn is_full(requests: &Requests) -> bool {
    requests.len() >= REQUESTS_MAX || requests.len_bytes() >= REQUESTS_MAX_BYTES
}

impl Socket {
    /// Opens a socket in the calling thread's namespace.
    pub(crate) fn open() -> Result<Self, KernelError> {
        Ok(Self {
            raw: RawSocket::open(Protocol::Route)?,
            requests_sent: 0,
        })
    }

    /// The socket itself, for calls that take any socket of the namespace.
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.raw.as_fd()
    }

    /// How many changes were sent.
    pub(crate) const fn requests_sent(&self) -> u64 {
        self.requests_sent
    }

    /// Sends changes at once and returns the result of each.
    pub(crate) fn change(&mut self, requests: &mut Requests) -> Vec<Result<(), KernelError>> {
        let count = u64::try_from(requests.len()).unwrap_or(0);
        self.requests_sent = self.requests_sent.saturating_add(count);
        self.raw.change(requests)
    }

    /// Sends questions at once that have one answer each, and returns the answers in order.
    pub(crate) fn ask(
        &mut self,
        requests: &mut Requests,
    ) -> Result<Vec<Result<RouteNetlinkMessage, KernelError>>, KernelError> {
        self.raw.ask(requests, decoded)
    }

    /// The same for messages that `netlink-packet-route` does not know: the answers are what `read` makes of them.
    pub(crate) fn ask_raw<T>(
        &mut self,
        requests: &mut Requests,
        read: impl FnMut(Frame<'_>) -> Result<T, KernelError>,
    ) -> Result<Vec<Result<T, KernelError>>, KernelError> {
        self.raw.ask(requests, read)
    }

    /// Asks one question that has one answer.
    pub(crate) fn ask_one(
        &mut self,
        question: RouteNetlinkMessage,
    ) -> Result<RouteNetlinkMessage, KernelError> {
        let mut requests = Requests::default();
        requests.push_route(question, 0);
        let answer = self.ask(&mut requests)?.pop();
        answer.unwrap_or_else(|| Err(other("the kernel gave no answer")))
    }

    /// Lists objects, keeping what `select` makes of each. A list that changed while it was read is read again.
    pub(crate) fn dump<T>(
        &mut self,
        question: &RouteNetlinkMessage,
        mut select: impl FnMut(RouteNetlinkMessage) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        let mut requests = Requests::default();
        requests.push_route(question.clone(), NLM_F_DUMP);
        self.raw
            .dump_requests(&mut requests, &mut |frame| Ok(select(decoded(frame)?)))
    }

    /// Lists routes of a table; a namespace without any has no such table, and says so.
    pub(crate) fn dump_routes<T>(
        &mut self,
        question: RouteNetlinkMessage,
        mut select: impl FnMut(&RouteMessage) -> Option<T>,
    ) -> Result<Vec<T>, KernelError> {
        let found = self.dump(&question, |message| {
            select(&only!(message, RouteNetlinkMessage::NewRoute)?)
        });
        match found {
            Err(e) if e.class == ErrorClass::NotFound => Ok(Vec::new()),
            found => found,
        }
    }
}

fn decoded(frame: Frame<'_>) -> Result<RouteNetlinkMessage, KernelError> {
    let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(frame.bytes)
        .map_err(|e| other(format!("cannot read a netlink message of the kernel: {e}")))?;
    match message.payload {
        NetlinkPayload::InnerMessage(inner) => Ok(inner),
        NetlinkPayload::Done(_)
        | NetlinkPayload::Error(_)
        | NetlinkPayload::Noop
        | NetlinkPayload::Overrun(_)
        | _ => Err(other("the kernel answered a question with a message of control")),
    }
}
