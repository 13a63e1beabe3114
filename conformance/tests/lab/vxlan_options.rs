//! What the VXLAN backend can be configured with changes across a restart, and its device's MAC address behind the daemon's
//! back.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use conformance::lab::ping::{Patience, ping_all};
use conformance::lab::{Node, TUNNEL, wait_until};
use serde_json::Value;

use crate::dual_stack::{configure, reaches, started, v6_of};
use crate::support::{AT_ONCE, Bed, LONG, best_of_three, pinging_during, run_all, running};

/// Pods may be without each other for so long while two nodes make their devices anew; measured: 0.1 to 0.3 s.
/// The rest is for a busy machine, on which the best of the steps is still [`AT_ONCE`].
const GAP: Duration = Duration::from_secs(15);
/// Looks often, for as long.
const IMPATIENT: Patience = Patience {
    tries: 250,
    timeout: Duration::from_millis(60),
};

/// One step: the backend's options, the device that they lead to, and whether it is the one of before.
struct Step {
    options: &'static str,
    device: &'static str,
    attributes: &'static [(&'static str, u64)],
    mtu: u64,
    is_kept: bool,
}

const fn step(
    options: &'static str,
    device: &'static str,
    attributes: &'static [(&'static str, u64)],
    (mtu, is_kept): (u64, bool),
) -> Step {
    Step {
        options,
        device,
        attributes,
        mtu,
        is_kept,
    }
}

