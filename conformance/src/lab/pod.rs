use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use anyhow::{Context, Result};
use serde_json::Value;

use super::iproute::{Ip, text};
use super::namespaces::Namespaces;
use super::node::Node;
use super::runtime::{self, Attachment, HostPort, Verb};

/// The interface that the runtime asks for in a pod.
pub const POD_LINK: &str = "eth0";

/// A pod: a network namespace on a node, attached by the plugins.
#[derive(Debug)]
pub struct Pod {
    name: String,
    node_number: u8,
    address: Ipv4Addr,
    host_link: String,
    namespaces: Namespaces,
    attachment: Attachment,
    result: Value,
}

impl Node {
    /// Makes a pod: its network namespace, then ADD through the node's configuration list. When ADD fails, the namespace
    /// is removed again, but DEL is not called: what the plugin leaves behind is the plugin's fault.
    ///
    /// # Errors
    /// Fails with [`runtime::PluginError`] when a plugin does, or when iproute2 does.
    pub fn add_pod(&self, name: &str) -> Result<Pod> {
        self.add_pod_with(name, &[])
    }

    /// As [`Node::add_pod`], with ports of the node, where a plugin takes them.
    ///
    /// # Errors
    /// As [`Node::add_pod`].
    pub fn add_pod_with(&self, name: &str, ports: &[HostPort]) -> Result<Pod> {
        self.ip(&["netns", "add", name])?;
        self.attach(name, ports).inspect_err(|_| {
            // The first error is the one to tell.
            self.ip(&["netns", "delete", name]).ok();
        })
    }

    fn attach(&self, name: &str, ports: &[HostPort]) -> Result<Pod> {
        self.ip(&["-n", name, "link", "set", "lo", "up"])?;
        let netns = format!("/run/netns/{name}");
        let namespaces = Namespaces::of_netns_file(&self.file(&netns))?;
        let attachment = Attachment {
            container_id: name.to_owned(),
            netns,
            ifname: POD_LINK.to_owned(),
        };
        let list = runtime::with_ports(runtime::list_of(self)?, ports);
        let result = runtime::call_list(&list, Verb::Add, None, |plugin, conf| {
            runtime::run_plugin(self, plugin, Verb::Add, &attachment, conf)
        })?;
        let (address, host_link) = (address_in(&result)?, host_link_in(&result));
        let name = name.to_owned();
        Ok(Pod {
            name,
            node_number: self.number(),
            address,
            host_link,
            namespaces,
            attachment,
            result,
        })
    }

    /// Removes a pod: DEL with the cached result, then its network namespace.
    ///
    /// # Errors
    /// Fails with [`runtime::PluginError`] when a plugin does, or when iproute2 does.
    pub fn del_pod(&self, pod: &Pod) -> Result<()> {
        self.detach_pod(pod)?;
        self.end_pod(pod)
    }

    /// Calls DEL for a pod with the cached result, whether or not its network namespace is still there.
    ///
    /// # Errors
    /// Fails with [`runtime::PluginError`] when a plugin does.
    pub fn detach_pod(&self, pod: &Pod) -> Result<()> {
        runtime::call(self, Verb::Del, &pod.attachment, Some(&pod.result)).map(drop)
    }

    /// Removes a pod's network namespace, whether or not it is still attached.
    ///
    /// # Errors
    /// Fails when iproute2 does.
    pub fn end_pod(&self, pod: &Pod) -> Result<()> {
        self.ip(&["netns", "delete", &pod.name]).map(drop)
    }

    /// Asks the plugins whether a pod is still attached as it was (CHECK).
    ///
    /// # Errors
    /// Fails with [`runtime::PluginError`] when a plugin finds a difference.
    pub fn check_pod(&self, pod: &Pod) -> Result<()> {
        runtime::call(self, Verb::Check, &pod.attachment, Some(&pod.result)).map(drop)
    }
}

impl Pod {
    /// The pod's name, which is its container id too.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The number of the node that it runs on.
    #[must_use]
    pub fn node_number(&self) -> u8 {
        self.node_number
    }

    /// The address that the plugin's result gave it.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// All addresses that the plugin's result gave it.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpAddr> {
        let ips = self.result.get("ips").and_then(Value::as_array);
        let texts = ips
            .into_iter()
            .flatten()
            .filter_map(|ip| text(ip, "address").split_once('/'));
        texts.filter_map(|(ip, _)| ip.parse().ok()).collect()
    }

    /// How a runtime names it to the plugins.
    pub(crate) fn attachment(&self) -> &Attachment {
        &self.attachment
    }

    /// The name of the host's end of its veth pair, from the plugin's result.
    #[must_use]
    pub fn host_link(&self) -> &str {
        &self.host_link
    }

    /// The pod's network namespace.
    #[must_use]
    pub fn namespaces(&self) -> &Namespaces {
        &self.namespaces
    }

    /// The pod's network namespace file, as its node sees it.
    #[must_use]
    pub fn netns_file(&self) -> PathBuf {
        PathBuf::from(&self.attachment.netns)
    }

    /// The global addresses that the kernel has on the pod's interface.
    ///
    /// # Errors
    /// Fails when iproute2 does.
    pub fn kernel_addresses(&self) -> Result<Vec<Ipv4Addr>> {
        let links = self
            .namespaces
            .json(&["ip", "-j", "-4", "address", "show", "dev", POD_LINK])?;
        let infos = links
            .iter()
            .filter_map(|link| link.get("addr_info")?.as_array())
            .flatten();
        infos
            .map(|info| text(info, "local").parse().context("reading a pod's address"))
            .collect()
    }
}

/// The first IPv4 address of a plugin's result (CNI SPEC 1.1.0 §ADD Success).
fn address_in(result: &Value) -> Result<Ipv4Addr> {
    let ips = result
        .get("ips")
        .and_then(Value::as_array)
        .context("the result has no addresses")?;
    let found = ips
        .iter()
        .filter_map(|ip| text(ip, "address").split_once('/'))
        .find_map(|(ip, _)| ip.parse().ok());
    found.with_context(|| format!("the result has no IPv4 address: {result}"))
}

/// The host's end of the pair: the interface without a sandbox that is no bridge (bridge's result lists the bridge first).
fn host_link_in(result: &Value) -> String {
    let links = result
        .get("interfaces")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let on_host = links.filter(|link| text(link, "sandbox").is_empty());
    on_host
        .map(|link| text(link, "name"))
        .find(|name| name.starts_with("veth"))
        .unwrap_or("?")
        .to_owned()
}
