use std::collections::{BTreeMap, BTreeSet};
use std::thread::sleep;
use std::time::{Duration, Instant};

use net_types::IfName;
use netlink_packet_route::link::{LinkAttribute, State as OperState};
use netstate::{Kernel, KernelError, NetnsLabel, Op, Scope, Spot, State};

use crate::attr::find;
use crate::errno::{busy, unusable_netns};
use crate::socket::Socket;
use crate::wireguard::{Devices, WireguardReport};
use crate::{Netns, apply, observe, spots};

/// First pause between two looks at a link's operational state.
const OPER_PAUSE_MIN: Duration = Duration::from_micros(500);

/// Longest pause between two looks; the kernel's own delay is up to a second (linux `link_watch.c`).
const OPER_PAUSE_MAX: Duration = Duration::from_millis(20);

/// The kernel networking of one namespace.
///
/// It holds one netlink socket, which stays in the namespace that it was opened in, whatever thread uses it. Kernel
/// parameters belong to the namespace of the thread: a value from [`RealKernel::open`] must be used by threads of one
/// namespace, one from [`RealKernel::open_in`] enters its own.
pub struct RealKernel {
    pub(crate) socket: Socket,
    netns: Option<Netns>,
    peers: BTreeMap<NetnsLabel, Netns>,
    sysctls_written: u64,
    wireguard: Devices,
}

/// How often the kernel was asked to change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Writes {
    /// Netlink requests other than questions.
    pub requests: u64,
    /// Writes to the files of kernel parameters.
    pub sysctls: u64,
}

impl RealKernel {
    /// Opens the kernel in the calling thread's namespace.
    ///
    /// # Errors
    /// There is no socket to be had.
    pub fn open() -> Result<Self, KernelError> {
        Ok(Self::new(Socket::open()?, None))
    }

    /// Opens the kernel in a namespace.
    ///
    /// # Errors
    /// The namespace cannot be entered, or there is no socket to be had.
    pub fn open_in(netns: Netns) -> Result<Self, KernelError> {
        let socket = netns.run(Socket::open).map_err(|e| unusable_netns(&e))??;
        Ok(Self::new(socket, Some(netns)))
    }

    fn new(socket: Socket, netns: Option<Netns>) -> Self {
        Self {
            socket,
            netns,
            peers: BTreeMap::new(),
            sysctls_written: 0,
            wireguard: Devices::default(),
        }
    }

    /// Names a namespace for the peers of veths.
    pub fn register_netns(&mut self, label: NetnsLabel, netns: Netns) {
        self.peers.insert(label, netns);
    }

    /// How often the kernel was asked to change something through this value.
    #[must_use]
    pub const fn writes(&self) -> Writes {
        Writes {
            requests: self.socket.requests_sent(),
            sysctls: self.sysctls_written,
        }
    }

    /// What a WireGuard device tells of itself and of its peers; `None` of what is none.
    ///
    /// # Errors
    /// This process may not ask (`CAP_NET_ADMIN`), or the kernel's answer cannot be read.
    pub fn wireguard_report(&mut self, link: &IfName) -> Result<Option<WireguardReport>, KernelError> {
        self.wireguard.report(self.netns.as_ref(), link)
    }

    /// Waits until a link is operationally up (`IF_OPER_UP`, RFC 2863): a bridge's port forwards only then.
    ///
    /// # Errors
    /// The link is absent, or is not up within the time; the message names the state it is in.
    pub fn wait_oper_up(&mut self, link: &IfName, timeout: Duration) -> Result<(), KernelError> {
        let deadline = Instant::now() + timeout;
        let mut pause = OPER_PAUSE_MIN;
        loop {
            let state = self.oper_state(link)?;
            if state == OperState::Up {
                return Ok(());
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let ms = timeout.as_millis();
                return Err(busy(format!(
                    "link {:?} did not come up within {ms} ms: its state is {state}",
                    link.as_str()
                )));
            }
            sleep(pause.min(left));
            pause = (pause * 2).min(OPER_PAUSE_MAX);
        }
    }

    fn oper_state(&mut self, link: &IfName) -> Result<OperState, KernelError> {
        let attributes = self.link_attributes(link)?;
        let state = find!(attributes, LinkAttribute::OperState);
        Ok(state.copied().unwrap_or(OperState::Unknown))
    }
}

impl Kernel for RealKernel {
    fn observe(&mut self, scope: &Scope) -> Result<State, KernelError> {
        let socket = &mut self.socket;
        let mut state = match &self.netns {
            Some(netns) if !scope.sysctls.is_empty() => netns
                .run(|| observe::observe(socket, scope))
                .unwrap_or_else(|e| Err(unusable_netns(&e))),
            _ => observe::observe(socket, scope),
        }?;
        self.wireguard.observe(self.netns.as_ref(), scope, &mut state)?;
        Ok(state)
    }

    fn observe_at(&mut self, scope: &Scope, spots: &BTreeSet<Spot>) -> Result<State, KernelError> {
        let mut state = spots::observe_at(&mut self.socket, scope, spots)?;
        // The kernel has no question for a single peer.
        if spots.iter().any(|spot| matches!(spot, Spot::WgPeer(_))) {
            let mut listed = State::default();
            self.wireguard.observe(self.netns.as_ref(), scope, &mut listed)?;
            state.absorb(listed.at(spots));
        }
        Ok(state)
    }

    fn apply(&mut self, ops: &[Op]) -> Vec<Result<(), KernelError>> {
        let Self {
            socket,
            netns,
            peers,
            sysctls_written,
            wireguard,
        } = self;
        let netns = netns.as_ref();
        let edges = &mut apply::Edges {
            socket,
            wireguard,
            netns,
            peers,
            sysctls_written,
        };
        let sysctls = ops.iter().any(|op| matches!(op, Op::SetSysctl(..)));
        match netns {
            Some(netns) if sysctls => netns
                .run(|| apply::apply(edges, ops))
                .unwrap_or_else(|e| vec![Err(unusable_netns(&e)); ops.len()]),
            _ => apply::apply(edges, ops),
        }
    }
}
