//! What the engine can tell about itself: what differs and since when, and what it has done until now.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use netstate::{ErrorClass, KernelError, ObjectKey, Spot};
use serde::{Deserialize, Serialize};

/// Upper bounds of the durations that are told apart, in microseconds.
const BOUNDS_MICROS: [u64; 11] = [
    1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 5_000_000,
];

/// What differs and what was counted. See the module's description.
#[derive(Debug, Default)]
pub struct Insight {
    /// What the last observation would change, each since when.
    changing: BTreeMap<ObjectKey, Since>,
    /// Whether there was an observation of the present goal.
    goal_seen: bool,
    /// Where the goal has changed since the last observation.
    own_doing: BTreeSet<Spot>,
    /// Objects that somebody else changed after they had been as desired.
    drifted: BTreeSet<ObjectKey>,
    round_began: Option<Duration>,
    busy_since: Option<Duration>,
    unobservable_since: Option<Duration>,
    counts: Counts,
}

/// Since when an object is to be changed.
#[derive(Debug, Clone, Copy)]
struct Since {
    at: Duration,
    difference: Difference,
}

/// What is wrong with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Difference {
    /// It is absent or not as desired.
    Missing,
    /// It is too many, or a kernel parameter: the data plane works all the same.
    Harmless,
}

/// What the engine has done since it began.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Rounds of observing and changing, with their durations.
    pub rounds: Histogram,
    /// Changes that the kernel acknowledged, by kind of object.
    pub changes: BTreeMap<String, u64>,
    /// Objects brought back after somebody else had changed them, by kind.
    pub repaired: BTreeMap<String, u64>,
    /// What the kernel refused, by class of error.
    pub refusals: BTreeMap<String, u64>,
}

/// How long something took, counted by bounds.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Histogram {
    /// How many were counted.
    pub count: u64,
    /// Their sum in microseconds.
    pub sum_micros: u64,
    /// How many were not longer than each bound; empty as long as none was counted.
    pub buckets: Vec<Bucket>,
}

/// How many durations were not longer than a bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bucket {
    /// The bound in microseconds.
    pub le_micros: u64,
    /// How many.
    pub count: u64,
}

impl Insight {
    /// Since when something but these objects differs from what is desired, or cannot be known; `None` while all is well.
    #[must_use]
    pub fn differs_since(&self, except: &BTreeSet<ObjectKey>) -> Option<Duration> {
        let differing = self.differing().filter(|(object, _)| !except.contains(*object));
        let differing = differing.map(|(_, since)| since);
        differing
            .chain(self.unobservable_since)
            .chain(self.busy_since)
            .min()
    }

    /// The objects that are not as desired, each since when. What is too many does not count, nor do kernel parameters:
    /// the data plane works all the same.
    pub fn differing(&self) -> impl Iterator<Item = (&ObjectKey, Duration)> + Clone {
        let missing = |since: &Since| (since.difference == Difference::Missing).then_some(since.at);
        self.changing
            .iter()
            .filter_map(move |(key, since)| Some((key, missing(since)?)))
    }

    /// Whether an object is not as desired.
    #[must_use]
    pub fn is_differing(&self, object: &ObjectKey) -> bool {
        let since = self.changing.get(object);
        since.is_some_and(|since| since.difference == Difference::Missing)
    }

    /// Since when the kernel cannot be observed.
    #[must_use]
    pub const fn unobservable_since(&self) -> Option<Duration> {
        self.unobservable_since
    }

    /// What was done until now.
    #[must_use]
    pub const fn counts(&self) -> &Counts {
        &self.counts
    }

    pub(super) const fn round_begins(&mut self, now: Duration) {
        self.round_began = Some(now);
    }

    pub(super) const fn work_begins(&mut self, now: Duration) {
        self.busy_since = Some(now);
    }

    pub(super) fn unobservable(&mut self, now: Duration, err: &KernelError) {
        self.busy_since = None;
        self.round_began = None;
        self.unobservable_since.get_or_insert(now);
        count(&mut self.counts.refusals, class_name(err.class));
    }

    /// From here on what differs may be our own doing.
    pub(super) fn goal_changes(&mut self) {
        self.goal_seen = false;
        self.own_doing.clear();
    }

    /// What differs at some spots in the next observation may be our own doing.
    pub(super) fn goal_changes_at(&mut self, spots: &BTreeSet<Spot>) {
        self.own_doing.extend(spots.iter().cloned());
    }

    /// Takes what an observation shows to be changed. What was as desired in the observation before, and is not any
    /// more, is somebody else's doing.
    pub(super) fn observed(&mut self, now: Duration, changes: impl Iterator<Item = (ObjectKey, Difference)>) {
        self.busy_since = None;
        self.unobservable_since = None;
        let before = std::mem::take(&mut self.changing);
        let own_doing = std::mem::take(&mut self.own_doing);
        let is_own = |key: &ObjectKey| Spot::of(key).is_some_and(|spot| own_doing.contains(&spot));
        for (key, difference) in changes {
            let known = before.get(&key);
            if self.goal_seen && known.is_none() && !is_own(&key) {
                self.drifted.insert(key.clone());
            }
            let at = known.map_or(now, |since| since.at);
            // Of several changes to one object the worst counts.
            let since = self.changing.entry(key).or_insert(Since { at, difference });
            if difference == Difference::Missing {
                since.difference = difference;
            }
        }
        // Thousands that came in their order have left the tree's nodes half empty.
        self.changing = std::mem::take(&mut self.changing).into_iter().collect();
        let changing = &self.changing;
        for repaired in self.drifted.extract_if(.., |key| !changing.contains_key(key)) {
            count(&mut self.counts.repaired, kind_name(&repaired));
        }
        self.goal_seen = true;
    }

