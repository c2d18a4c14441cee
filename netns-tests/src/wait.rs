//! The one place that reads the clock and waits: for conditions, up to a limit.
#![expect(
    clippy::disallowed_methods,
    reason = "tests of a running program live in real time"
)]

use std::time::{Duration, Instant};

/// Between two looks at a condition.
const POLL_INTERVAL: Duration = Duration::from_millis(25);

/// The time now.
#[must_use]
pub fn now() -> Instant {
    Instant::now()
}

/// Lets time pass: for pacing a load, and for watching that something goes on. Never to wait for a condition.
pub fn pause(length: Duration) {
    std::thread::sleep(length);
}

/// Waits until `condition` gives a value, and returns it with the time it took.
///
/// # Panics
///
/// If `what` has not come about after `limit`.
pub fn eventually<T>(
    what: &str,
    limit: Duration,
    mut condition: impl FnMut() -> Option<T>,
) -> (T, Duration) {
    let start = now();
    loop {
        if let Some(value) = condition() {
            return (value, start.elapsed());
        }
        assert!(start.elapsed() < limit, "{what}: not within {limit:?}");
        pause(POLL_INTERVAL);
    }
}

/// Waits until `condition` holds, and returns the time it took.
///
/// # Panics
///
/// If `what` has not come about after `limit`.
pub fn within(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) -> Duration {
    eventually(what, limit, || condition().then_some(())).1
}
