//! A cluster by its API: the kernel, the plugins and the daemons are real, the API server and the kubelets stand in for
//! real ones.

use std::collections::BTreeSet;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::symlink;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use conformance::lab::runtime::install_conflist;
use conformance::lab::{
    Binaries, Flanneld, Lab, LabConfig, Node, Process, Store, TUNNEL, bare_kube_node, kube_url, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::kubelet::Kubelets;
use crate::support::{RESTART_KEPT, Run, judge, left_on, outcomes, pod_links, program, start_kept, told};

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const V4: &str = r#"{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;
const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;

/// A lab that is a cluster, with its kubeconfig and the program that judges it.
pub(crate) struct Cluster {
    // Fields are dropped in this order: what runs on nodes is reaped before the lab waits for its processes to end.
    kubelets: Kubelets,
    pub(crate) daemons: Vec<Flanneld>,
    pub(crate) lab: Arc<Lab>,
    files: TempDir,
}

pub(crate) fn truth(_pod: &str, addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses
}

impl Cluster {
    pub(crate) fn start(nodes: u8, net_conf: &str, tells: fn(&str, Vec<IpAddr>) -> Vec<IpAddr>) -> Self {
        let binaries = Binaries::find().unwrap();
        let lab = Lab::on(Store::Kube, &LabConfig { nodes, binaries }).unwrap();
        symlink("flannel", lab.shared_file("bin/portmap")).unwrap();
        for node in lab.nodes() {
            let (number, address) = (node.number(), node.address());
            node.use_ipv6().unwrap();
            let (four, six) = (
                format!("10.244.{number}.0/24"),
                format!("fd00:10:244:{number}::/64"),
            );
            let cidrs = if net_conf.contains("EnableIPv6") {
                vec![&*four, &*six]
            } else {
                vec![&*four]
            };
            let mut object = bare_kube_node(&node.name(), &cidrs);
            object["metadata"]["labels"]["kubernetes.io/os"] = json!("linux");
            object["status"]["addresses"] = json!([{"type": "InternalIP", "address": address}]);
            lab.put_kube_node(&object).unwrap();
            node.mount_net_conf(net_conf).unwrap();
            install_conflist(node).unwrap();
        }
        let daemons = lab.nodes().iter();
        let daemons = daemons
            .map(|node| node.start_flanneld(&["--ip-masq"]).unwrap())
            .collect();
        let lab = Arc::new(lab);
        let cluster = Self {
            kubelets: Kubelets::start(&lab, tells),
            daemons,
            lab,
            files: tempfile::tempdir().unwrap(),
        };
        cluster.write_files();
        cluster
    }

    /// Starts all daemons anew, under somebody who looks after them.
    fn have_daemons_kept(&mut self) {
        for (daemon, node) in self.daemons.iter_mut().zip(self.lab.nodes()) {
            daemon.stop(LIMIT).unwrap();
            *daemon = start_kept(node);
        }
    }

    /// The kubeconfig, and the program without what a debugger needs, because it is carried into every pod.
    fn write_files(&self) {
        let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": kube_url()}}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "me"}}]});
        fs::write(self.files.path().join("kubeconfig"), config.to_string()).unwrap();
        let mut strip = Command::new("strip");
        strip.arg("-o").arg(self.files.path().join("conformance"));
        let stripped = strip.arg(program().get_program()).status().unwrap();
        assert!(stripped.success());
    }

    fn program(&self) -> Command {
        Command::new(self.files.path().join("conformance"))
    }

    fn kubeconfig(&self) -> String {
        format!("--kubeconfig={}", self.files.path().join("kubeconfig").display())
    }

    /// The judge, on the network of the API.
    pub(crate) fn judge(&self, more: &[&str]) -> Run {
        let kubeconfig = self.kubeconfig();
        let arguments = [&[kubeconfig.as_str()], more].concat();
        let net = self.lab.namespaces().net_only().unwrap();
        net.run(|| Ok(judge(self.program(), &arguments))).unwrap()
    }

    /// What a run says that could not be ended.
    fn refused(&self, more: &[&str]) -> String {
        self.said(more, 1)
    }

    /// What a run says that gives no report, and ends with this status.
    fn said(&self, more: &[&str], status: i32) -> String {
        let mut command = self.program();
        command.arg("nodes").arg(self.kubeconfig()).args(more);
        let net = self.lab.namespaces().net_only().unwrap();
        let output = net.run(|| Ok(command.output()?)).unwrap();
        assert_eq!(output.status.code(), Some(status));
        String::from_utf8(output.stderr).unwrap()
    }

    /// Starts a run in the background, and waits until it has an agent on every node.
    pub(crate) fn start_run(&self, only: &str) -> Process {
        let mut command = self.program();
        command
            .arg("nodes")
            .arg(self.kubeconfig())
            .args(["--pods=1", "--only", only]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.files.path().join("said")).unwrap());
        let net = self.lab.namespaces().net_only().unwrap();
        let mut run = Process::new(net.spawn(command).unwrap());
        wait_until("agents on the nodes", LIMIT, || {
            assert_eq!(run.ended()?, None, "the run ended too early");
            let agents = |node: &Node| fs::read_dir(node.file("/tmp")).unwrap().count();
            Ok(self.lab.nodes().iter().all(|node| agents(node) > 0))
        })
        .unwrap();
        run
    }

    pub(crate) fn get(&self, path: &str) -> Value {
        self.lab.ask_api("GET", path, &Value::Null).unwrap()
    }

    /// The pods of the API, what is on the nodes, and what kubelets could not do.
    pub(crate) fn left(&self) -> Vec<String> {
        let mut left = self.kubelets.errors();
        left.extend(self.lab.nodes().iter().flat_map(left_on));
        let pods = self.get("/api/v1/pods");
        left.extend(pods["items"].as_array().unwrap().iter().map(Value::to_string));
        left.extend(self.newcomers());
        left.extend(self.namespaces());
        left
    }

    /// The namespaces that a run has made.
    fn namespaces(&self) -> Vec<String> {
        self.names("/api/v1/namespaces")
    }

    /// The Nodes that are not the lab's.
    pub(crate) fn newcomers(&self) -> Vec<String> {
        let mut names = self.names("/api/v1/nodes");
        names.retain(|name| self.lab.nodes().iter().all(|node| node.name() != *name));
        names
    }

    /// The names in a list of the API.
    fn names(&self, path: &str) -> Vec<String> {
        let list = self.get(path);
        let items = list["items"].as_array().unwrap().iter();
        items
            .map(|one| one["metadata"]["name"].as_str().unwrap().to_owned())
            .collect()
    }
}

