//! Packet filter rules in each of their places: who is seen as whom, what is let through, and that neither ends for a
//! moment.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use conformance::lab::traffic::Mirror;
use conformance::lab::{Flanneld, Lab, Node, Pod, wait_until};
use nix::sys::signal::Signal;

use crate::support::{LONG, bare, run_all};

/// How often a daemon is restarted under traffic.
const RESTARTS: usize = 20;
/// How long each of them runs: longer than a start takes to look at rules and to change them.
const RUN: Duration = Duration::from_millis(200);

/// As long nothing changes before rules are flushed: iptables' tables, which others change all the time, are looked at
/// at once after quiet, and every five seconds otherwise.
const QUIET: Duration = Duration::from_secs(6);

/// Where the rules are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Nftables,
    IptablesNft,
    IptablesLegacy,
}

impl Mode {
    pub(crate) const ALL: [Self; 3] = [Self::Nftables, Self::IptablesNft, Self::IptablesLegacy];

    /// Prepares a lab on which no daemon runs for this mode.
    fn prepare(self, lab: &Lab) {
        self.configure(lab);
        for node in lab.nodes() {
            self.use_on(node);
        }
    }

    fn configure(self, lab: &Lab) {
        let in_nftables = self == Self::Nftables;
        let conf = format!(
            r#"{{"Network":"10.244.0.0/16","EnableNFTables":{in_nftables},"Backend":{{"Type":"vxlan"}}}}"#
        );
        fs::write(lab.shared_file("leases/config"), conf).unwrap();
    }

    /// Legacy iptables is what a daemon takes where others use it, and nothing else.
    pub(crate) fn use_on(self, node: &Node) {
        if self == Self::IptablesLegacy {
            run_all(node, &["iptables-legacy -A INPUT -s 192.0.2.1 -j DROP"]);
        }
    }

    /// Sets the policy of forwarding to drop, as Docker does.
    pub(crate) fn drop_forwarded(self, node: &Node) {
        match self {
            Self::Nftables => {}
            Self::IptablesNft => drop(run_all(node, &["iptables-nft -P FORWARD DROP"])),
            Self::IptablesLegacy => drop(run_all(node, &["iptables-legacy -P FORWARD DROP"])),
        }
    }

    /// Has the node's administrator except a destination from masquerading (docs/hosts.md).
    fn except(self, node: &Node, to: Ipv4Addr) {
        let pods = "10.244.0.0/16";
        let commands = match self {
            Self::Nftables => vec![
                "nft add table ip keep-source".to_owned(),
                "nft add chain ip keep-source post { type nat hook postrouting priority 99 ; }".to_owned(),
                format!("nft add rule ip keep-source post ip saddr {pods} ip daddr {to} snat to ip saddr"),
            ],
            Self::IptablesNft => vec![format!(
                "iptables-nft -t nat -I POSTROUTING -s {pods} -d {to} -j ACCEPT"
            )],
            Self::IptablesLegacy => vec![format!(
                "iptables-legacy -t nat -I POSTROUTING -s {pods} -d {to} -j ACCEPT"
            )],
        };
        let commands: Vec<_> = commands.iter().map(String::as_str).collect();
        run_all(node, &commands);
    }

    /// The flannel rules of a node that are in this place, as its program prints them.
    fn rules_on(self, node: &Node) -> Vec<String> {
        let (command, mark) = match self {
            Self::Nftables => ("nft --stateless list tables", "flannel"),
            Self::IptablesNft => ("iptables-nft-save", "FLANNEL"),
            Self::IptablesLegacy => ("iptables-legacy-save", "FLANNEL"),
        };
        let text = run_all(node, &[command]);
        let ours = text.lines().filter(|line| line.contains(mark));
        ours.map(str::to_owned).collect()
    }
}

/// Two nodes with a pod each, and a third node beside the pod network.
struct Stage {
    daemons: Vec<Flanneld>,
    pods: Vec<Pod>,
    outside: Mirror,
    lab: Lab,
}

impl Stage {
    fn new(mode: Mode) -> Self {
        let lab = bare(3);
        mode.prepare(&lab);
        let on = |number: u8| lab.node(number).unwrap();
        let daemons = [1, 2].map(|number| on(number).start_flanneld(&["--ip-masq"]).unwrap());
        let pods = [1, 2].map(|number| on(number).add_pod(&format!("n{number}-p1")).unwrap());
        let outside = Mirror::start(on(3).namespaces(), on(3).address()).unwrap();
        let stage = Self {
            daemons: daemons.into(),
            pods: pods.into(),
            outside,
            lab,
        };
        wait_until("the pods to reach each other", LONG, || {
            let mirror = Mirror::start(stage.pods[1].namespaces(), stage.pods[1].address())?;
            Ok(mirror.sees(stage.pods[0].namespaces()).is_ok())
        })
        .unwrap();
        stage
    }

