//! Round-trip time of one path, smoothed as in RFC 6298 section 2.

use std::time::Duration;

/// Timeout before the first sample (RFC 6298 section 2.1).
const TIMEOUT_INITIAL: Duration = Duration::from_secs(1);
/// Longest timeout: a path slower than this is of no use to anyone.
const TIMEOUT_MAX: Duration = Duration::from_secs(3);

/// The estimator. Every probe has an id of its own, so every sample counts (no Karn's rule).
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Rtt {
    estimate: Option<Estimate>,
}

#[derive(Debug, Clone, Copy)]
struct Estimate {
    smoothed: Duration,
    variation: Duration,
}

impl Rtt {
    pub(super) fn sample(&mut self, sample: Duration) {
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

    const FLOOR: Duration = Duration::from_millis(200);

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_first_sample_sets_both_figures() {
        let mut rtt = Rtt::default();
        assert_eq!(
            (rtt.smoothed(), rtt.timeout(FLOOR)),
            (None, TIMEOUT_INITIAL)
        );

        rtt.sample(ms(100));

        assert_eq!(
            (rtt.smoothed(), rtt.timeout(FLOOR)),
            (Some(ms(100)), ms(300))
        );
    }

    #[test]
    fn later_samples_weigh_an_eighth_and_a_quarter() {
        let mut rtt = Rtt::default();
        rtt.sample(ms(100));
        rtt.sample(ms(180));

        // 7/8 * 100 + 1/8 * 180 = 110; 3/4 * 50 + 1/4 * 80 = 57.5
        assert_eq!(rtt.smoothed(), Some(ms(110)));
        assert_eq!(rtt.timeout(FLOOR), ms(110 + 230));
    }

    #[test]
    fn the_timeout_stays_within_its_bounds() {
        let mut rtt = Rtt::default();
        rtt.sample(Duration::ZERO);
        assert_eq!(rtt.timeout(FLOOR), FLOOR);
        rtt.sample(Duration::from_secs(60));
        assert_eq!(rtt.timeout(FLOOR), TIMEOUT_MAX);
    }
}
