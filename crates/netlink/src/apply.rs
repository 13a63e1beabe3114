use std::collections::BTreeMap;
use std::os::fd::AsRawFd;

use net_types::registry::RTPROT_BOOT;
use net_types::{IfIndex, IfName};
use netlink_packet_route::link::InfoVxlan;
use netstate::{
    ErrorClass, Ipip, KernelError, Link, LinkChange, LinkKind, NetnsLabel, Op, Route, RouteKey, RouteKind,
    SysctlKey,
};

use crate::encode::{self, LinkRefs, Presence, Request};
use crate::errno::{is_invalid, other};
use crate::observe::index_of;
use crate::raw::Requests;
use crate::socket::{Socket, is_full};
use crate::wireguard::Devices;
use crate::{Netns, conflict, devconf, ethtool, marked, sysctl};

/// Applies changes in order, as few sends as possible, and returns the result of each.
pub(crate) fn apply(edges: &mut Edges<'_>, ops: &[Op]) -> Vec<Result<(), KernelError>> {
    let mut run = Run {
        edges,
        results: vec![Ok(()); ops.len()],
        requests: Requests::default(),
        owners: Vec::new(),
        indexes: BTreeMap::new(),
        kept: BTreeMap::new(),
    };
    for (number, op) in ops.iter().enumerate() {
        if let Err(e) = run.make(number, op) {
            run.fail(number, e);
        }
        run.note(op);
    }
    run.flush();
    run.step(ops);
    run.take_over(ops);
    run.explain(ops);
    run.results
}

/// What changes are made through.
pub(crate) struct Edges<'a> {
    pub(crate) socket: &'a mut Socket,
    pub(crate) wireguard: &'a mut Devices,
    /// The namespace, if it is not the calling thread's.
    pub(crate) netns: Option<&'a Netns>,
    pub(crate) peers: &'a BTreeMap<NetnsLabel, Netns>,
    pub(crate) sysctls_written: &'a mut u64,
}

/// One call of [`apply`].
struct Run<'a, 'b> {
    edges: &'a mut Edges<'b>,
    results: Vec<Result<(), KernelError>>,
    requests: Requests,
    /// What each request in the queue is for.
    owners: Vec<Owner>,
    /// The numbers of links looked up so far, or why there is none.
    indexes: BTreeMap<IfName, Result<IfIndex, KernelError>>,
    /// Links that were not replaced, and why: what was to be made on the new one says nothing of the old one.
    kept: BTreeMap<IfName, KernelError>,
}

/// What a request is for.
#[derive(Clone, Copy)]
struct Owner {
    /// The change.
    number: usize,
    pardoned: Pardoned,
}

/// Which refusals of a request are no failure of the change.
#[derive(Clone, Copy)]
enum Pardoned {
    None,
    /// That there is nothing to remove.
    Absence,
    /// All: what the request is to help with tells.
    All,
}

impl Pardoned {
    fn covers(self, class: ErrorClass) -> bool {
        match self {
            Self::None => false,
            Self::Absence => class == ErrorClass::NotFound,
            Self::All => true,
        }
    }
}

impl Run<'_, '_> {
    fn make(&mut self, number: usize, op: &Op) -> Result<(), KernelError> {
        let requests = self.encode(op)?;
        if let Op::ReplaceRoute(key, route) = op
            && let Some((key, stone)) = route.stepping_stone(key)
        {
            return self.over_stepping_stone(number, requests, &key, &stone);
        }
        self.enqueue(number, requests);
        Ok(())
    }

    fn over_stepping_stone(
        &mut self,
        number: usize,
        requests: Vec<Request>,
        key: &RouteKey,
        stone: &Route,
    ) -> Result<(), KernelError> {
        let oif = self.oif(stone)?;
        let laid = encode::add_route(key, stone, oif, Presence::MustBeAbsent);
        let lifted = encode::del_route(key, stone, oif);
        self.enqueue_pardoned(number, Pardoned::All, laid);
        self.enqueue(number, requests);
        self.enqueue_pardoned(number, Pardoned::Absence, lifted);
        Ok(())
    }

