//! The network configuration changes at the worst moments: quickly, back and forth, broken, while daemons die, while the
//! store is away, while nodes join.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use conformance::lab::{NODE_LINK, Node, SUBNET_FILE, TUNNEL, wait_until};
use nix::sys::signal::Signal;

use crate::direct_routing::way;
use crate::dual_stack::{add_underlay_v6, configure, started, with_ipv6};
use crate::extension::status;
use crate::support::{self, Bed, LONG, pinging_during, run_all};

const PLAIN: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}"#;
const SMALL: &str = r#"{"Network":"10.244.0.0/16","Backend":{"Type":"vxlan","MTU":1400}}"#;
const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#;
const DUAL_DIRECT: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","EnableNFTables":true,"Backend":{"Type":"vxlan","DirectRouting":true}}"#;

#[test]
fn of_edits_in_quick_succession_the_last_one_counts() {
    let mut bed = started(3, PLAIN);
    let lasts = [DUAL, DUAL_DIRECT, DUAL];
    for (round, last) in lasts.into_iter().enumerate() {
        losing_nothing(&mut bed, |bed| {
            edit_quickly(round, |conf| configure(&bed.lab, conf));
            configure(&bed.lab, last);
            await_all(bed, last);
        });
        assert_dual(&bed, last == DUAL_DIRECT);
        let names = leases(&bed);
        assert!(
            names.len() == 3 && names.iter().all(|name| name.contains('&')),
            "{names:?}"
        );
    }
    assert_same_daemons(&mut bed);
}

/// The server is killed right after the last change, too, and comes back.
#[test]
fn of_edits_in_quick_succession_the_last_one_counts_in_etcd() {
    let lab = support::bare_on_etcd(3);
    add_underlay_v6(&lab);
    let mut bed = support::started(lab, 1);
    let edit = |bed: &Bed, conf: &str| bed.lab.put_in_etcd("config", conf, None).unwrap();
    let lasts = [DUAL, DUAL_DIRECT, DUAL];
    for (round, last) in lasts.into_iter().enumerate() {
        losing_nothing(&mut bed, |bed| {
            edit_quickly(round, |conf| edit(bed, conf));
            edit(bed, last);
            bed.lab.kill_etcd().unwrap();
            thread::sleep(Duration::from_secs(2));
            bed.lab.start_etcd().unwrap();
            await_all(bed, last);
        });
        assert_dual(&bed, last == DUAL_DIRECT);
    }
    assert_same_daemons(&mut bed);
}

/// Writes one configuration after the other, some of them broken.
fn edit_quickly(round: usize, edit: impl Fn(&str)) {
    const FIRST: [&str; 8] = [SMALL, PLAIN, SMALL, "{", PLAIN, "", "[]", SMALL];
    const DUALS: [&str; 8] = [
        DUAL,
        DUAL_DIRECT,
        DUAL,
        r#"{"Network":7}"#,
        DUAL_DIRECT,
        PLAIN,
        DUAL,
        DUAL_DIRECT,
    ];
    let mut random = 7_u64 + u64::try_from(round).unwrap();
    for conf in if round == 0 { FIRST } else { DUALS } {
        edit(conf);
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        thread::sleep(Duration::from_millis(random >> 55));
    }
}

#[test]
fn a_daemon_that_is_killed_while_a_changed_configuration_comes_into_force_leaves_nothing_undone() {
    let mut bed = started(3, PLAIN);
    let confs = [
        SMALL,
        PLAIN,
        DUAL,
        DUAL_DIRECT,
        DUAL,
        DUAL_DIRECT,
        DUAL,
        DUAL_DIRECT,
    ];
    for (round, conf) in confs.into_iter().enumerate() {
        losing_nothing(&mut bed, |bed| {
            configure(&bed.lab, conf);
            thread::sleep(Duration::from_millis(5 + 13 * u64::try_from(round).unwrap()));
            for number in [1, 3] {
                let mut daemon = bed.daemons.remove(number - 1);
                daemon.signal(Signal::SIGKILL).unwrap();
                daemon.wait(LONG).unwrap();
                let node = bed.lab.node(u8::try_from(number).unwrap()).unwrap();
                bed.daemons.insert(number - 1, node.start_flanneld(&[]).unwrap());
            }
            await_all(bed, conf);
        });
        println!("round {round}");
        let names = leases(&bed);
        assert_eq!(names.len(), 3, "{names:?}");
    }
    assert_dual(&bed, true);
    assert_same_daemons(&mut bed);
}

