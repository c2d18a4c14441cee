//! The records of everybody, each in its newest version, and hashes of what is held.
//!
//! ```text
//!  origin ─┬─ PEER record: keys, boot id; what is of an older incarnation goes when it comes
//!          ├─ records by kind and part
//!          └─ hash over the ids of all of them
//! ```
//!
//! What is held follows from the set of records seen, not from their order; of two different records of one version
//! (two processes sign with one key) the larger bytes win everywhere. Bounds: `config::ORIGINS_MAX`,
//! `ORIGIN_RECORDS_MAX`, `ORIGIN_BYTES_MAX`, `STORE_BYTES_MAX`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use blake2::digest::consts::U8;
use blake2::{Blake2s, Digest as _};

use super::budget::Budget;
use super::wire::{Held, Prefix};
use crate::config::{
    BOOT_IDS_MAX, BootId, ORIGIN_BYTES_MAX, ORIGIN_RECORDS_MAX, ORIGINS_MAX, RECORD_KEPT_COST,
    STORE_BYTES_MAX,
};
use crate::peer::{PeerId, PublicKeys};
use crate::record::{Record, RecordKey, RecordKind, RecordView, Version};

/// All that one peer says of itself.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) keys: PublicKeys,
    pub(super) boot_id: BootId,
    /// Of the PEER record.
    pub(super) incarnation: u64,
    pub(super) records: BTreeMap<(u8, u16), Record>,
    pub(super) budget: Budget,
    /// Boot ids that were superseded, the last one at the end.
    superseded: Vec<BootId>,
    bytes: usize,
    hash: u64,
}

/// What a record would change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judgement {
    /// Nothing: it is held already.
    Held,
    /// Nothing: a newer one is held, or its incarnation is over.
    Stale,
    /// It is news.
    News,
    /// It is of the version that is held, and not the same.
    Contradiction,
    /// The PEER record of its origin is not known.
    Orphan,
    /// There is no room for it.
    NoRoom,
}

/// What the PEER record of an origin says that the store needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Introduction {
    pub(super) keys: PublicKeys,
    pub(super) boot_id: BootId,
}

/// What came of a record that was taken in.
#[derive(Debug, Default)]
pub(super) struct Taken {
    /// Records that are gone with the incarnation before.
    pub(super) gone: Vec<RecordKey>,
    /// A boot id came back that another had superseded: two processes share one key.
    pub(super) is_clone: bool,
}

/// The records of everybody.
#[derive(Debug, Default)]
pub(super) struct Store {
    origins: BTreeMap<PeerId, Origin>,
    ids: BTreeMap<u64, RecordKey>,
    bytes: usize,
    root: Option<u64>,
}

impl Store {
    pub(super) fn origin(&self, id: PeerId) -> Option<&Origin> {
        self.origins.get(&id)
    }

    pub(super) fn origin_mut(&mut self, id: PeerId) -> Option<&mut Origin> {
        self.origins.get_mut(&id)
    }

    pub(super) fn origins(&self) -> impl Iterator<Item = (PeerId, &Origin)> {
        self.origins.iter().map(|(id, origin)| (*id, origin))
    }

    pub(super) fn origin_count(&self) -> usize {
        self.origins.len()
    }

    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn find(&self, key: RecordKey) -> Option<&Record> {
        self.origins
            .get(&key.origin)?
            .records
            .get(&(key.kind, key.part))
    }

    /// The record whose version has this id.
    pub(super) fn with_id(&self, id: u64) -> Option<RecordKey> {
        self.ids.get(&id).copied()
    }

    /// Says what a record would change, its signature aside.
    pub(super) fn judge(&self, record: &RecordView<'_>) -> Judgement {
        let key = record.key;
        let is_peer = key.kind == RecordKind::Peer.byte();
        let Some(origin) = self.origins.get(&key.origin) else {
            return if !is_peer {
                Judgement::Orphan
            } else if self.origins.len() >= ORIGINS_MAX || !self.has_room(0, record) {
                Judgement::NoRoom
            } else {
                Judgement::News
            };
        };
        if record.version.incarnation < origin.incarnation {
            return Judgement::Stale;
        }
        let held = origin.records.get(&(key.kind, key.part));
        let room = held.map_or(0, cost);
        let has_room = (held.is_some() || origin.records.len() < ORIGIN_RECORDS_MAX)
            && origin.bytes - room + record.bytes().len() <= ORIGIN_BYTES_MAX
            && self.has_room(room, record);
        match held.map(|held| (record.version.cmp(&held.version), held)) {
            Some((Ordering::Less, _)) => Judgement::Stale,
            Some((Ordering::Equal, held)) => match record.bytes().cmp(held.bytes()) {
                Ordering::Less => Judgement::Stale,
                Ordering::Equal => Judgement::Held,
                Ordering::Greater => Judgement::Contradiction,
            },
            _ if has_room => Judgement::News,
            _ => Judgement::NoRoom,
        }
    }

    fn has_room(&self, freed: usize, record: &RecordView<'_>) -> bool {
        self.bytes - freed + record.bytes().len() + RECORD_KEPT_COST <= STORE_BYTES_MAX
    }

