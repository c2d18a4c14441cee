//! Who may begin a handshake with us: failures by source, and handshakes in a second.
//!
//! A source is one IPv4 address or one IPv6 /64. Bounds: `config::FAILURES_MAX` in `FAILURE_WINDOW` by source,
//! `FAILURE_SOURCES_MAX` sources (the one that failed longest ago gives way), `HANDSHAKES_PER_SECOND_MAX`.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use crate::config::{FAILURE_SOURCES_MAX, FAILURE_WINDOW, FAILURES_MAX, HANDSHAKES_PER_SECOND_MAX};
use crate::link::error::LinkError;

/// One IPv4 address, or an IPv6 /64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Source(IpAddr);

impl Source {
    pub(crate) fn of(address: SocketAddr) -> Self {
        Self(match address.ip().to_canonical() {
            IpAddr::V4(ip) => IpAddr::V4(ip),
            IpAddr::V6(ip) => IpAddr::V6((ip.to_bits() & !u128::from(u64::MAX)).into()),
        })
    }
}

/// What a source did wrong last.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) address: SocketAddr,
    pub(crate) error: LinkError,
    pub(crate) last_at: Instant,
    window_at: Instant,
    count: u32,
}

/// The failures and the rate.
#[derive(Debug, Default)]
pub(crate) struct Admission {
    failures: BTreeMap<Source, Failure>,
    second_at: Option<Instant>,
    started: u32,
}

impl Admission {
    /// Whether the source may try; false after too many failures.
    pub(crate) fn admits(&self, address: SocketAddr, now: Instant) -> bool {
        self.failures
            .get(&Source::of(address))
            .is_none_or(|failure| {
                failure.count < FAILURES_MAX
                    || now.duration_since(failure.window_at) >= FAILURE_WINDOW
            })
    }

    /// Counts a handshake that costs something; false if there were too many in this second.
    pub(crate) fn starts(&mut self, now: Instant) -> bool {
        if self
            .second_at
            .is_none_or(|at| now.duration_since(at) >= Duration::from_secs(1))
        {
            (self.second_at, self.started) = (Some(now), 0);
        }
        self.started = self.started.saturating_add(1);
        self.started <= HANDSHAKES_PER_SECOND_MAX
    }

    /// Counts a failed handshake.
    pub(crate) fn failed(&mut self, address: SocketAddr, error: LinkError, now: Instant) {
        let source = Source::of(address);
        self.failures.retain(|known, failure| {
            *known == source || now.duration_since(failure.last_at) < FAILURE_WINDOW
        });
        if !self.failures.contains_key(&source) && self.failures.len() >= FAILURE_SOURCES_MAX {
            let oldest = self
                .failures
                .iter()
                .min_by_key(|(_, failure)| failure.last_at)
                .map(|(source, _)| *source);
            if let Some(oldest) = oldest {
                self.failures.remove(&oldest);
            }
        }
        let fresh = Failure {
            address,
            error,
            last_at: now,
            window_at: now,
            count: 0,
        };
        let failure = self.failures.entry(source).or_insert(fresh);
        if now.duration_since(failure.window_at) >= FAILURE_WINDOW {
            (failure.window_at, failure.count) = (now, 0);
        }
        failure.count += 1;
        (failure.address, failure.error, failure.last_at) = (address, error, now);
    }

    /// The source has proved itself.
    pub(crate) fn succeeded(&mut self, address: SocketAddr) {
        self.failures.remove(&Source::of(address));
    }

    /// Failures of the last window, for status.
    pub(crate) fn recent(&self, now: Instant) -> impl Iterator<Item = &Failure> {
        self.failures
            .values()
            .filter(move |failure| now.duration_since(failure.last_at) < FAILURE_WINDOW)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::message::Refusal;
    use crate::node::tests::first_instant;

    const WRONG: LinkError = LinkError::RefusedByUs(Refusal::WrongSecret);

    #[test]
    fn a_source_that_fails_too_often_waits_for_the_window_to_pass() {
        let (mut admission, now) = (Admission::default(), first_instant());
        let address = "192.0.2.1:1000".parse().unwrap();
        for _ in 0..FAILURES_MAX {
            assert!(admission.admits(address, now));
            admission.failed(address, WRONG, now);
        }
        assert!(!admission.admits("192.0.2.1:2000".parse().unwrap(), now));
        assert!(admission.admits("192.0.2.2:1000".parse().unwrap(), now));
        assert!(admission.admits(address, now + FAILURE_WINDOW));
    }

    #[test]
    fn an_ipv6_network_is_one_source() {
        let source = |text: &str| Source::of(text.parse().unwrap());
        assert_eq!(source("[2001:db8::1]:1"), source("[2001:db8::ffff:1]:2"));
        assert_ne!(source("[2001:db8::1]:1"), source("[2001:db8:0:1::1]:1"));
        assert_eq!(source("[::ffff:192.0.2.1]:1"), source("192.0.2.1:1"));
    }

    #[test]
    fn the_table_stays_bounded_and_forgets_the_oldest() {
        let (mut admission, start) = (Admission::default(), first_instant());
        for n in 0..FAILURE_SOURCES_MAX + 10 {
            let ip = std::net::Ipv4Addr::from_bits(u32::try_from(n).unwrap());
            admission.failed(
                (ip, 1).into(),
                WRONG,
                start + Duration::from_millis(n as u64),
            );
        }
        assert_eq!(admission.failures.len(), FAILURE_SOURCES_MAX);
        assert!(
            !admission
                .failures
                .contains_key(&Source::of("0.0.0.9:1".parse().unwrap()))
        );
    }

    #[test]
    fn a_failure_is_shown_for_a_window_and_then_forgotten() {
        let (mut admission, start) = (Admission::default(), first_instant());
        admission.failed("192.0.2.1:1".parse().unwrap(), WRONG, start);
        let shown = |admission: &Admission, now| admission.recent(now).count();
        assert_eq!(shown(&admission, start), 1);
        let later = start + FAILURE_WINDOW;
        assert_eq!(shown(&admission, later), 0);

        admission.failed("192.0.2.2:1".parse().unwrap(), WRONG, later);

        assert_eq!(admission.failures.len(), 1, "the old one is gone");
    }

    #[test]
    fn handshakes_in_a_second_are_limited() {
        let (mut admission, now) = (Admission::default(), first_instant());
        assert_eq!((0..1000).filter(|_| admission.starts(now)).count(), 256);
        assert!(admission.starts(now + Duration::from_secs(1)));
    }
}
