//! What the plugin's time is spent on, system call by system call.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::Result;

use super::cni::{Stand, loads};
use super::side::{Operation, Side};
use super::{BenchConfig, progress};

/// Pods that are looked at, after a first one.
const PODS: u8 = 20;

/// How many lines each table has.
const LINES: usize = 14;

/// Measures every load's operations under strace, which makes all of it slower, calls more than work.
///
/// # Errors
/// Fails when a lab cannot be made or the plugin answers with an error.
pub(super) fn measure(config: &BenchConfig) -> Result<String> {
    let mut text = String::new();
    for load in loads(config)? {
        progress(&format!("profile {}", load.name()))?;
        let mut stand = Stand::new(config, Side::Ours, load, PODS + 1)?;
        for operation in [Operation::Add, Operation::Check, Operation::Del] {
            let mut spent = BTreeMap::new();
            for pod in 0..=usize::from(PODS) {
                let log = stand.traced(operation, pod, &["-T"])?;
                if pod > 0 {
                    add(&mut spent, &log);
                }
            }
            // Writing to a string cannot fail.
            writeln!(
                text,
                "\n{} {}: a pod's mean, µs in the kernel",
                operation.name(),
                load.name()
            )
            .ok();
            text.push_str(&table(&spent));
        }
    }
    Ok(text)
}

/// Time in seconds and number of calls, by name.
type Spent = BTreeMap<String, (f64, u32)>;

/// Reads lines such as `7 read(3, "", 8) = 0 <0.000008>`; the end of an interrupted call has the time of all of it.
fn add(spent: &mut Spent, log: &str) {
    for line in log.lines() {
        let (Some(name), Some(time)) = (name(line), time(line)) else {
            continue;
        };
        let entry = spent.entry(name.to_owned()).or_default();
        entry.0 += time;
        entry.1 += 1;
    }
}

fn name(line: &str) -> Option<&str> {
    let (_, rest) = line.trim_start().split_once(' ')?;
    let rest = rest.trim_start();
    match rest.strip_prefix("<... ") {
        Some(resumed) => resumed.split(' ').next(),
        None => rest.split_once('(').map(|(name, _)| name),
    }
}

fn time(line: &str) -> Option<f64> {
    let (_, rest) = line.rsplit_once('<')?;
    rest.strip_suffix('>')?.parse().ok()
}

fn table(spent: &Spent) -> String {
    let pods = f64::from(PODS);
    let mut lines: Vec<_> = spent.iter().collect();
    lines.sort_by(|(_, (a, _)), (_, (b, _))| b.total_cmp(a));
    let mut text = String::new();
    let (mut time, mut calls) = (0.0, 0.0);
    for (position, (name, (seconds, count))) in lines.into_iter().enumerate() {
        let (own_time, own_calls) = (seconds * 1e6 / pods, f64::from(*count) / pods);
        time += own_time;
        calls += own_calls;
        if position < LINES {
            writeln!(text, "{own_time:>10.0}  {own_calls:>6.1} calls  {name}").ok();
        }
    }
    writeln!(text, "{time:>10.0}  {calls:>6.1} calls  in all").ok();
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_summed_by_name_even_if_interrupted() {
        let mut spent = Spent::new();
        let log = "7  read(3, \"<\", 8) = 1 <0.000008>\n\
            7  read(3 <unfinished ...>\n\
            7  <... read resumed>, \"\", 8) = 0 <0.000002>\n\
            7  exit_group(0) = ?\n\
            7  +++ exited with 0 +++\n";
        add(&mut spent, log);
        let (seconds, count) = spent.get("read").copied().unwrap_or_default();
        assert_eq!((spent.len(), count), (1, 2));
        assert!((seconds - 10e-6).abs() < 1e-9);
    }
}
