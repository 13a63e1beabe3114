//! A stand-in for the kubelets of a lab's nodes, with their container runtime: it runs the pods that the API has for its
//! nodes, attached by the real plugins, and commands in them. Its containers are programs of this machine in namespaces of
//! their own; images are only names, of which those that begin with `missing` are not there.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, TcpListener};
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use conformance::lab::runtime::HostPort;
use conformance::lab::{Lab, Namespaces, Node, Pod, Process, wait_until};
use serde_json::{Value, json};

use crate::exec;

/// Where a kubelet listens (Kubernetes, "ports and protocols").
const PORT: u16 = 10_250;
/// How often the API is asked for news.
const PAUSE: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(20);

/// A container of the node's own network: its first process leads to the node's files, as the init of a node does, and the
/// container's own sees the node's processes and nothing else of them.
const NODE_CONTAINER: &[&str] = &[
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
    "sh",
    "-c",
    "unshare --mount sh -c 'mount -t proc proc /proc && exec sleep infinity' & exec sleep infinity",
];
/// A container of a pod's network, behind `ip netns exec POD`, which has a `/sys` of it.
const POD_CONTAINER: &[&str] = &[
    "unshare",
    "--pid",
    "--fork",
    "--kill-child",
    "--mount-proc",
    "sh",
    "-c",
    "mount -t tmpfs tmpfs /tmp && exec sleep infinity",
];
/// What containerd leaves to a container that asks for nothing (containerd `oci/spec.go`, `defaultUnixCaps`), as far as it
/// matters here.
const UNPRIVILEGED: &[&str] = &[
    "setpriv",
    "--bounding-set=-all,+net_raw,+dac_override,+chown,+fowner",
    "--",
];

/// The kubelets of all nodes; their pods end with them.
pub(crate) struct Kubelets {
    ends: Arc<AtomicBool>,
    errors: Arc<Mutex<Vec<String>>>,
    threads: Vec<JoinHandle<()>>,
}

/// What commands are run in, by `namespace/pod`.
#[derive(Clone, Default)]
pub(crate) struct Containers(Arc<Mutex<BTreeMap<String, Arc<Container>>>>);

/// The inside of a container.
pub(crate) struct Container {
    pub(crate) namespaces: Namespaces,
    /// What a command is run by.
    pub(crate) under: &'static [&'static str],
}

/// A pod that runs.
struct Running {
    pod: Option<Pod>,
    // It ends when this is dropped.
    _process: Process,
}

impl Containers {
    pub(crate) fn get(&self, key: &str) -> Option<Arc<Container>> {
        self.0.lock().unwrap().get(key).cloned()
    }

    fn put(&self, key: &str, container: Container) {
        self.0.lock().unwrap().insert(key.to_owned(), Arc::new(container));
    }

    fn remove(&self, key: &str) {
        self.0.lock().unwrap().remove(key);
    }
}

impl Kubelets {
    /// Starts them. The function changes what they tell of a pod's addresses.
    pub(crate) fn start(lab: &Arc<Lab>, tells: fn(&str, Vec<IpAddr>) -> Vec<IpAddr>) -> Self {
        let containers = Containers::default();
        let ends = Arc::new(AtomicBool::new(false));
        let listeners = lab.nodes().iter().map(|node| {
            let net = node.namespaces().net_only().unwrap();
            net.run(|| Ok(TcpListener::bind((node.address(), PORT))?))
                .unwrap()
        });
        let listeners: Vec<_> = listeners.collect();
        let (ended, inside) = (Arc::clone(&ends), containers.clone());
        let serves = thread::spawn(move || exec::serve(listeners, &inside, &ended));
        let (lab, ended) = (Arc::clone(lab), Arc::clone(&ends));
        let errors = Arc::<Mutex<Vec<String>>>::default();
        let failed = Arc::clone(&errors);
        let runs = thread::spawn(move || {
            let mut running = BTreeMap::new();
            while !ended.load(Ordering::Relaxed) {
                if let Err(error) = round(&lab, &containers, &mut running, tells) {
                    failed.lock().unwrap().push(format!("{error:#}"));
                }
                thread::sleep(PAUSE);
            }
        });
        Self {
            ends,
            errors,
            threads: vec![serves, runs],
        }
    }

    /// What went wrong.
    pub(crate) fn errors(&self) -> Vec<String> {
        self.errors.lock().unwrap().clone()
    }
}

impl Drop for Kubelets {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().unwrap();
        }
    }
}

