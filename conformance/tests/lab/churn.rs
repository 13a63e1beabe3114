//! Leases that change all the time, machines that were copied, leases that lie: the rest goes on, at bounded cost.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use conformance::lab::{BIN_DIR, Lab, Node, SUBNET_FILE, Store, wait_until};

use crate::kube;
use crate::support::{LONG, bare, bare_on_etcd, bare_on_kube, pinging_during, run_all, running, running_in};

/// How many leases change in turn.
const FLAPPING: u64 = 60;
const CHANGES_PER_SECOND: u64 = 500;
/// What a daemon may log in a storm, in bytes, and for each second of it: a line a peer would be 50 KiB a second.
const LOG_BYTES: u64 = 40 << 10;
const LOG_BYTES_PER_SECOND: u64 = 20 << 10;

#[test]
fn a_storm_of_lease_changes_is_followed_at_bounded_cost_and_costs_no_packet_elsewhere() {
    storm(Store::Directory, Duration::from_secs(4));
}

#[test]
fn a_storm_of_lease_changes_in_etcd_is_followed_as_well() {
    storm(Store::Etcd, Duration::from_secs(3));
}

#[test]
fn a_storm_of_changes_of_nodes_is_followed_as_well() {
    storm(Store::Kube, Duration::from_secs(3));
}

/// Leases come, change their MAC address and go, so many a second; then all of them stay.
pub(crate) fn storm(store: Store, lasts: Duration) {
    let bed = match store {
        Store::Directory => running(2, 1),
        Store::Etcd => running_in(bare_on_etcd(2), 1),
        Store::Kube => running_in(bare_on_kube(2), 1),
    };
    let log = bed.node(1).file(&bed.node(1).log_file("flanneld"));
    let log_before = fs::metadata(&log).unwrap().len();
    let (cpu_before, start) = (bed.daemons[0].cpu_time().unwrap(), Instant::now());
    let pods = bed.pods_beyond(1);
    let (changes, sent, lost) = pinging_during(bed.pod_on(1).namespaces(), &pods, || {
        change(&bed.lab, store, lasts)
    });
    let used = bed.daemons[0].cpu_time().unwrap() - cpu_before;
    let share = used.as_secs_f64() / start.elapsed().as_secs_f64();

    let last: Vec<_> = (0..FLAPPING).map(|number| (number, Some(0))).collect();
    write(&bed.lab, store, &last);
    let all_there = || {
        let entries = run_all(bed.node(1), &["bridge fdb show dev flannel.1"]);
        let own = |number| entries.contains(&format!("{} dst {}", mac(number, 0), public_ip(number)));
        Ok((0..FLAPPING).all(own) && entries.matches("dst 192.0.2.").count() as u64 == FLAPPING)
    };
    let settled = wait_until("the last state", LONG, all_there).unwrap();
    let logged = fs::metadata(&log).unwrap().len() - log_before;
    println!(
        "{changes} changes in {:.1} s: {:.0} % of a core, {logged} bytes logged, settled {settled:?} later; \
         {lost} of {sent} pings lost",
        start.elapsed().as_secs_f64(),
        share * 100.0
    );
    assert!(share < 0.9, "{share}");
    assert!(
        logged < LOG_BYTES + LOG_BYTES_PER_SECOND * lasts.as_secs(),
        "{logged} bytes"
    );
    assert!(lost * 50 <= sent, "{lost} of {sent} pings lost");
    bed.assert_all_ping();
}

fn change(lab: &Lab, store: Store, lasts: Duration) -> u64 {
    // etcd answers some hundred requests a second on a busy machine.
    let at_once = match store {
        Store::Directory => 1,
        Store::Etcd | Store::Kube => 10,
    };
    let start = Instant::now();
    let mut changes = 0;
    while start.elapsed() < lasts {
        let some = (changes..changes + at_once).map(|change| match change / FLAPPING % 3 {
            2 => (change % FLAPPING, None),
            round => (change % FLAPPING, Some(round + 1)),
        });
        write(lab, store, &some.collect::<Vec<_>>());
        changes += at_once;
        let due = Duration::from_micros(changes * 1_000_000 / CHANGES_PER_SECOND);
        thread::sleep(due.saturating_sub(start.elapsed()));
    }
    changes
}

