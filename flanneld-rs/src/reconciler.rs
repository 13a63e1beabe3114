//! When to look at the kernel, and what to change there: the engine between a desired state and a kernel.
//!
//! It is level-triggered and does no I/O. Whoever drives it hands in goals, notices and results, asks
//! [`Reconciler::next_work`] what to do, and calls again at [`Reconciler::wake_at`]. Time is a duration since any
//! fixed moment. A round observes, applies what differs and observes again, because an acknowledgement proves
//! nothing; what still differs then has failed, and is retried with back-off while everything else goes on.
//!
//! In between it keeps a mirror of the kernel: a change of the goal is compared with that alone, and a notice or a
//! change under way leads to a look at its spots. Everything is looked at where a link or an address is concerned, when
//! it is not known what has changed, and in an audit now and then.
//!
//! It names nothing of flannel's: any desired state will do.

use std::collections::BTreeSet;
use std::time::Duration;

use net_types::IfName;
use netstate::{KernelError, ObjectKey, Op, Prune, Scope, Spot, State, plan};

use effect::{adds, difference, flushes};
use endpoints::ToldEndpoints;
pub use failures::Failure;
use failures::Failures;
use held::HeldRoutes;
pub use input::Input;
use input::Tape;
use insight::Insight;
use mirror::{Mirror, Unseen};
use pace::Pace;

mod attempted;
mod effect;
mod endpoints;
mod failures;
mod held;
mod input;
pub mod insight;
mod mirror;
mod pace;
#[cfg(test)]
mod tests;

/// A full observation is made this long after the last one, even if nothing seems to have changed.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);
/// So many routes, neighbours and entries add another such interval: reading and comparing them takes 18 ms of processor
/// time (`scripts/bench scale`), which is to be spent once a minute at most. Notices tell of changes at once, and of notices
/// that were lost the kernel tells too.
const AUDITED_PER_INTERVAL: usize = 10_000;
/// An observation that failed is repeated after this long.
const OBSERVE_RETRY: Duration = Duration::from_millis(200);
/// How often one round may apply and observe before the others get their turn.
const MAX_PASSES: u32 = 3;

/// What the kernel should hold, and how far this may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// The desired state.
    pub desired: State,
    /// What is ours.
    pub scope: Scope,
    /// Whether what is ours but not desired is removed.
    pub prune: Prune,
}

/// What to do next with the kernel; the answer goes to [`Reconciler::observed`] or [`Reconciler::applied`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// Observe this scope.
    Observe(Scope),
    /// Observe these spots of the scope.
    ObserveAt(Scope, BTreeSet<Spot>),
    /// Apply these changes in order.
    Apply(Vec<Op>),
}

/// Something worth telling a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A change failed that had not failed before.
    Failed(ObjectKey, Failure),
    /// An object that had failed is as desired, or no longer wanted.
    Recovered(ObjectKey),
    /// The kernel could not be observed.
    Unobservable(KernelError),
}

/// The engine. See the module's description.
#[derive(Debug)]
pub struct Reconciler {
    audit_interval: Duration,
    goal: Option<Goal>,
    phase: Phase,
    /// What the last observations showed; `None` when that is not known.
    mirror: Option<Mirror>,
    unseen: Unseen,
    /// A link or an address differs: to change it flushes what is not in the mirror.
    flush_ahead: bool,
    /// The goal is otherwise than when it was compared last.
    goal_changed: bool,
    /// The causes of refusals may have gone: they are tried again without waiting for their time.
    retry_refused: bool,
    /// The changes just applied are yet to be verified by an observation.
    verify: bool,
    passes: u32,
    pace: Pace,
    audit_at: Duration,
    observe_retry_at: Option<Duration>,
    failures: Failures,
    held_routes: HeldRoutes,
    told_endpoints: ToldEndpoints,
    /// Why the last observation failed, so that it is reported once.
    unobservable: Option<KernelError>,
    /// Whether the last observation for this goal showed all that is desired.
    settled: bool,
    /// Whether it also showed nothing too many.
    clean: bool,
    reports: Vec<Report>,
    insight: Insight,
    tape: Tape,
}

impl Default for Reconciler {
    fn default() -> Self {
        Self::with_audit_interval(AUDIT_INTERVAL)
    }
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Idle,
    /// At these spots, or everywhere.
    Observing(Option<BTreeSet<Spot>>),
    Planned(Vec<Op>),
    Applying(Applying),
}

/// Changes under way.
#[derive(Debug)]
struct Applying {
    /// Their objects, in order.
    objects: Vec<ObjectKey>,
    /// The goal has changed since: what is acknowledged says nothing about it.
    outdated: bool,
    /// Where it has: neither does what is refused.
    renewed: BTreeSet<Spot>,
}

