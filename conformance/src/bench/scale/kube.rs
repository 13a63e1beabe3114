//! A node of a large Kubernetes cluster, whose API server is the stand-in of the tests.

use std::fs;
use std::thread;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::super::aim::Aim;
use super::super::baseline;
use super::super::footprint::mebibytes;
use super::super::report::{Figure, Plot, Section};
use super::super::sample::millis;
use super::super::start::{self, Started};
use super::super::stats::Summary;
use super::super::usage::{Usage, peak_rss_kib};
use super::super::{BenchConfig, progress};
use super::cluster::{LIMIT, Start, take_off};
use super::peers::{Backend, StorePeer};
use super::tables::Tables;
use super::{QUICK_QUIET, QUIET, SETTLE};
use crate::lab::{Lab, LabConfig, Node, Store, bare_kube_node};

const NODES: u16 = 5000;
const NODE_BYTES: usize = 10_000;
const STARTS: u8 = 20;
const QUICK_STARTS: u8 = 3;
/// A kubelet says that its node lives at least so often (Kubernetes, `nodeStatusReportFrequency`).
const HEARTBEAT_SECS: u64 = 300;
/// What an earlier run knew, by default.
const CACHE: &str = "/var/lib/flannel/kube-cache.json";
const OWN_SUBNET: &str = "10.0.0.0/24";

/// Starts a daemon among thousands of Nodes again and again, and lets these say that they live.
///
/// # Errors
/// Fails when a lab cannot be made, or when the daemon does not do in time what is measured.
pub(in super::super) fn measure(config: &BenchConfig) -> Result<Section> {
    let (starts, quiet) = if config.quick {
        (QUICK_STARTS, QUICK_QUIET)
    } else {
        (STARTS, QUIET)
    };
    progress(&format!("scale, Kubernetes, {NODES} Nodes: {starts} starts"))?;
    let mut cluster = Cluster::new(config)?;
    let (mut ready, mut programmed) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        let start = cluster.start_cold()?;
        ready.push(start.ready);
        programmed.push(start.programmed);
    }
    thread::sleep(SETTLE);
    let idle = cluster.usage()?;
    let peak_kib = peak_rss_kib(cluster.pid()?)?;
    progress(&format!("heartbeats of {NODES} Nodes for {} s", quiet.as_secs()))?;
    let heartbeats = json!({ "count": NODES, "round_secs": HEARTBEAT_SECS });
    cluster.lab.order_api("heartbeats", &heartbeats)?;
    thread::sleep(SETTLE);
    let before = cluster.usage()?;
    thread::sleep(quiet);
    let after = cluster.usage()?;
    let used = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    let low = |name: &str, unit, summary, peers| Figure::low(name, unit, summary, peers);
    let one = Summary::single;
    let mib = |kib: u64| one(mebibytes(kib * 1024));
    Ok(Section {
        title: "Scale: 5,000 Nodes of Kubernetes".to_owned(),
        short: "5,000 Nodes",
        notes: vec![
            "Nodes of 10 kB from a stand-in for the API server on the same machine; iptables mode; cold: no device, no rules, no last known state, own Node without annotations"
                .to_owned(),
            baseline::KUBE_NOTE.to_owned(),
        ],
        tail: 95,
        plot: Plot::Distributions,
        figures: vec![
            low("start → subnet.env", "ms", millis(ready), vec![baseline::KUBE_READY])
                .with(vec![Aim::Most(1000.0)]),
            low(
                "start → all peers programmed",
                "ms",
                millis(programmed),
                vec![baseline::KUBE_PROGRAMMED],
            )
            .with(vec![Aim::Most(2000.0)]),
            low("RSS", "MiB", mib(idle.rss_kib), vec![baseline::KUBE_RSS]).with(vec![Aim::Most(30.0)]),
            low("peak RSS", "MiB", mib(peak_kib), vec![baseline::KUBE_RSS]),
            low("RSS under heartbeats", "MiB", mib(after.rss_kib), Vec::new()).with(vec![Aim::Most(30.0)]),
            low(
                "CPU, 16.7 heartbeats a second",
                "% of a core",
                one(used * 100.0 / quiet.as_secs_f64()),
                Vec::new(),
            )
            .with(vec![Aim::Most(1.0)]),
        ],
    })
}

