//! How a node stands: whether it is ready, and what it tells about itself and its peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use flannel_types::Lease;
use ipnetwork::IpNetwork;
use lease_store::LeaseEvent;
use net_types::{SubnetKey, counted};
use netstate::{ObjectKey, Prune};
use tracing::{info, warn};

use super::holding::{HeldSide, Holding};
use super::{Node, Now, Stage, telling};
use crate::desired::{self, Carrier, FilterMode, Masquerade, Peer, Side, Way};
use crate::extension::Queue;
use crate::reconciler::insight::kind_name;
use crate::reconciler::{Failure, Reconciler};
use crate::status::{
    BackendStatus, DeviceStatus, KernelStatus, LeaseStatus, NodeStatus, Part, PeerCounts, PeerState,
    PeerStatus, PeerWay, RulesStatus, StoreStatus, Trouble,
};

/// The kernel may differ from what is desired for this long without the node being unready: changes come and go.
pub(super) const READINESS_GRACE: Duration = Duration::from_secs(5);
/// Of objects in trouble that belong to no peer, so many are named.
pub(super) const MAX_TROUBLES: usize = 20;

/// Why a node is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReady {
    /// It holds no lease.
    #[error("this node has no lease yet")]
    NoLease,
    /// The device is not as it should be, or the subnet file is not written.
    #[error("the subnet file is not written yet")]
    NoSubnetFile,
    /// The peers have not all been programmed since the start.
    #[error("the peers are not programmed yet")]
    NotConverged,
    /// The kernel cannot be observed.
    #[error("the kernel cannot be observed for {0} s")]
    Unobservable(u64),
    /// The kernel does not answer.
    #[error("the kernel has not answered for {0} s")]
    Silent(u64),
    /// Something differs from what is desired.
    #[error("{} in the kernel {} not as it should be, the oldest for {secs} s: {example}", counted(*objects, "object"), if *objects == 1 { "is" } else { "are" })]
    Differs {
        /// How many.
        objects: usize,
        /// The one that has differed for longest.
        example: ObjectKey,
        /// For how long.
        secs: u64,
    },
    /// A command of the backend `extension` fails.
    #[error("{command} for {lease} has failed for {secs} s: {words}")]
    Command {
        /// Its name in the network configuration.
        command: &'static str,
        /// The peer's lease.
        lease: SubnetKey,
        /// For how long.
        secs: u64,
        /// What it said last.
        words: String,
    },
    /// The node has given up its lease.
    #[error("this node has stopped")]
    Stopped,
}

/// What is remembered only to be told.
#[derive(Debug, Default)]
pub(super) struct Standing {
    /// Whether the data plane has been complete once in this run.
    converged: bool,
    told_ready: bool,
    pub(super) store_connected: bool,
    store_error: Option<String>,
    store_errors: u64,
    renewals: u64,
    renewals_failed: u64,
    /// The addresses by which this node and the others should reach each other, and which this host does not have.
    pub(super) lost_addrs: BTreeSet<IpAddr>,
    /// The MTU of the interface that carries the outer packets, while it leaves pods too little.
    pub(super) too_small_bytes: Option<u32>,
}

impl Standing {
    pub(super) fn store_answered(&mut self) {
        self.store_connected = true;
        self.store_error = None;
    }

    pub(super) fn store_lost(&mut self, reason: &str) {
        self.store_connected = false;
        self.store_errors += 1;
        self.store_error = Some(reason.to_owned());
    }

    pub(super) fn store_event(&mut self, event: &LeaseEvent) {
        match event {
            LeaseEvent::Snapshot { .. } | LeaseEvent::Put(_) | LeaseEvent::Remove(_) => self.store_answered(),
            LeaseEvent::Unsynced { reason } => self.store_lost(reason),
        }
    }

    pub(super) const fn renewed(&mut self) {
        self.renewals += 1;
    }

    pub(super) fn renewal_failed(&mut self, reason: String) {
        self.renewals_failed += 1;
        self.store_errors += 1;
        self.store_error = Some(reason);
    }
}

