//! What needs a kernel that this machine may not have. All cases share two guests, which boot once.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use conformance::guest::{Guest, GuestLab, POD_CONF};
use conformance::lab::Binaries;

mod bridge_vlan;
mod ipip;
mod ipvs;
mod kernel;
mod mtu;
mod rules;
mod scenarios;
mod vxlan;
mod wireguard;
mod wireguard_backend;
mod wireguard_roaming;

/// What the kernel may need under emulation to do what the daemon was told.
const LIMIT: Duration = Duration::from_secs(60);

/// What a program of tests may need under emulation on a busy machine.
const PROGRAM_LIMIT: Duration = Duration::from_secs(180);

/// How often the pods ask for an answer while something is done.
const PING_INTERVAL_SECS: f64 = 0.2;

/// Sets up services of IPVS (Debian's package ipvsadm).
const IPVSADM: &str = "/usr/sbin/ipvsadm";

/// Tests of other crates, which assert more where the kernel has what they are about.
const TEST_PROGRAMS: [TestProgram; 4] = [WIREGUARD, IPIP, BRIDGE_VLANS, SCENARIOS];
const WIREGUARD: TestProgram = TestProgram::new("netlink", "wireguard");
const IPIP: TestProgram = TestProgram::new("netlink", "ipip");
const BRIDGE_VLANS: TestProgram = TestProgram::new("cni-plugin", "bridge_vlans");
const SCENARIOS: TestProgram = TestProgram::new("flanneld-rs", "scenarios");

/// A program of tests, as cargo builds it beside this one.
#[derive(Clone, Copy)]
struct TestProgram {
    package: &'static str,
    name: &'static str,
}

impl TestProgram {
    const fn new(package: &'static str, name: &'static str) -> Self {
        Self { package, name }
    }
}

/// The guests, for one case at a time. Everything of them ends with this process, because the lab does.
fn guests() -> MutexGuard<'static, GuestLab> {
    // A boot that failed is not tried again by every case.
    static GUESTS: OnceLock<Result<Mutex<GuestLab>, String>> = OnceLock::new();
    let guests = GUESTS.get_or_init(|| {
        let tests = TEST_PROGRAMS.into_iter().filter_map(newest_build);
        let programs: Vec<_> = tests.chain([PathBuf::from(IPVSADM)]).collect();
        let lab = Binaries::find().and_then(|binaries| GuestLab::start(2, &binaries, &programs));
        let lab = lab.map_err(|error| format!("{error:#}"))?;
        println!("two guests ran commands after {:.1} s", lab.took().as_secs_f64());
        Ok(Mutex::new(lab))
    });
    let guests = guests.as_ref().unwrap_or_else(|error| panic!("{error}"));
    guests.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends what a case started on a guest, whatever state it is in: daemon, pods, devices, files, rules.
