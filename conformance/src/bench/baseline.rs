//! The reference's figures, which were measured in another sitting: flanneld v0.28.9 with etcd and
//! the chain flannel → bridge → host-local with portmap (plugins v1.9.1), on 2 cores of an AMD EPYC with Linux 6.18.
//! Where the reference has two modes, the faster one stands here.

use super::report::Peer;
use super::side::Operation;

/// The reference plugin chain.
const CHAIN: &str = "reference";
/// The reference daemon.
const DAEMON: &str = "reference flanneld";

/// What a reader has to know of the figures of the reference chain.
pub(super) const CHAIN_NOTE: &str =
    "* reference: plugins v1.9.1 with flannel and portmap, other sitting, real-time priority";
/// What a reader has to know of the figures of the reference daemon.
pub(super) const DAEMON_NOTE: &str = "* reference flanneld = spec baseline, other sitting; with etcd, in its faster mode (nftables), installing its rules too";

const fn at(name: &'static str, p50: f64, tail: Option<f64>) -> Peer {
    Peer::Baseline { name, p50, tail }
}

/// Milliseconds from the start of a chain to its end, one pod after another.
pub(super) const fn wall(operation: Operation) -> Peer {
    match operation {
        Operation::Version => at(CHAIN, 1.7, None),
        Operation::Add => at(CHAIN, 20.5, Some(24.8)),
        Operation::Check => at(CHAIN, 7.5, Some(8.8)),
        Operation::Del => at(CHAIN, 27.5, Some(37.4)),
    }
}

/// Milliseconds of processor time for an operation.
pub(super) const fn cpu(operation: Operation) -> Peer {
    match operation {
        Operation::Version => at(CHAIN, 1.7, None),
        Operation::Add => at(CHAIN, 26.5, None),
        Operation::Check => at(CHAIN, 9.2, None),
        Operation::Del => at(CHAIN, 22.0, None),
    }
}

/// Pods a second, many at once, where that was measured: the middle of the range at real-time priority.
pub(super) const fn rate(operation: Operation, width: u8) -> Option<Peer> {
    match (operation, width) {
        (Operation::Add, 10) => Some(at(CHAIN, 83.5, None)),
        (Operation::Del, 10) => Some(at(CHAIN, 92.5, None)),
        (Operation::Add, 50) => Some(at(CHAIN, 80.5, None)),
        (Operation::Del, 50) => Some(at(CHAIN, 97.0, None)),
        (Operation::Version | Operation::Add | Operation::Check | Operation::Del, _) => None,
    }
}

/// Milliseconds of an operation, many at once, with the 99th percentile: the lower end of the ranges at real-time
/// priority.
pub(super) const fn parallel_wall(operation: Operation, width: u8) -> Option<Peer> {
    match (operation, width) {
        (Operation::Add, 10) => Some(at(CHAIN, 107.0, Some(222.0))),
        (Operation::Del, 10) => Some(at(CHAIN, 104.0, Some(158.0))),
        (Operation::Add, 50) => Some(at(CHAIN, 548.0, Some(894.0))),
        (Operation::Del, 50) => Some(at(CHAIN, 417.0, Some(886.0))),
        (Operation::Version | Operation::Add | Operation::Check | Operation::Del, _) => None,
    }
}

/// Milliseconds from a start to the subnet file.
pub(super) const READY: Peer = at(DAEMON, 105.0, None);
/// Milliseconds from a lease to what it needs in the kernel, and from its end to nothing of it.
pub(super) const LEASE_PUT: Peer = at(DAEMON, 2.16, Some(3.35));
pub(super) const LEASE_GONE: Peer = at(DAEMON, 1.96, Some(2.51));
/// MiB of memory of an idle daemon: resident, and its share of it.
pub(super) const RSS: Peer = at(DAEMON, 38.0, None);
pub(super) const PSS: Peer = at(DAEMON, 16.0, None);
/// Threads of a daemon.
pub(super) const THREADS: Peer = at(DAEMON, 8.0, None);
/// Milliseconds of processor time a minute of an idle daemon. In one mode it looks after its rules every five seconds,
/// in the other never.
pub(super) const IDLE_CPU: [Peer; 2] = [
    at("reference, iptables, looks after its rules", 490.0, None),
    at("reference, nftables, never looks", 0.0, None),
];
/// What a reader has to know of the reference's figures at scale.
pub(super) const SCALE_NOTE: &str = "* reference flanneld = spec baseline, other sitting; programmed: in iptables mode, 3 rounds; its RSS is the peak";
/// Among so many peers: milliseconds from a start to all peers programmed, MiB of memory at most, KiB of log.
pub(super) const fn at_scale(peers: u16) -> [Option<Peer>; 3] {
    match peers {
        1000 => [
            Some(at(DAEMON, 1400.0, None)),
            Some(at(DAEMON, 43.0, None)),
            Some(at(DAEMON, 3100.0, None)),
        ],
        5000 => [
            Some(at(DAEMON, 6500.0, None)),
            Some(at(DAEMON, 51.0, None)),
            Some(at(DAEMON, 15_500.0, None)),
        ],
        _ => [None, None, None],
    }
}
/// Milliseconds from a start to the routes of 3,000 peers of the backend host-gw.
pub(super) const HOST_GW_PROGRAMMED: Peer = at(DAEMON, 19_000.0, None);
/// What a reader has to know of the reference's figures on Kubernetes.
pub(super) const KUBE_NOTE: &str =
    "* reference flanneld = measured in another sitting, against a stand-in for the API server as well";
/// Among 5,000 Nodes of 10 kB: milliseconds from a start to the subnet file and to all peers programmed, MiB resident.
pub(super) const KUBE_READY: Peer = at(DAEMON, 2500.0, None);
pub(super) const KUBE_PROGRAMMED: Peer = at(DAEMON, 4500.0, None);
pub(super) const KUBE_RSS: Peer = at(DAEMON, 244.0, None);
/// MiB of the plugin programs: flannel, bridge, host-local and portmap.
pub(super) const PLUGIN_SIZE: Peer = at(CHAIN, 18.3, None);
/// MiB of memory that the chain holds at once in an ADD: flannel, bridge and host-local.
pub(super) const PLUGIN_MEMORY: Peer = at(CHAIN, 12.6, None);
