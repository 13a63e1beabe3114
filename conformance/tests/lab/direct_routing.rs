use std::fs;
use std::net::IpAddr;

use anyhow::Context;
use conformance::lab::traffic::{End, dropped_when_busy, stream_during};
use conformance::lab::{GATEWAY, Ip, Lab, NODE_LINK, Namespaces, Node, Pod, TUNNEL, text, wait_until};

use crate::dual_stack::{configure, reaches, v6_of, with_ipv6};
use crate::support::{Bed, LONG, bare, dump, run_all, started};

const DIRECT: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan","DirectRouting":true}}"#;
const TUNNELLED: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan","DirectRouting":false}}"#;
const HOST_GW: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"host-gw"}}"#;
const DIRECT_V4: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","DirectRouting":true}}"#;

/// The node behind the router.
const BEYOND: u8 = 3;

#[test]
fn nodes_on_one_link_need_no_tunnel_and_those_behind_a_router_do_until_it_is_switched_off() {
    let lab = with_ipv6(3, DIRECT);
    put_behind_the_router(&lab);
    let mut bed = started(lab, 1);
    assert_ways(&bed, &[(1, 2), (2, 1)]);
    assert_all_reach_each_other(&bed);
    assert_eq!(
        shown_route(bed.node(1), &subnet_of(bed.node(2))),
        "via 192.168.77.12 dev eth0 proto 102"
    );

    // Restarted, a daemon changes nothing of this.
    let before = dump(bed.node(1));
    restart(&mut bed);
    assert_ways(&bed, &[(1, 2), (2, 1)]);
    assert_eq!(before.changes_to(&dump(bed.node(1))), Vec::<String>::new());

    // Without the option no plain route is left.
    configure(&bed.lab, TUNNELLED);
    restart(&mut bed);
    assert_ways(&bed, &[]);
    assert_all_reach_each_other(&bed);
}

#[test]
fn a_peer_moves_to_the_tunnel_and_back_without_losing_a_packet() {
    let lab = bare(2);
    configure(&lab, DIRECT_V4);
    forward(lab.namespaces());
    let bed = started(lab, 1);
    assert_ways(&bed, &[(1, 2), (2, 1)]);
    // A foreign route, which must survive all of this.
    run_all(
        bed.node(1),
        &["ip route add 10.244.255.0/24 via 192.168.77.99 dev eth0 proto static"],
    );

    let withdrawn = format!("192.168.77.12/32 via {GATEWAY} dev {NODE_LINK}");
    assert_moves_without_loss(&bed, "-4", &withdrawn);
    wait_until("the entries of the tunnel to go", LONG, || {
        Ok(is_complete(bed.node(1), bed.node(2)))
    })
    .unwrap();

    let foreign = bed.node(1).ip(&["route", "show", "10.244.255.0/24"]).unwrap();
    assert!(foreign.contains("via 192.168.77.99"), "{foreign}");

    // The link goes and comes back, with all routes through it.
    bed.node(1).underlay_down().unwrap();
    bed.node(1).underlay_up().unwrap();
    wait_until("the peer to be on the link again", LONG, || {
        Ok(way(bed.node(1), bed.node(2)) == NODE_LINK)
    })
    .unwrap();
    bed.assert_all_ping();
}

/// The kernel refuses to replace an IPv6 route in one step, because it finds the new gateway by the old route.
#[test]
fn a_peer_moves_in_ipv6_without_losing_a_packet_and_what_a_crash_left_on_the_way_goes() {
    let lab = with_ipv6(2, DIRECT);
    forward(lab.namespaces());
    let router = "-6 address add fd00:77::1/64 dev underlay nodad";
    lab.namespaces()
        .ip(&router.split(' ').collect::<Vec<_>>())
        .unwrap();
    let mut bed = started(lab, 1);
    assert_ways(&bed, &[(1, 2), (2, 1)]);

    let withdrawn = format!("fd00:77::12/128 via fd00:77::1 dev {NODE_LINK}");
    assert_moves_without_loss(&bed, "-6", &withdrawn);

    // As if the daemon had been ended in the middle of a move.
    let subnet = subnet_in("-6", bed.node(2));
    let vtep = network_of(&subnet);
    for daemon in &mut bed.daemons {
        daemon.stop(LONG).unwrap();
    }
    run_all(
        bed.node(1),
        &[&format!(
            "ip -6 route add {vtep}/128 dev flannel-v6.1 metric 1024"
        )],
    );
    let nodes = bed.lab.nodes().iter();
    bed.daemons = nodes.map(|node| node.start_flanneld(&[]).unwrap()).collect();
    wait_until("what was left to go", LONG, || {
        let left = bed.node(1).ip(&["-6", "route", "show", &format!("{vtep}/128")])?;
        Ok(left.trim().is_empty())
    })
    .unwrap();
    assert_ways(&bed, &[(1, 2), (2, 1)]);
    assert_all_reach_each_other(&bed);

    // The same replacement, of the routes of another backend.
    for (conf, link) in [(HOST_GW, NODE_LINK), (TUNNELLED, "flannel-v6.1")] {
        configure(&bed.lab, conf);
        restart(&mut bed);
        wait_until(&format!("the peers to be behind {link}"), LONG, || {
            let is_gone = !bed.node(1).ip(&["-o", "link", "show"])?.contains("flannel-v6.1");
            let way = way_in("-6", bed.node(1), bed.node(2));
            Ok(way == link && is_gone == (link == NODE_LINK))
        })
        .unwrap();
    }
    assert_ways(&bed, &[]);
    assert_all_reach_each_other(&bed);
}

