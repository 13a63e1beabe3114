use std::fs;
use std::path::Path;

use conformance::lab::{BIN_DIR, NODE_LINK, Node, SUBNET_FILE, wait_until};

use crate::dual_stack::{configure, with_ipv6};
use crate::prune::lease_of;
use crate::support::{Bed, LONG, assert_same, bare, dump, files_below, pinging_during, run_all, started};

/// Upstream's first example.
const HOST_GW: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"extension",
    "SubnetAddCommand":"ip route add $SUBNET via ${PUBLIC_IP}",
    "SubnetRemoveCommand":"ip route del $SUBNET via ${PUBLIC_IP}"}}"#;

/// Upstream's second example, in scripts: no shell is involved.
const VXLAN: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"extension",
    "PreStartupCommand":"/bin/sh /run/pre.sh",
    "PostStartupCommand":"/bin/sh /run/post.sh",
    "SubnetAddCommand":"/bin/sh /run/add.sh",
    "SubnetRemoveCommand":"ip route del $SUBNET"}}"#;
const SCRIPTS: [(&str, &str); 3] = [
    (
        "pre.sh",
        "ip link del vx 2>/dev/null\nip link add vx mtu 1450 type vxlan id 1 dstport 8472 && set -- $(ip -br link show vx) && echo $3",
    ),
    (
        "post.sh",
        "ip addr add ${SUBNET%/*}/32 dev vx && ip link set vx up",
    ),
    (
        "add.sh",
        "read MAC\nip route add $SUBNET via ${SUBNET%/*} dev vx onlink &&\n\
         ip neigh replace ${SUBNET%/*} dev vx lladdr $MAC && bridge fdb add $MAC dev vx self dst $PUBLIC_IP",
    ),
];

#[test]
fn commands_are_run_for_peers_that_come_and_go_and_again_where_they_fail() {
    let lab = bare(3);
    configure(&lab, HOST_GW);
    let mut bed = started(lab, 1);
    await_peers(&bed, &[1, 2, 3], 2);
    bed.assert_all_ping();
    let env = fs::read_to_string(bed.node(1).file(SUBNET_FILE)).unwrap();
    assert!(env.contains("FLANNEL_MTU=1500\n"), "{env}");

    // A restart neither runs anything again nor undoes it.
    let (before, targets) = (dump(bed.node(1)), bed.pods_beyond(1));
    let runs = |node: &Node| node.log("flanneld").unwrap().matches("ran a command").count();
    assert_eq!(runs(bed.node(1)), 2);
    let mut first = bed.daemons.remove(0);
    let (daemon, sent, lost) = pinging_during(bed.pod_on(1).namespaces(), &targets, || {
        first.stop(LONG).unwrap();
        let daemon = bed.node(1).start_flanneld(&[]).unwrap();
        await_peers(&bed, &[1], 2);
        daemon
    });
    assert_eq!((sent > 0, lost), (true, 0));
    assert_same("the node after a restart", &before, &dump(bed.node(1)));
    assert_eq!(runs(bed.node(1)), 2);

    // A lease goes while one daemon runs and the other does not.
    let third = bed.daemons.pop().unwrap();
    drop(daemon);
    drop(third);
    let subnet = subnet_of(&bed, 3);
    let route = |node: &Node| node.ip(&["route", "show", &subnet]).unwrap();
    assert!(route(bed.node(1)).contains("via"));
    fs::remove_file(lease_of(&bed, 3)).unwrap();
    wait_until("the second node to undo it", LONG, || {
        Ok(route(bed.node(2)).is_empty())
    })
    .unwrap();
    bed.daemons.insert(0, bed.node(1).start_flanneld(&[]).unwrap());
    wait_until("the first node to undo it", LONG, || {
        Ok(route(bed.node(1)).is_empty())
    })
    .unwrap();

    // It comes back, and something is in the way on one node.
    let in_the_way = format!("ip route add unreachable {subnet}");
    run_all(bed.node(1), &[&in_the_way]);
    bed.daemons.push(bed.node(3).start_flanneld(&[]).unwrap());
    await_peers(&bed, &[2, 3], 2);
    let shown = || status(bed.node(1));
    wait_until("the failure to be shown", LONG, || {
        Ok(shown().contains("File exists"))
    })
    .unwrap();
    let told = shown();
    assert!(told.contains("1 programmed, 0 pending, 1 failing"), "{told}");
    assert!(told.contains("SubnetAddCommand for"), "{told}");
    run_all(bed.node(1), &[&in_the_way.replace(" add ", " del ")]);
    await_peers(&bed, &[1], 2);
    bed.assert_all_ping();
}

