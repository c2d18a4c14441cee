//! Records that come in: judged, paid for, verified, kept, told on.
//!
//! The cheapest question comes first: whether it is news at all, then the budgets, then the signature.

use std::time::Instant;

use super::budget::cost_of;
use super::neighbour::Push;
use super::store::{Introduction, Judgement};
use super::wire::{GossipMessage, Why};
use super::{Gossip, GossipOutput};
use crate::config::{ORIGIN_RATE, PUSHES_MIN, SIGNATURE_RATE};
use crate::link::handshake::Hello;
use crate::node::exchange::LinkId;
use crate::peer::PublicKeys;
use crate::record::{Record, RecordKind, RecordView};

impl Gossip {
    /// Takes in the records of one message.
    pub(super) fn take_records(&mut self, link: LinkId, why: Why, records: &[u8], now: Instant) {
        let (mut count, mut known) = (0_u32, 0_u32);
        let mut rest = records;
        while !rest.is_empty() {
            let Ok((record, after)) = RecordView::split(rest) else {
                self.counters.records_malformed += 1;
                break;
            };
            count += 1;
            let judgement = self.take_record(link, &record, now);
            known += u32::from(matches!(judgement, Judgement::Held | Judgement::Stale));
            rest = after;
        }
        if why == Why::Fresh {
            // One that crosses ours is chance; if most of them come too late, other ways are faster.
            self.is_pushed_to(link, 2 * known > count);
        }
    }

    /// The link pushes records to us; if they come too late, and by enough other ways, it need not.
    fn is_pushed_to(&mut self, link: LinkId, too_late: bool) {
        let Some(neighbour) = self.neighbours.get_mut(link) else {
            return;
        };
        if neighbour.push == Push::Pruned {
            return;
        }
        neighbour.push = Push::Comes;
        if too_late && self.neighbours.pushing() > PUSHES_MIN {
            self.neighbours.set_push(link, Push::Pruned);
            self.send(link, &GossipMessage::Prune);
        }
    }

    fn take_record(&mut self, link: LinkId, record: &RecordView<'_>, now: Instant) -> Judgement {
        let is_forgotten =
            self.forgotten
                .get(&record.key.origin)
                .is_some_and(|(incarnation, until)| {
                    record.version.incarnation <= *incarnation && now < *until
                });
        let judgement = if is_forgotten {
            Judgement::Stale
        } else {
            self.store.judge(record)
        };
        match judgement {
            Judgement::News => self.take_news(link, record, now),
            Judgement::Contradiction => {
                self.counters.records_contradicting += 1;
                self.take_news(link, record, now);
            }
            Judgement::Held => {
                self.counters.records_known += 1;
                if let Some(neighbour) = self.neighbours.get_mut(link) {
                    neighbour.has(record.key);
                }
            }
            Judgement::Stale => self.counters.records_stale += 1,
            Judgement::Orphan => self.counters.records_orphaned += 1,
            Judgement::NoRoom => self.counters.records_without_room += 1,
        }
        if judgement != Judgement::Held {
            // Whatever became of it, it need not come again by this name.
            self.missing.seen(record.id());
        }
        judgement
    }

    fn take_news(&mut self, link: LinkId, record: &RecordView<'_>, now: Instant) {
        let is_ours = record.key.origin == self.identity.peer_id();
        let introduction = (record.key.kind == RecordKind::Peer.byte())
            .then(|| Hello::parse_record(record.body(), record.version.incarnation))
            .transpose();
        let Ok(introduction) = introduction else {
            self.counters.records_malformed += 1;
            return;
        };
        let introduction = introduction.map(|hello| Introduction {
            keys: hello.keys,
            boot_id: hello.boot_id,
        });
        let origin = self.store.origin_mut(record.key.origin);
        if let Some(origin) = origin
            && !is_ours
            && !origin
                .budget
                .spend_many(cost_of(record.body().len()), ORIGIN_RATE, now)
        {
            self.counters.records_over_rate += 1;
            return;
        }
        let known = self.store.origin(record.key.origin);
        let keys = known
            .map(|origin| origin.keys)
            .or(introduction.map(|peer| peer.keys));
        let Some(verified) = keys.and_then(|keys| self.verify(record, &keys, now)) else {
            return;
        };
        if is_ours {
            self.seen_by_our_name(record, now);
        } else {
            self.keep(link, verified, introduction, now);
        }
    }

    fn verify(
        &mut self,
        record: &RecordView<'_>,
        keys: &PublicKeys,
        now: Instant,
    ) -> Option<Record> {
        if !self.signatures.spend(SIGNATURE_RATE, now) {
            self.counters.signatures_over_rate += 1;
            return None;
        }
        let verified = record.verify(keys, &self.network);
        if verified.is_err() {
            self.counters.records_forged += 1;
        }
        verified.ok()
    }

    /// Keeps a record and tells it on.
    fn keep(
        &mut self,
        link: LinkId,
        record: Record,
        introduction: Option<Introduction>,
        now: Instant,
    ) {
        let (key, id) = (record.key, record.id());
        self.counters.records_taken += 1;
        let taken = self.store.take_in(record, introduction);
        for gone in taken.gone {
            self.outputs.push_back(GossipOutput::Changed(gone));
        }
        if taken.is_clone {
            self.outputs
                .push_back(GossipOutput::Cloned { origin: key.origin });
        }
        self.outputs.push_back(GossipOutput::Changed(key));
        let mut have = self.missing.who_named(id);
        have.push(link);
        self.neighbours.tell(&have, key, id, now);
    }
}
