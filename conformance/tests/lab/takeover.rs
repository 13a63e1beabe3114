//! From upstream's daemon to ours and back, and from ours to ours, under traffic: nothing is lost, and what is left suits
//! the other.

use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use conformance::lab::traffic::{Count, End, Mirror, dropped_when_busy, stream_during};
use conformance::lab::{BIN_DIR, Flanneld, Lab, Node, Pod, copy_program};
use nix::sys::signal::Signal;

use crate::rules::Mode;
use crate::support::{LONG, bare_on_etcd, run_all};
use crate::upstream::{Upstream, device_routes};

/// How long traffic runs on after each step, and without one.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Where our rules differ from upstream's on the first node, by decision: the mark is compared by its bit, as in
/// iptables; the third `return` says what iptables says; and there is no empty table of a family that is not used.
const DECIDED_IN_NFTABLES: &[(&str, &str)] = &[
    (
        "meta mark 0x00004000 return",
        "meta mark & 0x00004000 == 0x00004000 return",
    ),
    (
        "ip saddr != 10.244.4.0/24 ip daddr 10.244.0.0/16 return",
        "ip saddr != 10.244.0.0/16 ip daddr 10.244.4.0/24 return",
    ),
    (
        "table ip6 flannel-ipv6 {\n\tcomment \"rules for flannel-ipv6\"\n}",
        "",
    ),
];

fn decided(mode: Mode) -> &'static [(&'static str, &'static str)] {
    match mode {
        Mode::Nftables => DECIDED_IN_NFTABLES,
        Mode::IptablesNft | Mode::IptablesLegacy => &[],
    }
}

/// Three nodes as upstream left them, with pods on two; a fourth is beside the pod network.
struct Stage {
    pods: [Pod; 2],
    outside: Mirror,
    lab: Lab,
    losses: Vec<Losses>,
}

/// What a step cost.
struct Losses {
    name: &'static str,
    /// From the first pod to the second, and back.
    counts: [Count; 2],
    connections: usize,
    /// Packets that the machine dropped because it was busy; of which stream is not known.
    dropped: usize,
    /// Connections that failed, or whose source was not the first node.
    wrong: usize,
}

impl Stage {
    fn new(mode: Mode) -> Self {
        let lab = bare_on_etcd(4);
        let upstream = Upstream::of(mode);
        upstream.rebuild_etcd(&lab);
        for number in 1..=3 {
            let node = lab.node(number).unwrap();
            upstream.rebuild_node(node);
            upstream.assert_device_as_captured(node);
            upstream.assert_rules_as_captured(node, &[]);
            mode.drop_forwarded(node);
        }
        let pods = [1, 2].map(|number| {
            lab.node(number)
                .unwrap()
                .add_pod(&format!("n{number}-p1"))
                .unwrap()
        });
        let beside = lab.node(4).unwrap();
        let outside = Mirror::start(beside.namespaces(), beside.address()).unwrap();
        let stage = Self {
            pods,
            outside,
            lab,
            losses: Vec::new(),
        };
        let remote = Mirror::start(stage.pods[1].namespaces(), stage.pods[1].address()).unwrap();
        let seen = remote.sees(stage.pods[0].namespaces()).unwrap();
        assert_eq!(seen, IpAddr::V4(stage.pods[0].address()));
        stage
    }

    fn node(&self, number: u8) -> &Node {
        self.lab.node(number).unwrap()
    }

    /// Takes a step under traffic, between the pods both ways and from the first one to the outside.
    fn step<T>(&mut self, name: &'static str, action: impl FnOnce(&Lab) -> T) -> T {
        let [near, far] = &self.pods;
        let end = |pod| -> End<'_> {
            let pod: &Pod = pod;
            End {
                namespaces: pod.namespaces(),
                address: pod.address().into(),
            }
        };
        let ends = [end(near), end(far)];
        let dropped_before = dropped_when_busy().unwrap();
        let ((result, counts), seen) = self
            .outside
            .sees_during(near.namespaces(), || {
                let act = || {
                    let result = action(&self.lab);
                    std::thread::sleep(AFTERWARDS);
                    result
                };
                stream_during(ends[0], ends[1], act).unwrap()
            })
            .unwrap();
        let dropped = dropped_when_busy().unwrap() - dropped_before;
        let expected = IpAddr::V4(self.node(1).address());
        let is_wrong = |seen: &&anyhow::Result<IpAddr>| !matches!(seen, Ok(address) if *address == expected);
        let wrong = seen.iter().filter(is_wrong).count();
        let lost = counts.map(Count::lost);
        println!(
            "{name:<40} {:>6} packets, {} and {} lost, {dropped} by a busy machine; {:>5} connections, {wrong} wrong",
            counts[0].sent + counts[1].sent,
            lost[0],
            lost[1],
            seen.len()
        );
        assert!(
            counts.iter().all(|count| count.sent > 300),
            "{name}: hardly a stream: {counts:?}"
        );
        self.losses.push(Losses {
            name,
            counts,
            dropped,
            connections: seen.len(),
            wrong,
        });
        result
    }

    /// Asserts that no step lost more than the first one, in which nothing happened, but for what the machine dropped by
    /// its own count.
    fn assert_nothing_lost(&self) {
        let control = &self.losses[0];
        for step in &self.losses {
            let name = step.name;
            for (count, control) in step.counts.iter().zip(control.counts) {
                assert!(
                    count.lost() <= control.lost() + step.dropped,
                    "{name}: {count:?}, and {control:?} without a step"
                );
            }
            assert!(
                step.connections > 20,
                "{name}: only {} connections",
                step.connections
            );
            assert!(step.wrong <= control.wrong, "{name}: {} connections", step.wrong);
        }
    }
}

