use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use conformance::lab::{
    CNI_BIN_DIR, CNI_CONF_DIR, Lab, Node, Store, TUNNEL, bare_kube_node, kube_service, wait_until,
};
use serde_json::json;

use crate::containerd::{Containerd, DIR, container, published, sandbox};
use crate::cri::{
    Capabilities, ContainerConfig, LinuxContainer, LinuxSandbox, Mount, NamespaceMode, Namespaces, Sandbox,
    SandboxConfig, SeccompProfile, SecurityContext, Variable,
};
use crate::manifest;
use crate::support::{
    ANSWER_LIMIT, HOST_PORT, LONG, PORT, assert_reaches, assert_success, conflist, netns_files, nodes_on,
    programs, run, serve,
};

/// Where the ConfigMap is on a node, as kubelet mounts it.
const CONFIG_MAP: &str = "/run/kube-flannel-cfg";

/// Where kubelet keeps a pod's service account on a node, and where the pod finds it (Kubernetes, "Accessing the Kubernetes
/// API from a Pod").
const SERVICE_ACCOUNT: &str = "/run/kube-flannel-token";
const SERVICE_ACCOUNT_IN_POD: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

#[test]
fn both_images_run_as_the_manifest_has_it() {
    let lab = nodes_on(Store::Kube);
    give_token(&lab, "first");
    let images = tempfile::tempdir().unwrap();
    let [near, far] = [(0, ""), (1, "-iptables")].map(|(index, kind)| {
        let node = &lab.nodes()[index];
        // What the lab has there, an init container is to install.
        run(node, &["umount", CNI_BIN_DIR]);
        let runtime = Containerd::start(node, CNI_BIN_DIR);
        runtime.import(&make_image(images.path(), kind));
        DaemonPod::start(runtime, node, kind)
    });
    let published = vec![published()];
    let (files, files_beyond) = (netns_files(near.node), netns_files(far.node));
    let pod = near.runtime.start_pod("near", published);
    let other = far.runtime.start_pod("far", Vec::new());
    let (inside, beyond) = (
        serve(near.node, &files, "near"),
        serve(far.node, &files_beyond, "far"),
    );
    let [address, other_address] =
        [(&near, &pod), (&far, &other)].map(|(node, id)| node.runtime.cri.address(id));
    let all_reach = || {
        assert_reaches(&inside, &other_address, PORT, "far");
        assert_reaches(&beyond, &address, PORT, "near");
        assert_reaches(
            far.node.namespaces(),
            &near.node.address().to_string(),
            HOST_PORT,
            "near",
        );
    };
    all_reach();

    let tables = run(near.node, &["nft", "list", "tables"]);
    assert!(tables.contains("flannel-ipv4"), "{tables}");
    let rules = run(far.node, &["iptables-save"]);
    assert!(rules.contains("FLANNEL-POSTRTG"), "{rules}");
    for node in [&near, &far] {
        node.speaks();
        assert_eq!(
            node.confinement(),
            ["NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000001000"]
        );
        // A firewall's reload: the daemon's own rules come back, and by the plugin those of host ports.
        run(node.node, &["nft", "flush", "ruleset"]);
    }
    all_reach();
    far.takes_upstreams_commands();

    // A rolling update, between the old container and the new one.
    for node in [&near, &far] {
        node.runtime.cri.remove_container(&node.daemon, 10);
        assert!(conflist(node.node).exists());
    }
    all_reach();
    for node in [&near, &far] {
        node.start_daemon("next");
        node.wait_until_ready();
    }
    all_reach();
    follow_the_cluster_with_another_token(&lab);
}

/// Kubelet swaps a token long before its time is over; from then on the API knows the new one alone.
fn follow_the_cluster_with_another_token(lab: &Lab) {
    give_token(lab, "second");
    lab.order_api("forbid", &json!({ "token": "first" })).unwrap();
    lab.order_api("restart", &json!({})).unwrap();
    let subnet = "10.244.91.0/24";
    let mut peer = bare_kube_node("came", &[subnet]);
    peer["metadata"]["annotations"] = json!({
        "flannel.alpha.coreos.com/kube-subnet-manager": "true",
        "flannel.alpha.coreos.com/backend-type": "vxlan",
        "flannel.alpha.coreos.com/backend-data": r#"{"VNI":1,"VtepMAC":"02:00:00:00:00:91"}"#,
        "flannel.alpha.coreos.com/public-ip": "192.168.77.91",
    });
    lab.put_kube_node(&peer).unwrap();
    for node in lab.nodes() {
        wait_until("the new peer", LONG, || {
            Ok(run(node, &["ip", "route", "show", subnet]).contains(TUNNEL))
        })
        .unwrap();
    }
}

