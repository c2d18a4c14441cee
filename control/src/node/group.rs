//! Keys for floods: ours given to the members, theirs given to the engine.
//!
//! ```text
//!  engine ── GroupKeyWanted, GroupKeyDue ──► group.rs ─┬─ GROUP_KEY ──► member ── its engine
//!  member ── GROUP_TAKEN ──────────────────────────────┴─ all have it: SetGroupKey ──► our engine
//! ```
//!
//! A key travels on the link of the two or inside their session, never in a routed message: only those two may read
//! it. Where there is neither, a session is made.

use std::sync::Arc;
use std::time::Instant;

use weft_engine::command::{Command, GroupKey};
use weft_engine::config::GROUP_EPOCHS_MAX;
use weft_engine::session::CipherSuite;

use crate::group::{Act, Candidate};
use crate::link::handshake::{suite_byte, suite_from_byte};
use crate::link::message::{GroupKeyMessage, Message};
use crate::node::Node;
use crate::peer::PeerId;

/// The one that every member has.
const SUITE: CipherSuite = CipherSuite::ChaCha20Poly1305;

impl Node {
    /// Gives and renews our key, if that is due.
    pub(super) fn do_group(&mut self, now: Instant) {
        if self.group.deadline().is_none_or(|due| now < due) {
            return self.wake(self.group.deadline());
        }
        let candidates: Vec<_> = self
            .peers
            .all()
            .map(|(peer, known)| Candidate {
                peer,
                boot_id: known.hello.boot_id,
                is_reachable: self.is_reachable(peer),
            })
            .collect();
        for act in self.group.look(&candidates, &mut self.random, now) {
            match act {
                Act::Give(peer) => self.give_group_key(peer, now),
                Act::Use => self.use_group_key(),
                Act::Cease(epoch) => self.engine(Command::RemoveGroupKey { slot: None, epoch }),
            }
        }
        self.wake(self.group.deadline());
    }

    fn give_group_key(&mut self, peer: PeerId, now: Instant) {
        let Some(own) = self.group.newest() else {
            return;
        };
        let message = Message::GroupKey(GroupKeyMessage {
            epoch: own.epoch,
            suite: suite_byte(SUITE),
            lanes: self.config.workers,
            key: own.key.clone(),
        });
        if !self.send_in_private(peer, &message, now) {
            self.session_wanted(peer, now);
        }
    }

    fn use_group_key(&mut self) {
        if let Some(own) = self.group.newest() {
            let key = GroupKey {
                slot: None,
                epoch: own.epoch,
                suite: SUITE,
                key: own.key.clone(),
                lanes: self.config.workers,
            };
            self.engine(Command::SetGroupKey(Arc::new(key)));
        }
    }

    /// A peer gave us the key that it floods under. It comes again if our answer is lost.
    pub(super) fn group_key_given(&mut self, id: PeerId, message: &GroupKeyMessage, now: Instant) {
        let (Some(suite), Some(peer)) = (suite_from_byte(message.suite), self.peers.find_mut(id))
        else {
            self.counters.messages_unknown += 1;
            return;
        };
        let slot = peer.slot;
        if !peer.group_epochs.contains(&message.epoch) {
            if peer.group_epochs.len() >= GROUP_EPOCHS_MAX {
                peer.group_epochs.remove(0);
            }
            peer.group_epochs.push(message.epoch);
            let key = GroupKey {
                slot: Some(slot),
                epoch: message.epoch,
                suite,
                key: message.key.clone(),
                lanes: message.lanes,
            };
            self.engine(Command::SetGroupKey(Arc::new(key)));
        }
        self.send_in_private(id, &Message::GroupKeyTaken(message.epoch), now);
    }

    /// The peer is a new process: what the old one flooded under is worthless, and its numbers may come again.
    pub(super) fn drop_group_keys_of(&mut self, id: PeerId) {
        let Some(peer) = self.peers.find_mut(id) else {
            return;
        };
        let slot = Some(peer.slot);
        for epoch in std::mem::take(&mut peer.group_epochs) {
            self.engine(Command::RemoveGroupKey { slot, epoch });
        }
    }
}

#[cfg(test)]
mod tests;