fn ids(report: &Value, outcome: &str, family: &str) -> BTreeSet<String> {
    let cases = outcomes(report, outcome).into_iter();
    let of_family = cases.filter(|case| case.contains(&format!(" {family} ")));
    of_family
        .map(|case| case.split(' ').next().unwrap().to_owned())
        .collect()
}

#[test]
fn a_cluster_is_judged_by_its_api_alone_and_nothing_is_left_in_it() {
    let mut cluster = Cluster::start(3, DUAL, truth);
    cluster.have_daemons_kept();
    let run = cluster.judge(&["--disruptive", RESTART_KEPT]);
    assert!(run.good, "{}\n{}", run.table, told(&run.report));
    assert!(
        run.table.contains("3 nodes of lab, 2 pods on each node"),
        "{}",
        run.table
    );
    // Pods may not set what their interface takes in one piece, and no part may be away by which agents are reached.
    for family in ["IPv4", "IPv6"] {
        let skipped = outcomes(&run.report, "skipped");
        assert_eq!(
            ids(&run.report, "skipped", family),
            ["FOV-01", "FOV-02", "FOV-03", "MTU-04"].map(str::to_owned).into(),
            "{skipped:?}"
        );
        let passed = ids(&run.report, "passed", family);
        for id in [
            "NET-02", "NET-03", "HPT-01", "HPT-02", "TAB-04", "KUB-01", "KUB-02", "KUB-03", "KUB-04",
            "KUB-05", "RST-01", "RPR-06",
        ] {
            assert!(passed.contains(id), "{id}: {}", run.table);
        }
    }
    assert_eq!(run.report["pods"].as_array().unwrap().len(), 6);
    assert_eq!(cluster.left(), Vec::<String>::new());
}

