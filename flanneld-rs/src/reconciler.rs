//! When to look at the kernel, and what to change there: the engine between a desired state and a kernel.
//!
//! It is level-triggered and does no I/O. Whoever drives it hands in goals, notices and results, asks
//! [`Reconciler::next_work`] what to do, and calls again at [`Reconciler::wake_at`]. Time is a duration since any
//! fixed moment. A round observes, applies what differs and observes again, because an acknowledgement proves
//! nothing; what still differs then has failed, and is retried with back-off while everything else goes on.
//!
//! It names nothing of flannel's: any desired state will do.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use net_types::IfName;
use netstate::{ErrorClass, KernelError, ObjectKey, Op, Prune, Scope, State, plan};

use held::HeldRoutes;
use insight::{Difference, Insight};
use pace::Pace;

mod held;
pub mod insight;
mod pace;
#[cfg(test)]
mod tests;

/// A full observation is made this long after the last one, even if nothing seems to have changed.
const AUDIT_INTERVAL: Duration = Duration::from_secs(60);
/// An observation that failed is repeated after this long.
const OBSERVE_RETRY: Duration = Duration::from_millis(200);
/// How often one round may apply and observe before the others get their turn.
const MAX_PASSES: u32 = 3;
const REFUSED_FIRST_DELAY: Duration = Duration::from_millis(100);
const REFUSED_MAX_DELAY: Duration = Duration::from_secs(30);
/// Used where the next attempt is cheap and the cause may vanish unnoticed: no such link, or no visible effect.
const SHORT_MAX_DELAY: Duration = Duration::from_secs(1);

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
    /// Apply these changes in order.
    Apply(Vec<Op>),
}

/// An object that differs from the desired state although a change was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the kernel said; `None` when it acknowledged the change but nothing changed.
    pub refusal: Option<KernelError>,
    /// How often a change was tried in vain.
    pub attempts: u32,
    retry_at: Duration,
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
    /// Something may have changed since the last observation began.
    look_again: bool,
    /// The causes of refusals may have gone: they are tried again without waiting for their time.
    retry_refused: bool,
    /// The changes just applied are yet to be verified by an observation.
    verify: bool,
    passes: u32,
    pace: Pace,
    audit_at: Duration,
    observe_retry_at: Option<Duration>,
    attempted: BTreeMap<ObjectKey, Result<(), KernelError>>,
    failures: BTreeMap<ObjectKey, Failure>,
    held_routes: HeldRoutes,
    /// Why the last observation failed, so that it is reported once.
    unobservable: Option<KernelError>,
    /// Whether the last observation for this goal showed all that is desired.
    settled: bool,
    /// Whether it also showed nothing too many.
    clean: bool,
    reports: Vec<Report>,
    insight: Insight,
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
    Observing,
    Planned(Vec<Op>),
    /// The objects of the changes under way, in order.
    Applying(Vec<ObjectKey>),
}

impl Reconciler {
    /// An engine that observes in full this long after the last time, even if nothing seems to have changed.
    #[must_use]
    pub fn with_audit_interval(audit_interval: Duration) -> Self {
        Self {
            audit_interval,
            goal: None,
            phase: Phase::Idle,
            look_again: false,
            retry_refused: false,
            verify: false,
            passes: 0,
            pace: Pace::default(),
            audit_at: Duration::ZERO,
            observe_retry_at: None,
            attempted: BTreeMap::new(),
            failures: BTreeMap::new(),
            held_routes: HeldRoutes::default(),
            unobservable: None,
            settled: false,
            clean: false,
            reports: Vec::new(),
            insight: Insight::default(),
        }
    }

    /// Sets what the kernel should hold; takes effect at once, within the pace.
    pub fn set_goal(&mut self, goal: Goal) {
        if self.goal.as_ref() == Some(&goal) {
            return;
        }
        // What was acknowledged for the old goal says nothing about the new one.
        self.attempted.retain(|_, result| result.is_err());
        let old = self.goal.as_ref().map(|goal| &goal.desired);
        self.held_routes.change_goal(old, &goal.desired);
        self.goal = Some(goal);
        self.insight.goal_changes();
        self.settled = false;
        self.clean = false;
        self.look_again();
    }

    /// Tells that something in the kernel may have changed.
    pub fn look_again(&mut self) {
        self.look_again = true;
        self.retry_refused = true;
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
        !self.failures.is_empty() || self.unobservable.is_some()
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
        let work = self.begin_work(now);
        if work.is_some() {
            self.insight.work_begins(now);
        }
        work
    }

