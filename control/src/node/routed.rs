//! Messages to peers that may have no link with us: ours sent, others' passed on, and what arrives handed over.
//!
//! ```text
//!  send_to ─┬─ link of the peer's own ──────────────────────────────┐
//!           ├─ live session (CONTROL datagram, direct or relayed) ──┼─► message_from
//!           └─ ROUTED ─► next link ─► … ─► last link ───────────────┘
//! ```
//!
//! Who passes a message on looks at its addresses and at whether it begins a session, nothing else; what `from`
//! says is proved by the session handshake alone. A message never leaves by the neighbour that it came from.
//! Bounds: `config::HOPS_MAX`, `ROUTED_BODY_MAX`, `ROUTED_ORIGINS_MAX`, and rates for each origin and neighbour.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use weft_engine::command::Command;
use weft_engine::config::MESSAGE_LEN_MAX;

use crate::config::{
    HOPS_MAX, ROUTED_BODY_MAX, ROUTED_ORIGINS_MAX, ROUTED_RATE, SESSION_BEGIN_RATE,
    SESSION_RELAY_RATE,
};
use crate::gossip::budget::Budget;
use crate::link::message::{Message, Routed, SessionStep};
use crate::node::Node;
use crate::node::exchange::LinkId;
use crate::peer::PeerId;

/// An origin that was silent for this long has its whole budget back, and is forgotten.
const ORIGIN_REST: Duration = Duration::from_secs(60);

/// What was counted of routed messages since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RoutedCounters {
    pub(crate) sent: u64,
    pub(crate) forwarded: u64,
    pub(crate) delivered: u64,
    pub(crate) without_way: u64,
    pub(crate) over_hop_limit: u64,
    pub(crate) turned_back: u64,
    pub(crate) over_rate: u64,
    pub(crate) of_strangers: u64,
}

/// Budgets of those whose messages we pass on, and of our own session starts.
#[derive(Debug, Default)]
pub(super) struct Router {
    /// By the neighbour that they came from, and the origin that they name.
    origins: BTreeMap<(PeerId, PeerId), Origin>,
    /// By the neighbour that they leave by.
    begins: BTreeMap<PeerId, Budget>,
    pub(super) counters: RoutedCounters,
}

#[derive(Debug)]
struct Origin {
    messages: Budget,
    begins: Budget,
    heard_at: Instant,
}

impl Router {
    /// Counts a message; false if there are too many.
    fn admit(&mut self, by: PeerId, routed: &Routed, now: Instant) -> bool {
        let key = (by, routed.from);
        if self.origins.len() >= ROUTED_ORIGINS_MAX && !self.origins.contains_key(&key) {
            self.origins
                .retain(|_, origin| now.duration_since(origin.heard_at) < ORIGIN_REST);
            if self.origins.len() >= ROUTED_ORIGINS_MAX {
                return false;
            }
        }
        let origin = self.origins.entry(key).or_insert(Origin {
            messages: Budget::FULL,
            begins: Budget::FULL,
            heard_at: now,
        });
        origin.heard_at = now;
        origin.messages.spend(ROUTED_RATE, now)
            && (!begins_session(&routed.body) || origin.begins.spend(SESSION_RELAY_RATE, now))
    }
}

fn begins_session(body: &[u8]) -> bool {
    let first = Message::decode(body);
    matches!(first, Ok(Message::Session(message)) if message.step == SessionStep::First)
}

impl Node {
    /// Sends a message to any peer, on the first way that there is; false if there is none.
    pub(super) fn send_to(&mut self, to: PeerId, message: &Message, now: Instant) -> bool {
        self.send_on_link(to, message, now)
            || self.send_in_session(to, message)
            || self.send_routed(to, message, now)
    }

    /// Sends a message on every way that there is: one of them may be dead without our knowing.
    pub(super) fn send_every_way(&mut self, to: PeerId, message: &Message, now: Instant) {
        self.send_in_session(to, message);
        if !self.send_on_link(to, message, now) {
            self.send_routed(to, message, now);
        }
    }

    /// Sends a message that only the two may read; false if there is neither a link nor a session that reaches.
    pub(super) fn send_in_private(&mut self, to: PeerId, message: &Message, now: Instant) -> bool {
        self.send_on_link(to, message, now) || self.send_in_session(to, message)
    }

    fn send_on_link(&mut self, to: PeerId, message: &Message, now: Instant) -> bool {
        let Some(link) = self.peers.find(to).and_then(|peer| peer.link) else {
            return false;
        };
        self.with_link(link, now, |link, _, _| link.send(message));
        true
    }