fn start(lab: &Lab, number: u8) -> Flanneld {
    let node = lab.node(number).unwrap();
    node.start_flanneld(&["--ip-masq"]).unwrap()
}

fn end(daemon: &mut Flanneld, signal: Signal) {
    daemon.signal(signal).unwrap();
    daemon.wait(LONG).unwrap();
}

/// Puts another file in the place of the running program's, as a package manager does.
fn upgrade(lab: &Lab) {
    let program = lab.node(1).unwrap().file(&format!("{BIN_DIR}/flanneld"));
    let next = program.with_extension("next");
    copy_program(&program, &next).unwrap();
    fs::rename(&next, &program).unwrap();
}

fn a_node_is_taken_over_and_given_back_without_a_loss(mode: Mode) {
    let upstream = Upstream::of(mode);
    let mut stage = Stage::new(mode);
    stage.step("nothing", |_| ());
    let mut daemon = stage.step("upstream's to ours", |lab| start(lab, 1));
    let assert_as_upstreams = |stage: &Stage, number| {
        upstream.assert_device_as_captured(stage.node(number));
        let (name, value) = upstream.lease(stage.node(number));
        assert_eq!(stage.lab.lease_in_etcd(&name).unwrap(), Some(value));
    };
    assert_as_upstreams(&stage, 1);
    upstream.assert_rules_as_captured(stage.node(1), decided(mode));

    let other = stage.step("the other node's as well", |lab| start(lab, 2));
    assert_as_upstreams(&stage, 2);
    daemon = stage.step("restart after SIGTERM", |lab| {
        end(&mut daemon, Signal::SIGTERM);
        start(lab, 1)
    });
    daemon = stage.step("restart after SIGKILL", |lab| {
        end(&mut daemon, Signal::SIGKILL);
        start(lab, 1)
    });
    daemon = stage.step("restart with another program", |lab| {
        upgrade(lab);
        end(&mut daemon, Signal::SIGTERM);
        start(lab, 1)
    });
    stage.step("ours ends", |_| end(&mut daemon, Signal::SIGTERM));

    assert_as_upstreams(&stage, 1);
    upstream.assert_rules_as_captured(stage.node(1), decided(mode));
    let routes = run_all(stage.node(1), &["ip route show"]);
    assert_eq!(device_routes(&routes), upstream.routes_after_sigterm());
    stage.assert_nothing_lost();
    drop(other);
}

#[test]
fn a_node_is_taken_over_and_given_back_without_a_loss_in_nf_tables() {
    a_node_is_taken_over_and_given_back_without_a_loss(Mode::Nftables);
}

#[test]
fn a_node_is_taken_over_and_given_back_without_a_loss_in_iptables() {
    a_node_is_taken_over_and_given_back_without_a_loss(Mode::IptablesNft);
}

#[test]
fn a_node_is_taken_over_and_given_back_without_a_loss_in_legacy_iptables() {
    a_node_is_taken_over_and_given_back_without_a_loss(Mode::IptablesLegacy);
}

#[test]
fn a_gap_of_a_fifth_of_a_second_would_be_noticed() {
    let gap = || std::thread::sleep(Duration::from_millis(200));
    let mut stage = Stage::new(Mode::Nftables);
    let (subnet, length) = stage.node(2).subnet().unwrap();
    let route = format!("{subnet}/{length} via {subnet} dev flannel.1 onlink");
    stage.step("a route that is missed", |lab| {
        let node = lab.node(1).unwrap();
        run_all(node, &[&format!("ip route del {route}")]);
        gap();
        run_all(node, &[&format!("ip route add {route}")]);
    });
    stage.step("rules that are missed", |lab| {
        let node = lab.node(1).unwrap();
        run_all(node, &["nft flush chain ip flannel-ipv4 postrtg"]);
        gap();
        run_all(node, &["nft -f /run/upstream-rules"]);
    });
    let [there, _] = stage.losses[0].counts;
    assert!(there.lost() > 10, "{there:?}");
    assert!(stage.losses[1].wrong > 0);
}
