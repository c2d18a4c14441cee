//! The peers we know: slots and candidates.

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
}

impl Peers {
    pub(crate) fn new() -> Self {
        Self {
            by_id: BTreeMap::new(),
            by_slot: BTreeMap::new(),
            free: BTreeSet::new(),
            next: 0,
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
        self.by_id
            .keys()
            .any(|other| *other != id && other.label() == id.label())
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
        self.by_slot.insert(peer.slot, id);
        self.by_id.insert(id, peer);
    }

    pub(crate) fn remove(&mut self, id: PeerId) -> Option<Peer> {
        let peer = self.by_id.remove(&id)?;
        self.by_slot.remove(&peer.slot);
        self.free.insert(peer.slot);
        Some(peer)
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.by_id.len()
    }
}