    fn encode(&mut self, op: &Op) -> Result<Vec<Request>, KernelError> {
        if let Some(refusal) = op.link().and_then(|link| self.kept.get(link)) {
            return Err(refusal.clone());
        }
        let request = match op {
            Op::ReplaceLink(name, link) => return self.replace_link(name, link),
            Op::AddLink(name, link) => {
                let refs = self.link_refs(link)?;
                return self.add_link(name, link, &refs);
            }
            Op::SetLink(name, change) => return self.set_link(name, change),
            Op::DelLink(name) => encode::del_link(name),
            Op::AddAddr(key, addr) => encode::add_addr(self.index(&key.link)?, key.addr, *addr),
            Op::DelAddr(key) => encode::del_addr(self.index(&key.link)?, key.addr),
            Op::AddRoute(key, route) => {
                encode::add_route(key, route, self.oif(route)?, Presence::MustBeAbsent)
            }
            Op::ReplaceRoute(key, route) => {
                encode::add_route(key, route, self.oif(route)?, Presence::Replace)
            }
            Op::DelRoute(key, route) => encode::del_route(key, route, self.oif(route)?),
            Op::SetNeigh(key, neigh) => encode::set_neigh(self.index(&key.link)?, key.ip, neigh.mac),
            Op::DelNeigh(key) => encode::del_neigh(self.index(&key.link)?, key.ip),
            Op::SetFdb(key) => encode::set_fdb(self.index(&key.link)?, key.mac, key.remote),
            Op::DelFdb(key) => encode::del_fdb(self.index(&key.link)?, key.mac, key.remote),
            Op::SetWireguard(..) | Op::SetWgPeer(..) | Op::DelWgPeer(_) => return self.set_wireguard(op),
            Op::SetSysctl(key, value) => return self.set_sysctl(key, value),
            Op::SetNftTable(..) | Op::DelNftTable(_) | Op::SetIptables(..) => {
                return Err(other("packet filter rules are changed by another part"));
            }
        };
        Ok(vec![request])
    }

    fn replace_link(&mut self, name: &IfName, link: &Link) -> Result<Vec<Request>, KernelError> {
        let is_complete = self.link_refs(link);
        if let Err(refusal) = is_complete.and_then(|_| self.change_now(encode::del_link(name))) {
            self.kept.insert(name.clone(), refusal.clone());
            return Err(refusal);
        }
        // What the new one needs may have gone with the old one, as a veth's peer does.
        self.indexes.clear();
        let refs = self.link_refs(link)?;
        self.add_link(name, link, &refs)
    }

    /// The links that a new one needs.
    fn link_refs(&mut self, link: &Link) -> Result<LinkRefs, KernelError> {
        let mut refs = LinkRefs::default();
        if let Some(port) = &link.port {
            refs.master = Some(self.index(&port.bridge)?);
        }
        match &link.kind {
            LinkKind::Vxlan(vxlan) => {
                refs.parent = vxlan
                    .parent
                    .as_ref()
                    .map(|parent| self.index(parent))
                    .transpose()?;
            }
            LinkKind::Veth(Some(peer)) => {
                let netns = peer.netns.as_ref().map(|label| self.netns(label)).transpose()?;
                refs.peer_netns = netns.map(AsRawFd::as_raw_fd);
            }
            LinkKind::Wireguard
            | LinkKind::Ipip(_)
            | LinkKind::Bridge
            | LinkKind::Veth(None)
            | LinkKind::Other(_) => {}
        }
        Ok(refs)
    }

    fn add_link(&mut self, name: &IfName, link: &Link, refs: &LinkRefs) -> Result<Vec<Request>, KernelError> {
        let creation = encode::add_link(name, link, refs)?;
        if let Some(port) = link.port.as_ref().filter(|port| port.hairpin || port.isolated) {
            // The kernel ignores the flags at creation; set afterwards, they must not meet a stranger's link.
            self.change_now(creation)?;
            return Ok(vec![encode::set_port_flags(name, port)]);
        }
        Ok(vec![creation])
    }

    /// Makes a change at once, for a request whose successor must not be sent if it fails.
    fn change_now(&mut self, request: Request) -> Result<(), KernelError> {
        self.flush();
        let mut requests = Requests::default();
        requests.push_route(request.message, request.flags);
        self.edges.socket.change(&mut requests).into_iter().collect()
    }

