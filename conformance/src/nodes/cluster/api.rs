//! What is asked of the Kubernetes API, and what is made of its refusals.

use std::error::Error as _;
use std::fmt::{self, Display, Formatter};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Error, Result, anyhow, bail};
use http::Request;
use k8s_openapi::api::core::v1::Pod;
use kube_client::api::{AttachParams, AttachedProcess};
use kube_client::config::{KubeConfigOptions, Kubeconfig};
use kube_client::{Client, Config};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::manifest::CONTAINER;

/// How long an answer may take; that of a server which is not there is not awaited as long as a client would by default.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
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
            Client::try_from(config).with_context(reading)
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
        let answer = timeout(ANSWER_LIMIT, self.client.request::<Value>(request));
        let Ok(answer) = answer.await else {
            bail!(
                "{}: no answer of the API in {} s",
                asking(),
                ANSWER_LIMIT.as_secs()
            );
        };
        match answer {
            Ok(object) => Ok(Some(object)),
            Err(kube_client::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(in_words(&error).context(asking())),
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
    let (text, is_forbidden) = if let kube_client::Error::Api(status) = error {
        let words = [&status.message, &status.reason];
        let text = words.into_iter().find(|text| !text.is_empty());
        (text.cloned().unwrap_or_default(), status.code == 403)
    } else {
        // Of an upgrade that is refused there is only the status.
        let text = chain(error);
        let is_forbidden = text.contains("403 Forbidden");
        (text, is_forbidden)
    };
    if is_forbidden {
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
        let words = inner.to_string();
        // Many errors repeat what is behind them.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = inner.source();
    }
    text
}