impl Node {
    /// Whether the data plane is what it should be, for the grace time at most excepted. The store being out of reach
    /// alone does not make a node unready.
    ///
    /// # Errors
    /// Why it is not.
    pub fn readiness(&self, now: Duration) -> Result<(), NotReady> {
        let holding = match &self.stage {
            Stage::Holding(holding) => holding,
            Stage::Stopped => return Err(NotReady::Stopped),
            Stage::LookingForDevice
            | Stage::LookingForLease(_)
            | Stage::AcquiringLease { .. }
            | Stage::StartCommand(_) => return Err(NotReady::NoLease),
        };
        if !holding.file.is_there() {
            return Err(NotReady::NoSubnetFile);
        }
        if !self.standing.converged {
            return Err(NotReady::NotConverged);
        }
        if let Some(failing) = holding.failing_command(now) {
            return Err(failing);
        }
        let misplaced = self.misplaced_peers(holding);
        let insights = [self.engine.insight(), self.rules.insight()];
        let differing = insights
            .into_iter()
            .filter_map(|insight| Some((insight.differs_since(&misplaced)?, insight)));
        let Some((since, insight)) = differing.min_by_key(|(since, _)| *since) else {
            return Ok(());
        };
        let lasts = now.saturating_sub(since);
        if lasts <= READINESS_GRACE {
            return Ok(());
        }
        let secs = lasts.as_secs();
        if insight.unobservable_since() == Some(since) {
            return Err(NotReady::Unobservable(secs));
        }
        let concerns = |(object, _): &(&ObjectKey, Duration)| !misplaced.contains(*object);
        let mut differing = insight.differing().filter(concerns);
        let objects = differing.clone().count();
        Err(match differing.find(|(_, at)| *at == since) {
            Some((object, _)) => NotReady::Differs {
                objects,
                example: object.clone(),
                secs,
            },
            None => NotReady::Silent(secs),
        })
    }

    /// The routes of peers that are not on the link of the host-gw backend: it is their nodes that are misplaced. Where no
    /// peer of a family is on it, it may be this one.
    fn misplaced_peers(&self, holding: &Holding) -> BTreeSet<ObjectKey> {
        let mut misplaced = BTreeSet::new();
        for held in &holding.sides {
            if !matches!(held.side.carrier, Carrier::HostGw(_)) {
                continue;
            }
            let accepted = &held.peers.accepted;
            let is_off_link = |object: &ObjectKey, failure: &Failure| {
                matches!(object, ObjectKey::Route(key) if accepted.contains_key(&key.dst))
                    && failure.refusal.as_ref().is_some_and(telling::is_off_link)
            };
            let failures = self.engine.failures();
            let off_link: Vec<_> = failures
                .filter(|(object, failure)| is_off_link(object, failure))
                .collect();
            if off_link.len() < accepted.len() {
                misplaced.extend(off_link.into_iter().map(|(object, _)| object.clone()));
            }
        }
        misplaced
    }

    fn lacks_only_misplaced(&self, holding: &Holding) -> bool {
        let misplaced = self.misplaced_peers(holding);
        let mut differing = self.engine.insight().differing();
        !misplaced.is_empty() && differing.all(|(object, _)| misplaced.contains(object))
    }

    /// Notes the first time that all is as desired, and logs when readiness changes.
    pub(super) fn note_readiness(&mut self, now: Duration) {
        if let Stage::Holding(holding) = &self.stage
            && !self.standing.converged
            && holding.file.is_there()
            && holding.view.is_synced()
            && !holding.awaits_ways()
            && holding.commands.as_ref().is_none_or(Queue::is_settled)
            && (self.engine.is_settled() || self.lacks_only_misplaced(holding))
        {
            self.standing.converged = true;
        }
        match (self.readiness(now), self.standing.told_ready) {
            (Ok(()), false) => {
                self.standing.told_ready = true;
                info!("ready: the data plane is as the leases say");
            }
            (Err(reason), true) => {
                self.standing.told_ready = false;
                warn!(%reason, "not ready any more");
            }
            (Ok(()), true) | (Err(_), false) => {}
        }
    }

