use std::fs;

use conformance::lab::runtime::{self, Attachment, Verb};
use conformance::lab::{
    Ip, Lab, NODE_LINK, Namespaces, Node, POD_LINK, Pod, SUBNET_FILE, Store, text, wait_until,
};

use crate::support::{self, Bed, LONG, bare, bare_on, configure_kube, pinging_during, run_all};

pub(crate) const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#;

/// What a pod's packet may have: the underlay's 1,500 less what VXLAN over IPv6 takes.
const POD_MTU: usize = 1430;
/// Headers of IPv4 and ICMP.
pub(crate) const V4_HEADERS: usize = 28;
/// Headers of IPv6 and ICMPv6.
pub(crate) const V6_HEADERS: usize = 48;

#[test]
fn pods_in_dual_stack_reach_each_other_in_both_families_up_to_their_full_mtu() {
    let bed = started(3, DUAL);
    for node in bed.lab.nodes() {
        let env = fs::read_to_string(node.file(SUBNET_FILE)).unwrap();
        let keys: Vec<_> = env.lines().map(|line| line.split('=').next().unwrap()).collect();
        assert_eq!(
            keys,
            [
                "FLANNEL_NETWORK",
                "FLANNEL_SUBNET",
                "FLANNEL_IPV6_NETWORK",
                "FLANNEL_IPV6_SUBNET",
                "FLANNEL_MTU",
                "FLANNEL_IPMASQ"
            ]
        );
        assert!(env.contains(&format!("FLANNEL_MTU={POD_MTU}\n")), "{env}");
    }
    bed.assert_all_ping();
    for from in &bed.pods {
        for to in bed.pods.iter().filter(|to| to.name() != from.name()) {
            let v4 = to.address().to_string();
            for (target, headers) in [(v4, V4_HEADERS), (v6_of(to), V6_HEADERS)] {
                reaches(from.namespaces(), &target, POD_MTU - headers);
            }
        }
    }
    // IPv6 has a tunnel of its own, over IPv6.
    let link = &bed
        .node(1)
        .json(&["ip", "-j", "-d", "link", "show", "dev", "flannel-v6.1"])
        .unwrap()[0];
    assert_eq!(link["mtu"], POD_MTU);
    assert_eq!(link["linkinfo"]["info_data"]["local6"], bed.node(1).address_v6());
}

/// Before the `::` of the nodes' addresses and of the pod network: unique local ones (RFC 4193), and global ones
/// (RFC 3849).
const ULA: [&str; 2] = ["fd00:77", "fd00:10:244"];
const GLOBAL: [&str; 2] = ["2001:db8:77", "2001:db8:244"];

#[test]
fn pods_of_nodes_with_ipv6_alone_reach_each_other_with_every_store_and_by_plain_routes() {
    for (store, backend, prefixes, mtu) in [
        (Store::Directory, "vxlan", ULA, POD_MTU),
        (Store::Etcd, "vxlan", GLOBAL, POD_MTU),
        (Store::Kube, "vxlan", ULA, POD_MTU),
        (Store::Kube, "host-gw", GLOBAL, 1500),
    ] {
        println!("{store:?} {backend} {prefixes:?}");
        with_ipv6_alone(store, backend, prefixes, mtu);
    }
}

fn with_ipv6_alone(store: Store, backend: &str, [underlay, network]: [&str; 2], mtu: usize) {
    let lab = bare_on(store, 2);
    for node in lab.nodes() {
        let [.., host] = node.address().octets();
        run_all(
            node,
            &[&format!(
                "ip address add {underlay}::{host}/64 dev {NODE_LINK} nodad"
            )],
        );
    }
    let conf = format!(
        r#"{{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"{network}::/48","Backend":{{"Type":"{backend}"}}}}"#
    );
    match store {
        Store::Directory => configure(&lab, &conf),
        Store::Etcd => lab.put_in_etcd("config", &conf, None).unwrap(),
        Store::Kube => configure_kube(&lab, &conf, |number| vec![format!("{network}:{number}::/64")]),
    }
    // The lab's default route is IPv4's.
    let iface = format!("--iface={NODE_LINK}");
    let nodes = lab.nodes().iter();
    let daemons: Vec<_> = nodes
        .map(|node| node.start_flanneld(&[&iface]).unwrap())
        .collect();
    let pods: Vec<_> = lab.nodes().iter().map(attached_with_ipv6_alone).collect();
    for (from, to) in [(0, 1), (1, 0)] {
        let (node, target) = (&lab.nodes()[from], &pods[to].1);
        reaches(&pods[from].0, target, mtu - V6_HEADERS);
        reaches(node.namespaces(), target, mtu - V6_HEADERS);
        let env = fs::read_to_string(node.file(SUBNET_FILE)).unwrap();
        let first = format!("FLANNEL_IPV6_NETWORK={network}::/48\nFLANNEL_IPV6_SUBNET={network}:");
        assert!(env.starts_with(&first), "{env}");
        assert!(env.contains(&format!("\nFLANNEL_MTU={mtu}\n")), "{env}");
        let links = node.ip(&["-o", "link", "show", "type", "vxlan"]).unwrap();
        assert!(!links.contains("flannel.1"), "{links}");
        assert_eq!(links.contains("flannel-v6.1"), backend == "vxlan", "{links}");
    }
    drop(daemons);
}

