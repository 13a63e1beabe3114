//! Where a case is run: a host and its files that nobody else sees.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};

use super::call::Call;
use super::container::Container;
use super::probe::Probe;
use super::snapshot::Snapshot;
use super::subject::{Subject, kind};
use crate::lab::{STAGE_PLUGINS, command, on_own_thread, prepare_stage};
use crate::report::{Checked, Stop, differs};

/// The node's lease, for plugins that read flanneld's file (flannel pkg/subnet/subnet.go, WriteSubnetFile).
const SUBNET_ENV: &str =
    "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";
pub(super) const SUBNET_FILE: &str = "/run/flannel/subnet.env";

/// So long the kernel may take for what it does in its own time, such as ending a namespace.
const SETTLE_LIMIT: Duration = Duration::from_secs(10);
/// The same where a difference is expected.
const SHORT_SETTLE_LIMIT: Duration = Duration::from_secs(1);
/// So long it is left alone between two looks, each of which runs programs.
const SETTLE_PAUSE: Duration = Duration::from_millis(50);

/// What a case is run on.
#[derive(Debug, Clone)]
pub(super) struct Target {
    /// The type of the plugin, which is its program's name.
    pub(super) plugin: String,
    /// Its configuration, without name and version.
    pub(super) conf: Value,
    /// The version that it is called with.
    pub(super) version: String,
    /// All versions that it says it supports.
    pub(super) supported: Vec<String>,
    /// How many plugins of the list come before it.
    pub(super) before: usize,
    /// Whether the case is known to fail on it, so that it is no use to wait long for what will not come.
    pub(super) is_known: bool,
}

/// A host of its own for one case: network, mounts, files. The calling thread is in it.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    subject: &'a Subject,
    target: Target,
    port: Cell<u16>,
}

