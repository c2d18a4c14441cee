//! Round-trip time of one path, smoothed as in RFC 6298 section 2.

use std::time::{Duration, Instant};

/// Timeout before the first sample (RFC 6298 section 2.1).
const TIMEOUT_INITIAL: Duration = Duration::from_secs(1);
/// Longest timeout: a path slower than this is of no use to anyone.
const TIMEOUT_MAX: Duration = Duration::from_secs(3);

/// The least round trip is that of one to two such times: load that lasts less does not show in it.
const LEAST_SPAN: Duration = Duration::from_secs(30);

/// The estimator. Every probe has an id of its own, so every sample counts (no Karn's rule).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rtt {
    estimate: Option<Estimate>,
    least: Option<Least>,
}

/// The least samples of this span and of the one before.
#[derive(Debug, Clone, Copy)]
struct Least {
    since: Instant,
    here: Duration,
    before: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Estimate {
    smoothed: Duration,
    variation: Duration,
}

impl Rtt {
    pub(super) fn sample(&mut self, sample: Duration, now: Instant) {
        self.least = Some(match self.least {
            Some(least) if now < least.since + LEAST_SPAN => Least {
                here: least.here.min(sample),
                ..least
            },
            older => Least {
                since: now,
                here: sample,
                before: older
                    .filter(|least| now < least.since + 2 * LEAST_SPAN)
                    .map(|least| least.here),
            },
        });
        let estimate = match self.estimate {
            None => Estimate {
                smoothed: sample,
                variation: sample / 2,
            },
            Some(old) => Estimate {
                smoothed: (old.smoothed * 7 + sample) / 8,
                variation: (old.variation * 3 + old.smoothed.abs_diff(sample)) / 4,
            },
        };
        self.estimate = Some(estimate);
    }

    /// The smoothed round trip; `None` before the first sample.
    pub(super) fn smoothed(&self) -> Option<Duration> {
        self.estimate.map(|estimate| estimate.smoothed)
    }

    /// The least round trip lately: what the way takes when nothing waits on it.
    pub(super) fn least(&self) -> Option<Duration> {
        let least = self.least?;
        Some(
            least
                .before
                .map_or(least.here, |before| before.min(least.here)),
        )
    }

    /// How long an answer may take before its probe counts as lost.
    pub(super) fn timeout(&self, floor: Duration) -> Duration {
        match self.estimate {
            None => TIMEOUT_INITIAL,
            Some(Estimate {
                smoothed,
                variation,
            }) => (smoothed + variation * 4).max(floor).min(TIMEOUT_MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::tests::sim::{epoch, ms, secs};

    const FLOOR: Duration = Duration::from_millis(200);

    #[test]
    fn the_first_sample_sets_both_figures() {
        let mut rtt = Rtt::default();
        assert_eq!(
            (rtt.smoothed(), rtt.timeout(FLOOR)),
            (None, TIMEOUT_INITIAL)
        );

        rtt.sample(ms(100), epoch());

        assert_eq!(
            (rtt.smoothed(), rtt.timeout(FLOOR)),
            (Some(ms(100)), ms(300))
        );
    }

    #[test]
    fn later_samples_weigh_an_eighth_and_a_quarter() {
        let mut rtt = Rtt::default();
        rtt.sample(ms(100), epoch());
        rtt.sample(ms(180), epoch());

        // 7/8 * 100 + 1/8 * 180 = 110; 3/4 * 50 + 1/4 * 80 = 57.5
        assert_eq!(rtt.smoothed(), Some(ms(110)));
        assert_eq!(rtt.timeout(FLOOR), ms(110 + 230));
    }

    #[test]
    fn the_least_falls_at_once_and_rises_when_half_a_minute_shows_nothing_else() {
        let (mut rtt, start) = (Rtt::default(), epoch());
        let mut sample = |at: u64, sample: u64| {
            rtt.sample(ms(sample), start + secs(at));
            rtt.least()
        };
        assert_eq!(sample(0, 20), Some(ms(20)));
        assert_eq!(sample(1, 10), Some(ms(10)));
        // Something fills the queues for a while.
        for at in 2..31 {
            assert_eq!(sample(at, 50), Some(ms(10)));
        }
        assert_eq!(sample(59, 10), Some(ms(10)));
        // And now the way is another.
        for at in 61..90 {
            assert_eq!(sample(at, 50), Some(ms(10)));
        }
        assert_eq!(sample(91, 50), Some(ms(50)));
        assert_eq!(sample(300, 60), Some(ms(60)), "what is old is forgotten");
    }

    #[test]
    fn the_timeout_stays_within_its_bounds() {
        let mut rtt = Rtt::default();
        rtt.sample(Duration::ZERO, epoch());
        assert_eq!(rtt.timeout(FLOOR), FLOOR);
        rtt.sample(Duration::from_secs(60), epoch());
        assert_eq!(rtt.timeout(FLOOR), TIMEOUT_MAX);
    }
}
