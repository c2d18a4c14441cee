//! What we publish: our ranges, gifts that their takers have not confirmed yet, and how much is free.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::ipam::record::{FREE_PART, RECORD_PARTS_MAX, RECORD_RUNS_MAX, RingRecord};
use crate::ipam::ring::{RingDigest, Run};
use crate::ipam::{Ipam, IpamOutput};
use crate::peer::PeerId;

/// How often the count of free addresses may change; it is only a hint whom to ask.
const FREE_PAUSE: Duration = Duration::from_secs(5);
/// Gifts that are published for their takers; what is beyond travels when peers compare.
const GIFTS_MAX: usize = 256;

/// What was published last.
#[derive(Debug, Default)]
pub(crate) struct Published {
    bodies: BTreeMap<u16, Vec<u8>>,
    gifts: Vec<Run>,
    /// The ring for which the bodies were made; gifts change them, too.
    made_for: Option<RingDigest>,
    free_at: Option<Instant>,
}

impl Published {
    pub(crate) fn given(&mut self, runs: &[Run]) {
        self.gifts.extend(runs.iter().cloned());
        let excess = self.gifts.len().saturating_sub(GIFTS_MAX);
        self.gifts.drain(..excess);
        self.made_for = None;
    }

    /// The taker has published what it was given.
    pub(crate) fn confirmed_by(&mut self, taker: PeerId, runs: &[Run]) {
        let is_known = |gift: &Run| {
            gift.claim.owner() == taker
                && runs.iter().any(|run| {
                    run.span.intersect(gift.span) == Some(gift.span)
                        && run.claim.version >= gift.claim.version
                })
        };
        let before = self.gifts.len();
        self.gifts.retain(|gift| !is_known(gift));
        if self.gifts.len() != before {
            self.made_for = None;
        }
    }
}

impl Ipam {
    /// Publishes what has changed.
    pub(crate) fn publish(&mut self, now: Instant) {
        let Some(ring) = &self.ring else {
            return;
        };
        if self.gate.is_ring_changed() || self.published.made_for.is_none() {
            self.published.made_for = Some(ring.digest());
            let mut runs = ring.claimed_by(self.config.me);
            runs.extend(self.published.gifts.iter().cloned());
            let mut bodies = BTreeMap::new();
            let parts = runs.chunks(RECORD_RUNS_MAX).take(RECORD_PARTS_MAX);
            // A peer without ranges still tells what it knows of the council.
            let parts = parts.chain(std::iter::once([].as_slice()).filter(|_| runs.is_empty()));
            for (part, runs) in (0_u16..).zip(parts) {
                let record = RingRecord {
                    genesis: ring.genesis,
                    range: Some(ring.range),
                    council: (part == 0).then(|| ring.council.clone()),
                    runs: runs.to_vec(),
                    free: None,
                };
                bodies.insert(part, record.encode());
            }
            self.publish_bodies(bodies);
        }
        self.publish_free(now);
    }

    fn publish_bodies(&mut self, bodies: BTreeMap<u16, Vec<u8>>) {
        let known: BTreeSet<u16> = self.published.bodies.keys().copied().collect();
        for part in known {
            if part != FREE_PART && !bodies.contains_key(&part) {
                self.published.bodies.remove(&part);
                let body = Vec::new();
                self.gate.stage(IpamOutput::Publish { part, body });
            }
        }
        for (part, body) in bodies {
            self.publish_body(part, body);
        }
    }

    fn publish_body(&mut self, part: u16, body: Vec<u8>) {
        if self.published.bodies.get(&part) != Some(&body) {
            self.published.bodies.insert(part, body.clone());
            self.gate.stage(IpamOutput::Publish { part, body });
        }
    }

    fn publish_free(&mut self, now: Instant) {
        if self
            .published
            .free_at
            .is_some_and(|at| now < at + FREE_PAUSE)
        {
            return;
        }
        let Some(ring) = &self.ring else {
            return;
        };
        self.published.free_at = Some(now);
        let free = self.free_count();
        let record = RingRecord {
            genesis: ring.genesis,
            range: None,
            council: None,
            runs: Vec::new(),
            free: Some(free),
        };
        self.free.insert(self.config.me, free);
        self.publish_body(FREE_PART, record.encode());
    }

    fn free_count(&self) -> u64 {
        self.owned
            .iter()
            .map(|span| span.count().saturating_sub(self.holdings.count_in(*span)))
            .sum()
    }
}