impl Applying {
    /// Takes that the goal has changed, at these spots among others.
    fn renew(&mut self, is_changed: impl Fn(&Spot) -> bool) {
        self.outdated = true;
        let spots = self.objects.iter().filter_map(Spot::of);
        self.renewed.extend(spots.filter(is_changed));
    }
}

impl Reconciler {
    /// An engine that observes in full this long after the last time, even if nothing seems to have changed.
    #[must_use]
    pub fn with_audit_interval(audit_interval: Duration) -> Self {
        Self {
            audit_interval,
            goal: None,
            phase: Phase::Idle,
            mirror: None,
            unseen: Unseen::Nothing,
            flush_ahead: false,
            goal_changed: false,
            retry_refused: false,
            verify: false,
            passes: 0,
            pace: Pace::default(),
            audit_at: Duration::ZERO,
            observe_retry_at: None,
            failures: Failures::default(),
            held_routes: HeldRoutes::default(),
            told_endpoints: ToldEndpoints::default(),
            unobservable: None,
            settled: false,
            clean: false,
            reports: Vec::new(),
            insight: Insight::default(),
            tape: Tape::default(),
        }
    }

    /// Begins to keep its inputs for [`Self::take_inputs`].
    pub fn keep_inputs(&mut self) {
        self.tape.start();
    }

    /// Takes the inputs since the last call, if they are kept.
    pub fn take_inputs(&mut self) -> Vec<Input> {
        self.tape.take()
    }

    /// Sets what the kernel should hold; takes effect at once, within the pace.
    pub fn set_goal(&mut self, goal: Goal) {
        if self.goal.as_ref() != Some(&goal) {
            self.take_goal(goal);
        }
    }

    /// Sets what the kernel should hold although it may be the same as before.
    pub(crate) fn take_goal(&mut self, mut goal: Goal) {
        self.tape.note(|| Input::Goal(goal.desired.clone(), goal.prune));
        goal.desired.pack();
        let old = self.goal.as_ref().map(|goal| &goal.desired);
        self.held_routes.change_goal(old, &goal.desired);
        let is_changed = |spot: &Spot| !old.is_some_and(|old| old.agrees_at(&goal.desired, spot));
        self.failures.forget_acknowledged();
        self.failures.renew(is_changed);
        if let Phase::Applying(applying) = &mut self.phase {
            applying.renew(is_changed);
        }
        self.goal = Some(goal);
        self.mirror = None;
        self.insight.goal_changes();
        self.goal_is_unmet();
        self.anything_may_differ();
    }

    /// Changes what the kernel should hold in its large tables, as [`Self::set_goal`] with everything else as before:
    /// what stands at the spots of `gone` is not desired any more, and that of `wanted` is.
    pub fn change_goal(&mut self, gone: &State, wanted: State) {
        let Some(goal) = &mut self.goal else { return };
        self.tape.note(|| Input::Change {
            gone: Box::new(gone.clone()),
            wanted: Box::new(wanted.clone()),
        });
        let mut spots = gone.spots();
        spots.extend(wanted.spots());
        let before = goal.desired.at(&spots);
        spots.iter().for_each(|spot| goal.desired.clear_at(spot));
        self.held_routes.change_some(&before, &wanted);
        goal.desired.absorb(wanted);
        if let Some(mirror) = &mut self.mirror {
            mirror.change_goal(&goal.desired, &before, &spots);
        }
        self.failures.renew(|spot| spots.contains(spot));
        if let Phase::Applying(applying) = &mut self.phase {
            applying.renew(|spot| spots.contains(spot));
        }
        self.insight.goal_changes_at(&spots);
        self.goal_is_unmet();
    }

    const fn goal_is_unmet(&mut self) {
        self.goal_changed = true;
        self.settled = false;
        self.clean = false;
    }

    /// Tells that something in the kernel may have changed.
    pub fn look_again(&mut self) {
        self.tape.note(|| Input::LookAgain);
        self.anything_may_differ();
    }

    fn anything_may_differ(&mut self) {
        self.unseen = Unseen::Anything;
        self.retry_refused = true;
    }

    /// Tells that what stands at some spots may have changed. A change that was refused there is tried again at once.
    pub fn look_at(&mut self, spots: BTreeSet<Spot>) {
        self.tape.note(|| Input::LookAt(spots.clone()));
        self.failures.retry_refused_at(&spots);
        self.unseen.add(spots);
    }

    /// What the kernel holds within the scope, as it was seen; `None` while something is yet to be seen.
    #[must_use]
    pub fn seen(&self) -> Option<State> {
        if self.is_looking() {
            return None;
        }
        let (mirror, goal) = (self.mirror.as_ref()?, self.goal.as_ref()?);
        Some(mirror.state(&goal.desired))
    }

