//! The node daemon: holds the node's subnet lease and programs the overlay to every other node.
//!
//! What it decides is pure. [`desired`] computes what the kernel should hold from the device and the leases;
//! [`reconciler`] says when to look at the kernel and what to change; [`node`] puts these together with the life of
//! the own lease. Edges (kernel, lease store, files, signals) are driven by one loop. The daemon must never remove
//! what it does not own, and never tear the data plane down on exit.

mod applets;
pub mod check;
pub mod cleanup;
pub mod cli;
pub mod cni_conf;
pub mod commands;
pub mod conf_change;
pub mod config;
pub mod daemon;
pub mod desired;
pub mod executor;
pub mod extension;
mod heap;
pub mod host_facts;
pub mod iface_match;
pub mod kernel_version;
pub mod kernel_watch;
pub mod lease_keeper;
pub mod lease_view;
pub mod log;
pub mod metrics;
pub mod node;
pub mod port_rules;
pub mod readiness;
pub mod reconciler;
pub mod record;
pub mod replay;
pub mod rules_kernel;
pub mod rules_watch;
pub mod serve;
pub mod settings;
pub mod signals;
pub mod status;
pub mod subnet_file;
#[cfg(test)]
mod testing;
pub mod wireguard_key;
