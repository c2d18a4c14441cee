//! After the store was lost: what we owned and promised is learned before anything is given or voted on.
//!
//! ```text
//!  Everything ─► ring known, in-use seen, peers agree ─► Promises ─► admitted as a voter anew ─► Nothing
//! ```
//!
//! While everything is lost no address and no range is given. A gift of ours that only its taker knows would be given
//! twice else, so all owners and voters are waited for, and after [`PATIENCE`] those within reach. What is in use here
//! stays on the wire: it was ours when it was given. A promise cannot be learned: whoever has forgotten its own votes
//! on no decree until one about itself, begun after the loss, is decided without its vote. That decree comes after
//! all on which it can have promised.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::ipam::agreement::{COMPARE_AGAIN, is_due};
use crate::ipam::council::Council;
use crate::ipam::request::{Failure, Missing};
use crate::ipam::ring::Ring;
use crate::ipam::{Ipam, IpamNotice, StoreContent};
use crate::peer::PeerId;

/// How long peers out of reach are waited for once a ring is known. One that is up is found again well within it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Where the store notes it.
const KEY: &[u8] = b"l";

/// What is not known any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Lost {
    #[default]
    Nothing,
    Everything,
    Promises,
}

/// What a new store holds that takes the place of a lost one.
#[must_use]
pub fn lost_store() -> StoreContent {
    let (key, value) = Lost::Everything.entry();
    value.map(|value| (key, value)).into_iter().collect()
}

/// Whether the store took the place of a lost one and nothing was learned since.
pub(crate) fn is_lost(content: &StoreContent) -> bool {
    Lost::read(content) == Some(Lost::Everything)
}

impl Lost {
    /// Its key and value in the store.
    pub(crate) fn entry(self) -> (Vec<u8>, Option<Vec<u8>>) {
        let value = match self {
            Self::Nothing => None,
            Self::Everything => Some(vec![1]),
            Self::Promises => Some(vec![2]),
        };
        (KEY.to_vec(), value)
    }

    /// `None` if the store says something else.
    pub(crate) fn read(content: &StoreContent) -> Option<Self> {
        match content.get(KEY).map(Vec::as_slice) {
            None => Some(Self::Nothing),
            Some([1]) => Some(Self::Everything),
            Some([2]) => Some(Self::Promises),
            Some(_) => None,
        }
    }
}

/// How far we have come.
#[derive(Debug, Default)]
pub(crate) struct Relearning {
    pub(crate) lost: Lost,
    /// Peers that have said the same of the ring as we since the loss.
    agreed: BTreeSet<PeerId>,
    /// Peers that give no addresses: they know of no ring, and answer with nothing.
    mute: BTreeSet<PeerId>,
    /// What is in use here was seen since the loss.
    seen: bool,
    ring_known_at: Option<Instant>,
    asked_at: Option<Instant>,
}

impl Relearning {
    pub(crate) fn new(lost: Lost) -> Self {
        Self {
            lost,
            ..Self::default()
        }
    }

    /// The store has been read again. What was seen stays so: it is written there, or about to be.
    pub(crate) fn read_again(&mut self, lost: Lost) {
        let seen = self.seen;
        *self = Self {
            seen,
            ..Self::new(lost)
        };
    }

    pub(crate) fn seen(&mut self) {
        self.seen = true;
    }

    pub(crate) fn has_no_say(&mut self, peer: PeerId) {
        if self.lost == Lost::Everything {
            self.mute.insert(peer);
        }
    }
}

impl Ipam {
    /// Nothing may be given yet.
    pub(crate) fn is_relearning(&self) -> bool {
        self.relearning.lost == Lost::Everything
    }

    /// We may have promised what we do not know any more.
    pub(crate) fn lacks_promises(&self) -> bool {
        self.relearning.lost != Lost::Nothing
    }

    pub(crate) fn has_unfinished_relearning(&self) -> bool {
        self.is_relearning() && self.ring.is_some() && !self.contacts.is_empty()
    }

    /// A peer knows of the ring what we know.
    pub(crate) fn says_the_same(&mut self, peer: PeerId, now: Instant) {
        if self.is_relearning() && self.ring.is_some() {
            self.relearning.agreed.insert(peer);
            self.relearning.mute.remove(&peer);
        }
        self.exchange.is_heard_of(peer);
        self.agreed(peer, now);
    }

    pub(crate) fn step_relearning(&mut self, now: Instant) {
        if !self.is_relearning() {
            return;
        }
        let Some(ring) = &self.ring else {
            return;
        };
        let known_at = *self.relearning.ring_known_at.get_or_insert(now);
        let said = &self.relearning.agreed;
        let mut silent = self.others_than(said);
        silent.retain(|peer| !self.relearning.mute.contains(peer));
        let none_missing = silent.is_empty() && self.missing_witnesses(ring).is_empty();
        let has_waited = silent.is_empty() && now >= known_at + PATIENCE;
        if self.relearning.seen && !said.is_empty() && (none_missing || has_waited) {
            self.relearned();
            return;
        }
        if is_due(self.relearning.asked_at, COMPARE_AGAIN, now) {
            self.relearning.asked_at = Some(now);
            for peer in silent {
                self.compare(peer, true, now);
            }
        }
    }

    /// Owners and voters that have not agreed yet.
    fn missing_witnesses(&self, ring: &Ring) -> Vec<PeerId> {
        let (me, voter) = (self.config.me, self.voter());
        let owners = ring.runs().flat_map(|run| run.claim.owners().to_vec());
        let all: BTreeSet<PeerId> = owners.chain(ring.council.members.iter().copied()).collect();
        let has_agreed = |peer: &PeerId| {
            let bearer = self.bearer_of(*peer).unwrap_or(*peer);
            self.relearning.agreed.contains(&bearer)
        };
        let missing = |peer: &PeerId| *peer != me && *peer != voter && !has_agreed(peer);
        all.into_iter().filter(missing).collect()
    }

    fn relearned(&mut self) {
        let voter = self.voter();
        // Without another voter nobody can have been told of a decree that we do not know.
        let votes_alone = self
            .ring
            .as_ref()
            .is_some_and(|ring| ring.council.members.iter().all(|member| *member == voter));
        let lost = if votes_alone {
            Lost::Nothing
        } else {
            Lost::Promises
        };
        self.relearning = Relearning::new(lost);
        let count = self.owned.iter().map(|span| span.count()).sum();
        self.notice(IpamNotice::Relearned { count });
    }

    /// A decree about us that was begun after the loss is decided.
    pub(crate) fn readmitted(&mut self) {
        if self.relearning.lost == Lost::Promises {
            self.relearning.lost = Lost::Nothing;
        }
    }

    /// Votes that decide on a decree of ours. Those of all others do for one that has forgotten its promises: whatever
    /// it promised, one of them has accepted, too.
    pub(crate) fn votes_needed(&self, council: &Council) -> usize {
        let others = council.members.len().saturating_sub(1);
        if self.lacks_promises() && council.members.contains(&self.voter()) {
            council.majority().min(others).max(1)
        } else {
            council.majority()
        }
    }

    /// Why nothing is given yet.
    pub(crate) fn still_relearning(&self) -> Failure {
        let missing = self.ring.as_ref().map(|ring| self.missing_witnesses(ring));
        let missing = missing.unwrap_or_default();
        Failure::Relearning {
            missing: Missing(missing.into_iter().map(|peer| self.label(peer)).collect()),
        }
    }
}