/// Writes the leases of peers that there are not, each with a MAC address of its round, and removes those without one.
fn write(lab: &Lab, store: Store, leases: &[(u64, Option<u64>)]) {
    let dir = lab.shared_file("leases/subnets");
    if store == Store::Kube {
        for (number, round) in leases {
            let node = format!("peer{number}");
            match round {
                Some(round) => {
                    let subnet = name(*number).replace('-', "/");
                    let peer = kube::peer(&node, &[&subnet], &public_ip(*number), &mac(*number, *round));
                    lab.put_kube_node(&peer).unwrap();
                }
                None => lab.remove_kube_node(&node).unwrap(),
            }
        }
        return;
    }
    if store == Store::Etcd {
        let change = |(number, round): &(u64, Option<u64>)| {
            let value = round.map(|round| value(&public_ip(*number), &mac(*number, round)));
            (format!("subnets/{}", name(*number)), value)
        };
        let changes: Vec<_> = leases.iter().map(change).collect();
        lab.change_in_etcd(&changes).unwrap();
        return;
    }
    for (number, round) in leases {
        match round {
            Some(round) => put(&dir, *number, *round),
            None => fs::remove_file(lease(&dir, *number)).unwrap(),
        }
    }
}

pub(crate) fn lease(dir: &Path, number: u64) -> PathBuf {
    dir.join(name(number))
}

/// Nodes get one of the first hundred subnets.
fn name(number: u64) -> String {
    format!("10.244.{}.0-24", 110 + number)
}

pub(crate) fn mac(number: u64, round: u64) -> String {
    format!("02:00:00:00:{round:02x}:{number:02x}")
}

fn public_ip(number: u64) -> String {
    format!("192.0.2.{}", number + 1)
}

/// Writes the lease of a peer that there is not, with a MAC address of this round.
pub(crate) fn put(dir: &Path, number: u64, round: u64) {
    put_lease(&lease(dir, number), &public_ip(number), &mac(number, round));
}

fn value(public_ip: &str, mac: &str) -> String {
    format!(
        r#"{{"PublicIP":"{public_ip}","PublicIPv6":null,"BackendType":"vxlan","BackendData":{{"VNI":1,"VtepMAC":"{mac}"}},"Expiration":"2099-01-01T00:00:00Z"}}"#
    )
}

fn put_lease(file: &Path, public_ip: &str, mac: &str) {
    let aside = file.with_file_name(".storm");
    fs::write(&aside, value(public_ip, mac)).unwrap();
    fs::rename(&aside, file).unwrap();
}

#[test]
fn a_copied_machine_gets_a_subnet_and_a_mac_address_of_its_own() {
    let lab = bare(3);
    let first = lab.node(1).unwrap().start_flanneld(&[]).unwrap();
    let copied = fs::read(lab.node(1).unwrap().file(SUBNET_FILE)).unwrap();
    drop(first);
    for number in [2, 3] {
        let file = lab.node(number).unwrap().file(SUBNET_FILE);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, &copied).unwrap();
    }
    let bed = running_in(lab, 1);
    let subnets: BTreeSet<_> = bed.subnets().into_iter().collect();
    let macs: BTreeSet<_> = bed
        .lab
        .nodes()
        .iter()
        .map(|node| node.vtep_mac().unwrap())
        .collect();
    assert_eq!((subnets.len(), macs.len()), (3, 3));
}