    fn set_link(&mut self, name: &IfName, change: &LinkChange) -> Result<Vec<Request>, KernelError> {
        let request = match change {
            LinkChange::Admin(admin) => encode::set_admin(name, *admin),
            LinkChange::Mtu(mtu_bytes) => encode::set_mtu(name, *mtu_bytes),
            LinkChange::Mac(mac) => encode::set_mac(name, *mac),
            LinkChange::Port(port) => {
                let master = self.index(&port.bridge)?;
                let flags = encode::set_port_flags(name, port);
                return Ok(vec![encode::set_master(name, master), flags]);
            }
            LinkChange::VxlanLocal(local) => encode::set_vxlan(name, encode::vxlan_local(*local)),
            LinkChange::VxlanLearning(learning) => encode::set_vxlan(name, InfoVxlan::Learning(*learning)),
            LinkChange::VxlanTxChecksum(on) => {
                // The device may still be in the queue.
                self.flush();
                ethtool::set_tx_checksum(self.edges.socket.as_fd(), name, *on)?;
                return Ok(Vec::new());
            }
            LinkChange::IpipLocal(local) => encode::set_ipip(name, &Ipip { local: Some(*local) }),
        };
        Ok(vec![request])
    }

    /// Makes a change of a WireGuard device, which goes another way than the queue.
    fn set_wireguard(&mut self, op: &Op) -> Result<Vec<Request>, KernelError> {
        // The device may still be in the queue.
        self.flush();
        let Edges { wireguard, netns, .. } = &mut *self.edges;
        if let Op::SetWireguard(name, device) = op {
            wireguard.set(*netns, name, device)?;
        } else if let Op::SetWgPeer(key, peer) = op {
            wireguard.set_peer(*netns, key, peer)?;
        } else if let Op::DelWgPeer(key) = op {
            wireguard.remove_peer(*netns, key)?;
        }
        Ok(Vec::new())
    }

    fn set_sysctl(&mut self, key: &SysctlKey, value: &str) -> Result<Vec<Request>, KernelError> {
        if let Some((link, request)) = devconf::set(key, value)
            && self.index(&link).is_ok()
        {
            return Ok(vec![request]);
        }
        // The parameter may belong to a link that is still in the queue.
        self.flush();
        sysctl::write(key, value)?;
        *self.edges.sysctls_written = self.edges.sysctls_written.saturating_add(1);
        Ok(Vec::new())
    }

    fn oif(&mut self, route: &Route) -> Result<Option<IfIndex>, KernelError> {
        match &route.kind {
            RouteKind::Unicast(hop) => self.index(&hop.link).map(Some),
            RouteKind::Blackhole => Ok(None),
        }
    }

    /// The number of a link, after everything in the queue.
    fn index(&mut self, name: &IfName) -> Result<IfIndex, KernelError> {
        if let Some(known) = self.indexes.get(name) {
            return known.clone();
        }
        self.flush();
        let found = index_of(self.edges.socket, name);
        // A look-up that failed for another reason may succeed the next time.
        if !found.as_ref().is_err_and(|e| e.class != ErrorClass::NoDevice) {
            self.indexes.insert(name.clone(), found.clone());
        }
        found
    }

    fn netns(&self, label: &NetnsLabel) -> Result<&Netns, KernelError> {
        self.edges.peers.get(label).ok_or_else(|| KernelError {
            class: ErrorClass::NotFound,
            message: format!("no network namespace is registered as {:?}", label.0),
        })
    }

    /// Forgets the numbers of links that a change makes or unmakes.
    fn note(&mut self, op: &Op) {
        match op {
            Op::AddLink(name, link) => {
                self.indexes.remove(name);
                if let LinkKind::Veth(Some(peer)) = &link.kind {
                    self.indexes.remove(&peer.name);
                }
            }
            // Others go with it: a veth's peer, the VXLAN devices on a parent.
            Op::DelLink(_) | Op::ReplaceLink(..) => self.indexes.clear(),
            Op::SetLink(..)
            | Op::AddAddr(..)
            | Op::DelAddr(_)
            | Op::AddRoute(..)
            | Op::ReplaceRoute(..)
            | Op::DelRoute(..)
            | Op::SetNeigh(..)
            | Op::DelNeigh(_)
            | Op::SetFdb(_)
            | Op::DelFdb(_)
            | Op::SetWireguard(..)
            | Op::SetWgPeer(..)
            | Op::DelWgPeer(_)
            | Op::SetSysctl(..)
            | Op::SetNftTable(..)
            | Op::DelNftTable(_)
            | Op::SetIptables(..) => {}
        }
    }