impl Stage<'_> {
    /// Runs a function on a stage, on a thread of its own with which the stage ends.
    ///
    /// # Errors
    /// Fails when the stage cannot be made, or with the function's own error.
    pub(super) fn with<T: Send>(
        subject: &Subject,
        target: &Target,
        function: impl FnOnce(&Stage<'_>) -> Checked<T> + Send,
    ) -> Checked<T> {
        let ended = on_own_thread(|| {
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
                .context("making namespaces, which needs root")?;
            prepare_stage(&subject.dir)?;
            command(&["ip", "link", "set", "lo", "up"])?
                .status()
                .context("starting `ip`")?;
            fs::create_dir_all("/run/flannel").context("making /run/flannel")?;
            fs::write(SUBNET_FILE, SUBNET_ENV).context("writing subnet.env")?;
            Ok(function(&Stage {
                subject,
                target: target.clone(),
                port: Cell::new(20_000),
            }))
        });
        ended.map_err(Stop::from)?
    }

    /// The version that the plugin is called with.
    pub(super) fn version(&self) -> &str {
        &self.target.version
    }

    /// All versions that the plugin says it supports.
    pub(super) fn supported(&self) -> &[String] {
        &self.target.supported
    }

    /// Skips the case where the plugin does not support a version.
    ///
    /// # Errors
    /// The skip.
    pub(super) fn needs(&self, version: &str) -> Checked<()> {
        if self.supported().iter().any(|own| own == version) {
            return Ok(());
        }
        Err(Stop::Skip(format!("it does not support {version}")))
    }

    /// Makes a container with an interface `eth0` to be.
    ///
    /// # Errors
    /// Fails when the kernel refuses it.
    pub(super) fn container(&self, id: &str) -> Result<Container> {
        let port = self.port.get();
        self.port.set(port.saturating_add(1));
        Container::make(id, port)
    }

    /// Makes a container with an id that no other has.
    ///
    /// # Errors
    /// As [`Stage::container`].
    pub(super) fn next_container(&self) -> Result<Container> {
        self.container(&format!("a{}", self.port.get()))
    }

    /// The plugin's configuration with name and version.
    pub(super) fn conf(&self) -> Value {
        self.complete(&self.target.conf, &self.target.version)
    }

    /// A complete call of the plugin for a container.
    pub(super) fn call(&self, verb: &str, container: &Container) -> Call {
        let conf = with_capabilities(self.conf(), container);
        Call::new(
            &self.target.plugin,
            program(&self.target.plugin),
            vars(verb, container),
            conf,
        )
    }

    /// A call that is about no container: STATUS, GC, VERSION.
    pub(super) fn host_call(&self, verb: &str) -> Call {
        let vars = [("CNI_COMMAND", verb), ("CNI_PATH", STAGE_PLUGINS)];
        let vars = vars
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        Call::new(
            &self.target.plugin,
            program(&self.target.plugin),
            vars,
            self.conf(),
        )
    }

    /// ADD of the plugin alone.
    ///
    /// # Errors
    /// Fails when there is no result.
    pub(super) fn add(&self, container: &Container) -> Checked<Value> {
        self.call("ADD", container).run()?.result()
    }

    /// DEL of the plugin alone, without a previous result.
    ///
    /// # Errors
    /// Fails when it is not silent success.
    pub(super) fn del(&self, container: &Container) -> Checked<()> {
        self.call("DEL", container).run()?.silent()
    }

    /// ADD and DEL of the plugin alone succeed with a change of the call.
    ///
    /// # Errors
    /// Fails when one of them does.
    pub(super) fn lives(&self, change: impl Fn(Call) -> Call) -> Checked<()> {
        let container = self.next_container()?;
        change(self.call("ADD", &container)).run()?.result()?;
        change(self.call("DEL", &container)).run()?.silent()
    }

    /// Has made what the first pod of a node has made for all (bridges, chains, lock files), and takes a snapshot.
    ///
    /// # Errors
    /// Fails when a container cannot be attached and detached.
    pub(super) fn settled(&self) -> Checked<Snapshot> {
        let first = self.container("first")?;
        self.add(&first)?;
        self.del(&first)?;
        first.end()?;
        Ok(Snapshot::take()?)
    }

    /// As [`Stage::settled`], by the whole list.
    ///
    /// # Errors
    /// As [`Stage::settled`].
    pub(super) fn settled_by_list(&self) -> Checked<Snapshot> {
        let first = self.container("first")?;
        let result = self.list_add(&first)?;
        self.list_del(&first, Some(&result))?;
        first.end()?;
        Ok(Snapshot::take()?)
    }

    /// Checks that the host is again, or still, as it was; what the kernel does in its own time is awaited.
    ///
    /// # Errors
    /// Fails with what is left and what is gone.
    pub(super) fn unchanged_since(&self, before: &Snapshot, after: &str) -> Checked<()> {
        let limit = if self.target.is_known {
            SHORT_SETTLE_LIMIT
        } else {
            SETTLE_LIMIT
        };
        let start = Instant::now();
        loop {
            let change = Snapshot::take()?.since(before);
            if change.is_empty() {
                return Ok(());
            }
            if start.elapsed() >= limit {
                return differs(format!("after {after} the host is as it was before"), change);
            }
            thread::sleep(SETTLE_PAUSE);
        }
    }

    /// ADD of the plugins that come before this one in the list; the last result.
    ///
    /// # Errors
    /// Fails when one of them gives none.
    pub(super) fn attach_before(&self, container: &Container) -> Checked<Value> {
        self.add_first(self.target.before, container)
    }

    /// ADD of the whole list, as a runtime does it; the last result.
    ///
    /// # Errors
    /// Fails when a plugin gives none.
    pub(super) fn list_add(&self, container: &Container) -> Checked<Value> {
        self.add_first(self.subject.plugins.len(), container)
    }

    fn add_first(&self, count: usize, container: &Container) -> Checked<Value> {
        let mut result = Value::Null;
        for conf in self.subject.plugins.iter().take(count) {
            result = self
                .list_call("ADD", conf, container, Some(&result))
                .run()?
                .result()?;
        }
        Ok(result)
    }

    /// DEL of the whole list, backwards.
    ///
    /// # Errors
    /// Fails when a plugin does.
    pub(super) fn list_del(&self, container: &Container, result: Option<&Value>) -> Checked<()> {
        for conf in self.subject.plugins.iter().rev() {
            self.list_call("DEL", conf, container, result).run()?.silent()?;
        }
        Ok(())
    }

    /// CHECK of the whole list.
    ///
    /// # Errors
    /// Fails when a plugin does.
    pub(super) fn list_check(&self, container: &Container, result: &Value) -> Checked<()> {
        for conf in &self.subject.plugins {
            self.list_call("CHECK", conf, container, Some(result))
                .run()?
                .silent()?;
        }
        Ok(())
    }

    fn list_call(&self, verb: &str, conf: &Value, container: &Container, result: Option<&Value>) -> Call {
        let plugin = kind(conf);
        let conf = with_capabilities(self.complete(conf, &self.target.version), container);
        let call = Call::new(&plugin, program(&plugin), vars(verb, container), conf);
        match result.filter(|result| !result.is_null()) {
            Some(result) => call.with("/prevResult", result.clone()),
            None => call,
        }
    }

    /// Where the configuration names the program that the plugin runs.
    ///
    /// # Errors
    /// Skips the case when it names none.
    pub(super) fn delegate_path(&self) -> Checked<&'static str> {
        let conf = &self.target.conf;
        match (conf.pointer("/ipam/type"), kind(conf).as_str()) {
            (_, "flannel") => Ok("/delegate/type"),
            (Some(_), _) => Ok("/ipam/type"),
            (None, _) => Err(Stop::Skip(
                "the configuration names no program that the plugin runs".to_owned(),
            )),
        }
    }

    /// A program of the runner's own that the plugin is made to run, and the call in which it is.
    ///
    /// # Errors
    /// Skips the case when the plugin runs none; fails when it cannot be written.
    pub(super) fn probed(&self, verb: &str, container: &Container) -> Checked<(Probe, Call)> {
        let path = self.delegate_path()?;
        let probe = Probe::install(&self.target.version)?;
        let call = self.call(verb, container).with(path, json!(Probe::NAME));
        let search = format!("/run/stage/nowhere:{}:{STAGE_PLUGINS}", Probe::DIR);
        Ok((probe, call.with_var("CNI_PATH", &search)))
    }

    fn complete(&self, conf: &Value, version: &str) -> Value {
        let mut conf = conf.clone();
        if let Some(members) = conf.as_object_mut() {
            members.insert("name".to_owned(), self.subject.network.as_str().into());
            members.insert("cniVersion".to_owned(), version.into());
        }
        conf
    }
}

