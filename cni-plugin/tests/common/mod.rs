//! A node and its pods as network namespaces, each of a thread of its own, and ways to call the plugin in them.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output as ProcessOutput, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;

use cni_plugin::{Edges, Input, Output, run};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The real binary.
pub(crate) const BINARY: &str = env!("CARGO_BIN_EXE_flannel");

/// Runs a test in a network namespace of its own, the node's.
pub(crate) fn on_a_node(test: impl FnOnce(Node) + Send + 'static) {
    let thread = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        ip(&["link", "set", "lo", "up"]);
        test(Node::new());
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A node: the calling thread's namespace, and its files.
pub(crate) struct Node {
    pub(crate) dir: TempDir,
}

/// A pod: a namespace that lives as long as this value.
pub(crate) struct Pod {
    pub(crate) netns: String,
    pub(crate) id: String,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pod {
    pub(crate) fn new(id: &str) -> Self {
        let (stop, stopped) = channel();
        let (started, ready) = channel();
        let thread = std::thread::spawn(move || {
            unshare(CloneFlags::CLONE_NEWNET).unwrap();
            let own = fs::read_link("/proc/thread-self").unwrap();
            started.send(format!("/proc/{}/ns/net", own.display())).unwrap();
            stopped.recv().ok();
        });
        Self {
            netns: ready.recv().unwrap(),
            id: id.to_owned(),
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Runs a program in the pod and returns what it printed.
    pub(crate) fn sh(&self, script: &str) -> String {
        let net = format!("--net={}", self.netns);
        printed(Command::new("nsenter").args([&net, "sh", "-c", script]))
    }

    /// Whether an address answers a ping from the pod.
    pub(crate) fn reaches(&self, address: &str) -> bool {
        let net = format!("--net={}", self.netns);
        let mut ping = Command::new("nsenter");
        ping.args([&net, "ping", "-c1", "-W2", address])
            .stdout(Stdio::null());
        ping.status().unwrap().success()
    }
}

impl Pod {
    /// Ends the namespace; its path names nothing any more.
    pub(crate) fn end(&mut self) {
        self.stop.take();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        self.end();
    }
}

/// How a call is made.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) program: String,
    pub(crate) vars: BTreeMap<String, String>,
    pub(crate) conf: Value,
}

impl Node {
    pub(crate) fn new() -> Self {
        let node = Self {
            dir: tempfile::tempdir().unwrap(),
        };
        node.write_subnet_env(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        );
        node
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write_subnet_env(&self, text: &str) {
        fs::write(self.path("subnet.env"), text).unwrap();
    }

    /// kube-flannel's configuration, with the node's own places.
    pub(crate) fn conf(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "name": "cbr0",
            "type": "flannel",
            "delegate": {"hairpinMode": true, "isDefaultGateway": true},
            "subnetFile": self.path("subnet.env"),
            "dataDir": self.path("flannel"),
            "ipam": {"dataDir": self.path("networks")},
        })
    }

    /// The configuration of bridge and host-local, as the reference runs them.
    pub(crate) fn bridge_conf(&self, version: &str) -> Value {
        json!({
            "cniVersion": version,
            "name": "cbr0",
            "type": "bridge",
            "mtu": 1450, "hairpinMode": true, "isDefaultGateway": true, "isGateway": true, "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "dataDir": self.path("networks"),
                "ranges": [[{"subnet": "10.244.7.0/24"}]],
                "routes": [{"dst": "10.244.0.0/16"}],
            },
        })
    }

    pub(crate) fn call(&self, verb: &str, pod: &Pod, conf: &Value) -> Call {
        let vars = [
            ("CNI_COMMAND", verb),
            ("CNI_CONTAINERID", &pod.id),
            ("CNI_NETNS", &pod.netns),
            ("CNI_IFNAME", "eth0"),
            ("CNI_PATH", "/usr/lib/cni"),
        ];
        Call {
            program: format!("/opt/cni/bin/{}", conf["type"].as_str().unwrap()),
            vars: vars.map(|(k, v)| (k.to_owned(), v.to_owned())).into(),
            conf: conf.clone(),
        }
    }

    pub(crate) fn add(&self, pod: &Pod) -> Value {
        self.call("ADD", pod, &self.conf("1.0.0")).succeeds()
    }

    pub(crate) fn del(&self, pod: &Pod) {
        self.call("DEL", pod, &self.conf("1.0.0")).succeeds();
    }

    /// Reservations of host-local, by address.
    pub(crate) fn leases(&self) -> BTreeMap<String, String> {
        let Ok(entries) = fs::read_dir(self.path("networks/cbr0")) else {
            return BTreeMap::new();
        };
        let entries = entries.map(|entry| entry.unwrap());
        let leases = entries.filter_map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            let other = name == "lock" || name.starts_with("last_reserved_ip");
            if other {
                return None;
            }
            let content = fs::read_to_string(entry.path()).unwrap();
            Some((name, content))
        });
        leases.collect()
    }

    /// flannel's state files.
    pub(crate) fn state_files(&self) -> Vec<String> {
        names_in(&self.path("flannel"))
    }

    /// All links of the node but the loopback interface.
    pub(crate) fn links(&self) -> Vec<String> {
        let text = ip(&["-o", "link"]);
        let names = text.lines().filter_map(|line| line.split(": ").nth(1));
        let names = names.map(|name| name.split('@').next().unwrap().to_owned());
        names.filter(|name| name != "lo").collect()
    }

    /// Fails if anything of any pod is left.
    pub(crate) fn assert_nothing_left(&self, links: &[&str]) {
        assert_eq!(self.links(), links, "links");
        assert_eq!(self.leases(), BTreeMap::new(), "leases");
        assert_eq!(self.state_files(), Vec::<String>::new(), "state files");
    }
}

