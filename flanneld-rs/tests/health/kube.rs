//! A daemon whose leases are on Kubernetes' Node objects.

use std::fs;
use std::net::SocketAddr;
use std::sync::Arc;

use fake_apiserver::{Cluster, NodeShape, Server, Transport};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

use super::node::{NET_CONF, Node, ip, on_a_node};

const OWN: &str = "own";
const PREFIX: &str = "flannel.alpha.coreos.com";

#[test]
fn a_node_announces_itself_on_its_node_object_and_follows_the_others() {
    on_a_node(|node| {
        let api = Api::start();
        api.cluster.put_node(&NodeShape::bare(OWN, &["10.244.0.0/24"]));
        api.cluster
            .put_node(&peer("n2", "10.244.2.0/24", "192.168.77.12", 2));
        start(node, &api);
        node.wait_ready();

        let annotation = |suffix: &str| {
            api.cluster
                .annotation(OWN, &format!("{PREFIX}/{suffix}"))
                .unwrap()
        };
        assert_eq!(annotation("kube-subnet-manager"), "true");
        assert_eq!(annotation("backend-type"), "vxlan");
        assert_eq!(annotation("public-ip"), "192.168.77.1");
        assert_eq!(
            annotation("backend-data"),
            format!(r#"{{"VNI":1,"VtepMAC":"{}"}}"#, own_mac())
        );
        node.wait("the condition", || network_is_available(&api.cluster));
        let status = node.print(&["status"]);
        assert!(
            status.contains("\nnote      NETWORK POLICIES ARE NOT ENFORCED"),
            "{status}"
        );
        let env = fs::read_to_string(node.file("run/subnet.env")).unwrap();
        assert!(env.contains("FLANNEL_SUBNET=10.244.0.1/24\n"), "{env}");
        node.wait("the peer's route", || has_route("10.244.2.0"));

        api.cluster
            .put_node(&peer("n3", "10.244.3.0/24", "192.168.77.13", 3));
        node.wait("the new peer's route", || has_route("10.244.3.0"));
        assert!(ip("neigh show dev flannel.1").contains("10.244.3.0 lladdr 02:00:00:00:00:03 PERMANENT"));
        assert!(api.cluster.remove_node("n2"));
        node.wait("the end of the lost peer's route", || !has_route("10.244.2.0"));
        assert!(has_route("10.244.3.0"));
    });
}

#[test]
fn a_node_starts_without_the_api_from_what_it_knew_and_corrects_itself_later() {
    on_a_node(|node| {
        let api = Api::start();
        api.cluster.put_node(&NodeShape::bare(OWN, &["10.244.0.0/24"]));
        for (name, subnet, n) in [("n2", "10.244.2.0/24", 2), ("n3", "10.244.3.0/24", 3)] {
            api.cluster
                .put_node(&peer(name, subnet, &format!("192.168.77.1{n}"), n));
        }
        start(node, &api);
        node.wait_ready();
        node.wait("the peers' routes", || {
            has_route("10.244.2.0") && has_route("10.244.3.0")
        });
        node.wait("what is kept on disk", || {
            fs::read_to_string(node.file("cache.json")).is_ok_and(|text| text.contains("10.244.3.0"))
        });
        node.stop();

        // The API is gone, and the machine rebooted.
        let (address, cluster) = api.end();
        ip("link del flannel.1");
        fs::remove_dir_all(node.file("run")).unwrap();
        start_at(node, &format!("http://{address}"));
        node.wait("the subnet file, with which pods can start", || {
            node.file("run/subnet.env").exists()
        });
        node.wait("the routes that were known", || {
            has_route("10.244.2.0") && has_route("10.244.3.0")
        });

        assert!(cluster.remove_node("n2"));
        let api = Api::start_on(address, cluster);
        node.wait("the end of the lost peer's route", || !has_route("10.244.2.0"));
        assert!(has_route("10.244.3.0"));
        // Only now is it known that the data plane is as it should be.
        node.wait_ready();
        drop(api);
    });
}

/// A server in the namespace of the calling thread, in a thread of its own.
struct Api {
    server: Server,
    cluster: Arc<Cluster>,
    // Ends after the server.
    _runtime: Runtime,
}

impl Api {
    fn start() -> Self {
        Self::start_on(([127, 0, 0, 1], 0).into(), Arc::new(Cluster::new()))
    }

    fn start_on(address: SocketAddr, cluster: Arc<Cluster>) -> Self {
        let mut runtime = Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let server = runtime.block_on(Server::start_on(address, Transport::Plain, Arc::clone(&cluster)));
        Self {
            server: server.unwrap(),
            cluster,
            _runtime: runtime,
        }
    }

    /// Ends the server; what it knew stays.
    fn end(self) -> (SocketAddr, Arc<Cluster>) {
        (self.server.address(), Arc::clone(&self.cluster))
    }
}

fn start(node: &mut Node, api: &Api) {
    start_at(node, &api.server.url());
}

fn start_at(node: &mut Node, url: &str) {
    fs::write(node.file("net-conf.json"), NET_CONF).unwrap();
    let mut command = node.command(&["--kube-subnet-mgr", "--healthz-port=8081"]);
    command
        .arg(format!("--kube-api-url={url}"))
        .arg(format!(
            "--net-config-path={}",
            node.file("net-conf.json").display()
        ))
        .arg(format!("--kube-cache-file={}", node.file("cache.json").display()))
        .env("NODE_NAME", OWN);
    node.spawn_on_store(&mut command);
}

/// A Node whose daemon has announced itself; `n` is the end of its device's MAC.
fn peer(name: &str, subnet: &str, address: &str, n: u8) -> NodeShape {
    NodeShape::bare(name, &[subnet]).announced(address, &format!("02:00:00:00:00:{n:02x}"))
}

/// The condition that kubelet waits for.
fn network_is_available(cluster: &Cluster) -> bool {
    let own = cluster.node(OWN).unwrap();
    let conditions = own["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| {
        condition["type"] == "NetworkUnavailable"
            && condition["status"] == "False"
            && condition["reason"] == "FlannelIsUp"
    })
}

fn has_route(subnet: &str) -> bool {
    ip("route show").contains(&format!("{subnet}/24 via {subnet} dev flannel.1 onlink"))
}

fn own_mac() -> String {
    let links: Value = serde_json::from_str(&ip("-j link show dev flannel.1")).unwrap();
    links[0]["address"].as_str().unwrap().to_owned()
}
