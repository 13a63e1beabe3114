//! What is compared, and how it is looked at until it stands.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

/// So long programs and kernel may take until all stands.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks that have to be alike.
const PAUSE: Duration = Duration::from_millis(400);

/// What was expected and what is seen in one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Compared {
    /// Such as a node.
    pub(super) place: String,
    pub(super) expected: Vec<String>,
    pub(super) observed: Vec<String>,
}

/// By requirement, what was compared.
pub(super) type Findings = BTreeMap<&'static str, Vec<Compared>>;

/// Looks until all is ready and two looks are alike; after half a minute it is what it is.
///
/// # Errors
/// Fails when a look does.
pub(super) fn settled<T: PartialEq>(
    look: impl Fn() -> Result<T>,
    is_ready: impl Fn(&T) -> bool,
) -> Result<T> {
    settled_within(LIMIT, look, is_ready)
}

/// The same with another limit.
///
/// # Errors
/// Fails when a look does.
pub(super) fn settled_within<T: PartialEq>(
    limit: Duration,
    look: impl Fn() -> Result<T>,
    is_ready: impl Fn(&T) -> bool,
) -> Result<T> {
    let start = Instant::now();
    let mut before = look()?;
    loop {
        thread::sleep(PAUSE);
        let now = look()?;
        if (is_ready(&now) && now == before) || start.elapsed() > limit {
            return Ok(now);
        }
        before = now;
    }
}
