use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use conformance::lab::matrix::Matrix;
use conformance::lab::observe::Dump;
use conformance::lab::ping::{Patience, ping_all};
use conformance::lab::traffic::SetAtEnd;
use conformance::lab::{
    Binaries, Flanneld, Lab, LabConfig, Namespaces, Node, Pod, Store, TUNNEL, bare_kube_node,
};

/// What the lab waits for at most, far above every aim: other tests share the machine and its kernel's locks.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// What the daemon does at once takes no longer, on a machine that others use too. Upstream looks at its routes every 10 s
/// (flannel `pkg/backend/route_network.go`): whoever mends at such a beat misses this whenever the next fault follows it.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(5);

/// A lab with its daemons running and its pods attached.
pub(crate) struct Bed {
    // Fields are dropped in this order: the daemons are reaped before the lab waits for its processes to end.
    pub(crate) daemons: Vec<Flanneld>,
    pub(crate) pods: Vec<Pod>,
    pub(crate) lab: Lab,
}

/// A lab of nodes on which nothing runs.
pub(crate) fn bare(nodes: u8) -> Lab {
    bare_on(Store::Directory, nodes)
}

/// The same with an etcd server, on which the daemons' leases will be.
pub(crate) fn bare_on_etcd(nodes: u8) -> Lab {
    bare_on(Store::Etcd, nodes)
}

/// The same with an API server of Kubernetes, whose Nodes are the leases.
pub(crate) fn bare_on_kube(nodes: u8) -> Lab {
    bare_on(Store::Kube, nodes)
}

pub(crate) fn bare_on(store: Store, nodes: u8) -> Lab {
    let binaries = Binaries::find().unwrap();
    Lab::on(store, &LabConfig { nodes, binaries }).unwrap()
}

/// Gives each node of a cluster this configuration, and its Node the subnets of its number.
pub(crate) fn configure_kube(lab: &Lab, conf: &str, subnets_of: impl Fn(u8) -> Vec<String>) {
    for node in lab.nodes() {
        let subnets = subnets_of(node.number());
        let subnets: Vec<_> = subnets.iter().map(String::as_str).collect();
        lab.put_kube_node(&bare_kube_node(&node.name(), &subnets))
            .unwrap();
        node.mount_net_conf(conf).unwrap();
    }
}

/// The subnets of a node's number in both families.
pub(crate) fn dual_subnets(number: u8) -> Vec<String> {
    vec![
        format!("10.244.{number}.0/24"),
        format!("fd00:10:244:{number}::/64"),
    ]
}

/// A lab with a daemon and some pods on every node, all of which reach each other.
pub(crate) fn running(nodes: u8, pods: u8) -> Bed {
    running_in(bare(nodes), pods)
}

/// The same in a lab on which nothing runs yet.
pub(crate) fn running_in(lab: Lab, pods: u8) -> Bed {
    let bed = started(lab, pods);
    bed.assert_all_ping();
    bed
}

/// The same, whether or not they reach each other.
pub(crate) fn started(lab: Lab, pods: u8) -> Bed {
    let daemons = lab
        .nodes()
        .iter()
        .map(|node| node.start_flanneld(&[]).unwrap())
        .collect();
    let names = |node: &Node| {
        (1..=pods)
            .map(|number| format!("n{}-p{number}", node.number()))
            .collect::<Vec<_>>()
    };
    let add = |node: &Node| {
        names(node)
            .iter()
            .map(|name| node.add_pod(name).unwrap())
            .collect::<Vec<_>>()
    };
    let pods = lab.nodes().iter().flat_map(add).collect();
    Bed { daemons, pods, lab }
}

impl Bed {
    /// A node by its number, from 1.
    pub(crate) fn node(&self, number: u8) -> &Node {
        self.lab.node(number).unwrap()
    }

    /// Every pod and node reaches every pod.
    pub(crate) fn assert_all_ping(&self) {
        let matrix = Matrix::measure(self.lab.nodes(), &self.pods, Patience::MATRIX).unwrap();
        assert_eq!(matrix.failures(), Vec::<(&str, &str)>::new());
    }

    /// Every pod of some nodes, and each of the nodes, reaches every pod that is left.
    pub(crate) fn assert_all_ping_between(&self, numbers: &[u8]) {
        let from = |place: &str| {
            numbers
                .iter()
                .any(|number| place == format!("node{number}") || place.starts_with(&format!("n{number}-")))
        };
        let matrix = Matrix::measure(self.lab.nodes(), &self.pods, Patience::MATRIX).unwrap();
        let failures: Vec<_> = matrix
            .failures()
            .into_iter()
            .filter(|(source, _)| from(source))
            .collect();
        assert_eq!(failures, Vec::<(&str, &str)>::new());
    }

