//! Namespaces, the pods in them, and events, as far as who makes pods of his own and a stand-in for a kubelet need them.
//!
//! No pod is scheduled: it runs where its `spec.nodeName` says. What is deleted goes in two steps, as with a real server:
//! first it is marked, and a pod is gone when its kubelet has said so (`gracePeriodSeconds=0`), a namespace when its last
//! pod is.

use hyper::body::Bytes;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Refusal, State};
use crate::merge::{Strategy, merge};
use crate::reply::{self, Reply};
use crate::serve::{Query, bad_request, not_found};

/// When everything is deleted: there is no clock here.
const DELETED_AT: &str = "2026-01-01T00:00:00Z";

/// Makes a namespace.
pub(crate) fn create_namespace(cluster: &Cluster, mut namespace: Value) -> Result<Reply, Refusal> {
    let name = name_of(&namespace)?;
    cluster.change(|state| {
        if state.namespaces.contains_key(&name) {
            return Err((
                409,
                "AlreadyExists",
                format!("namespaces {name:?} already exists"),
            ));
        }
        set(&mut namespace, "/status", json!({ "phase": "Active" }));
        state.stamp(&mut namespace);
        state.namespaces.insert(name, namespace.clone());
        Ok(answer(201, &namespace))
    })
}

/// A namespace.
pub(crate) fn namespace(cluster: &Cluster, name: &str) -> Result<Reply, Refusal> {
    let state = cluster.lock();
    let found = state.namespaces.get(name);
    found
        .map(|namespace| answer(200, namespace))
        .ok_or_else(|| not_found("namespaces", name))
}

/// All namespaces.
pub(crate) fn namespaces(cluster: &Cluster) -> Reply {
    let state = cluster.lock();
    list("NamespaceList", state.namespaces.values(), state.revision)
}

/// Marks a namespace and all its pods as to be deleted.
pub(crate) fn delete_namespace(cluster: &Cluster, name: &str) -> Result<Reply, Refusal> {
    cluster.change(|state| {
        let namespace = state.namespaces.get_mut(name);
        let namespace = namespace.ok_or_else(|| not_found("namespaces", name))?;
        mark(namespace, 0);
        set(namespace, "/status", json!({ "phase": "Terminating" }));
        let marked = namespace.clone();
        let prefix = format!("{name}/");
        let pods = state.pods.iter_mut().filter(|(key, _)| key.starts_with(&prefix));
        pods.for_each(|(_, pod)| mark(pod, 30));
        state.finish(name);
        Ok(answer(200, &marked))
    })
}

/// Makes a pod in a namespace that is there, and is to stay.
pub(crate) fn create_pod(cluster: &Cluster, namespace: &str, mut pod: Value) -> Result<Reply, Refusal> {
    let name = name_of(&pod)?;
    cluster.change(|state| {
        let home = state.namespaces.get(namespace);
        let home = home.ok_or_else(|| not_found("namespaces", namespace))?;
        if home.pointer("/metadata/deletionTimestamp").is_some() {
            let message = format!(
                "pods {name:?} is forbidden: unable to create new content in namespace {namespace} because it is being \
                 terminated"
            );
            return Err((403, "Forbidden", message));
        }
        let key = format!("{namespace}/{name}");
        if state.pods.contains_key(&key) {
            return Err((409, "AlreadyExists", format!("pods {name:?} already exists")));
        }
        set(&mut pod, "/metadata/namespace", Value::from(namespace));
        set(&mut pod, "/status", json!({ "phase": "Pending" }));
        state.stamp(&mut pod);
        state.pods.insert(key, pod.clone());
        Ok(answer(201, &pod))
    })
}

/// A pod.
pub(crate) fn pod(cluster: &Cluster, namespace: &str, name: &str) -> Result<Reply, Refusal> {
    let state = cluster.lock();
    let found = state.pods.get(&format!("{namespace}/{name}"));
    found
        .map(|pod| answer(200, pod))
        .ok_or_else(|| not_found("pods", name))
}

/// The pods of a namespace, or of all, that a selector of fields leaves (`spec.nodeName=N`).
pub(crate) fn pods(cluster: &Cluster, namespace: Option<&str>, query: &Query) -> Reply {
    let state = cluster.lock();
    let is_wanted = |pod: &&Value| {
        let home = pod.pointer("/metadata/namespace").and_then(Value::as_str);
        namespace.is_none_or(|namespace| home == Some(namespace)) && is_selected(pod, query)
    };
    list("PodList", state.pods.values().filter(is_wanted), state.revision)
}

/// Marks a pod as to be deleted; when its kubelet says that it has ended, or when it has none, it is gone.
pub(crate) fn delete_pod(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    query: &Query,
) -> Result<Reply, Refusal> {
    let is_over = query.get("gracePeriodSeconds").is_some_and(|text| text == "0");
    cluster.change(|state| {
        let key = format!("{namespace}/{name}");
        let pod = state.pods.get_mut(&key).ok_or_else(|| not_found("pods", name))?;
        mark(pod, 30);
        let marked = pod.clone();
        if is_over || marked.pointer("/spec/nodeName").is_none() {
            state.pods.remove(&key);
            state.finish(namespace);
        }
        Ok(answer(200, &marked))
    })
}

/// Changes a pod's status, and nothing else.
pub(crate) fn patch_pod_status(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    patch: &Value,
) -> Result<Reply, Refusal> {
    cluster.change(|state| {
        let pod = state.pods.get_mut(&format!("{namespace}/{name}"));
        let pod = pod.ok_or_else(|| not_found("pods", name))?;
        let status = patch.get("status").cloned().unwrap_or_default();
        merge(pod, &json!({ "status": status }), Strategy::Strategic);
        Ok(answer(200, pod))
    })
}

