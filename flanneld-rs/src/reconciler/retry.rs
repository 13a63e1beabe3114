//! When a change that was tried in vain is tried again.

use std::time::Duration;

use netstate::{ErrorClass, KernelError};

const REFUSED_FIRST_DELAY: Duration = Duration::from_millis(100);
const REFUSED_MAX_DELAY: Duration = Duration::from_secs(30);
/// Used where the next attempt is cheap and the cause may vanish unnoticed: no such link, or no visible effect.
const SHORT_MAX_DELAY: Duration = Duration::from_secs(1);

/// How long after so many attempts the next one follows; without a refusal the change had no effect.
pub(super) fn delay(refusal: Option<&KernelError>, attempts: u32) -> Duration {
    let max = match refusal.map(|err| err.class) {
        None | Some(ErrorClass::NoDevice | ErrorClass::LinkDown | ErrorClass::Busy) => SHORT_MAX_DELAY,
        Some(
            ErrorClass::Exists
            | ErrorClass::NotFound
            | ErrorClass::Unreachable
            | ErrorClass::Denied
            | ErrorClass::Unsupported
            | ErrorClass::Other(_),
        ) => REFUSED_MAX_DELAY,
    };
    let doubled = REFUSED_FIRST_DELAY.saturating_mul(1 << attempts.saturating_sub(1).min(16));
    doubled.min(max)
}
