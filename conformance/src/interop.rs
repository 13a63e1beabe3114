//! Interoperability: whether programs write what the reference was captured to write, and whether they and another
//! daemon and other plugins make one network, in which nodes change sides.

pub(crate) mod cli;
mod compare;
mod deviation;
mod diff;
mod golden;
mod labels;
mod mixed;
mod normal;
mod runner;
mod sysctl;
