//! The wire to the API server.
//!
//! Configuration, credentials and TLS are kube's; requests are written and answers are read here, because kube would hold
//! whole lists. Every request ends within a limit, however the server behaves.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, USER_AGENT};
use http::{Method, Response, StatusCode};
use http_body_util::BodyExt;
use kube_client::client::{Body, ClientBuilder};
use kube_client::config::{KubeConfigOptions, Kubeconfig};
use kube_client::{Client, Config};
use net_types::sentence;
use serde::Deserialize;
use serde_json::Value;
use tokio::time::timeout;

use super::annotations::AnnotationPrefix;
use super::follow::{End, Request};
use super::node::{Node, Refusal};

/// How long a connection may take to be made.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long an answer may take to begin; a short one, to end.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// Of an answer that is read as a whole: no object in etcd is larger.
const MAX_ANSWER_BYTES: usize = 8 << 20;
/// Nodes in a page (client-go `tools/pager`, `defaultPageSize`).
const PAGE_LEN: u32 = 500;
/// The shortest time after which a watch is begun anew (client-go `tools/cache/reflector.go`); up to twice as long.
const WATCH_SECS: u64 = 300;

/// Where the API server is found, as upstream's two flags say it; without either, as a pod finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ApiSource {
    /// Its address, in place of the one in a file.
    pub url: Option<String>,
    /// A kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
}

/// Why the API server did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApiError {
    /// Where it is, or who this is, cannot be read.
    #[error("cannot tell how to reach the API server")]
    Config(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// It refused.
    #[error("{refusal}")]
    Refused {
        refusal: Refusal,
        retry_after: Option<Duration>,
    },
    /// It could not be asked.
    #[error("the API server cannot be reached: {0}")]
    Broken(String),
}

/// The API server.
#[derive(Debug)]
pub(super) struct Api {
    source: ApiSource,
    prefix: AnnotationPrefix,
    connection: Mutex<Connection>,
}

#[derive(Default)]
struct Connection(Option<Client>);

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Connection" } else { "None" })
    }
}

#[derive(Deserialize)]
struct Pod {
    spec: PodSpec,
}

#[derive(Deserialize)]
struct PodSpec {
    #[serde(default, rename = "nodeName")]
    node_name: String,
}

impl ApiError {
    /// Whether the server knows no such object.
    pub(super) fn is_absence(&self) -> bool {
        matches!(self, Self::Refused { refusal, .. } if refusal.code == 404)
    }

    /// The same for who reads a stream.
    pub(super) fn into_end(self) -> End {
        match self {
            Self::Refused { refusal, retry_after } => End::Refused { refusal, retry_after },
            Self::Config(_) | Self::Broken(_) => End::Broken(sentence(&self)),
        }
    }
}

impl Api {
    pub(super) fn new(source: ApiSource, prefix: AnnotationPrefix) -> Self {
        let connection = Mutex::default();
        Self {
            source,
            prefix,
            connection,
        }
    }

    /// Reads the files that say who this is anew with the next request: they may have changed.
    pub(super) fn forget(&self) {
        self.lock().0 = None;
    }

    /// Asks on which Node a pod runs.
    pub(super) async fn node_of_pod(&self, namespace: &str, name: &str) -> Result<String, ApiError> {
        let path = format!("/api/v1/namespaces/{}/pods/{}", escaped(namespace), escaped(name));
        let answer = self.ask(Method::GET, &path, None).await?;
        let pod: Pod = serde_json::from_slice(&answer).map_err(|err| ApiError::Broken(err.to_string()))?;
        Ok(pod.spec.node_name)
    }

    /// Reads a Node.
    pub(super) async fn node(&self, name: &str) -> Result<Node, ApiError> {
        let path = format!("/api/v1/nodes/{}", escaped(name));
        let answer = self.ask(Method::GET, &path, None).await?;
        self.parse(&answer)
    }

    /// Changes a Node's status and annotations, as the rights of upstream's role allow; returns the changed Node.
    pub(super) async fn patch_status(&self, name: &str, patch: &Value) -> Result<Node, ApiError> {
        let path = format!("/api/v1/nodes/{}/status", escaped(name));
        let answer = self.ask(Method::PATCH, &path, Some(patch)).await?;
        self.parse(&answer)
    }

    /// Begins to read Nodes: the answer's body is a page or a watch.
    pub(super) async fn open(&self, request: &Request, jitter: u64) -> Result<Body, ApiError> {
        let path = nodes_path(request, jitter);
        let answer = limited(self.send(Method::GET, &path, None)).await?;
        Ok(answer.into_body())
    }

    async fn ask(&self, method: Method, path: &str, patch: Option<&Value>) -> Result<Vec<u8>, ApiError> {
        let answer = self.send(method, path, patch);
        limited(async { read_whole(answer.await?.into_body()).await }).await
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        patch: Option<&Value>,
    ) -> Result<Response<Body>, ApiError> {
        let client = self.client().await?;
        let mut request = http::Request::builder()
            .method(method)
            .uri(path)
            .header(USER_AGENT, concat!("flanneld/", env!("CARGO_PKG_VERSION")))
            .header(ACCEPT, "application/json");
        if patch.is_some() {
            request = request.header(CONTENT_TYPE, "application/strategic-merge-patch+json");
        }
        let body = patch.map_or_else(Body::empty, |patch| Body::from(patch.to_string().into_bytes()));
        let request = request.body(body).map_err(|err| broken(&err))?;
        let answer = client.send(request).await.map_err(|err| broken(&err))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let refused = refusal(answer).await;
        if matches!(&refused, ApiError::Refused { refusal, .. } if refusal.code == 401) {
            self.forget();
        }
        Err(refused)
    }