fn round(
    lab: &Lab,
    containers: &Containers,
    running: &mut BTreeMap<String, Running>,
    tells: fn(&str, Vec<IpAddr>) -> Vec<IpAddr>,
) -> Result<()> {
    let list = lab.ask_api("GET", "/api/v1/pods", &Value::Null)?;
    for pod in list["items"].as_array().context("no list")? {
        let text = |path: &str| pod.pointer(path).and_then(Value::as_str).unwrap_or_default();
        let (space, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let key = format!("{space}/{name}");
        let path = format!("/api/v1/namespaces/{space}/pods/{name}");
        let Some(node) = lab
            .nodes()
            .iter()
            .find(|node| node.name() == text("/spec/nodeName"))
        else {
            continue;
        };
        if pod.pointer("/metadata/deletionTimestamp").is_some() {
            containers.remove(&key);
            if let Some(Running { pod: Some(pod), .. }) = running.remove(&key) {
                node.del_pod(&pod)?;
            }
            lab.ask_api("DELETE", &format!("{path}?gracePeriodSeconds=0"), &Value::Null)?;
        } else if !running.contains_key(&key) && pod.pointer("/status/containerStatuses").is_none() {
            let status = match start(node, &key, pod, containers, running) {
                Ok(addresses) => ready(node, &tells(name, addresses)),
                Err(error) => {
                    let event = json!({"metadata": {"namespace": space}, "involvedObject": {"name": name},
                        "type": "Warning", "reason": "Failed", "message": format!("{error:#}")});
                    lab.ask_api("POST", &format!("/api/v1/namespaces/{space}/events"), &event)?;
                    json!({"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ErrImagePull"}}}]})
                }
            };
            lab.ask_api("PATCH", &format!("{path}/status"), &json!({"status": status}))?;
        }
    }
    Ok(())
}

fn ready(node: &Node, addresses: &[IpAddr]) -> Value {
    let ips: Vec<_> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
    json!({"phase": "Running", "hostIP": node.address(), "podIP": addresses.first(), "podIPs": ips,
        "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [{"ready": true}]})
}

/// Attaches a pod, unless it is of its node's network, and starts its container; returns its addresses.
fn start(
    node: &Node,
    key: &str,
    object: &Value,
    containers: &Containers,
    running: &mut BTreeMap<String, Running>,
) -> Result<Vec<IpAddr>> {
    let container = &object["spec"]["containers"][0];
    let image = container["image"].as_str().unwrap_or_default();
    if image.starts_with("missing") {
        bail!("Failed to pull image {image:?}: not found");
    }
    let is_privileged = container["securityContext"]["privileged"] == true;
    if is_privileged && object["spec"]["hostNetwork"] == true {
        let process = Process::new(spawn(node, NODE_CONTAINER)?);
        let init = child_of(process.pid())?;
        let inside = Container {
            namespaces: Namespaces::of_process(child_of(init)?)?,
            under: &[],
        };
        containers.put(key, inside);
        let pod = None;
        running.insert(
            key.to_owned(),
            Running {
                pod,
                _process: process,
            },
        );
        return Ok(vec![node.address().into()]);
    }
    let ports = container["ports"].as_array().into_iter().flatten();
    let ports = ports
        .filter(|port| port["protocol"] == "TCP")
        .map(|port| HostPort {
            host_port: port["hostPort"].as_u64().unwrap().try_into().unwrap(),
            pod_port: port["containerPort"].as_u64().unwrap().try_into().unwrap(),
        });
    let pod = node.add_pod_with(&key.replace('/', "-"), &ports.collect::<Vec<_>>())?;
    let argv = [&["ip", "netns", "exec", pod.name()], POD_CONTAINER].concat();
    let process = Process::new(spawn(node, &argv)?);
    let inside = Container {
        namespaces: Namespaces::of_process(child_of(process.pid())?)?,
        under: UNPRIVILEGED,
    };
    containers.put(key, inside);
    let addresses = pod.addresses();
    let pod = Some(pod);
    running.insert(
        key.to_owned(),
        Running {
            pod,
            _process: process,
        },
    );
    Ok(addresses)
}

fn spawn(node: &Node, argv: &[&str]) -> Result<std::process::Child> {
    let mut command = std::process::Command::new(argv[0]);
    command
        .args(&argv[1..])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    node.namespaces().spawn(command)
}

/// The first process that a process has started, once it is the one that stays.
fn child_of(pid: u32) -> Result<u32> {
    let mut child = None;
    wait_until("a container's first process", LIMIT, || {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        child = children
            .split_whitespace()
            .next()
            .and_then(|pid| pid.parse().ok());
        let comm = child.map(|pid: u32| fs::read_to_string(format!("/proc/{pid}/comm")));
        Ok(comm.is_some_and(|comm| comm.is_ok_and(|comm| comm.trim() == "sleep")))
    })?;
    child.context("no child")
}
