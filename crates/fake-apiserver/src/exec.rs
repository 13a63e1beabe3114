//! Commands in pods: the connection is handed on to the kubelet of the pod's Node, as a real server does
//! (kube-apiserver `pkg/registry/core/pod/rest/subresources.go`). What is said over it is the kubelet's.

use std::io;
use std::sync::Arc;

use http::header::{CONNECTION, HeaderName, HeaderValue, UPGRADE};
use http::request::Parts;
use http::{HeaderMap, Response};
use http_body_util::{Either, Full};
use hyper::body::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use crate::cluster::{Cluster, Refusal};
use crate::reply::Reply;
use crate::serve::{bad_request, not_found};

/// The port of a kubelet that tells no other (Kubernetes, "ports and protocols").
const KUBELET_PORT: u64 = 10_250;
/// As long as a kubelet's answer may be before the connection is a client's.
const MAX_HEAD_BYTES: usize = 16 << 10;

/// A pod in which a command shall be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    namespace: String,
    pod: String,
}

/// The pod that a path names for a command.
pub(crate) fn target(path: &str) -> Option<Target> {
    let parts: Vec<_> = path.trim_matches('/').split('/').collect();
    match parts.as_slice() {
        ["api", "v1", "namespaces", namespace, "pods", pod, "exec"] => Some(Target {
            namespace: (*namespace).to_owned(),
            pod: (*pod).to_owned(),
        }),
        _ => None,
    }
}

/// Hands a request on to the kubelet, and then all that is said.
pub(crate) async fn hand_on(
    cluster: &Arc<Cluster>,
    target: &Target,
    mut parts: Parts,
) -> Result<Reply, Refusal> {
    let client = parts.extensions.remove::<OnUpgrade>();
    let client =
        client.ok_or_else(|| bad_request("unable to upgrade: the connection is none that can be"))?;
    let (address, container) = kubelet(cluster, target)?;
    let dialing = |err: io::Error| {
        (
            500,
            "InternalError",
            format!("error dialing backend: dial tcp {address}: {err}"),
        )
    };
    let mut kubelet = TcpStream::connect(&address).await.map_err(dialing)?;
    let query = parts.uri.query().unwrap_or_default();
    let Target { namespace, pod } = target;
    let head = format!(
        "GET /exec/{namespace}/{pod}/{container}?{query} HTTP/1.1\r\nhost: {address}\r\n{}\r\n",
        of_upgrade(&parts.headers)
    );
    kubelet.write_all(head.as_bytes()).await.map_err(dialing)?;
    let answered = read_head(&mut kubelet).await.map_err(dialing)?;
    let mut lines = answered.lines();
    let status = lines.next().unwrap_or_default();
    if status.split(' ').nth(1) != Some("101") {
        let message = format!("error upgrading the connection: the kubelet answered {status:?}");
        return Err((500, "InternalError", message));
    }
    let mut reply = Response::new(Either::Left(Full::new(Bytes::new())));
    *reply.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in lines.filter_map(|line| line.split_once(':')) {
        let name = HeaderName::try_from(name.trim());
        let value = HeaderValue::try_from(value.trim());
        if let (Ok(name), Ok(value)) = (name, value) {
            reply.headers_mut().insert(name, value);
        }
    }
    // It ends when either side does.
    tokio::spawn(async move {
        if let Ok(client) = client.await {
            copy_bidirectional(&mut TokioIo::new(client), &mut kubelet)
                .await
                .ok();
        }
    });
    Ok(reply)
}

/// Where the kubelet of a pod's Node is, and the name of the pod's first container.
fn kubelet(cluster: &Cluster, target: &Target) -> Result<(String, String), Refusal> {
    let state = cluster.lock();
    let pod = state.pods.get(&format!("{}/{}", target.namespace, target.pod));
    let pod = pod.ok_or_else(|| not_found("pods", &target.pod))?;
    let text = |path: &str| pod.pointer(path).and_then(Value::as_str);
    let name = text("/spec/nodeName").ok_or_else(|| bad_request("pod does not have a host assigned"))?;
    let container = text("/spec/containers/0/name").unwrap_or_default().to_owned();
    let node = state.value(name).ok_or_else(|| not_found("nodes", name))?;
    let addresses = node.pointer("/status/addresses").and_then(Value::as_array);
    let internal = addresses
        .into_iter()
        .flatten()
        .find(|address| address.get("type") == Some(&Value::from("InternalIP")));
    let address = internal.and_then(|address| address.get("address")?.as_str());
    let address = address.ok_or((
        500,
        "InternalError",
        format!("no preferred addresses found for node {name:?}"),
    ))?;
    let port = node.pointer("/status/daemonEndpoints/kubeletEndpoint/Port");
    let port = port.and_then(Value::as_u64).unwrap_or(KUBELET_PORT);
    Ok((format!("{address}:{port}"), container))
}

/// The headers of a request for an upgrade, as lines.
fn of_upgrade(headers: &HeaderMap) -> String {
    let is_wanted = |name: &HeaderName| {
        [CONNECTION, UPGRADE].contains(name) || name.as_str().starts_with("sec-websocket-")
    };
    let wanted = headers.iter().filter(|(name, _)| is_wanted(name));
    wanted
        .filter_map(|(name, value)| Some(format!("{name}: {}\r\n", value.to_str().ok()?)))
        .collect()
}

/// Reads up to the empty line that ends the head of an answer, and nothing behind it.
async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > MAX_HEAD_BYTES {
            return Err(io::Error::other("the answer has no end"));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}
