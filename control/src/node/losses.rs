//! What happens when links end, fall silent, or never come up.

use std::time::Instant;

use crate::config::{FAILURES_SAID_IN, FAILURES_SAID_MAX, HANDSHAKE_TIMEOUT, PEER_FORGOTTEN_AFTER};
use crate::link::error::LinkError;
use crate::link::message::ByeReason;
use crate::node::exchange::{CloseCause, LinkId};
use crate::node::notice::Notice;
use crate::node::{LinkEntry, Node};
use crate::peer::PeerId;

/// How many inbound connections that failed are in the log already.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    window_at: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Refusals {
    /// Counts one; true if it may be said.
    fn note(&mut self, now: Instant) -> bool {
        let is_over = |at: Instant| now.duration_since(at) >= FAILURES_SAID_IN;
        if self.window_at.is_none_or(is_over) && self.unsaid == 0 {
            (self.window_at, self.said) = (Some(now), 0);
        }
        let may = self.said < FAILURES_SAID_MAX;
        self.said = self.said.saturating_add(1);
        self.unsaid += u64::from(!may);
        may
    }

    /// How many were not said in the window that is over.
    fn take_unsaid(&mut self, now: Instant) -> Option<u64> {
        let at = self.window_at?;
        if self.unsaid == 0 || now.duration_since(at) < FAILURES_SAID_IN {
            return None;
        }
        (self.window_at, self.said) = (Some(now), 0);
        Some(std::mem::take(&mut self.unsaid))
    }
}

impl Node {
    pub(super) fn link_closed(&mut self, id: LinkId, cause: CloseCause, now: Instant) {
        let error = match cause {
            CloseCause::Ended => LinkError::Ended,
            CloseCause::Broken => LinkError::Broken,
            CloseCause::QueueFull => LinkError::QueueFull,
        };
        self.link_down(id, error, now);
    }

    pub(super) fn link_down(&mut self, id: LinkId, error: LinkError, now: Instant) {
        let Some(entry) = self.links.remove(&id) else {
            return;
        };
        let Some(peer_id) = entry.peer else {
            return self.handshake_failed(id, &entry, error, now);
        };
        self.gossip.link_down(id);
        if matches!(error, LinkError::ByPeer(ByeReason::ClonedIdentity)) {
            self.our_clone_met(entry.remote, now);
        }
        let Some(peer) = self
            .peers
            .find_mut(peer_id)
            .filter(|peer| peer.link == Some(id))
        else {
            return;
        };
        peer.link = None;
        peer.gone_since = Some(now);
        if error == LinkError::ByPeer(ByeReason::Duplicate) {
            let until = now + HANDSHAKE_TIMEOUT;
            peer.handover_until = Some(until);
            self.handovers_at = Some(self.handovers_at.map_or(until, |at| at.min(until)));
            self.wake(self.handovers_at);
        } else {
            self.link_lost(peer_id, error, now);
        }
        if error == LinkError::ByPeer(ByeReason::Stopping) {
            self.with_session(peer_id, now, |session, context| session.end(context));
        }
        self.links_changed(now);
        // What a record says of a newer process counts from now on.
        self.peer_record_changed(peer_id, now);
    }

    /// The peer has no link any more.
    fn link_lost(&mut self, peer_id: PeerId, error: LinkError, now: Instant) {
        let Some(peer) = self.peers.find_mut(peer_id) else {
            return;
        };
        peer.handover_until = None;
        let (name, nickname) = (peer.hello.name, peer.hello.nickname.clone());
        self.notice(Notice::LinkDown {
            name,
            nickname,
            reason: error.to_string(),
        });
        self.dialer
            .disconnected(peer_id, Some(error), &mut self.random, now);
        if self.peers.all().all(|(_, peer)| peer.link.is_none()) {
            // Nobody leads to those who had links enough any more.
            self.dialer.hurry_enough(now);
        }
        self.touch_mesh(now);
        self.wake(self.dialer.deadline());
        self.look_for_lost_peers(now + PEER_FORGOTTEN_AFTER);
    }

    /// Links that a peer closed for another one that never came.
    pub(super) fn end_handovers(&mut self, now: Instant) {
        if self.handovers_at.is_none_or(|at| now < at) {
            return self.wake(self.handovers_at);
        }
        self.handovers_at = None;
        for peer_id in self.peers.ids() {
            let Some(until) = self
                .peers
                .find(peer_id)
                .and_then(|peer| peer.handover_until)
            else {
                continue;
            };
            if until <= now {
                self.link_lost(peer_id, LinkError::Ended, now);
            } else {
                self.handovers_at = Some(self.handovers_at.map_or(until, |at| at.min(until)));
            }
        }
        self.wake(self.handovers_at);
    }

    fn handshake_failed(&mut self, id: LinkId, entry: &LinkEntry, error: LinkError, now: Instant) {
        let outbound = entry.link.is_outbound();
        self.counters.handshakes_failed += 1;
        if outbound {
            let secrets = self.secrets.keys().len();
            self.dialer
                .handshake_failed(id, error, secrets, &mut self.random, now);
            self.mesh_attempt_failed(now);
            self.wake(self.dialer.deadline());
        } else if error.counts_against_source() {
            self.admission.failed(entry.remote, error, now);
        }
        // Anybody can make connections that fail: they may not fill the log.
        let is_said = !error.is_quiet() && (outbound || self.refusals.note(now));
        if let Some(count) = self.refusals.take_unsaid(now) {
            self.notice(Notice::LinksFailedUnsaid { count });
        }
        if is_said {
            self.notice(Notice::LinkFailed {
                address: entry.remote,
                outbound,
                reason: error.to_string(),
            });
        }
    }

    /// Dials beside links that do not answer.
    pub(super) fn suspect_links(&mut self, now: Instant) {
        let mut suspects = Vec::new();
        for entry in self.links.values_mut() {
            if let Some(peer) = entry.peer
                && !entry.suspect
                && entry.link.is_suspect(now)
            {
                entry.suspect = true;
                suspects.push(peer);
            }
        }
        if !suspects.is_empty() {
            self.links_changed(now);
            self.touch_mesh(now);
        }
        for peer in suspects {
            self.dialer.disconnected(peer, None, &mut self.random, now);
        }
    }

    pub(super) fn unsuspect(&mut self, id: LinkId, now: Instant) {
        if let Some(entry) = self.links.get_mut(&id)
            && let Some(peer) = entry.peer
            && entry.suspect
            && !entry.link.is_suspect(now)
        {
            entry.suspect = false;
            self.dialer.connected(id, peer, now);
            self.links_changed(now);
            self.touch_mesh(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::node::tests::first_instant;

    #[test]
    fn a_swarm_of_failures_is_a_few_lines_and_a_number() {
        let (mut refusals, mut now) = (Refusals::default(), first_instant());
        let (mut said, mut counted) = (0, 0);
        for _ in 0..1000 {
            now += Duration::from_millis(200);
            said += u64::from(refusals.note(now));
            counted += refusals.take_unsaid(now).unwrap_or(0);
        }
        let windows = 200 / FAILURES_SAID_IN.as_secs() + 1;
        assert!(said <= windows * u64::from(FAILURES_SAID_MAX), "{said}");
        assert!(said + counted > 1000 - 5 * 60, "{said} {counted}");

        now += 2 * FAILURES_SAID_IN;
        refusals.note(now);
        assert!(
            refusals.take_unsaid(now).is_some(),
            "the rest comes with the next"
        );
        assert!(refusals.note(now));
    }
}
