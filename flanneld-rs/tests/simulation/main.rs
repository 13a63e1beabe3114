//! Several nodes, one lease store and a kernel in memory for each, driven through troubles in virtual time.
//!
//! A seed decides everything: how many nodes there are, how long every answer takes, and which troubles come when.
//! After each step the [`safety`] rules must hold; when the troubles are over, the [`liveness`] rules must hold within
//! the time that the troubles allow. `SIM_SEED=17` replays one seed, `SIM_SEEDS=5000` runs as many; a failure prints
//! its seed and what happened.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "test code: a panic is a failed test"
)]

use std::time::Instant;

use world::World;

mod daemon;
mod edits;
mod kernel_view;
mod ledger;
mod liveness;
mod news;
mod rng;
mod safety;
mod trouble;
mod world;

/// How many seeds run by default.
const SEEDS: u64 = 2000;
/// How many of the last lines of a trace are printed.
const TRACE_LINES: usize = 1000;

#[test]
fn every_world_stays_safe_and_heals() {
    let started = Instant::now();
    let seeds: Vec<u64> = match number("SIM_SEED") {
        Some(seed) => vec![seed],
        None => (0..number("SIM_SEEDS").unwrap_or(SEEDS)).collect(),
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        let seeds = &seeds;
        let share = |first| {
            move || {
                seeds
                    .iter()
                    .skip(first)
                    .step_by(threads)
                    .for_each(|seed| check(*seed))
            }
        };
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(share(first))).collect();
        for worker in workers {
            if let Err(panic) = worker.join() {
                std::panic::resume_unwind(panic);
            }
        }
    });
    let seconds = started.elapsed().as_secs_f64();
    let rate = seeds.len() as f64 / seconds;
    println!("{} seeds in {seconds:.1} s: {rate:.0} seeds/s", seeds.len());
}

#[test]
fn a_seed_replays_step_by_step() {
    for seed in 0..5 {
        let run = || {
            let mut world = World::new(seed, true);
            let outcome = world.run();
            (outcome, world.trace)
        };
        assert_eq!(run(), run(), "seed {seed}");
    }
}

fn check(seed: u64) {
    let Err(why) = World::new(seed, false).run() else {
        return;
    };
    let mut world = World::new(seed, true);
    let again = world.run();
    let trace = world.trace.unwrap_or_default();
    let skipped = trace.len().saturating_sub(TRACE_LINES);
    for line in trace.iter().skip(skipped) {
        println!("{line}");
    }
    panic!("seed {seed}: {why}\n(replay with SIM_SEED={seed}; the trace is above; again: {again:?})");
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("SIM_SEED and SIM_SEEDS are numbers"))
}
