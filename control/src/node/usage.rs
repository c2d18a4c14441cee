//! Which sessions are in use: frames counted now and then, as the engine has carried them.
//!
//! A session with a peer that has a link is always kept. Another one is renewed only while frames flow; else it
//! ends with its epoch, at both ends at about the same time, and the next frame begins a new one. Bounds:
//! `config::TRAFFIC_EVERY`, `SESSION_IDLE_AFTER`.

use std::time::Instant;

use weft_engine::command::PeerSlot;

use crate::config::{SESSION_IDLE_AFTER, TRAFFIC_EVERY};
use crate::node::Node;
use crate::node::exchange::Output;
use crate::node::peers::Peer;
use crate::peer::PeerId;

/// What is known of one peer's frames.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    bytes: u64,
    used_at: Option<Instant>,
}

impl Peer {
    /// Whether the session is worth a new epoch.
    pub(crate) fn is_in_use(&self, now: Instant) -> bool {
        let used = |at: Instant| now.duration_since(at) < SESSION_IDLE_AFTER;
        self.is_adjacent() || self.reach.usage.used_at.is_some_and(used)
    }
}

impl Node {
    /// Somebody has something for the peer: there shall be a session.
    pub(super) fn session_wanted(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.peers.find_mut(id) {
            peer.reach.usage.used_at = Some(now);
        }
        self.with_session(id, now, |session, context| session.wanted(context.now));
    }

    /// Asks for the engine's counts when that is due.
    pub(super) fn ask_for_traffic(&mut self, now: Instant) {
        if self.traffic_at.is_some_and(|at| now < at) {
            return self.wake(self.traffic_at);
        }
        let counts = |peer: &Peer| peer.session.is_live() && !peer.is_adjacent();
        self.traffic_at = Some(now + TRAFFIC_EVERY);
        if self.peers.all().any(|(_, peer)| counts(peer)) {
            self.outputs.push_back(Output::CountTraffic);
        }
    }

    /// Frame bytes to and from peers since each is known.
    pub(super) fn traffic_counted(&mut self, counts: &[(PeerSlot, u64)], now: Instant) {
        for (slot, bytes) in counts {
            if let Some(peer) = self.peers.at(*slot).and_then(|id| self.peers.find_mut(id))
                && std::mem::replace(&mut peer.reach.usage.bytes, *bytes) != *bytes
            {
                peer.reach.usage.used_at = Some(now);
            }
        }
    }
}
