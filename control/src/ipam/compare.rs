//! Comparing rings with peers: when two meet, when something was taken over, and now and then.
//!
//! ```text
//!  meet ─► DIGEST ─► equal? ─ yes ─► agreed: the peer is heard ─► it says so, too: frames may flow
//!                       └ no ─► RING, in parts ─► merged, equal now? ─ yes ─► DIGEST
//!                                                          └ no ─► RING back
//! ```
//!
//! What was taken over from somebody else rests (`Settling`) until every peer within reach has agreed, so that
//! nobody uses an old right beside a new one. A council is only taken together with all ranges that its sender knew.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::ipam::agreement::{COMPARE_AGAIN, is_due};
use crate::ipam::allocate::without;
use crate::ipam::council::Council;
use crate::ipam::flow::Meeting;
use crate::ipam::message::{CHUNK_RUNS_MAX, IpamMessage};
use crate::ipam::record::RingRecord;
use crate::ipam::ring::{Change, GenesisId, Ring, RingDigest, Run};
use crate::ipam::span::Span;
use crate::ipam::{Contact, Ipam, IpamNotice};
use crate::peer::PeerId;

/// The whole ring goes to one peer at most this often.
const RING_AGAIN: Duration = Duration::from_millis(100);
/// With somebody at random, for what was lost on the way.
const COMPARE_AT_RANDOM: Duration = Duration::from_secs(3);

/// What was taken over and rests.
#[derive(Debug, Default)]
pub(crate) struct Settling {
    /// Each with whoever had it before.
    pub(crate) spans: Vec<(Span, PeerId)>,
    pub(crate) waits_for: BTreeSet<PeerId>,
    asked_at: Option<Instant>,
    compared_at: Option<Instant>,
}

/// One ring as it is told.
struct Told {
    genesis: GenesisId,
    range: Span,
    council: Council,
    digest: RingDigest,
    runs: Vec<Run>,
}

impl Ipam {
    /// The peers within reach have changed.
    pub(crate) fn reachable(&mut self, contacts: BTreeMap<PeerId, Contact>, now: Instant) {
        for peer in self.meet(contacts, now) {
            self.compare(peer, true, now);
        }
        self.settle();
    }

    pub(crate) fn has_unfinished_meetings(&self) -> bool {
        let is_unfinished =
            |(peer, meeting): (&PeerId, &Meeting)| !meeting.hears && !self.strangers.contains(peer);
        !self.settling.spans.is_empty() || self.meetings.iter().any(is_unfinished)
    }

    pub(crate) fn compare_due(&self) -> Instant {
        self.settling.compared_at.map_or(self.stepped_at, |at| at) + COMPARE_AT_RANDOM
    }

    pub(crate) fn step_meetings(&mut self, now: Instant) {
        let unfinished: Vec<PeerId> = self
            .meetings
            .iter()
            .filter(|(_, meeting)| {
                !meeting.hears && is_due(meeting.compared_at, COMPARE_AGAIN, now)
            })
            .map(|(peer, _)| *peer)
            .filter(|peer| !self.strangers.contains(peer))
            .collect();
        for peer in unfinished {
            self.compare(peer, true, now);
        }
        if !self.settling.spans.is_empty() && is_due(self.settling.asked_at, COMPARE_AGAIN, now) {
            self.settling.asked_at = Some(now);
            for peer in self.settling.waits_for.clone() {
                self.compare(peer, true, now);
            }
        }
        if is_due(self.settling.compared_at, COMPARE_AT_RANDOM, now) && !self.contacts.is_empty() {
            self.settling.compared_at = Some(now);
            let count = self.contacts.len() as u64;
            let which = usize::try_from(self.random.u64() % count).unwrap_or(0);
            if let Some(peer) = self.contacts.keys().nth(which).copied() {
                self.compare(peer, true, now);
            }
        }
    }

