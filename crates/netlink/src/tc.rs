//! Traffic control of one namespace: token buckets on links, and redirection of all that enters a link to a device
//! that has a bucket of its own. Plain data goes in and out; it holds no policy.
//!
//! Only what shaping a container needs is here: `tbf` as root queueing discipline, and an `ingress` one with a `u32`
//! filter that matches everything, which is what the reference's plugin makes (`matchall` isn't in every kernel).
//!
//! Start at [`TrafficControl`].

mod decode;
mod encode;

use net_types::{IfIndex, IfName, MacAddr};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::InfoKind;
use netlink_packet_route::tc::TcHandle;
use netstate::{ErrorClass, KernelError};

use crate::Netns;
use crate::attr::only;
use crate::encode as links;
use crate::errno::{other, unusable_netns};
use crate::raw::Requests;
use crate::socket::{Socket, is_full};

/// A token bucket (linux `sch_tbf.c`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenBucket {
    /// How fast it fills.
    pub rate_bytes_per_sec: u64,
    /// Its size, as the time that it takes to fill: in ticks of 64 ns (linux `PSCHED_SHIFT`).
    pub burst_ticks: u32,
    /// How much may wait.
    pub limit_bytes: u32,
}

/// How what leaves a link is queued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Root {
    /// As the kernel's own default.
    Default,
    /// By a token bucket.
    Bucket(TokenBucket),
    /// By a discipline of this kind, which somebody else set.
    Other(String),
}

/// What happens to what enters a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Nothing special.
    Plain,
    /// It meets filters, of which each redirects everything to a link, or to one that is gone (`None`); there may be
    /// no filter.
    Redirected(Vec<Option<IfIndex>>),
    /// It meets filters or a discipline of another kind, named here.
    Other(String),
}

/// The traffic control of a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// For what leaves.
    pub root: Root,
    /// For what enters.
    pub entry: Entry,
}

/// A link, as far as traffic control is concerned with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TcLink {
    /// Its number.
    pub index: IfIndex,
    /// Its name.
    pub name: IfName,
    /// What it is.
    pub kind: TcLinkKind,
    /// Its hardware address.
    pub mac: Option<MacAddr>,
    /// Largest payload in bytes.
    pub mtu_bytes: u32,
    /// Length of its queue in packets.
    pub queue_len: u32,
    /// What somebody noted on it (`ip link set alias`).
    pub alias: Option<String>,
    /// Whether it is administratively up.
    pub up: bool,
}

/// The kind of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcLinkKind {
    /// An intermediate functional block: a device that what is redirected to it passes through.
    Ifb,
    /// One end of a virtual Ethernet pair, with the other end's number in the namespace that it is in.
    Veth(Option<IfIndex>),
    /// Anything else.
    Other,
}

/// An intermediate functional block to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewIfb {
    /// Its name.
    pub name: IfName,
    /// Largest payload in bytes.
    pub mtu_bytes: u32,
    /// Length of its queue in packets.
    pub queue_len: u32,
    /// What is noted on it; at most 255 bytes.
    pub alias: String,
}

/// One change to traffic control.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TcOp {
    /// Sets the token bucket for what leaves a link, in place of the kernel's default or another bucket.
    SetBucket(IfIndex, TokenBucket),
    /// Goes back to the kernel's default for what leaves a link.
    ClearRoot(IfIndex),
    /// Lets what enters a link meet filters. Fails if it does already.
    AddIngress(IfIndex),
    /// Removes these filters, and that they are met.
    ClearIngress(IfIndex),
    /// Redirects all that enters a link and meets filters.
    Redirect {
        /// The link that it enters.
        from: IfIndex,
        /// The link that it leaves by instead.
        to: IfIndex,
    },
    /// Deletes a link.
    DelLink(IfIndex),
}

/// The traffic control of one namespace, through one socket, which stays in the namespace that it was opened in.
pub struct TrafficControl {
    socket: Socket,
}