/// Gives the daemons' service account this token, with the rights of the manifest's role.
fn give_token(lab: &Lab, token: &str) {
    let allowed = json!({ "token": token, "role": "flannel" });
    lab.order_api("allow", &allowed).unwrap();
    let files = [
        ("ca.crt", &*lab.api_authority().unwrap()),
        ("namespace", "kube-flannel"),
        ("token", token),
    ];
    for node in lab.nodes() {
        node.mount_volume(SERVICE_ACCOUNT, &files).unwrap();
    }
}

/// Makes one of the images.
fn make_image(dir: &Path, kind: &str) -> PathBuf {
    let archive = dir.join(format!("image{kind}.tar"));
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/image"));
    command
        .arg("--bin-dir")
        .arg(programs())
        .arg("--out")
        .arg(&archive);
    if !kind.is_empty() {
        command.arg(format!("-{kind}"));
    }
    assert_success(&command.output().unwrap(), &["scripts/image", kind]);
    archive
}

/// The DaemonSet's pod on a node, as kubelet runs it.
struct DaemonPod<'a> {
    runtime: Containerd<'a>,
    node: &'a Node,
    suffix: String,
    sandbox: String,
    config: SandboxConfig,
    daemon: String,
}

impl<'a> DaemonPod<'a> {
    /// Runs its init container to the end, and its daemon until it is ready.
    fn start(runtime: Containerd<'a>, node: &'a Node, suffix: &str) -> Self {
        let net_conf = manifest::config("net-conf.json");
        let net_conf = net_conf.replace(
            r#""EnableNFTables": true"#,
            &format!(r#""EnableNFTables": {}"#, suffix.is_empty()),
        );
        fs::create_dir_all(node.file(CONFIG_MAP)).unwrap();
        for (name, text) in [
            ("net-conf.json", &net_conf),
            ("cni-conf.json", &manifest::config("cni-conf.json")),
        ] {
            fs::write(node.file(CONFIG_MAP).join(name), text).unwrap();
        }
        let config = SandboxConfig {
            linux: Some(LinuxSandbox {
                security: Some(Sandbox {
                    namespaces: Some(host_network()),
                }),
            }),
            // It is the node's.
            hostname: String::new(),
            ..sandbox("flannel")
        };
        let mut pod = Self {
            sandbox: runtime.cri.run_sandbox(config.clone()),
            runtime,
            node,
            suffix: suffix.to_owned(),
            config,
            daemon: String::new(),
        };
        let init = pod.container("install-cni-plugin", "init");
        pod.end(init);
        assert!(node.file(CNI_BIN_DIR).join("portmap").exists());
        assert!(!conflist(node).exists(), "no pod can start yet");
        pod.daemon = pod.start_daemon("first");
        pod.wait_until_ready();
        wait_until("the network to be ready for containerd", LONG, || {
            Ok(pod.runtime.cri.network_is_ready()?)
        })
        .unwrap();
        let written = fs::read_to_string(conflist(node)).unwrap();
        assert_eq!(written, manifest::config("cni-conf.json"));
        pod
    }

    /// Starts the manifest's daemon, with nothing added: it finds the API as every pod does.
    fn start_daemon(&self, name: &str) -> String {
        let mut config = self.container("kube-flannel", name);
        let variables = kube_service().into_iter();
        let variables = variables.chain([("NODE_NAME", self.node.name())]);
        let variables = variables.map(|(key, value)| Variable {
            key: key.to_owned(),
            value,
        });
        config.env = variables.collect();
        self.runtime
            .cri
            .run_container(&self.sandbox, config, &self.config)
    }

    /// Asks as kubelet's probes do.
    fn wait_until_ready(&self) {
        for path in ["/healthz", "/readyz"] {
            let mut answer = String::new();
            let ready = wait_until(path, LONG, || {
                answer = self.get(path).unwrap_or_default();
                Ok(answer.starts_with("HTTP/1.1 200 ") || answer.starts_with("HTTP/1.0 200 "))
            });
            ready.unwrap_or_else(|err| panic!("{err}: {answer}\n{}", self.logs()));
        }
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        self.node.namespaces().run(|| {
            let target = (self.node.address(), 8081).into();
            let mut stream = TcpStream::connect_timeout(&target, ANSWER_LIMIT).context("connecting")?;
            stream
                .set_read_timeout(Some(ANSWER_LIMIT))
                .context("limiting the answer")?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n"
            )
            .context("asking")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).context("reading")?;
            Ok(answer)
        })
    }

    /// The programs that the image holds for people and for other manifests.
    fn speaks(&self) {
        let exec = |command: &[&str]| self.runtime.cri.exec(&self.daemon, command);
        assert_eq!(exec(&["flanneld", "--version"]).trim(), env!("CARGO_PKG_VERSION"));
        let status = exec(&["flanneld", "status"]);
        assert!(status.contains("vxlan"), "{status}");
        exec(&["mk-docker-opts.sh", "-d", "/run/flannel/docker"]);
        let opts = fs::read_to_string(self.node.file("/run/flannel/docker")).unwrap();
        assert!(opts.contains("--mtu="), "{opts}");
        exec(&[
            "install-conf",
            "/etc/kube-flannel/cni-conf.json",
            "/etc/cni/net.d/other",
        ]);
        fs::remove_file(self.node.file(CNI_CONF_DIR).join("other")).unwrap();
    }

    /// What the kernel holds the daemon to: as the manifest says, with `CAP_NET_ADMIN` (12) alone.
    fn confinement(&self) -> Vec<String> {
        let list = format!("ctr --address {DIR}/sock --namespace k8s.io tasks list");
        let tasks = run(self.node, &list.split(' ').collect::<Vec<_>>());
        let task = tasks.lines().find(|line| line.starts_with(&self.daemon)).unwrap();
        let pid = task.split_whitespace().nth(1).unwrap();
        let status = fs::read_to_string(self.node.file(&format!("/proc/{pid}/status"))).unwrap();
        let line = |name: &str| {
            status
                .lines()
                .find(|line| line.starts_with(name))
                .unwrap()
                .to_owned()
        };
        ["NoNewPrivs:", "Seccomp:", "CapEff:"].map(line).to_vec()
    }

    /// The init containers of upstream's manifest, and its default of iptables.
    fn takes_upstreams_commands(&self) {
        self.run_to_end("plugin", &["cp", "-f", "/flannel", "/opt/cni/bin/flannel"]);
        let list = "/etc/cni/net.d/10-flannel.conflist";
        self.run_to_end("list", &["cp", "-f", "/etc/kube-flannel/cni-conf.json", list]);
        let version = self.runtime.cri.exec(&self.daemon, &["iptables", "--version"]);
        assert!(version.contains("nf_tables"), "{version}");
    }

    /// Runs a program of the image in a container of its own, with the daemon's directories, plugins writable.
    fn run_to_end(&self, name: &str, command: &[&str]) {
        let mut config = self.container("kube-flannel", name);
        config.command = command.iter().map(|word| (*word).to_owned()).collect();
        config.args.clear();
        for mount in &mut config.mounts {
            mount.read_only = false;
        }
        self.end(config);
    }

    fn end(&self, config: ContainerConfig) {
        let id = self
            .runtime
            .cri
            .run_container(&self.sandbox, config.clone(), &self.config);
        let mut status = None;
        let ended = wait_until("the container to end", LONG, || {
            status = self.runtime.cri.exit_status(&id);
            Ok(status.is_some())
        });
        ended.unwrap();
        assert_eq!(status, Some(0), "{:?}: {}", config.command, self.logs());
    }

    /// A container of the manifest, with what it is allowed and what it sees of the node.
    fn container(&self, name: &str, own_name: &str) -> ContainerConfig {
        let said = manifest::container(name);
        let mounts = said.mounts.into_iter().map(|mount| {
            let host_path = mount.host_path.unwrap_or_else(|| CONFIG_MAP.to_owned());
            self.make(&host_path);
            Mount {
                container_path: mount.path,
                host_path,
                read_only: mount.read_only,
            }
        });
        // Which kubelet adds.
        let service_account = Mount {
            container_path: SERVICE_ACCOUNT_IN_POD.to_owned(),
            host_path: SERVICE_ACCOUNT.to_owned(),
            read_only: true,
        };
        ContainerConfig {
            args: said.args,
            mounts: mounts.chain([service_account]).collect(),
            linux: Some(LinuxContainer {
                security: Some(SecurityContext {
                    capabilities: Some(Capabilities {
                        add: said.added_capabilities,
                        drop: vec!["ALL".to_owned()],
                    }),
                    namespaces: Some(host_network()),
                    read_only_root: true,
                    no_new_privileges: true,
                    seccomp: Some(SeccompProfile {}),
                }),
            }),
            log_path: own_name.to_owned(),
            ..container(own_name, &format!("{}{}", said.image, self.suffix), &said.command)
        }
    }

    /// What kubelet makes of `DirectoryOrCreate` and `FileOrCreate`.
    fn make(&self, host_path: &str) {
        let path = self.node.file(host_path);
        if host_path.ends_with(".lock") {
            File::options().create(true).append(true).open(path).unwrap();
        } else {
            fs::create_dir_all(path).unwrap();
        }
    }

    /// What its containers have said.
    fn logs(&self) -> String {
        let dir = self.node.file(&format!("{DIR}/log/flannel"));
        let logs = fs::read_dir(dir)
            .unwrap()
            .map(|entry| fs::read_to_string(entry.unwrap().path()).unwrap());
        logs.collect()
    }
}

fn host_network() -> Namespaces {
    Namespaces {
        network: NamespaceMode::Node.into(),
        pid: NamespaceMode::Container.into(),
    }
}
