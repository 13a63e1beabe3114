use std::io::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long [`wait_until`] pauses between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// What is awaited for longer than this is told, and again when it has taken twice as long.
const LONG: Duration = Duration::from_secs(10);

/// Tells on standard error what a wait that has become long is for.
#[derive(Debug)]
pub(super) struct LongWait {
    what: String,
    limit: Duration,
    start: Instant,
    next: Duration,
}

impl LongWait {
    /// Begins a wait.
    pub(super) fn new(what: String, limit: Duration) -> Self {
        Self {
            what,
            limit,
            start: Instant::now(),
            next: LONG,
        }
    }

    /// Tells it if it is time to; for each look of a wait.
    pub(super) fn look(&mut self) {
        if let Some(line) = self.line(self.start.elapsed()) {
            // Nobody may be there to read it, which the wait does not depend on.
            writeln!(std::io::stderr(), "{line}").ok();
        }
    }

    fn line(&mut self, elapsed: Duration) -> Option<String> {
        if elapsed < self.next {
            return None;
        }
        self.next = elapsed * 2;
        let (elapsed, limit) = (elapsed.as_secs(), self.limit.as_secs());
        Some(format!(
            "waiting for {}: {elapsed} of at most {limit} s …",
            self.what
        ))
    }
}

/// Looks again and again until a condition holds, and returns the time it took.
///
/// # Errors
/// Fails when the limit passes first, naming what was awaited; or with the condition's own error.
pub fn wait_until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Result<bool>,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if condition()? {
            return Ok(start.elapsed());
        }
        if start.elapsed() >= limit {
            bail!("waited {:.1} s in vain for {what}", limit.as_secs_f64());
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_told_when_it_is_long_and_then_ever_less_often() {
        let mut wait = LongWait::new("x to y".to_owned(), Duration::from_secs(180));
        let told: Vec<_> = (0..=180)
            .filter_map(|second| wait.line(Duration::from_secs(second)))
            .collect();
        assert_eq!(told.len(), 5, "{told:?}");
        assert_eq!(told[0], "waiting for x to y: 10 of at most 180 s …");
        assert_eq!(told[4], "waiting for x to y: 160 of at most 180 s …");
    }
}
