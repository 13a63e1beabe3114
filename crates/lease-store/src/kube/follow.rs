//! How a client keeps up with a server's Nodes: what is asked for next, and what an answer means.
//!
//! Without I/O and without a clock, so that every order of answers can be tried in a table. The Nodes are read in full
//! once, as a streaming list where the server has them and else in pages, and followed from there. Whatever breaks off
//! goes on where it was; only when the server has forgotten that point are they read in full again.

use std::time::Duration;

use super::node::{Node, PageMeta, Refusal, WatchLine};

/// The pause after the first failure; it doubles.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause (flannel `pkg/subnet/etcd/registry.go`, which is upstream's for its other store).
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// No server's wish to be left alone is obeyed for longer.
const LONGEST_WISH: Duration = Duration::from_secs(60);

/// What to ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Request {
    /// All Nodes as the first events of a watch (Kubernetes `api-concepts`, streaming lists).
    Stream,
    /// A page of all Nodes, behind the one that ended with this token.
    Page {
        /// Of the page before; `None` for the first one.
        next: Option<String>,
    },
    /// The changes since a revision.
    Watch {
        /// The last one that is known.
        revision: String,
    },
}

/// What an answer means to whoever keeps the Nodes.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A Node is new or changed; while the Nodes are read in full, it is one of them.
    Put(Box<Node>),
    /// A Node is gone.
    Gone(String),
    /// All Nodes have been read: the others are gone.
    Complete,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End {
    /// The server had sent what it was asked for, or the time that it was asked for is over.
    Done,
    /// The server refused, at once or in the middle.
    Refused {
        /// What it said.
        refusal: Refusal,
        /// How long it wants to be left alone.
        retry_after: Option<Duration>,
    },
    /// Nothing came for too long, or the connection broke.
    Broken(String),
}

/// What follows from an end.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// How long to wait before the next request.
    pub(super) pause: Duration,
    /// Why the server counts as out of reach; `None` while all is well, or if the next request will tell.
    pub(super) trouble: Option<String>,
    /// Whether the credentials were refused.
    pub(super) is_unknown: bool,
}

/// The state of a client that keeps up.
#[derive(Debug)]
pub(super) struct Follower {
    phase: Phase,
    failures: u32,
}

#[derive(Debug, PartialEq, Eq)]
enum Phase {
    Streaming,
    Paging {
        next: Option<String>,
        /// The revision of the list.
        revision: String,
    },
    Following {
        revision: String,
        /// Whether anything came since the last end.
        is_alive: bool,
    },
}

impl Follower {
    /// Knows nothing yet.
    pub(super) const fn new() -> Self {
        Self {
            phase: Phase::Streaming,
            failures: 0,
        }
    }

    /// What to ask for now.
    pub(super) fn request(&self) -> Request {
        match &self.phase {
            Phase::Streaming => Request::Stream,
            Phase::Paging { next, .. } => Request::Page { next: next.clone() },
            Phase::Following { revision, .. } => Request::Watch {
                revision: revision.clone(),
            },
        }
    }

    /// Whether the answer to come begins a reading in full, so that what an earlier one brought is void.
    pub(super) const fn begins_anew(&self) -> bool {
        matches!(self.phase, Phase::Streaming | Phase::Paging { next: None, .. })
    }

    /// Takes what a page says of itself. It may come before or behind the items.
    pub(super) fn page_meta(&mut self, meta: PageMeta) {
        if let Phase::Paging { next, revision } = &mut self.phase {
            *next = Some(meta.next).filter(|next| !next.is_empty());
            *revision = meta.revision;
        }
    }

    /// Takes the end of a page that came whole.
    pub(super) fn page_ended(&mut self) -> Option<Step> {
        let Phase::Paging { next: None, revision } = &mut self.phase else {
            return None;
        };
        let revision = std::mem::take(revision);
        self.follow_from(revision);
        Some(Step::Complete)
    }

    /// Takes a line of a watch.
    ///
    /// # Errors
    /// The answer is over.
    pub(super) fn line(&mut self, line: WatchLine) -> Result<Option<Step>, End> {
        match line {
            WatchLine::Put(node) => {
                self.came_to(&node.revision);
                Ok(Some(Step::Put(node)))
            }
            WatchLine::Gone { name, revision } => {
                self.came_to(&revision);
                Ok(Some(Step::Gone(name)))
            }
            WatchLine::Bookmark { revision, ends_list } => self.bookmark(revision, ends_list),
            WatchLine::Error(refusal) => Err(End::Refused {
                refusal,
                retry_after: None,
            }),
        }
    }

