//! What `weft status` and `weft report` show of the node.

use std::collections::BTreeMap;
use std::time::Instant;

use weft_engine::bridge::NextHop;
use weft_engine::command::PeerSlot;
use weft_engine::path::PathStatus;

use crate::api::{ApiError, Connection, EngineStatus, PathReport, Status, Target as ApiTarget};
use crate::link::dialer::TargetPhase;
use crate::link::dialer::target::Target;
use crate::node::exchange::LinkId;
use crate::node::overview::round_trip;
use crate::node::peers::Peer;
use crate::node::{LinkEntry, Node};
use crate::peer::PeerId;
use crate::routes::Plane;
use crate::session::keys::suite_name;

/// Bytes of a datagram that are not the overlay packet: header 16, kind and meta 2, tag 16, inner Ethernet 14.
pub(super) const DATAGRAM_OVERHEAD: u16 = 48;
/// Bytes that relaying adds: header 32, hop tag 16.
pub(super) const RELAY_OVERHEAD: u16 = 48;

impl Node {
    /// What `weft status` shows.
    #[must_use]
    pub fn status(&self, engine: EngineStatus, now: Instant) -> Status {
        let mut status = Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            name: self
                .config
                .name
                .unwrap_or_else(|| self.identity.peer_id().name())
                .to_string(),
            nickname: self.config.nickname.to_string(),
            peer_id: self.identity.peer_id().to_string(),
            network: self.config.network.clone(),
            port: self.config.port,
            membership: self.secrets.membership().word().to_owned(),
            discovery: self.config.discovery,
            mtu: self.config.mtu,
            uptime_s: now.duration_since(self.started_at).as_secs(),
            targets: self
                .dialer
                .targets()
                .iter()
                .filter(|target| target.is_named())
                .map(|target| show_target(target, now))
                .collect(),
            connections: self.connections(now),
            dns: None,
            ipam: self.show_ipam(),
            proxy: None,
            plugin: None,
            engine,
        };
        let advice = self.mtu_note(&status, now);
        status.engine.notes.extend(advice);
        status.engine.notes.extend(self.other_mtu_notes());
        status.engine.notes.extend(self.refusal_notes(now));
        status.engine.notes.extend(self.namesake_notes(now));
        status.engine.notes.extend(self.duplicate_notes());
        status
    }

    /// Control's counters by name.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let counters = &self.counters;
        let gossip = self.gossip.counters();
        let (records, record_bytes) = self.gossip.size();
        let routed = &self.router.counters;
        let network = &self.routing.network;
        let (group_key_members, group_members) = self.group.spread();
        [
            ("group_members", group_members as u64),
            ("group_members_with_key", group_key_members as u64),
            ("routed_sent", routed.sent),
            ("routed_forwarded", routed.forwarded),
            ("routed_delivered", routed.delivered),
            ("routed_without_way", routed.without_way),
            ("routed_over_hop_limit", routed.over_hop_limit),
            ("routed_turned_back", routed.turned_back),
            ("routed_over_rate", routed.over_rate),
            ("routed_of_strangers", routed.of_strangers),
            ("route_changes", self.routing.changes),
            ("route_computations", self.routing.computations),
            ("links_control", network.link_count(Plane::Control) as u64),
            ("links_data", network.link_count(Plane::Data) as u64),
            ("labels_colliding", counters.labels_colliding),
            ("records", records as u64),
            ("record_bytes", record_bytes as u64),
            ("records_taken", gossip.records_taken),
            ("records_known", gossip.records_known),
            ("records_stale", gossip.records_stale),
            ("records_malformed", gossip.records_malformed),
            ("records_forged", gossip.records_forged),
            ("records_orphaned", gossip.records_orphaned),
            ("records_contradicting", gossip.records_contradicting),
            ("records_without_room", gossip.records_without_room),
            ("records_over_rate", gossip.records_over_rate),
            ("records_too_long", gossip.records_too_long),
            ("signatures_over_rate", gossip.signatures_over_rate),
            ("gossip_malformed", gossip.messages_malformed),
            ("comparisons_over_rate", gossip.comparisons_over_rate),
            ("gossip_bytes_sent", gossip.bytes_sent),
            ("links_accepted", counters.links_accepted),
            ("links_turned_away", counters.links_turned_away),
            ("links_duplicate", counters.links_duplicate),
            ("links_trimmed", counters.links_trimmed),
            ("names_senseless", counters.names_senseless),
            ("handshakes_failed", counters.handshakes_failed),
            ("messages_malformed", counters.messages_malformed),
            ("messages_unknown", counters.messages_unknown),
            (
                "session_messages_ignored",
                counters.session_messages_ignored,
            ),
        ]
        .into_iter()
        .map(|(name, count)| (name.to_owned(), count))
        .collect()
    }

    /// The slot of the peer of this PeerId, name, nickname or address, which somebody is about to measure.
    ///
    /// # Errors
    /// When there is none, or more than one.
    pub fn find_peer(&self, text: &str) -> Result<PeerSlot, ApiError> {
        let id = self.resolve_peer(text)?;
        let peer = self.peers.find(id);
        peer.map(|peer| peer.slot).ok_or_else(|| ApiError {
            error: format!("{text}: gone"),
        })
    }

    /// Whether a session with the peer is active.
    #[must_use]
    pub fn has_session(&self, slot: PeerSlot) -> bool {
        let peer = self.peers.at(slot).and_then(|id| self.peers.find(id));
        peer.is_some_and(|peer| peer.session.suite().is_some())
    }

    fn connections(&self, now: Instant) -> Vec<Connection> {
        let links = self
            .links
            .iter()
            .map(|(id, entry)| self.show_link(*id, entry));
        let lost = self
            .peers
            .all()
            .filter(|(_, peer)| peer.link.is_none() && peer.session.suite().is_some())
            .filter(|(_, peer)| peer.is_reached());
        let mut lost: BTreeMap<PeerId, Connection> = lost
            .map(|(id, peer)| (id, self.show_unlinked(id, peer)))
            .collect();
        let mut attempts: Vec<Connection> = Vec::new();
        for target in self.dialer.targets() {
            let Some(attempt) = show_attempt(target, now) else {
                continue;
            };
            // One line for one peer, and for one address under two names.
            if let Some(line) = target.peer.and_then(|peer| lost.get_mut(&peer)) {
                join_attempt(line, &attempt);
            } else if !attempts
                .iter()
                .any(|other| other.address == attempt.address)
            {
                attempts.push(attempt);
            }
        }
        let refused = self.admission.recent(now).map(|failure| Connection {
            detail: failure.error.to_string(),
            ..blank(false, failure.address.to_string(), "failed")
        });
        links
            .chain(lost.into_values())
            .chain(attempts)
            .chain(refused)
            .collect()
    }

    fn show_link(&self, id: LinkId, entry: &LinkEntry) -> Connection {
        let line = blank(
            entry.link.is_outbound(),
            entry.remote.to_string(),
            "connecting",
        );
        let Some(peer) = entry.peer.and_then(|peer| self.peers.find(peer)) else {
            return line;
        };
        let detail = if peer.link != Some(id) {
            "being replaced".to_owned()
        } else if entry.suspect {
            "does not answer".to_owned()
        } else if let Some(failure) = peer.session.failure() {
            failure.to_string()
        } else {
            String::new()
        };
        let state = if peer.session.suite().is_some() && peer.is_reached() {
            "established"
        } else {
            "pending"
        };
        Connection {
            detail,
            state: state.to_owned(),
            path: self.show_path(peer),
            ..with_peer(line, peer)
        }
    }

    /// A peer that has a session and no link.
    fn show_unlinked(&self, id: PeerId, peer: &Peer) -> Connection {
        let path = self.show_path(peer);
        // The peer's own address, also where frames go to a relay's.
        let own = peer.path.map(|path| path.address);
        let own = own.or_else(|| self.dialable(id).first().copied());
        let address = own.map_or_else(|| "-".to_owned(), |address| address.to_string());
        let line = blank(true, address, "established");
        Connection {
            detail: if peer.is_adjacent() {
                "control link lost, data goes on".to_owned()
            } else if peer.is_data_up() {
                String::new()
            } else {
                self.why(id, peer)
            },
            path,
            ..with_peer(line, peer)
        }
    }

    /// The way that frames take.
    fn show_path(&self, peer: &Peer) -> Option<PathReport> {
        peer.session.suite()?;
        let kind = self.way_of(peer);
        let path = |path: PathStatus| PathReport {
            address: path.address.to_string(),
            kind: kind.clone(),
            rtt_ms: path.rtt.as_secs_f64() * 1000.0,
            mtu: path.datagram_max.saturating_sub(DATAGRAM_OVERHEAD),
            loss: f64::from(path.loss),
        };
        let Some(NextHop::Via(relay)) = peer.reach.route else {
            return peer.path.map(path);
        };
        let way = self.routing.data_way(peer.hello.peer_id)?;
        let relay = self.peers.find(self.peers.at(relay)?)?;
        Some(PathReport {
            rtt_ms: round_trip(way).as_secs_f64() * 1000.0,
            mtu: way
                .datagram_max
                .saturating_sub(DATAGRAM_OVERHEAD + RELAY_OVERHEAD),
            ..path(relay.path?)
        })
    }
}