    /// Takes in a record that was judged news and verified. `peer` is what it says if it is a PEER record.
    pub(super) fn take_in(&mut self, record: Record, peer: Option<Introduction>) -> Taken {
        let mut taken = Taken::default();
        let key = record.key;
        if let Some(introduction) = peer {
            taken = self.introduce(key.origin, record.version, introduction);
        }
        let Some(origin) = self.origins.get_mut(&key.origin) else {
            return taken;
        };
        let (id, cost_new) = (record.id(), cost(&record));
        let old = origin.records.insert((key.kind, key.part), record);
        let cost_old = old.as_ref().map_or(0, cost);
        origin.bytes = origin.bytes - cost_old + cost_new;
        self.bytes = self.bytes - cost_old + cost_new;
        origin.rehash();
        self.root = None;
        if let Some(old) = old {
            self.ids.remove(&old.id());
        }
        self.ids.insert(id, key);
        taken
    }

    /// Makes or renews the origin of a PEER record.
    fn introduce(&mut self, id: PeerId, version: Version, peer: Introduction) -> Taken {
        let mut taken = Taken::default();
        let origin = self.origins.entry(id).or_insert_with(|| Origin {
            keys: peer.keys,
            boot_id: peer.boot_id,
            incarnation: version.incarnation,
            records: BTreeMap::new(),
            budget: Budget::FULL,
            superseded: Vec::new(),
            bytes: 0,
            hash: 0,
        });
        if origin.boot_id != peer.boot_id {
            taken.is_clone = origin.superseded.contains(&peer.boot_id);
            let old = std::mem::replace(&mut origin.boot_id, peer.boot_id);
            origin.superseded.retain(|boot_id| *boot_id != peer.boot_id);
            origin.superseded.push(old);
            if origin.superseded.len() > BOOT_IDS_MAX {
                origin.superseded.remove(0);
            }
        }
        if version.incarnation > origin.incarnation {
            origin.incarnation = version.incarnation;
            let is_over = |record: &Record| {
                record.version.incarnation < version.incarnation
                    && record.key.kind != RecordKind::Peer.byte()
            };
            let over: Vec<_> = origin
                .records
                .values()
                .filter(|r| is_over(r))
                .cloned()
                .collect();
            for record in over {
                origin.records.remove(&(record.key.kind, record.key.part));
                taken.gone.push(record.key);
                origin.bytes -= cost(&record);
                self.bytes -= cost(&record);
                self.ids.remove(&record.id());
            }
        }
        taken
    }

    /// Forgets an origin; its records come back.
    pub(super) fn remove(&mut self, id: PeerId) -> Vec<RecordKey> {
        let Some(origin) = self.origins.remove(&id) else {
            return Vec::new();
        };
        self.bytes -= origin.bytes;
        self.root = None;
        let records = origin.records.into_values();
        records
            .map(|record| {
                self.ids.remove(&record.id());
                record.key
            })
            .collect()
    }

    /// The hash of all that is held of the origins with this prefix; 0 if there are none.
    pub(super) fn hash(&mut self, prefix: Prefix) -> u64 {
        if prefix == Prefix::ROOT
            && let Some(root) = self.root
        {
            return root;
        }
        let mut hash = Blake2s::<U8>::new();
        let mut is_empty = true;
        for (id, origin) in self.origins.range(range(prefix)) {
            is_empty = false;
            hash.update(id.0);
            hash.update(origin.hash.to_be_bytes());
        }
        let hash = if is_empty { 0 } else { finish(hash) };
        if prefix == Prefix::ROOT {
            self.root = Some(hash);
        }
        hash
    }

    /// The origins with this prefix and their hashes; `None` if there are more than `max`.
    pub(super) fn list(&self, prefix: Prefix, max: usize) -> Option<Vec<(PeerId, u64)>> {
        let list: Vec<_> = self
            .origins
            .range(range(prefix))
            .map(|(id, origin)| (*id, origin.hash))
            .take(max + 1)
            .collect();
        (list.len() <= max).then_some(list)
    }

    /// Which versions of the records of an origin are held.
    pub(super) fn held(&self, id: PeerId) -> Vec<Held> {
        let records = self.origins.get(&id).map(|origin| &origin.records);
        let held = |record: &Record| Held {
            kind: record.key.kind,
            part: record.key.part,
            version: record.version,
            id: record.id(),
        };
        records
            .into_iter()
            .flat_map(BTreeMap::values)
            .map(held)
            .collect()
    }
}

impl Origin {
    fn rehash(&mut self) {
        let mut hash = Blake2s::<U8>::new();
        for record in self.records.values() {
            hash.update(record.id().to_be_bytes());
        }
        self.hash = finish(hash);
    }
}

fn finish(hash: Blake2s<U8>) -> u64 {
    u64::from_be_bytes(hash.finalize().into())
}

fn range(prefix: Prefix) -> RangeInclusive<PeerId> {
    prefix.first()..=prefix.last()
}

fn cost(record: &Record) -> usize {
    record.bytes().len() + RECORD_KEPT_COST
}