    async fn client(&self) -> Result<Client, ApiError> {
        if let Some(client) = &self.lock().0 {
            return Ok(client.clone());
        }
        let config = self.source.config().await?;
        let client = ClientBuilder::try_from(config).map_err(|err| ApiError::Config(err.into()))?;
        let client = client.build();
        self.lock().0 = Some(client.clone());
        Ok(client)
    }

    fn parse(&self, answer: &[u8]) -> Result<Node, ApiError> {
        Node::parse(&self.prefix, answer).map_err(|err| ApiError::Broken(err.to_string()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.connection.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ApiSource {
    async fn config(&self) -> Result<Config, ApiError> {
        let url = match &self.url {
            Some(url) => Some(url.parse().map_err(|err| ApiError::Config(Box::new(err)))?),
            None => None,
        };
        let options = KubeConfigOptions::default();
        let mut config = match (&self.kubeconfig, url.clone()) {
            (Some(path), _) => {
                let file = Kubeconfig::read_from(path).map_err(|err| ApiError::Config(err.into()))?;
                let config = Config::from_custom_kubeconfig(file, &options).await;
                config.map_err(|err| ApiError::Config(err.into()))?
            }
            (None, Some(url)) => Config::new(url),
            // A pod's own first, then a person's, as upstream has it.
            (None, None) => match Config::incluster() {
                Ok(config) => config,
                Err(_) => Config::infer()
                    .await
                    .map_err(|err| ApiError::Config(err.into()))?,
            },
        };
        if let Some(url) = url {
            config.cluster_url = url;
        }
        if config.cluster_url.scheme_str() == Some("http") && config.root_cert.is_none() {
            // Nothing is encrypted, so that it does not matter whether the host trusts anybody.
            config.root_cert = Some(Vec::new());
        }
        config.connect_timeout = Some(CONNECT_LIMIT);
        config.write_timeout = Some(ANSWER_LIMIT);
        // Repeating is decided by who asks.
        config.default_retry = false;
        Ok(config)
    }
}

/// Which Nodes are asked for.
fn nodes_path(request: &Request, jitter: u64) -> String {
    let secs = WATCH_SECS + jitter % WATCH_SECS;
    let watch = format!("/api/v1/nodes?watch=true&allowWatchBookmarks=true&timeoutSeconds={secs}");
    match request {
        Request::Stream => format!("{watch}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan"),
        // Without a revision: with 0 a server may ignore the limit.
        Request::Page { next: None } => format!("/api/v1/nodes?limit={PAGE_LEN}"),
        Request::Page { next: Some(next) } => {
            format!("/api/v1/nodes?limit={PAGE_LEN}&continue={}", escaped(next))
        }
        Request::Watch { revision } => format!("{watch}&resourceVersion={}", escaped(revision)),
    }
}

/// What a server says when it refuses: a `Status`, or a line of a proxy's.
async fn refusal(answer: Response<Body>) -> ApiError {
    let status = answer.status();
    let retry_after = answer.headers().get(RETRY_AFTER);
    let retry_after = retry_after.and_then(|secs| secs.to_str().ok()?.parse().ok());
    let text = read_whole(answer.into_body()).await.unwrap_or_default();
    let told = serde_json::from_slice::<Refusal>(&text).unwrap_or_default();
    let reason = StatusCode::canonical_reason(&status).unwrap_or("refused");
    ApiError::Refused {
        refusal: Refusal {
            code: status.as_u16(),
            reason: reason.to_owned(),
            message: told.message,
        },
        retry_after: retry_after.map(Duration::from_secs),
    }
}

async fn read_whole(mut body: Body) -> Result<Vec<u8>, ApiError> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|err| broken(&err))?;
        if let Some(part) = frame.data_ref() {
            whole.extend_from_slice(part);
        }
        if whole.len() > MAX_ANSWER_BYTES {
            return Err(ApiError::Broken("its answer has no end".to_owned()));
        }
    }
    Ok(whole)
}

async fn limited<T>(answer: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    match timeout(ANSWER_LIMIT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(ApiError::Broken(format!(
            "it did not answer within {} s",
            ANSWER_LIMIT.as_secs()
        ))),
    }
}

fn broken(err: &(dyn std::error::Error + 'static)) -> ApiError {
    ApiError::Broken(sentence(err))
}

/// A text as a part of a path or a query (RFC 3986 §2.3: all but the unreserved letters is escaped).
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_request_has_its_path() {
        let path = |request: Request| nodes_path(&request, 7);
        let watch = "/api/v1/nodes?watch=true&allowWatchBookmarks=true&timeoutSeconds=307";
        assert_eq!(
            path(Request::Stream),
            format!("{watch}&sendInitialEvents=true&resourceVersionMatch=NotOlderThan")
        );
        assert_eq!(path(Request::Page { next: None }), "/api/v1/nodes?limit=500");
        let next = Some("eyJ2Ijoi/+=".to_owned());
        assert_eq!(
            path(Request::Page { next }),
            "/api/v1/nodes?limit=500&continue=eyJ2Ijoi%2F%2B%3D"
        );
        let revision = "1757".to_owned();
        assert_eq!(
            path(Request::Watch { revision }),
            format!("{watch}&resourceVersion=1757")
        );
    }
}
