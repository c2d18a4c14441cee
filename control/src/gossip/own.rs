//! Our own records: published at once, but no faster than others take them; and what happens if another process
//! signs with our key.
//!
//! ```text
//!  publish ─► wanted ─► late ── budgets: of the record, of all ─► signed, stored, told
//!                        ▲
//!  a record of ours that we did not make, of our incarnation or a later one ─► jump past it: all are late
//! ```
//!
//! A first jump is what a restored backup needs. If the other answers with a still higher incarnation, or speaks in
//! ours, it is alive: a clone. Jumps then become rare, so that two clones trouble nobody else. Bounds:
//! `config::PUBLISH_RATE`, `PUBLISH_ALL_RATE`, `JUMP_PAUSE_MIN`, `JUMP_PAUSE_MAX`.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::budget::{Budget, cost_of};
use super::store::Introduction;
use super::{Gossip, GossipOutput};
use crate::config::{
    JUMP_PAUSE_MAX, JUMP_PAUSE_MIN, ORIGIN_RECORDS_MAX, PUBLISH_ALL_RATE, PUBLISH_PEERS,
    PUBLISH_RATE, RECORD_BODY_MAX,
};
use crate::link::handshake::Hello;
use crate::record::{Record, RecordKind, RecordView, Version};

/// What we say, and what we have said of it.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) incarnation: u64,
    sequence: u64,
    /// What each record is to say; empty once it was withdrawn.
    wanted: BTreeMap<(u8, u16), Vec<u8>>,
    budgets: BTreeMap<(u8, u16), Budget>,
    budget_of_all: Budget,
    /// What others do not know yet, and since when.
    late: BTreeMap<(u8, u16), Instant>,
    late_at: Option<Instant>,
    jumps: u32,
    /// The incarnation to jump to.
    jump_to: Option<u64>,
    /// No jump before this.
    jump_at: Option<Instant>,
    jump_pause: Duration,
}

impl Own {
    pub(super) fn new(incarnation: u64) -> Self {
        Self {
            incarnation,
            sequence: 0,
            wanted: BTreeMap::new(),
            budgets: BTreeMap::new(),
            budget_of_all: Budget::FULL,
            late: BTreeMap::new(),
            late_at: None,
            jumps: 0,
            jump_to: None,
            jump_at: None,
            jump_pause: JUMP_PAUSE_MIN,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let jump = self.jump_to.and(self.jump_at);
        [self.late_at, jump].into_iter().flatten().min()
    }
}

impl Gossip {
    /// Says this to everybody, unless it is what we say already. `body` has at most `config::RECORD_BODY_MAX` bytes,
    /// and of all kinds together there are at most `config::ORIGIN_RECORDS_MAX` parts; what is more is counted and
    /// not said.
    pub(crate) fn publish(&mut self, kind: RecordKind, part: u16, body: Vec<u8>, now: Instant) {
        let name = (kind.byte(), part);
        if self.own.wanted.get(&name) == Some(&body) {
            return;
        }
        let is_new = !self.own.wanted.contains_key(&name);
        if body.len() > RECORD_BODY_MAX || is_new && self.own.wanted.len() >= ORIGIN_RECORDS_MAX {
            self.counters.records_too_long += 1;
            return;
        }
        self.own.wanted.insert(name, body);
        self.own.late.entry(name).or_insert(now);
        self.publish_late(now);
        self.send_records();
    }

    /// Says nothing in this record any more.
    pub(crate) fn withdraw(&mut self, kind: RecordKind, part: u16, now: Instant) {
        if self.own.wanted.contains_key(&(kind.byte(), part)) {
            self.publish(kind, part, Vec::new(), now);
        }
    }

    /// Signs and tells what the budgets allow by now.
    pub(super) fn publish_late(&mut self, now: Instant) {
        self.own.late_at = None;
        let by_peers = 1 + self.store.origin_count() / PUBLISH_PEERS;
        let by_peers = u32::try_from(by_peers).unwrap_or(u32::MAX);
        // Names are many, and may wait for what leads to them; among equals, what waits longest is first.
        let mut late = Vec::from_iter(std::mem::take(&mut self.own.late));
        late.sort_by_key(|(name, since)| (name.0 == RecordKind::Names.byte(), *since, *name));
        for (name, since) in late {
            let cost = cost_of(self.own.wanted.get(&name).map_or(0, Vec::len));
            let budget = self.own.budgets.entry(name).or_insert(Budget::FULL);
            let of_all = &mut self.own.budget_of_all;
            let due = budget
                .due(PUBLISH_RATE, now)
                .max(of_all.due(PUBLISH_ALL_RATE, now));
            if due.is_some() {
                self.own.late_at = [self.own.late_at, due].into_iter().flatten().min();
                self.own.late.insert(name, since);
                continue;
            }
            budget.spend_many(by_peers.saturating_mul(cost), PUBLISH_RATE, now);
            of_all.spend_many(cost, PUBLISH_ALL_RATE, now);
            self.publish_now(name, now);
        }
    }

    fn publish_now(&mut self, name: (u8, u16), now: Instant) {
        let Some(body) = self.own.wanted.get(&name) else {
            return;
        };
        self.own.sequence += 1;
        let version = Version {
            incarnation: self.own.incarnation,
            sequence: self.own.sequence,
        };
        let record = Record::sign(&self.identity, &self.network, name, version, body);
        let introduction = (name.0 == RecordKind::Peer.byte()).then(|| Introduction {
            keys: *self.identity.keys(),
            boot_id: Hello::parse_record(body, version.incarnation)
                .map_or(Default::default(), |hello| hello.boot_id),
        });
        let (key, id) = (record.key, record.id());
        self.store.take_in(record, introduction);
        self.neighbours.tell_own(key, id, now);
    }

    /// Somebody has signed a record with our key, in our incarnation or a later one, that we did not make.
    pub(super) fn seen_by_our_name(&mut self, record: &RecordView<'_>, now: Instant) {
        let seen = record.version.incarnation;
        let is_alive = seen == self.own.incarnation || self.own.jumps > 0;
        if is_alive && self.own.jump_to.is_none() {
            self.outputs.push_back(GossipOutput::Cloned {
                origin: record.key.origin,
            });
        }
        let past = seen.saturating_add(1);
        self.own.jump_to = self.own.jump_to.max(Some(past));
        self.jump_if_due(now);
    }

    pub(super) fn jump_if_due(&mut self, now: Instant) {
        let Some(incarnation) = self.own.jump_to else {
            return;
        };
        if self.own.jump_at.is_some_and(|at| now < at) {
            return;
        }
        let quiet = self
            .own
            .jump_at
            .is_none_or(|at| now.duration_since(at) > 2 * JUMP_PAUSE_MAX);
        self.own.jump_pause = if quiet {
            JUMP_PAUSE_MIN
        } else {
            (2 * self.own.jump_pause).min(JUMP_PAUSE_MAX)
        };
        self.own.jump_at = Some(now + self.own.jump_pause);
        self.own.jump_to = None;
        self.own.jumps = self.own.jumps.saturating_add(1);
        self.own.incarnation = incarnation.max(self.own.incarnation);
        self.own.sequence = 0;
        // What was withdrawn is gone with the incarnation; the rest is said anew, PEER first.
        self.own.wanted.retain(|_, body| !body.is_empty());
        self.own.budgets.clear();
        self.own.late = self.own.wanted.keys().map(|name| (*name, now)).collect();
        self.publish_late(now);
        self.outputs
            .push_back(GossipOutput::Jumped(self.own.incarnation));
    }
}
