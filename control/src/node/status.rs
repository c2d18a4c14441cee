//! What `weft status` and `weft report` show of the node.

use std::collections::BTreeMap;
use std::time::Instant;

use weft_engine::command::PeerSlot;

use crate::api::{Connection, EngineStatus, PathReport, Status, Target as ApiTarget};
use crate::link::dialer::{Target, TargetPhase};
use crate::node::exchange::LinkId;
use crate::node::mtu;
use crate::node::peers::Peer;
use crate::node::{LinkEntry, Node};
use crate::peer::PeerId;
use crate::session::keys::suite_name;

/// Bytes of a datagram that are not the overlay packet: header 16, kind and meta 2, tag 16, inner Ethernet 14.
const DATAGRAM_OVERHEAD: u16 = 48;

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
                .map(|target| show_target(target, now))
                .collect(),
            connections: self.connections(now),
            ipam: self.show_ipam(),
            engine,
        };
        let advice = mtu::advice(&status);
        status.engine.notes.extend(advice);
        status
    }

    /// Control's counters by name.
    #[must_use]
    pub fn counters(&self) -> BTreeMap<String, u64> {
        let counters = &self.counters;
        let gossip = self.gossip.counters();
        let (records, record_bytes) = self.gossip.size();
        [
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

    /// The slot of the peer of this PeerId, shown name or nickname; `None` if there is none, or more than one.
    #[must_use]
    pub fn find_peer(&self, text: &str) -> Option<PeerSlot> {
        if let Ok(id) = text.parse::<PeerId>() {
            return self.peers.find(id).map(|peer| peer.slot);
        }
        let name = text.parse().ok();
        let matches =
            |peer: &Peer| Some(peer.hello.name) == name || peer.hello.nickname.as_str() == text;
        let mut found = self
            .peers
            .all()
            .filter(|(_, peer)| matches(peer))
            .map(|(_, peer)| peer.slot);
        let first = found.next();
        if found.next().is_some() { None } else { first }
    }

    fn connections(&self, now: Instant) -> Vec<Connection> {
        let links = self
            .links
            .iter()
            .map(|(id, entry)| self.show_link(*id, entry));
        let lost = self
            .peers
            .all()
            .filter(|(_, peer)| peer.link.is_none() && peer.is_data_up());
        let targets = self
            .dialer
            .targets()
            .iter()
            .filter_map(|target| show_attempt(target, now));
        let refused = self.admission.recent(now).map(|failure| Connection {
            detail: failure.error.to_string(),
            ..blank(false, failure.address.to_string(), "failed")
        });
        links
            .chain(lost.map(|(_, peer)| show_unlinked(peer)))
            .chain(targets)
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
        let state = if peer.is_data_up() {
            "established"
        } else {
            "pending"
        };
        Connection {
            detail,
            state: state.to_owned(),
            ..with_peer(line, peer)
        }
    }
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
        path: peer
            .path
            .filter(|_| peer.is_data_up())
            .map(|path| PathReport {
                address: path.address.to_string(),
                kind: "direct".to_owned(),
                rtt_ms: path.rtt.as_secs_f64() * 1000.0,
                mtu: path.datagram_max.saturating_sub(DATAGRAM_OVERHEAD),
                loss: f64::from(path.loss),
            }),
        rekeys: peer.session.rekeys(),
        ..line
    }
}

/// A peer whose link is gone while its data goes on.
fn show_unlinked(peer: &Peer) -> Connection {
    let address = peer
        .path
        .map(|path| path.address.to_string())
        .unwrap_or_default();
    let line = blank(true, address, "established");
    Connection {
        detail: "control link lost, data goes on".to_owned(),
        ..with_peer(line, peer)
    }
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
