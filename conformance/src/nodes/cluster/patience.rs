//! What is asked of the API until it is so.

use std::time::{Duration, Instant};

use anyhow::Result;
use tokio::time::sleep;

use super::api::is_forbidden;

/// Repeats an attempt until it is done (true then) or the limit is over. Its errors may pass, as those of an API server that
/// restarts do, unless it is forbidden.
///
/// # Errors
/// Fails with the last attempt's error.
pub(super) async fn repeat(
    limit: Duration,
    pause: Duration,
    mut attempt: impl AsyncFnMut() -> Result<bool>,
) -> Result<bool> {
    let start = Instant::now();
    loop {
        let tried = attempt().await;
        let is_final = match &tried {
            Ok(is_done) => *is_done,
            Err(error) => is_forbidden(error),
        };
        if is_final || start.elapsed() >= limit {
            return tried;
        }
        sleep(pause).await;
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{anyhow, bail};
    use tokio::runtime::Builder;

    use super::super::api::Forbidden;
    use super::*;

    const LONG: Duration = Duration::from_secs(60);
    const SHORT: Duration = Duration::from_millis(1);

    /// What a number of attempts come to, and how many there were; after them it is done.
    fn repeated(limit: Duration, attempts: Vec<Result<bool>>) -> (Result<bool>, usize) {
        let mut number = 0;
        let mut attempts = attempts.into_iter();
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let ended = runtime.block_on(repeat(limit, SHORT, async || {
            number += 1;
            attempts.next().unwrap_or(Ok(true))
        }));
        (ended, number)
    }

    #[test]
    fn errors_between_do_not_end_it() {
        let passing = || anyhow!("503 Service Unavailable");
        let (ended, number) = repeated(LONG, vec![Err(passing()), Ok(false), Err(passing())]);
        assert!(ended.unwrap());
        assert_eq!(number, 4);
    }

    #[test]
    fn what_is_forbidden_ends_it() {
        let refused = anyhow::Error::new(Forbidden("no".to_owned())).context("DELETE /x");
        let (ended, number) = repeated(LONG, vec![Ok(false), Err(refused)]);
        assert!(format!("{:#}", ended.unwrap_err()).starts_with("DELETE /x: no"));
        assert_eq!(number, 2);
    }

    #[test]
    fn the_limit_ends_it_with_the_last_word() {
        let (ended, number) = repeated(Duration::ZERO, vec![Ok(false)]);
        assert!(!ended.unwrap());
        assert_eq!(number, 1);
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let mut number = 0;
        let ended = runtime.block_on(repeat(SHORT * 20, SHORT, async || {
            number += 1;
            bail!("refused for the {number}. time")
        }));
        let last = ended.unwrap_err().to_string();
        assert_eq!(last, format!("refused for the {number}. time"));
        assert!(number > 1);
    }
}
