//! One target and its back-off.

use std::time::{Duration, Instant};

use super::{BACKOFF_BREATH, BACKOFF_GROWTH_QUARTERS, TargetAddress, TargetFailure, TargetPhase};
use crate::config::{
    BACKOFF_FOUND_MAX, BACKOFF_FOUND_SHARE, BACKOFF_MAX, BACKOFF_MIN, BACKOFF_REFUSED,
    BACKOFF_SHARE, BACKOFF_YOUNG_MAX, ENOUGH_PAUSE,
};
use crate::link::error::LinkError;
use crate::link::message::ByeReason;
use crate::peer::PeerId;
use crate::random::Randomness;

/// Share by which a pause is varied, so that hosts that lost each other do not dial in step.
const BACKOFF_JITTER_PERCENT: u32 = 20;

fn grown(interval: Duration) -> Duration {
    interval * BACKOFF_GROWTH_QUARTERS / 4
}

/// One target.
#[derive(Debug)]
pub(crate) struct Target {
    /// As typed.
    pub(crate) text: String,
    pub(crate) address: TargetAddress,
    pub(crate) phase: TargetPhase,
    pub(crate) failure: Option<TargetFailure>,
    /// Who was found there last, or is looked for there.
    pub(crate) peer: Option<PeerId>,
    /// Where else a discovered peer may be; `None` if somebody named the target.
    pub(super) others: Option<Vec<TargetAddress>>,
    pub(super) interval: Duration,
    pub(super) started_at: Instant,
    pub(super) connected_at: Instant,
    pub(super) outage_since: Instant,
    /// Refusals since the last link; which secret to offer follows from it.
    pub(super) refusals: usize,
    /// Failures of all kinds since the last link.
    pub(super) failures: u32,
}

impl Target {
    pub(super) fn new(text: String, address: TargetAddress, at: Instant) -> Self {
        Self {
            text,
            address,
            phase: TargetPhase::Waiting { until: at },
            failure: None,
            peer: None,
            others: None,
            interval: BACKOFF_MIN,
            started_at: at,
            connected_at: at,
            outage_since: at,
            refusals: 0,
            failures: 0,
        }
    }

    /// True if somebody gave it to us; false if it was discovered.
    pub(crate) fn is_named(&self) -> bool {
        self.others.is_none()
    }

    /// Our handshake with it has found this peer.
    pub(super) fn found(&mut self, peer: PeerId, now: Instant) {
        if self.is_named() || self.peer == Some(peer) {
            self.peer = Some(peer);
            return;
        }
        // An address that two peers say is theirs: the one we look for is elsewhere.
        self.look_elsewhere(now);
    }

    /// Our handshake with it has found ourselves.
    pub(super) fn found_ourself(&mut self, now: Instant) {
        if self.is_named() {
            self.phase = TargetPhase::OurOwn;
        } else {
            self.look_elsewhere(now);
        }
    }

    fn look_elsewhere(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.next_address();
        self.phase = TargetPhase::Waiting {
            until: now + self.interval,
        };
        if self.others.as_ref().is_none_or(Vec::is_empty) {
            // The one address there is belongs to somebody else by now.
            self.interval = grown(self.interval).min(BACKOFF_FOUND_MAX);
        } else {
            self.grow_interval(now);
        }
    }

    /// The longest pause for an outage of this age.
    fn interval_max(&self, now: Instant) -> Duration {
        let age = now.duration_since(self.outage_since);
        let (share, longest) = if self.is_named() {
            (BACKOFF_SHARE, BACKOFF_MAX)
        } else {
            (BACKOFF_FOUND_SHARE, BACKOFF_FOUND_MAX)
        };
        (age / share).clamp(BACKOFF_YOUNG_MAX, longest)
    }

    fn grow_interval(&mut self, now: Instant) {
        self.interval = grown(self.interval).min(self.interval_max(now));
    }

    /// The peer has been out of reach since then, and was looked for before.
    pub(super) fn is_out_since(&mut self, since: Instant, now: Instant) {
        self.outage_since = since;
        let longest = self.interval_max(now);
        if longest > BACKOFF_YOUNG_MAX {
            self.interval = longest;
        }
    }

    /// The next attempt goes to the next of the addresses that a discovered peer says it has.
    fn next_address(&mut self) {
        if let Some(others) = &mut self.others
            && !others.is_empty()
        {
            let next = others.remove(0);
            others.push(std::mem::replace(&mut self.address, next));
            self.text = self.address.to_string();
        }
    }

    /// True if the last attempt failed in a way that only a person can mend.
    pub(crate) fn is_refused(&self) -> bool {
        matches!(self.failure, Some(TargetFailure::Link(error)) if error.is_refusal())
    }

    pub(super) fn hurry(&mut self, now: Instant) {
        self.interval = BACKOFF_MIN;
        self.outage_since = now;
        self.refusals = 0;
        if let TargetPhase::Waiting { until } = &mut self.phase {
            *until = now.min(*until);
        } else if self.phase == TargetPhase::OurOwn {
            self.phase = TargetPhase::Waiting { until: now };
        }
    }

    pub(super) fn refused(&mut self, error: LinkError, random: &mut Randomness, now: Instant) {
        self.failure = Some(TargetFailure::Link(error));
        self.phase = TargetPhase::Waiting {
            until: now + random.around(BACKOFF_REFUSED, BACKOFF_JITTER_PERCENT),
        };
    }

    pub(super) fn failed(&mut self, failure: TargetFailure, random: &mut Randomness, now: Instant) {
        let pause = self.interval.min(self.interval_max(now));
        let pause = random.around(pause, BACKOFF_JITTER_PERCENT);
        self.grow_interval(now);
        self.failure = Some(failure);
        self.failures = self.failures.saturating_add(1);
        self.next_address();
        self.phase = TargetPhase::Waiting {
            until: (self.started_at + pause).max(now + BACKOFF_BREATH),
        };
    }

    /// The peer has links enough, and others lead to it: asked again after a good while.
    pub(super) fn is_enough(&mut self, random: &mut Randomness, now: Instant) {
        self.failure = Some(TargetFailure::Link(LinkError::ByPeer(ByeReason::Enough)));
        self.phase = TargetPhase::Waiting {
            until: now + random.around(ENOUGH_PAUSE, 2 * BACKOFF_JITTER_PERCENT),
        };
    }
}