/// Gives what a runtime gives for the capabilities that a configuration declares (CONVENTIONS, "Dynamic Plugin specific
/// Fields").
fn with_capabilities(mut conf: Value, container: &Container) -> Value {
    let declared = |name: &str| conf.pointer(&format!("/capabilities/{name}")) == Some(&Value::Bool(true));
    let mut given = serde_json::Map::new();
    if declared("portMappings") {
        let port = json!({"hostPort": container.host_port, "containerPort": 80, "protocol": "tcp"});
        given.insert("portMappings".to_owned(), json!([port]));
    }
    if declared("bandwidth") {
        let limits = json!({"ingressRate": 8_000_000, "ingressBurst": 800_000,
            "egressRate": 8_000_000, "egressBurst": 800_000});
        given.insert("bandwidth".to_owned(), limits);
    }
    if let Some(members) = conf.as_object_mut().filter(|_| !given.is_empty()) {
        members.insert("runtimeConfig".to_owned(), Value::Object(given));
    }
    conf
}

/// Where the stage has a program of the directory.
pub(super) fn program(plugin: &str) -> PathBuf {
    Path::new(STAGE_PLUGINS).join(plugin)
}

fn vars(verb: &str, container: &Container) -> BTreeMap<String, String> {
    let vars = [
        ("CNI_COMMAND", verb),
        ("CNI_CONTAINERID", &container.id),
        ("CNI_NETNS", &container.netns),
        ("CNI_IFNAME", &container.ifname),
        ("CNI_PATH", STAGE_PLUGINS),
    ];
    vars.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
}
