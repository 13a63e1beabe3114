use std::fs;
use std::path::Path;
use std::process::Command;

use conformance::lab::{Node, Process, wait_until};

use crate::cri::{ContainerConfig, ContainerName, Cri, Image, Metadata, PortMapping, SandboxConfig};
use crate::support::{
    HOST_PORT, IDLE, LONG, PLUGIN_DIR, PORT, assert_reaches, assert_success, assert_without_trace, make_root,
    netns_files, nodes, serve, start_daemons, traces,
};

/// The image of sandboxes and containers.
const POD_IMAGE: &str = "docker.io/lab/pod:1";
pub(crate) const DIR: &str = "/run/containerd-lab";

/// Without controllers of cgroup2 there can be no limits, and without `CAP_SYS_RESOURCE` no better score for the kernel's
/// killer; neither concerns the network.
const CONF: &str = r#"
version = 2
root = "DIR/root"
state = "DIR/state"
[grpc]
address = "DIR/sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "IMAGE"
disable_apparmor = true
disable_cgroup = true
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "PLUGINS"
conf_dir = "/etc/cni/net.d"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
"#;

/// A containerd of a node's own; it ends with this value.
pub(crate) struct Containerd<'a> {
    pub(crate) cri: Cri,
    node: &'a Node,
    _process: Process,
}

impl<'a> Containerd<'a> {
    /// Starts one that finds plugins in this directory, and gives it the image of pods.
    pub(crate) fn start(node: &'a Node, plugin_dir: &str) -> Self {
        let conf = CONF
            .replace("DIR", DIR)
            .replace("IMAGE", POD_IMAGE)
            .replace("PLUGINS", plugin_dir);
        fs::create_dir_all(node.file(DIR)).unwrap();
        fs::write(node.file("/run/containerd-lab/config.toml"), conf).unwrap();
        let process = node
            .spawn(
                &["containerd", "--config", "/run/containerd-lab/config.toml"],
                "containerd",
            )
            .unwrap();
        let socket = node.file("/run/containerd-lab/sock");
        let mut cri = None;
        let serves = wait_until("containerd to serve", LONG, || {
            cri = Cri::connect(&socket)
                .ok()
                .filter(|cri| cri.network_is_ready().is_ok());
            Ok(cri.is_some())
        });
        serves.unwrap_or_else(|err| panic!("{err}: {}", node.log("containerd").unwrap()));
        let runtime = Self {
            cri: cri.unwrap(),
            node,
            _process: process,
        };
        let image = tempfile::tempdir().unwrap();
        make_root(&image.path().join("root"));
        let archive = image.path().join("pod.tar");
        let made = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/oci-archive"))
            .arg(image.path().join("root"))
            .args([archive.as_os_str(), POD_IMAGE.as_ref()])
            .args(IDLE)
            .output()
            .unwrap();
        assert_success(&made, &["oci-archive"]);
        runtime.import(&archive);
        runtime
    }

    /// Imports an image archive, as an administrator does.
    pub(crate) fn import(&self, archive: &Path) {
        fs::copy(archive, self.node.file("/run/image.tar")).unwrap();
        let argv = [
            "ctr",
            "--address",
            "/run/containerd-lab/sock",
            "--namespace",
            "k8s.io",
            "image",
            "import",
            "--snapshotter",
            "native",
            "/run/image.tar",
        ];
        assert_success(&self.node.exec(&argv).unwrap(), &argv);
        fs::remove_file(self.node.file("/run/image.tar")).unwrap();
    }

    /// Starts a pod with a container that does nothing, and returns its id.
    pub(crate) fn start_pod(&self, name: &str, ports: Vec<PortMapping>) -> String {
        let config = SandboxConfig {
            ports,
            ..sandbox(name)
        };
        let id = self.cri.run_sandbox(config.clone());
        let idle = container(name, POD_IMAGE, &IDLE.map(str::to_owned));
        self.cri.run_container(&id, idle, &config);
        id
    }
}

pub(crate) fn sandbox(name: &str) -> SandboxConfig {
    SandboxConfig {
        metadata: Some(Metadata {
            name: name.to_owned(),
            uid: name.to_owned(),
            namespace: "lab".to_owned(),
        }),
        hostname: name.to_owned(),
        log_directory: format!("{DIR}/log/{name}"),
        ..SandboxConfig::default()
    }
}

pub(crate) fn container(name: &str, image: &str, command: &[String]) -> ContainerConfig {
    ContainerConfig {
        name: Some(ContainerName {
            name: name.to_owned(),
        }),
        image: Some(Image {
            name: image.to_owned(),
        }),
        command: command.to_vec(),
        log_path: "log".to_owned(),
        ..ContainerConfig::default()
    }
}

/// The host's port that leads to a pod's server.
pub(crate) fn published() -> PortMapping {
    PortMapping {
        container_port: PORT.into(),
        host_port: HOST_PORT.into(),
    }
}

#[test]
fn containerd_gives_a_container_its_network_and_takes_it_back() {
    let lab = nodes();
    let [near, far] = [0, 1].map(|index| &lab.nodes()[index]);
    let (runtime, beyond) = (
        Containerd::start(near, PLUGIN_DIR),
        Containerd::start(far, PLUGIN_DIR),
    );
    assert!(
        !runtime.cri.network_is_ready().unwrap(),
        "kubelet would hold a node for ready that is not"
    );
    let _daemons = start_daemons(&lab);
    for runtime in [&runtime, &beyond] {
        wait_until("the network to be ready for containerd", LONG, || {
            Ok(runtime.cri.network_is_ready()?)
        })
        .unwrap();
    }
    let published = || vec![published()];
    // What the first pod leaves, bridge and tables, is there for all.
    let first = runtime.start_pod("first", published());
    runtime.cri.remove_sandbox(&first);
    let before = traces(near);

    let (files, files_beyond) = (netns_files(near), netns_files(far));
    let pod = runtime.start_pod("near", published());
    let other = beyond.start_pod("far", Vec::new());
    let inside = serve(near, &files, "near");
    let _far = serve(far, &files_beyond, "far");
    assert_ne!(traces(near), before);
    assert_reaches(near.namespaces(), &runtime.cri.address(&pod), PORT, "near");
    assert_reaches(&inside, &beyond.cri.address(&other), PORT, "far");
    assert_reaches(far.namespaces(), &near.address().to_string(), HOST_PORT, "near");
    runtime.cri.remove_sandbox(&pod);
    assert_without_trace(near, &before);
}
