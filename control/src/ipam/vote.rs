//! Voting on decrees: what a voter answers, and how a proposal of ours collects promises and votes.

use std::time::Instant;

use crate::ipam::Ipam;
use crate::ipam::message::IpamMessage;
use crate::ipam::paxos::{Ballot, Decree, Phase};
use crate::peer::PeerId;

impl Ipam {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "`Ipam::message` hands over only the kinds that are read here"
    )]
    pub(crate) fn election_message(&mut self, from: PeerId, message: IpamMessage, now: Instant) {
        match message {
            IpamMessage::Prepare {
                slot,
                ballot,
                electors,
                about,
            } => {
                let ours = self.electors_told();
                if self.ring.is_none() && electors != 0 && ours != 0 && electors != ours {
                    if self.contacts.contains_key(&from) {
                        self.election.other_counts.insert(from, electors);
                        // So that it hears of our number, too.
                        self.election.wanted_by_other();
                    }
                    return;
                }
                self.election.other_counts.remove(&from);
                if self.is_current(from, slot, now) && self.knows_about(from, about, now) {
                    self.asked_for_promise(from, slot, ballot, now);
                }
            }
            IpamMessage::Accept {
                slot,
                ballot,
                decree,
            } if self.is_current(from, slot, now) => {
                self.asked_for_vote(from, slot, ballot, decree);
            }
            IpamMessage::Promise {
                slot,
                ballot,
                voter,
                accepted,
            } if self.is_ours(slot, ballot) && self.is_voter(voter) => {
                self.promise(voter, accepted, now);
            }
            IpamMessage::Voted {
                slot,
                ballot,
                voter,
            } if self.is_ours(slot, ballot) && self.is_voter(voter) => self.vote(voter, now),
            IpamMessage::Refused {
                slot,
                ballot,
                promised,
            } => {
                self.election.saw(promised);
                if self.is_ours(slot, ballot) {
                    self.pause_proposals(now);
                }
            }
            _ => {}
        }
    }

    fn asked_for_promise(&mut self, from: PeerId, slot: u64, ballot: Ballot, now: Instant) {
        self.election.saw(ballot);
        self.acceptor.advance(slot);
        let result = self.acceptor.prepare(ballot, self.config.faults);
        self.gate.acceptor_changed();
        if result.is_ok() && ballot.proposer != self.config.me {
            self.pause_proposals(now);
        }
        let voter = self.voter();
        let reply = match result {
            Ok(accepted) => IpamMessage::Promise {
                slot,
                ballot,
                voter,
                accepted,
            },
            Err(promised) => IpamMessage::Refused {
                slot,
                ballot,
                promised,
            },
        };
        self.send(from, &reply);
    }

    fn asked_for_vote(&mut self, from: PeerId, slot: u64, ballot: Ballot, decree: Decree) {
        self.election.saw(ballot);
        self.acceptor.advance(slot);
        let result = self.acceptor.accept(ballot, decree, self.config.faults);
        self.gate.acceptor_changed();
        let voter = self.voter();
        let reply = match result {
            Ok(()) => IpamMessage::Voted {
                slot,
                ballot,
                voter,
            },
            Err(promised) => IpamMessage::Refused {
                slot,
                ballot,
                promised,
            },
        };
        self.send(from, &reply);
    }

    /// Whether the decree of this number is the next one here, too; if not, the two compare.
    fn is_current(&mut self, from: PeerId, slot: u64, now: Instant) -> bool {
        if self.may_vote(slot) {
            return true;
        }
        match &self.ring {
            Some(ring) if slot <= ring.council.index => self.send_ring(from, now),
            Some(ring) if slot > ring.council.index + 1 => self.compare(from, true, now),
            None if slot > 1 => self.send(from, &IpamMessage::RingWanted),
            Some(_) | None => {}
        }
        false
    }

    fn knows_about(
        &mut self,
        from: PeerId,
        about: Option<(PeerId, [u8; 16])>,
        now: Instant,
    ) -> bool {
        let Some((victim, view)) = about else {
            return true;
        };
        let is_same = self
            .ring
            .as_ref()
            .is_some_and(|ring| ring.view_of(victim) == view);
        if !is_same {
            self.send_ring(from, now);
        }
        is_same
    }

    fn is_ours(&self, slot: u64, ballot: Ballot) -> bool {
        let proposal = self.election.proposal.as_ref();
        proposal.is_some_and(|proposal| proposal.is(slot, ballot))
    }

    fn is_voter(&self, voter: PeerId) -> bool {
        self.ring
            .as_ref()
            .is_none_or(|ring| ring.council.members.contains(&voter))
    }

    pub(crate) fn promise(
        &mut self,
        voter: PeerId,
        accepted: Option<(Ballot, Decree)>,
        now: Instant,
    ) {
        let Some(mut proposal) = self.election.proposal.take() else {
            return;
        };
        if proposal.promised(voter, accepted) {
            let bound_to = proposal.bound_to();
            proposal.is_own = bound_to.is_none();
            let Some(decree) = bound_to.or_else(|| self.own_decree()) else {
                return;
            };
            let ballot = proposal.ballot;
            proposal.phase = Phase::Voting(decree.clone());
            let slot = proposal.slot;
            self.election.proposal = Some(proposal);
            self.election.asked_at = None;
            if self.may_vote(slot)
                && self
                    .acceptor
                    .accept(ballot, decree, self.config.faults)
                    .is_ok()
            {
                self.gate.acceptor_changed();
                self.vote(self.voter(), now);
            }
            self.continue_proposal(now);
            return;
        }
        self.election.proposal = Some(proposal);
    }

    pub(crate) fn vote(&mut self, voter: PeerId, now: Instant) {
        let Some(proposal) = &mut self.election.proposal else {
            return;
        };
        let (slot, is_own) = (proposal.slot, proposal.is_own);
        if let Some(decree) = proposal.voted(voter) {
            self.election.forget_proposal();
            if is_own && decree == self.admission() {
                self.readmitted();
            }
            self.decided(slot, decree, now);
        }
    }
}
