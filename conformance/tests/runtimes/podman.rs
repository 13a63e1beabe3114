use std::fs;

use conformance::lab::Node;

use crate::support::{
    HOST_PORT, IDLE, PLUGIN_DIR, PORT, assert_reaches, assert_without_trace, make_root, netns_files, nodes,
    run, serve, start_daemons, traces,
};

/// Podman with CNI instead of netavark. Without controllers of cgroup2 there can be no limit of processes.
const CONF: &str = r#"
[network]
network_backend = "cni"
cni_plugin_dirs = ["PLUGINS"]
network_config_dir = "/etc/cni/net.d"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "runc"
[containers]
log_driver = "none"
pids_limit = 0
"#;

struct Podman<'a>(&'a Node);

impl<'a> Podman<'a> {
    fn on(node: &'a Node) -> Self {
        let conf = CONF.replace("PLUGINS", PLUGIN_DIR);
        fs::write(node.file("/run/containers.conf"), conf).unwrap();
        Self(node)
    }

    fn run(&self, arguments: &[&str]) -> String {
        let own = [
            "env",
            "CONTAINERS_CONF=/run/containers.conf",
            "podman",
            "--root=/run/podman/root",
            "--runroot=/run/podman/run",
            "--tmpdir=/run/podman/tmp",
            "--storage-driver=vfs",
        ];
        run(self.0, &[&own, arguments].concat())
    }

    /// Starts a container, and returns its address.
    fn start(&self, name: &str, more: &[&str]) -> String {
        let root = format!("/run/root-{name}");
        make_root(&self.0.file(&root));
        let first = ["run", "--detach", "--name", name, "--network", "cbr0"];
        self.run(&[&first, more, &["--rootfs", &root], &IDLE].concat());
        let address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}";
        self.run(&["inspect", "--format", address, name])
    }

    fn remove(&self, name: &str) {
        self.run(&["rm", "--force", "--time", "0", name]);
    }
}

#[test]
fn podman_gives_a_container_its_network_and_takes_it_back() {
    let lab = nodes();
    let _daemons = start_daemons(&lab);
    let [near, far] = [0, 1].map(|index| &lab.nodes()[index]);
    let (podman, beyond) = (Podman::on(near), Podman::on(far));
    let port = format!("{HOST_PORT}:{PORT}");
    let published = ["--publish", port.as_str()];
    // What the first container leaves, bridge and tables, is there for all.
    podman.start("first", &published);
    podman.remove("first");
    let before = traces(near);

    let (files, files_beyond) = (netns_files(near), netns_files(far));
    let address = podman.start("near", &published);
    let other = beyond.start("far", &[]);
    let inside = serve(near, &files, "near");
    let _far = serve(far, &files_beyond, "far");
    assert_ne!(traces(near), before);
    assert_reaches(near.namespaces(), &address, PORT, "near");
    assert_reaches(&inside, &other, PORT, "far");
    assert_reaches(far.namespaces(), &near.address().to_string(), HOST_PORT, "near");
    podman.remove("near");
    assert_without_trace(near, &before);
}
