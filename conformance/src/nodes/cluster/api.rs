//! What is asked of the Kubernetes API, and what is made of its refusals.

use std::error::Error as _;
use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use http::{Request, StatusCode};
use http_body_util::{LengthLimitError, Limited};
use k8s_openapi::api::core::v1::Pod;
use kube_client::api::{AttachParams, AttachedProcess};
use kube_client::client::{Body, ClientBuilder};
use kube_client::config::{KubeConfigOptions, Kubeconfig};
use kube_client::core::Status;
use kube_client::{Client, Config};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;
use tower_http::map_response_body::MapResponseBodyLayer;

use super::manifest::CONTAINER;

/// How long an answer may take; that of a server which is not there is not awaited as long as a client would by default.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// More is not read of an answer: a list of 5,000 Nodes of 10 kB has 50 MB.
const MAX_ANSWER_MIB: usize = 64;
/// More is not told of what a server says when it refuses.
const MAX_WORDS_CHARS: usize = 1_000;
/// Of the pipes to a command, in bytes.
const PIPE_BYTES: usize = 1 << 18;

/// A client of the API, and what runs it.
pub(super) struct Api {
    client: Client,
    runtime: Runtime,
    /// How the cluster is called: the context of the configuration.
    pub(super) name: String,
}

impl Api {
    /// Reads a kubeconfig file and prepares a client; nothing is asked yet.
    ///
    /// # Errors
    /// Fails when the file or its credentials cannot be read, or name no such context.
    pub(super) fn new(kubeconfig: &Path, context: Option<String>) -> Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .context("starting what speaks to the API")?;
        let reading = || format!("reading the kubeconfig {}", kubeconfig.display());
        let file = Kubeconfig::read_from(kubeconfig).with_context(reading)?;
        let name = context.clone().or_else(|| file.current_context.clone());
        let options = KubeConfigOptions {
            context,
            ..KubeConfigOptions::default()
        };
        let client = runtime.block_on(async {
            let mut config = Config::from_custom_kubeconfig(file, &options)
                .await
                .with_context(reading)?;
            config.connect_timeout = Some(CONNECT_LIMIT);
            let builder = ClientBuilder::try_from(config).with_context(reading)?;
            let bounded = MapResponseBodyLayer::new(|body| Limited::new(body, MAX_ANSWER_MIB << 20));
            anyhow::Ok(builder.with_layer(&bounded).build())
        })?;
        Ok(Self {
            client,
            runtime,
            name: name.unwrap_or_else(|| "the cluster".to_owned()),
        })
    }

    /// Waits for something that is done with the API.
    pub(super) fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// What goes on by itself runs here.
    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    /// An object or a list, `None` when there is none.
    ///
    /// # Errors
    /// Fails when the server does not answer, or refuses.
    pub(super) async fn find(&self, path: &str) -> Result<Option<Value>> {
        self.ask("GET", path, None).await
    }

    /// An object or a list.
    ///
    /// # Errors
    /// As [`Self::find`], and when there is none.
    pub(super) async fn get(&self, path: &str) -> Result<Value> {
        let found = self.find(path).await?;
        found.with_context(|| format!("the API has no {path}"))
    }

    /// Makes an object.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) async fn create(&self, path: &str, object: &Value) -> Result<()> {
        let made = self.ask("POST", path, Some(object)).await?;
        made.map(drop).with_context(|| format!("the API has no {path}"))
    }

    /// Deletes an object; there may be none.
    ///
    /// # Errors
    /// As [`Self::find`].
    pub(super) async fn delete(&self, path: &str) -> Result<()> {
        self.ask("DELETE", path, None).await.map(drop)
    }

    async fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Option<Value>> {
        let asking = || format!("{method} {path}");
        let text = body.map(Value::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(text.into_bytes())
            .with_context(asking)?;
        // kube's own way to read an answer loses the status where the body is no Kubernetes API's.
        let answer = timeout(ANSWER_LIMIT, async {
            let answer = self.client.send(request.map(Body::from)).await?;
            let status = answer.status();
            Ok((status, answer.into_body().collect_bytes().await?))
        });
        let Ok(answer) = answer.await else {
            bail!(
                "{}: no answer of the API in {} s",
                asking(),
                ANSWER_LIMIT.as_secs()
            );
        };
        let (status, body) = answer.map_err(|error| in_words(&error).context(asking()))?;
        match status {
            StatusCode::NOT_FOUND => Ok(None),
            status if status.is_success() => {
                let object = serde_json::from_slice(&body);
                object.with_context(|| format!("reading the answer to {}", asking()))
            }
            status => {
                let told = serde_json::from_slice::<Status>(&body).map(|told| told.message);
                let told = told.unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned());
                Err(refusal(Some(status), &told).context(asking()))
            }
        }
    }

    /// Runs a command in a pod's container of ours: others may be put beside it.
    ///
    /// # Errors
    /// Fails when the server does not answer, or refuses.
    pub(super) async fn exec(&self, namespace: &str, pod: &str, argv: &[String]) -> Result<AttachedProcess> {
        let parameters = AttachParams {
            stdin: true,
            max_stdin_buf_size: Some(PIPE_BYTES),
            max_stdout_buf_size: Some(PIPE_BYTES),
            max_stderr_buf_size: Some(PIPE_BYTES),
            ..AttachParams::default().container(CONTAINER)
        };
        let pods = kube_client::Api::<Pod>::namespaced(self.client.clone(), namespace);
        let started = timeout(ANSWER_LIMIT, pods.exec(pod, argv, &parameters));
        match started.await {
            Ok(Ok(process)) => Ok(process),
            Ok(Err(error)) => Err(in_words(&error).context(format!("running a command in the pod {pod}"))),
            Err(_) => bail!("running a command in the pod {pod}: no answer of the API"),
        }
    }
}

