//! The Kubernetes API of a lab, on the underlay's gateway: the stand-in `fake-apiserver`, which answers as a real server
//! was measured to. It is looked at and written to over HTTP, as any client would.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::http::{ANSWER_LIMIT, Request};
use super::mounts::{BIN_DIR, LOG_DIR, SHARED_DIR};
use super::namespaces::command;
use super::process::Process;
use super::underlay::GATEWAY;
use super::wait::wait_until;
use super::{Lab, NET_CONF, Node};

/// The port of the API (Kubernetes, "ports and protocols").
const PORT: u16 = 6443;
/// The port at which pods find it, encrypted (Kubernetes, the Service `kubernetes`).
const SERVICE_PORT: u16 = 443;
/// The certificate of the authority by which it is known there, below what all nodes share.
const AUTHORITY: &str = "api-ca.crt";
/// How long the server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// Where the daemon finds its network configuration by default (flannel `main.go`, `net-config-path`).
const NET_CONF_DIR: &str = "/etc/kube-flannel";
/// The list of Nodes that a server leaves behind, below what all nodes share.
const KEPT: &str = "nodes.json";

/// Where a node finds the API.
#[must_use]
pub fn kube_url() -> String {
    format!("http://{GATEWAY}:{PORT}")
}

/// The variables by which a pod finds the API (Kubernetes, "Accessing the Kubernetes API from a Pod").
#[must_use]
pub fn kube_service() -> [(&'static str, String); 2] {
    [
        ("KUBERNETES_SERVICE_HOST", GATEWAY.to_string()),
        ("KUBERNETES_SERVICE_PORT", SERVICE_PORT.to_string()),
    ]
}

/// A Node as kubelet and controller manager leave it: with these subnets, and without a network.
#[must_use]
pub fn bare_kube_node(name: &str, pod_cidrs: &[&str]) -> Value {
    json!({
        "kind": "Node", "apiVersion": "v1",
        "metadata": { "name": name, "labels": { "kubernetes.io/hostname": name } },
        "spec": { "podCIDR": pod_cidrs.first(), "podCIDRs": pod_cidrs },
        "status": { "conditions": [
            { "type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated" },
            { "type": "Ready", "status": "True" },
        ] },
    })
}

impl Lab {
    /// Starts the API server, with the Nodes of an earlier one if one was killed, and waits until it answers.
    ///
    /// # Errors
    /// Fails when there is no program `fake-apiserver` beside those under test, or when it does not answer in time.
    pub fn start_api(&mut self) -> Result<()> {
        let (program, log) = (format!("{BIN_DIR}/fake-apiserver"), format!("{LOG_DIR}/api.log"));
        let (address, kept) = (format!("{GATEWAY}:{PORT}"), format!("{SHARED_DIR}/{KEPT}"));
        let encrypted = [
            "--tls",
            &format!("{GATEWAY}:{SERVICE_PORT}"),
            &format!("{SHARED_DIR}/{AUTHORITY}"),
        ];
        let child = self.holder.namespaces().run(|| {
            let log = fs::File::options().create(true).append(true).open(&log);
            let log = log.context("opening the log of the API server")?;
            let mut server = command(&[program.as_str(), &address])?;
            server.args(encrypted);
            if Path::new(&kept).exists() {
                server.arg(&kept);
            }
            server
                .stdin(Stdio::null())
                .stdout(log.try_clone().context("duplicating a log")?)
                .stderr(log);
            server
                .spawn()
                .context("starting fake-apiserver (cargo build -p fake-apiserver)")
        })?;
        self.api = Some(Process::new(child));
        wait_until("the API to answer", START_LIMIT, || {
            Ok(self.ask_api("GET", "/readyz", &Value::Null).is_ok())
        })?;
        Ok(())
    }

    /// The certificate of the authority that signed the API server's own.
    ///
    /// # Errors
    /// Fails when no API server was started.
    pub fn api_authority(&self) -> Result<String> {
        fs::read_to_string(self.shared_file(AUTHORITY)).context("reading the API server's authority")
    }

    /// Kills the API server (SIGKILL). Its Nodes stay in a file, for the next start.
    ///
    /// # Errors
    /// Fails when it does not run.
    pub fn kill_api(&mut self) -> Result<()> {
        let list = self.ask_api("GET", "/api/v1/nodes", &Value::Null)?;
        let mut api = self.api.take().context("no API server runs")?;
        api.signal(Signal::SIGKILL)?;
        api.wait(ANSWER_LIMIT)?;
        fs::write(self.shared_file(KEPT), list.to_string()).context("keeping the list of Nodes")
    }

    /// Changes the Nodes while no API server runs, as it finds them when it starts.
    ///
    /// # Errors
    /// Fails when none was killed.
    pub fn change_kept_nodes(&self, change: impl FnOnce(&mut Vec<Value>)) -> Result<()> {
        let path = self.shared_file(KEPT);
        let text = fs::read_to_string(&path).context("reading the list of Nodes")?;
        let mut list: Value = serde_json::from_str(&text).context("reading the list of Nodes")?;
        let items = list.get_mut("items").and_then(Value::as_array_mut);
        change(items.context("a list of Nodes without items")?);
        fs::write(path, list.to_string()).context("writing the list of Nodes")
    }

    /// Stops the API server where it is (SIGSTOP), so that it answers nobody and closes nothing.
    ///
    /// # Errors
    /// Fails when it does not run.
    pub fn freeze_api(&self) -> Result<()> {
        self.signal_api(Signal::SIGSTOP)
    }

    /// Lets a frozen API server go on.
    ///
    /// # Errors
    /// Fails when it does not run.
    pub fn thaw_api(&self) -> Result<()> {
        self.signal_api(Signal::SIGCONT)
    }

    /// A Node.
    ///
    /// # Errors
    /// Fails when the server does not answer, or has none of this name.
    pub fn kube_node(&self, name: &str) -> Result<Value> {
        self.ask_api("GET", &format!("/api/v1/nodes/{name}"), &Value::Null)
    }

    /// Makes a Node, or replaces it, without any of a server's checks.
    ///
    /// # Errors
    /// Fails when the server does not answer.
    pub fn put_kube_node(&self, node: &Value) -> Result<()> {
        self.ask_api("POST", "/stand-in/node", node).map(drop)
    }

    /// Changes a Node by a strategic-merge patch, without any of a server's checks.
    ///
    /// # Errors
    /// Fails when the server does not answer, or has none of this name.
    pub fn patch_kube_node(&self, name: &str, patch: &Value) -> Result<()> {
        let order = json!({ "name": name, "patch": patch });
        self.ask_api("POST", "/stand-in/patch", &order).map(drop)
    }

    /// Removes a Node.
    ///
    /// # Errors
    /// Fails when the server does not answer, or has none of this name.
    pub fn remove_kube_node(&self, name: &str) -> Result<()> {
        self.ask_api("DELETE", &format!("/api/v1/nodes/{name}"), &Value::Null)
            .map(drop)
    }

    /// Tells the stand-in to do something (`crates/fake-apiserver/src/control.rs`).
    ///
    /// # Errors
    /// Fails when it does not know how.
    pub fn order_api(&self, order: &str, body: &Value) -> Result<Value> {
        self.ask_api("POST", &format!("/stand-in/{order}"), body)
    }

    fn signal_api(&self, signal: Signal) -> Result<()> {
        self.api.as_ref().context("no API server runs")?.signal(signal)
    }

    /// Asks the API.
    ///
    /// # Errors
    /// Fails when the server does not answer, or refuses.
    pub fn ask_api(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let text = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let request = Request {
            port: PORT,
            method,
            path,
            content_type: "application/json",
            body: &text,
        };
        self.holder.namespaces().net_only()?.run(|| request.send())
    }

    /// Makes the Nodes of the lab's nodes, each with a /24 of its number.
    ///
    /// # Errors
    /// Fails when the server does not answer.
    pub(super) fn make_kube_nodes(&self) -> Result<()> {
        for node in &self.nodes {
            let cidr = format!("10.244.{}.0/24", node.number());
            self.put_kube_node(&bare_kube_node(&node.name(), &[&cidr]))?;
            node.mount_net_conf(NET_CONF)?;
        }
        Ok(())
    }
}

impl Node {
    /// Gives the node a network configuration as kubelet mounts a ConfigMap.
    ///
    /// # Errors
    /// Fails when a file cannot be written.
    pub fn mount_net_conf(&self, text: &str) -> Result<()> {
        self.mount_volume(NET_CONF_DIR, &[("net-conf.json", text)])
    }

    /// Gives the node a directory of these files as kubelet does: links into the directory behind `..data`, which is swapped
    /// for another one at each change (Kubernetes `pkg/volume/util/atomic_writer.go`).
    ///
    /// # Errors
    /// Fails when a file cannot be written.
    pub fn mount_volume(&self, dir: &str, files: &[(&str, &str)]) -> Result<()> {
        self.namespaces().run(|| {
            let volume = Path::new(dir);
            let data = volume.join("..data");
            let next = match fs::read_link(&data) {
                Ok(before) if before == Path::new("..1") => "..2",
                Ok(_) | Err(_) => "..1",
            };
            let dir = volume.join(next);
            fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
            for (name, text) in files {
                fs::write(dir.join(name), text).with_context(|| format!("writing {name}"))?;
            }
            let draft = volume.join("..data_tmp");
            symlink(next, &draft).context("linking a volume")?;
            fs::rename(&draft, &data).context("swapping a volume")?;
            for (name, _) in files {
                let link = volume.join(name);
                if !link.is_symlink() {
                    symlink(format!("..data/{name}"), &link).with_context(|| format!("linking {name}"))?;
                }
            }
            Ok(())
        })
    }
}
