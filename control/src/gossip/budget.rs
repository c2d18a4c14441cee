//! A budget that fills with time: so many at once, so many a second after that.

use std::time::{Duration, Instant};

use crate::config::PUBLISH_BYTES;

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

    /// As [`Budget::spend`], for something that costs that many: what is missing is paid before the next.
    pub(crate) fn spend_many(&mut self, cost: u32, allowance: Allowance, now: Instant) -> bool {
        let may = self.spend(allowance, now);
        if may && let Some(at) = self.empty_at {
            self.empty_at = Some(at + each(allowance) * cost.saturating_sub(1));
        }
        may
    }

    /// When the next one can be spent; `None` if at once.
    pub(crate) fn due(&self, allowance: Allowance, now: Instant) -> Option<Instant> {
        let due = self.empty_at? + each(allowance);
        (due > now).then_some(due)
    }
}

/// What a record with a body of so many bytes costs.
pub(crate) fn cost_of(body_len: usize) -> u32 {
    u32::try_from(1 + body_len / PUBLISH_BYTES).unwrap_or(u32::MAX)
}

fn each(allowance: Allowance) -> Duration {
    Duration::from_secs(1) / allowance.per_second.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{ORIGIN_BYTES_MAX, ORIGIN_RATE, ORIGIN_RECORDS_MAX, PUBLISH_ALL_RATE};
    use crate::node::tests::first_instant;

    /// Whoever has just got all records of a host takes all that it says at its fastest.
    #[test]
    fn what_a_host_says_is_never_more_than_others_take() {
        let all = u32::try_from(ORIGIN_RECORDS_MAX).unwrap() + cost_of(ORIGIN_BYTES_MAX);
        assert!(all + PUBLISH_ALL_RATE.burst <= ORIGIN_RATE.burst);
        const { assert!(PUBLISH_ALL_RATE.per_second < ORIGIN_RATE.per_second) };
    }

    #[test]
    fn what_costs_more_makes_the_next_wait() {
        let allowance = Allowance {
            burst: 5,
            per_second: 2,
        };
        let (mut budget, start) = (Budget::FULL, first_instant());
        assert!(budget.spend_many(8, allowance, start));
        let due = budget.due(allowance, start).unwrap();
        assert_eq!(due - start, Duration::from_secs(2));
        assert!(!budget.spend_many(1, allowance, start) && budget.spend_many(8, allowance, due));
        assert_eq!(
            budget.due(allowance, due).unwrap() - due,
            Duration::from_secs(4)
        );
    }

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
