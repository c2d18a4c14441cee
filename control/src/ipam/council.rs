//! Who votes on the ring, and who was removed from it; decided one decree after the other.
//!
//! The council of number n+1 is decided by a majority of the council of number n, so any two majorities that could
//! decide the same thing meet. Of two councils the higher number stays; equal numbers with different contents come
//! only from forced removals, and there the larger in bytes stays everywhere. Bounds: [`VOTERS_MAX`],
//! [`REMOVALS_MAX`].

use std::collections::{BTreeMap, BTreeSet};

use crate::peer::PeerId;

/// Voters: a removal needs most of them, and each adds messages to every decree.
pub(crate) const VOTERS_MAX: usize = 31;
/// Removed peers that are remembered; the one removed longest ago gives way.
pub(crate) const REMOVALS_MAX: usize = 256;

/// When a peer was removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Removal {
    /// The decree that did it.
    pub(crate) index: u64,
    /// The latest start of the peer that was known then.
    pub(crate) incarnation: u64,
}

/// The voters and the removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Council {
    /// The number of the decree that made it; 1 is the first ring.
    pub(crate) index: u64,
    /// The number of the latest removal: its takeovers must be known before this council is.
    pub(crate) last_removal: u64,
    pub(crate) members: BTreeSet<PeerId>,
    pub(crate) removed: BTreeMap<PeerId, Removal>,
}

impl Council {
    /// The council of the first ring.
    pub(crate) fn first(founders: &[PeerId]) -> Self {
        Self {
            index: 1,
            last_removal: 0,
            members: founders.iter().copied().take(VOTERS_MAX).collect(),
            removed: BTreeMap::new(),
        }
    }

    /// How many votes decide.
    pub(crate) fn majority(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The council after a newcomer was let in.
    pub(crate) fn admitting(&self, peer: PeerId, index: u64) -> Self {
        let mut next = self.clone();
        next.index = index;
        next.removed.remove(&peer);
        if next.members.len() < VOTERS_MAX {
            next.members.insert(peer);
        }
        next
    }

    /// The council after the peer that bears a seed's name has taken the seed's seat.
    pub(crate) fn seating(&self, seed: PeerId, peer: PeerId, index: u64) -> Self {
        let mut next = self.clone();
        next.members.remove(&seed);
        next.admitting(peer, index)
    }

    /// The council after a peer was removed.
    pub(crate) fn removing(&self, peer: PeerId, incarnation: u64, index: u64) -> Self {
        let mut next = self.clone();
        next.index = index;
        next.last_removal = index;
        next.members.remove(&peer);
        next.removed.insert(peer, Removal { index, incarnation });
        while next.removed.len() > REMOVALS_MAX {
            let oldest = next.removed.iter().min_by_key(|(_, removal)| removal.index);
            let Some(oldest) = oldest.map(|(peer, _)| *peer) else {
                break;
            };
            next.removed.remove(&oldest);
        }
        next
    }

    /// Whether the other says nothing that belongs together with ranges that we may not know.
    pub(crate) fn can_follow_alone(&self, other: &Self) -> bool {
        other.index > self.index && other.last_removal <= self.index
    }

    /// Takes the other if it is above; says whether it did.
    pub(crate) fn join(&mut self, other: &Self) -> bool {
        let above = *other > *self;
        if above {
            self.clone_from(other);
        }
        above
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId([n; 16])
    }

    #[test]
    fn a_removed_peer_is_remembered_until_it_is_let_in_again() {
        let first = Council::first(&[peer(1), peer(2), peer(3)]);
        let without = first.removing(peer(2), 7, 2);
        let again = without.admitting(peer(2), 3);

        assert_eq!(first.majority(), 2);
        assert_eq!(
            without
                .removed
                .get(&peer(2))
                .map(|removal| removal.incarnation),
            Some(7)
        );
        assert!(!without.members.contains(&peer(2)));
        assert!(again.removed.is_empty() && again.members.contains(&peer(2)));
    }

    #[test]
    fn the_higher_number_wins_in_any_order_and_equal_numbers_are_decided_by_content() {
        let first = Council::first(&[peer(1), peer(2)]);
        let (a, b) = (first.removing(peer(1), 0, 2), first.removing(peer(2), 0, 2));
        let merged = |councils: &[&Council]| {
            let mut sum = first.clone();
            councils.iter().for_each(|council| {
                sum.join(council);
            });
            sum
        };

        assert_eq!(merged(&[&a, &b]), merged(&[&b, &a, &a, &first]));
        assert_eq!(merged(&[&b.admitting(peer(9), 3), &a]).index, 3);
    }
}