/// An error of the client, with the way out where there is one.
fn in_words(error: &kube_client::Error) -> Error {
    if let kube_client::Error::Api(told) = error {
        refusal(StatusCode::from_u16(told.code).ok(), &told.message)
    } else {
        anyhow!(chain(error))
    }
}

/// A refusal by its status, where it is known, and by what the server, or a proxy before it, says beside it.
fn refusal(status: Option<StatusCode>, told: &str) -> Error {
    let mut text = status.map_or_else(|| "refused".to_owned(), |status| status.to_string());
    if !told.trim().is_empty() {
        text.push_str(": ");
        text.extend(told.trim().chars().take(MAX_WORDS_CHARS));
    }
    if status == Some(StatusCode::FORBIDDEN) {
        Forbidden(text).into()
    } else {
        anyhow!(text)
    }
}

/// The API says that this user may not, which no repetition changes.
#[derive(Debug)]
pub(super) struct Forbidden(pub(super) String);

impl Display for Forbidden {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: docs/conformance.md tells the rights that it takes",
            self.0
        )
    }
}

impl std::error::Error for Forbidden {}

/// Whether an error is that of a user who may not.
pub(super) fn is_forbidden(error: &Error) -> bool {
    error.is::<Forbidden>()
}

/// What an error says, and all that is behind it.
fn chain(error: &kube_client::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        if inner.is::<LengthLimitError>() {
            return format!("the answer is longer than {MAX_ANSWER_MIB} MiB: is that a Kubernetes API?");
        }
        let words = inner.to_string();
        // Many errors repeat what is behind them.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::thread;

    use serde_json::json;

    use super::*;

    /// A client of a server that answers once, with some bytes and then with blanks.
    fn served(answer: &str, blanks: usize) -> Api {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let answer = answer.to_owned();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = BufReader::new(&stream).lines().map_while(Result::ok);
            assert!(head.any(|line| line.is_empty()));
            // Who has read enough goes.
            let sent = stream.write_all(answer.as_bytes());
            sent.and_then(|()| stream.write_all(&vec![b' '; blanks])).ok();
        });
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "a",
            "clusters": [{"name": "a", "cluster": {"server": url}}], "users": [{"name": "a", "user": {}}],
            "contexts": [{"name": "a", "context": {"cluster": "a", "user": "a"}}]});
        std::fs::write(&file, config.to_string()).unwrap();
        Api::new(&file, None).unwrap()
    }

    #[test]
    fn the_status_of_a_refusal_is_told_with_what_is_said_beside_it() {
        for (head, body, words) in [
            (
                "500 Internal Server Error",
                "",
                "GET /x: 500 Internal Server Error",
            ),
            (
                "502 Bad Gateway",
                "no backend\n",
                "GET /x: 502 Bad Gateway: no backend",
            ),
            (
                "409 Conflict",
                r#"{"kind":"Status","message":"it exists","reason":"AlreadyExists","code":409}"#,
                "GET /x: 409 Conflict: it exists",
            ),
            (
                "403 Forbidden",
                "",
                "GET /x: 403 Forbidden: docs/conformance.md tells the rights that it takes",
            ),
        ] {
            let answer = format!("HTTP/1.1 {head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            let api = served(&answer, 0);
            let error = api.wait(api.find("/x")).unwrap_err();
            assert_eq!(format!("{error:#}"), words);
            assert_eq!(is_forbidden(&error), head.starts_with("403"));
        }
        let api = served("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 0);
        assert_eq!(api.wait(api.find("/x")).unwrap(), None);
    }

    #[test]
    fn an_answer_without_an_end_is_not_read_to_its_end() {
        for status in ["200 OK", "500 Internal Server Error"] {
            let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n{{");
            let api = served(&answer, (MAX_ANSWER_MIB + 16) << 20);
            let error = api.wait(api.find("/x")).unwrap_err();
            let words = "GET /x: the answer is longer than 64 MiB: is that a Kubernetes API?";
            assert_eq!(format!("{error:#}"), words);
        }
    }
}
