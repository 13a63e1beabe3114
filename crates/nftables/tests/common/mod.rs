//! Helpers of the tests: a namespace per test thread, and nft(8) as the independent witness.
#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::thread;

use netstate::nft::{BaseChain, Chain, ChainKind, Family, Hook, Policy, Rule, Table, TableKey};
use nix::sched::{CloneFlags, unshare};

/// Runs a test in a network namespace of its own, which goes with it.
pub(crate) fn in_netns(test: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).expect("these tests need root");
        test();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// Runs a command line without quoting in the thread's namespace and returns its standard output.
pub(crate) fn run(line: &str) -> String {
    run_with(line, "")
}

/// Runs a command line with a text on its standard input.
pub(crate) fn run_with(line: &str, input: &str) -> String {
    let mut words = line.split_whitespace();
    let mut child = Command::new(words.next().unwrap())
        .args(words)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}\n{input}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Has nft(8) load a text.
pub(crate) fn nft(text: &str) {
    run_with("nft -f -", text);
}

/// What nft(8) lists; counters' figures are zero as long as there is no traffic.
pub(crate) fn ruleset() -> String {
    run("nft list ruleset").replace("counter packets 0 bytes 0", "counter")
}

pub(crate) fn key(family: Family, name: &str) -> TableKey {
    TableKey {
        family,
        name: name.to_owned(),
    }
}

pub(crate) fn rule(text: &str) -> Rule {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

pub(crate) fn base(kind: ChainKind, hook: Hook, priority: i32) -> BaseChain {
    BaseChain {
        kind,
        hook,
        priority,
        policy: Policy::Accept,
    }
}

pub(crate) fn chain(base: impl Into<Option<BaseChain>>, rules: &[&str]) -> Chain {
    Chain {
        base: base.into(),
        comment: None,
        rules: rules.iter().map(|text| rule(text)).collect(),
    }
}

pub(crate) fn table<const N: usize>(chains: [(&str, Chain); N]) -> Table {
    let chains = chains.map(|(name, chain)| (name.to_owned(), chain));
    Table {
        comment: None,
        chains: BTreeMap::from(chains),
        other_objects: 0,
    }
}

/// A table with its rules in the form that is read back.
pub(crate) fn canonical(family: Family, table: &Table) -> Table {
    let mut table = table.clone();
    for rule in table.chains.values_mut().flat_map(|chain| &mut chain.rules) {
        *rule = rule.canonical(family);
    }
    table
}