    /// What the node tells about itself, its peers counted only.
    #[must_use]
    pub fn status(&self, now: Now) -> NodeStatus {
        let not_ready = self.readiness(now.monotonic).err();
        let holding = self.holding();
        let mut devices = self.sides().filter_map(|side| self.device_status(side));
        let device = devices.next();
        // Both families may share one.
        let name = device.as_ref().map(|device| device.name.as_str());
        let second_device = devices.find(|other| Some(other.name.as_str()) != name);
        NodeStatus {
            ready: not_ready.is_none(),
            reason: not_ready.map(|reason| reason.to_string()),
            lease: holding.map(|holding| self.lease_status(holding)),
            store: self.store_status(now),
            backend: self.backend_status(),
            device,
            second_device,
            peers: holding.map_or_else(PeerCounts::default, |holding| self.peer_counts(holding)),
            kernel: kernel_status(&self.engine, now.monotonic),
            commands: holding.and_then(|holding| holding.commands_status(now.monotonic)),
            rules: holding.map(|_| self.rules_status(now.monotonic)),
        }
    }

    /// The peers from a lease on, in their order, of each family by itself; those of at most `limit` leases.
    #[must_use]
    pub fn peers_after(&self, after: Option<SubnetKey>, limit: usize) -> Vec<(SubnetKey, PeerStatus)> {
        let Some(holding) = self.holding() else {
            return Vec::new();
        };
        let leases = holding.view.peers().filter(|lease| Some(lease.key) > after);
        let statuses = leases.take(limit).flat_map(|lease| {
            let statuses = self.peer_statuses(holding, lease).into_iter();
            statuses.map(|status| (lease.key, status))
        });
        statuses.collect()
    }

    pub(super) fn holding(&self) -> Option<&Holding> {
        match &self.stage {
            Stage::Holding(holding) => Some(holding),
            Stage::LookingForDevice
            | Stage::LookingForLease(_)
            | Stage::AcquiringLease { .. }
            | Stage::StartCommand(_)
            | Stage::Stopped => None,
        }
    }

    fn lease_status(&self, holding: &Holding) -> LeaseStatus {
        let lease = holding.keeper.lease();
        LeaseStatus {
            subnet: subnets(lease.key),
            public_ip: lease.attrs.addrs().first(),
            expires: lease.expires.map(|end| end.secs()),
            renewals: self.standing.renewals,
            renewals_failed: self.standing.renewals_failed,
            shared_with: holding.rival.map(|device| device.to_string()),
        }
    }

    fn store_status(&self, now: Now) -> StoreStatus {
        let standing = &self.standing;
        let view = self.holding().map(|holding| &holding.view);
        StoreStatus {
            connected: standing.store_connected,
            error: standing.store_error.clone(),
            errors: standing.store_errors,
            leases: view.map_or(0, |view| view.len()),
            held: view.map_or(0, |view| view.held()),
            removes: view.is_some_and(|view| view.prune(now.monotonic) == Prune::Remove),
        }
    }

    /// What is told of a family's device, where it has one.
    fn device_status(&self, side: &Side) -> Option<DeviceStatus> {
        let (name, port, mtu_bytes) = match &side.carrier {
            Carrier::Vxlan(device) => (&device.name, Some(device.port), device.mtu_bytes),
            Carrier::Wireguard(device) => (&device.name, Some(device.listen_port), device.mtu_bytes),
            Carrier::Ipip(device) => (&device.name, None, device.mtu_bytes),
            Carrier::HostGw(_) | Carrier::Alloc | Carrier::Extension => return None,
        };
        let (vni, mac, tx_checksum) = match &side.carrier {
            Carrier::Vxlan(device) => (
                Some(device.vni.get()),
                Some(device.mac.to_string()),
                device.tx_checksum,
            ),
            Carrier::Wireguard(_)
            | Carrier::Ipip(_)
            | Carrier::HostGw(_)
            | Carrier::Alloc
            | Carrier::Extension => (None, None, None),
        };
        let settings = side.wireguard().map(|_| ObjectKey::Wireguard(name.clone()));
        Some(DeviceStatus {
            name: name.to_string(),
            vni,
            port,
            mac,
            public_key: side.wireguard().map(|device| device.public_key.to_string()),
            mtu_bytes,
            tx_checksum,
            parent: self.settings.parent.to_string(),
            local: side.local,
            network: side.network.to_string(),
            state: self.part([ObjectKey::Link(name.clone())].into_iter().chain(settings)),
        })
    }

