//! Who is measured: lists of plugins, and the bare program, all run as a runtime runs them.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::resource::{UsageWho, getrusage};
use serde_json::{Value, json};

use super::floor;
use super::sample::{Sample, cpu_time};
use crate::lab::{CNI_BIN_DIR, Node, POD_LINK, SUBNET_FILE};

/// The node's lease and what the plugin `flannel` makes of it (flannel-io/cni-plugin, flannel.go).
const SUBNET_ENV: &str =
    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
const SUBNET_ENV_V6: &str =
    "FLANNEL_IPV6_NETWORK=fd00:10:244::/48\nFLANNEL_IPV6_SUBNET=fd00:10:244:7::1/64\n";
const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 244, 7, 1);
const MTU: u32 = 1450;

/// Where the programs of either side are on the node: in memory, like all state.
const OURS_DIR: &str = "/run/bench/ours";
const PEER_DIR: &str = "/run/bench/peer";
const FLOOR_DIR: &str = "/run/bench/floor";

/// What is attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Load {
    /// A pod with an address of IPv4.
    Plain,
    /// The same, with portmap behind, which finds nothing to do.
    Chain,
    /// The same with one mapped port.
    Port,
    /// A pod with an address of each family, without portmap.
    DualStack,
}

impl Load {
    /// All that ours and the peer can be measured with.
    pub(super) const ALL: [Self; 4] = [Self::Plain, Self::Chain, Self::Port, Self::DualStack];

    /// The load in words.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Plain => "without ports",
            Self::Chain => "with portmap, without ports",
            Self::Port => "with one mapped port",
            Self::DualStack => "dual stack",
        }
    }

    /// Whether portmap is part of it.
    pub(super) fn has_portmap(self) -> bool {
        matches!(self, Self::Chain | Self::Port)
    }
}

/// One side of the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// Our `flannel`, which does bridge's and host-local's part itself, and our `portmap`.
    Ours,
    /// The other `bridge` with its own `host-local`, with the configuration that `flannel` hands on, and its `portmap`.
    Peer,
    /// The bare program.
    Floor,
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

/// A side that is ready on a node: the programs of a list, with their configurations.
pub(super) struct Chain {
    plugins: Vec<Plugin>,
    load: Load,
}

/// A program with its configuration.
struct Plugin {
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

impl Chain {
    /// Puts a side's programs, and what it finds on a node, in place.
    pub(super) fn prepare(side: Side, load: Load, node: &Node, peer_dir: Option<&Path>) -> Result<Self> {
        let mut plugins = Vec::new();
        match side {
            Side::Ours => {
                let ours = node.file(CNI_BIN_DIR).join("flannel");
                for name in ["flannel", "portmap"] {
                    install(&ours, node, OURS_DIR, name)?;
                }
                plugins.push(Plugin::new(OURS_DIR, "flannel", flannel_conf()));
            }
            Side::Peer => {
                let dir = peer_dir.context("there is no other bridge to take turns with")?;
                for name in ["bridge", "host-local", "portmap"] {
                    install(&dir.join(name), node, PEER_DIR, name)?;
                }
                plugins.push(Plugin::new(PEER_DIR, "bridge", bridge_conf(load)));
            }
            Side::Floor => {
                install(&floor::program()?, node, FLOOR_DIR, floor::NAME)?;
                floor::prepare(node)?;
                plugins.push(Plugin::new(FLOOR_DIR, floor::NAME, Value::Null));
            }
        }
        if let Some(first) = plugins
            .first()
            .filter(|_| load.has_portmap() && side != Side::Floor)
        {
            plugins.push(Plugin::new(first.dir, "portmap", portmap_conf()));
        }
        fs::create_dir_all(node.file("/run/flannel")).context("making /run/flannel")?;
        fs::write(node.file(SUBNET_FILE), subnet_env(load)).context("writing subnet.env")?;
        Ok(Self { plugins, load })
    }

    /// Does one operation with every plugin, as a runtime does, and notes what ADD answers. What is measured is from
    /// before the start of each program until it is reaped.
    pub(super) fn run(&self, operation: Operation, seat: &mut PodSeat) -> Result<Sample> {
        let mut sum = Sample {
            wall: Duration::ZERO,
            cpu: Duration::ZERO,
        };
        for plugin in self.in_order(operation) {
            let sample = plugin.run(operation, seat, &self.stdin(plugin, operation, seat))?;
            sum.wall += sample.wall;
            sum.cpu += sample.cpu;
        }
        Ok(sum)
    }

    /// Whether a side can do an operation: the floor has nothing to check, and the peer's portmap (1.1.1) looks for a
    /// rule of IPv6 that it does not make.
    pub(super) fn has(&self, side: Side, operation: Operation) -> bool {
        let checks = side == Side::Ours || (side == Side::Peer && self.load != Load::Port);
        operation != Operation::Check || checks
    }

    /// The first program, for those who look at a single one.
    pub(super) fn start_first(&self, operation: Operation, seat: &PodSeat) -> Result<(Child, String)> {
        let plugin = self.plugins.first().context("a list without plugins")?;
        let child = plugin.start(operation, seat, None)?;
        Ok((child, self.stdin(plugin, operation, seat)))
    }

