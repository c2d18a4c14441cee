//! Leaving: all of our ranges go to a peer that is there and stays.
//!
//! ```text
//!  INHERIT ─► INHERITS willing ─► ranges written: the heir ─► GIVEN, compare ─► all agree ─► resign ─► answered
//! ```
//!
//! What is in use here stays noted, and so blocked once the heir owns it: if leaving fails, it is fetched back.
//!
//! Not the heir alone has to agree: what another peer gave us may still be on its way, and would be nobody's. And
//! whoever owns nothing and has no heir needs a peer that owns something to agree: of what it gave away, perhaps
//! before it was started anew, the taker may not have heard. An owner stays until an heir of its own knows all that
//! it knows.
//!
//! A peer that leaves itself declines; one that has just promised to inherit leaves only after. So peers that leave
//! one after the other, or at the same moment, lose nothing as long as one stays.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::ipam::Ipam;
use crate::ipam::agreement::{COMPARE_AGAIN, is_due};
use crate::ipam::council::Council;
use crate::ipam::message::IpamMessage;
use crate::ipam::request::{Failure, Reply};
use crate::ipam::ring::Ring;
use crate::ipam::span::Span;
use crate::peer::PeerId;

/// A peer that does not answer is passed over after this time.
const HEIR_TIMEOUT: Duration = Duration::from_millis(1500);
/// Whoever has not said by then that it knows what we know is no longer waited for, but the heir is.
const AGREE_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a promise to inherit holds us back from leaving.
const INHERITING_MAX: Duration = Duration::from_secs(5);

/// How far we have come with leaving.
#[derive(Debug)]
pub(crate) struct Leaving {
    number: u64,
    asked: Option<(PeerId, Instant)>,
    declined: BTreeSet<PeerId>,
    heir: Option<PeerId>,
    count: u64,
    /// Since when we own nothing.
    empty_since: Option<Instant>,
    /// Who has known since then what we know.
    agreed: BTreeSet<PeerId>,
    compared_at: Option<Instant>,
    is_known: bool,
}

impl Ipam {
    /// Answers a request to leave, once it is done.
    pub(crate) fn try_leave(&mut self, now: Instant) -> Option<Reply> {
        self.inheriting
            .retain(|_, since| now < *since + INHERITING_MAX);
        if self.leaving.is_none() && !self.inheriting.is_empty() {
            return None;
        }
        if self.leaving.is_none() {
            let number = self.random.u64();
            self.leaving = Some(Leaving {
                number,
                asked: None,
                declined: BTreeSet::new(),
                heir: None,
                count: 0,
                empty_since: None,
                agreed: BTreeSet::new(),
                compared_at: None,
                is_known: false,
            });
            self.step_leaving(now);
        }
        let me = self.config.me;
        let is_alone = self.contacts.is_empty()
            && !self.may_have_a_ring()
            && self.ring.as_ref().is_none_or(|ring| {
                ring.runs().all(|run| run.claim.owner() == me)
                    && ring
                        .council
                        .members
                        .iter()
                        .all(|peer| *peer == self.voter() || self.election.left.contains(peer))
            });
        let leaving = self.leaving.as_ref()?;
        if is_alone {
            let (heir, count) = (None, 0);
            return Some(Reply::Left { heir, count });
        }
        let (heir, count) = (leaving.heir, leaving.count);
        (self.is_handed_over() && !self.must_be_removed()).then_some(Reply::Left { heir, count })
    }

    /// Nothing is ours, and whoever must know that does.
    fn is_handed_over(&self) -> bool {
        let is_known = self
            .leaving
            .as_ref()
            .is_some_and(|leaving| leaving.is_known);
        self.owned.is_empty() && is_known && !self.may_have_a_ring()
    }

    /// We voted on the first ring and have not heard what came of it: a part of it may be ours, and our vote missed.
    fn may_have_a_ring(&self) -> bool {
        self.ring.is_none() && self.acceptor.accepted.is_some()
    }

