//! The part of Kubernetes' Container Runtime Interface that the tests need (cri-api `runtime/v1/api.proto`): messages with
//! the fields that are used.

use std::path::Path;

use http::uri::PathAndQuery;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Metadata {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(string, tag = "2")]
    pub(crate) uid: String,
    #[prost(string, tag = "3")]
    pub(crate) namespace: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct PortMapping {
    #[prost(int32, tag = "2")]
    pub(crate) container_port: i32,
    #[prost(int32, tag = "3")]
    pub(crate) host_port: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SandboxConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) metadata: Option<Metadata>,
    #[prost(string, tag = "2")]
    pub(crate) hostname: String,
    #[prost(string, tag = "3")]
    pub(crate) log_directory: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) ports: Vec<PortMapping>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunSandbox {
    #[prost(message, optional, tag = "1")]
    config: Option<SandboxConfig>,
}

/// A message that is an id, or begins with one.
#[derive(Clone, PartialEq, prost::Message)]
struct Id {
    #[prost(string, tag = "1")]
    id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Nothing {}

#[derive(Clone, PartialEq, prost::Message)]
struct SandboxStatusAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<SandboxStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SandboxStatus {
    #[prost(message, optional, tag = "5")]
    network: Option<Id>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerConfig {
    #[prost(message, optional, tag = "1")]
    pub(crate) name: Option<ContainerName>,
    #[prost(message, optional, tag = "2")]
    pub(crate) image: Option<Image>,
    #[prost(string, repeated, tag = "3")]
    pub(crate) command: Vec<String>,
    #[prost(string, tag = "11")]
    pub(crate) log_path: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ContainerName {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Image {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct CreateContainer {
    #[prost(string, tag = "1")]
    sandbox: String,
    #[prost(message, optional, tag = "2")]
    config: Option<ContainerConfig>,
    #[prost(message, optional, tag = "3")]
    sandbox_config: Option<SandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusAnswer {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<Condition>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Condition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    holds: bool,
}

/// A runtime, as kubelet talks to it.
pub(crate) struct Cri {
    runtime: Runtime,
    channel: Channel,
}

impl Cri {
    /// Connects to a runtime's socket once it is there.
    pub(crate) fn connect(socket: &Path) -> Result<Self, tonic::transport::Error> {
        let runtime = event_loop();
        let endpoint = Endpoint::try_from(format!("unix:{}", socket.display()))?;
        let channel = runtime.block_on(endpoint.connect())?;
        Ok(Self { runtime, channel })
    }

    /// Whether the runtime says that pods can have a network.
    pub(crate) fn network_is_ready(&self) -> Result<bool, Status> {
        let answer: StatusAnswer = self.call("/runtime.v1.RuntimeService/Status", Nothing {})?;
        let conditions = answer.status.unwrap_or_default().conditions;
        Ok(conditions
            .iter()
            .any(|condition| condition.kind == "NetworkReady" && condition.holds))
    }

    pub(crate) fn run_sandbox(&self, config: SandboxConfig) -> String {
        let config = Some(config);
        let answer: Id = self
            .call("/runtime.v1.RuntimeService/RunPodSandbox", RunSandbox { config })
            .unwrap();
        answer.id
    }

    /// The address of a sandbox.
    pub(crate) fn address(&self, id: &str) -> String {
        let id = id.to_owned();
        let answer: SandboxStatusAnswer = self
            .call("/runtime.v1.RuntimeService/PodSandboxStatus", Id { id })
            .unwrap();
        answer.status.unwrap_or_default().network.unwrap_or_default().id
    }

    /// Removes a sandbox with its containers, as kubelet does.
    pub(crate) fn remove_sandbox(&self, id: &str) {
        for path in [
            "/runtime.v1.RuntimeService/StopPodSandbox",
            "/runtime.v1.RuntimeService/RemovePodSandbox",
        ] {
            let id = id.to_owned();
            let _done: Nothing = self.call(path, Id { id }).unwrap();
        }
    }

    /// Starts a container in a sandbox.
    pub(crate) fn run_container(&self, sandbox: &str, config: ContainerConfig, of: &SandboxConfig) -> String {
        let request = CreateContainer {
            sandbox: sandbox.to_owned(),
            config: Some(config),
            sandbox_config: Some(of.clone()),
        };
        let created: Id = self
            .call("/runtime.v1.RuntimeService/CreateContainer", request)
            .unwrap();
        let _done: Nothing = self
            .call("/runtime.v1.RuntimeService/StartContainer", created.clone())
            .unwrap();
        created.id
    }

    fn call<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.runtime.block_on(async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready()
                .await
                .map_err(|err| Status::unavailable(err.to_string()))?;
            let codec = ProstCodec::<Q, A>::default();
            let answer = grpc.unary(Request::new(question), PathAndQuery::from_static(path), codec);
            Ok(answer.await?.into_inner())
        })
    }
}

fn event_loop() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}
