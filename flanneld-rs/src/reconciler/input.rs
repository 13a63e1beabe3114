//! Every call that can change what the engine does next, as data: a record of them replays a run.

use std::collections::BTreeSet;
use std::time::Duration;

use netstate::{KernelError, Prune, Spot, State};

/// A call of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// A goal was set that differs from the one before. Its scope is not kept: what was seen within it is.
    Goal(State, Prune),
    /// The goal was changed at some spots.
    Change {
        /// What was wanted there.
        gone: Box<State>,
        /// What is wanted.
        wanted: Box<State>,
    },
    /// Anything may have changed.
    LookAgain,
    /// What stands at these spots may have changed.
    LookAt(BTreeSet<Spot>),
    /// The kernel was observed.
    Observed(Duration, Result<State, KernelError>),
    /// Changes were answered.
    Applied(Vec<Result<(), KernelError>>),
    /// The engine was asked what to do.
    Next(Duration),
}

/// Keeps the calls, if somebody wants them, until they are taken.
#[derive(Debug, Default)]
pub(super) struct Tape(Option<Vec<Input>>);

impl Tape {
    /// Begins to keep calls.
    pub(super) fn start(&mut self) {
        self.0.get_or_insert_default();
    }

    /// Keeps a call, which is only made into data if it is wanted.
    pub(super) fn note(&mut self, input: impl FnOnce() -> Input) {
        if let Some(kept) = &mut self.0 {
            kept.push(input());
        }
    }

    /// Takes the calls kept so far.
    pub(super) fn take(&mut self) -> Vec<Input> {
        self.0.as_mut().map(std::mem::take).unwrap_or_default()
    }
}
