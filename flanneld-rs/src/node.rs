//! Everything the daemon decides, without I/O: events in, actions out.
//!
//! A node first looks whether its device is already there (its MAC address then stays), looks for its stored lease,
//! acquires it, makes the device, writes the subnet file, and from then on keeps the kernel as the
//! leases say. Peers that an earlier life programmed stay untouched through all of this. The driver only carries
//! actions out and brings their answers back; the simulation tests do the same with kernels in memory.

use std::collections::BTreeMap;
use std::time::Duration;

use flannel_types::{Lease, LeaseAttrs, SubnetEnv};
use lease_store::LeaseEvent;
use net_types::{IfName, MacAddr};
use netstate::{KernelError, Prune, Scope, State};
use tracing::{error, info, warn};

use crate::desired::{self, Side};
use crate::lease_view::SnapshotOutcome;
use crate::reconciler::{Goal, Input, Reconciler, Work};

use announced::{public_key, vtep_mac};
use commands::StartCommand;
use found::{Found, found};
use holding::{Holding, NewGoal, SubnetFile};
use new_conf::NewConf;
pub use protocol::{
    Action, CarrierSettings, Event, HostAddrs, HostLinks, Move, Now, Outlook, RefusedConf, Settings,
    SideSettings, StopReason, StoreFailure, VxlanSettings,
};
pub use standing::NotReady;
use standing::Standing;

mod acquiring;
mod announced;
mod commands;
mod found;
mod holding;
mod new_conf;
mod protocol;
mod reach;
mod standing;
mod telling;
#[cfg(test)]
mod tests;
mod trial;
mod underlay;
mod ways;

/// A lease store that did not answer is asked again after this long.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// A subnet file that could not be written is written again after this long.
const SUBNET_FILE_RETRY: Duration = Duration::from_secs(5);

/// The node. See the module's description.
#[derive(Debug)]
pub struct Node {
    settings: Settings,
    stage: Stage,
    engine: Reconciler,
    /// Keeps the packet filter rules, apart from everything else: they change with the own lease only, and may have to
    /// wait for a lock of others.
    rules: Reconciler,
    retry_at: Option<Duration>,
    /// Why the last attempt to get a lease failed, so that it is logged once.
    told: Option<String>,
    /// What the store says of the configuration.
    new_conf: NewConf,
    /// Until when the device is to be there, where another configuration can count again.
    trial_until: Option<Duration>,
    standing: Standing,
    /// Whether an interface is looked for that has what this one lost.
    looks_for_interface: bool,
}

#[derive(Debug)]
enum Stage {
    /// Not yet known whether the device exists.
    LookingForDevice,
    /// The devices' MACs, as far as they exist, and the subnets of the peers that they carry are known.
    LookingForLease(Found),
    /// The devices' MACs are settled, and announced in these attributes.
    AcquiringLease {
        found: Found,
        macs: BTreeMap<IfName, MacAddr>,
        attrs: LeaseAttrs,
    },
    /// A command of the administrator's runs that the start needs.
    StartCommand(StartCommand),
    /// The lease is held; until the subnet file is written only the device is made.
    Holding(Box<Holding>),
    Stopped,
}

