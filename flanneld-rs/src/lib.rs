//! The node daemon: holds the node's subnet lease and programs the overlay to every other node.
//!
//! What it decides is pure: [`reconciler`] says when to look at the kernel and what to change, from a desired state
//! that is computed anew from leases, configuration and host facts. Edges (kernel, lease store, files, signals) are
//! driven by one loop. It must never remove what it does not own, and never tear the data plane down on exit.

pub mod reconciler;
