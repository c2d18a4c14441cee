//! Decrees of the council: the first ring, new voters, removals.
//!
//! One proposal of ours at a time, in this order: a first ring if one is needed; the removal that was asked for;
//! peers that have left; ourselves as a voter. What is decided becomes ranges and a council, and travels as these.
//! A voter whose knowledge differs compares before it votes, so that a removal sees what most of them know.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::ipam::codec::FOUNDERS_MAX;
use crate::ipam::council::{Council, VOTERS_MAX};
use crate::ipam::message::IpamMessage;
use crate::ipam::paxos::{Ballot, Decree, Phase, Proposal};
use crate::ipam::ring::{GenesisId, Ring};
use crate::ipam::{Ipam, IpamInit, IpamNotice};
use crate::peer::PeerId;

/// An unanswered vote is asked for again after this time.
const ASK_AGAIN: Duration = Duration::from_millis(400);
/// Whoever sees a higher proposal than its own gives it about this long: two round trips of a slow network, and the
/// writes between them. Else many that begin at once refuse each other for ever.
const GIVE_WAY: Duration = Duration::from_millis(1500);
/// A proposal without a majority is given up after this time.
const PROPOSAL_LIFE: Duration = Duration::from_secs(5);
/// Between two attempts to become a voter.
const JOIN_PAUSE: Duration = Duration::from_secs(2);

/// What is being decided, and what is wanted.
#[derive(Debug, Default)]
pub(crate) struct Election {
    /// Targets that somebody named and that are other hosts.
    pub(crate) targets: usize,
    /// Somebody needs a ring.
    pub(crate) needed: bool,
    pub(crate) proposal: Option<Proposal>,
    intent: Option<Intent>,
    began_at: Option<Instant>,
    pub(crate) asked_at: Option<Instant>,
    not_before: Option<Instant>,
    join_not_before: Option<Instant>,
    round_seen: u64,
    /// Peers that were told another number of voters for the first ring than we, and which; at most as many as there
    /// are contacts.
    pub(crate) other_counts: BTreeMap<PeerId, u32>,
    /// Peers that gave us their ranges and left.
    pub(crate) left: BTreeSet<PeerId>,
}

/// What we want to be decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Intent {
    Found,
    Remove(PeerId),
    Join,
}

impl Election {
    pub(crate) fn wanted_by_other(&mut self) {
        self.needed = true;
    }

    /// A ballot of somebody: ours go above it.
    pub(crate) fn saw(&mut self, ballot: Ballot) {
        self.round_seen = self.round_seen.max(ballot.round);
    }

    pub(crate) fn forget_proposal(&mut self) {
        self.proposal = None;
        self.intent = None;
    }
}

impl Ipam {
    pub(crate) fn votes_on_first_ring(&self) -> bool {
        matches!(self.config.init, IpamInit::Consensus { .. }) && !self.is_relearning()
    }

    /// Votes that decide on the first ring.
    pub(crate) fn first_quorum(&self) -> usize {
        let electors = match self.config.init {
            IpamInit::Consensus {
                electors: Some(count),
            } => count,
            IpamInit::Consensus { electors: None } | IpamInit::Seed(_) | IpamInit::Observer => {
                self.election.targets + 1
            }
        };
        electors / 2 + 1
    }

    pub(crate) fn electors_told(&self) -> u32 {
        match self.config.init {
            IpamInit::Consensus {
                electors: Some(count),
            } => u32::try_from(count).unwrap_or(0),
            IpamInit::Consensus { electors: None } | IpamInit::Seed(_) | IpamInit::Observer => 0,
        }
    }

    /// The peers within reach that vote on a first ring, and we.
    pub(crate) fn known_electors(&self) -> BTreeSet<PeerId> {
        let mut known: BTreeSet<PeerId> = self
            .contacts
            .keys()
            .filter(|peer| self.voting.get(peer) == Some(&true) && !self.strangers.contains(peer))
            .copied()
            .collect();
        if self.votes_on_first_ring() {
            known.insert(self.config.me);
        }
        known
    }

    /// A ring is needed.
    pub(crate) fn want_ring(&mut self) {
        self.election.needed = true;
    }

