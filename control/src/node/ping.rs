//! Pings: how long a datagram to a peer and back takes, inside the session, on the way that frames take.
//!
//! ```text
//!  Input::Ping ─► session? ─ no ─► one is begun, and we wait for it
//!                    │ yes
//!                    └─► ECHO ─► peer ─► ECHO, answer ─► Output::Pong
//! ```
//!
//! Bounds: `config::PINGS_MAX` at once, `PING_TIMEOUT` for each.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::api::{ApiError, PingReply};
use crate::config::{PING_TIMEOUT, PINGS_MAX};
use crate::link::message::Message;
use crate::node::Node;
use crate::node::exchange::{Output, RequestId};
use crate::peer::PeerId;

/// How often we look whether there is a session at last.
const RETRY_PAUSE: Duration = Duration::from_millis(50);

/// One that waits for its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ping {
    request: RequestId,
    peer: PeerId,
    sent_at: Option<Instant>,
    deadline: Instant,
}

pub(super) type Pings = BTreeMap<u64, Ping>;

impl Node {
    /// Measures the way to a peer, by name, nickname, PeerId or address.
    pub(super) fn ping(&mut self, request: RequestId, text: &str, now: Instant) {
        let peer = match self.resolve_peer(text) {
            Ok(peer) => peer,
            Err(error) => return self.pong(request, Err(error)),
        };
        if self.pings.len() >= PINGS_MAX {
            let error = "too many pings at once".to_owned();
            return self.pong(request, Err(ApiError { error }));
        }
        let id = self.random.u64();
        let ping = Ping {
            request,
            peer,
            sent_at: None,
            deadline: now + PING_TIMEOUT,
        };
        self.pings.insert(id, ping);
        self.session_wanted(peer, now);
        self.do_pings(now);
    }

    /// Sends those whose session has come up, and gives up on others.
    pub(super) fn do_pings(&mut self, now: Instant) {
        for (id, ping) in self.pings.clone() {
            if ping.deadline <= now {
                self.pings.remove(&id);
                let error = self.why_no_pong(&ping);
                self.pong(ping.request, Err(ApiError { error }));
                continue;
            }
            let message = Message::Echo {
                id,
                is_answer: false,
            };
            let send = ping.sent_at.is_none() && self.send_in_session(ping.peer, &message);
            if send && let Some(ping) = self.pings.get_mut(&id) {
                ping.sent_at = Some(now);
            }
            let next = match self.pings.get(&id) {
                Some(ping) if ping.sent_at.is_some() => ping.deadline,
                _ => (now + RETRY_PAUSE).min(ping.deadline),
            };
            self.wake(Some(next));
        }
    }

    fn why_no_pong(&self, ping: &Ping) -> String {
        let Some(peer) = self.peers.find(ping.peer) else {
            return "peer is gone".to_owned();
        };
        let name = &peer.hello.nickname;
        if ping.sent_at.is_some() {
            format!("{name}: no answer within {} s", PING_TIMEOUT.as_secs())
        } else if let Some(failure) = peer.session.failure() {
            format!("{name}: no session: {failure}")
        } else if peer.session.suite().is_none() && !self.is_routable(ping.peer) {
            format!("{name}: no session: no links lead there")
        } else if peer.session.suite().is_none() {
            format!("{name}: no session within {} s", PING_TIMEOUT.as_secs())
        } else {
            format!("{name}: neither a direct path nor a relay leads there")
        }
    }

    /// An echo came inside a session.
    pub(super) fn echoed(&mut self, peer: PeerId, id: u64, is_answer: bool, now: Instant) {
        if !is_answer {
            let message = Message::Echo {
                id,
                is_answer: true,
            };
            self.send_in_session(peer, &message);
            return;
        }
        let Some(ping) = self
            .pings
            .get(&id)
            .filter(|ping| ping.peer == peer)
            .copied()
        else {
            return;
        };
        self.pings.remove(&id);
        let rtt = now.duration_since(ping.sent_at.unwrap_or(now));
        let reply = self.peers.find(peer).map(|known| PingReply {
            name: known.hello.name.to_string(),
            nickname: known.hello.nickname.to_string(),
            rtt_ms: rtt.as_secs_f64() * 1000.0,
            kind: self.way_of(known),
        });
        if let Some(reply) = reply {
            self.pong(ping.request, Ok(reply));
        }
    }

    fn pong(&mut self, request: RequestId, result: Result<PingReply, ApiError>) {
        self.outputs.push_back(Output::Pong { request, result });
    }
}
