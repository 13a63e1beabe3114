//! The daemon and the plugin on real kernels: nodes as namespaces, looked at through iproute2.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod address;
mod bad_input;
mod blackhole;
mod churn;
mod connectivity;
mod demo;
mod direct_routing;
mod dual_stack;
mod etcd;
mod extension;
mod family_off;
mod foreign;
mod healing;
mod heavy;
mod host_gw;
mod kube;
mod mtu;
mod net_conf;
mod net_conf_trouble;
mod offload;
mod plugin;
mod prune;
mod record;
mod restart;
mod rules;
mod scale;
mod support;
mod takeover;
mod underlay;
mod upstream;
mod vxlan_options;
