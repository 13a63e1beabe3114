//! Lists of plugins, called as a runtime calls them.

use cni_plugin::Output;
use serde_json::{Value, json};

use crate::common::{Call, Node, Pod};

/// A list of plugins: their configurations on a node, for a container of a number.
#[derive(Clone, Copy)]
pub(crate) struct Chain {
    pub(crate) plugins: fn(&Node, u16) -> Vec<Value>,
    /// Of how many steps one is tried, by chains that run programs, which take long.
    pub(crate) sparse: usize,
}

/// A container that the chain is called for.
pub(crate) struct Attachment<'a> {
    node: &'a Node,
    pub(crate) pod: Pod,
    plugins: Vec<Value>,
    /// What the ADD of each plugin so far answered.
    results: Vec<Value>,
}

impl Chain {
    pub(crate) fn attachment<'a>(&self, node: &'a Node, id: &str, number: u16) -> Attachment<'a> {
        Attachment {
            node,
            pod: Pod::new(id),
            plugins: (self.plugins)(node, number),
            results: Vec::new(),
        }
    }

    pub(crate) fn len(&self, node: &Node) -> usize {
        (self.plugins)(node, 0).len()
    }
}

impl Attachment<'_> {
    /// The call of a plugin of the chain, with the result that it is handed.
    pub(crate) fn call(&self, verb: &str, plugin: usize) -> Call {
        let mut conf = self.plugins[plugin].clone();
        let result = match verb {
            "ADD" => plugin.checked_sub(1).and_then(|before| self.results.get(before)),
            "DEL" | "CHECK" => self.results.last(),
            _ => None,
        };
        if let Some(result) = result {
            conf["prevResult"] = result.clone();
        }
        if verb == "GC" {
            conf["cniVersion"] = json!("1.1.0");
            conf["cni.dev/valid-attachments"] = json!([{"containerID": "foreign", "ifname": "eth0"}]);
        }
        self.node.call(verb, &self.pod, &conf)
    }

    /// Adds the plugins before one.
    pub(crate) fn add_before(&mut self, plugin: usize) {
        for plugin in self.results.len()..plugin {
            let result = self.call("ADD", plugin).succeeds();
            self.results.push(result);
        }
    }

    /// Ends the container.
    pub(crate) fn end_pod(&mut self) {
        self.pod.end();
    }

    /// Adds all plugins.
    pub(crate) fn add(&mut self) {
        self.add_before(self.plugins.len());
    }

    /// Tries to add all, by another way of running a call; `false` if one failed.
    pub(crate) fn add_by(&mut self, run: impl Fn(&Call) -> Option<String>) -> bool {
        for plugin in self.results.len()..self.plugins.len() {
            let Some(stdout) = run(&self.call("ADD", plugin)) else {
                return false;
            };
            self.results.push(serde_json::from_str(&stdout).unwrap());
        }
        true
    }

    /// Tries to add a plugin and those behind it; returns the first failure.
    pub(crate) fn try_add_from(&mut self, plugin: usize) -> Option<Output> {
        for plugin in plugin..self.plugins.len() {
            let output = self.call("ADD", plugin).run();
            if output.code != 0 {
                return Some(output);
            }
            self.results.push(serde_json::from_str(&output.stdout).unwrap());
        }
        None
    }

    /// Deletes the plugins behind one, as a runtime does before it.
    pub(crate) fn del_behind(&self, plugin: usize) {
        for plugin in (plugin + 1..self.plugins.len()).rev() {
            self.call("DEL", plugin).succeeds();
        }
    }

    /// Deletes all, from the last to the first.
    pub(crate) fn del(&self) {
        for plugin in (0..self.plugins.len()).rev() {
            self.call("DEL", plugin).succeeds();
        }
    }

    /// Deletes all without the container's namespace.
    pub(crate) fn del_without_netns(&self) {
        for plugin in (0..self.plugins.len()).rev() {
            self.call("DEL", plugin).var("CNI_NETNS", "").succeeds();
        }
    }

    /// Lets every plugin collect what isn't the foreign pod's.
    pub(crate) fn gc(&self) {
        for plugin in 0..self.plugins.len() {
            self.call("GC", plugin).succeeds();
        }
    }
}