/// A pod's network namespace, and the one address that the plugin has given it.
fn attached_with_ipv6_alone(node: &Node) -> (Namespaces, String) {
    run_all(node, &["ip netns add pod", "ip -n pod link set lo up"]);
    let attachment = Attachment {
        container_id: "pod".to_owned(),
        netns: "/run/netns/pod".to_owned(),
        ifname: POD_LINK.to_owned(),
    };
    let result = runtime::call(node, Verb::Add, &attachment, None).unwrap();
    let ips = result["ips"].as_array().unwrap();
    assert_eq!(ips.len(), 1, "{result}");
    let (address, _) = text(&ips[0], "address").split_once('/').unwrap();
    assert!(address.starts_with(&tunnel_address(node)), "{result}");
    let inside = Namespaces::of_netns_file(&node.file(&attachment.netns)).unwrap();
    (inside, address.to_owned())
}

#[test]
fn a_cluster_gets_ipv6_node_by_node_without_losing_a_packet_of_ipv4() {
    let mut bed = started(3, conformance::lab::NET_CONF);
    configure(&bed.lab, DUAL);
    for number in 1..=3 {
        let (from, to) = (number, number % 3 + 1);
        let targets = bed.pods_beyond(from);
        let back = [bed.pod_on(from).address()];
        let mut daemon = bed.daemons.remove(0);
        let (lab, pods) = (&bed.lab, &bed.pods);
        let pod_on = |number| pods.iter().find(|pod| pod.node_number() == number).unwrap();
        let ((next, sent_back, lost_back), sent, lost) =
            pinging_during(pod_on(from).namespaces(), &targets, || {
                pinging_during(pod_on(to).namespaces(), &back, || {
                    daemon.stop(LONG).unwrap();
                    let next = lab.node(from).unwrap().start_flanneld(&[]).unwrap();
                    // The others take the lease's new name over, too.
                    std::thread::sleep(std::time::Duration::from_secs(3));
                    next
                })
            });
        bed.daemons.push(next);
        println!("node{from}: {lost} of {sent} and {lost_back} of {sent_back} lost");
        assert!(sent > 20 && sent_back > 20, "{sent} {sent_back}");
        assert_eq!((lost, lost_back), (0, 0));
    }
    for from in bed.lab.nodes() {
        for to in bed.lab.nodes().iter().filter(|to| to.number() != from.number()) {
            reaches(from.namespaces(), &tunnel_address(to), POD_MTU - V6_HEADERS);
        }
    }
    bed.assert_all_ping();
    let names = fs::read_dir(bed.lab.shared_file("leases/subnets")).unwrap();
    let names: Vec<_> = names
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect();
    assert_eq!(names.len(), 3, "{names:?}");
    assert!(names.iter().all(|name| name.contains('&')), "{names:?}");
}

/// A lab with this configuration whose nodes have IPv6 on the underlay, with a daemon and a pod on each.
pub(crate) fn started(nodes: u8, conf: &str) -> Bed {
    support::started(with_ipv6(nodes, conf), 1)
}

/// A lab with this configuration whose nodes have IPv6 on the underlay, on which nothing runs.
pub(crate) fn with_ipv6(nodes: u8, conf: &str) -> Lab {
    let lab = bare(nodes);
    configure(&lab, conf);
    add_underlay_v6(&lab);
    lab
}

/// Gives the nodes IPv6 on the underlay.
pub(crate) fn add_underlay_v6(lab: &Lab) {
    lab.nodes().iter().for_each(|node| node.use_ipv6().unwrap());
}

/// Gives the nodes of a lab another configuration.
pub(crate) fn configure(lab: &Lab, conf: &str) {
    let path = lab.shared_file("leases/config");
    let new = path.with_file_name("config.new");
    fs::write(&new, conf).unwrap();
    fs::rename(&new, &path).unwrap();
}

/// The first address of a node's IPv6 subnet, which its tunnel has.
pub(crate) fn tunnel_address(node: &Node) -> String {
    let gateway = node.subnet_env("FLANNEL_IPV6_SUBNET").unwrap();
    let gateway = gateway.split('/').next().unwrap();
    gateway.strip_suffix('1').unwrap().to_owned()
}

/// A pod's global address of IPv6.
pub(crate) fn v6_of(pod: &Pod) -> String {
    let links = pod
        .namespaces()
        .json(&[
            "ip", "-j", "-6", "address", "show", "dev", POD_LINK, "scope", "global",
        ])
        .unwrap();
    text(&links[0]["addr_info"][0], "local").to_owned()
}

/// Asserts that a ping of this many bytes, which must not be divided, is answered at last: routes may be seconds old.
#[track_caller]
pub(crate) fn reaches(from: &Namespaces, target: &str, bytes: usize) {
    let ping = format!("ping -n -c 1 -W 2 -M do -s {bytes} {target}");
    let argv: Vec<_> = ping.split(' ').collect();
    wait_until(&ping, LONG, || Ok(from.output(&argv)?.status.success())).unwrap();
}
