//! A node with pods behind a bridge and a client outside, real servers in the pods, and calls of portmap.
#![allow(dead_code, reason = "each test file uses its part")]

use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use crate::common::{Call, Node, Pod, ip, printed};

/// How long a connection that should come about may take, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a connection is waited for that should not come about.
const IMPATIENCE: Duration = Duration::from_millis(400);

pub(crate) const NODE_V4: &str = "192.168.50.1";
pub(crate) const NODE_V6: &str = "fd99::1";
pub(crate) const CLIENT_V4: &str = "192.168.50.2";
pub(crate) const CLIENT_V6: &str = "fd99::2";

/// A machine beside the node.
pub(crate) fn client() -> Pod {
    let client = Pod::new("client");
    let netns = &client.netns;
    ip(&[
        "link", "add", "out0", "type", "veth", "peer", "name", "eth0", "netns", netns,
    ]);
    for (address, prefix) in [(NODE_V4, 24), (NODE_V6, 64)] {
        ip(&[
            "addr",
            "add",
            &format!("{address}/{prefix}"),
            "dev",
            "out0",
            "nodad",
        ]);
    }
    ip(&["addr", "add", "192.168.50.9/24", "dev", "out0"]);
    ip(&["link", "set", "out0", "up"]);
    client.sh(&format!(
        "ip addr add {CLIENT_V4}/24 dev eth0; ip addr add {CLIENT_V6}/64 dev eth0 nodad; ip link set eth0 up"
    ));
    client
}

impl Node {
    /// A pod attached by flannel, with the result of that.
    pub(crate) fn attached(&self, id: &str) -> (Pod, Value) {
        self.write_subnet_env(
            "FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.7.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\n\
             FLANNEL_IPV6_SUBNET=fd00:10:244:7::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n",
        );
        let pod = Pod::new(id);
        let result = self.add(&pod);
        (pod, result)
    }

    /// portmap's configuration after flannel's result, with these ports.
    pub(crate) fn ports_conf(&self, result: &Value, mappings: &[Value]) -> Value {
        json!({
            "cniVersion": "1.0.0", "name": "cbr0", "type": "portmap",
            "dataDir": self.path("portmap"),
            "prevResult": result,
            "runtimeConfig": {"portMappings": mappings},
        })
    }

    /// The stored attachments.
    pub(crate) fn stored_ports(&self) -> Vec<String> {
        let mut names = crate::common::names_in(&self.path("portmap"));
        names.retain(|name| name != "lock");
        names
    }
}

/// A call as a runtime makes it.
pub(crate) fn call(node: &Node, verb: &str, pod: &Pod, conf: &Value) -> Call {
    node.call(verb, pod, conf)
}

pub(crate) fn mapping(host_port: u16, container_port: u16, protocol: &str) -> Value {
    json!({"hostPort": host_port, "containerPort": container_port, "protocol": protocol})
}