    /// Says in short what we know.
    pub(crate) fn compare(&mut self, peer: PeerId, answer: bool, now: Instant) {
        if let Some(meeting) = self.meetings.get_mut(&peer)
            && answer
        {
            meeting.compared_at = Some(now);
        }
        let agrees = self
            .meetings
            .get(&peer)
            .is_some_and(|meeting| meeting.agreed)
            && !self.wants_back_from(peer);
        let message = IpamMessage::Digest {
            genesis: self.ring.as_ref().map(|ring| ring.genesis),
            range: self.range(),
            digest: self.digest(),
            votes: self.votes_on_first_ring(),
            answer,
            agrees,
        };
        self.send(peer, &message);
    }

    fn digest(&self) -> RingDigest {
        self.ring.as_ref().map_or([0; 16], Ring::digest)
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "`Ipam::message` hands over only the kinds that are read here"
    )]
    pub(crate) fn compare_message(&mut self, from: PeerId, message: IpamMessage, now: Instant) {
        match message {
            IpamMessage::Digest {
                genesis,
                range,
                digest,
                votes,
                answer,
                agrees,
            } => {
                self.voting.insert(from, votes);
                if self.is_stranger(from, genesis, range, now) {
                    return;
                }
                let agreed = |ipam: &Self| {
                    let meeting = ipam.meetings.get(&from);
                    meeting.is_some_and(|meeting| meeting.agreed)
                };
                let before = agreed(self);
                match (self.ring.is_some(), genesis.is_some()) {
                    (false, true) => self.send(from, &IpamMessage::RingWanted),
                    (true, false) => self.send_ring(from, now),
                    // Two that have lost their stores know the same of the ring: nothing. That is no agreement on
                    // what each has in use.
                    (false, false) if self.is_relearning() => {}
                    _ if digest == self.digest() => {
                        self.says_the_same(from, now);
                        if agrees {
                            self.hears_us(from);
                        }
                    }
                    _ => self.send_ring(from, now),
                }
                // Whoever is agreed with is told so once, for it waits for that.
                if answer || agreed(self) && !before {
                    self.compare(from, false, now);
                }
            }
            IpamMessage::Ring {
                genesis,
                range,
                council,
                digest,
                number,
                part,
                runs,
            } => {
                if self.is_stranger(from, Some(genesis), range, now) {
                    return;
                }
                if let Some(runs) = self.whole(from, number, part, runs) {
                    let told = Told {
                        genesis,
                        range,
                        council,
                        digest,
                        runs,
                    };
                    self.take_ring(from, &told, now);
                }
            }
            IpamMessage::RingWanted => {
                if self.ring.is_some() {
                    self.send_ring(from, now);
                } else {
                    self.election.wanted_by_other();
                }
            }
            _ => {}
        }
    }

    /// Collects parts; all runs once the last is there.
    fn whole(
        &mut self,
        from: PeerId,
        number: u64,
        part: (u16, u16),
        runs: Vec<Run>,
    ) -> Option<Vec<Run>> {
        if part.1 <= 1 {
            return Some(runs);
        }
        let meeting = self.meetings.get_mut(&from)?;
        if meeting
            .parts
            .as_ref()
            .is_none_or(|(known, _)| *known != number)
        {
            meeting.parts = Some((number, BTreeMap::new()));
        }
        let (_, parts) = meeting.parts.as_mut()?;
        parts.insert(part.0, runs);
        if parts.len() < usize::from(part.1) {
            return None;
        }
        let (_, parts) = meeting.parts.take()?;
        Some(parts.into_values().flatten().collect())
    }

    fn take_ring(&mut self, from: PeerId, told: &Told, now: Instant) {
        if self.ring.is_none() {
            self.adopt(Ring::blank(told.genesis, told.range, Council::default()));
        }
        self.merge_council(&told.council);
        self.merge_runs(&told.runs, Some(from), now);
        if told.digest == self.digest() {
            self.says_the_same(from, now);
            let hears = self.meetings.get(&from).is_none_or(|meeting| meeting.hears);
            self.compare(from, !hears, now);
        } else {
            self.send_ring(from, now);
        }
    }

    /// Whether the peer is not of our ring; said once.
    fn is_stranger(
        &mut self,
        peer: PeerId,
        genesis: Option<GenesisId>,
        range: Span,
        now: Instant,
    ) -> bool {
        let ours = self.ring.as_ref().map(|ring| ring.genesis);
        let why = match (ours, genesis) {
            _ if range != self.range() => {
                format!(
                    "incompatible IP allocation ranges (received {range}, ours {}): launch all hosts with the same --ipalloc-range",
                    self.range()
                )
            }
            (Some(ours), Some(theirs)) if ours != theirs => {
                format!(
                    "two rings that were begun apart (received {theirs}, ours {ours}): run `weft reset` on the hosts of one network, or launch all with the same seeds"
                )
            }
            _ => {
                self.strangers.remove(&peer);
                return false;
            }
        };
        // Nobody of another ring has a right that could stand beside ours.
        self.settling.waits_for.remove(&peer);
        self.settle();
        if self.strangers.insert(peer) {
            // The notice ends the link; the peer is to know first of which ring we are.
            self.compare(peer, false, now);
            self.close(peer, now);
            self.notice(IpamNotice::Stranger { peer, why });
        }
        true
    }

    pub(crate) fn settle(&mut self) {
        if self.settling.waits_for.is_empty() {
            self.settling.spans.clear();
        }
    }

    pub(crate) fn rests(&self, address: u32) -> bool {
        let mut spans = self.settling.spans.iter();
        spans.any(|(span, _)| span.contains(address))
    }

    /// What rests and that peer had: nobody else has used it since, so it may have it back.
    pub(crate) fn resting_of(&self, loser: PeerId) -> Vec<Span> {
        let (its, others): (Vec<_>, Vec<_>) =
            (self.settling.spans.iter().copied()).partition(|(_, had)| *had == loser);
        let mut spans: Vec<Span> = its.into_iter().map(|(span, _)| span).collect();
        for (other, _) in others {
            spans = spans
                .into_iter()
                .flat_map(|span| without(span, other))
                .flatten()
                .collect();
        }
        spans
    }

    /// Sends all that we know, unless that was just done.
    pub(crate) fn send_ring(&mut self, to: PeerId, now: Instant) {
        let Some(ring) = &self.ring else {
            return;
        };
        if let Some(meeting) = self.meetings.get_mut(&to) {
            if meeting.sent_at.is_some_and(|at| now < at + RING_AGAIN) {
                return;
            }
            meeting.sent_at = Some(now);
        }
        let runs: Vec<Run> = ring.runs().collect();
        let count = runs.len().div_ceil(CHUNK_RUNS_MAX).max(1);
        let of = u16::try_from(count).unwrap_or(u16::MAX);
        let number = u64::from_be_bytes(self.random.bytes());
        let parts: Vec<IpamMessage> = (0..of)
            .map(|part| IpamMessage::Ring {
                genesis: ring.genesis,
                range: ring.range,
                council: ring.council.clone(),
                digest: ring.digest(),
                number,
                part: (part, of),
                runs: runs
                    .chunks(CHUNK_RUNS_MAX)
                    .nth(usize::from(part))
                    .unwrap_or_default()
                    .to_vec(),
            })
            .collect();
        for part in &parts {
            self.send(to, part);
        }
    }

    /// A record came in.
    pub(crate) fn record(&mut self, origin: PeerId, body: &[u8], now: Instant) {
        let Ok(record) = RingRecord::decode(body) else {
            return;
        };
        let Some(ring) = &self.ring else {
            if self.contacts.contains_key(&origin) {
                self.send(origin, &IpamMessage::RingWanted);
            }
            return;
        };
        if record.genesis != ring.genesis || record.range.is_some_and(|range| range != ring.range) {
            return;
        }
        if let Some(free) = record.free {
            self.free.insert(origin, free);
        }
        if let Some(council) = &record.council {
            if ring.council.can_follow_alone(council) {
                self.merge_council(council);
            } else if council.index > ring.council.index {
                self.compare(origin, true, now);
            }
        }
        self.published.confirmed_by(origin, &record.runs);
        self.merge_runs(&record.runs, Some(origin), now);
    }

    /// Merges what a peer knows about ranges; `None` if we say it ourselves.
    pub(crate) fn merge_runs(&mut self, runs: &[Run], told_by: Option<PeerId>, now: Instant) {
        let by_free = self.config.faults.tie_by_free.then(|| self.free.clone());
        let mut changes = Vec::new();
        if let Some(ring) = &mut self.ring {
            for run in runs {
                changes.extend(ring.join(run.span, &run.claim, by_free.as_ref()));
            }
        }
        self.ring_changes(&changes, told_by, now);
    }

    /// Merges a council that came with the ranges that belong to it.
    pub(crate) fn merge_council(&mut self, council: &Council) {
        let Some(ring) = &mut self.ring else {
            return;
        };
        if ring.council.join(council) {
            self.gate.ring_changed();
            self.council_changed();
        }
    }

    /// Draws the conclusions from changes of the ring that a peer told us of.
    ///
    /// An owner writes a gift itself and uses it no more. What comes to us in any other way its owner may not know
    /// of: after a decree, or when two histories meet that forced removals began. It rests until all agree.
    pub(crate) fn ring_changes(
        &mut self,
        changes: &[Change],
        told_by: Option<PeerId>,
        now: Instant,
    ) {
        if changes.is_empty() {
            return;
        }
        self.gate.ring_changed();
        self.leaving_knows_more();
        let me = self.config.me;
        self.owned = self
            .ring
            .as_ref()
            .map(|ring| ring.owned_by(me))
            .unwrap_or_default();
        let (mut losers, mut passed_over) = (BTreeSet::new(), BTreeSet::new());
        for change in changes {
            let Some(before) = &change.before else {
                continue;
            };
            let taken_over = change.after.version.era > before.version.era;
            let fresh_dispute = change.after.is_disputed() && !before.is_disputed();
            let is_owners_gift = !taken_over && told_by == Some(before.owner());
            let displaces = change.after.owner() == me
                && before.owner() != me
                && told_by.is_some()
                && !is_owners_gift;
            let takes = taken_over && change.after.owner() == me && before.owner() != me;
            if takes || displaces {
                self.rest(change.span, before.owner());
            }
            if fresh_dispute {
                self.notice(IpamNotice::Disputed { span: change.span });
            }
            // Two removals at once begin the same era twice, and a gift of one heir hides the other's claim: who lost
            // by it has to hear that before it is heard. Where nothing was ever taken over a gift is just that.
            let is_hidden = told_by.is_some() && !is_owners_gift && before.version.era > 0;
            let has_lost = taken_over || fresh_dispute || displaces || is_hidden;
            if has_lost && before.owner() != change.after.owner() {
                losers.insert(before.owner());
            } else if !is_owners_gift && before.owner() != change.after.owner() {
                passed_over.insert(before.owner());
            }
        }
        self.passes_over(told_by, passed_over, now);
        losers.remove(&me);
        for loser in losers {
            if self
                .meetings
                .get(&loser)
                .is_some_and(|meeting| meeting.agreed)
            {
                self.close(loser, now);
                self.send_ring(loser, now);
            }
        }
        self.take_seeded_share(now);
    }

    fn rest(&mut self, span: Span, loser: PeerId) {
        if self.config.faults.remove_without_fence {
            return;
        }
        self.settling.spans.push((span, loser));
        let others = self.contacts.keys().copied();
        self.settling.waits_for = others
            .filter(|peer| !self.strangers.contains(peer))
            .collect();
        self.settling.asked_at = None;
        self.settle();
    }

    /// A ring is ours from now on.
    pub(crate) fn adopt(&mut self, ring: Ring) {
        let genesis = ring.genesis;
        self.owned = ring.owned_by(self.config.me);
        self.acceptor.advance(ring.council.index + 1);
        self.gate.acceptor_changed();
        self.ring = Some(ring);
        self.gate.ring_changed();
        self.election.forget_proposal();
        self.notice(IpamNotice::RingKnown { genesis });
    }
}