    pub(crate) fn has_unfinished_decrees(&self) -> bool {
        self.election.proposal.is_some()
            || (self.election.needed && self.ring.is_none())
            || !self.election.left.is_empty()
            || self.should_join()
    }

    fn should_join(&self) -> bool {
        let Some(ring) = &self.ring else {
            return false;
        };
        let members = &ring.council.members;
        let voter = self.voter();
        let is_member = members.contains(&voter);
        let is_seated = is_member && voter == self.config.me;
        self.config.init != IpamInit::Observer
            && !self.is_relearning()
            && (!is_seated || self.lacks_promises())
            && (is_member || members.len() < VOTERS_MAX)
            // Whoever votes is needed for its own removal, also if it has just lost its store.
            && (self.leaving.is_none() || is_member && self.lacks_promises())
            && !self.cloned
            && self.voters_in_reach(&ring.council) >= self.votes_needed(&ring.council)
    }

    /// Whom to ask for votes.
    fn electorate(&self) -> Vec<PeerId> {
        if let Some(ring) = &self.ring {
            return self.other_voters(&ring.council).into_iter().collect();
        }
        let votes =
            |peer: &PeerId| self.voting.get(peer) == Some(&true) && !self.strangers.contains(peer);
        self.contacts.keys().copied().filter(votes).collect()
    }

    pub(crate) fn step_election(&mut self, now: Instant) {
        if self.election.proposal.is_some() {
            self.continue_proposal(now);
            return;
        }
        if self.election.not_before.is_some_and(|at| now < at) {
            return;
        }
        let Some(intent) = self.next_intent(now) else {
            return;
        };
        if intent == Intent::Found && !self.votes_on_first_ring() {
            self.election.not_before = Some(now + ASK_AGAIN);
            for peer in self.contacts.keys().copied().collect::<Vec<_>>() {
                self.send(peer, &IpamMessage::RingWanted);
            }
            return;
        }
        self.begin(intent, now);
    }

    fn next_intent(&mut self, now: Instant) -> Option<Intent> {
        let Some(ring) = &self.ring else {
            return self.election.needed.then_some(Intent::Found);
        };
        if self.cloned {
            return None;
        }
        if self.should_resign() {
            return Some(Intent::Remove(self.voter()));
        }
        let gone = |peer: &PeerId| {
            ring.council.removed.contains_key(peer) || !ring.council.members.contains(peer)
        };
        self.election.left.retain(|peer| !gone(peer));
        let left = self
            .election
            .left
            .iter()
            .find(|peer| self.bearer_of(**peer).is_none());
        if let Some(victim) = self.wanted_removal().or(left.copied()) {
            return Some(Intent::Remove(victim));
        }
        let may_join = self.election.join_not_before.is_none_or(|at| now >= at);
        if may_join && self.should_join() {
            let pause = self.random.around(JOIN_PAUSE, 50);
            self.election.join_not_before = Some(now + pause);
            return Some(Intent::Join);
        }
        None
    }

    fn begin(&mut self, intent: Intent, now: Instant) {
        let (slot, majority) = match &self.ring {
            None => (1, self.first_quorum()),
            Some(ring) => (ring.council.index + 1, self.votes_needed(&ring.council)),
        };
        let promised = self.acceptor.promised.map_or(0, |ballot| ballot.round);
        let seen = self.election.round_seen.max(promised);
        // The number of this start makes it differ from all ballots of earlier ones, whatever was forgotten.
        self.election.round_seen =
            ((seen >> 32) + 1) << 32 | (self.config.incarnation & 0xffff_ffff);
        let ballot = Ballot {
            round: self.election.round_seen,
            proposer: self.config.me,
        };
        self.election.proposal = Some(Proposal::new(slot, ballot, majority));
        self.election.intent = Some(intent);
        self.election.began_at = Some(now);
        self.election.asked_at = None;
        if self.may_vote(slot) {
            self.acceptor.advance(slot);
            if let Ok(accepted) = self.acceptor.prepare(ballot, self.config.faults) {
                self.gate.acceptor_changed();
                self.promise(self.voter(), accepted, now);
            }
        }
        self.continue_proposal(now);
    }

    pub(crate) fn may_vote(&self, slot: u64) -> bool {
        if self.cloned || self.lacks_promises() {
            return false;
        }
        match &self.ring {
            None => slot == 1 && self.votes_on_first_ring(),
            Some(ring) => {
                slot == ring.council.index + 1 && ring.council.members.contains(&self.voter())
            }
        }
    }