/// `NAME(nickname)`.
pub(super) fn named_peer(peer: &Peer) -> String {
    format!("{}({})", peer.hello.name, peer.hello.nickname)
}

fn blank(outbound: bool, address: String, state: &str) -> Connection {
    Connection {
        outbound,
        address,
        state: state.to_owned(),
        name: String::new(),
        nickname: String::new(),
        peer_id: String::new(),
        cipher: None,
        path: None,
        detail: String::new(),
        rekeys: 0,
    }
}

fn with_peer(line: Connection, peer: &Peer) -> Connection {
    Connection {
        name: peer.hello.name.to_string(),
        nickname: peer.hello.nickname.to_string(),
        peer_id: peer.hello.peer_id.to_string(),
        cipher: peer
            .session
            .suite()
            .map(|suite| suite_name(suite).to_owned()),
        rekeys: peer.session.rekeys(),
        ..line
    }
}

/// Says in a peer's line how it goes with its link.
fn join_attempt(line: &mut Connection, attempt: &Connection) {
    let words = [line.detail.as_str(), &attempt.state, &attempt.detail];
    let words: Vec<&str> = words.into_iter().filter(|word| !word.is_empty()).collect();
    line.detail = words.join(", ");
}

/// A target that is waited for or being dialled; links have lines of their own.
fn show_attempt(target: &Target, now: Instant) -> Option<Connection> {
    let state = match (target.phase, target.failure) {
        (TargetPhase::Waiting { .. }, Some(_)) => "failed",
        (TargetPhase::Waiting { .. }, None) => "waiting",
        (TargetPhase::Dialing { .. }, Some(_)) => "retrying",
        (TargetPhase::Dialing { .. }, None) => "connecting",
        (TargetPhase::Handshaking { .. } | TargetPhase::Connected | TargetPhase::OurOwn, _) => {
            return None;
        }
    };
    Some(Connection {
        detail: detail_of(target, now),
        ..blank(true, target.address.to_string(), state)
    })
}

fn show_target(target: &Target, now: Instant) -> ApiTarget {
    let state = match target.phase {
        TargetPhase::Waiting { .. } if target.is_refused() => "refused",
        TargetPhase::Waiting { .. } => "waiting",
        TargetPhase::Dialing { .. } | TargetPhase::Handshaking { .. } => "connecting",
        TargetPhase::Connected => "connected",
        TargetPhase::OurOwn => "self",
    };
    ApiTarget {
        address: target.text.clone(),
        state: state.to_owned(),
        detail: detail_of(target, now),
    }
}

fn detail_of(target: &Target, now: Instant) -> String {
    let failure = target.failure.map(|failure| failure.to_string());
    let retry = match target.phase {
        TargetPhase::Waiting { until } if failure.is_some() => Some(format!(
            "retry in {:.1} s",
            until.saturating_duration_since(now).as_secs_f64()
        )),
        TargetPhase::OurOwn => Some("this host itself, retry: never".to_owned()),
        TargetPhase::Waiting { .. }
        | TargetPhase::Dialing { .. }
        | TargetPhase::Handshaking { .. }
        | TargetPhase::Connected => None,
    };
    failure
        .into_iter()
        .chain(retry)
        .collect::<Vec<_>>()
        .join(", ")
}
