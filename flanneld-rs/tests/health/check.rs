use std::fs;
use std::process::{Child, Command};

use serde_json::Value;

use super::node::{Node, ip, on_a_node};

const HTTP: &str = "--healthz-port=8081";

#[test]
fn a_good_node_has_no_errors_and_each_trouble_on_a_real_kernel_is_named() {
    on_a_node(|node| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        node.configure();
        node.add_peer(2);
        node.start(&[HTTP]);
        node.wait_ready();
        assert_eq!(errors(node), [""; 0]);

        ip("link set eth0 mtu 1400");
        ip("link add cni0 mtu 1500 type bridge");
        ip("addr add 10.99.0.1/24 dev cni0");
        ip("route add 10.244.77.0/24 via 192.168.77.9 dev eth0");
        ip("link add flannel.9 type vxlan id 9 dev eth0 dstport 9999");
        fs::write("/proc/sys/net/ipv4/ip_forward", "0").unwrap();
        nft("add table ip t");
        nft("add chain ip t in { type filter hook input priority 0 ; }");
        nft("add rule ip t in udp dport 8472 drop");

        assert_eq!(
            errors(node),
            [
                "bridge.subnet",
                "kernel.ip-forward",
                "mtu.underlay",
                "path.port-blocked"
            ]
        );
        let warnings = found(node, "warning");
        for id in ["leftover.device", "leftover.route", "mtu.bridge"] {
            assert!(
                warnings.iter().any(|found| found == id),
                "{id} is not in {warnings:?}"
            );
        }
        let output = node.run(&["check"]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(
            text.contains("ERROR    this host's firewall drops the tunnel's packets"),
            "{text}"
        );
        assert!(text.contains("udp dport 8472 drop"), "{text}");
    });
}

#[test]
fn check_works_without_a_daemon() {
    on_a_node(|node| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        assert_eq!(errors(node), ["host.no-node"]);
        assert!(found(node, "warning").iter().all(|id| id != "daemon.silent"));
        node.configure();
        node.add_peer(2);
        node.start(&[HTTP]);
        node.wait_ready();
        node.stop();
        assert_eq!(errors(node), [""; 0]);
        assert!(found(node, "warning").iter().any(|id| id == "daemon.silent"));
        ip("neigh del 10.244.0.32 dev flannel.1");
        assert!(
            found(node, "warning")
                .iter()
                .any(|id| id == "leftover.incomplete-peer")
        );
        fs::write(node.file("run/subnet.env"), "FLANNEL_MTU=x\n").unwrap();
        assert_eq!(errors(node), ["subnet-file.unreadable"]);
        // Who names a directory is not told to remove it.
        fs::remove_file(node.file("run/subnet.env")).unwrap();
        fs::create_dir(node.file("run/subnet.env")).unwrap();
        let said = node.run(&["check"]);
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(
            said.contains("is not a regular file") && said.contains("-> name flanneld's subnet file with"),
            "{said}"
        );
        assert_eq!(node.run(&["check", "--frobnicate"]).status.code(), Some(2));
    });
}

fn errors(node: &Node) -> Vec<String> {
    found(node, "error")
}

/// The findings of one severity, in the order of their names.
fn found(node: &Node, severity: &str) -> Vec<String> {
    let output = node.run(&["check", "--json", "--probes=0"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = document["findings"].as_array().unwrap();
    let mut ids: Vec<_> = findings
        .iter()
        .filter(|finding| finding["severity"] == severity)
        .map(|finding| finding["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

fn nft(command: &str) {
    let output = Command::new("nft").arg(command).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A second host, whose end of the tunnel is made by hand.
struct Neighbour(Child);

impl Neighbour {
    fn start(node: &Node) -> Self {
        let status: Value = serde_json::from_str(&node.print(&["status", "--json"])).unwrap();
        let mac = status["status"]["device"]["mac"].as_str().unwrap().to_owned();
        let subnet = status["status"]["lease"]["subnet"].as_str().unwrap().to_owned();
        let vtep = subnet.split('/').next().unwrap();
        let holder = Command::new("unshare")
            .args(["--net", "sleep", "300"])
            .spawn()
            .unwrap();
        let neighbour = Self(holder);
        let own = fs::read_link("/proc/thread-self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", neighbour.0.id());
        node.wait("the neighbour's namespace", || {
            fs::read_link(&theirs).unwrap() != own
        });
        ip(&format!("link set wire netns {}", neighbour.0.id()));
        for command in [
            "ip link set lo up",
            "ip link set wire up",
            "ip addr add 192.168.77.254/24 dev wire",
            "ip addr add 192.168.0.2/32 dev wire",
            "ip link add flannel.1 address 02:00:00:00:00:02 type vxlan id 1 local 192.168.0.2 dev wire dstport 8472 nolearning",
            "ip addr add 10.244.0.32/32 dev flannel.1",
            "ip link set flannel.1 up",
            &format!("ip neigh add {vtep} lladdr {mac} dev flannel.1 nud permanent"),
            &format!("bridge fdb add {mac} dev flannel.1 dst 192.168.77.1 self permanent"),
            &format!("ip route add {vtep}/32 dev flannel.1"),
        ] {
            neighbour.run(command);
        }
        neighbour
    }

    fn run(&self, command: &str) {
        let output = Command::new("nsenter")
            .args(["--net", "--target", &self.0.id().to_string()])
            .args(command.split(' '))
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "{command}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn peers_are_asked_directly_and_through_the_tunnel() {
    on_a_node(|node| {
        fs::write("/proc/sys/net/ipv4/ip_forward", "1").unwrap();
        node.configure();
        node.add_peer(2);
        node.start(&[HTTP]);
        node.wait_ready();
        let neighbour = Neighbour::start(node);
        assert_eq!(path_findings(node), [""; 0]);
        neighbour.run("nft add table ip t");
        neighbour.run("nft add chain ip t in { type filter hook input priority 0 ; }");
        neighbour.run("nft add rule ip t in udp dport 8472 drop");
        assert_eq!(path_findings(node), ["path.tunnel-silent"]);
        neighbour.run("ip link set wire down");
        assert_eq!(path_findings(node), ["path.peer-silent"]);
    });
}

fn path_findings(node: &Node) -> Vec<String> {
    let output = node.run(&["check", "--json", "--probes=1"]);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = document["findings"].as_array().unwrap().iter();
    let ids = findings.map(|finding| finding["id"].as_str().unwrap().to_owned());
    ids.filter(|id| id.starts_with("path.")).collect()
}
