//! Spreads signed records: ours to everybody, everybody's to us.
//!
//! ```text
//!  publish ──► own ──┐                        ┌─► Changed(key)      somebody says something new
//!                    ▼                        │
//!  receive ──► intake ──► store ──► fresh ────┼─► Send              eager links get it, lazy ones its id
//!     │                    ▲                  │
//!     └─► compare ─────────┘ ──► owed ────────┴─► Send              what the other end lacks
//! ```
//!
//! Sans-IO. Fresh records flood at once along a tree of links that finds itself (`gossip/neighbour.rs`); every
//! `config::DIGEST_EVERY` two ends compare one hash, and only where stores differ they go on. A bad record is dropped
//! and counted, never more. Bounds: `config::ORIGINS_MAX` and its neighbours.

pub(crate) mod budget;
mod compare;
mod intake;
mod missing;
mod neighbour;
mod neighbours;
mod own;
mod store;
mod wire;

use std::collections::{BTreeMap, VecDeque};
use std::time::Instant;

use bytes::Bytes;

use crate::config::{DIGEST_EVERY, EAGER_LINKS_MAX, FORGOTTEN_KEPT};
use crate::gossip::budget::Budget;
use crate::gossip::missing::Missing;
use crate::gossip::neighbour::Neighbour;
use crate::gossip::neighbours::Neighbours;
use crate::gossip::own::Own;
#[cfg(any(test, feature = "sim"))]
use crate::gossip::store::Introduction;
use crate::gossip::store::Store;
use crate::gossip::wire::{GossipMessage, Prefix};
#[cfg(any(test, feature = "sim"))]
use crate::link::handshake::Hello;
use crate::node::exchange::LinkId;
use crate::peer::{Identity, PeerId};
use crate::random::Randomness;
#[cfg(any(test, feature = "sim"))]
use crate::record::{Record, Version};
use crate::record::{RecordKey, RecordKind};
use crate::secret::NetworkId;

/// Share by which the times of comparisons vary, so that they spread.
const DIGEST_JITTER_PERCENT: u32 = 50;
/// Comparisons that may find a difference before they become rarer.
const DIFFERING_MAX: u32 = 3;
/// How often their pause doubles then.
const DIFFERING_DOUBLINGS: u32 = 3;

/// Something that the node is to do, or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GossipOutput {
    /// Send this on a link, as `Message::Gossip`.
    Send { link: LinkId, message: Bytes },
    /// A record of somebody else is new, withdrawn or gone.
    Changed(RecordKey),
    /// Somebody has used our key in this incarnation or a later one; ours is this from now on.
    Jumped(u64),
    /// Two processes use one key.
    Cloned { origin: PeerId },
}

/// What was counted since start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct GossipCounters {
    pub(crate) records_taken: u64,
    pub(crate) records_known: u64,
    pub(crate) records_stale: u64,
    pub(crate) records_malformed: u64,
    pub(crate) records_forged: u64,
    pub(crate) records_orphaned: u64,
    pub(crate) records_contradicting: u64,
    pub(crate) records_without_room: u64,
    pub(crate) records_over_rate: u64,
    pub(crate) records_too_long: u64,
    pub(crate) signatures_over_rate: u64,
    pub(crate) messages_malformed: u64,
    pub(crate) comparisons_over_rate: u64,
    pub(crate) bytes_sent: u64,
}

/// All records, and what each link knows of them.
#[derive(Debug)]
pub(crate) struct Gossip {
    identity: Identity,
    network: NetworkId,
    store: Store,
    own: Own,
    neighbours: Neighbours,
    missing: Missing,
    /// When one more link may be asked to push to us, though enough do.
    push_at: Option<Instant>,
    /// Origins that were forgotten: their last incarnation, and until when it is not taken back.
    forgotten: BTreeMap<PeerId, (u64, Instant)>,
    signatures: Budget,
    counters: GossipCounters,
    random: Randomness,
    outputs: VecDeque<GossipOutput>,
}

impl Gossip {
    /// Begins with our PEER record.
    pub(crate) fn new(
        identity: Identity,
        network: NetworkId,
        incarnation: u64,
        peer_body: Vec<u8>,
        random: Randomness,
        now: Instant,
    ) -> Self {
        let mut gossip = Self {
            identity,
            network,
            store: Store::default(),
            own: Own::new(incarnation),
            neighbours: Neighbours::default(),
            missing: Missing::default(),
            push_at: None,
            forgotten: BTreeMap::new(),
            signatures: Budget::FULL,
            counters: GossipCounters::default(),
            random,
            outputs: VecDeque::new(),
        };
        gossip.publish(RecordKind::Peer, 0, peer_body, now);
        gossip
    }

