//! Who owns which part of the range: a map from address to claim, kept as runs, and the council beside it.
//!
//! ```text
//!  10.32.0.0 ──────────── 10.43.255.255 │ 10.44.0.0 ───────── 10.47.255.255
//!            claim of host 1            │           claim of host 2
//! ```
//!
//! The meaning is pointwise: a run is only a short way to write many points, and neighbours of equal claims are one
//! run. So two rings are equal exactly if they say the same, and merging needs no rule for split ranges. Free space
//! is no part of it. Bound: `RUNS_MAX` runs.

use std::collections::BTreeMap;

use blake2::digest::consts::U16;
use blake2::{Blake2s, Digest as _};

use crate::ipam::claim::{Claim, FreeCounts, Version};
use crate::ipam::council::Council;
use crate::ipam::span::Span;
use crate::peer::PeerId;

/// Runs of one ring: 4096 peers with sixteen each, and about 3 MiB.
pub(crate) const RUNS_MAX: usize = 65_536;

/// The random number of a first ring; two that differ are two networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GenesisId(pub [u8; 16]);

impl std::fmt::Display for GenesisId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "{a:02x}{b:02x}{c:02x}{d:02x}")
    }
}

/// A short proof that two peers know the same.
pub(crate) type RingDigest = [u8; 16];

/// One run and its claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) span: Span,
    pub(crate) claim: Claim,
}

/// What a merge changed at one run: what stood there before, if anything did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) span: Span,
    pub(crate) before: Option<Claim>,
    pub(crate) after: Claim,
}

/// The whole map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ring {
    pub(crate) genesis: GenesisId,
    pub(crate) range: Span,
    pub(crate) council: Council,
    /// By first address: the last one and the claim.
    runs: BTreeMap<u32, (u32, Claim)>,
}

impl Ring {
    /// A ring of which nothing is known yet but its name.
    pub(crate) fn blank(genesis: GenesisId, range: Span, council: Council) -> Self {
        Self {
            genesis,
            range,
            council,
            runs: BTreeMap::new(),
        }
    }

    /// The first ring: the range halved again and again over the peers in order.
    pub(crate) fn divided(
        genesis: GenesisId,
        range: Span,
        peers: &[PeerId],
        council: Council,
    ) -> Self {
        let mut ring = Self::blank(genesis, range, council);
        let mut parts = vec![(range, peers)];
        while let Some((span, peers)) = parts.pop() {
            let Some(owner) = peers.first() else {
                continue;
            };
            match span.halves() {
                Some((lower, upper)) if peers.len() > 1 => {
                    let (left, right) = peers.split_at(peers.len() / 2);
                    parts.extend([(lower, left), (upper, right)]);
                }
                Some(_) | None => {
                    ring.join(span, &Claim::new(Version::default(), *owner), None);
                }
            }
        }
        ring
    }