    fn node(&self, number: u8) -> &Node {
        self.lab.node(number).unwrap()
    }

    /// Whom the outside sees when the first node's pod connects.
    fn seen_outside(&self) -> Option<IpAddr> {
        self.outside.sees(self.pods[0].namespaces()).ok()
    }

    /// Asserts that the outside saw the first node each time.
    fn assert_masqueraded(&self, seen: &[anyhow::Result<IpAddr>]) {
        let expected = IpAddr::V4(self.node(1).address());
        let wrong: Vec<_> = seen
            .iter()
            .filter(|seen| !matches!(seen, Ok(address) if *address == expected))
            .collect();
        assert!(
            wrong.is_empty(),
            "of {} connections {} failed or were not masqueraded, such as {:?}",
            seen.len(),
            wrong.len(),
            wrong[0]
        );
        assert!(seen.len() > 50, "only {} connections", seen.len());
    }
}

fn pods_leave_under_their_nodes_address(mode: Mode) {
    let stage = Stage::new(mode);
    let (node, pods) = (stage.node(1), &stage.pods);
    let sees = |mirror: &Mirror, pod: &Pod| mirror.sees(pod.namespaces()).unwrap();
    assert_eq!(sees(&stage.outside, &pods[0]), IpAddr::V4(node.address()));

    let remote = Mirror::start(pods[1].namespaces(), pods[1].address()).unwrap();
    assert_eq!(sees(&remote, &pods[0]), IpAddr::V4(pods[0].address()));
    let (subnet, length) = node.subnet().unwrap();
    assert_eq!(remote.sees(node.namespaces()).unwrap(), IpAddr::V4(subnet));

    let bridge = Ipv4Addr::from_bits(subnet.to_bits() + 1);
    let local = Mirror::start(pods[0].namespaces(), pods[0].address()).unwrap();
    assert_eq!(local.sees(node.namespaces()).unwrap(), IpAddr::V4(bridge));
    let on_node = Mirror::start(node.namespaces(), node.address()).unwrap();
    assert_eq!(sees(&on_node, &pods[0]), IpAddr::V4(pods[0].address()));

    // Who is not to be masqueraded to must know the way back.
    let way_back = format!("ip route add {subnet}/{length} via {}", node.address());
    run_all(stage.node(3), &[&way_back]);
    mode.except(node, stage.node(3).address());
    assert_eq!(sees(&stage.outside, &pods[0]), IpAddr::V4(pods[0].address()));

    assert_eq!(node.subnet_env("FLANNEL_IPMASQ").unwrap(), "true");
    for place in Mode::ALL {
        assert_eq!(
            !place.rules_on(node).is_empty(),
            place == mode,
            "rules in {place:?}"
        );
    }
}

#[test]
fn pods_leave_under_their_nodes_address_in_nf_tables() {
    pods_leave_under_their_nodes_address(Mode::Nftables);
}

#[test]
fn pods_leave_under_their_nodes_address_in_iptables() {
    pods_leave_under_their_nodes_address(Mode::IptablesNft);
}

#[test]
fn pods_leave_under_their_nodes_address_in_legacy_iptables() {
    pods_leave_under_their_nodes_address(Mode::IptablesLegacy);
}

#[test]
fn a_policy_that_drops_what_is_forwarded_does_not_stop_pods() {
    for mode in [Mode::IptablesNft, Mode::IptablesLegacy] {
        let stage = Stage::new(mode);
        for number in [1, 2] {
            mode.drop_forwarded(stage.node(number));
        }
        let remote = Mirror::start(stage.pods[1].namespaces(), stage.pods[1].address()).unwrap();
        assert!(remote.sees(stage.pods[0].namespaces()).is_ok(), "{mode:?}");
        assert_eq!(
            stage.seen_outside(),
            Some(IpAddr::V4(stage.node(1).address())),
            "{mode:?}"
        );
    }
}

/// Each second start wants other rules, so that they are replaced and not only looked at.
fn no_connection_is_lost_while_the_daemon_restarts(mode: Mode) {
    let mut stage = Stage::new(mode);
    mode.drop_forwarded(stage.node(1));
    let mut daemon = stage.daemons.remove(0);
    let (_daemon, seen) = stage
        .outside
        .sees_during(stage.pods[0].namespaces(), || {
            for restart in 0..RESTARTS {
                let signal = [Signal::SIGTERM, Signal::SIGKILL][restart / 2 % 2];
                daemon.signal(signal).unwrap();
                daemon.wait(LONG).unwrap();
                let randomness = format!("--ip-masq-fully-random-disable={}", restart % 2 == 0);
                daemon = stage.node(1).start_flanneld(&["--ip-masq", &randomness]).unwrap();
                std::thread::sleep(RUN);
            }
            daemon
        })
        .unwrap();
    println!("{mode:?}: {} connections during {RESTARTS} restarts", seen.len());
    stage.assert_masqueraded(&seen);
}

