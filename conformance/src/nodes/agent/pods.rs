use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Pid, gettid};
use serde_json::{Value, json};

use crate::lab::runtime::{
    Attachment, HostPort, Verb, call_list, plugins_of, run_program, takes_ports, with_ports,
};
use crate::lab::{Namespaces, POD_LINK};
use crate::nodes::protocol::Attached;

/// The pods that the agent has made.
pub(super) struct Pods {
    bin_dir: String,
    conf: String,
    pods: Mutex<BTreeMap<String, Pod>>,
    /// Whether no more pods may be made; who makes one reads it until that pod is known.
    closed: RwLock<bool>,
}

struct Pod {
    attachment: Attachment,
    list: Value,
    /// `None` while it is not attached, or not known to be.
    result: Option<Value>,
    namespaces: Arc<Namespaces>,
    _holder: Holder,
}

/// A thread whose network namespace is a pod's. The namespace ends with the thread, so that it cannot outlive the agent.
struct Holder {
    thread_id: Pid,
    ends: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Pods {
    /// Pods will be attached by the programs in a directory, as a configuration asks: a file, or the first one of a
    /// directory.
    pub(super) fn new(bin_dir: String, conf: String) -> Self {
        Self {
            bin_dir,
            conf,
            pods: Mutex::default(),
            closed: RwLock::default(),
        }
    }

    /// Makes a pod and attaches it.
    ///
    /// # Errors
    /// Fails when there is no configuration, when a plugin fails (then it is detached again), or after all were detached.
    pub(super) fn add(&self, name: &str, ports: &[HostPort]) -> Result<Attached> {
        let closed = self.closed.read().unwrap_or_else(PoisonError::into_inner);
        if *closed {
            bail!("the agent is about to end");
        }
        let list = with_ports(read_list(Path::new(&self.conf))?, ports);
        let (holder, netns) = Holder::start()?;
        let namespaces = Arc::new(Namespaces::of_netns_file(&netns)?);
        self.loopback_up(&namespaces, &netns)?;
        let attachment = Attachment {
            container_id: format!("conformance-{}-{}", std::process::id(), holder.thread_id),
            netns: netns.display().to_string(),
            ifname: POD_LINK.to_owned(),
        };
        let mut pod = Pod {
            attachment,
            list,
            result: None,
            namespaces,
            _holder: holder,
        };
        let result = self.call(Verb::Add, &pod);
        if result.is_err() {
            // The first error is the one to tell.
            self.call(Verb::Del, &pod).ok();
        }
        pod.result = Some(result?);
        let attached = Attached {
            result: pod.result.clone().unwrap_or_default(),
            takes_ports: plugins_of(&pod.list).any(takes_ports),
        };
        self.lock().insert(name.to_owned(), pod);
        Ok(attached)
    }

    /// Detaches all pods, also one that is just being attached; no more can be made.
    ///
    /// # Errors
    /// Fails with the first error of a plugin, after all were tried.
    pub(super) fn remove_all(&self) -> Result<()> {
        *self.closed.write().unwrap_or_else(PoisonError::into_inner) = true;
        let pods = std::mem::take(&mut *self.lock());
        let results: Vec<_> = pods.values().map(|pod| self.call(Verb::Del, pod)).collect();
        results.into_iter().try_for_each(|result| result.map(drop))
    }

    /// The namespaces of a pod.
    ///
    /// # Errors
    /// Fails when there is none of this name.
    pub(super) fn namespaces(&self, name: &str) -> Result<Arc<Namespaces>> {
        let pods = self.lock();
        let pod = pods
            .get(name)
            .with_context(|| format!("there is no pod {name}"))?;
        Ok(Arc::clone(&pod.namespaces))
    }

    fn call(&self, verb: Verb, pod: &Pod) -> Result<Value> {
        call_list(&pod.list, verb, pod.result.as_ref(), |plugin, conf| {
            run_program(&self.bin_dir, plugin, verb, &pod.attachment, conf)
        })
    }

    /// As runtimes do; what a pod says to itself goes there.
    fn loopback_up(&self, namespaces: &Namespaces, netns: &Path) -> Result<()> {
        let iproute = namespaces.output(&["ip", "link", "set", "lo", "up"]);
        if iproute.is_ok_and(|output| output.status.success()) {
            return Ok(());
        }
        let attachment = Attachment {
            container_id: format!("conformance-{}-lo", std::process::id()),
            netns: netns.display().to_string(),
            ifname: "lo".to_owned(),
        };
        let list = json!({"name": "lo", "cniVersion": "0.4.0", "plugins": [{"type": "loopback"}]});
        call_list(&list, Verb::Add, None, |plugin, conf| {
            run_program(&self.bin_dir, plugin, Verb::Add, &attachment, conf)
        })
        .map(drop)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Pod>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Holder {
    fn start() -> Result<(Self, PathBuf)> {
        let (ends, ended) = mpsc::channel::<()>();
        let (tell, told) = mpsc::channel();
        let thread = thread::spawn(move || {
            let made = unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace");
            // Nobody waits for it any more when the receiver is gone.
            tell.send(made.map(|()| gettid())).ok();
            // The end of the channel is the end of the pod.
            ended.recv().ok();
        });
        let made = told
            .recv()
            .map_err(|_| anyhow!("the thread that holds a pod panicked"))?;
        let thread_id = made?;
        let netns = PathBuf::from(format!("/proc/{}/task/{thread_id}/ns/net", std::process::id()));
        let holder = Self {
            thread_id,
            ends: Some(ends),
            thread: Some(thread),
        };
        Ok((holder, netns))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.ends = None;
        // A panic there would have been told when the pod was made.
        self.thread.take().map(|thread| thread.join().ok());
    }
}

/// The configuration list of a file, or of a directory's first file as runtimes choose it (libcni `ConfFiles`: by name,
/// with the endings that it knows); a single plugin's configuration becomes a list.
fn read_list(conf: &Path) -> Result<Value> {
    let file = if conf.is_dir() {
        first_of(conf)?
    } else {
        conf.to_owned()
    };
    let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
    let list: Value = serde_json::from_str(&text).with_context(|| format!("reading {}", file.display()))?;
    if list.get("plugins").is_some() {
        return Ok(list);
    }
    let member = |key: &str| list.get(key).cloned().unwrap_or_default();
    Ok(json!({"name": member("name"), "cniVersion": member("cniVersion"), "plugins": [list]}))
}

fn first_of(dir: &Path) -> Result<PathBuf> {
    let entries = fs::read_dir(dir).with_context(|| format!("reading {}", dir.display()))?;
    let is_conf = |path: &PathBuf| {
        let ending = path.extension().unwrap_or_default();
        ["conflist", "conf", "json"].iter().any(|known| ending == *known)
    };
    let first = entries.flatten().map(|entry| entry.path()).filter(is_conf).min();
    let Some(first) = first else {
        bail!(
            "{} has no network configuration: install one, or name it with --conf",
            dir.display()
        );
    };
    Ok(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_configuration_by_name_is_read_and_a_single_plugin_becomes_a_list() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        write("00-notes.txt", "no configuration");
        assert!(read_list(dir.path()).unwrap_err().to_string().contains("--conf"));
        write("20-other.conflist", "{}");
        write(
            "10-mine.conf",
            r#"{"name": "a", "cniVersion": "1.0.0", "type": "bridge"}"#,
        );
        let list = read_list(dir.path()).unwrap();
        assert_eq!(
            (&list["name"], &list["plugins"][0]["type"]),
            (&json!("a"), &json!("bridge"))
        );
    }
}
