//! How many questions each client may ask: a token bucket for our own names, and one for what goes to upstreams.
//!
//! The table has a fixed number of places, found by a keyed hash, so that nobody can make it grow or choose whom to
//! share a place with. Bounds: `config::DNS_CLIENTS_MAX`, `config::DNS_LOCAL_RATE_FACTOR`.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::time::Instant;

use crate::config::{DNS_CLIENTS_MAX, DNS_LOCAL_RATE_FACTOR};

/// What a question costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Answered from the names.
    Local,
    /// Asked upstream.
    Forwarded,
}

/// The clients' buckets.
#[derive(Debug)]
pub struct Rates {
    /// Tokens a second of the dearer kind; none means no limit.
    per_second: Option<f64>,
    places: Vec<Place>,
    hasher: RandomState,
}

/// Seconds' worth of tokens left, of each kind.
#[derive(Debug, Clone, Copy)]
struct Place {
    local_s: f64,
    forwarded_s: f64,
    at: Option<Instant>,
}

impl Rates {
    /// `per_second` forwarded questions and `config::DNS_LOCAL_RATE_FACTOR` times as many others for each client;
    /// 0 switches limits off.
    #[must_use]
    pub fn new(per_second: u32) -> Self {
        let fresh = Place {
            local_s: 1.0,
            forwarded_s: 1.0,
            at: None,
        };
        Self {
            per_second: (per_second > 0).then_some(f64::from(per_second)),
            places: vec![fresh; DNS_CLIENTS_MAX],
            hasher: RandomState::new(),
        }
    }

    /// Takes a token; false if the client has none left. A bucket holds a second's worth.
    pub fn allow(&mut self, client: IpAddr, cost: Cost, now: Instant) -> bool {
        let Some(per_second) = self.per_second else {
            return true;
        };
        let hash = self.hasher.hash_one(client);
        let count = u64::try_from(self.places.len()).unwrap_or(1).max(1);
        let index = usize::try_from(hash % count).unwrap_or(0);
        let Some(place) = self.places.get_mut(index) else {
            return true;
        };
        let passed = place
            .at
            .map_or(1.0, |at| now.saturating_duration_since(at).as_secs_f64());
        // The clock may have been read before that of the question before, for many at once: no time counts twice.
        place.at = Some(place.at.map_or(now, |at| at.max(now)));
        place.local_s = (place.local_s + passed).min(1.0);
        place.forwarded_s = (place.forwarded_s + passed).min(1.0);
        let (left, token) = match cost {
            Cost::Local => (
                &mut place.local_s,
                1.0 / (per_second * f64::from(DNS_LOCAL_RATE_FACTOR)),
            ),
            Cost::Forwarded => (&mut place.forwarded_s, 1.0 / per_second),
        };
        if *left < token {
            return false;
        }
        *left -= token;
        true
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the first instant of a test")]
    fn start() -> Instant {
        Instant::now()
    }

    fn granted(rates: &mut Rates, client: &str, cost: Cost, now: Instant) -> usize {
        let client = client.parse().unwrap();
        (0..100_000)
            .take_while(|_| rates.allow(client, cost, now))
            .count()
    }

    #[test]
    fn each_client_gets_its_rate_and_no_more() {
        let (mut rates, now) = (Rates::new(200), start());
        let close = |count: usize, wanted: usize| count.abs_diff(wanted) <= 1;

        assert!(close(
            granted(&mut rates, "10.32.0.1", Cost::Forwarded, now),
            200
        ));
        assert_eq!(granted(&mut rates, "10.32.0.1", Cost::Forwarded, now), 0);
        assert!(close(
            granted(&mut rates, "10.32.0.1", Cost::Local, now),
            10_000
        ));
        let later = now + Duration::from_millis(500);
        assert!(close(
            granted(&mut rates, "10.32.0.1", Cost::Forwarded, later),
            100
        ));
        let much_later = now + Duration::from_secs(3600);
        assert!(close(
            granted(&mut rates, "10.32.0.1", Cost::Forwarded, much_later),
            200
        ));
    }

    #[test]
    fn time_that_was_counted_does_not_count_again() {
        let (mut rates, now) = (Rates::new(200), start());
        let later = now + Duration::from_millis(500);
        let all = granted(&mut rates, "10.32.0.1", Cost::Forwarded, later);
        assert!(all >= 199, "{all}");
        assert_eq!(granted(&mut rates, "10.32.0.1", Cost::Forwarded, now), 0);
        assert_eq!(granted(&mut rates, "10.32.0.1", Cost::Forwarded, later), 0);
    }

    #[test]
    fn clients_do_not_take_from_each_other() {
        let (mut rates, now) = (Rates::new(10), start());
        let clients = (0..50u8)
            .map(|last| format!("10.32.7.{last}"))
            .collect::<Vec<_>>();
        let full = clients
            .iter()
            .filter(|client| granted(&mut rates, client, Cost::Forwarded, now) >= 9)
            .count();
        // Two may share a place of the table, by chance.
        assert!(full >= 45, "{full}");
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let mut rates = Rates::new(0);
        assert_eq!(
            granted(&mut rates, "fd00::1", Cost::Forwarded, start()),
            100_000
        );
    }
}
