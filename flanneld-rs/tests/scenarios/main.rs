//! Readable scenarios, each on the kernel in memory and on the real one: a file a scenario, in `tests/scenarios`.
//!
//! The words of a file are described in [`stage`]. Time is virtual on both kernels; every step takes one second of
//! it, in which whatever can be mended must have been mended. `SCENARIO=name` runs only the files whose names hold
//! that word. The real kernel is used inside a network namespace of the test's own, which needs root.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code: a panic is a failed test"
)]

use std::fs;
use std::path::PathBuf;
use std::thread;

use fake_kernel::FakeKernel;
use flanneld_rs::rules_kernel::RulesKernel;
use netlink::RealKernel;
use netstate::Kernel;
use nix::sched::{CloneFlags, unshare};

use driver::Kernels;
use stage::Stage;

mod driver;
mod stage;

#[test]
fn every_scenario_holds_on_the_kernel_in_memory() {
    check_all(kernel_in_memory, |_| true);
}

#[test]
fn every_scenario_holds_on_the_real_kernel() {
    // A tunnel without a local address is there already: the kernel's own `tunl0` (linux `ip_tunnel.c`, `ip_tunnel_newlink`).
    let [has_wireguard, has_ipip] = ["wireguard", "ipip local 192.0.2.1"].map(has);
    check_all(real_kernel, |file| {
        (has_wireguard || !file.starts_with("wireguard_")) && (has_ipip || !file.starts_with("ipip_"))
    });
}

#[test]
fn a_line_that_is_not_understood_is_named() {
    let mut stage = Stage::new(kernel_in_memory());
    let outcome = play(&mut stage, "a.txt", "# a title\n\nexpect rout 10.0.0.0/8\n");
    let why = outcome.unwrap_err();
    assert!(why.starts_with("a.txt:3: expect rout 10.0.0.0/8: "), "{why}");
}

fn kernel_in_memory() -> Kernels {
    Kernels {
        kernel: Box::new(FakeKernel::new()),
        rules: Box::new(FakeKernel::new()),
    }
}

/// A new namespace for the calling thread, in which the kernel does nothing at times of its own.
fn real_kernel() -> Kernels {
    unshare(CloneFlags::CLONE_NEWNET).expect("the real kernel's scenarios need root");
    fs::write("/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1").unwrap();
    let mut kernel = RealKernel::open().unwrap();
    // Without any IPv4 address ever, the kernel takes every gateway for a broadcast address.
    let up = "set link lo up".parse().unwrap();
    kernel.apply(&[up]).remove(0).unwrap();
    Kernels {
        kernel: Box::new(kernel),
        rules: Box::new(RulesKernel::open()),
    }
}

/// Whether this kernel has links of a kind; where it has not, the guests of `conformance` play its scenarios.
fn has(kind: &str) -> bool {
    let probe = format!("add link probe {kind} mtu 1420 down").parse().unwrap();
    let apply = || real_kernel().kernel.apply(&[probe]).remove(0).is_ok();
    thread::spawn(apply).join().unwrap()
}

/// Plays every scenario on a kernel of its own, in a thread of its own.
fn check_all(kernels: fn() -> Kernels, plays: impl Fn(&str) -> bool) {
    let wanted = std::env::var("SCENARIO").unwrap_or_default();
    let files: Vec<PathBuf> = scenarios()
        .into_iter()
        .filter(|file| name(file).contains(&wanted) && plays(&name(file)))
        .collect();
    assert!(!files.is_empty(), "there is no scenario named {wanted:?}");
    let mut broken = Vec::new();
    for file in &files {
        let (name, text) = (name(file), fs::read_to_string(file).unwrap());
        let player = thread::spawn(move || play(&mut Stage::new(kernels()), &name, &text));
        match player.join() {
            Ok(outcome) => broken.extend(outcome.err()),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    println!("{} scenarios", files.len());
    assert!(
        broken.is_empty(),
        "{} of {} scenarios:\n{}",
        broken.len(),
        files.len(),
        broken.join("\n")
    );
}

fn play(stage: &mut Stage, file: &str, text: &str) -> Result<(), String> {
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        stage
            .step(line)
            .map_err(|why| format!("{file}:{}: {line}: {why}", index + 1))?;
    }
    Ok(())
}

fn scenarios() -> Vec<PathBuf> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/scenarios");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|file| file.extension().is_some_and(|ext| ext == "txt"))
        .collect();
    files.sort();
    files
}

fn name(file: &std::path::Path) -> String {
    file.file_name().unwrap().to_string_lossy().into_owned()
}