#[test]
fn what_changed_while_the_store_was_away_is_applied_when_it_is_back() {
    let mut bed = started(3, PLAIN);
    let leases = bed.lab.shared_file("leases");
    let away = leases.with_file_name("away");
    for conf in [SMALL, DUAL_DIRECT] {
        losing_nothing(&mut bed, |bed| {
            // The directory itself is mounted on the nodes.
            fs::create_dir(&away).unwrap();
            for name in ["config", "subnets"] {
                fs::rename(leases.join(name), away.join(name)).unwrap();
            }
            thread::sleep(Duration::from_secs(3));
            fs::write(away.join("config"), conf).unwrap();
            for name in ["subnets", "config"] {
                fs::rename(away.join(name), leases.join(name)).unwrap();
            }
            fs::remove_dir(&away).unwrap();
            // Once more, before everybody holds a lease by it.
            let lock = fs::File::create(bed.lab.shared_file("leases/lock")).unwrap();
            lock.lock().unwrap();
            thread::sleep(Duration::from_secs(2));
            lock.unlock().unwrap();
            await_all(bed, conf);
        });
    }
    assert_dual(&bed, true);
    assert_same_daemons(&mut bed);
}

#[test]
fn a_node_joins_while_the_configuration_changes() {
    let lab = with_ipv6(3, PLAIN);
    let first: Vec<_> = (1..=2)
        .map(|number| lab.node(number).unwrap().start_flanneld(&[]).unwrap())
        .collect();
    let pods = (1..=2)
        .map(|number| {
            lab.node(number)
                .unwrap()
                .add_pod(&format!("n{number}-p1"))
                .unwrap()
        })
        .collect();
    let mut bed = Bed {
        daemons: first,
        pods,
        lab,
    };
    let third = losing_nothing(&mut bed, |bed| {
        configure(&bed.lab, DUAL_DIRECT);
        let third = bed.lab.node(3).unwrap().start_flanneld(&[]).unwrap();
        configure(&bed.lab, DUAL);
        await_all(bed, DUAL);
        third
    });
    bed.daemons.push(third);
    bed.pods.push(bed.lab.node(3).unwrap().add_pod("n3-p1").unwrap());
    assert_dual(&bed, false);
    assert_same_daemons(&mut bed);
}

/// Somebody else's device takes the place of the one of IPv6, as long as it is there.
#[test]
fn a_node_that_cannot_make_a_device_goes_on_as_before_and_tries_again() {
    let mut bed = started(2, PLAIN);
    run_all(
        bed.node(1),
        &[
            "ip link add theirs type vxlan id 1 dstport 8472 local fd00:77::11 dev eth0",
            "ip link set theirs up",
        ],
    );
    losing_nothing(&mut bed, |bed| {
        configure(&bed.lab, DUAL);
        let words = "the changed network configuration does not come into force";
        await_words(bed.node(1), words);
        wait_until("the configuration before", LONG, || {
            is_applied(bed, bed.node(1), PLAIN)
        })
        .unwrap();
        let shown = run_all(bed.node(1), &["ip link show theirs"]);
        assert!(shown.contains("UP"), "{shown}");
        run_all(bed.node(1), &["ip link delete theirs"]);
        await_all(bed, DUAL);
    });
    assert_same_daemons(&mut bed);
}

/// With the interface of another network a node could not be reached where others know it.
#[test]
fn a_change_while_the_default_route_is_elsewhere_waits_until_it_is_back() {
    let mut bed = started(2, PLAIN);
    run_all(
        bed.node(1),
        &[
            "ip link add eth1 type veth peer name far",
            "ip link set eth1 up",
            "ip address add 192.0.2.1/24 dev eth1",
        ],
    );
    losing_nothing(&mut bed, |bed| {
        run_all(
            bed.node(1),
            &["ip route replace default via 192.0.2.254 dev eth1"],
        );
        configure(&bed.lab, SMALL);
        await_words(
            bed.node(1),
            "this node's address would be 192.0.2.1 and 192.168.77.11 no more",
        );
        run_all(
            bed.node(1),
            &["ip route replace default via 192.168.77.1 dev eth0"],
        );
        await_all(bed, SMALL);
        // At the very moment, to and fro.
        configure(&bed.lab, PLAIN);
        for _ in 0..10 {
            for route in ["via 192.0.2.254 dev eth1", "via 192.168.77.1 dev eth0"] {
                run_all(bed.node(1), &[&format!("ip route replace default {route}")]);
            }
        }
        await_all(bed, PLAIN);
    });
    assert_same_daemons(&mut bed);
}

