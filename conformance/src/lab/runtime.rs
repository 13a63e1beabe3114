//! The container runtime's part: calls the plugins of a configuration list as libcni does.

use std::fs;
use std::io::Write;
use std::process::{Child, Output, Stdio};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::iproute::text;
use super::mounts::CNI_BIN_DIR;
use super::namespaces::command;
use super::node::Node;

/// The network configuration list that the runtime reads.
pub(crate) const CONFLIST: &str = "/etc/cni/net.d/10-flannel.conflist";

/// A CNI operation on one container's interface (CNI SPEC 1.1.0 §Section 2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// Attaches the container.
    Add,
    /// Detaches it.
    Del,
    /// Asks whether it is still attached as it was.
    Check,
}

impl Verb {
    /// The verb as `CNI_COMMAND` has it.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Add => "ADD",
            Self::Del => "DEL",
            Self::Check => "CHECK",
        }
    }
}

/// One container's interface, as a runtime names it to the plugins.
#[derive(Debug, Clone)]
pub struct Attachment {
    /// The container's id.
    pub container_id: String,
    /// The path of its network namespace, as the node sees it; empty when there is none.
    pub netns: String,
    /// The name of the interface in the container.
    pub ifname: String,
}

/// A port of the node that leads to a port of a pod, in TCP and UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostPort {
    /// The node's.
    pub host_port: u16,
    /// The pod's.
    pub pod_port: u16,
}

/// What one plugin of the list answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PluginError {
    /// The plugin's type.
    pub plugin: String,
    /// The error object on its standard output; `Null` when it printed none.
    pub object: Value,
    /// Its standard error.
    pub stderr: String,
}

impl std::fmt::Display for PluginError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "the plugin {} failed: {} {}",
            self.plugin,
            self.object,
            self.stderr.trim()
        )
    }
}

impl std::error::Error for PluginError {}

/// Writes the node's network configuration list: the one that Flannel's manifest ships (kube-flannel.yml, cni-conf.json),
/// with the version 1.0.0, and with `portmap` only where that plugin is there.
///
/// # Errors
/// Fails when the file cannot be written.
pub fn install_conflist(node: &Node) -> Result<()> {
    write_conflist(node, &conflist(node.file(CNI_BIN_DIR).join("portmap").exists()))
}

/// Flannel's network configuration list, with portmap or without.
pub(crate) fn conflist(has_portmap: bool) -> Value {
    // Pods shall see each other by their own addresses, on nodes whose flanneld does no masquerading as well.
    let delegate = json!({"hairpinMode": true, "isDefaultGateway": true, "ipMasq": false});
    let mut plugins = vec![json!({"type": "flannel", "delegate": delegate})];
    if has_portmap {
        plugins.push(json!({"type": "portmap", "capabilities": {"portMappings": true}}));
    }
    json!({"name": "cbr0", "cniVersion": "1.0.0", "plugins": plugins})
}

/// Replaces the node's network configuration list.
///
/// # Errors
/// Fails when the file cannot be written.
pub fn write_conflist(node: &Node, list: &Value) -> Result<()> {
    fs::write(node.file(CONFLIST), format!("{list:#}\n")).with_context(|| format!("writing {CONFLIST}"))
}

/// Calls every plugin of the node's list as libcni does (CNI SPEC 1.1.0 §Section 3); returns the last result.
///
/// # Errors
/// Fails with a [`PluginError`] when a plugin answers with an error, or when one cannot be run.
pub fn call(node: &Node, verb: Verb, attachment: &Attachment, cached: Option<&Value>) -> Result<Value> {
    let list = list_of(node)?;
    call_list(&list, verb, cached, |plugin, conf| {
        run_plugin(node, plugin, verb, attachment, conf)
    })
}

/// The network configuration list of a node.
///
/// # Errors
/// Fails when it cannot be read.
pub(crate) fn list_of(node: &Node) -> Result<Value> {
    let text = fs::read_to_string(node.file(CONFLIST)).with_context(|| format!("reading {CONFLIST}"))?;
    serde_json::from_str(&text).with_context(|| format!("reading {CONFLIST}"))
}

/// Calls every plugin of a list as libcni does: forwards for ADD and CHECK, backwards for DEL, each with the
/// configuration's own name and version and the previous result; returns the last result. The function runs one plugin
/// by its type, with a configuration on its standard input.
///
/// # Errors
/// Fails with a [`PluginError`] when a plugin answers with an error, or when one cannot be run.
pub(crate) fn call_list(
    list: &Value,
    verb: Verb,
    cached: Option<&Value>,
    run: impl Fn(&str, &str) -> Result<Output>,
) -> Result<Value> {
    let mut plugins = list
        .get("plugins")
        .and_then(Value::as_array)
        .context("the list has no plugins")?
        .clone();
    if verb == Verb::Del {
        plugins.reverse();
    }
    let mut result = cached.cloned().unwrap_or(Value::Null);
    for mut conf in plugins {
        let members = conf
            .as_object_mut()
            .context("a plugin's configuration is no object")?;
        for key in ["name", "cniVersion"] {
            members.insert(key.to_owned(), list.get(key).cloned().unwrap_or_default());
        }
        if !result.is_null() {
            members.insert("prevResult".to_owned(), result.clone());
        }
        let plugin = text(&conf, "type").to_owned();
        let answer = answer_of(&plugin, verb, &run(&plugin, &conf.to_string())?)?;
        if verb == Verb::Add {
            result = answer;
        }
    }
    Ok(result)
}

