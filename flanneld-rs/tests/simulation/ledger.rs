//! What one run of a daemon was told about leases, and what it may therefore remove.
//!
//! The rules stand here a second time, written from the design: a daemon may remove an object of a peer only while
//! the last thing that the store said was not that it is out of reach, after a snapshot that held the daemon's own
//! lease, if no lease that was told since names the object, and if the lease was not lost in a
//! mass within the grace time. A route that somebody put in the place of a peer's may be replaced only if the run has
//! seen the peer's route there, as it is now wished.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use flannel_types::Lease;
use flanneld_rs::node::Event;
use ipnetwork::IpNetwork;
use lease_store::LeaseEvent;
use net_types::SubnetKey;
use netstate::{Op, Route, RouteKey, State};

use crate::kernel_view::{outer, v4, vtep_mac};

pub(crate) const GRACE: Duration = Duration::from_secs(60);
/// Fewer losses than this are never a mass.
const MASS: usize = 10;

#[derive(Debug, Default)]
pub(crate) struct Ledger {
    own: Option<SubnetKey>,
    named: BTreeMap<SubnetKey, Lease>,
    /// Whether the store knew the daemon when it came.
    was_member: bool,
    held: BTreeMap<SubnetKey, (Lease, Duration)>,
    /// Subnets that the kernel had routes to when the run began.
    adopted: Option<BTreeSet<IpNetwork>>,
    /// The routes that the run has seen, with all that they led to.
    seen: BTreeMap<RouteKey, Vec<Route>>,
    has_counted: bool,
    in_reach: bool,
    no_removal_until: Duration,
}

impl Ledger {
    pub(crate) fn note(&mut self, now: Duration, event: &Event) {
        match event {
            Event::Observed(Ok(state)) => self.observed(state),
            Event::LeaseAcquired(Ok(lease)) => self.acquired(now, lease),
            Event::Lease(LeaseEvent::Snapshot { leases, .. }) => self.snapshot(now, leases),
            Event::Lease(LeaseEvent::Put(lease)) => self.put(lease),
            Event::Lease(LeaseEvent::Remove(key)) => {
                self.held.remove(key);
                self.named.remove(key);
            }
            Event::Lease(LeaseEvent::Unsynced { .. }) => self.in_reach = false,
            Event::LeaseFound(Ok(stored)) => self.was_member = stored.is_some(),
            Event::Start
            | Event::Observed(Err(_))
            | Event::Applied(_)
            | Event::KernelChanged
            | Event::KernelChangedAt(_)
            | Event::LeaseFound(_)
            | Event::LeaseAcquired(_)
            | Event::LeaseRenewed(_)
            | Event::SubnetFileWritten(_)
            | Event::SubnetFileLost
            | Event::RulesObserved(_)
            | Event::RulesApplied(_)
            | Event::RulesChanged
            | Event::HostLinks(_)
            | Event::HostRoutesChanged
            | Event::RoutesFound(_)
            | Event::ParentRenamed(_)
            | Event::CommandDone(_)
            | Event::ConfTried(_)
            | Event::InterfaceFound(_)
            | Event::Tick => {}
        }
    }

    fn observed(&mut self, state: &State) {
        for (key, route) in &state.routes {
            let seen = self.seen.entry(key.clone()).or_default();
            if !seen.contains(route) {
                seen.push(route.clone());
            }
        }
        let dsts = || state.routes.keys().map(|key| key.dst).collect();
        self.adopted.get_or_insert_with(dsts);
    }

    /// The key of a route that this change may put in the place of a foreign one.
    pub(crate) fn may_displace<'a>(&self, op: &'a Op) -> Option<&'a RouteKey> {
        let Op::ReplaceRoute(key, route) = op else {
            return None;
        };
        let seen = self.seen.get(key)?;
        seen.contains(route).then_some(key)
    }

    fn acquired(&mut self, now: Duration, lease: &Lease) {
        self.own = Some(lease.key);
        if !self.was_member && !self.adopted().is_empty() {
            self.no_removal_until = now + GRACE;
        }
    }

    fn put(&mut self, lease: &Lease) {
        self.held.remove(&lease.key);
        self.named.insert(lease.key, lease.clone());
    }

    fn snapshot(&mut self, now: Duration, leases: &BTreeMap<SubnetKey, Lease>) {
        if !self.own.is_some_and(|own| leases.contains_key(&own)) {
            self.in_reach = false;
            return;
        }
        self.in_reach = true;
        let named = std::mem::replace(&mut self.named, leases.clone());
        let known = named.len();
        let lost: Vec<_> = named
            .into_iter()
            .filter(|(key, _)| !leases.contains_key(key))
            .collect();
        if lost.len() >= MASS && lost.len() * 2 > known {
            self.held
                .extend(lost.into_iter().map(|(key, lease)| (key, (lease, now + GRACE))));
        }
        self.held.retain(|key, _| !leases.contains_key(key));
        self.count(now);
    }

    /// The first snapshot that counts is compared with what the kernel had.
    fn count(&mut self, now: Duration) {
        if std::mem::replace(&mut self.has_counted, true) {
            return;
        }
        let named: BTreeSet<_> = self.named.keys().map(|key| IpNetwork::V4(v4(*key))).collect();
        let adopted = self.adopted();
        let lost = adopted.difference(&named).count();
        if lost >= MASS && lost * 2 > adopted.len() {
            self.no_removal_until = now + GRACE;
        }
    }

    fn adopted(&self) -> BTreeSet<IpNetwork> {
        self.adopted.clone().unwrap_or_default()
    }

    /// Says why a change must not be made now, if so.
    pub(crate) fn objection(&self, now: Duration, op: &Op) -> Option<String> {
        let is_removal = matches!(op, Op::DelRoute(..) | Op::DelNeigh(_) | Op::DelFdb(_));
        if !is_removal {
            return None;
        }
        if !(self.has_counted && self.in_reach) {
            return Some(format!(
                "{op}: nothing may be removed while the leases are not known"
            ));
        }
        if now < self.no_removal_until {
            return Some(format!("{op}: nothing may be removed within the grace time"));
        }
        let held = self.held.values().filter(|(_, until)| now < *until);
        let leases = self.named.values().chain(held.map(|(lease, _)| lease));
        let mut peers = leases.filter(|lease| Some(lease.key) != self.own);
        let owner = peers.find(|lease| is_of(op, lease))?;
        Some(format!("{op}: it belongs to the peer {}", owner.key))
    }
}

/// Whether a removal takes an object that this lease asks for.
fn is_of(op: &Op, lease: &Lease) -> bool {
    let subnet = v4(lease.key);
    let gateway = IpAddr::V4(subnet.network());
    match op {
        Op::DelRoute(key, _) => key.dst == IpNetwork::V4(subnet) && key.metric == 0,
        Op::DelNeigh(key) => key.ip == gateway,
        Op::DelFdb(key) => key.mac == vtep_mac(lease) && key.remote == outer(lease),
        Op::AddLink(..)
        | Op::ReplaceLink(..)
        | Op::SetLink(..)
        | Op::DelLink(_)
        | Op::AddAddr(..)
        | Op::DelAddr(_)
        | Op::AddRoute(..)
        | Op::ReplaceRoute(..)
        | Op::SetNeigh(..)
        | Op::SetWireguard(..)
        | Op::SetWgPeer(..)
        | Op::DelWgPeer(_)
        | Op::SetFdb(_)
        | Op::SetSysctl(..)
        | Op::SetNftTable(..)
        | Op::DelNftTable(_)
        | Op::SetIptables(..) => false,
    }
}