#[test]
fn a_cluster_whose_policy_forbids_privileged_pods_is_judged_from_its_pods() {
    let cluster = Cluster::start(2, V4, truth);
    let run = cluster.judge(&["--unprivileged", "--pods=1"]);
    assert!(run.good, "{}\n{}", run.table, told(&run.report));
    let passed = ids(&run.report, "passed", "IPv4");
    assert_eq!(
        passed,
        [
            "CON-01", "KUB-01", "KUB-02", "KUB-04", "MTU-01", "MTU-04", "NET-01", "NET-03", "NET-04"
        ]
        .map(str::to_owned)
        .into()
    );
    assert!(
        told_skipped(&run.report)
            .iter()
            .any(|why| why.contains("--unprivileged"))
    );
    assert_eq!(cluster.left(), Vec::<String>::new());
    // Who is left out of the judged is told.
    let is_not_ready = json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}});
    cluster.lab.patch_kube_node("node2", &is_not_ready).unwrap();
    let run = cluster.judge(&["--pods=1", "--only=NET-03,TAB-02"]);
    assert!(
        run.table.contains("1 of 2 nodes of lab") && run.good,
        "{}",
        run.table
    );
}

pub(crate) fn told_skipped(report: &Value) -> Vec<String> {
    let cases = report["cases"].as_array().unwrap().iter();
    cases
        .filter_map(|case| Some(case["reason"].as_str()?.to_owned()))
        .collect()
}

/// The daemons do not run while they are told otherwise, or they would mend it.
#[test]
fn what_is_wrong_with_a_cluster_is_noticed() {
    let lies = |pod: &str, addresses: Vec<IpAddr>| match pod {
        "pod-2-1" => vec!["10.244.2.77".parse().unwrap()],
        _ => addresses,
    };
    let mut cluster = Cluster::start(2, V4, lies);
    for daemon in &mut cluster.daemons {
        daemon.stop(LIMIT).unwrap();
    }
    let failed = |only: &str| {
        let run = cluster.judge(&["--pods=1", "--only", only]);
        assert!(!run.good, "{}", run.table);
        ids(&run.report, "failed", "IPv4").into_iter().collect::<Vec<_>>()
    };
    // Others reach a pod where it is said to be, and it knows better.
    assert_eq!(failed("NET-03,KUB"), ["KUB-02", "KUB-05", "NET-03"]);
    let patch = |patch: Value| cluster.lab.patch_kube_node("node1", &patch).unwrap();
    patch(json!({"spec": {"podCIDR": "10.244.9.0/24"}}));
    assert_eq!(failed("KUB-01"), ["KUB-01"]);
    let (first, last) = (&cluster.lab.nodes()[0], &cluster.lab.nodes()[1]);
    let is_at = |address: &str| {
        patch(json!({"metadata": {"annotations": {"flannel.alpha.coreos.com/public-ip": address}}}));
    };
    is_at(&last.address().to_string());
    assert_eq!(failed("KUB-03"), ["KUB-03"]);
    // A router's, for all that is known.
    is_at("192.0.2.7");
    let run = cluster.judge(&["--pods=1", "--only=KUB-03"]);
    let report = run.report.to_string();
    assert!(run.good && report.contains("192.0.2.7 is no node's"), "{report}");
    patch(
        json!({"status": {"conditions": [{"type": "NetworkUnavailable", "status": "True", "reason": "NoRouteCreated"}]}}),
    );
    assert_eq!(failed("KUB-04"), ["KUB-04"]);
    let (mac, outer) = (last.vtep_mac().unwrap(), last.address().to_string());
    let deleted = first.exec(&[
        "bridge", "fdb", "delete", &mac, "dev", TUNNEL, "dst", &outer, "self",
    ]);
    assert!(deleted.unwrap().status.success());
    assert_eq!(failed("NET-02,TAB-03,TAB-04"), ["NET-02", "TAB-04"]);
    assert_eq!(cluster.left(), Vec::<String>::new());
}

