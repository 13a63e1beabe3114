use std::time::Duration;

use nix::sys::resource::Usage;
use nix::sys::time::{TimeVal, TimeValLike};

use super::stats::Summary;

/// What one operation took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sample {
    /// From the start of the program to its end, or the work alone where there is no program.
    pub(super) wall: Duration,
    /// Processor time in user and kernel mode, of the program and of those that it ran.
    pub(super) cpu: Duration,
}

/// User and kernel time together.
pub(super) fn cpu_time(usage: &Usage) -> Duration {
    let micros = |time: TimeVal| u64::try_from(time.num_microseconds()).unwrap_or(0);
    Duration::from_micros(micros(usage.user_time()) + micros(usage.system_time()))
}

/// Durations as milliseconds.
pub(super) fn millis(times: impl IntoIterator<Item = Duration>) -> Summary {
    Summary::of(times.into_iter().map(|time| time.as_secs_f64() * 1e3).collect())
}
