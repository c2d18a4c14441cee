//! What one link has been told of records, and what it is still to be told.
//!
//! ```text
//!  fresh record ─┬─ eager: RECORDS at once        a duplicate comes back as PRUNE: the link turns lazy
//!                └─ lazy:  HAVE, gathered         a PUSH makes the link eager
//!  digest, WANT ──── owed: RECORDS, Lacking
//! ```
//!
//! A peer keeps the `config::PUSHES_MIN` fastest ways by which records are pushed to it and prunes the others, so each
//! record comes to each peer twice and not once for each link (after Leitão et al., "Epidemic Broadcast Trees", 2007,
//! which keeps one way and so waits longer where that is cut). Who is asked to push or not to push, and when, is the
//! receiver's alone, so both ends agree. Whom nobody wants to push is heard all the same: its own records go out at
//! once. Records wait as keys, so a slow link gets the newest version once it has room. Bounds: the store for what
//! waits, `config::GOSSIP_MESSAGES_MAX` for what is under way.

use std::collections::BTreeSet;
use std::time::Instant;

use super::budget::Budget;
use super::store::Store;
use super::wire::{GossipMessage, Why};
use crate::config::{GOSSIP_MESSAGES_MAX, GOSSIP_RECORDS_MAX, HAVE_AFTER, HAVE_EVERY, HAVE_MAX};
use crate::record::RecordKey;

/// Whether the other end pushes fresh records to us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Push {
    /// It decides, and nothing has come yet.
    Unknown,
    /// It does, or was asked to.
    Comes,
    /// It was asked not to; what still comes was under way.
    Pruned,
}

/// One link.
#[derive(Debug)]
pub(super) struct Neighbour {
    /// Fresh records are pushed to it, not just named.
    pub(super) is_eager: bool,
    /// Whether it pushes fresh records to us.
    pub(super) push: Push,
    /// To be sent because they are new.
    pub(super) fresh: BTreeSet<RecordKey>,
    /// To be sent because the other end lacks them.
    pub(super) owed: BTreeSet<RecordKey>,
    /// To be named.
    pub(super) have: Vec<u64>,
    /// When they are named.
    pub(super) have_at: Option<Instant>,
    /// When some were named last.
    named_at: Option<Instant>,
    /// When we next compare stores.
    pub(super) digest_at: Option<Instant>,
    /// Comparisons in a row that found a difference.
    pub(super) differing: u32,
    /// The stores differed since the last comparison began.
    pub(super) has_differed: bool,
    /// Work that the other end may cause by ranges.
    pub(super) walk: Budget,
    /// RECORDS messages that the other end has not taken yet.
    under_way: usize,
}

impl Neighbour {
    pub(super) fn new(is_eager: bool) -> Self {
        Self {
            is_eager,
            push: Push::Unknown,
            fresh: BTreeSet::new(),
            owed: BTreeSet::new(),
            have: Vec::new(),
            have_at: None,
            named_at: None,
            digest_at: None,
            differing: 0,
            has_differed: false,
            walk: Budget::FULL,
            under_way: 0,
        }
    }

    /// Has the record sent or named, as the link is; true if it is to be sent.
    pub(super) fn tell(&mut self, key: RecordKey, id: u64, now: Instant) -> bool {
        if self.is_eager {
            self.fresh.insert(key);
        } else if self.have.len() < HAVE_MAX {
            // Beyond that the next comparison finds what was not named.
            self.have.push(id);
            let again = self.named_at.map_or(now, |at| at + HAVE_EVERY);
            self.have_at.get_or_insert(again.max(now + HAVE_AFTER));
        }
        self.is_eager
    }

    /// The ids that are to be named now.
    pub(super) fn take_names(&mut self, now: Instant) -> Option<Vec<u64>> {
        self.have_at.take_if(|at| *at <= now)?;
        self.named_at = Some(now);
        Some(std::mem::take(&mut self.have)).filter(|ids| !ids.is_empty())
    }

    /// The other end has named these itself: it need not hear of them.
    pub(super) fn need_not_name(&mut self, ids: &[u64]) {
        if !self.have.is_empty() {
            let named: BTreeSet<u64> = ids.iter().copied().collect();
            self.have.retain(|id| !named.contains(id));
        }
    }

    /// When ids are to be named or stores compared.
    pub(super) fn deadline(&self) -> Option<Instant> {
        [self.have_at, self.digest_at].into_iter().flatten().min()
    }

    /// The other end has it.
    pub(super) fn has(&mut self, key: RecordKey) {
        self.fresh.remove(&key);
        self.owed.remove(&key);
    }

    pub(super) fn acknowledged(&mut self) {
        self.under_way = self.under_way.saturating_sub(1);
    }

    /// The next message with records, while there is room under way.
    pub(super) fn next_records(&mut self, store: &Store) -> Option<Vec<u8>> {
        if self.under_way >= GOSSIP_MESSAGES_MAX {
            return None;
        }
        let (why, records) = match take(&mut self.fresh, store) {
            records if records.is_empty() => (Why::Lacking, take(&mut self.owed, store)),
            records => (Why::Fresh, records),
        };
        if records.is_empty() {
            return None;
        }
        self.under_way += 1;
        Some(GossipMessage::Records(why, &records).encode())
    }
}

/// As many of these records as fit into one message.
fn take(keys: &mut BTreeSet<RecordKey>, store: &Store) -> Vec<u8> {
    let mut records = Vec::new();
    while let Some(key) = keys.first().copied() {
        let bytes = store.find(key).map(|record| record.bytes().as_ref());
        let bytes = bytes.unwrap_or_default();
        if !records.is_empty() && records.len() + bytes.len() > GOSSIP_RECORDS_MAX {
            break;
        }
        records.extend_from_slice(bytes);
        keys.remove(&key);
    }
    records
}
