//! Whether the other end of a link still answers, and how long that is waited for.
//!
//! ```text
//!  heard ── LINK_PING_AFTER, or asked for ──► ping ── patience ──► suspect ── … ──► dead
//!    ▲                                         │                      │      LINK_DEAD_AFTER in all
//!    └──────────── answer, any word ───────────┴──────────────────────┘
//! ```

use std::time::{Duration, Instant};

use crate::config::{LINK_DEAD_AFTER, LINK_PING_AFTER, LINK_SUSPECT_AFTER};

/// Of one link.
pub(super) struct Liveness {
    heard_at: Instant,
    ping: Option<([u8; 8], Instant)>,
    /// How long a ping may wait before the link is suspect.
    patience: Duration,
}

impl Liveness {
    pub(super) fn new(now: Instant) -> Self {
        Self {
            heard_at: now,
            ping: None,
            patience: LINK_SUSPECT_AFTER,
        }
    }

    /// Anything came from the peer.
    pub(super) fn heard(&mut self, now: Instant) {
        self.heard_at = now;
    }

    /// A ping with this nonce goes out.
    pub(super) fn asked(&mut self, nonce: [u8; 8], now: Instant) {
        self.ping = Some((nonce, now));
    }

    /// Whether a ping is unanswered.
    pub(super) fn awaits_answer(&self) -> bool {
        self.ping.is_some()
    }

    /// An answer came; one to an older ping is none.
    pub(super) fn answered(&mut self, nonce: [u8; 8]) {
        if self.ping.is_some_and(|(sent, _)| sent == nonce) {
            (self.ping, self.patience) = (None, LINK_SUSPECT_AFTER);
        }
    }

    /// There is reason to think that the link is dead: no longer is waited than that.
    pub(super) fn doubt(&mut self, patience: Duration) {
        self.patience = self.patience.min(patience);
    }

    /// True if a ping has waited too long for its answer.
    pub(super) fn is_suspect(&self, now: Instant) -> bool {
        self.suspect_at().is_some_and(|at| at <= now)
    }

    /// When [`Liveness::is_suspect`] may turn true.
    pub(super) fn suspect_at(&self) -> Option<Instant> {
        self.ping.map(|(_, sent_at)| sent_at + self.patience)
    }

    /// When a ping is due or, if one went out, the link is dead.
    pub(super) fn deadline(&self) -> Instant {
        match self.ping {
            Some((_, sent_at)) => sent_at + (LINK_DEAD_AFTER - LINK_PING_AFTER),
            None => self.heard_at + LINK_PING_AFTER,
        }
    }
}
