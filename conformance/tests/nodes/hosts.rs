//! Hosts over SSH: nodes of a lab on which a real sshd runs, judged from outside as anybody's hosts are.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use conformance::lab::runtime::write_conflist;
use conformance::lab::{Binaries, Flanneld, Lab, LabConfig, Node, Process, wait_until};
use serde_json::json;
use tempfile::TempDir;

use crate::support::{RESTART_KEPT, RUNS, judge, left_on, outcomes, pod_links, program, start_kept, told};

/// Of Debian's package openssh-server.
const SSHD: &str = "/usr/sbin/sshd";
const LIMIT: Duration = Duration::from_secs(60);

/// Debian's containernetworking-plugins.
const REFERENCE: &str = "/usr/lib/cni";

/// A lab whose nodes are reached by SSH, with the client's configuration.
struct Hosts {
    // Fields are dropped in this order: what runs on nodes is reaped before the lab waits for its processes to end.
    _servers: Vec<Process>,
    daemons: Vec<Flanneld>,
    lab: Lab,
    files: TempDir,
}

impl Hosts {
    /// Hosts with this project's plugins, and its daemon under somebody who looks after it.
    fn start(nodes: u8) -> Self {
        let mut hosts = Self::bare(nodes);
        let conf = r#"{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;
        fs::write(hosts.lab.shared_file("leases/config"), conf).unwrap();
        hosts.daemons = hosts.lab.nodes().iter().map(start_kept).collect();
        hosts
    }

    /// Hosts on which nothing runs but sshd.
    fn bare(nodes: u8) -> Self {
        assert!(Path::new(SSHD).exists(), "install openssh-server");
        let files = tempfile::tempdir().unwrap();
        for key in ["host", "user"] {
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-t", "ed25519", "-N", "", "-f"]);
            assert!(keygen.arg(files.path().join(key)).status().unwrap().success());
        }
        let lab = Lab::new(&LabConfig {
            nodes,
            binaries: Binaries::find().unwrap(),
        })
        .unwrap();
        let servers = lab.nodes().iter().map(|node| serve(node, files.path())).collect();
        let hosts = Self {
            _servers: servers,
            daemons: Vec::new(),
            lab,
            files,
        };
        hosts.write_client_configuration();
        hosts
    }

    fn write_client_configuration(&self) {
        let host_key = fs::read_to_string(self.files.path().join("host.pub")).unwrap();
        let mut known = String::new();
        for node in self.lab.nodes() {
            known.push_str(&format!("{} {host_key}", node.address()));
        }
        let file = |name: &str| self.files.path().join(name);
        fs::write(file("known_hosts"), known).unwrap();
        let text = format!(
            "User root\nIdentityFile {}\nIdentitiesOnly yes\nUserKnownHostsFile {}\nGlobalKnownHostsFile none\n",
            file("user").display(),
            file("known_hosts").display()
        );
        fs::write(file("config"), text).unwrap();
    }

    /// The arguments that every run needs.
    fn arguments(&self) -> Vec<String> {
        let addresses = self.lab.nodes().iter().map(|node| node.address().to_string());
        let config = self.files.path().join("config");
        vec![
            format!("--hosts={}", addresses.collect::<Vec<_>>().join(",")),
            format!("--ssh-config={}", config.display()),
        ]
    }

    /// The judge, on the hosts' network. The lab's namespace has the hosts' underlay; its files are this machine's.
    fn judge(&self, more: &[&str]) -> crate::support::Run {
        let own = self.arguments();
        let arguments: Vec<_> = own
            .iter()
            .map(String::as_str)
            .chain(more.iter().copied())
            .collect();
        let net = self.lab.namespaces().net_only().unwrap();
        net.run(|| Ok(judge(program(), &arguments))).unwrap()
    }

    /// How a run takes daemons and leases away: the directory of these is moved to where no daemon looks for it. What moves it
    /// says so first, on both outputs, whoever reads that.
    fn absence(&self) -> [String; 4] {
        let (leases, away) = (self.lab.shared_file("leases"), self.lab.shared_file("away"));
        let moved = |name: &str, from: &Path, to: &Path| {
            let script = self.files.path().join(name);
            let line = format!(
                "echo {name}\necho {name} >&2\nmv {} {}\n",
                from.display(),
                to.display()
            );
            fs::write(&script, line).unwrap();
            format!("--{name}=sh {}", script.display())
        };
        [
            "--stop=sh /run/stop".to_owned(),
            "--start=sh /run/start".to_owned(),
            moved("stop-store", &leases, &away),
            moved("start-store", &away, &leases),
        ]
    }