impl Call {
    pub(crate) fn var(mut self, name: &str, value: &str) -> Self {
        self.vars.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Makes the call in this process and this thread's namespace.
    pub(crate) fn run(&self) -> Output {
        let input = Input {
            program: self.program.clone(),
            vars: self.vars.clone(),
            ..Input::default()
        };
        let text = self.conf.to_string();
        let mut edges = Edges {
            stdin: &mut text.as_bytes(),
            random: 0x1234_5678_9abc_def0,
        };
        run(&input, &mut edges)
    }

    /// Makes the call and returns its answer, `null` if it printed none.
    pub(crate) fn succeeds(&self) -> Value {
        let output = self.run();
        assert_eq!((output.code, output.stderr.as_str()), (0, ""), "{output:?}");
        answer(&output.stdout)
    }

    /// Makes the call, which must fail, and returns the error object.
    pub(crate) fn fails(&self) -> Value {
        let output = self.run();
        assert_eq!((output.code, output.stderr.as_str()), (1, ""), "{output:?}");
        let error = answer(&output.stdout);
        assert!(error["code"].is_u64() && error["msg"].is_string(), "{error}");
        error
    }

    /// Runs a program with the call.
    pub(crate) fn spawn(&self, program: &Path) -> std::process::Child {
        self.spawn_to(program, Stdio::piped())
    }

    /// Runs a program with the call and this standard output.
    pub(crate) fn spawn_to(&self, program: &Path, stdout: Stdio) -> std::process::Child {
        use std::io::Write;
        let mut command = Command::new(program);
        command.env_clear().envs(&self.vars);
        command
            .stdin(Stdio::piped())
            .stdout(stdout)
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // A child that was killed meanwhile does not read it.
        stdin.write_all(self.conf.to_string().as_bytes()).ok();
        child
    }

    /// Runs a program with the call, which must succeed.
    pub(crate) fn exec(&self, program: &Path) -> Value {
        let output: ProcessOutput = self.spawn(program).wait_with_output().unwrap();
        let stdout = String::from_utf8(output.stdout).unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success(),
            "{}: {stdout} {stderr}",
            program.display()
        );
        answer(&stdout)
    }
}

fn answer(stdout: &str) -> Value {
    if stdout.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(stdout).unwrap()
    }
}

/// Runs `ip` in the calling thread's namespace.
pub(crate) fn ip(args: &[&str]) -> String {
    printed(Command::new("ip").args(args))
}

/// Runs a script in the calling thread's namespace and in a directory.
pub(crate) fn sh(dir: &Path, script: &str) -> String {
    printed(Command::new("sh").current_dir(dir).args(["-ec", script]))
}

pub(crate) fn printed(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    String::from_utf8(output.stdout).unwrap()
}

pub(crate) fn names_in(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}
