//! The peers we know: slots, candidates, and whose session is due when.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Instant;

use weft_engine::command::PeerSlot;
use weft_engine::config::CANDIDATES_MAX;
use weft_engine::path::PathStatus;

use crate::config::PEERS_MAX;
use crate::link::handshake::Hello;
use crate::node::exchange::LinkId;
use crate::node::reach::Reach;
use crate::peer::PeerId;
use crate::session::Session;

/// A label is that much of the front of a PeerId.
const LABEL_LEN: usize = 8;

/// One peer.
pub(crate) struct Peer {
    pub(crate) slot: PeerSlot,
    pub(crate) hello: Hello,
    /// The link in use.
    pub(crate) link: Option<LinkId>,
    pub(crate) session: Session,
    pub(crate) path: Option<PathStatus>,
    /// Best first.
    pub(crate) candidates: Vec<SocketAddr>,
    /// Since when there is no link.
    pub(crate) gone_since: Option<Instant>,
    /// The peer closed the link in use for another, whose last message is still on its way.
    pub(crate) handover_until: Option<Instant>,
    pub(crate) reach: Reach,
    /// The numbers of the peer's keys for floods that the engine has.
    pub(super) group_epochs: Vec<u32>,
    /// When the session has something to do, as the table of peers knows it.
    pub(super) timer: Option<Instant>,
}

impl Peer {
    /// Puts addresses in front of the ones known; true if that changed anything.
    pub(crate) fn add_candidates(&mut self, fresh: &[SocketAddr]) -> bool {
        let mut candidates = Vec::with_capacity(CANDIDATES_MAX);
        for address in fresh.iter().chain(&self.candidates) {
            if !candidates.contains(address) && candidates.len() < CANDIDATES_MAX {
                candidates.push(*address);
            }
        }
        let changed = candidates != self.candidates;
        self.candidates = candidates;
        changed
    }

    /// Whether frames can reach the peer: the engine's word on the path counts only while there is a session.
    pub(crate) fn is_data_up(&self) -> bool {
        self.path.is_some() && self.session.suite().is_some()
    }
}

/// The table of peers and the free slots.
pub(crate) struct Peers {
    by_id: BTreeMap<PeerId, Peer>,
    by_slot: BTreeMap<PeerSlot, PeerId>,
    /// Returned slots; a slot rests here as long as others are free, so that late events find nobody.
    free: BTreeSet<PeerSlot>,
    next: u16,
    /// When each session has something to do, in that order.
    timers: BTreeSet<(Instant, PeerId)>,
    /// Rises when a peer comes or goes.
    version: u64,
}

impl Peers {
    pub(crate) fn new() -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_slot: BTreeMap::new(),
            free: BTreeSet::new(),
            next: 0,
            timers: BTreeSet::new(),
            version: 0,
        }
    }

    pub(crate) fn find(&self, id: PeerId) -> Option<&Peer> {
        self.by_id.get(&id)
    }

    pub(crate) fn find_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.by_id.get_mut(&id)
    }

    pub(crate) fn at(&self, slot: PeerSlot) -> Option<PeerId> {
        self.by_slot.get(&slot).copied()
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.by_id.iter().map(|(id, peer)| (*id, peer))
    }

    pub(crate) fn ids(&self) -> Vec<PeerId> {
        self.by_id.keys().copied().collect()
    }

    /// Another peer whose label is the same; it cannot be told apart in RELAY headers.
    pub(crate) fn with_label_of(&self, id: PeerId) -> bool {
        let (mut first, mut last) = (id, id);
        first.0[LABEL_LEN..].fill(0);
        last.0[LABEL_LEN..].fill(0xff);
        let mut of_label = self.by_id.range(first..=last);
        of_label.any(|(other, _)| *other != id)
    }

    /// Says when the peer's session has something to do.
    pub(crate) fn set_timer(&mut self, id: PeerId, at: Option<Instant>) {
        let Some(peer) = self.by_id.get_mut(&id).filter(|peer| peer.timer != at) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut peer.timer, at) {
            self.timers.remove(&(before, id));
        }
        if let Some(at) = at {
            self.timers.insert((at, id));
        }
    }

    /// When the first session has something to do.
    pub(crate) fn next_timer(&self) -> Option<Instant> {
        self.timers.first().map(|(at, _)| *at)
    }

    /// Whose sessions have something to do now.
    pub(crate) fn due(&self, now: Instant) -> Vec<PeerId> {
        let due = self.timers.iter().take_while(|(at, _)| *at <= now);
        due.map(|(_, id)| *id).collect()
    }

    /// A slot for a new peer; `None` if all are taken.
    pub(crate) fn take_slot(&mut self) -> Option<PeerSlot> {
        if usize::from(self.next) < PEERS_MAX {
            self.next += 1;
            return Some(PeerSlot(self.next - 1));
        }
        self.free.pop_first()
    }

    pub(crate) fn insert(&mut self, id: PeerId, peer: Peer) {
        self.version += 1;
        self.by_slot.insert(peer.slot, id);
        self.by_id.insert(id, peer);
    }

    pub(crate) fn remove(&mut self, id: PeerId) -> Option<Peer> {
        self.set_timer(id, None);
        let peer = self.by_id.remove(&id)?;
        self.version += 1;
        self.by_slot.remove(&peer.slot);
        self.free.insert(peer.slot);
        Some(peer)
    }

    /// Another one whenever a peer came or went: slots mean the same as long as it is the same.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.by_id.len()
    }
}