#[test]
fn a_run_that_is_ended_leaves_nothing_in_the_cluster() {
    let cluster = Cluster::start(2, V4, truth);
    let mut run = cluster.start_run("NET,TAB");
    run.signal(Signal::SIGTERM).unwrap();
    let (_, status) = run.wait(LIMIT).unwrap();
    assert_eq!(status.code(), Some(1));
    let said = fs::read_to_string(cluster.files.path().join("said")).unwrap();
    assert!(said.contains("SIGTERM ended the run"), "{said}");
    assert_eq!(cluster.left(), Vec::<String>::new());

    // Who is killed cannot remove anything: agents end by themselves, and the rest has a label.
    let run = cluster.start_run("NET,TAB");
    drop(run);
    let on_nodes = || -> Vec<_> {
        let nodes = cluster.lab.nodes().iter();
        nodes
            .flat_map(|node| fs::read_dir(node.file("/tmp")).unwrap())
            .collect()
    };
    wait_until("the agents' end", LIMIT, || Ok(on_nodes().is_empty())).unwrap();
    assert!(!pod_links(&cluster.lab.nodes()[0]).is_empty());
    let [namespace] = &cluster.namespaces()[..] else {
        panic!("{:?}", cluster.namespaces());
    };
    let object = cluster.get(&format!("/api/v1/namespaces/{namespace}"));
    let label = "app.kubernetes.io/managed-by";
    assert_eq!(object["metadata"]["labels"][label], "flannel-conformance");
    let path = format!("/api/v1/namespaces/{namespace}");
    cluster.lab.ask_api("DELETE", &path, &Value::Null).unwrap();
    wait_until("the namespace's end", LIMIT, || {
        Ok(cluster.namespaces().is_empty())
    })
    .unwrap();
    assert_eq!(cluster.left(), Vec::<String>::new());
}

#[test]
fn an_api_that_fails_for_a_moment_does_not_end_a_run_nor_its_removal() {
    let cluster = Cluster::start(1, V4, truth);
    for at in [
        "GET /api/v1/namespaces/flannel",
        "DELETE /api/v1/namespaces/flannel",
    ] {
        let fault = json!({"at": at, "trouble": {"refuse": {"code": 503}}, "times": 2});
        cluster.lab.order_api("fault", &fault).unwrap();
    }
    let run = cluster.judge(&["--pods=1", "--only=NET-01"]);
    assert!(run.good, "{}", run.table);
    assert_eq!(cluster.left(), Vec::<String>::new());
}

#[test]
fn what_keeps_a_cluster_from_being_judged_is_told() {
    let cluster = Cluster::start(1, V4, truth);
    let said = cluster.refused(&["--image=missing:1", "--ready-secs=5"]);
    for words in [
        "the pod pod-1-2 on node1 is not ready",
        "ErrImagePull",
        "Failed to pull image \"missing:1\"",
    ] {
        assert!(said.contains(words), "{said}");
    }
    let forbid = |at: &str| {
        let fault = json!({"at": at, "trouble": {"refuse": {"code": 403}}});
        cluster.lab.order_api("fault", &fault).unwrap();
    };
    forbid("/exec?");
    let said = cluster.refused(&[]);
    assert!(
        said.contains("running a command in the pod node-1") && said.contains("the rights that it takes"),
        "{said}"
    );
    assert_eq!(cluster.left(), Vec::<String>::new());
    forbid("POST /api/v1/namespaces");
    let said = cluster.refused(&[]);
    assert!(
        said.contains("POST /api/v1/namespaces") && said.contains("the rights that it takes"),
        "{said}"
    );
    cluster.lab.order_api("faults/clear", &Value::Null).unwrap();
    cluster
        .lab
        .patch_kube_node("node1", &json!({"spec": {"unschedulable": true}}))
        .unwrap();
    let said = cluster.refused(&[]);
    assert!(
        said.contains("none of lab's 1 nodes runs Linux, is ready and takes pods"),
        "{said}"
    );
    assert!(cluster.said(&["--context=other"], 2).contains("other"));
    // Nobody serves there.
    let file = cluster.files.path().join("kubeconfig");
    let text = fs::read_to_string(&file).unwrap().replace(":6443", ":1");
    fs::write(&file, text).unwrap();
    let said = cluster.refused(&[]);
    assert!(
        said.contains("asking the Kubernetes API") && said.contains("refused"),
        "{said}"
    );
    fs::write(&file, "{").unwrap();
    assert!(cluster.said(&[], 2).contains("reading the kubeconfig"));
}