#[test]
fn no_connection_is_lost_while_the_daemon_restarts_in_nf_tables() {
    no_connection_is_lost_while_the_daemon_restarts(Mode::Nftables);
}

#[test]
fn no_connection_is_lost_while_the_daemon_restarts_in_iptables() {
    no_connection_is_lost_while_the_daemon_restarts(Mode::IptablesNft);
}

#[test]
fn no_connection_is_lost_while_the_daemon_restarts_in_legacy_iptables() {
    no_connection_is_lost_while_the_daemon_restarts(Mode::IptablesLegacy);
}

#[test]
fn rules_that_somebody_flushes_are_mended() {
    let flushes = [
        (Mode::Nftables, "nft flush ruleset"),
        (Mode::IptablesNft, "nft flush ruleset"),
        (Mode::IptablesNft, "iptables-nft -t nat -F"),
        (Mode::IptablesLegacy, "iptables-legacy -t nat -F"),
    ];
    for (mode, flush) in flushes {
        let stage = Stage::new(mode);
        let node = stage.node(1);
        let before = mode.rules_on(node);
        std::thread::sleep(QUIET);
        run_all(node, &[flush]);
        let start = Instant::now();
        wait_until("the rules to be back", LONG, || Ok(mode.rules_on(node) == before)).unwrap();
        println!("{mode:?}, `{flush}`: mended after {:?}", start.elapsed());
        let expected = Some(IpAddr::V4(node.address()));
        assert_eq!(stage.seen_outside(), expected, "{mode:?} after `{flush}`");
    }
}

#[test]
fn a_switch_to_another_place_leaves_nothing_behind_and_loses_no_connection() {
    let mut stage = Stage::new(Mode::Nftables);
    let mut daemon = stage.daemons.remove(0);
    let modes = [
        Mode::IptablesNft,
        Mode::Nftables,
        Mode::IptablesLegacy,
        Mode::Nftables,
    ];
    let (_daemon, seen) = stage
        .outside
        .sees_during(stage.pods[0].namespaces(), || {
            for mode in modes {
                daemon.stop(LONG).unwrap();
                mode.configure(&stage.lab);
                mode.use_on(stage.node(1));
                daemon = stage.node(1).start_flanneld(&["--ip-masq"]).unwrap();
                wait_until("the other place to be clean", LONG, || {
                    let full = |place: &Mode| !place.rules_on(stage.node(1)).is_empty();
                    Ok(Mode::ALL.iter().filter(|place| full(place)).eq([&mode]))
                })
                .unwrap();
                std::thread::sleep(RUN);
            }
            daemon
        })
        .unwrap();
    println!("{} connections during {} switches", seen.len(), modes.len());
    stage.assert_masqueraded(&seen);
}

#[test]
fn pods_start_and_reach_each_other_where_rules_cannot_be_made() {
    let lab = bare(2);
    Mode::Nftables.prepare(&lab);
    let node = lab.node(1).unwrap();
    // A table that a process owns may be changed by nobody else (nft(8), flags owner).
    let script = "(echo 'add table ip flannel-ipv4 { flags owner; }'; sleep 600) | nft -i";
    let owner = node.spawn(&["sh", "-c", script], "owner").unwrap();
    let owned = || Ok(run_all(node, &["nft list tables"]).contains("flannel-ipv4"));
    wait_until("a table that is owned", LONG, owned).unwrap();

    let daemons: Vec<_> = lab
        .nodes()
        .iter()
        .map(|node| node.start_flanneld(&["--ip-masq"]).unwrap())
        .collect();
    let pods = [1, 2].map(|number| {
        lab.node(number)
            .unwrap()
            .add_pod(&format!("n{number}-p1"))
            .unwrap()
    });
    let remote = Mirror::start(pods[1].namespaces(), pods[1].address()).unwrap();
    wait_until("the pods to reach each other", LONG, || {
        Ok(remote.sees(pods[0].namespaces()).is_ok())
    })
    .unwrap();
    let log = node.log("flanneld").unwrap();
    let told = log
        .lines()
        .filter(|line| line.contains("WARN") || line.contains("ERROR"))
        .any(|line| line.contains("flannel-ipv4"));
    assert!(told, "the log does not say that the rules cannot be made:\n{log}");
    drop((daemons, owner));
}
