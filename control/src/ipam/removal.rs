//! Removing a peer: what goes to whom, by a decree or by force.
//!
//! A removal begins an era in every range that it takes, above all that the removed peer could have written. The
//! heir lets what it took over rest until every peer within reach knows (`compare`); the removed one says so when it has
//! back what it uses (`fetch`).

use std::collections::BTreeMap;
use std::time::Instant;

use crate::ipam::Ipam;
use crate::ipam::claim::{Claim, Version};
use crate::ipam::codec::TAKEOVERS_MAX;
use crate::ipam::council::Council;
use crate::ipam::request::{Failure, Reply};
use crate::ipam::span::Span;
use crate::peer::PeerId;

/// What a removal was asked to do.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RemovalOrder {
    pub(crate) victim: PeerId,
    pub(crate) force: bool,
    pub(crate) dry_run: bool,
    /// It has been waiting for votes.
    pub(crate) waited: bool,
}

/// Addresses by whom a removal brought them to.
type Shares = BTreeMap<PeerId, u64>;

fn shares(taken: impl Iterator<Item = (Span, PeerId)>) -> Shares {
    let mut shares = Shares::new();
    for (span, owner) in taken {
        *shares.entry(owner).or_default() += span.count();
    }
    shares
}

impl Ipam {
    /// What a peer owns or disputes, and who gets it: whoever disputes it, or the heir.
    pub(crate) fn takeovers(&self, victim: PeerId) -> Vec<(Span, PeerId)> {
        let Some(ring) = &self.ring else {
            return Vec::new();
        };
        let chosen = self.heir_of(victim, &ring.council);
        let heir = |owners: &[PeerId]| {
            owners
                .iter()
                .copied()
                .find(|owner| *owner != victim)
                .unwrap_or(chosen)
        };
        ring.claimed_by(victim)
            .into_iter()
            .take(TAKEOVERS_MAX)
            .map(|run| (run.span, heir(run.claim.owners())))
            .collect()
    }

    /// We, if we vote. A decree may be carried out long after it was proposed; a voter is there then, or was removed
    /// by a decree of its own first, while others may have left without a word.
    fn heir_of(&self, victim: PeerId, council: &Council) -> PeerId {
        let ours = self.config.me;
        if council.members.contains(&self.voter()) && self.leaving.is_none() {
            return ours;
        }
        let mut heirs = self.other_voters(council).into_iter();
        heirs
            .find(|peer| *peer != victim && self.vote_of(*peer) != victim)
            .unwrap_or(ours)
    }

    pub(crate) fn carry_out_removal(
        &mut self,
        slot: u64,
        victim: PeerId,
        incarnation: u64,
        takeovers: &[(Span, PeerId)],
        now: Instant,
    ) {
        let Some(ring) = &mut self.ring else {
            return;
        };
        let mut changes = Vec::new();
        for (span, owner) in takeovers {
            changes.extend(ring.join(*span, &Claim::new(Version::of_era(slot), *owner), None));
        }
        let council = ring.council.removing(victim, incarnation, slot);
        self.merge_council(&council);
        self.ring_changes(&changes, None, now);
    }

    /// Carries out or answers a request for a removal; `None` while votes are awaited.
    pub(crate) fn try_removal(
        &mut self,
        order: RemovalOrder,
        now: Instant,
    ) -> Option<Result<Reply, Failure>> {
        let RemovalOrder {
            victim,
            force,
            dry_run,
            waited,
        } = order;
        let Some(ring) = &self.ring else {
            return Some(Ok(Reply::Removed {
                count: 0,
                others: Vec::new(),
                votes: 0,
                majority: 0,
            }));
        };
        let (votes, majority) = (self.voters_in_reach(&ring.council), ring.council.majority());
        let me = self.config.me;
        let removed = |mut shares: Shares| {
            Some(Ok(Reply::Removed {
                count: shares.remove(&me).unwrap_or_default(),
                others: shares.into_iter().collect(),
                votes,
                majority,
            }))
        };
        let is_there =
            !ring.claimed_by(victim).is_empty() || ring.council.members.contains(&victim);
        if victim == me || !is_there {
            let mut shares = self.taken_from(victim);
            if !waited {
                // Another request's.
                shares.remove(&me);
            }
            return removed(shares);
        }
        let takeovers = self.takeovers(victim);
        let shares = shares(takeovers.iter().copied());
        if let Some(peer) = self.bearer_of(victim)
            && !force
        {
            let victim = self.label(peer);
            return Some(Err(Failure::Alive { peer, victim }));
        }
        if dry_run {
            return removed(shares);
        }
        if self.config.faults.remove_without_fence {
            self.remove_like_weave(victim, now);
        } else if force {
            let slot = ring.council.index + 1;
            let incarnation = self
                .contacts
                .get(&victim)
                .map_or(0, |contact| contact.incarnation);
            self.carry_out_removal(slot, victim, incarnation, &takeovers, now);
        } else {
            return None;
        }
        removed(shares)
    }

    /// What the removal of a peer has brought, us and others.
    fn taken_from(&self, victim: PeerId) -> Shares {
        let Some(ring) = &self.ring else {
            return Shares::new();
        };
        let Some(removal) = ring.council.removed.get(&victim) else {
            return Shares::new();
        };
        let taken = Version::of_era(removal.index);
        let runs = ring.runs().filter(|run| run.claim.version == taken);
        shares(runs.map(|run| (run.span, run.claim.owner())))
    }

    /// The planted fault: the next version is written in the owner's place, and nobody votes.
    fn remove_like_weave(&mut self, victim: PeerId, now: Instant) {
        let Some(ring) = &mut self.ring else {
            return;
        };
        let mut changes = Vec::new();
        for run in ring.claimed_by(victim) {
            let claim = Claim::new(run.claim.version.next_step(), self.config.me);
            changes.extend(ring.join(run.span, &claim, None));
        }
        let mut council = ring.council.clone();
        council.members.remove(&victim);
        council.index += 1;
        self.merge_council(&council);
        self.ring_changes(&changes, None, now);
    }

    /// Why a removal has not come about.
    pub(crate) fn no_majority(&self, victim: PeerId) -> Failure {
        let council = self
            .ring
            .as_ref()
            .map(|ring| ring.council.clone())
            .unwrap_or_default();
        Failure::NoMajority {
            victim: self.label(victim),
            majority: council.majority(),
            voters: council.members.len(),
            votes: self.voters_in_reach(&council),
            missing: self.missing_voters(&council, Some(victim)),
        }
    }
}
