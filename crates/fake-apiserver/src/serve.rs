//! Which request is answered by what.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{Method, Request};
use http_body_util::channel::Channel;
use http_body_util::{BodyExt, Either};
use hyper::body::{Bytes, Incoming};
use serde_json::{Value, json};

use crate::cluster::{Cluster, Logged, Refusal, State};
use crate::faults::Trouble;
use crate::merge::{Strategy, merge};
use crate::reply::{self, Reply};
use crate::{control, exec, watch, workloads};

const STRATEGIC: &str = "application/strategic-merge-patch+json";
const MERGE: &str = "application/merge-patch+json";

/// A request's query.
pub(crate) type Query = BTreeMap<String, String>;

pub(crate) async fn answer(cluster: Arc<Cluster>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let (parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(|body| body.to_bytes())
        .unwrap_or_default();
    let header = |name| {
        let value = parts.headers.get(name).and_then(|value| value.to_str().ok());
        value.map(str::to_owned)
    };
    let path = parts.uri.path().to_owned();
    if let Some(order) = path.strip_prefix("/stand-in/") {
        return Ok(control::obey(&cluster, order, &body));
    }
    let (content_type, authorization) = (header(CONTENT_TYPE).unwrap_or_default(), header(AUTHORIZATION));
    cluster.note(Logged {
        method: parts.method.to_string(),
        uri: parts.uri.to_string(),
        content_type: content_type.clone(),
        body: String::from_utf8_lossy(&body).into_owned(),
    });
    let query = query(parts.uri.query().unwrap_or_default());
    let trouble = cluster.strike(&format!("{} {}", parts.method, parts.uri));
    match trouble {
        Some(Trouble::Refuse { code, retry_after }) => return Ok(reply::refuse_for_now(code, retry_after)),
        Some(Trouble::Hang) => std::future::pending().await,
        Some(Trouble::Delay(millis)) => tokio::time::sleep(Duration::from_millis(millis)).await,
        Some(Trouble::ErrorEvent { code }) => {
            return Ok(reply::json(200, watch::error_line(code, "this was asked for")));
        }
        Some(Trouble::Cut(_)) | None => {}
    }
    let token = authorization.as_deref();
    let token = token.and_then(|value| value.strip_prefix("Bearer "));
    let call = Call {
        method: parts.method.clone(),
        path: &path,
        query,
        content_type: &content_type,
        body: &body,
    };
    let answered = match (call.allowed(&cluster, token), exec::target(&path)) {
        (Ok(()), Some(target)) => exec::hand_on(&cluster, &target, parts).await,
        (Ok(()), None) => call.route(&cluster),
        (Err(refusal), _) => Err(refusal),
    };
    let reply = answered.unwrap_or_else(refused);
    Ok(match trouble {
        Some(Trouble::Cut(bytes)) => cut(reply, bytes),
        _ => reply,
    })
}

fn refused((code, reason, message): Refusal) -> Reply {
    reply::refuse(code, reason, &message)
}

struct Call<'a> {
    method: Method,
    path: &'a str,
    query: Query,
    content_type: &'a str,
    body: &'a [u8],
}

