//! What the server knows.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::faults::{Fault, Faults, Trouble};
use crate::merge::{Strategy, merge};
use crate::node::NodeShape;
use crate::role::Role;

/// Changes that are remembered for watches.
const MAX_HISTORY: usize = 10_000;
/// Requests that are remembered.
const MAX_LOG: usize = 10_000;
/// How often a watch gets a bookmark (Kubernetes `cacher.go`, `defaultBookmarkFrequency`).
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// What the server knows, and what it is told to do.
#[derive(Debug)]
pub struct Cluster {
    state: Mutex<State>,
    /// The present revision.
    pub(crate) changes: watch::Sender<u64>,
    /// How often the server has "restarted".
    pub(crate) restarts: watch::Sender<u64>,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Logged {
    /// The method.
    pub method: String,
    /// The path with its query.
    pub uri: String,
    /// What kind of body.
    pub content_type: String,
    /// The body.
    pub body: String,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) revision: u64,
    pub(crate) nodes: BTreeMap<String, Stored>,
    pub(crate) history: VecDeque<Change>,
    /// Watches and lists from earlier revisions are refused.
    pub(crate) oldest: u64,
    /// By `namespace/name`.
    pub(crate) pods: BTreeMap<String, Value>,
    pub(crate) namespaces: BTreeMap<String, Value>,
    pub(crate) events: Vec<Value>,
    /// Who is known; everybody may do everything while nobody is.
    pub(crate) tokens: BTreeMap<String, Role>,
    pub(crate) faults: Faults,
    pub(crate) log: Vec<Logged>,
    /// The lists of which pages are yet to be fetched, by the revision that they are of.
    pub(crate) lists: BTreeMap<u64, Arc<Vec<Bytes>>>,
    pub(crate) has_streaming_lists: bool,
    pub(crate) bookmark_every: Duration,
}

/// A Node as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct Stored {
    pub(crate) revision: u64,
    pub(crate) json: Bytes,
}

/// What happened to a Node.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) revision: u64,
    pub(crate) kind: &'static str,
    pub(crate) json: Bytes,
}

