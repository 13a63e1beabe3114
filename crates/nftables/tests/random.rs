//! Random rules: the kernel holds what we write, and nft(8) lists it as we print it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    missing_docs,
    reason = "test code: a panic is a failed test"
)]

mod common;

use std::env;
use std::time::{SystemTime, UNIX_EPOCH};

use common::*;
use fake_kernel::strategy::any_rule;
use netstate::nft::{Change, Family, Match, Rule, RuleIn, Statement, replacement};
use nftables::{ApplyError, Nftables};
use proptest::collection::vec;
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// How many rules are tried in each family.
const RULES: usize = 500;

/// The variable that takes back a seed that was printed.
const SEED: &str = "NFTABLES_RANDOM_SEED";

/// What is random, differently in each run; the seed is printed.
fn random() -> TestRunner {
    let now = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap()
            .subsec_nanos()
    };
    let seed = env::var(SEED).map_or_else(|_| now(), |seed| seed.parse().unwrap());
    println!("{SEED}={seed}");
    let mut bytes = [0; 32];
    bytes[..4].copy_from_slice(&seed.to_ne_bytes());
    TestRunner::new_with_rng(
        Config::default(),
        TestRng::from_seed(RngAlgorithm::ChaCha, &bytes),
    )
}

/// Writes those of some random rules that the family takes, and returns them in the form that they are read in.
fn write(nftables: &mut Nftables, family: Family, random: &mut TestRunner) -> Vec<Rule> {
    let key = key(family, "t");
    let empty = || chain(None, &[]);
    let chains = [("CHAIN", empty()), ("b-c", empty()), ("c", empty())];
    nftables.apply(&replacement(&key, &table(chains))).unwrap();
    let rules = vec(any_rule(), RULES).new_tree(random).unwrap().current();
    let mut written = Vec::new();
    for rule in rules {
        let append = Change::AppendRule {
            table: key.clone(),
            chain: "c".to_owned(),
            rule: rule.clone(),
        };
        match nftables.apply(&[append]) {
            // nft indents a rule that is nothing but a comment once more.
            Ok(()) if rule.canonical(family).statements.is_empty() => {
                let read = nftables.table(&key).unwrap().unwrap();
                let (handle, found) = read.rules("c").last().unwrap();
                assert_eq!(*found, rule.canonical(family));
                let (table, chain) = (key.clone(), "c".to_owned());
                nftables
                    .apply(&[Change::DelRule { table, chain, handle }])
                    .unwrap();
            }
            Ok(()) => written.push(rule.canonical(family)),
            // This kernel neither translates addresses nor tracks connections in bridges.
            Err(ApplyError::Refused { .. }) => assert_eq!(family, Family::Bridge, "{rule}"),
            Err(ApplyError::Encode { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
    written
}

fn is_protocol(statement: &&Statement) -> bool {
    matches!(statement, Statement::Match(_, Match::L4Proto(_)))
}

#[test]
fn random_rules_read_back_and_are_listed_as_they_print() {
    in_netns(|| {
        let mut random = random();
        let mut nftables = Nftables::open().unwrap();
        for family in [Family::Ip, Family::Ip6, Family::Inet, Family::Bridge] {
            let written = write(&mut nftables, family, &mut random);
            assert!(written.len() > RULES / 5);
            let read = nftables.table(&key(family, "t")).unwrap().unwrap();
            let read = &read.table.chains["c"].rules;
            assert_eq!(read.len(), written.len());
            for (read, written) in read.iter().zip(&written) {
                assert_eq!(read, written, "{}", RuleIn(family, written));
            }
            let listed = ruleset();
            let (_, listed) = listed.split_once("chain c {\n").unwrap();
            for (line, rule) in listed.lines().zip(&written) {
                // nft forgets the protocol before a port if it has no name for ports of that protocol.
                let text = RuleIn(family, rule).to_string();
                // Of two protocols it names a port by the first, wherever that stands.
                if rule.statements.iter().filter(is_protocol).count() > 1 {
                    continue;
                }
                let forgotten = text
                    .replace("meta l4proto gre th", "th")
                    .replace("meta l4proto 77 th", "th");
                assert_eq!(line.trim_start_matches('\t'), forgotten);
            }
            run("nft flush ruleset");
        }
    });
}
