//! Where a peer may be found, tried by both ends at once, and what each tells the other of itself.
//!
//! ```text
//!   A                              any way                              B
//!   session up ─ PUNCH(where A is) ────────────────────────────────────► candidates, probes
//!   candidates, probes ◄──────────────────────────── PUNCH(where B is) ─ session up
//!        └─────────────── probes cross: both NATs are open ──────────────────┘
//! ```
//!
//! Said again after 2 s and ever more rarely while there is no path, and at once when an address of ours changed.
//! With `--no-discovery` nothing is said, and only who has, or had, a link with us is tried directly.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_engine::bridge::NextHop;
use weft_engine::command::{Command, PeerSlot};
use weft_engine::config::CANDIDATES_MAX;

use crate::config::{PUNCH_PAUSE_MAX, PUNCH_PAUSE_MIN, PUNCH_SOON};
use crate::endpoints::Endpoints;
use crate::link::message::Message;
use crate::node::Node;
use crate::node::peers::Peer;
use crate::node::usage::Usage;
use crate::peer::PeerId;
use crate::record::RecordKind;
use crate::routes::choice::Chooser;

/// How one peer is reached, and what is tried.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    pub(crate) chooser: Chooser,
    pub(crate) usage: Usage,
    /// What the engine was told last.
    pub(crate) route: Option<NextHop>,
    /// What the peer said of itself.
    pub(crate) told: Option<Endpoints>,
    /// The path began while there was a link; it belongs to the link even when that is gone.
    pub(crate) path_of_link: bool,
    /// What the engine is trying.
    tried: Vec<SocketAddr>,
    /// When the peer last told us where it is.
    punched_at: Option<Instant>,
    /// When we tell the peer next where we are, and the pause after that.
    punch_at: Option<Instant>,
    punch_pause: Duration,
}

impl Peer {
    /// Whether the peer is at the other end of a link, or of a path that a link began.
    pub(crate) fn is_adjacent(&self) -> bool {
        self.link.is_some() || (self.reach.path_of_link && self.path.is_some())
    }

    /// Whether frames reach the peer, or a relay that leads to it.
    pub(crate) fn is_reached(&self) -> bool {
        self.is_data_up() || matches!(self.reach.route, Some(NextHop::Via(_)))
    }

    /// Whether addresses are tried at which the peer may be.
    pub(crate) fn may_be_direct(&self) -> bool {
        self.link.is_some() || !self.reach.tried.is_empty()
    }
}

impl Node {
    /// The addresses of the host changed.
    pub(super) fn local_addresses(&mut self, addresses: &[std::net::IpAddr], now: Instant) {
        if self.own_endpoints.set_local(addresses) {
            self.own_endpoints_changed(now);
        }
    }

    /// A peer sees our datagrams come from this address.
    pub(super) fn observed(&mut self, slot: PeerSlot, address: SocketAddr, now: Instant) {
        if let Some(id) = self.peers.at(slot)
            && self.own_endpoints.observed_by(id, address)
        {
            self.own_endpoints_changed(now);
        }
    }

    /// The path is gone by which a peer saw us.
    pub(super) fn no_longer_observed(&mut self, id: PeerId, now: Instant) {
        if self.own_endpoints.unobserved_by(id) {
            self.own_endpoints_changed(now);
        }
    }

    fn own_endpoints_changed(&mut self, now: Instant) {
        if !self.config.discovery {
            return;
        }
        let body = self.own_endpoints.endpoints().encode();
        self.gossip.publish(RecordKind::Endpoints, 0, body, now);
        for id in self.peers.ids() {
            if let Some(peer) = self.peers.find_mut(id)
                && peer.session.suite().is_some()
                && !peer.is_data_up()
            {
                let soon = now + PUNCH_SOON;
                peer.reach.punch_at = Some(peer.reach.punch_at.map_or(soon, |at| at.min(soon)));
                peer.reach.punch_pause = PUNCH_PAUSE_MIN;
                self.punch_due(soon);
            }
        }
    }

