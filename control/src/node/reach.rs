//! Where a peer may be found, tried by both ends at once, and what each tells the other of itself.
//!
//! ```text
//!   A                              any way                              B
//!   session up ─ PUNCH(where A is) ────────────────────────────────────► probes
//!   probes ── when that has arrived                                        │
//!        └─────────────── they cross: both NATs are open ──────────────────┘
//! ```
//!
//! Said again after 2 s and ever more rarely while there is no path, and at once when an address of ours changed.
//! With `--no-discovery` nothing is said, and only who has, or had, a link with us is tried directly.
//!
//! A NAT whose own host takes what strangers send, as Linux does without a firewall, remembers the stranger and gives
//! the one inside, who answers a moment later, another port than the stranger was told. So both begin at the same
//! moment, and where no path is and none was lately, neither sends anything between two tries: what the NATs remember
//! is forgotten in the longest of these pauses.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use weft_engine::bridge::NextHop;
use weft_engine::command::{Command, PeerSlot};
use weft_engine::config::CANDIDATES_MAX;

use crate::config::{
    MEETING_LENGTH, PATH_PATIENCE, PUNCH_PAUSE_MAX, PUNCH_PAUSE_MIN, PUNCH_QUICK_MAX, PUNCH_SOON,
};
use crate::endpoints::Endpoints;
use crate::link::message::Message;
use crate::node::Node;
use crate::node::overview::round_trip;
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
    /// The largest datagram that this way carries, and since when.
    pub(crate) size: Option<(u16, Instant)>,
    /// What the peer said of itself.
    pub(crate) told: Option<Endpoints>,
    /// The path began while there was a link; it belongs to the link even when that is gone.
    pub(crate) path_of_link: bool,
    /// Where the peer may be.
    tried: Vec<SocketAddr>,
    /// What the engine is trying of it: nothing between two meetings.
    given: Option<Vec<SocketAddr>>,
    /// When both ends begin to probe, and when that comes to nothing.
    begins_at: Option<Instant>,
    ends_at: Option<Instant>,
    /// When the last path ended.
    lost_at: Option<Instant>,
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

    /// Notes what the way in use carries.
    pub(super) fn note_size(&mut self, size: Option<u16>, now: Instant) {
        let known = &mut self.reach.size;
        if size != known.map(|(size, _)| size) {
            *known = size.map(|size| (size, now));
        }
    }

    /// Whether a path may come of nothing but probes that both ends send at the same moment.
    fn rests(&self, now: Instant) -> bool {
        let lately = |lost: Instant| now < lost + PATH_PATIENCE;
        let meets = |ends: Instant| now < ends;
        self.link.is_none()
            && self.path.is_none()
            && !self.reach.lost_at.is_some_and(lately)
            && !self.reach.ends_at.is_some_and(meets)
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
        let Some(id) = self.peers.at(slot) else {
            return;
        };
        let before = self.own_endpoints.seen_by(id);
        if self.own_endpoints.observed_by(id, address) {
            self.own_endpoints_changed(now);
        }
        if before.is_some() && before != self.own_endpoints.seen_by(id) {
            // Our NAT has forgotten us, and with our datagrams the link.
            self.doubt_link(id, now);
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
        let is_distance_known = self.routing.data_way(id).is_some();
        if let Some(peer) = self.peers.find_mut(id).filter(|_| discovery)
            && !peer.is_data_up()
        {
            // Where a link goes, an answer is likely before anything more is said; and how long a word takes must be
            // known for both to begin at once.
            let at = if peer.link.is_some() || !is_distance_known {
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

    /// Says where we are to those with whom we have a session and no path, and begins and ends what was agreed.
    pub(super) fn do_punches(&mut self, now: Instant) {
        if self.punches_due.is_none_or(|due| now < due) {
            return self.wake(self.punches_due);
        }
        self.punches_due = None;
        for id in self.peers.ids() {
            self.punch_if_due(id, now);
            self.meet_if_due(id, now);
        }
        self.wake(self.punches_due);
    }

    fn punch_if_due(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.find_mut(id) else {
            return;
        };
        if peer.session.suite().is_none() || peer.is_data_up() {
            peer.reach.punch_at = None;
        }
        let Some(at) = peer.reach.punch_at else {
            return;
        };
        if now < at {
            return self.punch_due(at);
        }
        self.punch_later(id, now);
        let body = self.own_endpoints.endpoints().encode();
        self.send_to(id, &Message::Punch(body), now);
        let way = self.routing.data_way(id);
        let way = way.or_else(|| self.routing.control_way(id));
        let begins_at = now + way.map_or(Duration::ZERO, round_trip) / 2;
        if let Some(peer) = self.peers.find_mut(id) {
            peer.reach.begins_at = Some(begins_at);
        }
    }

    /// Sets the time of the next word, each pause longer than the one before.
    fn punch_later(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.find_mut(id) else {
            return;
        };
        let pause = peer.reach.punch_pause;
        let next = now + self.random.around(pause, 20);
        peer.reach.punch_at = Some(next);
        peer.reach.punch_pause = if pause < PUNCH_QUICK_MAX {
            pause * 2
        } else {
            PUNCH_PAUSE_MAX
        };
        self.punch_due(next);
    }

    fn meet_if_due(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.find_mut(id) else {
            return;
        };
        let is_due = |at: &mut Instant| *at <= now;
        if peer.reach.begins_at.take_if(is_due).is_some() {
            peer.reach.ends_at = Some(now + MEETING_LENGTH);
            self.try_addresses(id, true, now);
        } else if peer.reach.ends_at.take_if(is_due).is_some() {
            self.try_addresses(id, false, now);
        }
        let reach = self.peers.find(id).map(|peer| &peer.reach);
        let dues = reach.map(|reach| [reach.begins_at, reach.ends_at]);
        for due in dues.into_iter().flatten().flatten() {
            self.punch_due(due);
        }
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
        if !again {
            return self.try_addresses(id, false, now);
        }
        peer.reach.begins_at = Some(now);
        // One of the two calls for a meeting, or there would be no long pause.
        if peer.reach.punch_at.is_some() && peer.reach.punch_pause > PUNCH_PAUSE_MIN {
            self.punch_later(id, now);
        }
        self.meet_if_due(id, now);
    }

    /// A peer's ENDPOINTS record is new.
    pub(super) fn endpoints_record_changed(&mut self, id: PeerId, now: Instant) {
        self.try_addresses(id, false, now);
    }

    /// The path came: it is kept as long as the peer may be there.
    pub(super) fn path_found(&mut self, id: PeerId, now: Instant) {
        let Some(peer) = self.peers.find_mut(id) else {
            return;
        };
        (peer.reach.begins_at, peer.reach.ends_at) = (None, None);
        // It was found by the peer's probes alone.
        if peer.reach.given.as_ref().is_some_and(Vec::is_empty) {
            self.try_addresses(id, false, now);
        }
    }

    /// The path is gone: both ends look for another now.
    pub(super) fn path_lost(&mut self, id: PeerId, now: Instant) {
        if let Some(peer) = self.peers.find_mut(id) {
            peer.reach.lost_at = Some(now);
        }
        self.look_for_path(id, now);
    }

    /// Gives the engine the addresses at which a peer may be; `again` starts the probes of each anew.
    pub(super) fn try_addresses(&mut self, id: PeerId, again: bool, now: Instant) {
        let addresses = self.addresses_of(id);
        let can_meet = self.routing.control_way(id).is_some();
        let Some(peer) = self.peers.find_mut(id) else {
            return;
        };
        if peer.reach.tried != addresses {
            peer.reach.tried.clone_from(&addresses);
            self.routing.touch_soon();
        }
        // Where nothing can be agreed the peer is looked for all the time.
        let is_agreed = can_meet || peer.session.suite().is_none();
        let given = if is_agreed && peer.rests(now) {
            Vec::new()
        } else {
            addresses
        };
        let again = again && !peer.is_data_up() && !given.is_empty();
        if peer.reach.given.as_ref() == Some(&given) && !again {
            return;
        }
        let slot = peer.slot;
        let addresses = given.as_slice().into();
        peer.reach.given = Some(given);
        if again {
            let addresses = [].into();
            self.engine(Command::SetCandidates { slot, addresses });
        }
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