fn clean(guest: &mut Guest) {
    guest
        .sh("kill -9 $(cat /run/flanneld.pid 2>/dev/null) 2>/dev/null
            kill -9 $(cat /run/httpd.pid 2>/dev/null) 2>/dev/null
            for pod in $(ls /run/netns); do ip netns del $pod; done
            for link in flannel.1 flannel-v6.1 flannel-wg flannel-wg-v6 flannel.ipip cni0 cni5 kube-ipvs0; do ip link del $link 2>/dev/null; done
            nft flush ruleset
            test ! -e /proc/net/ip_vs || /opt/cni/bin/ipvsadm -C
            rmmod br_netfilter 2>/dev/null
            rm -rf /run/flannel /var/lib/flannel /var/lib/cni /run/flanneld.* /run/httpd.pid
            true")
        .unwrap();
}

/// Starts a daemon and a pod on each of the guests, from nothing; returns the pods' addresses.
fn start_with_pods(lab: &mut GuestLab, flags: &str) -> [Vec<IpAddr>; 2] {
    [1, 2].map(|number| {
        let guest = lab.guest(number).unwrap();
        clean(guest);
        guest.start_flanneld(flags).unwrap();
        guest.add_pod("pod", POD_CONF).unwrap()
    })
}

/// Detaches the pods and ends the daemons.
fn end_with_pods(lab: &mut GuestLab) {
    for number in 1..=2 {
        let guest = lab.guest(number).unwrap();
        guest.delete_pod("pod", POD_CONF).unwrap();
        guest.stop_flanneld().unwrap();
        clean(guest);
    }
}

fn restart(guest: &mut Guest, flags: &str) {
    guest.stop_flanneld().unwrap();
    guest.start_flanneld(flags).unwrap();
}

/// Waits until a guest's pod reaches an address with packets of so many bytes.
fn reaches(guest: &mut Guest, address: IpAddr, bytes: u16) {
    let ping = format!("ip netns exec pod busybox ping -c 1 -W 2 -s {bytes} {address}");
    if let Err(error) = guest.wait_for(&ping, LIMIT) {
        let state = guest
            .sh("ip -d link; ip route; ip -6 route; tail -n 30 /run/flanneld.log")
            .unwrap();
        panic!("{address}: {error:#}\n{state}");
    }
}

/// Writes a network configuration for a case, whose leases are its own.
fn configure(lab: &GuestLab, case: &str, net_conf: &str) -> String {
    lab.lab()
        .put_in_etcd(&format!("{case}/config"), net_conf, None)
        .unwrap();
    format!("--etcd-prefix=/coreos.com/network/{case}")
}

/// The newest build of a program of tests, if there is one.
fn newest_build(program: TestProgram) -> Option<PathBuf> {
    builds_of(program).pop()
}

/// The builds of a program of tests, in the order of their ages.
fn builds_of(program: TestProgram) -> Vec<PathBuf> {
    let this = std::env::current_exe().unwrap();
    let built = fs::read_dir(this.parent().unwrap())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let is_it = |path: &PathBuf| {
        let file = path.file_name().unwrap().to_string_lossy().into_owned();
        let hash = file
            .strip_prefix(program.name)
            .and_then(|rest| rest.strip_prefix('-'));
        hash.is_some() && path.extension().is_none()
    };
    let mut builds: Vec<_> = built.filter(is_it).collect();
    builds.sort_by_key(|path| fs::metadata(path).unwrap().modified().unwrap());
    builds
}

/// Runs a program of tests in a guest, all of whose tests must pass; returns what they print, and the kernel's modules after it.
fn run_test_program(guest: &mut Guest, program: TestProgram, arguments: &str) -> String {
    let TestProgram { package, name } = program;
    let build = newest_build(program);
    let build =
        build.unwrap_or_else(|| panic!("first build it: cargo test -p {package} --test {name} --no-run"));
    let file = build.file_name().unwrap().to_string_lossy();
    let run = format!("/opt/cni/bin/{file} --nocapture {arguments} && lsmod");
    let answer = guest.exec(&run, PROGRAM_LIMIT).unwrap();
    assert_eq!(answer.status, 0, "{}{}", answer.stdout, answer.stderr);
    answer.stdout
}

/// Of what the pod of a node sends to an address from before something is done until after it, nothing is lost.
fn loses_nothing(lab: &mut GuestLab, number: u8, address: IpAddr, done: impl FnOnce(&mut GuestLab)) {
    let lost = requests_lost(lab, number, address, done);
    assert_eq!(lost, [0; 0], "some of the requests had no answer");
}

/// The numbers of the requests that had no answer, of those that the pod of a node sends to an address from before something
/// is done until one after it is answered.
fn requests_lost(
    lab: &mut GuestLab,
    number: u8,
    address: IpAddr,
    done: impl FnOnce(&mut GuestLab),
) -> Vec<usize> {
    let guest = lab.guest(number).unwrap();
    guest
        .sh(&format!(
            "ip netns exec pod busybox ping -i {PING_INTERVAL_SECS} {address} >/run/ping.out 2>&1 </dev/null &
             echo $! >/run/ping.pid"
        ))
        .unwrap();
    answers(guest, 1);
    done(lab);
    let guest = lab.guest(number).unwrap();
    let during = answers(guest, 1);
    let answered = answers(guest, during.len() + 1);
    guest.sh("kill $(cat /run/ping.pid)").unwrap();
    let last = *answered.last().unwrap();
    (0..last).filter(|number| !answered.contains(number)).collect()
}

/// Waits until the pod's requests have so many answers, and returns the numbers of those that have.
fn answers(guest: &mut Guest, least: usize) -> Vec<usize> {
    let enough = format!("test $(grep -c seq= /run/ping.out) -ge {least}");
    guest.wait_for(&enough, LIMIT).unwrap();
    let said = guest.sh("cat /run/ping.out").unwrap();
    let number = |line: &str| line.split_once("seq=")?.1.split(' ').next()?.parse().ok();
    said.lines().filter_map(number).collect()
}