impl TrafficControl {
    /// Opens the calling thread's namespace.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub fn open() -> Result<Self, KernelError> {
        Socket::open().map(|socket| Self { socket })
    }

    /// Opens a namespace.
    ///
    /// # Errors
    /// The namespace cannot be entered, or there is no socket to be had.
    pub fn open_in(netns: &Netns) -> Result<Self, KernelError> {
        let socket = netns.run(Socket::open).map_err(|e| unusable_netns(&e))??;
        Ok(Self { socket })
    }

    /// Looks for links by their names; those that there are.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn links(&mut self, names: &[IfName]) -> Result<Vec<TcLink>, KernelError> {
        let mut requests = Requests::default();
        for name in names {
            requests.push_route(links::link_by_name(name), 0);
        }
        let mut found = Vec::new();
        for (answer, name) in self.socket.ask(&mut requests)?.into_iter().zip(names) {
            // The kernel also finds a link by an alternative name.
            found.extend(link_of(answer)?.filter(|link| link.name == *name));
        }
        Ok(found)
    }

    /// Looks for a link by its number.
    ///
    /// # Errors
    /// The kernel does not answer.
    pub fn link_at(&mut self, index: IfIndex) -> Result<Option<TcLink>, KernelError> {
        let mut requests = Requests::default();
        requests.push_route(links::link_by_index(index), 0);
        let answer = self.socket.ask(&mut requests)?.pop();
        answer.map_or(Ok(None), link_of)
    }

    /// Lists the intermediate functional blocks.
    ///
    /// # Errors
    /// The list cannot be read.
    pub fn ifbs(&mut self) -> Result<Vec<TcLink>, KernelError> {
        let question = encode::links_of_kind(InfoKind::Ifb);
        let found = self.socket.dump(&question, |message| {
            decode::link(&only!(message, RouteNetlinkMessage::NewLink)?)
        })?;
        Ok(found
            .into_iter()
            .filter(|link| link.kind == TcLinkKind::Ifb)
            .collect())
    }

    /// Reads the traffic control of a link.
    ///
    /// # Errors
    /// The link is gone, or the kernel's answer cannot be read.
    pub fn control(&mut self, link: IfIndex) -> Result<Control, KernelError> {
        let ours = |message: RouteNetlinkMessage| {
            let message = only!(message, RouteNetlinkMessage::NewQueueDiscipline)?;
            decode::is_of(&message, link).then_some(message)
        };
        // A question about one link is not always answered: not if the kernel doesn't show what it finds (linux
        // `sch_api.c`, `qdisc_get_notify`; measured on 6.18).
        let all = self.socket.dump(&encode::disciplines(), ours)?;
        let at = |parent| all.iter().find(|message| message.header.parent == parent);
        let ingress = at(TcHandle::INGRESS);
        let entry = match ingress.map(decode::kind) {
            None => Entry::Plain,
            Some(encode::INGRESS) => {
                let filters = self.socket.dump(&encode::filters_of(link), |message| {
                    Some(decode::filter(&only!(
                        message,
                        RouteNetlinkMessage::NewTrafficFilter
                    )?))
                })?;
                decode::entry(filters)
            }
            Some(kind) => Entry::Other(kind.to_owned()),
        };
        Ok(Control {
            root: at(TcHandle::ROOT).map_or(Root::Default, decode::root),
            entry,
        })
    }

    /// Makes an intermediate functional block, which is up, and returns it.
    ///
    /// # Errors
    /// The name is taken, or the kernel cannot make one. Nothing is left then.
    pub fn add_ifb(&mut self, new: &NewIfb) -> Result<TcLink, KernelError> {
        let mut requests = Requests::default();
        // One send: the kernel works through it whole, whatever happens to the sender.
        for request in encode::add_ifb(new) {
            requests.push_route(request.message, request.flags);
        }
        let results = self.socket.change(&mut requests);
        let [created, noted] = results.as_slice() else {
            return Err(other("the kernel gave no answer about a new link"));
        };
        created.clone()?;
        let made = match noted {
            Ok(()) => self
                .links(std::slice::from_ref(&new.name))
                .map(|mut links| links.pop()),
            Err(e) => Err(e.clone()),
        };
        match made {
            Ok(Some(link)) => Ok(link),
            Ok(None) => Err(other(format!("link {} is gone again", new.name))),
            Err(e) => {
                let mut undo = Requests::default();
                undo.push_route(links::del_link(&new.name).message, 0);
                // The first failure is the one to tell.
                drop(self.socket.change(&mut undo));
                Err(e)
            }
        }
    }

    /// Applies changes in order and returns the result of each.
    pub fn apply(&mut self, ops: &[TcOp]) -> Vec<Result<(), KernelError>> {
        let mut results = Vec::with_capacity(ops.len());
        let mut requests = Requests::default();
        for op in ops {
            let request = encode::change(op);
            requests.push_route(request.message, request.flags);
            if is_full(&requests) {
                results.extend(self.socket.change(&mut requests));
                requests.clear();
            }
        }
        if !requests.is_empty() {
            results.extend(self.socket.change(&mut requests));
        }
        results
    }
}

fn link_of(answer: Result<RouteNetlinkMessage, KernelError>) -> Result<Option<TcLink>, KernelError> {
    match answer {
        Ok(RouteNetlinkMessage::NewLink(message)) => Ok(decode::link(&message)),
        Ok(_) => Err(other(
            "the kernel answered a question about a link with something else",
        )),
        Err(e) if e.class == ErrorClass::NoDevice => Ok(None),
        Err(e) => Err(e),
    }
}
