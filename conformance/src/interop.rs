//! Interoperability: whether programs write what the reference was captured to write.

pub(crate) mod cli;
mod compare;
mod deviation;
mod diff;
mod golden;
mod labels;
mod normal;
mod runner;
mod sysctl;