    fn enqueue(&mut self, number: usize, requests: Vec<Request>) {
        for request in requests {
            self.enqueue_pardoned(number, Pardoned::None, request);
        }
    }

    fn enqueue_pardoned(&mut self, number: usize, pardoned: Pardoned, request: Request) {
        if is_full(&self.requests) {
            self.flush();
        }
        self.requests.push_route(request.message, request.flags);
        self.owners.push(Owner { number, pardoned });
    }

    fn flush(&mut self) {
        if self.requests.is_empty() {
            return;
        }
        let results = self.edges.socket.change(&mut self.requests);
        self.requests.clear();
        for (owner, result) in std::mem::take(&mut self.owners).into_iter().zip(results) {
            if let Err(e) = result
                && !owner.pardoned.covers(e.class)
            {
                self.fail(owner.number, e);
            }
        }
    }

    /// Puts marked routes into places that were taken by the same routes without a mark.
    fn take_over(&mut self, ops: &[Op]) {
        let is_marked = |route: &Route| route.protocol != RTPROT_BOOT;
        let results = self.results.iter();
        let (numbers, refused): (Vec<_>, Vec<_>) = ops
            .iter()
            .zip(results)
            .enumerate()
            .filter_map(|(number, (op, result))| match (op, result) {
                (Op::AddRoute(key, route), Err(refusal))
                    if refusal.class == ErrorClass::Exists && is_marked(route) =>
                {
                    Some((number, (key, route)))
                }
                _ => None,
            })
            .unzip();
        if refused.is_empty() {
            return;
        }
        // Where that cannot be seen, the refusal stands.
        let Ok(may) = marked::takeovers(self.edges.socket, &refused) else {
            return;
        };
        for ((number, (key, route)), _) in numbers.into_iter().zip(refused).zip(may).filter(|(_, may)| *may) {
            let Ok(oif) = self.oif(route) else { continue };
            if let Some(result) = self.results.get_mut(number) {
                *result = Ok(());
            }
            self.enqueue(
                number,
                vec![encode::add_route(key, route, oif, Presence::Replace)],
            );
        }
        self.flush();
    }

    /// Makes those routes over a stepping stone whose gateways the kernel refused: mostly there is no need for one.
    fn step(&mut self, ops: &[Op]) {
        for (number, op) in ops.iter().enumerate() {
            let Some(result) = self.results.get_mut(number) else {
                continue;
            };
            if let Op::AddRoute(key, route) = op
                && result.as_ref().is_err_and(is_invalid)
                && let Some((key, stone)) = route.stepping_stone(key)
            {
                *result = Ok(());
                let again = self
                    .encode(op)
                    .and_then(|requests| self.over_stepping_stone(number, requests, &key, &stone));
                if let Err(e) = again {
                    self.fail(number, e);
                }
            }
        }
        self.flush();
    }

    /// Names what stands in the way of devices that were refused.
    fn explain(&mut self, ops: &[Op]) {
        for (op, result) in ops.iter().zip(&mut self.results) {
            let Err(refusal) = result else { continue };
            if let Op::AddLink(name, link) | Op::ReplaceLink(name, link) = op {
                *refusal = conflict::explained(self.edges.socket, name, &link.kind, refusal.clone());
            } else if let Op::SetLink(_, LinkChange::IpipLocal(local)) = op {
                *refusal = conflict::explained_ipip_local(self.edges.socket, *local, refusal.clone());
            }
        }
    }

    /// Keeps the first failure of a change.
    fn fail(&mut self, number: usize, error: KernelError) {
        if let Some(result) = self.results.get_mut(number)
            && result.is_ok()
        {
            *result = Err(error);
        }
    }
}