/// One node with a daemon, and Nodes that are there in the API only.
struct Cluster {
    // Fields are dropped in this order: the daemon is reaped before the lab waits for its processes to end.
    daemon: Option<Started>,
    lab: Lab,
    peers: Vec<StorePeer>,
}

impl Cluster {
    fn new(config: &BenchConfig) -> Result<Self> {
        let binaries = config.binaries.clone();
        let lab = Lab::on(Store::Kube, &LabConfig { nodes: 1, binaries })?;
        let peers = StorePeer::all(NODES, 0);
        for peer in &peers {
            lab.put_kube_node(&kube_node(*peer))?;
        }
        let cluster = Self {
            daemon: None,
            lab,
            peers,
        };
        cluster.node()?.mount_net_conf(&Backend::Vxlan.net_conf())?;
        Ok(cluster)
    }

    fn node(&self) -> Result<&Node> {
        self.lab.node(1)
    }

    /// Starts a daemon as on a node that is new, and waits until all peers are programmed.
    fn start_cold(&mut self) -> Result<Start> {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop()?;
            take_off(self.node()?)?;
        }
        let cache = self.node()?.file(CACHE);
        if cache.exists() {
            fs::remove_file(cache).context("removing the last known state")?;
        }
        self.lab
            .put_kube_node(&bare_kube_node(&self.node()?.name(), &[OWN_SUBNET]))?;
        let mut started = start::start(self.node()?)?;
        let ready = started.ready(self.node()?)?;
        let tables = Tables::open(self.node()?, Backend::Vxlan)?;
        let done = tables.await_all(&self.peers, LIMIT)?;
        let programmed = done.duration_since(started.at);
        self.daemon = Some(started);
        Ok(Start { ready, programmed })
    }

    fn pid(&self) -> Result<u32> {
        let daemon = self.daemon.as_ref().context("the daemon does not run")?;
        Ok(daemon.process.pid())
    }

    fn usage(&self) -> Result<Usage> {
        Usage::of(self.pid()?)
    }
}

/// A peer's Node, of the size that real ones have: most of it are names of images. The stand-in lets Nodes of these names
/// say that they live.
fn kube_node(peer: StorePeer) -> Value {
    let name = format!("peer-{:05}", peer.number + 1);
    let mut node = bare_kube_node(&name, &[&format!("{}/24", peer.subnet())]);
    let mac = peer.vtep_mac().map(|byte| format!("{byte:02x}")).join(":");
    if let Some(metadata) = node.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = json!({
            "flannel.alpha.coreos.com/kube-subnet-manager": "true",
            "flannel.alpha.coreos.com/backend-type": "vxlan",
            "flannel.alpha.coreos.com/backend-data": json!({"VNI": 1, "VtepMAC": mac}).to_string(),
            "flannel.alpha.coreos.com/public-ip": peer.public_ip().to_string(),
        });
        metadata.insert("annotations".to_owned(), annotations);
    }
    let image = |number: usize| {
        let digest = "0123456789abcdef".repeat(4);
        json!({
            "names": [format!("registry.example/team/image-{number:03}@sha256:{digest}")],
            "sizeBytes": 100_000_000 + number,
        })
    };
    let missing = NODE_BYTES.saturating_sub(node.to_string().len());
    let images = missing.div_ceil(image(0).to_string().len() + 1);
    if let Some(status) = node.get_mut("status").and_then(Value::as_object_mut) {
        status.insert("images".to_owned(), (0..images).map(image).collect());
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_as_large_as_real_ones_and_tell_what_leases_do() {
        let peer = StorePeer {
            number: 258,
            generation: 0,
        };
        let node = kube_node(peer);
        let size = node.to_string().len();
        assert!((NODE_BYTES..NODE_BYTES + 400).contains(&size), "{size}");
        assert_eq!(node["metadata"]["name"], "peer-00259");
        assert_eq!(node["spec"]["podCIDR"], "10.2.2.0/24");
        let annotations = &node["metadata"]["annotations"];
        assert_eq!(annotations["flannel.alpha.coreos.com/public-ip"], "172.16.1.3");
        let data = &annotations["flannel.alpha.coreos.com/backend-data"];
        assert_eq!(data, r#"{"VNI":1,"VtepMAC":"02:5c:00:00:01:02"}"#);
    }
}
