//! Agreeing once on one decree: Paxos of a single decree, for each number of the council anew.
//!
//! ```text
//!  proposer   PREPARE ballot ─► promised by most? ─► ACCEPT ballot, decree ─► accepted by most? ─► decided
//!  acceptor   promises the highest ballot it was shown; accepts a decree unless it promised a higher one
//! ```
//!
//! A proposer takes the accepted decree of the highest ballot it is told, if there is one, instead of its own. What
//! an acceptor says is on disk before it is sent. Lamport, "Paxos Made Simple", section 2.2.

use std::collections::{BTreeMap, BTreeSet};

use crate::ipam::faults::Faults;
use crate::ipam::ring::GenesisId;
use crate::ipam::span::Span;
use crate::peer::PeerId;

/// The order of proposals; no two proposers have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Ballot {
    pub(crate) round: u64,
    pub(crate) proposer: PeerId,
}

/// What can be agreed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Decree {
    /// The first ring, over these peers.
    Found {
        genesis: GenesisId,
        founders: Vec<PeerId>,
    },
    /// One more voter.
    Admit(PeerId),
    /// A voter under its own identity instead of the seed that stood for its name.
    Seat { seed: PeerId, peer: PeerId },
    /// A peer is removed, and what it owned goes to others.
    Remove {
        victim: PeerId,
        incarnation: u64,
        takeovers: Vec<(Span, PeerId)>,
    },
}

/// A decree that an acceptor has accepted.
pub(crate) type Accepted = Option<(Ballot, Decree)>;

/// One voter's memory; a new number of the council begins it anew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Acceptor {
    pub(crate) slot: u64,
    pub(crate) promised: Option<Ballot>,
    pub(crate) accepted: Accepted,
}

impl Acceptor {
    /// Forgets what is decided.
    pub(crate) fn advance(&mut self, slot: u64) {
        if slot > self.slot {
            *self = Self {
                slot,
                ..Self::default()
            };
        }
    }

    /// Promises to accept nothing below the ballot; or tells the higher one that was promised.
    pub(crate) fn prepare(&mut self, ballot: Ballot, faults: Faults) -> Result<Accepted, Ballot> {
        if let Some(promised) = self.promised
            && promised > ballot
            && !faults.double_vote
        {
            return Err(promised);
        }
        self.promised = Some(ballot);
        Ok(self.accepted.clone())
    }

    /// Accepts a decree; or tells the higher ballot that was promised.
    pub(crate) fn accept(
        &mut self,
        ballot: Ballot,
        decree: Decree,
        faults: Faults,
    ) -> Result<(), Ballot> {
        if let Some(promised) = self.promised
            && promised > ballot
            && !faults.double_vote
        {
            return Err(promised);
        }
        self.promised = Some(ballot);
        self.accepted = Some((ballot, decree));
        Ok(())
    }
}

/// How far a proposal has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Promises are being collected.
    Preparing,
    /// Most have promised; this decree is being voted on.
    Voting(Decree),
}

/// One attempt of ours to have a decree decided.
#[derive(Debug, Clone)]
pub(crate) struct Proposal {
    pub(crate) slot: u64,
    pub(crate) ballot: Ballot,
    /// Votes that decide.
    pub(crate) majority: usize,
    pub(crate) phase: Phase,
    /// The decree that is voted on is of our own making.
    pub(crate) is_own: bool,
    pub(crate) promises: BTreeMap<PeerId, Accepted>,
    pub(crate) votes: BTreeSet<PeerId>,
}

impl Proposal {
    pub(crate) fn new(slot: u64, ballot: Ballot, majority: usize) -> Self {
        Self {
            slot,
            ballot,
            majority,
            phase: Phase::Preparing,
            is_own: false,
            promises: BTreeMap::new(),
            votes: BTreeSet::new(),
        }
    }

    /// Whether a message belongs to this attempt.
    pub(crate) fn is(&self, slot: u64, ballot: Ballot) -> bool {
        (self.slot, self.ballot) == (slot, ballot)
    }

    /// Notes a promise; true if it was the one that makes a majority.
    pub(crate) fn promised(&mut self, voter: PeerId, accepted: Accepted) -> bool {
        self.promises.insert(voter, accepted);
        self.phase == Phase::Preparing && self.promises.len() >= self.majority
    }

