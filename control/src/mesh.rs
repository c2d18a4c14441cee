//! Chooses whom to link to, so that a few links each make one network of all.
//!
//! ```text
//!  wanted by a peer, of N peers that can be reached
//!    the next one in the ring of PeerIds       every peer has one: the graph is connected
//!    the log2(N) whose hash with it is least   a random graph: short ways, and no peer that all depend on
//! ```
//!
//! Whom a peer wants follows from who is there, so both ends of a link know who asked for it, and the one with the
//! smaller PeerId dials first where both did. A peer that has links enough is content with those it has, but for the
//! ring. Who cannot be reached is looked for last, yet a few of them always: that is how halves of a network find each
//! other again. Sans-IO. Bounds: `config::MESH_LOST_DIALED`, `MESH_FAILURES_MAX` and their neighbours.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::config::{
    MESH_ALONE_DIALED, MESH_CHOOSE_AFTER, MESH_CHOOSE_EVERY, MESH_DIAL_SPREAD, MESH_FAILURES_MAX,
    MESH_ISLAND_DIALED, MESH_LINKS_KEPT, MESH_LOST_DIALED, MESH_LOST_FAILURES_MAX,
    MESH_OTHER_SIDE_AFTER, MESH_SHUN, PEERS_MAX, TRIM_AFTER, TRIM_AT_ONCE, TRIM_EVERY, TRIM_SHARE,
};
use crate::link::dialer::discovered::Discovered;
use crate::peer::PeerId;
use crate::random::Randomness;

/// Share by which times vary, so that a thousand peers that hear one piece of news do not act in step.
const JITTER_PERCENT: u32 = 50;

/// What the mesh needs to know of a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) peer: PeerId,
    /// When its link came up, if it has one that answers.
    pub(crate) linked_at: Option<Instant>,
    /// It says where it is.
    pub(crate) has_address: bool,
    /// The links of others lead to it, so it is there.
    pub(crate) is_routed: bool,
    /// It links to its own targets only, and so counts on its links.
    pub(crate) is_apart: bool,
}

/// Something for the dialer to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Look for the peer, from then on.
    Dial(PeerId, Instant),
    /// Look for the peer, which has been out of reach since then.
    Seek(PeerId, Instant),
    /// It has a link; look for it when that ends.
    Keep(PeerId),
    /// Look for it no longer.
    Leave(PeerId),
}

/// Who is there, by what is known.
#[derive(Debug)]
struct Members {
    ours: PeerId,
    /// All that can be reached and ourselves, in order.
    ids: Vec<PeerId>,
}

impl Members {
    /// How many a peer wants beside its successor: log2(N), rounded up.
    fn wanted_count(&self) -> usize {
        self.ids.len().next_power_of_two().ilog2() as usize
    }

    /// Whom this peer wants.
    fn wanted_by(&self, peer: PeerId) -> BTreeSet<PeerId> {
        let count = self.wanted_count();
        // The worst of the chosen is last, and gives way.
        let mut best = BTreeSet::new();
        for id in self.ids.iter().filter(|id| **id != peer) {
            best.insert((rank(peer, *id), *id));
            if best.len() > count {
                best.pop_last();
            }
        }
        let mut wanted: BTreeSet<_> = best.into_iter().map(|(_, id)| id).collect();
        wanted.extend(self.successor(peer));
        wanted
    }

    /// The next in the ring of PeerIds.
    fn successor(&self, peer: PeerId) -> Option<PeerId> {
        let at = self.ids.partition_point(|id| *id <= peer);
        let next = self.ids.get(at).or(self.ids.first()).copied();
        next.filter(|next| *next != peer)
    }
}