    /// All runs in order.
    pub(crate) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        self.runs.iter().filter_map(|(first, (last, claim))| {
            Some(Run {
                span: Span::new(*first, *last)?,
                claim: claim.clone(),
            })
        })
    }

    /// The runs that touch a span, not cut.
    pub(crate) fn runs_in(&self, span: Span) -> impl Iterator<Item = Run> + '_ {
        let start = self
            .runs
            .range(..=span.first())
            .next_back()
            .map_or(span.first(), |(first, _)| *first);
        self.runs
            .range(start..=span.last())
            .filter(move |(_, (last, _))| *last >= span.first())
            .filter_map(|(first, (last, claim))| {
                Some(Run {
                    span: Span::new(*first, *last)?,
                    claim: claim.clone(),
                })
            })
    }

    /// The claim at one address.
    pub(crate) fn at(&self, address: u32) -> Option<&Claim> {
        let (_, (last, claim)) = self.runs.range(..=address).next_back()?;
        (*last >= address).then_some(claim)
    }

    /// What a peer owns without dispute.
    pub(crate) fn owned_by(&self, peer: PeerId) -> Vec<Span> {
        self.runs()
            .filter(|run| !run.claim.is_disputed() && run.claim.owner() == peer)
            .map(|run| run.span)
            .collect()
    }

    /// The runs that a peer owns or disputes.
    pub(crate) fn claimed_by(&self, peer: PeerId) -> Vec<Run> {
        self.runs()
            .filter(|run| run.claim.owners().contains(&peer))
            .collect()
    }

    /// A digest over everything.
    pub(crate) fn digest(&self) -> RingDigest {
        let mut hash = Blake2s::<U16>::new();
        hash.update(self.genesis.0);
        hash.update(self.council.index.to_be_bytes());
        for member in &self.council.members {
            hash.update(member.0);
        }
        for (peer, removal) in &self.council.removed {
            hash.update(peer.0);
            hash.update(removal.index.to_be_bytes());
            hash.update(removal.incarnation.to_be_bytes());
        }
        digest_runs(hash, self.runs())
    }

    /// A digest over what one peer owns or disputes.
    pub(crate) fn view_of(&self, peer: PeerId) -> RingDigest {
        digest_runs(Blake2s::<U16>::new(), self.claimed_by(peer).into_iter())
    }

    /// Merges one run; the changes come back, with what stood there.
    pub(crate) fn join(
        &mut self,
        span: Span,
        claim: &Claim,
        free: Option<&FreeCounts>,
    ) -> Vec<Change> {
        let Some(span) = span.intersect(self.range) else {
            return Vec::new();
        };
        let mut changes = Vec::new();
        for (piece, before) in self.pieces(span) {
            let after = match (&before, free) {
                (None, _) => claim.clone(),
                (Some(before), None) => before.join(claim),
                (Some(before), Some(free)) => before.join_by_free(claim, free),
            };
            if before.as_ref() != Some(&after) {
                changes.push(Change {
                    span: piece,
                    before,
                    after,
                });
            }
        }
        if self.runs.len() + 2 * changes.len() > RUNS_MAX {
            return Vec::new();
        }
        for change in &changes {
            self.replace(change.span, &change.after);
        }
        changes
    }

    /// The span cut where claims begin and end, each part with its claim.
    fn pieces(&self, span: Span) -> Vec<(Span, Option<Claim>)> {
        let mut pieces = Vec::new();
        let mut next = Some(span.first());
        for run in self.runs_in(span).collect::<Vec<_>>() {
            let Some(part) = run.span.intersect(span) else {
                continue;
            };
            let gap = next.and_then(|next| Span::new(next, part.first().checked_sub(1)?));
            pieces.extend(gap.map(|gap| (gap, None)));
            pieces.push((part, Some(run.claim)));
            next = part.last().checked_add(1);
        }
        let rest = next.and_then(|next| Span::new(next, span.last()));
        pieces.extend(rest.map(|rest| (rest, None)));
        pieces
    }

    /// Writes a claim over a span that lies within one run or one gap, and joins equal neighbours.
    fn replace(&mut self, span: Span, claim: &Claim) {
        let (mut first, mut last) = (span.first(), span.last());
        if let Some((start, (end, old))) = self
            .runs
            .range(..=first)
            .next_back()
            .filter(|(_, (end, _))| *end >= first)
            .map(|(start, value)| (*start, value.clone()))
        {
            self.runs.remove(&start);
            if start < first {
                self.runs.insert(start, (first - 1, old.clone()));
            }
            if end > last {
                self.runs.insert(last + 1, (end, old));
            }
        }
        if let Some((start, (end, before))) = self.runs.range(..first).next_back()
            && *end + 1 == first
            && before == claim
        {
            first = *start;
        }
        if let Some(next) = last.checked_add(1)
            && let Some((end, after)) = self.runs.get(&next)
            && after == claim
        {
            last = *end;
            self.runs.remove(&next);
        }
        self.runs.insert(first, (last, claim.clone()));
    }
}

fn digest_runs(mut hash: Blake2s<U16>, runs: impl Iterator<Item = Run>) -> RingDigest {
    for run in runs {
        hash.update(run.span.first().to_be_bytes());
        hash.update(run.span.last().to_be_bytes());
        hash.update(run.claim.version.era.to_be_bytes());
        hash.update(run.claim.version.step.to_be_bytes());
        hash.update([u8::try_from(run.claim.owners().len()).unwrap_or(u8::MAX)]);
        for owner in run.claim.owners() {
            hash.update(owner.0);
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests;