    fn backend_status(&self) -> Option<BackendStatus> {
        self.sides().next()?;
        Some(BackendStatus {
            name: self.settings.conf.backend.name().to_owned(),
            link: self.settings.parent.to_string(),
            pod_mtu_bytes: self.settings.pod_mtu_bytes,
            direct_peers: self.direct_peers(),
        })
    }

    /// How many peers have plain routes in each family, where the backend leaves a choice.
    fn direct_peers(&self) -> BTreeMap<String, usize> {
        let holding = self.holding().filter(|holding| holding.looks_up_ways());
        let sides = holding
            .into_iter()
            .flat_map(|holding| holding.sides.iter().map(move |held| (holding, held)));
        let counted = sides.map(|(holding, held)| {
            let ways = held.peers.accepted.values().map(|peer| holding.way(peer));
            let family = if held.side.is_ipv6() { "ipv6" } else { "ipv4" };
            (
                family.to_owned(),
                ways.filter(|way| matches!(way, Way::Direct(_))).count(),
            )
        });
        counted.collect()
    }

    /// Counts peers, not families: one of which a part fails has failed.
    fn peer_counts(&self, holding: &Holding) -> PeerCounts {
        let is_clean = self.engine.insight().differing().next().is_none()
            && self.engine.failures().next().is_none()
            && holding.commands.as_ref().is_none_or(Queue::is_settled);
        if let ([held], true) = (holding.sides.as_slice(), is_clean) {
            return PeerCounts {
                programmed: held.peers.accepted.len(),
                refused: held.peers.refused.len(),
                ..PeerCounts::default()
            };
        }
        let mut states: BTreeMap<SubnetKey, PeerState> = BTreeMap::new();
        let mut note = |key, state| {
            let worst = states.entry(key).or_insert(state);
            *worst = state.min(*worst);
        };
        for held in &holding.sides {
            for (subnet, peer) in &held.peers.accepted {
                let state = if is_clean {
                    PeerState::Programmed
                } else {
                    self.programmed(&held.side, *subnet, (peer, &holding.way(peer)))
                        .state
                };
                note(peer.lease, state);
            }
            for key in held.peers.refused.keys() {
                note(*key, PeerState::Refused);
            }
        }
        let mut counts = PeerCounts::default();
        for state in states.into_values() {
            match state {
                PeerState::Programmed => counts.programmed += 1,
                PeerState::Pending => counts.pending += 1,
                PeerState::Failing => counts.failing += 1,
                PeerState::Refused => counts.refused += 1,
            }
        }
        counts
    }

    /// How the holder of a lease stands in each family that both have; there is always one.
    fn peer_statuses(&self, holding: &Holding, lease: &Lease) -> Vec<PeerStatus> {
        let sides = holding.sides.iter();
        let statuses: Vec<_> = sides
            .filter_map(|held| self.peer_status((holding, held), lease))
            .collect();
        if statuses.is_empty() {
            let error = "it has no subnet of a family that is on here";
            return vec![refused(
                subnets(lease.key),
                lease.attrs.addrs().first(),
                Some(error.to_owned()),
            )];
        }
        statuses
    }

    fn peer_status(&self, (holding, held): (&Holding, &HeldSide), lease: &Lease) -> Option<PeerStatus> {
        let subnet = held.side.subnet_of(lease.key)?;
        let peer = held.peers.accepted.get(&subnet);
        if let Some(peer) = peer.filter(|peer| peer.lease == lease.key) {
            return Some(self.programmed(&held.side, subnet, (peer, &holding.way(peer))));
        }
        let problem = held.peers.refused.get(&lease.key);
        let public_ip = if held.side.is_ipv6() {
            lease.attrs.public_ipv6.map(IpAddr::V6)
        } else {
            lease.attrs.public_ip.map(IpAddr::V4)
        };
        Some(refused(
            subnet.to_string(),
            public_ip,
            problem.map(ToString::to_string),
        ))
    }