    fn is_voter_now(&self) -> bool {
        let ring = self.ring.as_ref();
        ring.is_some_and(|ring| ring.council.members.contains(&self.voter()))
    }

    /// A voter that is gone would be missed at every later decree, and a decree that it began might still name it as
    /// an heir; what it disputes would stay disputed.
    fn must_be_removed(&self) -> bool {
        let disputes = |ring: &Ring| !ring.claimed_by(self.config.me).is_empty();
        self.is_voter_now() || self.ring.as_ref().is_some_and(disputes)
    }

    /// Whoever cannot be removed keeps its ranges: its containers need them if it stays.
    fn lacks_votes(&self) -> bool {
        let council = self.ring.as_ref().map(|ring| &ring.council);
        let lacks = |council: &Council| self.voters_in_reach(council) < council.majority();
        self.is_voter_now() && council.is_some_and(lacks)
    }

    /// Whether all that is left to do is to be removed.
    pub(crate) fn should_resign(&self) -> bool {
        self.is_handed_over() && self.must_be_removed()
    }

    pub(crate) fn no_heir(&mut self) -> Failure {
        let is_about_votes = self.is_handed_over() || self.lacks_votes();
        let leaving = self.leaving.take();
        let why = self.why_not_left(is_about_votes);
        match leaving {
            Some(Leaving { count, .. }) if count > 0 => {
                let why = Box::new(why);
                Failure::HalfLeft { why, count }
            }
            _ => why,
        }
    }

    fn why_not_left(&self, is_about_votes: bool) -> Failure {
        if self.may_have_a_ring() {
            return Failure::FirstRingUnknown;
        }
        if let (true, Some(ring)) = (is_about_votes, &self.ring) {
            return Failure::NoVotesToLeave {
                majority: ring.council.majority(),
                voters: ring.council.members.len(),
                votes: self.voters_in_reach(&ring.council),
                missing: self.missing_voters(&ring.council, None),
            };
        }
        let count = self.owned.iter().map(|span| span.count()).sum();
        if count == 0 {
            let givers = self.givers_unheard().into_iter();
            let givers: Vec<String> = givers.map(|peer| self.label(peer)).collect();
            return if givers.is_empty() {
                Failure::Unheard
            } else {
                let givers = givers.join(", ");
                Failure::GiftsUnheard { givers }
            };
        }
        if self.others_than(&BTreeSet::new()).is_empty() {
            Failure::NoHeir { count }
        } else {
            Failure::HeirsDecline { count }
        }
    }

    pub(crate) fn step_leaving(&mut self, now: Instant) {
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        if let Some((peer, at)) = leaving.asked {
            if now < at + HEIR_TIMEOUT && self.contacts.contains_key(&peer) {
                return;
            }
            leaving.asked = None;
            leaving.declined.insert(peer);
        }
        // One that is out of reach has perhaps not heard of it, and somebody else must.
        leaving.heir = leaving.heir.filter(|heir| self.contacts.contains_key(heir));
        if self.owned.is_empty() {
            self.seek_agreement(now);
            return;
        }
        (leaving.empty_since, leaving.is_known) = (None, false);
        match leaving.heir {
            Some(heir) => self.hand_over(heir, now),
            None => self.ask_an_heir(now),
        }
    }

