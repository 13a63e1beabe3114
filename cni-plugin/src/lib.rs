//! The CNI plugin `flannel`, with the plugins that it delegates to in the same process.
//!
//! A runtime runs the binary once for each operation on each pod; it reads the call from its environment and standard
//! input, changes the kernel and a few small files, and answers on standard output. Called under the name of another of
//! its plugins, or with that name as its argument, it is that plugin. A pod's attachment is a desired state of two network namespaces, planned and
//! applied by the same crates that the node daemon uses.
//!
//! It must never leave something behind when an ADD fails, never print anything but the answer on standard output,
//! and never touch an interface, an address or a file that is not the attachment's own.
//!
//! Start at [`command`] and [`run()`].

mod cli;
mod context;
mod delegate;
mod error;
mod install;
mod known_args;
mod locks;
mod plugins;
mod requested_mac;
mod run;
mod sandbox;

pub use cli::{Command, command, restore_ports};
pub use install::Install;
pub use plugins::{RestoreError, restore_all};
pub use run::{Edges, Input, Output, run, take_back};