    fn programmed(&self, side: &Side, subnet: IpNetwork, (peer, way): (&Peer, &Way)) -> PeerStatus {
        let state = desired::of_peer(side, subnet, peer, way);
        let routes: Vec<_> = state.routes.into_keys().map(ObjectKey::Route).collect();
        let neighs: Vec<_> = state.neighs.into_keys().map(ObjectKey::Neigh).collect();
        let fdb: Vec<_> = state.fdb.into_iter().map(ObjectKey::Fdb).collect();
        let wg_peers: Vec<_> = state.wg_peers.into_keys().map(ObjectKey::WgPeer).collect();
        let objects = routes.iter().chain(&neighs).chain(&fdb).chain(&wg_peers);
        let failures: Vec<_> = objects.filter_map(|key| self.engine.failure(key)).collect();
        let parts = [routes, neighs, fdb, wg_peers].map(|keys| self.part(keys));
        let [route, neigh, fdb, wireguard] = parts;
        let refusal = failures.iter().find_map(|failure| failure.refusal.as_ref());
        let is_host_gw = matches!(side.carrier, Carrier::HostGw(_));
        let is_off_link = is_host_gw && refusal.is_some_and(telling::is_off_link);
        let state = if is_off_link {
            PeerState::Refused
        } else if parts.contains(&Part::Failing) {
            PeerState::Failing
        } else if parts.contains(&Part::Pending) {
            PeerState::Pending
        } else {
            PeerState::Programmed
        };
        let status = PeerStatus {
            subnet: subnet.to_string(),
            public_ip: Some(peer.public_ip),
            vtep_mac: peer.vtep_mac.map(|mac| mac.to_string()),
            public_key: peer.wireguard.map(|end| end.public_key.to_string()),
            way: PeerWay::of(&side.carrier, way),
            state,
            route,
            neigh,
            fdb,
            wireguard,
            seen: None,
            error: refusal.map(|err| {
                if is_off_link {
                    telling::OFF_LINK.to_owned()
                } else {
                    err.message.clone()
                }
            }),
            attempts: failures.iter().map(|failure| failure.attempts).max().unwrap_or(0),
        };
        self.by_command(status, peer.lease)
    }

    /// The worst of some objects.
    fn part(&self, objects: impl IntoIterator<Item = ObjectKey>) -> Part {
        let insight = self.engine.insight();
        let state = |object: ObjectKey| {
            if self.engine.failure(&object).is_some() {
                Part::Failing
            } else if insight.is_differing(&object) || !self.standing.converged && !self.engine.is_settled() {
                Part::Pending
            } else {
                Part::Ok
            }
        };
        objects.into_iter().map(state).max().unwrap_or(Part::None)
    }

    fn rules_status(&self, now: Duration) -> RulesStatus {
        let settings = self.settings.rules;
        RulesStatus {
            mode: match settings.mode {
                FilterMode::Nftables => "nftables".to_owned(),
                FilterMode::Iptables(_) => "iptables".to_owned(),
            },
            masquerade: settings.masquerade != Masquerade::Off,
            forward: settings.forward,
            state: if self.rules.is_settled() {
                Part::Ok
            } else if self.rules.is_failing() {
                Part::Failing
            } else {
                Part::Pending
            },
            kernel: kernel_status(&self.rules, now),
        }
    }
}

fn refused(subnet: String, public_ip: Option<IpAddr>, error: Option<String>) -> PeerStatus {
    PeerStatus {
        subnet,
        public_ip,
        vtep_mac: None,
        public_key: None,
        way: None,
        state: PeerState::Refused,
        route: Part::None,
        neigh: Part::None,
        fdb: Part::None,
        wireguard: Part::None,
        seen: None,
        error,
        attempts: 0,
    }
}

/// A lease's subnets for people.
fn subnets(key: SubnetKey) -> String {
    let subnets: Vec<_> = key.subnets().map(|subnet| subnet.to_string()).collect();
    subnets.join(" ")
}

fn kernel_status(engine: &Reconciler, now: Duration) -> KernelStatus {
    let insight = engine.insight();
    let mut differing: BTreeMap<String, u64> = BTreeMap::new();
    for (object, _) in insight.differing() {
        *differing.entry(kind_name(object).to_owned()).or_default() += 1;
    }
    let troubles = insight.differing().take(MAX_TROUBLES);
    let troubles = troubles.map(|(object, since)| Trouble {
        object: object.to_string(),
        secs: now.saturating_sub(since).as_secs(),
        error: engine
            .failure(object)
            .and_then(|failure| failure.refusal.as_ref())
            .map(|err| err.message.clone()),
    });
    KernelStatus {
        counts: insight.counts().clone(),
        differing,
        troubles: troubles.collect(),
    }
}