/// How far one peer is from being chosen by another: the same for everybody, and another order for each.
fn rank(by: PeerId, peer: PeerId) -> u64 {
    // SplitMix64's mixing; PeerIds are hashes themselves.
    let mut z = u64::from_be_bytes(by.label()).rotate_left(32) ^ u64::from_be_bytes(peer.label());
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Whom we want to link to.
#[derive(Debug)]
pub(crate) struct Mesh {
    ours: PeerId,
    /// Peers that could not be reached lately, and until when they come last.
    shunned: BTreeMap<PeerId, Instant>,
    /// Those that nobody leads to or that did not answer, and since when.
    lost: BTreeMap<PeerId, Instant>,
    choose_at: Option<Instant>,
    trim_at: Option<Instant>,
}

impl Mesh {
    pub(crate) fn new(ours: PeerId) -> Self {
        Self {
            ours,
            shunned: BTreeMap::new(),
            lost: BTreeMap::new(),
            choose_at: None,
            trim_at: None,
        }
    }

    /// Somebody came or went, or says something new of where it is.
    pub(crate) fn touch(&mut self, random: &mut Randomness, now: Instant) {
        let soon = now + random.around(MESH_CHOOSE_AFTER, JITTER_PERCENT);
        self.choose_at = Some(self.choose_at.map_or(soon, |at| at.min(soon)));
    }

    /// The peer is alive: it has a link, or says something new.
    pub(crate) fn is_alive(&mut self, peer: PeerId) {
        self.shunned.remove(&peer);
        self.lost.remove(&peer);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        [self.choose_at, self.trim_at].into_iter().flatten().min()
    }

    /// True if [`Mesh::choose`] is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.choose_at.is_some_and(|at| at <= now)
    }

    /// Notes who does not answer; true if that calls for another choice.
    pub(crate) fn note_failures(
        &mut self,
        discovered: impl Iterator<Item = Discovered>,
        random: &mut Randomness,
        now: Instant,
    ) -> bool {
        let mut news = false;
        for found in discovered {
            let failures_max = if self.lost.contains_key(&found.peer) {
                MESH_LOST_FAILURES_MAX
            } else {
                MESH_FAILURES_MAX
            };
            if found.failures >= failures_max
                && !self.shunned.contains_key(&found.peer)
                && self.shunned.len() < PEERS_MAX
            {
                let until = now + random.around(MESH_SHUN, JITTER_PERCENT);
                self.shunned.insert(found.peer, until);
                news = true;
            }
        }
        news
    }

    /// Decides whom to dial from now on. `discovered` are those that the dialer looks for already.
    pub(crate) fn choose(
        &mut self,
        candidates: &[Candidate],
        discovered: &[Discovered],
        random: &mut Randomness,
        now: Instant,
    ) -> Vec<Choice> {
        self.choose_at = Some(now + random.around(MESH_CHOOSE_EVERY, JITTER_PERCENT));
        self.shunned.retain(|_, until| now < *until);
        let members = self.members(candidates);
        let wanted = members.wanted_by(self.ours);
        let successor = members.successor(self.ours);
        let linked: BTreeSet<_> = candidates
            .iter()
            .filter(|candidate| candidate.linked_at.is_some())
            .map(|candidate| candidate.peer)
            .collect();
        let mut looked_for: BTreeSet<_> = discovered.iter().map(|found| found.peer).collect();
        let mut choices = Vec::new();
        // Both ends choose, so twice as many come to be.
        let enough = 2 * members.wanted_count();
        let mut links = linked.union(&looked_for).count();
        for peer in &wanted {
            if linked.contains(peer) {
                choices.push(Choice::Keep(*peer));
            } else if looked_for.contains(peer) {
                choices.push(Choice::Dial(*peer, now));
            } else if links < enough || successor == Some(*peer) {
                links += 1;
                let at = self.dial_at(&members, *peer, random, now);
                choices.push(Choice::Dial(*peer, at));
            }
        }
        let has_enough = linked.len() >= enough;
        for (peer, since) in self.seek(candidates, members.ids.len(), has_enough, now) {
            looked_for.remove(&peer);
            choices.push(Choice::Seek(peer, since));
        }
        let left = looked_for.into_iter().filter(|peer| !wanted.contains(peer));
        choices.extend(left.map(Choice::Leave));
        choices
    }

    fn members(&self, candidates: &[Candidate]) -> Members {
        let is_there = |candidate: &&Candidate| {
            candidate.linked_at.is_some()
                || candidate.has_address
                    && candidate.is_routed
                    && !self.shunned.contains_key(&candidate.peer)
        };
        let there = candidates.iter().filter(is_there);
        let mut ids: Vec<_> = there.map(|candidate| candidate.peer).collect();
        ids.push(self.ours);
        ids.sort_unstable();
        ids.dedup();
        Members {
            ours: self.ours,
            ids,
        }
    }

    /// A few of those whom nobody leads to or who did not answer: they may be back. Whoever failed last comes last. With
    /// links enough, only whom nobody leads to: when halves of a network have met, each need not call all of the other.
    fn seek(
        &mut self,
        candidates: &[Candidate],
        reached: usize,
        has_enough: bool,
        now: Instant,
    ) -> Vec<(PeerId, Instant)> {
        let lost = candidates.iter().filter(|candidate| {
            candidate.linked_at.is_none()
                && candidate.has_address
                && (!candidate.is_routed
                    || (!has_enough && self.shunned.contains_key(&candidate.peer)))
        });
        let before = std::mem::take(&mut self.lost);
        let since = |peer: PeerId| (peer, before.get(&peer).copied().unwrap_or(now));
        self.lost = lost.map(|candidate| since(candidate.peer)).collect();
        let mut lost: Vec<_> = self.lost.iter().map(|(peer, at)| (*peer, *at)).collect();
        lost.sort_unstable_by_key(|(peer, _)| (self.shunned.get(peer), rank(self.ours, *peer)));
        let is_alone = candidates
            .iter()
            .all(|candidate| candidate.linked_at.is_none());
        let share =
            (MESH_ISLAND_DIALED / reached.max(1)).clamp(MESH_LOST_DIALED, MESH_ALONE_DIALED);
        lost.truncate(if is_alone { MESH_ALONE_DIALED } else { share });
        lost
    }

    /// If both want the link, the smaller PeerId dials first.
    fn dial_at(
        &self,
        members: &Members,
        peer: PeerId,
        random: &mut Randomness,
        now: Instant,
    ) -> Instant {
        let spread = random.around(MESH_DIAL_SPREAD / 2, 100);
        let is_others_turn = peer < self.ours && members.wanted_by(peer).contains(&members.ours);
        let turn = if is_others_turn {
            MESH_OTHER_SIDE_AFTER
        } else {
            Duration::ZERO
        };
        now + turn + spread
    }

    /// There are no more links than anybody minds.
    pub(crate) fn need_not_trim(&mut self) {
        self.trim_at = None;
    }

    /// Whether [`Mesh::trim`] may be asked again.
    pub(crate) fn may_trim(&self, now: Instant) -> bool {
        self.trim_at.is_none_or(|at| at <= now)
    }

    /// The links to end because there are far too many: old ones that neither end needs.
    pub(crate) fn trim(
        &mut self,
        candidates: &[Candidate],
        is_named: impl Fn(PeerId) -> bool,
        random: &mut Randomness,
        now: Instant,
    ) -> Vec<PeerId> {
        let links = candidates
            .iter()
            .filter(|candidate| candidate.linked_at.is_some())
            .count();
        let members = self.members(candidates);
        let kept = MESH_LINKS_KEPT.max(4 * members.wanted_count());
        self.trim_at = Some(now + random.around(TRIM_EVERY, JITTER_PERCENT));
        if links <= kept {
            return Vec::new();
        }
        let wanted = members.wanted_by(self.ours);
        let is_old = |at: Instant| now.duration_since(at) >= TRIM_AFTER;
        candidates
            .iter()
            .filter(|candidate| {
                candidate.linked_at.is_some_and(is_old)
                    && !candidate.is_apart
                    && !wanted.contains(&candidate.peer)
                    && !is_named(candidate.peer)
            })
            .map(|candidate| candidate.peer)
            .filter(|peer| !members.wanted_by(*peer).contains(&self.ours))
            .take((links - kept).min(TRIM_AT_ONCE.max((links - kept) / TRIM_SHARE)))
            .collect()
    }
}

#[cfg(test)]
mod tests;
