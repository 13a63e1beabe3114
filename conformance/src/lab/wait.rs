use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long [`wait_until`] pauses between two looks.
const PAUSE: Duration = Duration::from_millis(2);

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