/// Why a request is refused: status, reason and message.
pub(crate) type Refusal = (u16, &'static str, String);

impl Default for Cluster {
    fn default() -> Self {
        Self::new()
    }
}

impl Cluster {
    /// No Nodes, and no rights.
    #[must_use]
    pub fn new() -> Self {
        let state = State {
            revision: 1,
            nodes: BTreeMap::new(),
            history: VecDeque::new(),
            oldest: 1,
            pods: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            events: Vec::new(),
            tokens: BTreeMap::new(),
            faults: Faults::default(),
            log: Vec::new(),
            lists: BTreeMap::new(),
            has_streaming_lists: true,
            bookmark_every: BOOKMARK_EVERY,
        };
        Self {
            state: Mutex::new(state),
            changes: watch::Sender::new(1),
            restarts: watch::Sender::new(0),
        }
    }

    /// The Nodes of a list that another server answered, as a server has them that was started again on its data: what
    /// happened before is forgotten, and something else was written meanwhile.
    #[must_use]
    pub fn with_list(list: &Value) -> Self {
        let number = |of: &Value| {
            let text = of.pointer("/metadata/resourceVersion").and_then(Value::as_str);
            text.and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        let cluster = Self::new();
        let mut state = cluster.lock();
        let items = list.get("items").and_then(Value::as_array).into_iter().flatten();
        for item in items {
            let name = item.pointer("/metadata/name").and_then(Value::as_str);
            let stored = Stored {
                revision: number(item),
                json: Bytes::from(item.to_string()),
            };
            state.nodes.insert(name.unwrap_or_default().to_owned(), stored);
        }
        state.revision = number(list) + 1;
        state.oldest = state.revision;
        cluster.changes.send_replace(state.revision);
        drop(state);
        cluster
    }

    /// Makes a Node, or replaces it.
    pub fn put_node(&self, node: &NodeShape) {
        self.put(node.to_json());
    }

    /// Makes a Node from JSON, or replaces it.
    pub(crate) fn put(&self, node: Value) {
        self.change(|state| state.store(node));
    }

    /// Removes a Node; false if there is none.
    pub fn remove_node(&self, name: &str) -> bool {
        self.change(|state| state.remove(name))
    }

    /// Changes a Node as anybody with all rights could, by a strategic-merge patch; false if there is none. Nothing is
    /// checked.
    pub fn patch_node(&self, name: &str, patch: &Value) -> bool {
        self.change(|state| {
            let Some(mut node) = state.value(name) else {
                return false;
            };
            merge(&mut node, patch, Strategy::Strategic);
            state.store(node);
            true
        })
    }

    /// A Node as JSON.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<Value> {
        self.lock().value(name)
    }

    /// One of a Node's annotations.
    #[must_use]
    pub fn annotation(&self, node: &str, name: &str) -> Option<String> {
        let node = self.node(node)?;
        let value = node.get("metadata")?.get("annotations")?.get(name)?;
        value.as_str().map(str::to_owned)
    }

    /// Puts a pod, `namespace/name`, on a Node; whether there is such a namespace is not asked.
    pub fn put_pod(&self, pod: &str, node: &str) {
        let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
        let object = json!({ "kind": "Pod", "apiVersion": "v1",
            "metadata": { "name": name, "namespace": namespace }, "spec": { "nodeName": node } });
        self.lock().pods.insert(format!("{namespace}/{name}"), object);
    }

    /// Makes a bearer token known; from the first one on, nobody without one may do anything.
    pub fn allow(&self, token: &str, role: Role) {
        self.lock().tokens.insert(token.to_owned(), role);
    }

    /// Forgets a bearer token.
    pub fn forbid(&self, token: &str) {
        self.lock().tokens.remove(token);
    }

    /// Lets something go wrong, in addition to what does already.
    pub fn add_fault(&self, fault: Fault) {
        self.lock().faults.add(fault);
    }

    /// Lets nothing go wrong any more.
    pub fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    /// Forgets all that happened before the present revision, as a restarted server does; watches that are open stay.
    pub fn compact(&self) {
        let mut state = self.lock();
        state.oldest = state.revision;
        state.history.clear();
        state.lists.clear();
    }

    /// Breaks every watch, and forgets nothing.
    pub fn break_watches(&self) {
        self.restarts.send_modify(|count| *count += 1);
    }

    /// Forgets as [`Self::compact`] does, and breaks every watch.
    pub fn restart(&self) {
        self.compact();
        self.break_watches();
    }

    /// Has streaming lists, or refuses them as an older server does.
    pub fn set_streaming_lists(&self, has: bool) {
        self.lock().has_streaming_lists = has;
    }

    /// How often watches get a bookmark.
    pub fn set_bookmark_every(&self, pause: Duration) {
        self.lock().bookmark_every = pause;
    }

    /// Counts revisions anew from a number, as after a restore from a backup.
    pub fn set_revision(&self, revision: u64) {
        let mut state = self.lock();
        (state.revision, state.oldest) = (revision, revision);
        state.history.clear();
        state.lists.clear();
        drop(state);
        self.changes.send_replace(revision);
    }

    /// Changes a Node as its kubelet does to say that it lives.
    pub fn heartbeat(&self, name: &str) {
        let now = self.lock().revision;
        let status = json!({ "conditions": [{ "type": "Ready", "status": "True",
            "lastHeartbeatTime": format!("revision {now}") }] });
        self.patch_node(name, &json!({ "status": status }));
    }

    /// All requests since the last time that this was asked, those below `/stand-in/` left out.
    #[must_use]
    pub fn take_log(&self) -> Vec<Logged> {
        std::mem::take(&mut self.lock().log)
    }

    pub(crate) fn note(&self, request: Logged) {
        let mut state = self.lock();
        if state.log.len() < MAX_LOG {
            state.log.push(request);
        }
    }

    pub(crate) fn strike(&self, line: &str) -> Option<Trouble> {
        self.lock().faults.strike(line)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let (result, revision) = {
            let mut state = self.lock();
            (change(&mut state), state.revision)
        };
        self.changes.send_replace(revision);
        result
    }
}

impl State {
    pub(crate) fn value(&self, name: &str) -> Option<Value> {
        let stored = self.nodes.get(name)?;
        serde_json::from_slice(&stored.json).ok()
    }

    /// Keeps a Node under its name, with the next revision.
    pub(crate) fn store(&mut self, mut node: Value) {
        self.revision += 1;
        let revision = self.revision;
        let name = node.pointer("/metadata/name").and_then(Value::as_str);
        let name = name.unwrap_or_default().to_owned();
        if let Some(metadata) = node.pointer_mut("/metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), Value::from(revision.to_string()));
            metadata
                .entry("uid")
                .or_insert_with(|| Value::from(format!("00000000-0000-0000-0000-{revision:012}")));
        }
        let json = Bytes::from(node.to_string());
        let stored = Stored {
            revision,
            json: json.clone(),
        };
        let kind = match self.nodes.insert(name, stored) {
            Some(_) => "MODIFIED",
            None => "ADDED",
        };
        self.remember(kind, json);
    }

    pub(crate) fn remove(&mut self, name: &str) -> bool {
        let Some(mut node) = self.value(name) else {
            return false;
        };
        self.nodes.remove(name);
        self.revision += 1;
        if let Some(revision) = node.pointer_mut("/metadata/resourceVersion") {
            *revision = Value::from(self.revision.to_string());
        }
        self.remember("DELETED", Bytes::from(node.to_string()));
        true
    }

    fn remember(&mut self, kind: &'static str, json: Bytes) {
        let revision = self.revision;
        self.history.push_back(Change { revision, kind, json });
        if self.history.len() > MAX_HISTORY
            && let Some(forgotten) = self.history.pop_front()
        {
            self.oldest = forgotten.revision;
        }
    }

    /// What a client with this token may do; `None` if it is not known.
    pub(crate) fn role(&self, token: Option<&str>) -> Option<Role> {
        if self.tokens.is_empty() {
            return Some(Role::Admin);
        }
        self.tokens.get(token?).copied()
    }
}