    /// Asks all peers within reach until they know what we know.
    fn seek_agreement(&mut self, now: Instant) {
        let has_ring = self.ring.is_some();
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        if leaving.empty_since.is_none() {
            leaving.empty_since = Some(now);
            leaving.agreed.clear();
        }
        let owns = |peer: &PeerId| {
            let ring = self.ring.as_ref();
            ring.is_some_and(|ring| !ring.owned_by(*peer).is_empty())
        };
        let heir_knows = match leaving.heir {
            Some(heir) => leaving.agreed.contains(&heir),
            None => leaving.agreed.iter().any(owns),
        };
        let waited = leaving
            .empty_since
            .is_some_and(|since| now >= since + AGREE_TIMEOUT);
        let compares = has_ring && is_due(leaving.compared_at, COMPARE_AGAIN, now);
        if compares {
            leaving.compared_at = Some(now);
        }
        let agreed = std::mem::take(&mut leaving.agreed);
        let missing = self.others_than(&agreed);
        let heard = heir_knows && self.givers_unheard().is_empty();
        if let Some(leaving) = &mut self.leaving {
            leaving.agreed = agreed;
            leaving.is_known = !has_ring || (heard && (missing.is_empty() || waited));
        }
        for peer in missing.into_iter().filter(|_| compares) {
            self.compare(peer, true, now);
        }
    }

    fn ask_an_heir(&mut self, now: Instant) {
        if self.lacks_votes() {
            return;
        }
        let ring = self.ring.as_ref();
        let voters = ring.map(|ring| self.other_voters(&ring.council));
        let voters = voters.unwrap_or_default();
        let Some(leaving) = &mut self.leaving else {
            return;
        };
        let mut candidates: Vec<PeerId> = self
            .contacts
            .keys()
            .filter(|peer| !leaving.declined.contains(peer) && !self.strangers.contains(peer))
            .copied()
            .collect();
        candidates.sort_by_key(|peer| !voters.contains(peer));
        let Some(candidate) = candidates.first().copied() else {
            // Whoever declined may have changed its mind, or its store works again.
            leaving.declined.clear();
            return;
        };
        leaving.asked = Some((candidate, now));
        let number = leaving.number;
        self.send(candidate, &IpamMessage::Inherit { number });
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "`Ipam::message` hands over only the kinds that are read here"
    )]
    pub(crate) fn leave_message(&mut self, from: PeerId, message: &IpamMessage, now: Instant) {
        match *message {
            IpamMessage::Inherit { number } => {
                let willing = self.leaving.is_none()
                    && !self.cloned
                    && !self.is_relearning()
                    && self.ring.is_some();
                if willing {
                    self.inheriting.insert(from, now);
                }
                self.send(from, &IpamMessage::Inherits { number, willing });
            }
            IpamMessage::Inherits { number, willing } => {
                let Some(leaving) = &mut self.leaving else {
                    return;
                };
                let is_it = leaving.asked.is_some_and(|(peer, _)| peer == from);
                if leaving.number != number || !is_it {
                    return;
                }
                leaving.asked = None;
                if willing {
                    leaving.heir = Some(from);
                    self.hand_over(from, now);
                } else {
                    leaving.declined.insert(from);
                }
            }
            _ => {}
        }
    }

    fn hand_over(&mut self, heir: PeerId, now: Instant) {
        let own: Vec<Span> = self.owned.clone();
        let count: u64 = own.iter().map(|span| span.count()).sum();
        if let Some(leaving) = &mut self.leaving {
            leaving.count += count;
        }
        if let (Some(first), Some(last)) = (own.first(), own.last())
            && let Some(all) = Span::new(first.first(), last.last())
        {
            self.give(heir, 0, &[all], now);
        }
        self.compare(heir, true, now);
    }

    /// Ranges came from a peer that leaves.
    pub(crate) fn inherited(&mut self, from: PeerId, _now: Instant) {
        if self.inheriting.remove(&from).is_some() {
            self.election.left.insert(self.vote_of(from));
        }
    }

    /// Ranges have changed: nobody is known to know of it.
    pub(crate) fn leaving_knows_more(&mut self) {
        if let Some(leaving) = &mut self.leaving {
            leaving.agreed.clear();
            leaving.is_known = false;
        }
    }

    /// A peer knows what we know.
    pub(crate) fn knows_what_we_know(&mut self, peer: PeerId) {
        let none_left = self.owned.is_empty();
        if let Some(leaving) = &mut self.leaving
            && leaving.empty_since.is_some()
            && none_left
        {
            leaving.agreed.insert(peer);
        }
    }
}
