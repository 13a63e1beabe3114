//! Who is measured: a chain of plugins run as programs, or the bare kernel work.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use super::floor::{Floor, FloorPod};
use super::sample::{Sample, cpu_time};
use crate::lab::{CNI_BIN_DIR, Node, POD_LINK, SUBNET_FILE};

/// The node's lease and what the plugin `flannel` makes of it (flannel-io/cni-plugin, flannel.go).
const SUBNET_ENV: &str =
    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 7, 1);
const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(10, 244, 0, 0), 16);
const MTU: u32 = 1450;
const BRIDGE: &str = "cni0";

/// Where the programs of either side are on the node: in memory, like all state.
const OURS_DIR: &str = "/run/bench/ours";
const PEER_DIR: &str = "/run/bench/peer";

/// One side of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Our `flannel`, which does bridge's and host-local's part itself.
    OurFlannel,
    /// Our binary under the name `bridge`, with the configuration that `flannel` hands on.
    OurBridge,
    /// The other `bridge` with its own `host-local`, and the same configuration.
    PeerBridge,
    /// The kernel's share alone.
    Floor,
}

impl Side {
    /// The side in words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OurFlannel => "flannel chain",
            Self::OurBridge => "bridge conf",
            Self::PeerBridge => "bridge + host-local",
            Self::Floor => "kernel floor",
        }
    }
}

/// What an operation asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operation {
    /// Asks for the versions only: what it costs to start the program.
    Version,
    Add,
    Check,
    Del,
}

impl Operation {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Version => "VERSION",
            Self::Add => "ADD",
            Self::Check => "CHECK",
            Self::Del => "DEL",
        }
    }
}

/// A side that is ready on a node.
pub(super) enum Ready {
    Plugin(Plugin),
    Floor(Floor),
}

/// A program with its configuration.
pub(super) struct Plugin {
    dir: &'static str,
    program: String,
    conf: Value,
}

/// A pod to attach: its number, from 0, and what ADD answered.
#[derive(Debug, Clone)]
pub(super) struct PodSeat {
    pub(super) number: u8,
    pub(super) result: Value,
}

impl Ready {
    /// Puts a side's programs, and what it finds on a node, in place.
    pub(super) fn prepare(side: Side, node: &Node, peer_dir: Option<&Path>) -> Result<Self> {
        let plugin = match side {
            Side::OurFlannel => Plugin::new(OURS_DIR, "flannel", flannel_conf()),
            Side::OurBridge => Plugin::new(OURS_DIR, "bridge", bridge_conf()),
            Side::PeerBridge => Plugin::new(PEER_DIR, "bridge", bridge_conf()),
            Side::Floor => return floor(node).map(Self::Floor),
        };
        if side == Side::PeerBridge {
            let dir = peer_dir.context("there is no other bridge to take turns with")?;
            for name in ["bridge", "host-local"] {
                install(&dir.join(name), node, PEER_DIR, name)?;
            }
        } else {
            let ours = node.file(CNI_BIN_DIR).join("flannel");
            for name in ["flannel", "bridge", "host-local"] {
                install(&ours, node, OURS_DIR, name)?;
            }
        }
        fs::create_dir_all(node.file("/run/flannel")).context("making /run/flannel")?;
        fs::write(node.file(SUBNET_FILE), SUBNET_ENV).context("writing subnet.env")?;
        Ok(Self::Plugin(plugin))
    }

    /// Does one operation, on a thread in the node's namespaces, and notes what ADD answers.
    pub(super) fn run(&self, operation: Operation, seat: &mut PodSeat) -> Result<Sample> {
        match self {
            Self::Plugin(plugin) => plugin.run(operation, seat),
            Self::Floor(floor) => {
                let pod = floor_pod(seat.number);
                match operation {
                    Operation::Add => floor.add(&pod),
                    Operation::Del => floor.del(&pod),
                    Operation::Version | Operation::Check => {
                        bail!("the kernel floor has no {}", operation.name())
                    }
                }
            }
        }
    }
}

impl Plugin {
    fn new(dir: &'static str, name: &str, conf: Value) -> Self {
        Self {
            dir,
            program: format!("{dir}/{name}"),
            conf,
        }
    }