/// A cloned machine behind another's address translation: both daemons say so, with the first one's status and check.
#[test]
fn two_hosts_with_one_public_address_name_each_other() {
    for lab in [bare(2), bare_on_etcd(2)] {
        let [first, second] = [1, 2].map(|number| lab.node(number).unwrap());
        let flags = ["--iface=eth0", "--public-ip=192.168.77.100"];
        let _first = first.start_flanneld(&flags).unwrap();
        // Its device is there already, so that its MAC address stays.
        let device = "type vxlan id 1 local 192.168.77.12 dev eth0 dstport 8472 nolearning";
        run_all(
            second,
            &[&format!(
                "ip link add flannel.1 address 02:00:00:00:00:77 {device}"
            )],
        );
        let _second = second.start_flanneld(&flags).unwrap();
        assert_eq!(first.subnet().unwrap(), second.subnet().unwrap());
        let says = |node: &Node, what: &str| {
            wait_until(what, LONG, || Ok(node.log("flanneld")?.contains(what))).unwrap();
        };
        says(second, "both share one lease");
        says(first, "another host announces this node's lease");
        let asked = |command: &str| {
            let program = format!("{BIN_DIR}/flanneld");
            String::from_utf8(first.exec(&[&program, command]).unwrap().stdout).unwrap()
        };
        let status = asked("status");
        assert!(
            status.contains("announced by another host, with the VTEP MAC 02:00:00:00:00:77"),
            "{status}"
        );
        let check = asked("check");
        assert!(check.contains("[interface.shared-lease]"), "{check}");
    }
}

/// An address can be taken away by whoever manages the interface.
#[test]
fn a_node_that_loses_its_address_says_so_and_goes_on_with_it_when_it_is_back() {
    let bed = running(2, 1);
    let node = bed.node(1);
    let address = format!("{}/24", node.address());
    let says = |what: &str| wait_until(what, LONG, || Ok(node.log("flanneld")?.contains(what))).unwrap();
    run_all(node, &[&format!("ip address del {address} dev eth0")]);
    says("has lost the address that other nodes reach it by");
    let program = format!("{BIN_DIR}/flanneld");
    let check = node.exec(&[&program, "check"]).unwrap();
    let check = String::from_utf8(check.stdout).unwrap();
    assert!(check.contains("[interface.address-lost]"), "{check}");
    run_all(node, &[&format!("ip address add {address} dev eth0")]);
    says("the address that other nodes reach this host by is back");
    bed.assert_all_ping();
}

/// Each of them would break somebody's traffic; each is named once, however long it stays.
#[test]
fn leases_that_lie_are_refused_with_a_line_each_and_the_rest_goes_on() {
    let bed = running(2, 1);
    let dir = bed.lab.shared_file("leases/subnets");
    let (subnet, _) = bed.node(1).subnet().unwrap();
    let peer_mac = bed.node(2).vtep_mac().unwrap();
    let lies = [
        (
            "10.99.0.0-24".to_owned(),
            "192.0.2.1",
            "02:00:00:00:00:01",
            "outside the pod network",
        ),
        (
            format!("{subnet}-25"),
            "192.0.2.2",
            "02:00:00:00:00:02",
            "overlaps the subnet of this node",
        ),
        (
            "10.244.210.0-24".to_owned(),
            "192.0.2.3",
            peer_mac.as_str(),
            "the same VTEP MAC as the lease",
        ),
        (
            "10.244.211.0-24".to_owned(),
            "192.168.77.11",
            "02:00:00:00:00:04",
            "the public IP of this node",
        ),
        (
            "10.244.212.0-24".to_owned(),
            "127.0.0.1",
            "02:00:00:00:00:05",
            "not an address that packets",
        ),
    ];
    let before = bed.tunnel(1);
    for _ in 0..20 {
        for (name, ip, mac, _) in &lies {
            put_lease(&dir.join(name), ip, mac);
        }
    }
    put(&dir, 0, 0);
    wait_until("the one that is true", LONG, || {
        Ok(bed.tunnel(1).has("fdb", "192.0.2.1"))
    })
    .unwrap();
    fs::remove_file(lease(&dir, 0)).unwrap();
    wait_until("the tunnel to be as before", LONG, || Ok(bed.tunnel(1) == before)).unwrap();
    let log = bed.node(1).log("flanneld").unwrap();
    for (name, .., reason) in &lies {
        let lines = log
            .lines()
            .filter(|line| line.contains(name) && line.contains(reason));
        assert_eq!(lines.count(), 1, "{name}: {reason}\n{log}");
    }
    bed.assert_all_ping();
}