    /// The addresses of the pods on other nodes than this one.
    pub(crate) fn pods_beyond(&self, number: u8) -> Vec<Ipv4Addr> {
        self.pods
            .iter()
            .filter(|pod| pod.node_number() != number)
            .map(Pod::address)
            .collect()
    }

    /// The nodes' IPv4 subnets.
    pub(crate) fn subnets(&self) -> Vec<(Ipv4Addr, u8)> {
        let nodes = self.lab.nodes().iter();
        nodes.map(|node| node.subnet().unwrap()).collect()
    }

    /// The first pod of a node.
    pub(crate) fn pod_on(&self, number: u8) -> &Pod {
        self.pods.iter().find(|pod| pod.node_number() == number).unwrap()
    }

    /// Everything of a node's tunnel: the device, its address, and the peers' routes and entries.
    pub(crate) fn tunnel(&self, number: u8) -> Dump {
        tunnel(self.node(number))
    }
}

pub(crate) fn tunnel(node: &Node) -> Dump {
    Dump::of(node.namespaces()).unwrap().of_device(TUNNEL)
}

pub(crate) fn dump(node: &Node) -> Dump {
    Dump::of(node.namespaces()).unwrap()
}

/// Asserts that nothing changed between two moments, and says what did.
#[track_caller]
pub(crate) fn assert_same(what: &str, before: &Dump, after: &Dump) {
    let changes = before.changes_to(after);
    assert!(changes.is_empty(), "{what}:\n{}", changes.join("\n"));
}

/// Pings from a namespace all through some action, and returns how many pings were sent and how many were lost.
///
/// Every target must answer before: nodes need a moment to learn of each other, which is no loss.
pub(crate) fn pinging_during<T>(
    from: &Namespaces,
    targets: &[Ipv4Addr],
    action: impl FnOnce() -> T,
) -> (T, usize, usize) {
    let answers = from.run(|| ping_all(targets, Patience::MATRIX)).unwrap();
    assert!(
        answers.iter().all(Option::is_some),
        "{targets:?} answer {answers:?}"
    );
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let _ends_all = SetAtEnd(&stop);
        let pinger = scope.spawn(|| {
            from.run(|| {
                let (mut sent, mut lost) = (0, 0);
                let start = Instant::now();
                let patience = Patience {
                    tries: 1,
                    timeout: Duration::from_millis(500),
                };
                while !stop.load(Ordering::Relaxed) {
                    let sent_at = start.elapsed();
                    let answers = ping_all(targets, patience)?;
                    sent += answers.len();
                    for (target, _) in targets
                        .iter()
                        .zip(&answers)
                        .filter(|(_, answer)| answer.is_none())
                    {
                        println!(
                            "{target} did not answer a ping sent {} ms after the first",
                            sent_at.as_millis()
                        );
                        lost += 1;
                    }
                    thread::sleep(Duration::from_millis(5));
                }
                Ok((sent, lost))
            })
        });
        let result = action();
        stop.store(true, Ordering::Relaxed);
        let (sent, lost) = pinger.join().unwrap().unwrap();
        (result, sent, lost)
    })
}

/// Runs commands on a node, each of which must succeed, and returns what the last one prints.
pub(crate) fn run_all(node: &Node, commands: &[&str]) -> String {
    let mut printed = String::new();
    for command in commands {
        let argv: Vec<_> = command.split_whitespace().collect();
        let output = node.exec(&argv).unwrap();
        let words = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command}: {words}");
        printed = String::from_utf8(output.stdout).unwrap();
    }
    printed
}

/// Lets something be mended, up to three times, until that took less than [`AT_ONCE`]; returns the shortest time.
pub(crate) fn best_of_three<E>(mut mend: impl FnMut() -> Result<Duration, E>) -> Result<Duration, E> {
    let mut best = Duration::MAX;
    for _ in 0..3 {
        best = best.min(mend()?);
        if best < AT_ONCE {
            break;
        }
    }
    Ok(best)
}

/// Looks again and again, for a given time, that something stays true.
pub(crate) fn stays(limit: Duration, mut condition: impl FnMut()) {
    let end = Instant::now() + limit;
    while Instant::now() < end {
        condition();
        thread::sleep(Duration::from_millis(100));
    }
}

/// The names and contents of all files below a directory, hidden and lock files left out.
pub(crate) fn files_below(dir: &Path) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        if entry.path().is_dir() {
            found.extend(
                files_below(&entry.path())
                    .into_iter()
                    .map(|(below, text)| (format!("{name}/{below}"), text)),
            );
        } else if name != "lock" && !name.starts_with('.') {
            let text = String::from_utf8_lossy(&fs::read(entry.path()).unwrap()).into_owned();
            found.push((name, text));
        }
    }
    found.sort();
    found
}
