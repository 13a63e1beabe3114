//! How often rounds may start: a few at once after quiet, then evenly spaced.

use std::time::Duration;

/// The distance of rounds under a storm of changes.
const INTERVAL: Duration = Duration::from_millis(200);
/// How many rounds may follow each other at once after quiet, so that a first change, its echo and the next change
/// are not delayed.
const BURST: u32 = 5;

/// A token bucket over rounds.
#[derive(Debug)]
pub(super) struct Pace {
    tokens: u32,
    refilled_at: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            tokens: BURST,
            refilled_at: Duration::ZERO,
        }
    }
}

impl Pace {
    /// Takes a token; false when there is none.
    pub(super) fn start(&mut self, now: Duration) -> bool {
        self.refill(now);
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                true
            }
            None => false,
        }
    }

    /// The earliest time that a round may start.
    pub(super) fn next_start(&self, now: Duration) -> Duration {
        if self.tokens > 0 {
            now
        } else {
            self.refilled_at + INTERVAL
        }
    }

    fn refill(&mut self, now: Duration) {
        while self.tokens < BURST && self.refilled_at + INTERVAL <= now {
            self.refilled_at += INTERVAL;
            self.tokens += 1;
        }
        if self.tokens == BURST {
            self.refilled_at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_storm_gets_its_burst_and_then_one_round_an_interval() {
        let mut pace = Pace::default();
        let mut starts = 0;
        for ms in 0..10_000 {
            starts += u32::from(pace.start(Duration::from_millis(ms)));
        }
        assert_eq!(starts, BURST + 49);
    }

    #[test]
    fn after_quiet_a_round_starts_at_once() {
        let mut pace = Pace::default();
        let hour = Duration::from_secs(3600);
        for _ in 0..BURST {
            assert!(pace.start(hour));
        }
        assert!(!pace.start(hour));
        assert_eq!(pace.next_start(hour), hour + INTERVAL);
        assert!(pace.start(hour + INTERVAL));
    }
}