    /// Inside the live session, if frames reach the peer now and the message fits into one datagram.
    pub(super) fn send_in_session(&mut self, to: PeerId, message: &Message) -> bool {
        let Some(slot) = self
            .peers
            .find(to)
            .filter(|peer| peer.session.suite().is_some() && peer.is_reached())
            .map(|peer| peer.slot)
        else {
            return false;
        };
        let message = message.encode();
        if message.len() > MESSAGE_LEN_MAX {
            return false;
        }
        let message = message.into();
        self.engine(Command::SendMessage { slot, message });
        true
    }

    pub(super) fn send_routed(&mut self, to: PeerId, message: &Message, now: Instant) -> bool {
        let body = message.encode();
        debug_assert!(body.len() <= ROUTED_BODY_MAX, "callers keep to the limit");
        let routed = Routed {
            to,
            from: self.identity.peer_id(),
            hop_limit: HOPS_MAX - 1,
            body: body.into(),
        };
        let Some((next, link)) = self.next_link(to) else {
            self.router.counters.without_way += 1;
            return false;
        };
        if begins_session(&routed.body) {
            let budget = self.router.begins.entry(next).or_insert(Budget::FULL);
            budget.spend(SESSION_BEGIN_RATE, now);
        }
        self.router.counters.sent += 1;
        let message = Message::Routed(routed);
        self.with_link(link, now, |link, _, _| link.send(&message));
        true
    }

    /// Whether a session with the peer may be begun now: relays turn away who begins too many.
    pub(super) fn may_begin_session(&self, to: PeerId, now: Instant) -> bool {
        match self.next_link(to) {
            None => true,
            Some((next, _)) if next == to => true,
            Some((next, _)) => self
                .router
                .begins
                .get(&next)
                .is_none_or(|budget| budget.due(SESSION_BEGIN_RATE, now).is_none()),
        }
    }

    /// Whether a routed message has a way to the peer.
    pub(super) fn is_routable(&self, to: PeerId) -> bool {
        self.next_link(to).is_some()
    }

    /// The neighbour by which messages for a peer leave, and our link with it.
    fn next_link(&self, to: PeerId) -> Option<(PeerId, LinkId)> {
        let link = |id| Some((id, self.peers.find(id)?.link?));
        link(to).or_else(|| link(self.routing.control_way(to)?.next))
    }

    /// A routed message came from a neighbour: it is for us, or to be passed on.
    pub(super) fn routed_received(&mut self, by: PeerId, routed: Routed, now: Instant) {
        if !self.router.admit(by, &routed, now) {
            self.router.counters.over_rate += 1;
            return;
        }
        let ours = self.identity.peer_id();
        if routed.from == ours {
            self.router.counters.turned_back += 1;
        } else if routed.to == ours {
            self.routed_arrived(&routed, now);
        } else {
            self.pass_on(by, routed, now);
        }
    }

    fn pass_on(&mut self, by: PeerId, routed: Routed, now: Instant) {
        let next = self.next_link(routed.to);
        let counters = &mut self.router.counters;
        let Some(hop_limit) = routed.hop_limit.checked_sub(1) else {
            counters.over_hop_limit += 1;
            return;
        };
        match next {
            None => counters.without_way += 1,
            Some((next, _)) if next == by => counters.turned_back += 1,
            Some((_, link)) => {
                counters.forwarded += 1;
                let message = Message::Routed(Routed {
                    hop_limit,
                    ..routed
                });
                self.with_link(link, now, |link, _, _| link.send(&message));
            }
        }
    }

    fn routed_arrived(&mut self, routed: &Routed, now: Instant) {
        if self.peers.find(routed.from).is_none() {
            self.router.counters.of_strangers += 1;
            return;
        }
        self.router.counters.delivered += 1;
        match Message::decode(&routed.body) {
            // Of whoever passed it on, for all we know.
            Ok(Message::Ipam(_)) => self.counters.messages_unknown += 1,
            Ok(message) => self.message_from(routed.from, message, now),
            Err(_) => self.counters.messages_malformed += 1,
        }
    }

    /// A message for us, whichever way it came.
    pub(super) fn message_from(&mut self, peer: PeerId, message: Message, now: Instant) {
        match message {
            Message::Session(message) => {
                self.with_session(peer, now, |session, context| {
                    session.receive(&message, context)
                });
            }
            Message::Punch(body) => self.punched(peer, &body, now),
            Message::Ipam(body) => self.ipam_message(peer, body, now),
            Message::SignedIpam(signed) => self.signed_ipam(peer, &signed, now),
            Message::Hello(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Bye(_)
            | Message::Gossip(_)
            | Message::Routed(_)
            | Message::Echo { .. }
            | Message::GroupKey(_)
            | Message::GroupKeyTaken(_)
            | Message::Unknown(_) => self.counters.messages_unknown += 1,
        }
    }
}
