//! What the commands of the backend `extension` are to do next: a queue that knows of each peer's lease what it should
//! have led to, and what commands have run for it.
//!
//! Pure: wishes and the ends of commands in, the next command out. A lease's newest wish replaces those before it. One
//! command runs at a time, as upstream has it, because scripts may rely on it; of those that are due the one that waits
//! for longest comes first, so that one that always fails holds up no other for longer than a command may take. Start at
//! [`Queue`].

use std::collections::BTreeMap;
use std::time::Duration;

use net_types::SubnetKey;
use netstate::Prune;
use serde::{Deserialize, Serialize};

pub use command::{Command, Job, OwnFacts, Said};
pub use words::{blank_as_none, expand, last_words, shell_syntax};

mod command;
#[cfg(test)]
mod tests;
mod words;

const FIRST_DELAY: Duration = Duration::from_millis(500);
const MAX_DELAY: Duration = Duration::from_secs(30);
/// What a changed lease had before is undone in so many attempts before its new command follows all the same.
const MAX_REPLACEMENTS: u32 = 3;
/// A lease that is gone is given up after as many failures of its command, about two minutes: nobody would ever end it
/// otherwise, because what it should undo may be undone.
const MAX_REMOVALS: u32 = 10;

/// The backend's settings.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ExtensionSettings {
    /// `PreStartupCommand`, where there is one.
    pub pre_startup: Option<String>,
    /// `PostStartupCommand`, where there is one.
    pub post_startup: Option<String>,
    /// `SubnetAddCommand`; nothing is run where it is blank.
    pub subnet_add: String,
    /// `SubnetRemoveCommand`; nothing is run where it is blank.
    pub subnet_remove: String,
    /// What commands of earlier runs did since this machine booted.
    pub ran: BTreeMap<SubnetKey, Ran>,
}

/// What a lease's commands are told, all in words; what the lease has not is empty.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Facts {
    /// IPv4's subnet of the peer.
    pub subnet: String,
    /// Its address in IPv4.
    pub public_ip: String,
    /// IPv6's subnet of the peer.
    pub ipv6_subnet: String,
    /// Its address in IPv6.
    pub public_ipv6: String,
    /// What its `PreStartupCommand` printed.
    pub data: String,
}

/// What has run for a lease and was not undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ran {
    /// What the command was told.
    pub facts: Facts,
    /// What came of it.
    pub stage: Stage,
}

/// What came of a lease's `SubnetAddCommand`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It did its work.
    Done,
    /// It was begun, and has not ended well so far.
    Begun,
    /// Whether its work is there is not known: an earlier run of the daemon began it, or somebody else may have done it. It is
    /// run again, and where that fails what is there may be in the way.
    Inherited,
    /// It is in the way, and is to be undone before the next attempt.
    InTheWay,
}

/// Why the last command of a lease is to be run again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The command's name in the network configuration.
    pub command: &'static str,
    /// What it said.
    pub words: String,
    /// How often it failed in a row.
    pub attempts: u32,
    /// When it failed first.
    pub since: Duration,
    /// When it is run again.
    pub again_at: Duration,
}

/// What became of a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It did its work.
    Done,
    /// It failed, and is run again after this time.
    Again(Duration),
    /// It failed, and what it should have undone is as good as gone: the lease's new command follows.
    Passed,
    /// It failed so often that it is not run again.
    GivenUp,
}

/// How often a command was run in this run of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// With success.
    pub ok: u64,
    /// In vain.
    pub failed: u64,
}

/// The queue. See the module's description.
#[derive(Debug)]
pub struct Queue {
    subnet_add: String,
    subnet_remove: String,
    leases: BTreeMap<SubnetKey, Entry>,
    running: Option<Command>,
    added: Tally,
    removed: Tally,
}

#[derive(Debug, Default)]
struct Entry {
    /// `None` when the lease is gone.
    wish: Option<Facts>,
    ran: Option<Ran>,
    failure: Option<Failure>,
}

impl Queue {
    /// A queue that knows what ran before.
    #[must_use]
    pub fn new(settings: &ExtensionSettings) -> Self {
        let entry = |ran: &Ran| Entry {
            ran: Some(ran.clone()),
            ..Entry::default()
        };
        let ran = settings.ran.iter();
        Self {
            subnet_add: settings.subnet_add.clone(),
            subnet_remove: settings.subnet_remove.clone(),
            leases: ran.map(|(lease, ran)| (*lease, entry(ran))).collect(),
            running: None,
            added: Tally::default(),
            removed: Tally::default(),
        }
    }