    /// The decree that must be proposed because it may be decided already.
    pub(crate) fn bound_to(&self) -> Option<Decree> {
        self.promises
            .values()
            .flatten()
            .max_by_key(|(ballot, _)| *ballot)
            .map(|(_, decree)| decree.clone())
    }

    /// Notes a vote; the decree if it is decided now.
    pub(crate) fn voted(&mut self, voter: PeerId) -> Option<Decree> {
        self.votes.insert(voter);
        match &self.phase {
            Phase::Voting(decree) if self.votes.len() >= self.majority => Some(decree.clone()),
            Phase::Voting(_) | Phase::Preparing => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ballot(round: u64, proposer: u8) -> Ballot {
        Ballot {
            round,
            proposer: PeerId([proposer; 16]),
        }
    }

    fn admit(n: u8) -> Decree {
        Decree::Admit(PeerId([n; 16]))
    }

    #[test]
    fn an_acceptor_keeps_its_promise_until_the_next_number() {
        let faults = Faults::default();
        let mut acceptor = Acceptor::default();
        acceptor.advance(2);

        assert_eq!(acceptor.prepare(ballot(2, 1), faults), Ok(None));
        assert_eq!(acceptor.prepare(ballot(1, 9), faults), Err(ballot(2, 1)));
        assert_eq!(
            acceptor.accept(ballot(1, 9), admit(9), faults),
            Err(ballot(2, 1))
        );
        assert_eq!(acceptor.accept(ballot(2, 1), admit(1), faults), Ok(()));
        assert_eq!(
            acceptor.prepare(ballot(3, 2), faults),
            Ok(Some((ballot(2, 1), admit(1))))
        );

        acceptor.advance(1);
        assert_eq!(
            acceptor.promised,
            Some(ballot(3, 2)),
            "an old number changes nothing"
        );
        acceptor.advance(3);
        assert_eq!((acceptor.promised, acceptor.accepted), (None, None));
    }

    #[test]
    fn a_proposer_is_bound_to_what_may_be_decided_already() {
        let mut proposal = Proposal::new(2, ballot(5, 1), 2);
        let peers = [PeerId([1; 16]), PeerId([2; 16])];

        assert!(!proposal.promised(peers[0], Some((ballot(1, 1), admit(1)))));
        assert!(proposal.promised(peers[1], Some((ballot(3, 2), admit(2)))));
        assert_eq!(proposal.bound_to(), Some(admit(2)));

        proposal.phase = Phase::Voting(admit(2));
        assert_eq!(proposal.voted(peers[0]), None);
        assert_eq!(proposal.voted(peers[0]), None, "a vote counts once");
        assert_eq!(proposal.voted(peers[1]), Some(admit(2)));
    }

    /// Three acceptors and two proposers in every order of eight steps: no two decisions differ.
    #[test]
    fn whatever_the_order_nothing_else_is_decided_afterwards() {
        for order in 0_u32..1 << 12 {
            let mut acceptors = vec![Acceptor::default(); 3];
            let mut decided = Vec::new();
            let mut proposals: Vec<Proposal> = (0..2_u8)
                .map(|n| Proposal::new(0, ballot(1 + u64::from(n), n), 2))
                .collect();
            for step in 0..12 {
                let who = usize::from(order >> step & 1 == 1);
                let proposal = &mut proposals[who];
                let (voter, ballot) = (step as usize / 2 % 3, proposal.ballot);
                let id = PeerId([u8::try_from(voter).unwrap(); 16]);
                if let Phase::Voting(decree) = proposal.phase.clone() {
                    if acceptors[voter]
                        .accept(ballot, decree, Faults::default())
                        .is_ok()
                    {
                        decided.extend(proposal.voted(id));
                    }
                } else if let Ok(accepted) = acceptors[voter].prepare(ballot, Faults::default())
                    && proposal.promised(id, accepted)
                {
                    let own = admit(u8::try_from(who).unwrap());
                    proposal.phase = Phase::Voting(proposal.bound_to().unwrap_or(own));
                }
            }
            decided.dedup();
            assert!(decided.len() <= 1, "order {order:b}: {decided:?}");
        }
    }
}