impl Call<'_> {
    fn allowed(&self, cluster: &Cluster, token: Option<&str>) -> Result<(), Refusal> {
        let Some(role) = cluster.lock().role(token) else {
            return Err((401, "Unauthorized", "Unauthorized".to_owned()));
        };
        let message = || format!("{} {:?} is forbidden for this user", self.method, self.path);
        role.may(&self.method, self.path)
            .then_some(())
            .ok_or_else(|| (403, "Forbidden", message()))
    }

    fn route(&self, cluster: &Arc<Cluster>) -> Result<Reply, Refusal> {
        let parts: Vec<_> = self.path.trim_matches('/').split('/').collect();
        match (self.method.as_str(), parts.as_slice()) {
            ("GET", ["healthz" | "readyz" | "livez"]) => Ok(reply::json(200, Bytes::from_static(b"\"ok\""))),
            ("GET", ["api", "v1", "nodes"]) if self.flag("watch") => watch::begin(cluster, &self.query),
            ("GET", ["api", "v1", "nodes"]) => self.list(cluster),
            ("POST", ["api", "v1", "nodes"]) => self.create(cluster),
            ("GET", ["api", "v1", "nodes", name]) => {
                let state = cluster.lock();
                let stored = state.nodes.get(*name).ok_or_else(|| not_found("nodes", name))?;
                Ok(reply::json(200, stored.json.clone()))
            }
            ("PATCH", ["api", "v1", "nodes", name]) => self.patch(cluster, name, false),
            ("PATCH", ["api", "v1", "nodes", name, "status"]) => self.patch(cluster, name, true),
            ("DELETE", ["api", "v1", "nodes", name]) => {
                if !cluster.remove_node(name) {
                    return Err(not_found("nodes", name));
                }
                Ok(reply::json(
                    200,
                    Bytes::from_static(b"{\"kind\":\"Status\",\"status\":\"Success\"}"),
                ))
            }
            (_, ["api", "v1", "pods" | "namespaces", ..]) => self.workloads(cluster, &parts),
            _ => Err(no_resource()),
        }
    }

    fn workloads(&self, cluster: &Cluster, parts: &[&str]) -> Result<Reply, Refusal> {
        match (self.method.as_str(), parts.get(2..).unwrap_or_default()) {
            ("GET", ["pods"]) => Ok(workloads::pods(cluster, None, &self.query)),
            ("POST", ["namespaces"]) => workloads::create_namespace(cluster, self.json()?),
            ("GET", ["namespaces"]) => Ok(workloads::namespaces(cluster)),
            ("GET", ["namespaces", name]) => workloads::namespace(cluster, name),
            ("DELETE", ["namespaces", name]) => workloads::delete_namespace(cluster, name),
            ("GET", ["namespaces", space, "pods"]) => Ok(workloads::pods(cluster, Some(space), &self.query)),
            ("POST", ["namespaces", space, "pods"]) => workloads::create_pod(cluster, space, self.json()?),
            ("GET", ["namespaces", space, "pods", name]) => workloads::pod(cluster, space, name),
            ("PATCH", ["namespaces", space, "pods", name, "status"]) => {
                workloads::patch_pod_status(cluster, space, name, &self.json()?)
            }
            ("DELETE", ["namespaces", space, "pods", name]) => {
                workloads::delete_pod(cluster, space, name, &self.query)
            }
            ("GET", ["namespaces", space, "events"]) => Ok(workloads::events(cluster, space, &self.query)),
            ("POST", ["namespaces", _, "events"]) => Ok(workloads::create_event(cluster, self.json()?)),
            _ => Err(no_resource()),
        }
    }

    fn flag(&self, name: &str) -> bool {
        is_true(&self.query, name)
    }

    /// A list, or a chunk of one; the token names the revision of the list and the number of items before.
    fn list(&self, cluster: &Cluster) -> Result<Reply, Refusal> {
        let mut state = cluster.lock();
        let limit: usize = number(&self.query, "limit")?.unwrap_or(0);
        let (revision, start, items) = match self.query.get("continue") {
            Some(token) => {
                let gone = || {
                    let message =
                        "The provided continue parameter is too old to display a consistent list result";
                    (410, "Expired", message.to_owned())
                };
                let (revision, start) = token.split_once('.').ok_or_else(gone)?;
                let revision: u64 = revision.parse().map_err(|_| gone())?;
                let items = state.lists.get(&revision).ok_or_else(gone)?;
                (revision, start.parse().map_err(|_| gone())?, Arc::clone(items))
            }
            None => (state.revision, 0, Arc::new(self.present(&state)?)),
        };
        let end = if limit == 0 {
            items.len()
        } else {
            items.len().min(start + limit)
        };
        let left = items.len() - end;
        let mut meta = json!({ "resourceVersion": revision.to_string() });
        if let (true, Some(meta)) = (left > 0, meta.as_object_mut()) {
            meta.insert("continue".to_owned(), Value::from(format!("{revision}.{end}")));
            meta.insert("remainingItemCount".to_owned(), Value::from(left));
            state.lists.insert(revision, Arc::clone(&items));
        }
        drop(state);
        let mut body =
            format!("{{\"kind\":\"NodeList\",\"apiVersion\":\"v1\",\"metadata\":{meta},\"items\":[")
                .into_bytes();
        for (number, item) in items.get(start..end).unwrap_or_default().iter().enumerate() {
            if number > 0 {
                body.push(b',');
            }
            body.extend_from_slice(item);
        }
        body.extend_from_slice(b"]}\n");
        Ok(reply::json(200, Bytes::from(body)))
    }

    fn present(&self, state: &State) -> Result<Vec<Bytes>, Refusal> {
        let wanted: u64 = number(&self.query, "resourceVersion")?.unwrap_or(0);
        let is_exact = self
            .query
            .get("resourceVersionMatch")
            .is_some_and(|how| how == "Exact");
        if is_exact && wanted < state.oldest {
            return Err((410, "Expired", watch::too_old(wanted, state.oldest)));
        }
        Ok(state.nodes.values().map(|node| node.json.clone()).collect())
    }

    fn create(&self, cluster: &Cluster) -> Result<Reply, Refusal> {
        let node = self.json()?;
        let name = node.pointer("/metadata/name").and_then(Value::as_str);
        let name = name
            .ok_or_else(|| bad_request("name or generateName is required"))?
            .to_owned();
        check_cidrs(&node)?;
        let json = cluster.change(|state| {
            if state.nodes.contains_key(&name) {
                let message = format!("nodes {name:?} already exists");
                return Err((409, "AlreadyExists", message));
            }
            state.store(node);
            Ok(state
                .nodes
                .get(&name)
                .map(|node| node.json.clone())
                .unwrap_or_default())
        });
        json.map(|json| reply::json(201, json))
    }

    /// Changes a Node, or with the subresource its metadata and status alone (measured).
    fn patch(&self, cluster: &Cluster, name: &str, only_status: bool) -> Result<Reply, Refusal> {
        let strategy = match self.content_type {
            STRATEGIC => Strategy::Strategic,
            MERGE => Strategy::Plain,
            other => {
                let message = format!("the body of the request was in an unknown format: {other}");
                return Err((415, "UnsupportedMediaType", message));
            }
        };
        let patch = self.json()?;
        let json = cluster.change(|state| {
            let old = state.value(name).ok_or_else(|| not_found("nodes", name))?;
            let expected = patch.pointer("/metadata/resourceVersion").and_then(Value::as_str);
            if expected.is_some_and(|expected| old.pointer("/metadata/resourceVersion") != Some(&expected.into())) {
                let message = format!(
                    "Operation cannot be fulfilled on nodes {name:?}: the object has been modified; please apply \
                     your changes to the latest version and try again"
                );
                return Err((409, "Conflict", message));
            }
            let mut node = old.clone();
            merge(&mut node, &patch, strategy);
            let kept = if only_status { "spec" } else { "status" };
            if let (Some(members), Some(before)) = (node.as_object_mut(), old.get(kept)) {
                members.insert(kept.to_owned(), before.clone());
            }
            check_update(name, &old, &node)?;
            if node != old {
                state.store(node);
            }
            Ok(state.nodes.get(name).map(|node| node.json.clone()).unwrap_or_default())
        });
        json.map(|json| reply::json(200, json))
    }

    fn json(&self) -> Result<Value, Refusal> {
        serde_json::from_slice(self.body).map_err(|err| bad_request(&err.to_string()))
    }
}

