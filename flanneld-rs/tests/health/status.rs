use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::Value;

use super::node::{Node, on_a_node};

const HTTP: &str = "--healthz-port=8081";
const MANY: u16 = 2000;

#[test]
fn status_prints_the_node_and_each_peer_with_its_state() {
    on_a_node(|node| {
        node.configure();
        node.add_peer(2);
        node.add_peer(3);
        let own_address = r#"{"PublicIP":"192.168.77.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"02:00:00:00:00:09"}}"#;
        std::fs::write(
            node.file("leases/subnets/10.243.9.0-24"),
            own_address.replace("77.1", "77.9"),
        )
        .unwrap();
        node.start(&[HTTP]);
        node.wait_ready();

        let text = node.print(&["status"]);

        for part in [
            "ready     yes",
            "lease     10.244.",
            "store     in reach, 4 leases",
            "device    flannel.1 ok: VNI 1 port 8472 on eth0 (192.168.77.1), MTU 1450",
            "peers     3: 2 programmed, 0 pending, 0 failing, 1 refused",
            "10.244.0.32/28     192.168.0.2     02:00:00:00:00:02 tunnel programmed ok      ok      ok\n",
            "its subnet is outside the pod network",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let document: Value = serde_json::from_str(&node.print(&["status", "--json"])).unwrap();
        assert_eq!(document["status"]["ready"], true);
        assert_eq!(document["status"]["store"]["connected"], true);
        assert_eq!(document["peers"].as_array().unwrap().len(), 3);
        assert!(document["status"]["kernel"]["rounds"]["count"].as_u64() > Some(0));
        let one: Value =
            serde_json::from_str(&node.print(&["status", "--json", "--peer=192.168.0.3"])).unwrap();
        assert_eq!(one["peers"][0]["subnet"], "10.244.0.48/28");
        assert_eq!(one["peers"].as_array().unwrap().len(), 1);
    });
}

#[test]
fn thousands_of_peers_are_listed_in_short_and_in_full() {
    on_a_node(|node| {
        node.configure();
        for n in 2..MANY + 2 {
            node.add_peer(n);
        }
        node.start(&[HTTP]);
        node.wait_ready();
        let short = node.print(&["status"]);
        assert!(short.lines().count() < 40, "{short}");
        assert!(short.contains(&format!("and {} more", MANY - 20)), "{short}");
        let full: Value = serde_json::from_str(&node.print(&["status", "--json"])).unwrap();
        let peers = full["peers"].as_array().unwrap();
        assert_eq!(peers.len(), usize::from(MANY));
        assert!(peers.iter().all(|peer| peer["state"] == "programmed"));
    });
}

#[test]
fn status_tells_what_a_daemon_without_configuration_waits_for() {
    on_a_node(|node| {
        node.start(&[HTTP]);
        node.wait("the socket", || node.file("run/flanneld.sock").exists());
        node.wait("the first look", || !node.log().is_empty());
        let text = node.print(&["status"]);
        assert!(
            text.contains("ready     no: waiting for the network configuration"),
            "{text}"
        );
        assert!(text.contains("lease     none yet"), "{text}");
    });
}

#[test]
fn watch_prints_anew_until_nobody_reads() {
    on_a_node(|node| {
        node.configure();
        node.start(&[HTTP]);
        node.wait_ready();
        let mut watch = node
            .command(&["status", "--watch"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
        let ready = |line: std::io::Result<String>| line.unwrap().contains("ready     yes");
        assert!(lines.by_ref().any(ready), "the first print");
        assert!(lines.by_ref().any(ready), "the second print");
        drop(lines);
        assert!(!watch.wait().unwrap().success());
    });
}

#[test]
fn without_a_daemon_status_fails_with_a_sentence() {
    on_a_node(|node| {
        let output = node.run(&["status"]);
        assert_eq!(output.status.code(), Some(1));
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(text.starts_with("error: flanneld does not answer on "), "{text}");
        for args in [
            &["status", "--frobnicate"][..],
            &["status", "now"],
            &["--frobnicate"],
        ] {
            let output = node.run(args);
            assert_eq!(output.status.code(), Some(2), "{args:?}");
            let text = String::from_utf8(output.stderr).unwrap();
            assert!(text.contains("Usage:"), "{text}");
        }
        assert!(node.print(&["status", "--help"]).contains("--watch"));
    });
}

#[test]
fn the_socket_is_private_and_a_stale_one_is_replaced_but_not_one_that_answers() {
    on_a_node(|node| {
        node.configure();
        std::fs::create_dir(node.file("run")).unwrap();
        drop(std::os::unix::net::UnixListener::bind(node.file("run/flanneld.sock")).unwrap());
        node.start(&[HTTP]);
        node.wait_ready();
        let socket = node.file("run/flanneld.sock");
        let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut second = Node::beside(node);
        second.start(&[]);
        node.wait("the second daemon's word", || {
            second.log().contains("another flanneld answers on it")
        });
        drop(second);
        assert!(node.print(&["status"]).contains("ready     yes"));
        node.stop();
        assert!(!socket.exists(), "it goes with the daemon");
    });
}

#[test]
fn nonsense_on_the_socket_costs_nothing() {
    on_a_node(|node| {
        node.configure();
        node.start(&[HTTP]);
        node.wait_ready();
        let endless = "x".repeat(1 << 20);
        for bad in ["\n", "GET / HTTP/1.1\r\n\r\n", "{\"peer\":1}\n", "[]\n", &endless] {
            let mut stream = UnixStream::connect(node.file("run/flanneld.sock")).unwrap();
            let _closed = stream.write_all(bad.as_bytes());
            let mut answer = Vec::new();
            let _reset = stream.read_to_end(&mut answer);
            assert_eq!(answer.len(), 0, "{bad:.20}");
        }
        let idle: Vec<_> = (0..100)
            .map(|_| UnixStream::connect(node.file("run/flanneld.sock")))
            .collect();
        assert!(node.print(&["status"]).contains("ready     yes"));
        drop(idle);
    });
}
