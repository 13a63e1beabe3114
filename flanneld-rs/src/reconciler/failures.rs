//! What could not be changed, and when it is tried again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use net_types::IfName;
use netstate::{ErrorClass, KernelError, ObjectKey, Op, Spot};

use super::Report;
use super::attempted::Attempted;

const REFUSED_FIRST_DELAY: Duration = Duration::from_millis(100);
const REFUSED_MAX_DELAY: Duration = Duration::from_secs(30);
/// Used where the next attempt is cheap and the cause may vanish unnoticed: no such link, or no visible effect.
const SHORT_MAX_DELAY: Duration = Duration::from_secs(1);

/// An object that differs from the desired state although a change was tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the kernel said; `None` when it acknowledged the change but nothing changed.
    pub refusal: Option<KernelError>,
    /// How often a change was tried in vain.
    pub attempts: u32,
    retry_at: Duration,
}

/// The changes that were tried in vain, and those of which that is not known yet.
#[derive(Debug, Default)]
pub(super) struct Failures {
    attempted: Attempted,
    failures: BTreeMap<ObjectKey, Failure>,
    /// Those of them that are left out because of a link that cannot be made: their time comes with the link's.
    blocked: BTreeSet<ObjectKey>,
}

impl Failures {
    pub(super) fn is_none(&self) -> bool {
        self.failures.is_empty()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Failure)> {
        self.failures.iter()
    }

    pub(super) fn get(&self, object: &ObjectKey) -> Option<&Failure> {
        self.failures.get(object)
    }

    /// Takes the result of a change that is yet to be verified.
    pub(super) fn attempted(&mut self, object: ObjectKey, result: Result<(), KernelError>) {
        self.attempted.add(object, result);
    }

    /// Forgets all changes that were acknowledged: they are yet to be verified, and may have been meant for an old goal.
    pub(super) fn forget_acknowledged(&mut self) {
        self.attempted.forget_acknowledged();
    }

    /// Takes that something else is wanted at some spots: what was acknowledged or refused there before says nothing about
    /// that, and is no reason to wait.
    pub(super) fn renew(&mut self, is_changed: impl Fn(&Spot) -> bool) {
        let is_changed = |object: &ObjectKey| Spot::of(object).is_some_and(|spot| is_changed(&spot));
        self.attempted.forget(is_changed);
        for failure in self.failures.iter_mut().filter(|(object, _)| is_changed(object)) {
            *failure.1 = Failure {
                refusal: None,
                attempts: 0,
                retry_at: Duration::ZERO,
            };
        }
    }

    /// Has what was refused at some spots tried again at once.
    pub(super) fn retry_refused_at(&mut self, spots: &BTreeSet<Spot>) {
        for (object, failure) in &mut self.failures {
            if failure.refusal.is_some() && Spot::of(object).is_some_and(|spot| spots.contains(&spot)) {
                failure.retry_at = Duration::ZERO;
            }
        }
    }

    /// When the next change is to be tried again.
    pub(super) fn retry_at(&self) -> Option<Duration> {
        self.unblocked().map(|(_, failure)| failure.retry_at).min()
    }

    /// The objects whose change is to be tried again now.
    pub(super) fn due(&self, now: Duration) -> impl Iterator<Item = &ObjectKey> {
        let due = self
            .unblocked()
            .filter(move |(_, failure)| failure.retry_at <= now);
        due.map(|(object, _)| object)
    }

    fn unblocked(&self) -> impl Iterator<Item = (&ObjectKey, &Failure)> {
        self.failures
            .iter()
            .filter(|(object, _)| !self.blocked.contains(*object))
    }

    /// What was attempted and still differs has failed; what differs no more has recovered.
    pub(super) fn count(&mut self, now: Duration, ops: &[Op]) -> Vec<Report> {
        let mut reports = Vec::new();
        if self.failures.is_empty() && self.attempted.is_empty() {
            return reports;
        }
        let differing: BTreeSet<ObjectKey> = ops.iter().map(Op::object).collect();
        let recovered: Vec<_> = self
            .failures
            .keys()
            .filter(|key| !differing.contains(*key))
            .cloned()
            .collect();
        for key in recovered {
            self.failures.remove(&key);
            reports.push(Report::Recovered(key));
        }
        for (key, refusal) in self.attempted.take_vain(|key| differing.contains(key)) {
            let attempts = self.failures.get(&key).map_or(0, |failure| failure.attempts) + 1;
            let retry_at = now + delay(refusal.as_ref(), attempts);
            let failure = Failure {
                refusal,
                attempts,
                retry_at,
            };
            if attempts == 1 {
                reports.push(Report::Failed(key.clone(), failure.clone()));
            }
            self.failures.insert(key, failure);
        }
        reports
    }

    /// Leaves out the changes that are not to be made now: those whose back-off has not run out, unless it is for a
    /// refusal and these are tried again, and those on a link that cannot be made.
    pub(super) fn hold_back(&mut self, now: Duration, retry_refused: bool, ops: &mut Vec<Op>) {
        let waits = |op: &Op| match self.failures.get(&op.object()) {
            Some(failure) if failure.retry_at > now => failure.refusal.is_none() || !retry_refused,
            Some(_) | None => false,
        };
        let cannot_make = |op: &Op| matches!(op, Op::AddLink(..) | Op::ReplaceLink(..)) && waits(op);
        let missing: BTreeSet<IfName> = ops
            .iter()
            .filter(|op| cannot_make(op))
            .filter_map(|op| op.link().cloned())
            .collect();
        let is_blocked = |op: &Op| match op.link() {
            Some(link) => missing.contains(link),
            None => !missing.is_empty(),
        };
        let blockers: BTreeSet<_> = ops.iter().filter(|op| cannot_make(op)).map(Op::object).collect();
        let blocked = ops.iter().filter(|op| is_blocked(op)).map(Op::object);
        let blocked =
            blocked.filter(|object| self.failures.contains_key(object) && !blockers.contains(object));
        self.blocked = blocked.collect();
        ops.retain(|op| !waits(op) && !is_blocked(op));
    }
}

/// How long after so many attempts the next one follows; without a refusal the change had no effect.
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