/// The kernel changes `learning` and the MTU in place, the rest not (linux `vxlan_core.c`).
const STEPS: [Step; 8] = [
    step(r#","Learning":true"#, TUNNEL, &[("learning", 1)], (1450, true)),
    step(r#","MTU":1400"#, TUNNEL, &[("learning", 0)], (1350, true)),
    step("", TUNNEL, &[("learning", 0)], (1450, true)),
    step(r#","GBP":true"#, TUNNEL, &[("gbp", 1)], (1450, false)),
    step("", TUNNEL, &[("gbp", 0)], (1450, false)),
    step(r#","Port":4789"#, TUNNEL, &[("port", 4789)], (1450, false)),
    step(
        r#","VNI":7"#,
        "flannel.7",
        &[("port", 8472), ("id", 7)],
        (1450, false),
    ),
    step(
        r#","VNI":7,"Learning":true,"MTU":1400"#,
        "flannel.7",
        &[("learning", 1), ("id", 7)],
        (1350, true),
    ),
];

#[test]
fn each_option_that_changes_across_a_restart_is_on_the_device_and_peers_are_back_at_once() {
    let mut bed = running(2, 1);
    let mut before = indices(&bed, TUNNEL);
    let mut best = LONG;
    let macs = |bed: &Bed| -> Vec<_> {
        let nodes = bed.lab.nodes().iter();
        nodes.map(|node| leased_mac(node, bed)).collect()
    };
    for step in &STEPS {
        let options = step.options;
        let macs_before = macs(&bed);
        let (gap, sent, lost) = restart_all(&mut bed, options);
        println!(
            "{options}: {lost} of {sent} pings lost, back after {} ms",
            gap.as_millis()
        );
        if step.is_kept {
            assert!(sent > 10 && lost == 0, "{options}: {lost} of {sent}");
        } else {
            assert!(gap < GAP, "{options}: {gap:?}");
            best = best.min(gap);
        }
        for node in bed.lab.nodes() {
            assert_device(node, step);
        }
        let now = indices(&bed, step.device);
        let mut pairs = now.iter().zip(&before);
        assert!(
            pairs.all(|(now, before)| (now == before) == step.is_kept),
            "{options}"
        );
        before = now;
        // The MAC address is the lease's, also of a device that is made anew.
        assert_eq!(macs(&bed), macs_before, "{options}");
        bed.assert_all_ping();
    }
    assert!(best < AT_ONCE, "{best:?} at best");
}

/// Restarts all daemons at once with these options, while pods ping; returns how long it took until the pods reached each
/// other, and how many pings were sent and lost.
fn restart_all(bed: &mut Bed, options: &str) -> (Duration, usize, usize) {
    let conf = format!(r#"{{"Network":"10.244.0.0/16","Backend":{{"Type":"vxlan"{options}}}}}"#);
    let targets = bed.pods_beyond(1);
    let mut daemons = std::mem::take(&mut bed.daemons);
    let near = bed.pod_on(1).namespaces();
    let (gap, sent, lost) = pinging_during(near, &targets, || {
        for daemon in &mut daemons {
            daemon.stop(LONG).unwrap();
        }
        configure(&bed.lab, &conf);
        let stopped_at = Instant::now();
        let nodes = bed.lab.nodes().iter();
        daemons = nodes.map(|node| node.start_flanneld(&[]).unwrap()).collect();
        let answers = near.run(|| ping_all(&targets, IMPATIENT)).unwrap();
        assert!(answers.iter().all(Option::is_some));
        let gap = stopped_at.elapsed();
        thread::sleep(Duration::from_millis(300));
        gap
    });
    bed.daemons = daemons;
    (gap, sent, lost)
}

fn assert_device(node: &Node, step: &Step) {
    wait_until("other devices to go", LONG, || {
        let shown = node.ip(&["-o", "link", "show", "type", "vxlan"])?;
        Ok(shown.lines().count() == 1)
    })
    .unwrap();
    let shown = details(node, step.device);
    assert_eq!(shown["mtu"], step.mtu, "{shown}");
    let info = &shown["linkinfo"]["info_data"];
    for (key, value) in step.attributes {
        assert_eq!(number(&info[*key]), *value, "{key}: {info}");
    }
}

const DUAL: &str = r#"{"Network":"10.244.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:10:244::/48","Backend":{"Type":"vxlan"}}"#;

/// As udev's `MACAddressPolicy=persistent` does after a device was made.
#[test]
fn a_mac_address_that_somebody_changes_is_set_back_and_peers_go_on_reaching() {
    let bed = started(2, DUAL);
    let devices = [TUNNEL, "flannel-v6.1"];
    let node = bed.node(1);
    let v6 = v6_of(bed.pod_on(1));
    reaches(bed.pod_on(2).namespaces(), &v6, 1000);
    let targets = [bed.pod_on(1).address()];
    for device in devices {
        let before = text_of(node, device, "address");
        let change = format!("ip link set {device} address 06:00:00:00:00:99");
        let (took, sent, lost) = pinging_during(bed.pod_on(2).namespaces(), &targets, || {
            let took = best_of_three(|| {
                run_all(node, &[&change]);
                wait_until("the address to be set back", LONG, || {
                    Ok(text_of(node, device, "address") == before)
                })
            });
            reaches(bed.pod_on(2).namespaces(), &v6, 1000);
            took.unwrap()
        });
        println!(
            "{device}: set back after {} ms, {lost} of {sent} pings lost",
            took.as_millis()
        );
        assert!(took < AT_ONCE, "{took:?} at best");
        bed.assert_all_ping();
        // The neighbours that this flushed are back, in both directions.
        reaches(bed.pod_on(1).namespaces(), &v6_of(bed.pod_on(2)), 1000);
    }
}

#[test]
fn another_mac_address_of_ipv6_alone_reaches_the_peers() {
    let mut bed = started(2, DUAL);
    let far = v6_of(bed.pod_on(2));
    reaches(bed.pod_on(1).namespaces(), &far, 1000);
    let v4_before = text_of(bed.node(2), TUNNEL, "address");
    bed.daemons.remove(1).stop(LONG).unwrap();
    run_all(
        bed.node(2),
        &["ip link set flannel-v6.1 address 06:00:00:00:00:66"],
    );
    let daemon = bed.node(2).start_flanneld(&[]).unwrap();
    bed.daemons.push(daemon);
    wait_until("the peer to have the new address", LONG, || {
        let known = bed.node(1).ip(&["-6", "neigh", "show", "dev", "flannel-v6.1"])?;
        let entries = run_all(bed.node(1), &["bridge fdb show dev flannel-v6.1"]);
        Ok(known.contains("06:00:00:00:00:66") && entries.contains("06:00:00:00:00:66"))
    })
    .unwrap();
    reaches(bed.pod_on(1).namespaces(), &far, 1000);
    assert_eq!(text_of(bed.node(2), TUNNEL, "address"), v4_before);
    bed.assert_all_ping();
}

fn indices(bed: &Bed, device: &str) -> Vec<Value> {
    let nodes = bed.lab.nodes().iter();
    nodes
        .map(|node| details(node, device)["ifindex"].clone())
        .collect()
}

fn details(node: &Node, device: &str) -> Value {
    let links = node
        .json(&["ip", "-j", "-d", "link", "show", "dev", device])
        .unwrap();
    links[0].clone()
}

/// A number, or whether a flag is set; a flag that is absent is not.
fn number(value: &Value) -> u64 {
    let flag = u64::from(value.as_bool() == Some(true));
    value.as_u64().unwrap_or(flag)
}

fn text_of(node: &Node, device: &str, key: &str) -> String {
    details(node, device)[key].as_str().unwrap().to_owned()
}

/// The MAC address in the node's lease.
fn leased_mac(node: &Node, bed: &Bed) -> String {
    let (subnet, length) = node.subnet().unwrap();
    let path = bed.lab.shared_file(&format!("leases/subnets/{subnet}-{length}"));
    let lease: Value = serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
    lease["BackendData"]["VtepMAC"].as_str().unwrap().to_owned()
}
