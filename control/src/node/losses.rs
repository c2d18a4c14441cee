//! What happens when links end, fall silent, or never come up.

use std::time::Instant;

use crate::config::{HANDSHAKE_TIMEOUT, PEER_FORGOTTEN_AFTER};
use crate::link::error::LinkError;
use crate::link::message::ByeReason;
use crate::node::exchange::{CloseCause, LinkId};
use crate::node::notice::Notice;
use crate::node::{LinkEntry, Node};
use crate::peer::PeerId;

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
            let ours = self.identity.peer_id();
            self.notice(Notice::ClonedIdentity {
                peer_id: ours,
                address: entry.remote,
                ours: true,
            });
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
            peer.handover_until = Some(now + HANDSHAKE_TIMEOUT);
            self.wake(Some(now + HANDSHAKE_TIMEOUT));
        } else {
            self.link_lost(peer_id, error, now);
        }
        if error == LinkError::ByPeer(ByeReason::Stopping) {
            self.with_session(peer_id, now, |session, context| session.end(context));
        }
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
        self.wake(self.dialer.deadline());
        self.wake(Some(now + PEER_FORGOTTEN_AFTER));
    }

    /// Links that a peer closed for another one that never came.
    pub(super) fn end_handovers(&mut self, now: Instant) {
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
                self.wake(Some(until));
            }
        }
    }

    fn handshake_failed(&mut self, id: LinkId, entry: &LinkEntry, error: LinkError, now: Instant) {
        let outbound = entry.link.is_outbound();
        self.counters.handshakes_failed += 1;
        if outbound {
            let secrets = self.secrets.keys().len();
            self.dialer
                .handshake_failed(id, error, secrets, &mut self.random, now);
            self.wake(self.dialer.deadline());
        } else if error.counts_against_source() {
            self.admission.failed(entry.remote, error, now);
        }
        if !error.is_quiet() {
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
        }
    }
}