    /// Does an operation under strace, with these options, whose log goes to a file.
    pub(super) fn traced(&self, operation: Operation, seat: &mut PodSeat, options: &[&str]) -> Result<()> {
        for plugin in self.in_order(operation) {
            let conf = self.stdin(plugin, operation, seat);
            let mut child = plugin.start(operation, seat, Some(options))?;
            let answer = talk(child.stdin.take(), child.stdout.take(), &conf)?;
            let status = child.wait().context("waiting for strace")?;
            plugin.take_answer(operation, seat, status.success(), &answer)?;
        }
        Ok(())
    }

    fn in_order(&self, operation: Operation) -> Vec<&Plugin> {
        let mut plugins: Vec<_> = self.plugins.iter().collect();
        if operation == Operation::Del {
            plugins.reverse();
        }
        plugins
    }

    /// A plugin's configuration for an operation, with the previous result where there is one.
    fn stdin(&self, plugin: &Plugin, operation: Operation, seat: &PodSeat) -> String {
        let mut conf = plugin.conf.clone();
        let is_first = self
            .plugins
            .first()
            .is_some_and(|first| first.program == plugin.program);
        let Some(members) = conf.as_object_mut() else {
            return String::new();
        };
        let begins = is_first && operation == Operation::Add;
        if !(seat.result.is_null() || begins) {
            members.insert("prevResult".to_owned(), seat.result.clone());
        }
        if self.load == Load::Port && !is_first {
            let port =
                json!({"hostPort": 10_000 + u32::from(seat.number), "containerPort": 80, "protocol": "tcp"});
            members.insert("runtimeConfig".to_owned(), json!({"portMappings": [port]}));
        }
        conf.to_string()
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
    fn start(&self, operation: Operation, seat: &PodSeat, strace: Option<&[&str]>) -> Result<Child> {
        let id = container_id(seat.number);
        let mut command = match strace {
            None => Command::new(&self.program),
            Some(options) => {
                let mut command = Command::new("strace");
                command.args(options).arg(&self.program);
                command
            }
        };
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

    fn run(&self, operation: Operation, seat: &mut PodSeat, conf: &str) -> Result<Sample> {
        let usage = || getrusage(UsageWho::RUSAGE_CHILDREN).context("reading the programs' processor time");
        let before = cpu_time(&usage()?);
        let start = Instant::now();
        let mut child = self.start(operation, seat, None)?;
        let answer = talk(child.stdin.take(), child.stdout.take(), conf)?;
        let status = child
            .wait()
            .with_context(|| format!("waiting for {}", self.program))?;
        let wall = start.elapsed();
        let cpu = cpu_time(&usage()?).saturating_sub(before);
        self.take_answer(operation, seat, status.success(), &answer)?;
        Ok(Sample { wall, cpu })
    }

    fn take_answer(
        &self,
        operation: Operation,
        seat: &mut PodSeat,
        succeeded: bool,
        answer: &str,
    ) -> Result<()> {
        if !succeeded {
            bail!("{} {} failed: {}", self.program, operation.name(), answer.trim());
        }
        if operation == Operation::Add && !self.conf.is_null() {
            seat.result = serde_json::from_str(answer).with_context(|| format!("reading {answer:?}"))?;
        }
        Ok(())
    }
}

fn flannel_conf() -> Value {
    let delegate = json!({"hairpinMode": true, "isDefaultGateway": true});
    json!({"name": "cbr0", "cniVersion": "1.0.0", "type": "flannel", "delegate": delegate})
}

/// What `flannel` hands on.
fn bridge_conf(load: Load) -> Value {
    let mut ipam = json!({
        "type": "host-local",
        "ranges": [[{"subnet": "10.244.7.0/24"}]],
        // Without the gateway, which is the default, the CHECK of containernetworking-plugins 1.1.1 finds its own
        // route missing.
        "routes": [{"dst": "10.244.0.0/16", "gw": GATEWAY.to_string()}],
    });
    if load == Load::DualStack {
        ipam = json!({
            "type": "host-local",
            "ranges": [[{"subnet": "10.244.7.0/24"}], [{"subnet": "fd00:10:244:7::/64"}]],
            "routes": [
                {"dst": "10.244.0.0/16", "gw": GATEWAY.to_string()},
                {"dst": "fd00:10:244::/48", "gw": "fd00:10:244:7::1"},
            ],
        });
    }
    json!({
        "name": "cbr0", "cniVersion": "1.0.0", "type": "bridge", "mtu": MTU,
        "hairpinMode": true, "ipMasq": false, "isGateway": true, "isDefaultGateway": true, "ipam": ipam,
    })
}

fn portmap_conf() -> Value {
    json!({"name": "cbr0", "cniVersion": "1.0.0", "type": "portmap"})
}

fn subnet_env(load: Load) -> String {
    let second = match load {
        Load::Plain | Load::Chain | Load::Port => "",
        Load::DualStack => SUBNET_ENV_V6,
    };
    format!("{SUBNET_ENV}{second}")
}

/// Hands a program its configuration and reads its answer. Neither fills a pipe.
pub(super) fn talk(stdin: Option<ChildStdin>, stdout: Option<ChildStdout>, conf: &str) -> Result<String> {
    let mut stdin = stdin.context("a program without standard input")?;
    match stdin.write_all(conf.as_bytes()) {
        // A program need not read it.
        Err(e) if e.kind() == ErrorKind::BrokenPipe => {}
        other => other.context("handing over a configuration")?,
    }
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

/// The address that proves a pod to be attached: its gateway.
pub(super) const PROOF: Ipv4Addr = GATEWAY;
