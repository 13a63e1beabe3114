//! Several things at a time.

use std::collections::BTreeMap;
use std::num::NonZero;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, anyhow};

/// Does something for each index up to a count, on several threads; the results are in the order of the indices.
///
/// # Errors
/// Fails with the first error by index, once all are done.
pub(crate) fn in_parallel<T: Send>(
    count: usize,
    jobs: Option<u8>,
    work: impl Fn(usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    // A case mostly waits for the kernel and for programs.
    let usual = thread::available_parallelism()
        .map_or(2, NonZero::get)
        .saturating_mul(3)
        .min(24);
    let threads = jobs.map_or(usual, usize::from).clamp(1, count.max(1));
    let (next, results) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    let result = work(index);
                    results
                        .lock()
                        .unwrap_or_else(|poisoned| poisoned.into_inner())
                        .insert(index, result);
                }
            });
        }
    });
    let results = results
        .into_inner()
        .map_err(|_| anyhow!("a thread of the runner panicked"))?;
    results.into_values().collect()
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn results_are_in_order_whoever_is_first() {
        for jobs in [None, Some(1), Some(7)] {
            assert_eq!(in_parallel(20, jobs, Ok).unwrap(), (0..20).collect::<Vec<_>>());
        }
        assert!(in_parallel(0, None, Ok).unwrap().is_empty());
        assert!(in_parallel(3, None, |index| if index == 1 { bail!("no") } else { Ok(index) }).is_err());
    }
}
