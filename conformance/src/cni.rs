//! Judges CNI plugins by what the specification asks, as black boxes: environment, standard input and output, exit
//! status, and the kernel's state.
//!
//! A [`case::Case`] is run on a [`stage::Stage`], a host of its own that ends with it. The cases are in [`groups`], what
//! they are about in [`requirement`]; [`runner::run`] runs them, and what it found is shown by [`crate::report`].

mod call;
mod case;
pub(crate) mod cli;
mod container;
mod groups;
mod host_end;
mod probe;
mod requirement;
mod runner;
mod shape;
mod snapshot;
mod stage;
mod subject;
