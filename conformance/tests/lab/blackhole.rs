//! `--ip-blackhole-route`: what no pod takes is dropped, what a pod takes is not, and the route is kept.

use std::net::Ipv4Addr;
use std::time::Instant;

use conformance::lab::traffic::Mirror;
use conformance::lab::{Node, wait_until};

use crate::support::{LONG, bare, run_all};

const FLAG: &str = "--ip-blackhole-route";

#[test]
fn addresses_without_a_pod_are_dropped_and_pods_are_reached() {
    let lab = bare(2);
    let [one, two] = [1, 2].map(|number| lab.node(number).unwrap());
    // Packets to an address that is nobody's would go back to where they came from.
    run_all(
        one,
        &[&format!(
            "ip route replace default via {} dev eth0",
            two.address()
        )],
    );
    let mut daemon = one.start_flanneld(&[FLAG]).unwrap();
    let _other = two.start_flanneld(&[FLAG]).unwrap();
    wait_until("the routes", LONG, || Ok(has_route(one) && has_route(two))).unwrap();
    assert!(!leads_somewhere(one));

    let pods = [one, two].map(|node| node.add_pod(&format!("n{}-p1", node.number())).unwrap());
    wait_until("the pods to reach each other", LONG, || {
        let mirror = Mirror::start(pods[1].namespaces(), pods[1].address())?;
        Ok(mirror.sees(pods[0].namespaces()).is_ok())
    })
    .unwrap();
    assert!(leads_somewhere(one), "the bridge comes first");

    run_all(one, &["ip route flush type blackhole proto 102"]);
    let start = Instant::now();
    wait_until("the route to be back", LONG, || Ok(has_route(one))).unwrap();
    println!("the route was back after {:?}", start.elapsed());

    daemon.stop(LONG).unwrap();
    assert!(has_route(one), "a stop leaves everything");
    let _daemon = one.start_flanneld(&[]).unwrap();
    wait_until("the route to go with its flag", LONG, || Ok(!has_route(one))).unwrap();
}

fn has_route(node: &Node) -> bool {
    let (subnet, length) = node.subnet().unwrap();
    let routes = run_all(node, &["ip route show type blackhole"]);
    routes.contains(&format!("blackhole {subnet}/{length} proto 102 metric 4096"))
}

/// Whether a packet to an address of the node's subnet that no pod has would leave the routing.
fn leads_somewhere(node: &Node) -> bool {
    let (subnet, _) = node.subnet().unwrap();
    let address = Ipv4Addr::from_bits(subnet.to_bits() + 200).to_string();
    let asked = node.exec(&["ip", "route", "get", &address]).unwrap();
    asked.status.success()
}