    /// Takes the leases that are to be reached from here on, in place of all those before.
    pub fn wish(&mut self, mut wishes: BTreeMap<SubnetKey, Facts>) {
        for (lease, entry) in &mut self.leases {
            let wish = wishes.remove(lease);
            if entry.wish != wish {
                entry.wish = wish;
                entry.failure = None;
            }
        }
        let entry = |facts| Entry {
            wish: Some(facts),
            ..Entry::default()
        };
        let new = wishes.into_iter().map(|(lease, facts)| (lease, entry(facts)));
        self.leases.extend(new);
        // What runs has an effect, which `ran` stands for.
        self.leases
            .retain(|_, entry| entry.wish.is_some() || entry.ran.is_some());
    }

    /// The command to run now, if one is due and none runs. [`Self::done`] has to tell its end. Nothing is undone for
    /// leases that are gone while `prune` forbids it.
    pub fn next(&mut self, now: Duration, prune: Prune) -> Option<Command> {
        if self.running.is_some() {
            return None;
        }
        let open = self.open(prune).filter(|(_, entry)| entry.due() <= now);
        // What is gone first: its end could take what is made in its place.
        let (lease, _) = open.min_by_key(|(lease, entry)| (entry.due(), entry.wish.is_some(), **lease))?;
        let lease = *lease;
        let entry = self.leases.get_mut(&lease)?;
        let command = match (&entry.wish, &mut entry.ran) {
            (Some(wish), Some(ran)) if ran.facts == *wish && ran.stage != Stage::InTheWay => {
                add(&self.subnet_add, lease, wish)
            }
            (wish, Some(ran)) => {
                let failures = entry.failure.as_ref().map_or(0, |failure| failure.attempts);
                let job = Job::SubnetRemove {
                    lease,
                    facts: ran.facts.clone(),
                    is_last: wish.is_none() && failures + 1 >= MAX_REMOVALS,
                };
                Command {
                    line: self.subnet_remove.clone(),
                    job,
                }
            }
            (Some(wish), None) => {
                // Somebody else may have done it before, such as upstream's daemon.
                let stage = if entry.failure.is_none() {
                    Stage::Inherited
                } else {
                    Stage::Begun
                };
                let facts = wish.clone();
                entry.ran = Some(Ran { facts, stage });
                add(&self.subnet_add, lease, wish)
            }
            (None, None) => return None,
        };
        self.running = Some(command.clone());
        Some(command)
    }

    /// Takes the end of the command that ran, with its words if it failed; returns what it was, and what that means.
    pub fn done(&mut self, now: Duration, result: Result<(), String>) -> Option<(Command, Verdict)> {
        let command = self.running.take()?;
        let job = &command.job;
        let lease = job.lease()?;
        let is_add = matches!(job, Job::SubnetAdd { .. });
        let tally = if is_add {
            &mut self.added
        } else {
            &mut self.removed
        };
        match &result {
            Ok(()) if command.is_blank() => {}
            Ok(()) => tally.ok += 1,
            Err(_) => tally.failed += 1,
        }
        let entry = self.leases.get_mut(&lease)?;
        let verdict = match (is_add, result) {
            (true, Ok(())) => {
                entry.settle(Stage::Done);
                entry.failure = None;
                Verdict::Done
            }
            (true, Err(words)) => {
                let is_in_the_way = entry
                    .ran
                    .as_ref()
                    .is_some_and(|ran| ran.stage == Stage::Inherited);
                entry.settle(if is_in_the_way {
                    Stage::InTheWay
                } else {
                    Stage::Begun
                });
                entry.failed(now, job.name(), words)
            }
            (false, Ok(())) => {
                entry.ran = None;
                Verdict::Done
            }
            (false, Err(words)) if entry.wish.is_some() => {
                let failures = entry.failure.as_ref().map_or(0, |failure| failure.attempts);
                if entry.is_changed() && failures + 1 < MAX_REPLACEMENTS {
                    entry.settle(Stage::Inherited);
                    entry.failed(now, job.name(), words)
                } else {
                    if entry.is_changed() {
                        entry.failure = None;
                    }
                    entry.ran = None;
                    Verdict::Passed
                }
            }
            (false, Err(words)) => {
                // It may have undone a part.
                entry.settle(Stage::Inherited);
                entry.failed(now, job.name(), words)
            }
        };
        let is_given_up = matches!(job, Job::SubnetRemove { is_last: true, .. }) && verdict != Verdict::Done;
        let verdict = if is_given_up && entry.wish.is_none() {
            entry.ran = None;
            Verdict::GivenUp
        } else {
            verdict
        };
        if entry.wish.is_none() && entry.ran.is_none() {
            self.leases.remove(&lease);
        }
        Some((command, verdict))
    }