/// Takes a peer off the link of the first node and puts it back, several times, while pods send to each other both ways.
#[track_caller]
fn assert_moves_without_loss(bed: &Bed, family: &str, withdrawn: &str) {
    let address = |pod: &Pod| match family {
        "-6" => v6_of(pod).parse().unwrap(),
        _ => IpAddr::from(pod.address()),
    };
    let ends = [bed.pod_on(1), bed.pod_on(2)].map(|pod| (pod.namespaces(), address(pod)));
    let tunnel = if family == "-6" { "flannel-v6.1" } else { TUNNEL };
    let ((), lost) = losses(ends, || {
        for _ in 0..3 {
            for (verb, link) in [("add", tunnel), ("del", NODE_LINK)] {
                run_all(bed.node(1), &[&format!("ip {family} route {verb} {withdrawn}")]);
                wait_until(&format!("the peer to move to {link}"), LONG, || {
                    Ok(way_in(family, bed.node(1), bed.node(2)) == link)
                })
                .unwrap();
            }
        }
    });
    assert_eq!(lost, 0, "packets lost while the peer moved");
}

/// Streams both ways between two pods, first as a control and then all through an action; returns how many more were lost
/// than the busy machine explains.
pub(crate) fn losses<T>(ends: [(&Namespaces, IpAddr); 2], action: impl FnOnce() -> T) -> (T, usize) {
    let ends = || ends.map(|(namespaces, address)| End { namespaces, address });
    let measured = |act: &mut dyn FnMut()| {
        let dropped = dropped_when_busy().unwrap();
        let [near, far] = ends();
        let ((), counts) = stream_during(near, far, act).unwrap();
        assert!(counts.iter().all(|count| count.sent > 100), "{counts:?}");
        let lost: usize = counts.iter().map(|count| count.lost()).sum();
        println!("{counts:?}: {lost} lost");
        lost.saturating_sub(dropped_when_busy().unwrap() - dropped)
    };
    let control = measured(&mut || std::thread::sleep(std::time::Duration::from_secs(1)));
    let (mut action, mut result) = (Some(action), None);
    let lost = measured(&mut || result = action.take().map(|action| action()));
    (result.unwrap(), lost.saturating_sub(control))
}

fn restart(bed: &mut Bed) {
    for daemon in &mut bed.daemons {
        daemon.stop(LONG).unwrap();
    }
    let nodes = bed.lab.nodes().iter();
    bed.daemons = nodes.map(|node| node.start_flanneld(&[]).unwrap()).collect();
}

/// Gives a node a link of its own to the router that the others have as their gateway.
fn put_behind_the_router(lab: &Lab) {
    forward(lab.namespaces());
    let router = lab.namespaces();
    for line in [
        "link set port3 nomaster",
        "address add 192.168.78.1/24 dev port3",
        "-6 address add fd00:78::1/64 dev port3 nodad",
        "-6 address add fd00:77::1/64 dev underlay nodad",
    ] {
        router.ip(&line.split(' ').collect::<Vec<_>>()).unwrap();
    }
    run_all(
        lab.node(BEYOND).unwrap(),
        &[
            "ip address flush dev eth0 scope global",
            "ip address add 192.168.78.13/24 dev eth0",
            "ip address add fd00:78::13/64 dev eth0 nodad",
            "ip route add default via 192.168.78.1 dev eth0",
            "ip -6 route add default via fd00:78::1 dev eth0",
        ],
    );
    for number in [1, 2] {
        run_all(
            lab.node(number).unwrap(),
            &["ip -6 route add default via fd00:77::1 dev eth0"],
        );
    }
}