fn answer_of(plugin: &str, verb: Verb, output: &Output) -> Result<Value> {
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let object = serde_json::from_str(&stdout).unwrap_or_default();
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(PluginError {
            plugin: plugin.to_owned(),
            object,
            stderr,
        }
        .into());
    }
    if verb == Verb::Add && object.is_null() {
        bail!("the plugin {plugin} printed no result but {stdout:?}");
    }
    Ok(object)
}

/// Runs one plugin of a node with the environment that containerd gives it.
///
/// # Errors
/// Fails when the plugin cannot be run at all.
pub fn run_plugin(
    node: &Node,
    plugin: &str,
    verb: Verb,
    attachment: &Attachment,
    stdin: &str,
) -> Result<Output> {
    node.namespaces()
        .run(|| run_program(CNI_BIN_DIR, plugin, verb, attachment, stdin))
}

/// Runs one plugin where the calling thread is, with the environment that containerd gives it.
///
/// # Errors
/// Fails when the plugin cannot be run at all.
pub(crate) fn run_program(
    bin_dir: &str,
    plugin: &str,
    verb: Verb,
    attachment: &Attachment,
    stdin: &str,
) -> Result<Output> {
    let child = start_program(bin_dir, plugin, verb, attachment, stdin)?;
    child
        .wait_with_output()
        .with_context(|| format!("waiting for the plugin {plugin}"))
}

/// Starts one plugin where the calling thread is, with the environment that containerd gives it (CNI SPEC 1.1.0
/// §Parameters).
///
/// # Errors
/// Fails when the plugin cannot be run at all.
pub(crate) fn start_program(
    bin_dir: &str,
    plugin: &str,
    verb: Verb,
    attachment: &Attachment,
    stdin: &str,
) -> Result<Child> {
    let program = format!("{bin_dir}/{plugin}");
    let id = &attachment.container_id;
    let args = format!(
        "K8S_POD_INFRA_CONTAINER_ID={id};IgnoreUnknown=1;K8S_POD_UID={id};K8S_POD_NAMESPACE=lab;K8S_POD_NAME={id}"
    );
    let mut process = command(&[program.as_str()])?;
    process
        .env("CNI_COMMAND", verb.text())
        .env("CNI_CONTAINERID", id)
        .env("CNI_NETNS", &attachment.netns);
    process
        .env("CNI_IFNAME", &attachment.ifname)
        .env("CNI_PATH", bin_dir)
        .env("CNI_ARGS", args);
    process
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = process
        .spawn()
        .with_context(|| format!("starting the plugin {program}"))?;
    // A plugin that ends before it has read everything closes the pipe; its answer says why.
    child
        .stdin
        .take()
        .map(|mut pipe| pipe.write_all(stdin.as_bytes()).ok());
    Ok(child)
}

/// The plugins of a list.
pub(crate) fn plugins_of(list: &Value) -> impl Iterator<Item = &Value> {
    list.get("plugins")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
}

/// Whether a plugin declares that it takes ports of the node.
pub(crate) fn takes_ports(plugin: &Value) -> bool {
    plugin.pointer("/capabilities/portMappings") == Some(&Value::Bool(true))
}

/// Gives the ports to each plugin that declares that it takes them (CNI CONVENTIONS, `portMappings`).
pub(crate) fn with_ports(mut list: Value, ports: &[HostPort]) -> Value {
    let mapping = |port: &HostPort, protocol: &str| json!({"hostPort": port.host_port, "containerPort": port.pod_port, "protocol": protocol});
    let mappings: Vec<_> = ports
        .iter()
        .flat_map(|port| [mapping(port, "tcp"), mapping(port, "udp")])
        .collect();
    let plugins = list.get_mut("plugins").and_then(Value::as_array_mut);
    for plugin in plugins.into_iter().flatten() {
        if let (true, false, Some(members)) =
            (takes_ports(plugin), mappings.is_empty(), plugin.as_object_mut())
        {
            members.insert("runtimeConfig".to_owned(), json!({"portMappings": mappings}));
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plugins_that_declare_it_get_ports() {
        let list = json!({"plugins": [{"type": "a"}, {"type": "b", "capabilities": {"portMappings": true}}]});
        let ports = [HostPort {
            host_port: 7,
            pod_port: 8,
        }];
        let given = with_ports(list.clone(), &ports);
        assert_eq!(given["plugins"][0].get("runtimeConfig"), None);
        let mappings = &given["plugins"][1]["runtimeConfig"]["portMappings"];
        assert_eq!(
            mappings[1],
            json!({"hostPort": 7, "containerPort": 8, "protocol": "udp"})
        );
        assert_eq!(with_ports(list.clone(), &[]), list);
    }
}
