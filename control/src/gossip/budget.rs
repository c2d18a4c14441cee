//! A budget that fills with time: so many at once, so many a second after that.

use std::time::{Duration, Instant};

/// How much a budget holds, and how fast it fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allowance {
    pub(crate) burst: u32,
    pub(crate) per_second: u32,
}

/// What is left of it; full when made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Budget {
    /// The instant at which it would be, or was, empty. Time since then is what can be spent.
    empty_at: Option<Instant>,
}

impl Budget {
    pub(crate) const FULL: Self = Self { empty_at: None };

    /// Spends one; false if nothing is left.
    pub(crate) fn spend(&mut self, allowance: Allowance, now: Instant) -> bool {
        match self.due(allowance, now) {
            Some(_) => false,
            None => {
                let each = each(allowance);
                let full = each * allowance.burst;
                let empty_at = match self.empty_at {
                    Some(at) if now.saturating_duration_since(at) < full => Some(at),
                    _ => now.checked_sub(full),
                };
                // A clock younger than the burst lasts: the burst is given in full all the same.
                self.empty_at = empty_at.map(|at| at + each);
                true
            }
        }
    }

    /// When the next one can be spent; `None` if at once.
    pub(crate) fn due(&self, allowance: Allowance, now: Instant) -> Option<Instant> {
        let due = self.empty_at? + each(allowance);
        (due > now).then_some(due)
    }
}

fn each(allowance: Allowance) -> Duration {
    Duration::from_secs(1) / allowance.per_second.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::tests::first_instant;

    #[test]
    fn a_burst_is_given_at_once_and_the_rest_in_time() {
        let allowance = Allowance {
            burst: 5,
            per_second: 2,
        };
        let (mut budget, start) = (Budget::FULL, first_instant());

        assert_eq!((0..9).filter(|_| budget.spend(allowance, start)).count(), 5);
        let due = budget.due(allowance, start).unwrap();
        assert_eq!(due - start, Duration::from_millis(500));
        assert!(budget.spend(allowance, due) && !budget.spend(allowance, due));
        let later = start + Duration::from_secs(60);
        assert_eq!((0..9).filter(|_| budget.spend(allowance, later)).count(), 5);
    }
}