#[test]
fn data_goes_from_one_node_s_command_to_the_others_and_a_tunnel_is_made_anew_by_a_restart() {
    let lab = bare(2);
    configure(&lab, VXLAN);
    for node in lab.nodes() {
        for (name, script) in SCRIPTS {
            fs::write(node.file(&Path::new("/run").join(name).to_string_lossy()), script).unwrap();
        }
    }
    let mut bed = started(lab, 1);
    await_peers(&bed, &[1, 2], 1);
    bed.assert_all_ping();
    bed.daemons.remove(0).stop(LONG).unwrap();
    bed.daemons.insert(0, bed.node(1).start_flanneld(&[]).unwrap());
    // The device is another one, which the peer hears of by the lease.
    wait_until("the pods to reach each other again", LONG, || {
        let mac = bed.node(1).ip(&["-br", "link", "show", "vx"])?;
        let mac = mac.split_whitespace().nth(2).unwrap_or_default().to_owned();
        let known = bed.node(2).ip(&["neigh", "show", "dev", "vx"])?;
        Ok(known.contains(&mac))
    })
    .unwrap();
    await_peers(&bed, &[1, 2], 1);
    bed.assert_all_ping();

    // What the start needs fails: the daemon says so and ends.
    bed.daemons.remove(1).stop(LONG).unwrap();
    let node = bed.node(2);
    fs::write(node.file("/run/pre.sh"), "echo no such thing >&2; exit 3").unwrap();
    let flags = node.store_flags();
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let attempt = node.try_flanneld(&flags, LONG).unwrap();
    assert_eq!(attempt.status.and_then(|status| status.code()), Some(1));
    let words = "the PreStartupCommand in the network configuration failed: exit status: 3: no such thing";
    assert!(attempt.stderr.contains(words), "{}", attempt.stderr);
}

/// A command is told of both families of a peer, or of the one that is on; what the lease lacks is empty.
#[test]
fn commands_bring_ipv6_to_the_peers_alone_and_beside_ipv4() {
    const V6_ONLY: &str = r#"{"EnableIPv4":false,"EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"extension",
        "SubnetAddCommand":"ip -6 route add $IPV6SUBNET via ${PUBLIC_IPV6}",
        "SubnetRemoveCommand":"ip -6 route del $IPV6SUBNET via ${PUBLIC_IPV6}"}}"#;
    const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"extension",
        "SubnetAddCommand":"/bin/sh /run/ways.sh add $SUBNET $PUBLIC_IP $IPV6SUBNET $PUBLIC_IPV6",
        "SubnetRemoveCommand":"/bin/sh /run/ways.sh del $SUBNET $PUBLIC_IP $IPV6SUBNET $PUBLIC_IPV6"}}"#;
    const WAYS: &str = "ip route $1 $2 via $3 && ip -6 route $1 $4 via $5";
    for conf in [DUAL, V6_ONLY] {
        let is_dual = conf == DUAL;
        let lab = with_ipv6(3, conf);
        for node in lab.nodes() {
            fs::write(node.file("/run/ways.sh"), WAYS).unwrap();
        }
        let iface = format!("--iface={NODE_LINK}");
        let start = |node: &Node| node.start_flanneld(&[&iface]).unwrap();
        let mut daemons: Vec<_> = lab.nodes().iter().map(start).collect();
        let own = |node: &Node| node.subnet_env("FLANNEL_IPV6_SUBNET").unwrap();
        let routes = |node: &Node| node.ip(&["-6", "route", "show"]).unwrap();
        // The gateway's address is on the bridge that the first pod makes.
        let ends: Vec<_> = lab
            .nodes()
            .iter()
            .map(|node| own(node).replace("1/64", "77"))
            .collect();
        for (node, end) in lab.nodes().iter().zip(&ends) {
            run_all(node, &[&format!("ip address add {end}/128 dev lo")]);
        }
        for (node, end) in lab.nodes().iter().zip(&ends) {
            for target in ends.iter().filter(|target| *target != end) {
                let script = format!("ping -n -c 1 -W 1 -I {end} {target}");
                let argv: Vec<_> = script.split(' ').collect();
                wait_until(&script, LONG, || Ok(node.exec(&argv)?.status.success())).unwrap();
            }
            assert_eq!(node.subnet_env("FLANNEL_NETWORK").is_ok(), is_dual);
        }
        let v4_routes = |node: &Node| node.ip(&["route", "show"]).unwrap().matches("10.244.").count();
        assert_eq!(v4_routes(&lab.nodes()[0]) > 0, is_dual);

        // A peer goes.
        daemons.pop();
        let gone = own(&lab.nodes()[2]).replace("1/64", "/64");
        assert!(routes(&lab.nodes()[0]).contains(&gone));
        for (name, _) in files_below(&lab.shared_file("leases/subnets")) {
            if name.contains(gone.trim_end_matches("/64")) {
                fs::remove_file(lab.shared_file("leases/subnets").join(name)).unwrap();
            }
        }
        for node in &lab.nodes()[..2] {
            wait_until("its routes to go", LONG, || Ok(!routes(node).contains(&gone))).unwrap();
            assert_eq!(v4_routes(node), if is_dual { 1 } else { 0 });
        }
    }
}

/// Waits until the daemons of some nodes have run their commands for as many peers, and none is left to run.
fn await_peers(bed: &Bed, numbers: &[u8], peers: usize) {
    for number in numbers {
        let counts = format!("peers     {peers}: {peers} programmed");
        wait_until("the commands to be run", LONG, || {
            let status = status(bed.node(*number));
            Ok(status.contains(&counts) && status.contains("; 0 waiting\n"))
        })
        .unwrap();
    }
}

pub(crate) fn status(node: &Node) -> String {
    let program = format!("{BIN_DIR}/flanneld");
    String::from_utf8(node.exec(&[&program, "status"]).unwrap().stdout).unwrap()
}

fn subnet_of(bed: &Bed, number: u8) -> String {
    let (address, length) = bed.node(number).subnet().unwrap();
    format!("{address}/{length}")
}