/// Runs a closure in a namespace.
pub(crate) fn inside<T: Send + 'static>(netns: &str, work: impl FnOnce() -> T + Send + 'static) -> T {
    let file = File::open(netns).unwrap();
    let thread = std::thread::spawn(move || {
        setns(file, CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    match thread.join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// A server in a pod that tells everyone who connects which address they come from; it ends with this value.
pub(crate) struct Server {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn tcp(pod: &Pod, port: u16) -> Self {
        let listener = inside(&pod.netns, move || TcpListener::bind(("::", port)).unwrap());
        listener.set_nonblocking(true).unwrap();
        Self::start(move || {
            if let Ok((mut stream, peer)) = listener.accept() {
                // Who is gone need not be told.
                stream.write_all(peer_text(peer).as_bytes()).ok();
            }
        })
    }

    pub(crate) fn udp(pod: &Pod, port: u16) -> Self {
        let socket = inside(&pod.netns, move || UdpSocket::bind(("::", port)).unwrap());
        socket.set_nonblocking(true).unwrap();
        Self::start(move || {
            let mut buffer = [0; 64];
            if let Ok((_, peer)) = socket.recv_from(&mut buffer) {
                socket.send_to(peer_text(peer).as_bytes(), peer).ok();
            }
        })
    }

    fn start(mut step: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                step();
                sleep(Duration::from_millis(2));
            }
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn peer_text(peer: SocketAddr) -> String {
    peer.ip().to_canonical().to_string()
}

/// Connects from the calling thread's namespace; `None` if nobody answers in time, else whom the server saw.
fn tcp_once(to: SocketAddr, within: Duration) -> Option<String> {
    let mut stream = TcpStream::connect_timeout(&to, within).ok()?;
    stream.set_read_timeout(Some(within)).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

fn udp_once(socket: &UdpSocket, to: SocketAddr, within: Duration) -> Option<String> {
    socket.set_read_timeout(Some(within)).unwrap();
    socket.send_to(b"?", to).ok()?;
    let mut buffer = [0; 64];
    let (len, _) = socket.recv_from(&mut buffer).ok()?;
    Some(String::from_utf8(buffer[..len].to_vec()).unwrap())
}

fn address(to: &str, port: u16) -> SocketAddr {
    SocketAddr::new(to.parse::<IpAddr>().unwrap(), port)
}

/// Whom a pod's TCP server sees when this namespace connects to an address; waits until it answers.
pub(crate) fn tcp(netns: &str, to: &str, port: u16) -> String {
    let to = address(to, port);
    inside(netns, move || {
        wait_for(|| tcp_once(to, Duration::from_secs(2)), to)
    })
}

/// As [`tcp`] with UDP.
pub(crate) fn udp(netns: &str, to: &str, port: u16) -> String {
    let to = address(to, port);
    inside(netns, move || {
        let socket = UdpSocket::bind((if to.is_ipv4() { "0.0.0.0" } else { "::" }, 0)).unwrap();
        wait_for(|| udp_once(&socket, to, Duration::from_millis(500)), to)
    })
}

fn wait_for(mut attempt: impl FnMut() -> Option<String>, to: SocketAddr) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = attempt() {
            return answer;
        }
        assert!(Instant::now() < deadline, "{to} does not answer");
        sleep(Duration::from_millis(20));
    }
}

/// Whether nobody answers at an address.
pub(crate) fn is_refused(netns: &str, to: &str, port: u16) -> bool {
    let to = address(to, port);
    inside(netns, move || tcp_once(to, IMPATIENCE).is_none())
}

/// The path of the calling thread's namespace.
pub(crate) fn own_netns() -> String {
    let own = std::fs::read_link("/proc/thread-self").unwrap();
    format!("/proc/{}/ns/net", own.display())
}

pub(crate) fn ruleset() -> String {
    printed(Command::new("nft").args(["list", "ruleset"]))
}

/// The rules that iptables prints of its table `nat`.
pub(crate) fn iptables_rules(program: &str) -> Vec<String> {
    let text = printed(Command::new(format!("{program}-save")).args(["-t", "nat"]));
    let rules = text.lines().filter(|line| line.starts_with("-A"));
    rules.map(str::to_owned).collect()
}

/// The rules of containers that either back end holds.
pub(crate) fn containers_rules() -> Vec<String> {
    let text = ruleset();
    let in_nftables = text
        .lines()
        .filter(|line| line.contains("dnat to") && line.contains("comment"));
    let mut rules: Vec<_> = in_nftables.map(|line| line.trim().to_owned()).collect();
    for program in [
        "iptables-nft",
        "ip6tables-nft",
        "iptables-legacy",
        "ip6tables-legacy",
    ] {
        rules.extend(
            iptables_rules(program)
                .into_iter()
                .filter(|rule| rule.contains("CNI-DN-")),
        );
    }
    rules
}

/// The reference's plugin (Debian's containernetworking-plugins).
pub(crate) fn reference() -> PathBuf {
    let path = PathBuf::from("/usr/lib/cni/portmap");
    assert!(path.exists(), "install containernetworking-plugins");
    path
}
