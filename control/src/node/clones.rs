//! Two processes with one identity key, as after the copy of a disk: noticed, said, and kept from giving addresses.
//!
//! ```text
//!  gossip: records of one key that two processes sign ──┐            ┌─► log, status
//!  a link to a process with our key ────────────────────┼─► clones ──┤
//!  a peer that keeps us out, for it knows another ──────┘            └─► ours: IPAM gives and promises nothing
//! ```
//!
//! Each of the two owns the same ranges, so neither may give of them; if the network lets only one of them in, that
//! one goes on. It ends when nothing was heard of the other for `config::CLONE_SHOWN`. Bound: `config::CLONES_MAX`, and our own.

use std::net::SocketAddr;
use std::time::Instant;

use crate::config::{CLONE_NOTICE_EVERY, CLONE_SHOWN, CLONES_MAX};
use crate::node::Node;
use crate::node::notice::Notice;
use crate::peer::PeerId;

/// A key that two processes use.
#[derive(Debug, Clone, Copy)]
pub(super) struct CloneHeard {
    /// When the log was told.
    said_at: Instant,
    /// When either spoke in the other's place for the last time.
    heard_at: Instant,
}

impl CloneHeard {
    fn is_there(&self, now: Instant) -> bool {
        now.duration_since(self.heard_at) < CLONE_SHOWN
    }
}

impl Node {
    /// Two processes use one key: said once in a while.
    pub(super) fn clone_noticed(&mut self, peer_id: PeerId, now: Instant) {
        if !self.clone_is_new(peer_id, now) {
            return;
        }
        let ours = peer_id == self.identity.peer_id();
        let (name, nickname) = self.peers.find(peer_id).map_or_else(
            || (peer_id.name(), self.config.nickname.clone()),
            |peer| (peer.hello.name, peer.hello.nickname.clone()),
        );
        self.notice(Notice::CloneHeard {
            peer_id,
            name,
            nickname,
            ours,
        });
    }

    /// Another process with our key was met, or a peer keeps us out for it.
    pub(super) fn our_clone_met(&mut self, address: SocketAddr, now: Instant) {
        let peer_id = self.identity.peer_id();
        self.clone_is_new(peer_id, now);
        self.notice(Notice::ClonedIdentity {
            peer_id,
            address,
            ours: true,
        });
    }

    /// Notes it; true if it was not known, or is to be said again.
    fn clone_is_new(&mut self, peer_id: PeerId, now: Instant) -> bool {
        let is_kept = |clone: &CloneHeard| {
            clone.is_there(now) || now.duration_since(clone.said_at) < CLONE_NOTICE_EVERY
        };
        self.clones.retain(|_, clone| is_kept(clone));
        if let Some(clone) = self.clones.get_mut(&peer_id) {
            clone.heard_at = now;
            if now.duration_since(clone.said_at) < CLONE_NOTICE_EVERY {
                return false;
            }
            clone.said_at = now;
            return true;
        }
        // Our own is the one that matters.
        if self.clones.len() >= CLONES_MAX && peer_id != self.identity.peer_id() {
            return false;
        }
        let (said_at, heard_at) = (now, now);
        self.clones
            .insert(peer_id, CloneHeard { said_at, heard_at });
        true
    }

    /// Until when another process with our key counts as there, if one does.
    pub(super) fn runs_twice_until(&self, now: Instant) -> Option<Instant> {
        let clone = self.clones.get(&self.identity.peer_id())?;
        clone.is_there(now).then(|| clone.heard_at + CLONE_SHOWN)
    }

    /// What `weft status` says of them.
    pub(super) fn clone_notes(&self, now: Instant) -> impl Iterator<Item = String> {
        let there = self
            .clones
            .iter()
            .filter(move |(_, clone)| clone.is_there(now));
        let ours = self.identity.peer_id();
        there.map(move |(id, _)| {
            let gives = if *id == ours {
                " (this host gives no addresses meanwhile)"
            } else {
                ""
            };
            format!(
                "two hosts run with the identity key of {id}{gives}; run `weft reset` on the copy (a store put back from a backup looks so, too, for {} s)",
                CLONE_SHOWN.as_secs()
            )
        })
    }
}
