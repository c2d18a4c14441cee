//! Two ends of a link find out where their stores differ.
//!
//! ```text
//!  RANGES root ────────►   equal: silence
//!  ◄──── RANGES, its parts    or ORIGINS, where few are left
//!  VERSIONS of those that differ ────────►
//!  ◄──── RECORDS that are newer, VERSIONS once more if the other end is ahead in some
//! ```
//!
//! Whoever lacks an origin says so by VERSIONS without any. A peer can make us work for it no faster than
//! `config::COMPARE_RATE`.

use std::collections::BTreeMap;
use std::time::Instant;

use super::Gossip;
use super::wire::{GossipMessage, Held, Prefix};
use crate::config::{COMPARE_RATE, ORIGINS_MAX, RANGE_ORIGINS_MAX, RANGES_MAX};
use crate::node::exchange::LinkId;
use crate::peer::PeerId;
use crate::record::RecordKey;

impl Gossip {
    pub(super) fn compare_ranges(&mut self, link: LinkId, ranges: &[(Prefix, u64)], now: Instant) {
        let mut parts = Vec::new();
        for (prefix, theirs) in ranges {
            if !self.may_compare(link, now) {
                break;
            }
            if self.store.hash(*prefix) == *theirs {
                continue;
            }
            self.differs(link);
            if let Some(list) = self.store.list(*prefix, RANGE_ORIGINS_MAX) {
                self.send(link, &GossipMessage::Origins(*prefix, list));
                continue;
            }
            for part in prefix.children() {
                parts.push((part, self.store.hash(part)));
            }
        }
        for parts in parts.chunks(RANGES_MAX) {
            self.send(link, &GossipMessage::Ranges(parts.to_vec()));
        }
    }

    /// `theirs` are all origins with this prefix that the other end knows.
    pub(super) fn compare_origins(
        &mut self,
        link: LinkId,
        prefix: Prefix,
        theirs: &[(PeerId, u64)],
        now: Instant,
    ) {
        if !self.may_compare(link, now) {
            return;
        }
        self.differs(link);
        let ours = self.store.list(prefix, ORIGINS_MAX).unwrap_or_default();
        let ours: BTreeMap<PeerId, u64> = ours.into_iter().collect();
        let theirs: BTreeMap<PeerId, u64> = theirs.iter().copied().collect();
        for origin in ours.keys().filter(|origin| !theirs.contains_key(origin)) {
            self.owe(link, *origin, |_| true);
        }
        for (origin, hash) in &theirs {
            if ours.get(origin) != Some(hash) {
                self.send_versions(link, *origin, false);
            }
        }
    }

    /// `theirs` are all records of the origin that the other end has.
    pub(super) fn compare_versions(
        &mut self,
        link: LinkId,
        origin: PeerId,
        theirs: &[Held],
        is_answer: bool,
        now: Instant,
    ) {
        if !self.may_compare(link, now) {
            return;
        }
        let theirs: BTreeMap<_, _> = theirs
            .iter()
            .map(|held| ((held.kind, held.part), (held.version, held.id)))
            .collect();
        let ours = self.store.held(origin);
        let incarnation = self.incarnation(origin).unwrap_or(0);
        let is_behind = theirs.iter().any(|(name, (version, id))| {
            let held = ours.iter().find(|held| (held.kind, held.part) == *name);
            version.incarnation >= incarnation
                && held.is_none_or(|held| held.version <= *version && held.id != *id)
        });
        if is_behind && !is_answer {
            self.send_versions(link, origin, true);
        }
        self.owe(link, origin, |held| {
            theirs
                .get(&(held.kind, held.part))
                .is_none_or(|(version, id)| held.version >= *version && held.id != *id)
        });
    }

    fn may_compare(&mut self, link: LinkId, now: Instant) -> bool {
        let neighbour = self.neighbours.get_mut(link);
        let may = neighbour.is_some_and(|neighbour| neighbour.walk.spend(COMPARE_RATE, now));
        self.counters.comparisons_over_rate += u64::from(!may);
        may
    }

    fn differs(&mut self, link: LinkId) {
        if let Some(neighbour) = self.neighbours.get_mut(link) {
            neighbour.has_differed = true;
        }
    }

    fn send_versions(&mut self, link: LinkId, origin: PeerId, is_answer: bool) {
        let held = self.store.held(origin);
        self.send(
            link,
            &GossipMessage::Versions {
                is_answer,
                origin,
                held,
            },
        );
    }

    fn owe(&mut self, link: LinkId, origin: PeerId, lacks: impl Fn(&Held) -> bool) {
        let held = self.store.held(origin);
        let lacking = held.iter().filter(|held| lacks(held));
        let keys = lacking.map(|held| RecordKey {
            origin,
            kind: held.kind,
            part: held.part,
        });
        self.neighbours.owe(link, keys);
    }
}
