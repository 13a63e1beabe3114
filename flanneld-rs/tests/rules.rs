//! The node's packet filter rules on the real kernel: made, mended, taken over, cleaned up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use flanneld_rs::desired::{
    FilterMode, Masquerade, Network, RuleSettings, rules, rules_scope, rules_scope_of,
};
use flanneld_rs::rules_kernel::RulesKernel;
use netstate::iptables::IptablesVariant;
use netstate::{Kernel, Op, Prune, State, plan};
use nix::sched::{CloneFlags, unshare};

const NFT: FilterMode = FilterMode::Nftables;
const IPTABLES_NFT: FilterMode = FilterMode::Iptables(IptablesVariant::Nft);
const IPTABLES_LEGACY: FilterMode = FilterMode::Iptables(IptablesVariant::Legacy);
const MODES: [FilterMode; 3] = [NFT, IPTABLES_NFT, IPTABLES_LEGACY];

/// What upstream made for this node in one capture, and for another in the other.
const UPSTREAM_NFT: &str =
    include_str!("../../conformance/data/captures/vxlan-dualstack-nftables/node1-nft-ruleset.txt");
const UPSTREAM_IPTABLES: &str =
    include_str!("../../conformance/data/captures/vxlan-iptables/node1-iptables-save.txt");

#[test]
fn rules_are_made_as_wanted_in_one_go_and_stay() {
    for mode in MODES {
        let mut kernel = fresh();
        let wanted = rules(all(mode), &both_families());
        assert_eq!(settle(&mut kernel, &wanted), 1, "{mode:?}");
        assert_eq!(settle(&mut kernel, &wanted), 0, "{mode:?}");
    }
}

#[test]
fn the_programs_print_the_rules_as_upstream_documents_them() {
    let mut kernel = fresh();
    settle(&mut kernel, &rules(all(NFT), &both_families()));
    let text = output("nft", &["list", "ruleset"]);
    for line in [
        "comment \"rules for flannel-ipv4\"",
        "type nat hook postrouting priority srcnat; policy accept;",
        "meta mark & 0x00004000 == 0x00004000 return",
        "ip saddr 10.244.57.0/24 ip daddr 10.244.0.0/16 return",
        "ip saddr 10.244.0.0/16 ip daddr 10.244.57.0/24 return",
        "ip saddr != 10.244.0.0/16 ip daddr 10.244.57.0/24 return",
        "ip saddr 10.244.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random",
        "ip saddr != 10.244.0.0/16 ip daddr 10.244.0.0/16 masquerade fully-random",
        "ip6 saddr fd00:10:244::/48 ip6 daddr != ff00::/8 masquerade fully-random",
        "ip6 daddr fd00:10:244::/48 accept",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    for (mode, save) in [
        (IPTABLES_NFT, "iptables-nft-save"),
        (IPTABLES_LEGACY, "iptables-legacy-save"),
    ] {
        let mut kernel = fresh();
        settle(&mut kernel, &rules(all(mode), &[v4("10.244.58.0/24")]));
        let printed = |text: &str| {
            let ours = text
                .lines()
                .filter(|line| line.contains("FLANNEL") && line.starts_with("-A"));
            let mut ours: Vec<_> = ours.map(str::to_owned).collect();
            ours.sort();
            ours
        };
        assert_eq!(printed(&output(save, &[])), printed(UPSTREAM_IPTABLES));
    }
}

#[test]
fn upstreams_iptables_rules_are_taken_over_without_a_change() {
    let mut kernel = fresh();
    feed("iptables-nft-restore", UPSTREAM_IPTABLES);
    let wanted = rules(all(IPTABLES_NFT), &[v4("10.244.58.0/24")]);
    assert_eq!(settle(&mut kernel, &wanted), 0);
}

#[test]
fn upstreams_nft_tables_are_made_over_at_one_instant() {
    let mut kernel = fresh();
    feed("nft", UPSTREAM_NFT);
    let wanted = rules(all(NFT), &both_families());
    let observed = kernel.observe(&rules_scope()).unwrap();
    let ops = plan(&wanted, &observed, Prune::Remove);
    assert!(
        matches!(ops.as_slice(), [Op::SetNftTable(..), Op::SetNftTable(..)]),
        "{ops:?}"
    );
    assert_eq!(settle(&mut kernel, &wanted), 1);
}

#[test]
fn order_duplicates_and_foreign_insertions_are_mended() {
    let breakages: [(FilterMode, &str, &[&str]); 9] = [
        (NFT, "nft", &["flush ruleset"]),
        (NFT, "nft", &["delete chain ip flannel-ipv4 forward"]),
        (
            NFT,
            "nft",
            &["insert rule ip flannel-ipv4 postrtg ip saddr 10.0.0.0/8 return"],
        ),
        (
            NFT,
            "nft",
            &["add rule ip flannel-ipv4 forward ip saddr 10.244.0.0/16 accept"],
        ),
        (IPTABLES_NFT, "iptables-nft", &["-t nat -F FLANNEL-POSTRTG"]),
        (
            IPTABLES_NFT,
            "iptables-nft",
            &["-t nat -A POSTROUTING -m comment --comment x -j FLANNEL-POSTRTG"],
        ),
        (
            IPTABLES_NFT,
            "iptables-nft",
            &["-t nat -I FLANNEL-POSTRTG -j RETURN"],
        ),
        (IPTABLES_LEGACY, "iptables-legacy", &["-F FORWARD"]),
        (
            IPTABLES_LEGACY,
            "iptables-legacy",
            &["-F FORWARD", "-F FLANNEL-FWD", "-X FLANNEL-FWD"],
        ),
    ];
    for (mode, program, commands) in breakages {
        let mut kernel = fresh();
        let wanted = rules(all(mode), &both_families());
        settle(&mut kernel, &wanted);
        for command in commands {
            let words: Vec<_> = command.split(' ').collect();
            output(program, &words);
        }
        assert_eq!(settle(&mut kernel, &wanted), 1, "{commands:?}");
    }
}

#[test]
fn a_change_of_mode_cleans_the_other_up_and_leaves_strangers_alone() {
    for from in MODES {
        for to in MODES.into_iter().filter(|to| *to != from) {
            let mut kernel = fresh();
            let strangers = |kernel: &mut Kept| kernel.strangers();
            output(
                "iptables-nft",
                &["-A", "FORWARD", "-s", "192.0.2.1", "-j", "DROP"],
            );
            output(
                "iptables-legacy",
                &["-A", "FORWARD", "-s", "192.0.2.2", "-j", "DROP"],
            );
            output("nft", &["add", "table", "inet", "stranger"]);
            let before = strangers(&mut kernel);
            settle(&mut kernel, &rules(all(from), &both_families()));
            settle(&mut kernel, &rules(all(to), &both_families()));
            let left = kernel.observe(&rules_scope_of(from)).unwrap();
            let shared = rules(all(to), &both_families());
            assert!(
                left.nft.keys().all(|key| shared.nft.contains_key(key)) && left.iptables.is_empty()
                    || left == shared,
                "{from:?} to {to:?} leaves {left:?}"
            );
            settle(&mut kernel, &State::default());
            assert_eq!(strangers(&mut kernel), before, "{from:?} to {to:?}");
        }
    }
}

#[test]
fn legacy_tables_that_no_program_here_can_read_are_nobodys_of_ours() {
    let mut kernel = fresh();
    output("iptables-legacy", &["-t", "nat", "-S"]);
    put_over("/usr/sbin/xtables-legacy-multi", Path::new("/dev/null"));
    let wanted = rules(all(NFT), &both_families());
    assert_eq!(settle(&mut kernel, &wanted), 1);
}

#[test]
fn a_variant_without_names_of_its_own_is_found_under_the_plain_ones() {
    let mut kernel = fresh();
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(
        "/usr/sbin/xtables-nft-multi",
        folder.path().join("xtables-nft-multi"),
    )
    .unwrap();
    for name in ["iptables", "iptables-save", "iptables-restore"] {
        std::os::unix::fs::symlink("xtables-nft-multi", folder.path().join(name)).unwrap();
    }
    put_over("/usr/sbin", folder.path());
    let wanted = rules(all(IPTABLES_NFT), &[v4("10.244.58.0/24")]);
    assert_eq!(settle(&mut kernel, &wanted), 1);
    assert!(output("iptables-save", &["-t", "nat"]).contains("-j FLANNEL-POSTRTG"));
}

/// Puts a file or folder over another for the calling thread, in mounts of its own.
fn put_over(place: &str, other: &Path) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    output("mount", &["--make-rprivate", "/"]);
    output("mount", &["--bind", other.to_str().unwrap(), place]);
}

