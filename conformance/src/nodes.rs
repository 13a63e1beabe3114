//! Judges the network of a set of nodes by the Kubernetes network model, and by what its administrator would look at.
//!
//! Nodes come from an [`inventory`]: a lab of namespaces, or hosts over SSH. On each runs an [`agent`], which is this same
//! program; the runner speaks to it over its standard input and output ([`protocol`], [`remote`]). A [`bed::Bed`] is all
//! nodes with pods on them; the cases are in [`groups`], [`runner::run`] runs them, and the report is
//! [`crate::report`]'s. What must not happen: anything left on a node when a run ends, however it ends.

mod absence;
mod agent;
mod bed;
mod carry;
mod case;
pub(crate) mod cli;
mod cluster;
mod connection;
mod groups;
mod guests;
mod hosts;
mod inventory;
mod lab;
mod protocol;
mod remote;
mod requirement;
mod runner;
mod settle;

pub(crate) use agent::{command as agent_command, run as run_agent};