    /// Whether none of these links is there; not so while something is yet to be seen.
    pub fn sees_none_of<'a>(&self, mut links: impl Iterator<Item = &'a IfName>) -> bool {
        !self.is_looking()
            && self
                .mirror
                .as_ref()
                .is_some_and(|mirror| !links.any(|link| mirror.has_link(link)))
    }

    /// Whether something is yet to be seen.
    const fn is_looking(&self) -> bool {
        !matches!(self.phase, Phase::Idle | Phase::Planned(_)) || self.verify || !self.unseen.is_nothing()
    }

    /// Whether the last observation showed all links, addresses, routes and entries of the present goal. What is too
    /// many does not count, nor do kernel parameters: where `/proc/sys` is read-only the data plane works without them.
    #[must_use]
    pub const fn is_settled(&self) -> bool {
        self.settled
    }

    /// Whether the last observation showed exactly what the present goal is.
    #[must_use]
    pub const fn is_clean(&self) -> bool {
        self.clean
    }

    /// Whether a change was tried in vain, or the kernel cannot be observed.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        !self.failures.is_none() || self.unobservable.is_some()
    }

    /// What differs since when, and what was done until now.
    #[must_use]
    pub const fn insight(&self) -> &Insight {
        &self.insight
    }

    /// The objects that could not be brought to their desired state.
    pub fn failures(&self) -> impl Iterator<Item = (&ObjectKey, &Failure)> {
        self.failures.iter()
    }

    /// Why an object could not be brought to its desired state, if it could not.
    #[must_use]
    pub fn failure(&self, object: &ObjectKey) -> Option<&Failure> {
        self.failures.get(object)
    }

    /// Takes what is worth telling since the last call.
    pub fn take_reports(&mut self) -> Vec<Report> {
        std::mem::take(&mut self.reports)
    }

    /// Returns what to do now, if anything. At most one piece of work is under way at a time.
    pub fn next_work(&mut self, now: Duration) -> Option<Work> {
        self.tape.note(|| Input::Next(now));
        let work = self.begin_work(now);
        if work.is_some() {
            self.insight.work_begins(now);
        }
        work
    }

    fn begin_work(&mut self, now: Duration) -> Option<Work> {
        if matches!(self.phase, Phase::Idle)
            && let Some(observation) = self.begin_observation(now)
        {
            return Some(observation);
        }
        match std::mem::take(&mut self.phase) {
            Phase::Planned(ops) => {
                self.told_endpoints.tell(&ops);
                self.phase = Phase::Applying(Applying {
                    objects: ops.iter().map(Op::object).collect(),
                    outdated: false,
                    renewed: BTreeSet::new(),
                });
                Some(Work::Apply(ops))
            }
            other @ (Phase::Idle | Phase::Observing(_) | Phase::Applying(_)) => {
                self.phase = other;
                None
            }
        }
    }

    /// When [`Self::next_work`] may next have something to do without any call in between; `None` while work is
    /// under way or there is no goal.
    #[must_use]
    pub fn wake_at(&self, now: Duration) -> Option<Duration> {
        self.goal.as_ref()?;
        match self.phase {
            Phase::Observing(_) | Phase::Applying(_) => None,
            Phase::Planned(_) => Some(now),
            Phase::Idle if self.verify => Some(now),
            Phase::Idle => {
                let due = self.due_at();
                Some(due.max(self.pace.next_start(now)))
            }
        }
    }

    fn due_at(&self) -> Duration {
        if self.goal_changed || !self.unseen.is_nothing() {
            return Duration::ZERO;
        }
        let retries = self.failures.retry_at().into_iter();
        retries
            .chain(self.observe_retry_at)
            .fold(self.audit_at, Duration::min)
    }

    /// Begins a round, or goes on with one, if it is time. What need not be seen is compared at once.
    fn begin_observation(&mut self, now: Duration) -> Option<Work> {
        self.goal.as_ref()?;
        if !self.verify {
            if self.due_at() > now || !self.pace.start(now) {
                return None;
            }
            self.passes = 0;
            self.insight.round_begins(now);
        }
        self.goal_changed = false;
        self.observe_retry_at = None;
        for object in self.failures.due(now) {
            self.unseen.add_object(object);
        }
        if self.audit_at <= now || self.mirror.is_none() || self.flush_ahead {
            self.unseen = Unseen::Anything;
        }
        self.verify = false;
        if self.unseen.is_nothing() {
            self.compare(now);
        }
        let scope = self.goal.as_ref()?.scope.clone();
        match std::mem::take(&mut self.unseen) {
            Unseen::Nothing => None,
            Unseen::Spots(spots) => {
                self.phase = Phase::Observing(Some(spots.clone()));
                Some(Work::ObserveAt(scope, spots))
            }
            Unseen::Anything => {
                self.phase = Phase::Observing(None);
                Some(Work::Observe(scope))
            }
        }
    }

    /// Takes the answer to [`Work::Observe`] or [`Work::ObserveAt`].
    pub fn observed(&mut self, now: Duration, observation: Result<State, KernelError>) {
        self.tape.note(|| Input::Observed(now, observation.clone()));
        let Phase::Observing(spots) = std::mem::take(&mut self.phase) else {
            return;
        };
        let Some(goal) = &self.goal else { return };
        let mut state = match observation {
            Ok(state) => state,
            Err(err) => return self.unobservable(now, err),
        };
        self.told_endpoints.settle(&goal.desired, &mut state);
        self.unobservable = None;
        self.goal_changed = false;
        if let Some(spots) = spots {
            // Without a mirror the goal was set meanwhile, and everything is to be seen.
            if let Some(mirror) = &mut self.mirror {
                mirror.look(&goal.desired, spots, state);
            }
            return self.compare(now);
        }
        let ops = plan(&goal.desired, &state, goal.prune);
        self.mirror = Some(Mirror::of(&goal.desired, &state));
        self.audit_at = now + self.audit_interval.saturating_mul(intervals_for(&goal.desired));
        self.judge(now, ops);
    }

    fn unobservable(&mut self, now: Duration, err: KernelError) {
        self.insight.unobservable(now, &err);
        if self.unobservable.as_ref() != Some(&err) {
            self.reports.push(Report::Unobservable(err.clone()));
            self.unobservable = Some(err);
        }
        // What was applied stays unverified until an observation succeeds.
        self.mirror = None;
        self.observe_retry_at = Some(now + OBSERVE_RETRY);
        self.audit_at = now + self.audit_interval;
    }

    /// Compares the mirror with the goal.
    fn compare(&mut self, now: Duration) {
        let (Some(goal), Some(mirror)) = (&self.goal, &self.mirror) else {
            return;
        };
        let ops = mirror.plan(goal);
        debug_assert!(!ops.iter().any(flushes), "the frame was as desired: {ops:?}");
        self.judge(now, ops);
    }

    /// Takes all that differs, and decides what to do about it.
    fn judge(&mut self, now: Duration, ops: Vec<Op>) {
        if let Some(mirror) = &self.mirror {
            self.held_routes.observed(mirror);
        }
        self.reports.extend(self.failures.count(now, &ops));
        self.insight.observed(now, ops.iter().map(difference));
        self.settled = !ops.iter().any(adds);
        self.clean = ops.is_empty();
        self.flush_ahead = ops.iter().any(flushes);
        let mut due = ops;
        if let Some(mirror) = &self.mirror {
            mirror.spare_needed(&mut due);
        }
        self.failures.hold_back(now, self.retry_refused, &mut due);
        // A notice during the observation may be newer than what was observed.
        self.retry_refused = matches!(self.unseen, Unseen::Anything);
        if due.is_empty() {
            self.insight.round_ends(now);
            return;
        }
        if self.passes < MAX_PASSES {
            self.passes += 1;
            let put_back = |op| self.held_routes.put_back(op);
            self.phase = Phase::Planned(due.into_iter().map(put_back).collect());
        } else {
            self.insight.round_ends(now);
            self.unseen = Unseen::Anything;
        }
    }

    /// Takes the answer to [`Work::Apply`]: one result for each change, in order.
    pub fn applied(&mut self, results: Vec<Result<(), KernelError>>) {
        self.tape.note(|| Input::Applied(results.clone()));
        let Phase::Applying(applying) = std::mem::take(&mut self.phase) else {
            return;
        };
        self.told_endpoints.applied(&results);
        for (object, result) in applying.objects.into_iter().zip(results) {
            self.insight.applied(&object, &result);
            self.unseen.add_object(&object);
            let is_renewed = || Spot::of(&object).is_some_and(|spot| applying.renewed.contains(&spot));
            if !(applying.outdated && (result.is_ok() || is_renewed())) {
                self.failures.attempted(object, result);
            }
        }
        self.verify = true;
    }
}

/// How many intervals may pass between two audits of such a goal.
fn intervals_for(desired: &State) -> u32 {
    let objects = desired.routes.len() + desired.neighs.len() + desired.fdb.len();
    u32::try_from(objects / AUDITED_PER_INTERVAL).map_or(u32::MAX, |more| more.saturating_add(1))
}