    /// Starts a run of which nobody reads the report.
    fn start_run(&self, more: &[&str]) -> Process {
        let mut command = program();
        command.arg("nodes").args(self.arguments()).args(more);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let net = self.lab.namespaces().net_only().unwrap();
        Process::new(net.spawn(command).unwrap())
    }

    /// What a run may have left on the hosts, in words.
    fn left(&self) -> Vec<String> {
        self.lab.nodes().iter().flat_map(left_on).collect()
    }
}

/// Runs sshd on a node, for the key that the test made.
fn serve(node: &Node, files: &Path) -> Process {
    let put = |name: &str, text: &str, mode: u32| {
        let path = node.file("/run/sshd").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let read = |name: &str| fs::read_to_string(files.join(name)).unwrap();
    fs::create_dir_all(node.file("/run/sshd")).unwrap();
    put("host", &read("host"), 0o600);
    put("keys", &read("user.pub"), 0o600);
    let conf = format!(
        "ListenAddress {}\nHostKey /run/sshd/host\nAuthorizedKeysFile /run/sshd/keys\nPermitRootLogin prohibit-password\n\
         PasswordAuthentication no\nUsePAM no\nStrictModes no\nPidFile none\nLogLevel ERROR\n",
        node.address()
    );
    put("conf", &conf, 0o600);
    let server = node
        .spawn(&[SSHD, "-D", "-e", "-f", "/run/sshd/conf"], "sshd")
        .unwrap();
    wait_until("sshd to listen", LIMIT, || {
        let listening = node.exec(&["ss", "-Hltn", "sport", "=", ":22"])?;
        Ok(!listening.stdout.is_empty())
    })
    .unwrap();
    server
}

#[test]
fn hosts_are_judged_over_ssh_and_nothing_is_left_on_them() {
    let hosts = Hosts::start(3);
    let commands = hosts.absence();
    let mut arguments = vec!["--only=NET,MTU-01,TAB,RST,RPR,FOV", "--disruptive", RESTART_KEPT];
    arguments.extend(commands.iter().map(String::as_str));
    let run = hosts.judge(&arguments);
    assert!(run.good, "{}\n{}", run.table, told(&run.report));
    let passed = outcomes(&run.report, "passed");
    for id in [
        "NET-01", "TAB-04", "RST-01", "RPR-04", "RPR-06", "FOV-01", "FOV-03",
    ] {
        let case = format!("{id} IPv4");
        assert!(
            passed.iter().any(|passed| passed.starts_with(&case)),
            "{}",
            run.table
        );
    }
    assert!(
        run.table.contains("10.244.") && run.table.contains("3 hosts, 2 pods on each node"),
        "{}",
        run.table
    );
    assert_eq!(hosts.left(), Vec::<String>::new());
}

#[test]
fn a_restart_that_restarts_nothing_fails_and_that_of_a_daemon_which_is_not_seen_is_skipped() {
    let hosts = Hosts::start(2);
    let judge = || hosts.judge(&["--only=RST", "--disruptive", "--pods=1", "--restart=true"]);
    let run = judge();
    assert!(!run.good, "{}", run.table);
    assert_eq!(outcomes(&run.report, "failed").len(), 1, "{}", run.table);
    assert!(run.table.contains("it still runs: process "), "{}", run.table);
    for node in hosts.lab.nodes() {
        // Who looks after the daemon reads the second word when it has ended.
        for _ in 0..2 {
            assert!(node.exec(&["sh", "/run/stop"]).unwrap().status.success());
        }
    }
    let run = judge();
    assert!(
        run.good && run.report.to_string().contains("no process flanneld is seen"),
        "{}",
        run.table
    );
}

#[test]
fn a_run_that_is_killed_leaves_nothing_on_the_hosts() {
    let hosts = Hosts::start(2);
    let mut runner = hosts.start_run(&["--pods=3"]);
    wait_until("pods on the hosts", LIMIT, || {
        assert_eq!(runner.ended()?, None, "the run ended too early");
        Ok(pod_links(&hosts.lab.nodes()[1]).len() >= 3)
    })
    .unwrap();
    drop(runner);
    wait_until("the hosts to be as before", LIMIT, || Ok(hosts.left().is_empty()))
        .unwrap_or_else(|error| panic!("{error}: {:?}", hosts.left()));
}

#[test]
fn what_a_killed_run_has_taken_away_comes_back() {
    let hosts = Hosts::start(2);
    let commands = hosts.absence();
    let parts = [
        ("--only=FOV-01", hosts.lab.shared_file("leases")),
        ("--only=FOV-03", hosts.lab.nodes()[0].file(RUNS)),
    ];
    for (only, part) in parts {
        let mut arguments = vec![only, "--disruptive", "--pods=1"];
        arguments.extend(commands.iter().map(String::as_str));
        let mut runner = hosts.start_run(&arguments);
        wait_until("a part to be away", LIMIT, || {
            assert_eq!(runner.ended()?, None, "the run ended too early");
            Ok(!part.exists())
        })
        .unwrap();
        drop(runner);
        wait_until("the part to be back", LIMIT, || Ok(part.exists())).unwrap();
        wait_until("the hosts to be as before", LIMIT, || Ok(hosts.left().is_empty())).unwrap();
    }
}

/// Whoever made the network, and by whatever means: here static routes, and the reference's bridge.
#[test]
fn a_network_that_is_not_ours_passes_by_what_it_does() {
    let hosts = Hosts::bare(2);
    for node in hosts.lab.nodes() {
        let subnet = |number: u8| format!("10.88.{number}.0/24");
        let list = json!({"name": "plain", "cniVersion": "1.0.0", "plugins": [
            {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "hairpinMode": true,
                "ipam": {"type": "host-local", "subnet": subnet(node.number())}},
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ]});
        write_conflist(node, &list).unwrap();
        for peer in hosts
            .lab
            .nodes()
            .iter()
            .filter(|peer| peer.number() != node.number())
        {
            node.ip(&[
                "route",
                "add",
                &subnet(peer.number()),
                "via",
                &peer.address().to_string(),
            ])
            .unwrap();
        }
        let forwards = node
            .exec(&["sysctl", "-q", "-w", "net.ipv4.ip_forward=1"])
            .unwrap();
        assert!(forwards.status.success());
    }
    let reference = format!("--plugin-dir={REFERENCE}");
    let run = hosts.judge(&[&reference]);
    assert!(run.good, "{}\n{}", run.table, told(&run.report));
    let ended = |outcome: &str| {
        let cases = outcomes(&run.report, outcome).into_iter();
        let ids = cases.filter(|case| case.contains(" IPv4 "));
        ids.map(|case| case.split('-').next().unwrap().to_owned())
            .collect::<BTreeSet<_>>()
    };
    // TAB-06 asks nothing of Flannel.
    assert_eq!(
        ended("passed"),
        ["CON", "HPT", "MTU", "NET", "PTH", "TAB"]
            .map(str::to_owned)
            .into()
    );
    let skipped = ["FOV", "KUB", "RPR", "RST", "TAB"];
    assert_eq!(ended("skipped"), skipped.map(str::to_owned).into());
}

/// What was judged is told, whatever becomes of the pods afterwards.
#[test]
fn a_plugin_that_does_not_detach_fails_the_run_and_costs_no_report() {
    let hosts = Hosts::bare(1);
    let node = &hosts.lab.nodes()[0];
    let plugin = node.file("/run/plugins/clings");
    fs::create_dir_all(node.file("/run/plugins")).unwrap();
    let script = r#"#!/bin/sh
if [ "$CNI_COMMAND" = DEL ]; then echo '{"cniVersion":"1.0.0","code":100,"msg":"it clings"}'; exit 1; fi
echo '{"cniVersion":"1.0.0","ips":[{"address":"10.88.1.2/24"}]}'
"#;
    fs::write(&plugin, script).unwrap();
    fs::set_permissions(&plugin, fs::Permissions::from_mode(0o755)).unwrap();
    let list = json!({"name": "plain", "cniVersion": "1.0.0", "plugins": [{"type": "clings"}]});
    write_conflist(node, &list).unwrap();
    let mut command = program();
    command.arg("nodes").args(hosts.arguments());
    command.args(["--plugin-dir=/run/plugins", "--pods=1", "--only=TAB-06"]);
    let net = hosts.lab.namespaces().net_only().unwrap();
    let output = net.run(|| Ok(command.output()?)).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    let (table, said) = (text(output.stdout), text(output.stderr));
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("the agent did not end well") && said.contains("it clings"),
        "{said}"
    );
    assert!(table.contains("TAB-06"), "{table}");
}