/// Keeps an event.
pub(crate) fn create_event(cluster: &Cluster, event: Value) -> Reply {
    let reply = answer(201, &event);
    cluster.lock().events.push(event);
    reply
}

/// The events of a namespace that a selector of fields leaves (`involvedObject.name=N`).
pub(crate) fn events(cluster: &Cluster, namespace: &str, query: &Query) -> Reply {
    let state = cluster.lock();
    let is_wanted = |event: &&Value| {
        let home = event.pointer("/metadata/namespace").and_then(Value::as_str);
        home == Some(namespace) && is_selected(event, query)
    };
    list("EventList", state.events.iter().filter(is_wanted), state.revision)
}

impl State {
    /// Gives an object the next revision.
    fn stamp(&mut self, object: &mut Value) {
        self.revision += 1;
        let revision = self.revision.to_string();
        set(object, "/metadata/resourceVersion", Value::from(revision));
    }

    /// Removes a namespace that is marked once it has no pods.
    fn finish(&mut self, namespace: &str) {
        let prefix = format!("{namespace}/");
        let is_empty = !self.pods.keys().any(|key| key.starts_with(&prefix));
        let is_marked = |namespace: &Value| namespace.pointer("/metadata/deletionTimestamp").is_some();
        if is_empty && self.namespaces.get(namespace).is_some_and(is_marked) {
            self.namespaces.remove(namespace);
            let is_inside =
                |event: &Value| event.pointer("/metadata/namespace") == Some(&Value::from(namespace));
            self.events.retain(|event| !is_inside(event));
        }
    }
}

fn mark(object: &mut Value, grace_secs: u32) {
    set(object, "/metadata/deletionTimestamp", Value::from(DELETED_AT));
    set(
        object,
        "/metadata/deletionGracePeriodSeconds",
        Value::from(grace_secs),
    );
}

/// Sets a member by its path; what is on the way becomes an object.
fn set(object: &mut Value, path: &str, value: Value) {
    let names: Vec<_> = path.trim_start_matches('/').split('/').collect();
    let patch = names
        .iter()
        .rev()
        .fold(value, |inner, name| json!({ *name: inner }));
    merge(object, &patch, Strategy::Plain);
}

fn name_of(object: &Value) -> Result<String, Refusal> {
    let name = object.pointer("/metadata/name").and_then(Value::as_str);
    name.map(str::to_owned)
        .ok_or_else(|| bad_request("name or generateName is required"))
}

fn is_selected(object: &Value, query: &Query) -> bool {
    let selector = query.get("fieldSelector").map_or("", String::as_str);
    let fields = selector.split(',').filter_map(|field| field.split_once('='));
    fields.into_iter().all(|(path, value)| {
        let path = format!("/{}", path.replace('.', "/"));
        object.pointer(&path).and_then(Value::as_str) == Some(value)
    })
}

fn answer(code: u16, object: &Value) -> Reply {
    reply::json(code, Bytes::from(object.to_string()))
}

fn list<'a>(kind: &str, items: impl Iterator<Item = &'a Value>, revision: u64) -> Reply {
    let items: Vec<_> = items.collect();
    let metadata = json!({ "resourceVersion": revision.to_string() });
    answer(
        200,
        &json!({ "kind": kind, "apiVersion": "v1", "metadata": metadata, "items": items }),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(answered: Result<Reply, Refusal>) -> u16 {
        answered.map_or_else(|(code, ..)| code, |reply| reply.status().as_u16())
    }

    #[test]
    fn a_namespace_is_gone_when_the_last_kubelet_has_said_that_its_pod_has_ended() {
        let cluster = Cluster::new();
        let object = |name: &str| json!({ "metadata": { "name": name }, "spec": { "nodeName": "node1" } });
        assert_eq!(code(create_pod(&cluster, "mine", object("a"))), 404);
        assert_eq!(code(create_namespace(&cluster, object("mine"))), 201);
        assert_eq!(code(create_namespace(&cluster, object("mine"))), 409);
        assert_eq!(code(create_pod(&cluster, "mine", object("a"))), 201);
        assert_eq!(code(create_pod(&cluster, "mine", object("a"))), 409);
        let status = json!({ "status": { "phase": "Running" }, "spec": { "nodeName": "node2" } });
        assert_eq!(code(patch_pod_status(&cluster, "mine", "a", &status)), 200);
        assert_eq!(code(delete_namespace(&cluster, "mine")), 200);
        assert_eq!(code(create_pod(&cluster, "mine", object("b"))), 403);
        assert_eq!(
            (
                code(namespace(&cluster, "mine")),
                code(pod(&cluster, "mine", "a"))
            ),
            (200, 200)
        );
        let at_once = Query::from([("gracePeriodSeconds".to_owned(), "0".to_owned())]);
        // Without that it is only marked, once more.
        assert_eq!(code(delete_pod(&cluster, "mine", "a", &Query::new())), 200);
        assert_eq!(code(pod(&cluster, "mine", "a")), 200);
        assert_eq!(code(delete_pod(&cluster, "mine", "a", &at_once)), 200);
        assert_eq!(
            (
                code(namespace(&cluster, "mine")),
                code(pod(&cluster, "mine", "a"))
            ),
            (404, 404)
        );
    }
}