    /// A session came up: if there is no path, both ends look for one now.
    pub(super) fn look_for_path(&mut self, id: PeerId, now: Instant) {
        let discovery = self.config.discovery;
        if let Some(peer) = self.peers.find_mut(id).filter(|_| discovery)
            && !peer.is_data_up()
        {
            // Where a link goes, an answer is likely before anything more is said.
            let at = if peer.link.is_some() {
                now + PUNCH_SOON
            } else {
                now
            };
            peer.reach.punch_at = Some(at);
            peer.reach.punch_pause = PUNCH_PAUSE_MIN;
            self.punch_due(at);
        }
    }

    fn punch_due(&mut self, at: Instant) {
        self.punches_due = Some(self.punches_due.map_or(at, |due| due.min(at)));
    }

    /// Says where we are to those with whom we have a session and no path.
    pub(super) fn do_punches(&mut self, now: Instant) {
        if self.punches_due.is_none_or(|due| now < due) {
            return self.wake(self.punches_due);
        }
        self.punches_due = None;
        for id in self.peers.ids() {
            let Some(peer) = self.peers.find_mut(id) else {
                continue;
            };
            if peer.session.suite().is_none() || peer.is_data_up() {
                peer.reach.punch_at = None;
            }
            let Some(at) = peer.reach.punch_at else {
                continue;
            };
            if now < at {
                self.punch_due(at);
                continue;
            }
            let pause = peer.reach.punch_pause;
            let next = now + self.random.around(pause, 20);
            peer.reach.punch_at = Some(next);
            peer.reach.punch_pause = (pause * 2).min(PUNCH_PAUSE_MAX);
            let body = self.own_endpoints.endpoints().encode();
            self.send_to(id, &Message::Punch(body), now);
            self.punch_due(next);
            self.try_addresses(id, true);
        }
        self.wake(self.punches_due);
    }

    /// A peer says where it is, and looks for us at this moment.
    pub(super) fn punched(&mut self, id: PeerId, body: &[u8], now: Instant) {
        let Ok(told) = Endpoints::parse(body) else {
            self.counters.messages_malformed += 1;
            return;
        };
        let discovery = self.config.discovery;
        let Some(peer) = self.peers.find_mut(id).filter(|_| discovery) else {
            return;
        };
        peer.reach.told = Some(told);
        let again = peer
            .reach
            .punched_at
            .is_none_or(|at| now.duration_since(at) >= PUNCH_SOON);
        peer.reach.punched_at = Some(now);
        self.try_addresses(id, again);
    }

    /// A peer's ENDPOINTS record is new.
    pub(super) fn endpoints_record_changed(&mut self, id: PeerId) {
        self.try_addresses(id, false);
    }

    /// Gives the engine the addresses at which a peer may be; `again` starts the probes of each anew.
    pub(super) fn try_addresses(&mut self, id: PeerId, again: bool) {
        let addresses = self.addresses_of(id);
        let Some(peer) = self.peers.find_mut(id) else {
            return;
        };
        let again = again && !peer.is_data_up() && !addresses.is_empty();
        if peer.reach.tried == addresses && !again {
            return;
        }
        let slot = peer.slot;
        peer.reach.tried.clone_from(&addresses);
        self.routing.touch_soon();
        if again {
            let addresses = [].into();
            self.engine(Command::SetCandidates { slot, addresses });
        }
        let addresses = addresses.into();
        self.engine(Command::SetCandidates { slot, addresses });
    }

    /// From where its link goes, from its own mouth, from its record; none that are our own.
    fn addresses_of(&self, id: PeerId) -> Vec<SocketAddr> {
        let Some(peer) = self.peers.find(id) else {
            return Vec::new();
        };
        let mut addresses = Vec::new();
        let linked = peer.is_adjacent() || self.config.discovery;
        let mut record = Vec::new();
        if self.config.discovery {
            let body = self.gossip.body(id, RecordKind::Endpoints, 0);
            let parsed = body.and_then(|body| Endpoints::parse(body).ok());
            record = parsed.map(|parsed| parsed.addresses).unwrap_or_default();
        }
        let of_link = peer.candidates.iter().filter(|_| linked);
        let told = peer.reach.told.iter().flat_map(|told| &told.addresses);
        let ours = self.own_endpoints.endpoints();
        for address in of_link.chain(told).chain(&record) {
            if addresses.len() < CANDIDATES_MAX
                && !addresses.contains(address)
                && !ours.addresses.contains(address)
            {
                addresses.push(*address);
            }
        }
        addresses
    }
}
