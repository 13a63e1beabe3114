use std::collections::BTreeMap;
use std::time::Duration;

use super::line::Line;

/// Different lines that are watched at a time; further ones are printed unwatched.
const MAX_WATCHED: usize = 1024;

/// Admits a burst of lines with one key within a window of time, and counts the rest.
#[derive(Debug)]
pub(super) struct Repeats {
    burst: u64,
    window: Duration,
    watched: BTreeMap<String, Watched>,
}

#[derive(Debug)]
struct Watched {
    ends: Duration,
    seen: u64,
    sample: Line,
}

/// How many lines like the sample were held back.
#[derive(Debug, PartialEq)]
pub(super) struct Repeated {
    pub(super) sample: Line,
    pub(super) times: u64,
}

impl Repeats {
    pub(super) const fn new(burst: u64, window: Duration) -> Self {
        Self {
            burst,
            window,
            watched: BTreeMap::new(),
        }
    }

    /// Whether a line is to be printed; the first of its key begins a window. Call [`Self::ended`] before.
    pub(super) fn admit(&mut self, now: Duration, key: String, line: &Line) -> bool {
        if let Some(watched) = self.watched.get_mut(&key) {
            watched.seen += 1;
            return watched.seen <= self.burst;
        }
        if self.watched.len() < MAX_WATCHED {
            let watched = Watched {
                ends: now + self.window,
                seen: 1,
                sample: line.clone(),
            };
            self.watched.insert(key, watched);
        }
        true
    }

    /// Closes the windows that are over, and returns those in which lines were held back.
    pub(super) fn ended(&mut self, now: Duration) -> Vec<Repeated> {
        if self.watched.values().all(|watched| watched.ends > now) {
            return Vec::new();
        }
        let over = self.watched.extract_if(.., |_, watched| watched.ends <= now);
        let burst = self.burst;
        let repeated = over.filter_map(|(_, watched)| {
            let times = watched.seen.checked_sub(burst).filter(|times| *times > 0)?;
            let sample = watched.sample;
            Some(Repeated { sample, times })
        });
        repeated.collect()
    }

    /// When [`Self::ended`] will next have something to tell.
    pub(super) fn due_at(&self) -> Option<Duration> {
        let held_back = self.watched.values().filter(|watched| watched.seen > self.burst);
        held_back.map(|watched| watched.ends).min()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use tracing::Level;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(30);

    #[test]
    fn a_burst_is_printed_and_then_only_the_number() {
        let mut repeats = Repeats::new(5, WINDOW);
        let admitted =
            (0..100).filter(|ms| repeats.admit(Duration::from_millis(*ms), "a".to_owned(), &line()));
        assert_eq!(admitted.count(), 5);
        assert_eq!(repeats.due_at(), Some(WINDOW));
        assert_eq!(repeats.ended(WINDOW - Duration::from_millis(1)), []);
        let repeated = Repeated {
            sample: line(),
            times: 95,
        };
        assert_eq!(repeats.ended(WINDOW), [repeated]);
        assert_eq!(repeats.due_at(), None);
        assert!(
            repeats.admit(WINDOW, "a".to_owned(), &line()),
            "a new window begins"
        );
    }

    #[test]
    fn a_line_that_comes_once_a_minute_is_never_held_back() {
        let mut repeats = Repeats::new(5, WINDOW);
        for minute in 0..100 {
            let now = Duration::from_secs(60 * minute);
            assert_eq!(repeats.ended(now), []);
            assert!(repeats.admit(now, "a".to_owned(), &line()));
        }
    }

    #[test]
    fn another_line_has_a_window_of_its_own() {
        let mut repeats = Repeats::new(1, WINDOW);
        assert!(repeats.admit(Duration::ZERO, "a".to_owned(), &line()));
        assert!(!repeats.admit(Duration::ZERO, "a".to_owned(), &line()));
        assert!(repeats.admit(Duration::ZERO, "b".to_owned(), &line()));
    }

    #[test]
    fn very_many_different_lines_cost_no_memory_without_end() {
        let mut repeats = Repeats::new(1, WINDOW);
        for n in 0..10_000 {
            assert!(repeats.admit(Duration::ZERO, n.to_string(), &line()));
        }
        assert_eq!(repeats.watched.len(), MAX_WATCHED);
        assert_eq!(repeats.ended(WINDOW), []);
        assert!(repeats.watched.is_empty());
    }

    fn line() -> Line {
        Line {
            at: SystemTime::UNIX_EPOCH,
            level: Level::INFO,
            target: "flanneld_rs",
            message: "m".to_owned(),
            fields: Vec::new(),
        }
    }
}