    /// Asks those that have not answered.
    pub(crate) fn continue_proposal(&mut self, now: Instant) {
        if self
            .election
            .began_at
            .is_some_and(|at| now >= at + PROPOSAL_LIFE)
        {
            self.election.forget_proposal();
            return;
        }
        if self
            .election
            .asked_at
            .is_some_and(|at| now < at + ASK_AGAIN)
        {
            return;
        }
        let Some(proposal) = self.election.proposal.clone() else {
            return;
        };
        self.election.asked_at = Some(now);
        let (slot, ballot) = (proposal.slot, proposal.ballot);
        let message = match proposal.phase {
            Phase::Preparing => IpamMessage::Prepare {
                slot,
                ballot,
                electors: self.electors_told(),
                about: self.about(),
            },
            Phase::Voting(decree) => IpamMessage::Accept {
                slot,
                ballot,
                decree,
            },
        };
        for peer in self.electorate() {
            self.send(peer, &message);
        }
    }

    fn about(&self) -> Option<(PeerId, [u8; 16])> {
        match (self.election.intent, &self.ring) {
            (Some(Intent::Remove(victim)), Some(ring)) => Some((victim, ring.view_of(victim))),
            _ => None,
        }
    }

    /// Somebody else is ahead: gives way for a while.
    pub(crate) fn pause_proposals(&mut self, now: Instant) {
        self.election.forget_proposal();
        let pause = self.random.around(GIVE_WAY, 50);
        self.election.not_before = Some(now + pause);
    }

    pub(crate) fn own_decree(&mut self) -> Option<Decree> {
        match self.election.intent? {
            Intent::Found => Some(Decree::Found {
                genesis: GenesisId(self.random.bytes()),
                founders: self
                    .known_electors()
                    .into_iter()
                    .take(FOUNDERS_MAX)
                    .collect(),
            }),
            Intent::Join => Some(self.admission()),
            Intent::Remove(victim) => Some(Decree::Remove {
                victim,
                incarnation: self
                    .contacts
                    .get(&victim)
                    .map_or(0, |contact| contact.incarnation),
                takeovers: self.takeovers(victim),
            }),
        }
    }

    /// A decree of ours is decided.
    pub(crate) fn decided(&mut self, slot: u64, decree: Decree, now: Instant) {
        match decree {
            Decree::Found { genesis, founders } => {
                let council = Council::first(&founders);
                self.adopt(Ring::divided(genesis, self.range(), &founders, council));
            }
            Decree::Admit(peer) => {
                let next = self
                    .ring
                    .as_ref()
                    .map(|ring| ring.council.admitting(peer, slot));
                if let Some(next) = next {
                    self.merge_council(&next);
                }
            }
            Decree::Seat { seed, peer } => {
                let next = self
                    .ring
                    .as_ref()
                    .map(|ring| ring.council.seating(seed, peer, slot));
                if let Some(next) = next {
                    self.merge_council(&next);
                }
            }
            Decree::Remove {
                victim,
                incarnation,
                takeovers,
            } => self.carry_out_removal(slot, victim, incarnation, &takeovers, now),
        }
        let told: Vec<PeerId> = match &self.ring {
            Some(ring) if slot > 1 => self.other_voters(&ring.council).into_iter().collect(),
            Some(_) | None => self.contacts.keys().copied().collect(),
        };
        for peer in told {
            self.send_ring(peer, now);
        }
    }

    /// The council is another one.
    pub(crate) fn council_changed(&mut self) {
        let Some(ring) = &self.ring else {
            return;
        };
        let index = ring.council.index;
        self.acceptor.advance(index + 1);
        self.gate.acceptor_changed();
        if self
            .election
            .proposal
            .as_ref()
            .is_some_and(|proposal| proposal.slot <= index)
        {
            self.election.forget_proposal();
        }
        let removal = ring
            .council
            .removed
            .get(&self.config.me)
            .map(|removal| removal.index);
        if let Some(index) = removal
            && index > self.removal_told
            && self.leaving.is_none()
        {
            self.removal_told = index;
            self.notice(IpamNotice::Removed { index });
        }
    }
}