    pub(super) fn round_ends(&mut self, now: Duration) {
        if let Some(began) = self.round_began.take() {
            self.counts.rounds.add(now.saturating_sub(began));
        }
    }

    pub(super) fn applied(&mut self, object: &ObjectKey, result: &Result<(), KernelError>) {
        self.busy_since = None;
        match result {
            Ok(()) => count(&mut self.counts.changes, kind_name(object)),
            Err(err) => count(&mut self.counts.refusals, class_name(err.class)),
        }
    }
}

impl Histogram {
    pub(crate) fn add(&mut self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.count += 1;
        self.sum_micros = self.sum_micros.saturating_add(micros);
        if self.buckets.is_empty() {
            let empty = |le_micros| Bucket { le_micros, count: 0 };
            self.buckets = BOUNDS_MICROS.map(empty).into();
        }
        for bucket in &mut self.buckets {
            bucket.count += u64::from(micros <= bucket.le_micros);
        }
    }
}

fn count(counters: &mut BTreeMap<String, u64>, name: &str) {
    match counters.get_mut(name) {
        Some(number) => *number += 1,
        None => {
            counters.insert(name.to_owned(), 1);
        }
    }
}

/// The kind of an object in one word, for labels.
#[must_use]
pub const fn kind_name(object: &ObjectKey) -> &'static str {
    match object {
        ObjectKey::Link(_) => "link",
        ObjectKey::Addr(_) => "addr",
        ObjectKey::Route(_) => "route",
        ObjectKey::Neigh(_) => "neigh",
        ObjectKey::Fdb(_) => "fdb",
        ObjectKey::Wireguard(_) => "wireguard",
        ObjectKey::WgPeer(_) => "wgpeer",
        ObjectKey::Sysctl(_) => "sysctl",
        ObjectKey::NftTable(_) => "nft_table",
        ObjectKey::Iptables(_) => "iptables",
    }
}

const fn class_name(class: ErrorClass) -> &'static str {
    match class {
        ErrorClass::Exists => "exists",
        ErrorClass::NotFound => "not_found",
        ErrorClass::NoDevice => "no_device",
        ErrorClass::LinkDown => "link_down",
        ErrorClass::Unreachable => "unreachable",
        ErrorClass::Busy => "busy",
        ErrorClass::Denied => "denied",
        ErrorClass::Unsupported => "unsupported",
        ErrorClass::Other(_) => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_differs_from_when_it_was_first_seen_until_it_is_seen_no_more() {
        let mut insight = Insight::default();
        observe(&mut insight, 1, ["a"], []);
        observe(&mut insight, 2, ["a", "b"], []);
        assert_eq!(insight.differs_since(&BTreeSet::new()), Some(secs(1)));
        observe(&mut insight, 3, ["b"], []);
        assert_eq!(insight.differs_since(&BTreeSet::new()), Some(secs(2)));
        observe(&mut insight, 4, [], []);
        assert_eq!(insight.differs_since(&BTreeSet::new()), None);
    }

    #[test]
    fn a_kernel_that_cannot_be_asked_or_does_not_answer_differs() {
        let mut insight = Insight::default();
        let err = KernelError {
            class: ErrorClass::Denied,
            message: String::new(),
        };
        insight.unobservable(secs(1), &err);
        insight.unobservable(secs(2), &err);
        assert_eq!(insight.differs_since(&BTreeSet::new()), Some(secs(1)));
        observe(&mut insight, 3, [], []);
        insight.work_begins(secs(4));
        assert_eq!(insight.differs_since(&BTreeSet::new()), Some(secs(4)));
        assert_eq!(
            insight.counts.refusals,
            BTreeMap::from([("denied".to_owned(), 2)])
        );
    }

    #[test]
    fn only_what_was_as_desired_before_is_drift_and_counts_when_it_is_back() {
        let mut insight = Insight::default();
        observe(&mut insight, 1, ["a", "b"], []);
        observe(&mut insight, 2, [], []);
        assert_eq!(insight.counts.repaired, BTreeMap::new());
        observe(&mut insight, 3, ["a"], ["stray"]);
        assert_eq!(insight.counts.repaired, BTreeMap::new());
        observe(&mut insight, 4, ["b"], []);
        assert_eq!(insight.counts.repaired, BTreeMap::from([("link".to_owned(), 2)]));
        observe(&mut insight, 5, [], []);
        assert_eq!(insight.counts.repaired, BTreeMap::from([("link".to_owned(), 3)]));
        insight.goal_changes();
        observe(&mut insight, 6, ["c"], []);
        observe(&mut insight, 7, [], []);
        assert_eq!(insight.counts.repaired, BTreeMap::from([("link".to_owned(), 3)]));
    }

    #[test]
    fn a_round_is_counted_in_every_bucket_that_holds_it() {
        let mut histogram = Histogram::default();
        histogram.add(Duration::from_micros(2_500));
        histogram.add(Duration::from_secs(60));
        assert_eq!((histogram.count, histogram.sum_micros), (2, 60_002_500));
        let counts: Vec<_> = histogram.buckets.iter().map(|bucket| bucket.count).collect();
        assert_eq!(counts, [0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
    }

    fn secs(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn observe<const N: usize, const M: usize>(
        insight: &mut Insight,
        at: u64,
        missing: [&str; N],
        harmless: [&str; M],
    ) {
        let link = |name: &str| ObjectKey::Link(name.parse().unwrap());
        let missing = missing.map(|name| (link(name), Difference::Missing));
        let harmless = harmless.map(|name| (link(name), Difference::Harmless));
        insight.observed(secs(at), missing.into_iter().chain(harmless));
    }
}