    fn bookmark(&mut self, revision: String, ends_list: bool) -> Result<Option<Step>, End> {
        match &mut self.phase {
            Phase::Streaming if ends_list => {
                self.follow_from(revision);
                return Ok(Some(Step::Complete));
            }
            // A server that was restored from a backup counts from an earlier revision, and sends nothing until it comes
            // past ours.
            Phase::Following { revision: known, .. } if is_before(&revision, known) => {
                self.phase = Phase::Streaming;
                return Err(End::Done);
            }
            Phase::Following { .. } => self.came_to(&revision),
            Phase::Streaming | Phase::Paging { .. } => {}
        }
        Ok(None)
    }

    /// Takes the end of an answer.
    pub(super) fn ended(&mut self, end: End, jitter: u64) -> Verdict {
        let (refusal, retry_after) = match end {
            End::Done => return self.done(jitter),
            End::Broken(reason) => return self.broken(reason, jitter),
            End::Refused { refusal, retry_after } => (refusal, retry_after),
        };
        match (refusal.code, &self.phase) {
            (410, Phase::Following { .. } | Phase::Paging { .. }) => {
                self.phase = Phase::Streaming;
                self.again(None, None, jitter)
            }
            // It does not know streaming lists, or is built on an etcd that has no means for them.
            (400 | 404 | 405 | 410 | 422 | 500 | 501, Phase::Streaming) => {
                self.phase = first_page();
                Verdict {
                    pause: Duration::ZERO,
                    trouble: None,
                    is_unknown: false,
                }
            }
            (code, phase) => {
                // Where a page failed, its list may be too old to go on with.
                if let Phase::Paging { next: Some(_), .. } = phase {
                    self.phase = first_page();
                }
                let mut verdict = self.again(retry_after, Some(refusal.to_string()), jitter);
                verdict.is_unknown = code == 401;
                verdict
            }
        }
    }

    fn done(&mut self, jitter: u64) -> Verdict {
        let was_alive = self.take_life();
        match &self.phase {
            Phase::Following { .. } if was_alive => {
                self.failures = 0;
                Verdict {
                    pause: Duration::ZERO,
                    trouble: None,
                    is_unknown: false,
                }
            }
            // The next page, or what a bookmark made necessary.
            Phase::Paging { .. } => Verdict {
                pause: Duration::ZERO,
                trouble: None,
                is_unknown: false,
            },
            Phase::Following { .. } => self.again(None, None, jitter),
            Phase::Streaming => {
                self.phase = first_page();
                self.again(None, None, jitter)
            }
        }
    }

    fn broken(&mut self, reason: String, jitter: u64) -> Verdict {
        let was_alive = self.take_life();
        match &self.phase {
            // The next connection tells whether it matters.
            Phase::Following { .. } if was_alive => self.again(None, None, jitter),
            Phase::Streaming | Phase::Paging { .. } => {
                // A list that breaks off half way may be too much for one answer: pages are smaller.
                self.phase = first_page();
                self.again(None, Some(reason), jitter)
            }
            Phase::Following { .. } => self.again(None, Some(reason), jitter),
        }
    }

    fn again(&mut self, wish: Option<Duration>, trouble: Option<String>, jitter: u64) -> Verdict {
        let pause = SHORTEST_PAUSE
            .saturating_mul(1 << self.failures.min(6))
            .min(LONGEST_PAUSE);
        self.failures = self.failures.saturating_add(1);
        let pause = wish.map_or(jittered(pause, jitter), |wish| wish.min(LONGEST_WISH));
        Verdict {
            pause,
            trouble,
            is_unknown: false,
        }
    }

    /// Whether anything came since the last end.
    const fn take_life(&mut self) -> bool {
        match &mut self.phase {
            Phase::Following { is_alive, .. } => std::mem::replace(is_alive, false),
            Phase::Streaming | Phase::Paging { .. } => false,
        }
    }

    fn follow_from(&mut self, revision: String) {
        self.failures = 0;
        self.phase = Phase::Following {
            revision,
            is_alive: true,
        };
    }

    fn came_to(&mut self, to: &str) {
        if let Phase::Following { revision, is_alive } = &mut self.phase {
            self.failures = 0;
            *is_alive = true;
            to.clone_into(revision);
        }
    }
}

const fn first_page() -> Phase {
    Phase::Paging {
        next: None,
        revision: String::new(),
    }
}

/// Whether a revision is older than another one (Kubernetes `api-concepts`, resource versions: they are numbers since
/// 1.35; where they are not, nothing is concluded).
pub(super) fn is_before(revision: &str, other: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().ok();
    number(revision)
        .zip(number(other))
        .is_some_and(|(revision, other)| revision < other)
}

/// Half of a pause and a random part of the other half, so that all nodes do not come back at once.
fn jittered(pause: Duration, jitter: u64) -> Duration {
    let half = pause / 2;
    let nanos = half.as_nanos().max(1);
    half + Duration::from_nanos(u64::try_from(u128::from(jitter) % nanos).unwrap_or(0))
}

#[cfg(test)]
mod tests;
