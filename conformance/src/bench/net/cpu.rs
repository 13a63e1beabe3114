//! The machine's processors: what they do, from `/proc/stat` (proc(5)), and which of them an end runs on.
//!
//! A process is charged neither for the packets that interrupts handle nor for those of the other end that its own calls
//! deliver, so that only the whole machine's time tells what carrying costs.

use std::fs;

use anyhow::{Context, Result};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Clock ticks per second (linux USER_HZ, the same on every architecture that we build for).
const TICKS_PER_SECOND: f64 = 100.0;

/// The seconds that all processors together have not been idle since the machine's start.
///
/// # Errors
/// Fails when the kernel does not tell.
pub(super) fn busy() -> Result<f64> {
    busy_in(&fs::read_to_string("/proc/stat").context("reading /proc/stat")?)
}

/// The first line: user, nice, system, idle, iowait, irq, softirq, and what virtual machines add. What the hypervisor
/// gave to others (steal) is nobody's work here, and guests' time is in the user's already.
fn busy_in(stat: &str) -> Result<f64> {
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let ticks = line.context("/proc/stat has no line of all processors")?;
    let ticks = ticks
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<Vec<f64>, _>>()
        .context("reading processor times")?;
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = ticks.as_slice() else {
        anyhow::bail!("/proc/stat tells {} processor times only", ticks.len());
    };
    Ok((user + nice + system + irq + softirq) / TICKS_PER_SECOND)
}

/// The processors of the two ends of a flow: the first two that this process may use, or the only one twice. Left to
/// itself the scheduler puts both ends on one or on two as it happens, and figures are apart by half.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pair {
    pub(super) client: usize,
    pub(super) server: usize,
}

impl Pair {
    /// Looks which there are.
    ///
    /// # Errors
    /// Fails when the kernel does not tell.
    pub(super) fn look() -> Result<Self> {
        let allowed = sched_getaffinity(this_thread()).context("asking for the allowed processors")?;
        let mut numbers = (0..CpuSet::count()).filter(|number| allowed.is_set(*number).unwrap_or(false));
        let client = numbers.next().context("there is no processor to run on")?;
        Ok(Self {
            client,
            server: numbers.next().unwrap_or(client),
        })
    }
}

/// Keeps the calling thread on one processor.
///
/// # Errors
/// Fails when it may not run there.
pub(super) fn stay_on(number: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(number)
        .with_context(|| format!("there is no processor {number}"))?;
    sched_setaffinity(this_thread(), &set).with_context(|| format!("staying on processor {number}"))
}

/// Zero means the caller (sched_setaffinity(2)).
fn this_thread() -> Pid {
    Pid::from_raw(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_waiting_and_stolen_time_is_not_busy() {
        let stat = "cpu  100 20 300 100000 5000 7 73 9000 50 0\ncpu0 1 1 1 1 1 1 1 1 1 1\nintr 5\n";
        assert!((busy_in(stat).unwrap() - 5.0).abs() < 1e-9);
    }

    #[test]
    fn a_text_without_the_times_is_refused() {
        for wrong in ["", "cpu0 1 2 3 4 5 6 7\n", "cpu  1 2 3\n", "cpu  1 2 x 4 5 6 7\n"] {
            assert!(busy_in(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_thread_that_stays_may_use_no_other_processor() {
        let both = Pair::look().unwrap();
        let inside = std::thread::spawn(move || {
            stay_on(both.server).unwrap();
            Pair::look().unwrap()
        });
        let only = Pair {
            client: both.server,
            server: both.server,
        };
        assert_eq!(inside.join().unwrap(), only);
        assert_eq!(Pair::look().unwrap(), both);
    }

    #[test]
    fn this_machine_has_been_busy() {
        assert!(busy().unwrap() > 0.0);
    }
}
