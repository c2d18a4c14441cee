//! Whose agreement is sought, and when it is asked for again: after a loss, before leaving, when peers meet.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::ipam::Ipam;
use crate::peer::PeerId;

/// An unanswered comparison is repeated after this time; messages may be lost.
pub(crate) const COMPARE_AGAIN: Duration = Duration::from_millis(300);

/// Whether the pause after the last time is over; `at`: when that was.
pub(crate) fn is_due(at: Option<Instant>, pause: Duration, now: Instant) -> bool {
    at.is_none_or(|at| now >= at + pause)
}

impl Ipam {
    /// Peers within reach that may be of our ring, without these.
    pub(crate) fn others_than(&self, these: &BTreeSet<PeerId>) -> Vec<PeerId> {
        let is_wanted = |peer: &&PeerId| !these.contains(*peer) && !self.strangers.contains(*peer);
        self.contacts.keys().filter(is_wanted).copied().collect()
    }
}
