//! Who votes as whom: a seed votes for whoever bears its name, until that peer takes the seat as itself.
//!
//! ```text
//!  ring of names ─► members are seeds ─► most are within reach ─► a decree for each: the seed goes, its peer is a member
//! ```
//!
//! A ring of names is begun without a word, when nobody knows which peers will bear the names. From then on it would
//! be hard to tell whose vote is missed, and the vote of one that was removed would stay: hence the seats.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use blake2::digest::consts::U16;
use blake2::{Blake2s, Digest as _};

use crate::ipam::claim::{Claim, Version};
use crate::ipam::council::Council;
use crate::ipam::paxos::Decree;
use crate::ipam::request::Missing;
use crate::ipam::ring::{GenesisId, Ring, Run};
use crate::ipam::{Contact, Ipam};
use crate::peer::{PeerId, PeerName};

/// Which peer bears the name that a seed stands for.
#[derive(Debug, Default)]
pub(crate) struct Bearers(BTreeMap<PeerId, PeerId>);

impl Bearers {
    pub(crate) fn of(contacts: &BTreeMap<PeerId, Contact>) -> Self {
        let seeds = contacts
            .iter()
            .map(|(peer, contact)| (Ipam::seeded_owner(contact.name), *peer));
        Self(seeds.collect())
    }
}

impl Ipam {
    /// The stand-in for a name that no peer has claimed yet.
    pub(crate) fn seeded_owner(name: PeerName) -> PeerId {
        let mut hash = Blake2s::<U16>::new();
        hash.update(b"weft ring seed 1");
        hash.update(name.0);
        PeerId(hash.finalize().into())
    }

    /// The ring that is made of names, everywhere the same.
    pub(crate) fn seeded_ring(&self, names: &[PeerName]) -> Ring {
        let sorted: BTreeSet<PeerName> = names.iter().copied().collect();
        let owners: Vec<PeerId> = sorted
            .iter()
            .map(|name| Self::seeded_owner(*name))
            .collect();
        let mut hash = Blake2s::<U16>::new();
        hash.update(b"weft ring of names 1");
        hash.update(self.range().first().to_be_bytes());
        hash.update(self.range().last().to_be_bytes());
        owners.iter().for_each(|owner| hash.update(owner.0));
        let genesis = GenesisId(hash.finalize().into());
        Ring::divided(genesis, self.range(), &owners, Council::first(&owners))
    }

    /// The identity that votes: a seeded name that is ours, or our own.
    pub(crate) fn voter(&self) -> PeerId {
        let seeded = Self::seeded_owner(self.config.name);
        match &self.ring {
            Some(ring) if ring.council.members.contains(&seeded) => seeded,
            Some(_) | None => self.config.me,
        }
    }

    /// What makes us a voter under our own identity.
    pub(crate) fn admission(&self) -> Decree {
        let (seed, peer) = (self.voter(), self.config.me);
        if seed == peer {
            Decree::Admit(peer)
        } else {
            Decree::Seat { seed, peer }
        }
    }

    /// The peer within reach that votes as this member.
    pub(crate) fn bearer_of(&self, member: PeerId) -> Option<PeerId> {
        if self.contacts.contains_key(&member) {
            return Some(member);
        }
        self.bearers.0.get(&member).copied()
    }

    /// The member that a peer votes as, or would.
    pub(crate) fn vote_of(&self, peer: PeerId) -> PeerId {
        let contact = self.contacts.get(&peer);
        let seed = contact.map(|contact| Self::seeded_owner(contact.name));
        let is_member = |member: &PeerId| {
            let ring = self.ring.as_ref();
            ring.is_some_and(|ring| ring.council.members.contains(member))
        };
        seed.filter(is_member).unwrap_or(peer)
    }

    /// The other voters within reach.
    pub(crate) fn other_voters(&self, council: &Council) -> BTreeSet<PeerId> {
        let ours = self.voter();
        let others = council.members.iter().filter(|member| **member != ours);
        others
            .filter_map(|member| self.bearer_of(*member))
            .collect()
    }

    pub(crate) fn voters_in_reach(&self, council: &Council) -> usize {
        let votes = council.members.contains(&self.voter()) && !self.lacks_promises();
        usize::from(votes) + self.other_voters(council).len()
    }

    /// The voters that are out of reach; whoever is to be removed is not waited for.
    pub(crate) fn missing_voters(&self, council: &Council, victim: Option<PeerId>) -> Missing {
        let is_missed =
            |member: &&PeerId| **member != self.voter() && self.bearer_of(**member).is_none();
        let members = council.members.iter();
        let missing = members
            .filter(is_missed)
            .filter(|member| Some(**member) != victim);
        Missing(missing.map(|member| self.label(*member)).collect())
    }

    /// A share that was seeded to our name is ours.
    pub(crate) fn take_seeded_share(&mut self, now: Instant) {
        let Some(ring) = &self.ring else {
            return;
        };
        let seeded = Self::seeded_owner(self.config.name);
        let runs: Vec<Run> = ring
            .runs()
            .filter(|run| run.claim.owner() == seeded)
            .map(|run| Run {
                claim: Claim::new(Version::default().next_step(), self.config.me),
                ..run
            })
            .collect();
        if !runs.is_empty() {
            self.merge_runs(&runs, None, now);
        }
    }
}