    /// When [`Self::next`] has something by time alone.
    #[must_use]
    pub fn wake_at(&self, prune: Prune) -> Option<Duration> {
        if self.running.is_some() {
            return None;
        }
        self.open(prune).map(|(_, entry)| entry.due()).min()
    }

    /// Whether every lease that is to be reached has had its command.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.leases
            .values()
            .all(|entry| entry.wish.is_none() || entry.is_done())
    }

    /// Whether a lease has had its command, and why not if that failed.
    #[must_use]
    pub fn standing(&self, lease: SubnetKey) -> (bool, Option<&Failure>) {
        let entry = self.leases.get(&lease);
        entry.map_or((false, None), |entry| (entry.is_done(), entry.failure.as_ref()))
    }

    /// The leases whose command failed last.
    pub fn failures(&self) -> impl Iterator<Item = (SubnetKey, &Failure)> {
        let leases = self.leases.iter();
        leases.filter_map(|(lease, entry)| Some((*lease, entry.failure.as_ref()?)))
    }

    /// How many leases wait for a command, or for leave to run it.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.open(Prune::Remove).count()
    }

    /// What runs.
    #[must_use]
    pub fn running(&self) -> Option<&Job> {
        self.running.as_ref().map(|command| &command.job)
    }

    /// How often `SubnetAddCommand` and `SubnetRemoveCommand` were run.
    #[must_use]
    pub const fn tallies(&self) -> (Tally, Tally) {
        (self.added, self.removed)
    }

    /// Whether another lease has subnets of this one's.
    fn is_replaced(&self, lease: &SubnetKey) -> bool {
        let mut others = self.leases.iter();
        others.any(|(other, entry)| other != lease && entry.wish.is_some() && other.overlaps(lease))
    }

    fn open(&self, prune: Prune) -> impl Iterator<Item = (&SubnetKey, &Entry)> {
        let may_undo = prune == Prune::Remove;
        let is_open = move |(lease, entry): &(&SubnetKey, &Entry)| {
            !entry.is_done() && (may_undo || entry.wish.is_some() || self.is_replaced(lease))
        };
        self.leases.iter().filter(is_open)
    }
}

impl Entry {
    /// Whether something else is wanted than what ran.
    fn is_changed(&self) -> bool {
        let ran = self.ran.as_ref().map(|ran| &ran.facts);
        ran.is_some() && ran != self.wish.as_ref()
    }

    fn is_done(&self) -> bool {
        match (&self.wish, &self.ran) {
            (Some(wish), Some(ran)) => ran.facts == *wish && ran.stage == Stage::Done,
            (None, None) => true,
            (Some(_), None) | (None, Some(_)) => false,
        }
    }

    /// When its next command may run; at once, unless the last one failed.
    fn due(&self) -> Duration {
        let failure = self.failure.as_ref();
        // What is in the way goes at the time of the next attempt, right before it.
        failure.map_or(Duration::ZERO, |failure| failure.again_at)
    }

    const fn settle(&mut self, stage: Stage) {
        if let Some(ran) = &mut self.ran {
            ran.stage = stage;
        }
    }

    fn failed(&mut self, now: Duration, command: &'static str, words: String) -> Verdict {
        let before = self.failure.take().filter(|failure| failure.command == command);
        let (attempts, since) = before.map_or((0, now), |failure| (failure.attempts, failure.since));
        let wait = FIRST_DELAY.saturating_mul(1 << attempts.min(16)).min(MAX_DELAY);
        self.failure = Some(Failure {
            command,
            words,
            attempts: attempts + 1,
            since,
            again_at: now + wait,
        });
        Verdict::Again(wait)
    }
}

fn add(line: &str, lease: SubnetKey, facts: &Facts) -> Command {
    Command {
        line: line.to_owned(),
        job: Job::SubnetAdd {
            lease,
            facts: facts.clone(),
        },
    }
}