    fn begin_work(&mut self, now: Duration) -> Option<Work> {
        match std::mem::take(&mut self.phase) {
            Phase::Planned(ops) => {
                self.phase = Phase::Applying(ops.iter().map(Op::object).collect());
                Some(Work::Apply(ops))
            }
            Phase::Idle => self.begin_observation(now),
            busy @ (Phase::Observing | Phase::Applying(_)) => {
                self.phase = busy;
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
            Phase::Observing | Phase::Applying(_) => None,
            Phase::Planned(_) => Some(now),
            Phase::Idle if self.verify => Some(now),
            Phase::Idle => {
                let due = self.due_at();
                Some(due.max(self.pace.next_start(now)))
            }
        }
    }

    fn due_at(&self) -> Duration {
        if self.look_again {
            return Duration::ZERO;
        }
        let retries = self.failures.values().map(|failure| failure.retry_at);
        retries
            .chain(self.observe_retry_at)
            .fold(self.audit_at, Duration::min)
    }

    fn begin_observation(&mut self, now: Duration) -> Option<Work> {
        let goal = self.goal.as_ref()?;
        if self.verify {
            self.verify = false;
        } else {
            if self.due_at() > now || !self.pace.start(now) {
                return None;
            }
            self.passes = 0;
            self.insight.round_begins(now);
        }
        self.look_again = false;
        self.observe_retry_at = None;
        self.phase = Phase::Observing;
        Some(Work::Observe(goal.scope.clone()))
    }

    /// Takes the answer to [`Work::Observe`].
    pub fn observed(&mut self, now: Duration, observation: Result<State, KernelError>) {
        self.phase = Phase::Idle;
        let Some(goal) = &self.goal else { return };
        let state = match observation {
            Ok(state) => state,
            Err(err) => {
                self.insight.unobservable(now, &err);
                if self.unobservable.as_ref() != Some(&err) {
                    self.reports.push(Report::Unobservable(err.clone()));
                    self.unobservable = Some(err);
                }
                self.observe_retry_at = Some(now + OBSERVE_RETRY);
                // What was applied stays unverified until an observation succeeds.
                self.audit_at = now + self.audit_interval;
                return;
            }
        };
        self.unobservable = None;
        self.held_routes.observed(&goal.desired, &state);
        let ops = plan(&goal.desired, &state, goal.prune);
        self.audit_at = now + self.audit_interval;
        self.count_failures(now, &ops);
        self.insight.observed(now, ops.iter().map(difference));
        self.settled = !ops.iter().any(adds);
        self.clean = ops.is_empty();
        let due = self.due_ops(now, ops);
        // A notice during the observation may be newer than what was observed.
        self.retry_refused = self.look_again;
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
            self.look_again = true;
        }
    }

    /// Takes the answer to [`Work::Apply`]: one result for each change, in order.
    pub fn applied(&mut self, results: Vec<Result<(), KernelError>>) {
        let Phase::Applying(objects) = std::mem::take(&mut self.phase) else {
            return;
        };
        for (object, result) in objects.into_iter().zip(results) {
            self.insight.applied(&object, &result);
            // Of several changes to one object the first refusal is the cause of the others.
            let outcome = self.attempted.entry(object).or_insert(Ok(()));
            if outcome.is_ok() {
                *outcome = result;
            }
        }
        self.verify = true;
    }

    /// What was attempted and still differs has failed; what differs no more has recovered.
    fn count_failures(&mut self, now: Duration, ops: &[Op]) {
        let differing: BTreeSet<ObjectKey> = ops.iter().map(Op::object).collect();
        let recovered: Vec<_> = self
            .failures
            .keys()
            .filter(|key| !differing.contains(*key))
            .cloned()
            .collect();
        for key in recovered {
            self.failures.remove(&key);
            self.reports.push(Report::Recovered(key));
        }
        for (key, result) in std::mem::take(&mut self.attempted) {
            if !differing.contains(&key) {
                continue;
            }
            let attempts = self.failures.get(&key).map_or(0, |failure| failure.attempts) + 1;
            let refusal = result.err();
            let retry_at = now + delay(refusal.as_ref(), attempts);
            let failure = Failure {
                refusal,
                attempts,
                retry_at,
            };
            if attempts == 1 {
                self.reports.push(Report::Failed(key.clone(), failure.clone()));
            }
            self.failures.insert(key, failure);
        }
    }

    /// The changes to make now: not those whose back-off has not run out, nor those on a link that cannot be made.
    fn due_ops(&self, now: Duration, mut ops: Vec<Op>) -> Vec<Op> {
        let waits = |op: &Op| match self.failures.get(&op.object()) {
            Some(failure) if failure.retry_at > now => failure.refusal.is_none() || !self.retry_refused,
            Some(_) | None => false,
        };
        let makes = |op: &&Op| matches!(op, Op::AddLink(..));
        let missing: BTreeSet<IfName> = ops
            .iter()
            .filter(makes)
            .filter(|op| waits(op))
            .filter_map(|op| op.link().cloned())
            .collect();
        let is_blocked = |op: &Op| match op.link() {
            Some(link) => missing.contains(link),
            None => !missing.is_empty(),
        };
        ops.retain(|op| !waits(op) && !is_blocked(op));
        ops
    }
}

fn difference(op: &Op) -> (ObjectKey, Difference) {
    let difference = if adds(op) {
        Difference::Missing
    } else {
        Difference::Harmless
    };
    (op.object(), difference)
}

/// Whether a change brings something that is desired, and without which the data plane does not work.
const fn adds(op: &Op) -> bool {
    match op {
        Op::AddLink(..)
        | Op::SetLink(..)
        | Op::AddAddr(..)
        | Op::AddRoute(..)
        | Op::ReplaceRoute(..)
        | Op::SetNeigh(..)
        | Op::SetFdb(_)
        | Op::SetNftTable(..)
        | Op::SetIptables(..) => true,
        Op::DelLink(_)
        | Op::DelAddr(_)
        | Op::DelRoute(..)
        | Op::DelNeigh(_)
        | Op::DelFdb(_)
        | Op::SetSysctl(..)
        | Op::DelNftTable(_) => false,
    }
}

fn delay(refusal: Option<&KernelError>, attempts: u32) -> Duration {
    let max = match refusal.map(|err| err.class) {
        None | Some(ErrorClass::NoDevice | ErrorClass::LinkDown | ErrorClass::Busy) => SHORT_MAX_DELAY,
        Some(
            ErrorClass::Exists
            | ErrorClass::NotFound
            | ErrorClass::Unreachable
            | ErrorClass::Denied
            | ErrorClass::Unsupported
            | ErrorClass::Other(_),
        ) => REFUSED_MAX_DELAY,
    };
    let doubled = REFUSED_FIRST_DELAY.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    doubled.min(max)
}
