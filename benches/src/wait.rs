//! The one place that reads the clock and waits: for a condition, up to a limit.
#![expect(
    clippy::disallowed_methods,
    reason = "measuring is this program's job, and it is no daemon"
)]

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Waits until `condition` holds; fails with `what` after `limit`.
pub(crate) fn until(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !condition() {
        if Instant::now() >= deadline {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(POLL_INTERVAL);
    }
    Ok(())
}

/// The time.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Runs `work` and says how many seconds it took.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let result = work();
    (result, start.elapsed().as_secs_f64())
}