/// The rules of a new namespace of the calling thread.
struct Kept(RulesKernel);

impl Kept {
    fn observe(&mut self, scope: &netstate::Scope) -> Result<State, netstate::KernelError> {
        self.0.observe(scope)
    }

    /// What others hold, as the programs print it.
    fn strangers(&self) -> Vec<String> {
        let texts = [
            output("nft", &["list", "tables"]),
            output("iptables-nft", &["-S"]),
            output("iptables-legacy", &["-S"]),
        ];
        let lines = texts.iter().flat_map(|text| text.lines());
        let is_rule = |line: &&str| line.starts_with("-A") || line.contains("stranger");
        lines.filter(is_rule).map(str::to_owned).collect()
    }
}

fn fresh() -> Kept {
    unshare(CloneFlags::CLONE_NEWNET).expect("the tests of the rules need root");
    Kept(RulesKernel::open())
}

/// Plans and applies until nothing is left to do; returns how many times something was.
fn settle(kernel: &mut Kept, wanted: &State) -> usize {
    for rounds in 0..3 {
        let observed = kernel.observe(&rules_scope()).unwrap();
        let ops = plan(wanted, &observed, Prune::Remove);
        if ops.is_empty() {
            return rounds;
        }
        for (op, result) in ops.iter().zip(kernel.0.apply(&ops)) {
            result.unwrap_or_else(|err| panic!("{op}: {err}"));
        }
    }
    panic!("the rules do not come to rest");
}

fn all(mode: FilterMode) -> RuleSettings {
    RuleSettings {
        mode,
        masquerade: Masquerade::FullyRandom,
        forward: true,
    }
}

fn both_families() -> Vec<Network> {
    let v6 = Network {
        cluster: "fd00:10:244::/48".parse().unwrap(),
        subnet: "fd00:10:244:4e::/64".parse().unwrap(),
    };
    vec![v4("10.244.57.0/24"), v6]
}

fn v4(subnet: &str) -> Network {
    Network {
        cluster: "10.244.0.0/16".parse().unwrap(),
        subnet: subnet.parse().unwrap(),
    }
}

/// Runs a program in the calling thread's namespace and returns what it prints.
fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {words}");
    String::from_utf8(output.stdout).unwrap()
}

fn feed(program: &str, text: &str) {
    let arguments: &[&str] = if program == "nft" { &["-f", "-"] } else { &[] };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "{program} refuses the text");
}