#[test]
fn a_daemon_answers_and_ends_while_it_finds_out_what_a_changed_configuration_needs() {
    const NFT: &str = r#"{"Network":"10.244.0.0/16","EnableNFTables":true,"Backend":{"Type":"vxlan"}}"#;
    let mut bed = started(1, NFT);
    let node = bed.lab.node(1).unwrap();
    fs::write(node.file("/run/hangs"), "#!/bin/sh\nexec sleep 20\n").unwrap();
    let script = "chmod 755 /run/hangs; mount --bind /run/hangs $(readlink -f $(command -v iptables))";
    assert!(node.exec(&["sh", "-c", script]).unwrap().status.success());
    configure(&bed.lab, PLAIN);
    wait_until("iptables to be asked", LONG, || {
        let asked = node.exec(&["pgrep", "-f", "^/bin/sh .*iptables|^sleep 20"])?;
        Ok(asked.status.success())
    })
    .unwrap();
    let asked_at = Instant::now();
    let told = status(node);
    assert!(told.contains("ready     yes"), "{told}");
    let (took, status) = bed.daemons[0].stop(LONG).unwrap();
    assert!(status.success(), "{status}");
    let both = asked_at.elapsed();
    println!("ended after {took:?}, {both:?} after iptables was asked");
    assert!(took < Duration::from_secs(10), "ended after {took:?}");
    // Iptables hangs for longer.
    assert!(both < Duration::from_secs(15), "{both:?}");
}

fn await_words(node: &Node, words: &str) {
    wait_until(words, LONG, || Ok(node.log("flanneld")?.contains(words))).unwrap();
}

/// Does something while pods ping each other from the first node and from the second one.
fn losing_nothing<T>(bed: &mut Bed, action: impl FnOnce(&mut Bed) -> T) -> T {
    let there = bed.pods_beyond(1);
    let back = [bed.pod_on(1).address()];
    let pods = std::mem::take(&mut bed.pods);
    let ((result, sent_back, lost_back), sent, lost) = pinging_during(pods[0].namespaces(), &there, || {
        pinging_during(pods[1].namespaces(), &back, || {
            let result = action(bed);
            // The last of them may have begun only.
            thread::sleep(Duration::from_millis(500));
            result
        })
    });
    bed.pods = pods;
    println!("{lost} of {sent} and {lost_back} of {sent_back} lost");
    assert!(sent > 0 && sent_back > 0);
    assert_eq!((lost, lost_back), (0, 0));
    result
}

fn await_all(bed: &Bed, conf: &str) {
    wait_until(conf, LONG, || {
        for node in bed.lab.nodes() {
            if !is_applied(bed, node, conf)? {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .unwrap();
}

/// Whether a node is as one of the configurations above wants it.
fn is_applied(bed: &Bed, node: &Node, conf: &str) -> Result<bool> {
    let env = fs::read_to_string(node.file(SUBNET_FILE))?;
    let device = node.json(&["ip", "-j", "link", "show", "dev", TUNNEL])?;
    let has_mtu = |mtu: u64| env.contains(&format!("FLANNEL_MTU={mtu}\n"));
    let (is_dual, is_direct) = (conf.contains("IPv6Network"), conf.contains("DirectRouting"));
    let mtu = if conf == SMALL { 1350 } else { 1450 };
    let pod_mtu = if is_dual { 1430 } else { mtu };
    let others = bed
        .lab
        .nodes()
        .iter()
        .filter(|other| other.number() != node.number());
    let expected = if is_direct { NODE_LINK } else { TUNNEL };
    let mut ways = others.map(|other| way(node, other));
    let has_table = run_all(node, &["nft list tables"]).contains("flannel-ipv4");
    let has_chain = run_all(node, &["iptables-save"]).contains("FLANNEL-FWD");
    Ok(env.contains("FLANNEL_IPV6_SUBNET=") == is_dual
        && has_mtu(pod_mtu)
        && device[0]["mtu"] == mtu
        && ways.all(|way| way == expected)
        && (has_table, has_chain) == (is_direct, !is_direct))
}

/// Every node has the plain routes or the tunnel's to the others' IPv6 subnets.
fn assert_dual(bed: &Bed, is_direct: bool) {
    let device = if is_direct { NODE_LINK } else { "flannel-v6.1" };
    for node in bed.lab.nodes() {
        wait_until("the routes of IPv6", LONG, || {
            let routes = node.ip(&["-6", "route", "show"])?;
            let peers = routes
                .lines()
                .filter(|line| line.starts_with("fd00:10:244:") && line.contains(" via "));
            let ways: Vec<_> = peers
                .map(|line| line.contains(&format!(" dev {device} ")))
                .collect();
            Ok(ways == [true, true])
        })
        .unwrap();
    }
    bed.assert_all_ping();
}

fn leases(bed: &Bed) -> Vec<String> {
    let found = support::files_below(&bed.lab.shared_file("leases/subnets"));
    found.into_iter().map(|(name, _)| name).collect()
}

/// They are the daemons that were started, and end as they should.
fn assert_same_daemons(bed: &mut Bed) {
    for daemon in &mut bed.daemons {
        let (_, status) = daemon.stop(LONG).unwrap();
        assert!(status.success(), "{status}");
    }
}