impl Node {
    /// A node that knows nothing yet; give it [`Event::Start`].
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            new_conf: NewConf::new(settings.conf.clone(), settings.refused.clone()),
            trial_until: None,
            stage: Stage::LookingForDevice,
            engine: Reconciler::default(),
            rules: Reconciler::with_audit_interval(settings.rules_audit),
            settings,
            retry_at: None,
            told: None,
            standing: Standing::default(),
            looks_for_interface: false,
        }
    }

    /// Takes an event and returns what to do.
    pub fn handle(&mut self, now: Now, event: Event) -> Vec<Action> {
        let mut actions = Vec::new();
        match event {
            Event::Start => actions.push(self.look_for_device()),
            Event::Observed(observation) => actions.extend(self.observed(now, observation)),
            Event::Applied(results) => self.engine.applied(results),
            Event::KernelChanged => {
                self.engine.look_again();
                self.host_changed();
            }
            Event::KernelChangedAt(spots) => self.engine.look_at(spots),
            Event::RulesObserved(observation) => {
                self.rules.observed(now.monotonic, observation);
                self.look_after_own_rules();
                actions.extend(self.device_settled());
            }
            Event::RulesApplied(results) => self.rules.applied(results),
            Event::RulesChanged => self.rules.look_again(),
            Event::LeaseFound(result) => actions.extend(self.lease_found(now, result)),
            Event::LeaseAcquired(result) => actions.extend(self.lease_acquired(now, result)),
            Event::LeaseRenewed(result) => actions.extend(self.lease_renewed(now, result)),
            Event::Lease(event) => actions.extend(self.lease_event(now, event)),
            Event::SubnetFileWritten(result) => actions.extend(self.subnet_file_written(now, result)),
            Event::SubnetFileLost => actions.extend(self.subnet_file_lost()),
            Event::HostLinks(links) => actions.extend(self.note_host_links(&links)),
            Event::HostRoutesChanged => self.host_changed(),
            Event::RoutesFound(found) => self.routes_found(now, found),
            Event::ParentRenamed(parent) => {
                self.follow(parent);
                self.engine.look_again();
                self.host_changed();
            }
            Event::CommandDone(result) => actions.extend(self.command_done(now, result)),
            Event::InterfaceFound(found) => actions.extend(self.interface_found(found)),
            Event::ConfTried(result) => actions.extend(self.new_conf.tried(now.monotonic, result)),
            Event::Tick => {}
        }
        actions.extend(self.look_for_interface());
        actions.extend(self.due(now));
        self.report(now);
        actions
    }

    /// When [`Event::Tick`] is next needed, on the monotonic clock.
    #[must_use]
    pub fn wake_at(&self, now: Now) -> Option<Duration> {
        let engine = self.engine.wake_at(now.monotonic);
        let (view, renewal, look_up, command, conf) = match &self.stage {
            Stage::Holding(holding) => (
                holding.view.wake_at(now.monotonic),
                holding.keeper.wait(now.wall).map(|wait| now.monotonic + wait),
                holding.look_up_at(),
                holding.command_at(now.monotonic),
                self.new_conf.wake_at(),
            ),
            Stage::LookingForDevice
            | Stage::LookingForLease(_)
            | Stage::AcquiringLease { .. }
            | Stage::StartCommand(_)
            | Stage::Stopped => (None, None, None, None, None),
        };
        let rules = self.rules.wake_at(now.monotonic);
        let own = [self.retry_at, self.trial_until, conf];
        [engine, rules, view, renewal, look_up, command]
            .into_iter()
            .chain(own)
            .flatten()
            .min()
    }

    /// Begins to keep what the reconciler of links, routes and entries is told, for [`Self::take_inputs`].
    pub fn keep_inputs(&mut self) {
        self.engine.keep_inputs();
    }

    /// Takes what it was told since the last call, if that is kept.
    pub fn take_inputs(&mut self) -> Vec<Input> {
        self.engine.take_inputs()
    }

    /// The reconciler, for whoever reports on the node's state.
    #[must_use]
    pub const fn engine(&self) -> &Reconciler {
        &self.engine
    }

    /// This node's part of the overlay by family, once the lease is held.
    pub fn sides(&self) -> impl Iterator<Item = &Side> {
        let held = self.holding().map_or(&[][..], |holding| holding.sides.as_slice());
        held.iter().map(|held| &held.side)
    }

    /// What the subnet file is to say, once the lease is held.
    #[must_use]
    pub fn subnet_env(&self) -> Option<&SubnetEnv> {
        self.holding().map(|holding| &holding.wants.subnet_env)
    }

    fn look_for_device(&self) -> Action {
        let settings = &self.settings;
        let scope = desired::first_look(
            &settings.all_networks(),
            settings.devices(),
            &settings.former_devices,
        );
        Action::Kernel(Work::Observe(scope))
    }

    fn observed(&mut self, now: Now, observation: Result<State, KernelError>) -> Option<Action> {
        if !matches!(self.stage, Stage::LookingForDevice) {
            self.engine.observed(now.monotonic, observation);
            self.forget_leftovers();
            self.leave_refused_to_the_tunnel();
            return self.device_settled();
        }
        match observation {
            Ok(state) => {
                self.stage = Stage::LookingForLease(found(&state, &self.settings));
                Some(Action::FindLease(self.settings.public_addrs()))
            }
            Err(err) => {
                warn!(%err, "cannot observe the kernel, will try again");
                self.retry_at = Some(now.monotonic + STORE_RETRY);
                None
            }
        }
    }

    /// Once what an earlier life left is gone, a device that somebody makes later under such a name is theirs.
    fn forget_leftovers(&mut self) {
        if let Stage::Holding(holding) = &mut self.stage
            && self.engine.sees_none_of(holding.wants.left.devices.iter())
            && (holding.wants.left.networks.is_empty() || self.engine.is_clean())
        {
            holding.forget_leftovers();
        }
    }

    /// Once the rules are as they should be, what another mode could have left is gone for good: looking for it again
    /// would mean running others' programs.
    fn look_after_own_rules(&mut self) {
        let Stage::Holding(holding) = &self.stage else {
            return;
        };
        if self.rules.is_clean() {
            let scope = desired::rules_scope_of(self.settings.rules.mode);
            let sides: Vec<_> = holding.sides.iter().map(|held| held.side.clone()).collect();
            self.rules.set_goal(self.rules_goal(&sides, scope));
        }
    }

    fn rules_goal(&self, sides: &[Side], scope: Scope) -> Goal {
        let network = |side: &Side| desired::Network {
            cluster: side.network,
            subnet: side.subnet,
        };
        let networks: Vec<_> = sides.iter().map(network).collect();
        Goal {
            desired: desired::rules(self.settings.rules, &networks),
            scope,
            prune: Prune::Remove,
        }
    }

    fn stop(&mut self, reason: StopReason) -> Action {
        self.stage = Stage::Stopped;
        self.engine = Reconciler::default();
        self.rules = Reconciler::default();
        Action::Stop(reason)
    }

    fn lease_renewed(&mut self, now: Now, result: Result<Lease, StoreFailure>) -> Option<Action> {
        let Stage::Holding(holding) = &mut self.stage else {
            return None;
        };
        match result {
            Ok(lease) => {
                info!(subnet = %lease.key, "lease renewed");
                self.standing.renewed();
                holding.keeper.renewed(now.wall, Some(lease));
                None
            }
            Err(failure) if failure.outlook == Outlook::Lost => Some(self.stop(StopReason::LeaseRevoked)),
            Err(failure) => {
                warn!(reason = %failure.message, "the lease could not be renewed, will try again");
                self.standing.renewal_failed(failure.message);
                holding.keeper.renewed(now.wall, None);
                None
            }
        }
    }

    fn lease_event(&mut self, now: Now, event: LeaseEvent) -> Option<Action> {
        self.standing.store_event(&event);
        let Stage::Holding(holding) = &mut self.stage else {
            return None;
        };
        let mut revoked = false;
        match event {
            LeaseEvent::Snapshot { config, leases } => {
                self.new_conf.see(now.monotonic, &config);
                let outcome = holding.view.snapshot(now.monotonic, leases);
                telling::log_outcome(outcome);
                revoked = outcome == SnapshotOutcome::OwnLeaseGone;
                holding.divide();
            }
            LeaseEvent::Put(lease) => {
                let key = lease.key;
                revoked = holding.view.put(lease);
                holding.divide_one(key);
            }
            LeaseEvent::Remove(key) => {
                revoked = holding.view.remove(&key);
                holding.divide_one(key);
            }
            LeaseEvent::Unsynced { reason } => {
                warn!(%reason, "the lease store is out of reach; the data plane stays as it is");
                holding.view.unsynced();
            }
        }
        if revoked && holding.keeper.is_expired(now.wall) {
            // The machine slept, or the clock was set: the renewal, which is due, tells whether the lease is lost.
            info!("the own lease has run out, renewing it");
            holding.view.unsynced();
            // A new configuration is looked at once the lease is held again.
            self.new_conf.forget();
        } else if revoked {
            return Some(self.stop(StopReason::LeaseRevoked));
        }
        holding.note_rival();
        None
    }

    /// Writes the subnet file as soon as the device is as it should be, and the rules are or cannot be: pods whose
    /// traffic to the outside is not masqueraded still reach each other.
    fn device_settled(&mut self) -> Option<Action> {
        let Stage::Holding(holding) = &mut self.stage else {
            return None;
        };
        let rules_are_done = self.rules.is_settled() || self.rules.is_failing();
        if holding.file != SubnetFile::NotReady || !self.engine.is_settled() || !rules_are_done {
            return None;
        }
        self.trial_until = None;
        Some(holding.write_file(SubnetFile::Writing))
    }

    fn subnet_file_written(&mut self, now: Now, result: Result<(), String>) -> Option<Action> {
        let Stage::Holding(holding) = &mut self.stage else {
            return None;
        };
        let is_first = !holding.file.is_there();
        match result {
            Ok(()) => {
                if is_first {
                    info!("flannel is ready");
                }
                holding.file_written()
            }
            Err(reason) => {
                if is_first {
                    // Peers are programmed all the same: pods that run already need them.
                    error!(
                        reason,
                        "what tells the runtime of the network could not be written: no pod can start here; will try again"
                    );
                } else {
                    error!(
                        reason,
                        "the subnet file could not be written anew: pods that start get the MTU from before; will try again"
                    );
                }
                self.retry_at = Some(now.monotonic + SUBNET_FILE_RETRY);
                None
            }
        }
    }

    /// Without the file no pod can start here.
    fn subnet_file_lost(&mut self) -> Option<Action> {
        let Stage::Holding(holding) = &mut self.stage else {
            return None;
        };
        if holding.file != SubnetFile::Written {
            return None;
        }
        warn!("somebody removed or changed the subnet file, writing it again");
        Some(holding.write_file(SubnetFile::Writing))
    }

    /// What is due by time alone.
    fn due(&mut self, now: Now) -> Vec<Action> {
        let mut actions = Vec::new();
        actions.extend(self.end_trial(now.monotonic));
        if self.retry_at.is_some_and(|at| at <= now.monotonic) {
            self.retry_at = None;
            actions.extend(self.retry());
        }
        if let Stage::Holding(holding) = &mut self.stage {
            if holding.view.expire(now.monotonic) {
                holding.divide();
            }
            actions.extend(holding.look_up(now.monotonic).map(Action::LookUpRoutes));
            match holding.new_goal(now) {
                NewGoal::Same => {}
                NewGoal::Whole(goal) => self.engine.set_goal(goal),
                NewGoal::Some { gone, wanted } => self.engine.change_goal(&gone, wanted),
            }
            actions.extend(holding.keeper.due(now.wall).map(Action::RenewLease));
            actions.extend(holding.next_command(now.monotonic).map(Action::RunCommand));
            actions.extend(self.new_conf.due(now.monotonic));
        }
        actions.extend(self.engine.next_work(now.monotonic).map(Action::Kernel));
        actions.extend(self.rules.next_work(now.monotonic).map(Action::Rules));
        actions
    }

    fn retry(&mut self) -> Option<Action> {
        match &mut self.stage {
            Stage::LookingForDevice => Some(self.look_for_device()),
            Stage::LookingForLease(_) => Some(Action::FindLease(self.settings.public_addrs())),
            Stage::AcquiringLease { attrs, .. } => Some(Action::AcquireLease(attrs.clone())),
            Stage::Holding(holding) => matches!(holding.file, SubnetFile::Writing | SubnetFile::Rewriting)
                .then(|| holding.write_file(holding.file)),
            Stage::StartCommand(_) | Stage::Stopped => None,
        }
    }

    fn report(&mut self, now: Now) {
        let off_link = (!self.settings.direct_routing).then_some(telling::OFF_LINK);
        telling::log_reports(self.engine.take_reports(), off_link);
        telling::log_reports(self.rules.take_reports(), None);
        self.note_readiness(now.monotonic);
    }
}