fn check_update(name: &str, old: &Value, new: &Value) -> Result<(), Refusal> {
    let cidr = |node: &Value| {
        let cidr = node.pointer("/spec/podCIDR").and_then(Value::as_str);
        cidr.unwrap_or_default().to_owned()
    };
    let cidrs = |node: &Value| node.pointer("/spec/podCIDRs").cloned();
    let changed = cidr(old) != cidr(new) || cidrs(old) != cidrs(new);
    if changed && !cidr(old).is_empty() {
        let what = "node updates may not change podCIDR except from \"\" to valid";
        return Err(invalid(name, &format!("[]: Forbidden: {what}")));
    }
    check_cidrs(new)
}

/// At most one subnet of each family.
fn check_cidrs(node: &Value) -> Result<(), Refusal> {
    let cidrs = node.pointer("/spec/podCIDRs").and_then(Value::as_array);
    let of_v6 = |cidr: &&Value| cidr.as_str().is_some_and(|text| text.contains(':'));
    let cidrs = cidrs.map(Vec::as_slice).unwrap_or_default();
    let v6 = cidrs.iter().filter(of_v6).count();
    if v6 > 1 || cidrs.len() - v6 > 1 {
        let name = node
            .pointer("/metadata/name")
            .and_then(Value::as_str)
            .unwrap_or_default();
        return Err(invalid(
            name,
            "spec.podCIDRs: Invalid value: may specify no more than one CIDR for each IP family",
        ));
    }
    Ok(())
}

fn invalid(name: &str, what: &str) -> Refusal {
    (422, "Invalid", format!("Node {name:?} is invalid: {what}"))
}

fn no_resource() -> Refusal {
    let message = "the server could not find the requested resource";
    (404, "NotFound", message.to_owned())
}

pub(crate) fn not_found(kind: &str, name: &str) -> Refusal {
    (404, "NotFound", format!("{kind} {name:?} not found"))
}

pub(crate) fn bad_request(message: &str) -> Refusal {
    (400, "BadRequest", message.to_owned())
}

pub(crate) fn is_true(query: &Query, name: &str) -> bool {
    query
        .get(name)
        .is_some_and(|value| value == "true" || value == "1")
}

pub(crate) fn number<T: std::str::FromStr>(query: &Query, name: &str) -> Result<Option<T>, Refusal> {
    let Some(text) = query.get(name).filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    let wrong = |_| bad_request(&format!("{name} is {text:?}, which is no number"));
    text.parse().map(Some).map_err(wrong)
}

fn query(text: &str) -> Query {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        Some((name.to_owned(), unescaped(value)))
    };
    text.split('&').filter_map(pair).collect()
}

fn unescaped(text: &str) -> String {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match (code, part.get(2..)) {
            (Some(code), Some(rest)) => {
                bytes.push(code);
                bytes.extend_from_slice(rest.as_bytes());
            }
            _ => bytes.extend_from_slice(part.as_bytes()),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The same answer, whose connection breaks in the middle.
fn cut(reply: Reply, bytes: usize) -> Reply {
    let (mut sender, body) = Channel::new(8);
    let (parts, mut rest) = reply.into_parts();
    let mut left = bytes;
    tokio::spawn(async move {
        while let Some(Ok(frame)) = rest.frame().await {
            let Ok(part) = frame.into_data() else {
                break;
            };
            let end = part.len().min(left);
            left -= end;
            if sender.send_data(part.slice(..end)).await.is_err() || left == 0 {
                break;
            }
        }
        sender.abort(io::Error::other("cut"));
    });
    Reply::from_parts(parts, Either::Right(body))
}