/// Makes the underlay's gateway a router, which tells nobody of shorter ways.
fn forward(router: &Namespaces) {
    router
        .run(|| {
            for (key, value) in [
                ("ipv4/ip_forward", "1"),
                ("ipv6/conf/all/forwarding", "1"),
                ("ipv4/conf/all/send_redirects", "0"),
                ("ipv4/conf/underlay/send_redirects", "0"),
            ] {
                let path = format!("/proc/sys/net/{key}");
                fs::write(&path, value).with_context(|| format!("writing {path}"))?;
            }
            Ok(())
        })
        .unwrap();
}

/// The pairs of nodes that reach each other by plain routes, and all others through the tunnel, in each family that they
/// have; with entries in the tunnel for these only.
#[track_caller]
fn assert_ways(bed: &Bed, direct: &[(u8, u8)]) {
    for from in bed.lab.nodes() {
        for to in bed.lab.nodes().iter().filter(|to| to.number() != from.number()) {
            let is_direct = direct.contains(&(from.number(), to.number()));
            let what = format!("{} to reach {}, directly: {is_direct}", from.name(), to.name());
            wait_until(&what, LONG, || {
                let link = way(from, to);
                Ok((link == NODE_LINK) == is_direct && !link.is_empty() && is_complete(from, to))
            })
            .unwrap();
        }
    }
}

/// The link by which a node reaches the pods of another; empty where there is no route.
pub(crate) fn way(from: &Node, to: &Node) -> String {
    way_in("-4", from, to)
}

fn way_in(family: &str, from: &Node, to: &Node) -> String {
    let subnet = subnet_in(family, to);
    let routes = from
        .json(&["ip", "-j", family, "route", "show", &subnet])
        .unwrap();
    routes
        .first()
        .map(|route| text(route, "dev").to_owned())
        .unwrap_or_default()
}

/// Whether the tunnels have a neighbour and a forwarding entry exactly if the routes to a node lead through them, which in
/// both families do or do not.
fn is_complete(from: &Node, to: &Node) -> bool {
    let is_tunnelled = way(from, to) == TUNNEL;
    let mut is_complete = true;
    let v6 = to.subnet_env("FLANNEL_IPV6_SUBNET").ok();
    let v6 = v6.map(|gateway| (gateway.replace("::1/", "::/"), "flannel-v6.1"));
    for (subnet, tunnel) in [(subnet_of(to), TUNNEL)].into_iter().chain(v6) {
        let family = if subnet.contains(':') { "-6" } else { "-4" };
        let routes = from.ip(&[family, "-o", "route", "show", &subnet]).unwrap();
        let leads = routes.contains(&format!("dev {tunnel} "));
        let vtep = network_of(&subnet);
        let neighs = from
            .ip(&["neigh", "show", vtep, "dev", tunnel, "nud", "permanent"])
            .unwrap();
        is_complete &= leads == is_tunnelled && neighs.is_empty() != is_tunnelled;
    }
    let fdb = from.exec(&["bridge", "fdb", "show", "dev", TUNNEL]).unwrap();
    let mac = to.vtep_mac().unwrap();
    is_complete && String::from_utf8_lossy(&fdb.stdout).contains(&mac) == is_tunnelled
}

/// A node's subnet in a family, as `ip` writes it.
fn subnet_in(family: &str, node: &Node) -> String {
    if family == "-4" {
        return subnet_of(node);
    }
    let gateway = node.subnet_env("FLANNEL_IPV6_SUBNET").unwrap();
    gateway.replace("::1/", "::/")
}

/// The first address of a subnet.
fn network_of(subnet: &str) -> &str {
    subnet.split('/').next().unwrap_or_default()
}

/// A node's IPv4 subnet, as `ip` writes it.
fn subnet_of(node: &Node) -> String {
    let (network, length) = node.subnet().unwrap();
    format!("{network}/{length}")
}

/// A route without its destination.
fn shown_route(node: &Node, subnet: &str) -> String {
    let shown = node.ip(&["route", "show", subnet]).unwrap();
    shown.trim().trim_start_matches(subnet).trim().to_owned()
}

fn assert_all_reach_each_other(bed: &Bed) {
    bed.assert_all_ping();
    for from in &bed.pods {
        for to in bed.pods.iter().filter(|to| to.name() != from.name()) {
            reaches(from.namespaces(), &v6_of(to), 1000);
        }
    }
}