    /// What an origin says in one of its records; `None` if it says nothing or has withdrawn it.
    pub(crate) fn body(&self, origin: PeerId, kind: RecordKind, part: u16) -> Option<&[u8]> {
        let key = RecordKey {
            origin,
            kind: kind.byte(),
            part,
        };
        let body = self.store.find(key)?.body();
        (!body.is_empty()).then_some(body)
    }

    /// What one origin says in all its records of this kind, part after part.
    pub(crate) fn bodies_of(
        &self,
        origin: PeerId,
        kind: RecordKind,
    ) -> impl Iterator<Item = &[u8]> {
        let records = self.store.origin(origin).map(|found| &found.records);
        let parts = records
            .into_iter()
            .flat_map(move |records| records.range((kind.byte(), 0)..=(kind.byte(), u16::MAX)));
        parts
            .map(|(_, record)| record.body())
            .filter(|body| !body.is_empty())
    }

    /// The version of a record that is held.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn version(&self, origin: PeerId, kind: RecordKind, part: u16) -> Option<Version> {
        let key = RecordKey {
            origin,
            kind: kind.byte(),
            part,
        };
        Some(self.store.find(key)?.version)
    }

    /// What everybody, we too, says in the records of this kind: origin, part, body; in this order.
    pub(crate) fn bodies(&self, kind: RecordKind) -> impl Iterator<Item = (PeerId, u16, &[u8])> {
        self.store.origins().flat_map(move |(id, origin)| {
            let parts = origin
                .records
                .range((kind.byte(), 0)..=(kind.byte(), u16::MAX));
            parts
                .map(move |((_, part), record)| (id, *part, record.body()))
                .filter(|(_, _, body)| !body.is_empty())
        })
    }

    /// Whether an origin has a record of this kind that is not withdrawn.
    pub(crate) fn speaks_of(&self, origin: PeerId, kind: RecordKind) -> bool {
        let records = self.store.origin(origin).map(|origin| &origin.records);
        records.is_some_and(|records| {
            let mut parts = records.range((kind.byte(), 0)..=(kind.byte(), u16::MAX));
            parts.any(|(_, record)| !record.body().is_empty())
        })
    }

    /// The incarnation in which an origin speaks; `None` while its PEER record is not known.
    pub(crate) fn incarnation(&self, origin: PeerId) -> Option<u64> {
        self.store.origin(origin).map(|origin| origin.incarnation)
    }

    /// Records held, and the bytes they take.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.store.len(), self.store.bytes())
    }

    pub(crate) fn counters(&self) -> &GossipCounters {
        &self.counters
    }

    /// Holds a record of somebody without asking who brought it, for a simulation.
    #[cfg(any(test, feature = "sim"))]
    pub(crate) fn hold(&mut self, record: Record) {
        let introduction = Hello::parse_record(record.body(), record.version.incarnation)
            .ok()
            .filter(|_| record.key.kind == RecordKind::Peer.byte())
            .map(|hello| Introduction {
                keys: hello.keys,
                boot_id: hello.boot_id,
            });
        self.store.take_in(record, introduction);
    }

    /// A peer has a link, or another one than before.
    pub(crate) fn link_up(&mut self, link: LinkId, peer: PeerId, now: Instant) {
        let mut neighbour = Neighbour::new(self.neighbours.eager() < EAGER_LINKS_MAX);
        // What we say of ourselves is news to most who link to us.
        let ours = self.identity.peer_id();
        let records = self.store.origin(ours).map(|origin| &origin.records);
        for record in records.into_iter().flat_map(BTreeMap::values) {
            neighbour.owed.insert(record.key);
        }
        // One end compares, the other answers.
        if ours < peer {
            neighbour.digest_at = Some(now);
        }
        self.neighbours.insert(link, neighbour);
        // Whoever was out of reach may be back behind it.
        self.forgotten.clear();
        self.tick(now);
    }

    /// Drops all records of an origin, and does not take the same ones back for a while.
    pub(crate) fn forget(&mut self, origin: PeerId, now: Instant) {
        let Some(incarnation) = self.incarnation(origin) else {
            return;
        };
        for key in self.store.remove(origin) {
            self.outputs.push_back(GossipOutput::Changed(key));
        }
        self.forgotten.retain(|_, (_, until)| now < *until);
        self.forgotten
            .insert(origin, (incarnation, now + FORGOTTEN_KEPT));
    }

    /// The link is gone, or not in use any more.
    pub(crate) fn link_down(&mut self, link: LinkId) {
        self.neighbours.remove(link);
    }

    /// Takes in what came in a `Message::Gossip`.
    pub(crate) fn receive(&mut self, link: LinkId, message: &[u8], now: Instant) {
        match GossipMessage::decode(message) {
            Ok(GossipMessage::Ranges(ranges)) => self.compare_ranges(link, &ranges, now),
            Ok(GossipMessage::Origins(prefix, origins)) => {
                self.compare_origins(link, prefix, &origins, now);
            }
            Ok(GossipMessage::Versions {
                is_answer,
                origin,
                held,
            }) => self.compare_versions(link, origin, &held, is_answer, now),
            Ok(GossipMessage::Records(why, records)) => {
                self.take_records(link, why, records, now);
                self.send(link, &GossipMessage::Ack);
            }
            Ok(GossipMessage::Ack) => self.neighbours.acknowledged(link),
            Ok(GossipMessage::Have(ids)) => self.heard_of(link, &ids, now),
            Ok(GossipMessage::Want(ids)) => self.wanted(link, &ids),
            Ok(GossipMessage::Prune) => self.neighbours.set_eager(link, false),
            Ok(GossipMessage::Push) => self.neighbours.set_eager(link, true),
            Err(_) => self.counters.messages_malformed += 1,
        }
        self.send_records();
    }

    /// Does what is due.
    pub(crate) fn tick(&mut self, now: Instant) {
        self.jump_if_due(now);
        self.publish_late(now);
        self.do_links(now);
        self.ask_for_missing(now);
        self.send_records();
    }

    /// When [`Gossip::tick`] is next due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let due = [
            self.neighbours.deadline(),
            self.own.deadline(),
            self.missing.deadline(),
        ];
        due.into_iter().flatten().min()
    }

    /// The next thing that the node is to do.
    pub(crate) fn poll_output(&mut self) -> Option<GossipOutput> {
        self.outputs.pop_front()
    }

    /// Names fresh records to lazy links, and begins comparisons.
    fn do_links(&mut self, now: Instant) {
        let (mut names, mut due) = (Vec::new(), Vec::new());
        self.neighbours.each_due(now, |link, neighbour| {
            names.extend(neighbour.take_names(now).map(|ids| (link, ids)));
            if neighbour.digest_at.is_some_and(|at| at <= now) {
                due.push(link);
                neighbour.digest_at = Some(next_comparison(neighbour, &mut self.random, now));
            }
        });
        for (link, ids) in names {
            self.send(link, &GossipMessage::Have(ids));
        }
        if due.is_empty() {
            return;
        }
        let root = GossipMessage::Ranges(vec![(Prefix::ROOT, self.store.hash(Prefix::ROOT))]);
        for link in due {
            self.send(link, &root);
        }
    }

    fn send_records(&mut self) {
        while let Some((link, message)) = self.neighbours.next_records(&self.store) {
            self.counters.bytes_sent += message.len() as u64;
            self.outputs.push_back(GossipOutput::Send {
                link,
                message: message.into(),
            });
        }
    }

    fn send(&mut self, link: LinkId, message: &GossipMessage<'_>) {
        if !self.neighbours.contains(link) {
            return;
        }
        let message = message.encode();
        self.counters.bytes_sent += message.len() as u64;
        self.outputs.push_back(GossipOutput::Send {
            link,
            message: message.into(),
        });
    }
}

/// When one more comparison is due: stores that differ each time are compared less often.
fn next_comparison(neighbour: &mut Neighbour, random: &mut Randomness, now: Instant) -> Instant {
    let doublings = neighbour.differing.saturating_sub(DIFFERING_MAX);
    let pause = DIGEST_EVERY * (1 << doublings.min(DIFFERING_DOUBLINGS));
    // Whoever finds a difference answers, and that counts it.
    neighbour.differing = if neighbour.has_differed {
        neighbour.differing.saturating_add(1)
    } else {
        0
    };
    neighbour.has_differed = false;
    now + random.around(pause, DIGEST_JITTER_PERCENT)
}

#[cfg(test)]
mod tests;
