//! A soak: random operations on a lab, against a checker of what must hold whatever happened.
//!
//! A [`world::World`] is a lab with its daemons and pods. In each round some [`action::Action`]s are drawn by a seeded
//! generator and done; then everything that [`invariants`] asks must hold again within a limit. The same seed draws the same
//! actions.

mod action;
pub(crate) mod cli;
mod invariants;
mod random;
mod world;
