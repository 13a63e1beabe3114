//! The part of Kubernetes' Container Runtime Interface that the tests need.

mod messages;

use std::path::Path;

use http::uri::PathAndQuery;
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_prost::ProstCodec;

use crate::support::LONG;

pub(crate) use messages::{
    Capabilities, ContainerConfig, ContainerName, Image, LinuxContainer, LinuxSandbox, Metadata, Mount,
    NamespaceMode, Namespaces, PortMapping, Sandbox, SandboxConfig, SeccompProfile, SecurityContext,
    Variable,
};
use messages::{
    ContainerStatusAnswer, CreateContainer, Executed, Execution, Id, Nothing, RunSandbox,
    SandboxStatusAnswer, StatusAnswer, StopContainer,
};

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

    /// The exit status of a container, once it has ended.
    pub(crate) fn exit_status(&self, container: &str) -> Option<i32> {
        const EXITED: i32 = 2;
        let id = container.to_owned();
        let answer: ContainerStatusAnswer = self
            .call("/runtime.v1.RuntimeService/ContainerStatus", Id { id })
            .unwrap();
        let status = answer.status.unwrap_or_default();
        (status.state == EXITED).then_some(status.exit_code)
    }

    /// Asks a container to end, and removes it.
    pub(crate) fn remove_container(&self, container: &str, patience_secs: i64) {
        let id = container.to_owned();
        let stop = StopContainer {
            id: id.clone(),
            patience_secs,
        };
        let _done: Nothing = self
            .call("/runtime.v1.RuntimeService/StopContainer", stop)
            .unwrap();
        let _done: Nothing = self
            .call("/runtime.v1.RuntimeService/RemoveContainer", Id { id })
            .unwrap();
    }

    /// Runs a program in a container, which must succeed, and returns what it prints on both channels.
    #[track_caller]
    pub(crate) fn exec(&self, container: &str, command: &[&str]) -> String {
        let request = Execution {
            container: container.to_owned(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            limit_secs: 30,
        };
        let done: Executed = self.call("/runtime.v1.RuntimeService/ExecSync", request).unwrap();
        let said = [done.stdout, done.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert_eq!(done.exit_code, 0, "{command:?}: {said}");
        said
    }

    fn call<Q, A>(&self, path: &'static str, question: Q) -> Result<A, Status>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        let asked = async {
            let mut grpc = Grpc::new(self.channel.clone());
            grpc.ready()
                .await
                .map_err(|err| Status::unavailable(err.to_string()))?;
            let codec = ProstCodec::<Q, A>::default();
            let answer = grpc.unary(Request::new(question), PathAndQuery::from_static(path), codec);
            Ok(answer.await?.into_inner())
        };
        let limited = async { tokio::time::timeout(LONG, asked).await };
        let in_time = self.runtime.block_on(limited);
        in_time.unwrap_or_else(|_| Err(Status::deadline_exceeded(path)))
    }
}

fn event_loop() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().build().unwrap()
}