    /// Starts the program for an operation; it waits for its configuration. To be called in the node's namespaces.
    pub(super) fn start(&self, operation: Operation, seat: &PodSeat) -> Result<Child> {
        let id = container_id(seat.number);
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CNI_COMMAND", operation.name());
        command
            .env("CNI_CONTAINERID", &id)
            .env("CNI_NETNS", netns(seat.number))
            .env("CNI_IFNAME", POD_LINK);
        command.env("CNI_PATH", self.dir).env(
            "CNI_ARGS",
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE=lab;K8S_POD_NAME={id}"),
        );
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit());
        command
            .spawn()
            .with_context(|| format!("starting {}", self.program))
    }

    /// The configuration for an operation, with the previous result where there is one.
    pub(super) fn stdin(&self, seat: &PodSeat) -> String {
        let mut conf = self.conf.clone();
        if let Some(members) = conf.as_object_mut().filter(|_| !seat.result.is_null()) {
            members.insert("prevResult".to_owned(), seat.result.clone());
        }
        conf.to_string()
    }

    /// What is measured: from before the start of the program until it is reaped.
    fn run(&self, operation: Operation, seat: &mut PodSeat) -> Result<Sample> {
        let conf = self.stdin(seat);
        let usage = || getrusage(UsageWho::RUSAGE_CHILDREN).context("reading the programs' processor time");
        let before = cpu_time(&usage()?);
        let start = Instant::now();
        let mut child = self.start(operation, seat)?;
        let answer = talk(child.stdin.take(), child.stdout.take(), &conf)?;
        let status = child
            .wait()
            .with_context(|| format!("waiting for {}", self.program))?;
        let wall = start.elapsed();
        let cpu = cpu_time(&usage()?).saturating_sub(before);
        if !status.success() {
            bail!("{} {} failed: {}", self.program, operation.name(), answer.trim());
        }
        if operation == Operation::Add {
            seat.result = serde_json::from_str(&answer).with_context(|| format!("reading {answer:?}"))?;
        }
        Ok(Sample { wall, cpu })
    }
}

fn flannel_conf() -> Value {
    let delegate = json!({"hairpinMode": true, "isDefaultGateway": true});
    json!({"name": "cbr0", "cniVersion": "1.0.0", "type": "flannel", "delegate": delegate})
}

/// What `flannel` hands on, for our `bridge` and the other one.
fn bridge_conf() -> Value {
    let ipam = json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.244.7.0/24"}]],
        // Without the gateway, which is the default, the CHECK of containernetworking-plugins 1.1.1 finds its own
        // route missing.
        "routes": [{"dst": "10.244.0.0/16", "gw": GATEWAY.to_string()}],
    });
    json!({
        "name": "cbr0", "cniVersion": "1.0.0", "type": "bridge", "mtu": MTU,
        "hairpinMode": true, "ipMasq": false, "isGateway": true, "isDefaultGateway": true, "ipam": ipam,
    })
}

/// Hands a program its configuration and reads its answer. Neither fills a pipe.
pub(super) fn talk(stdin: Option<ChildStdin>, stdout: Option<ChildStdout>, conf: &str) -> Result<String> {
    let mut stdin = stdin.context("a program without standard input")?;
    stdin
        .write_all(conf.as_bytes())
        .context("handing over a configuration")?;
    drop(stdin);
    let mut answer = String::new();
    let mut stdout = stdout.context("a program without standard output")?;
    stdout
        .read_to_string(&mut answer)
        .context("reading a plugin's answer")?;
    Ok(answer)
}

/// The pod's container id.
pub(super) fn container_id(number: u8) -> String {
    format!("bench-pod-{number}")
}

/// The pod's network namespace, as the node sees it.
pub(super) fn netns(number: u8) -> String {
    format!("/run/netns/pod{number}")
}

fn install(source: &Path, node: &Node, dir: &str, name: &str) -> Result<()> {
    let target = node.file(dir).join(name);
    fs::create_dir_all(node.file(dir)).with_context(|| format!("making {dir}"))?;
    fs::copy(source, &target).with_context(|| format!("copying {}", source.display()))?;
    fs::set_permissions(&target, fs::Permissions::from_mode(0o755)).context("making a program executable")
}

fn floor(node: &Node) -> Result<Floor> {
    let path = format!("/proc/{}/ns/net", node.holder_pid());
    let mtu = MTU.to_string();
    node.ip(&["link", "add", BRIDGE, "mtu", &mtu, "type", "bridge"])?;
    node.ip(&["address", "add", &format!("{GATEWAY}/24"), "dev", BRIDGE])?;
    node.ip(&["link", "set", BRIDGE, "up"])?;
    Ok(Floor {
        node: File::open(&path).with_context(|| format!("opening {path}"))?,
        bridge: BRIDGE,
        gateway: GATEWAY,
        network: NETWORK,
        mtu: MTU,
    })
}

fn floor_pod(number: u8) -> FloorPod {
    let [a, b, c, first] = GATEWAY.octets();
    let host = first.saturating_add(1).saturating_add(number);
    FloorPod {
        netns: netns(number),
        host_link: format!("veth{number}"),
        address: Ipv4Addr::new(a, b, c, host),
    }
}

/// The address that proves a pod to be attached: its gateway.
pub(super) const PROOF: Ipv4Addr = GATEWAY;
