//! Who owns an address, and by which right: the value that is merged at every point of the ring.
//!
//! ```text
//!  version: era (number of the decree that took the address over, 0 at first) · step (gifts since then)
//!  owners:  one; more only if two histories met that cannot both be true: then the range is disputed
//! ```
//!
//! Only the owner writes the next step; a decree of the council begins an era and goes before every step of the
//! eras below. The larger version wins, equal versions unite their owners: the join of a lattice, so that merging
//! commutes, associates and may be repeated. Bound: [`OWNERS_MAX`], of which the largest stay, which keeps the laws.

use std::collections::BTreeMap;

use crate::peer::PeerId;

/// Owners of one disputed range that are kept; each needs a clone, a store put back or a forced removal of its own.
pub(crate) const OWNERS_MAX: usize = 4;

/// How recent a claim is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Version {
    pub(crate) era: u64,
    pub(crate) step: u64,
}

impl Version {
    /// What the owner writes next.
    pub(crate) fn next_step(self) -> Self {
        Self {
            step: self.step.saturating_add(1),
            ..self
        }
    }

    /// The beginning of an era.
    pub(crate) fn of_era(era: u64) -> Self {
        Self { era, step: 0 }
    }
}

/// One owner, or several that dispute it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Claim {
    pub(crate) version: Version,
    /// Falling, without repetition, never empty.
    owners: Vec<PeerId>,
}

/// Free addresses by owner: only the planted fault asks for them.
pub(crate) type FreeCounts = BTreeMap<PeerId, u64>;

impl Claim {
    pub(crate) fn new(version: Version, owner: PeerId) -> Self {
        Self {
            version,
            owners: vec![owner],
        }
    }

    /// Owners as read from outside; `None` if there are none.
    pub(crate) fn with_owners(version: Version, mut owners: Vec<PeerId>) -> Option<Self> {
        owners.sort_unstable_by(|a, b| b.cmp(a));
        owners.dedup();
        owners.truncate(OWNERS_MAX);
        (!owners.is_empty()).then_some(Self { version, owners })
    }

    /// The owner; in a dispute the one that settles it.
    pub(crate) fn owner(&self) -> PeerId {
        self.owners.first().copied().unwrap_or(PeerId([0; 16]))
    }

    pub(crate) fn owners(&self) -> &[PeerId] {
        &self.owners
    }

    pub(crate) fn is_disputed(&self) -> bool {
        self.owners.len() > 1
    }

    /// The least claim that is above both.
    pub(crate) fn join(&self, other: &Self) -> Self {
        match self.version.cmp(&other.version) {
            std::cmp::Ordering::Greater => self.clone(),
            std::cmp::Ordering::Less => other.clone(),
            std::cmp::Ordering::Equal => {
                let owners = [self.owners.as_slice(), &other.owners].concat();
                Self::with_owners(self.version, owners).unwrap_or_else(|| self.clone())
            }
        }
    }

    /// The planted fault: equal versions are decided by counts that change all the time, as Weave did.
    pub(crate) fn join_by_free(&self, other: &Self, free: &FreeCounts) -> Self {
        let count = |claim: &Self| free.get(&claim.owner()).copied().unwrap_or(0);
        if self.version != other.version {
            self.join(other)
        } else if count(other) > count(self) {
            other.clone()
        } else {
            self.clone()
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn any_claim() -> impl Strategy<Value = Claim> {
        let owners = proptest::collection::vec((0_u8..7).prop_map(|n| PeerId([n; 16])), 1..4);
        (0_u64..2, 0_u64..3, owners).prop_map(|(era, step, owners)| {
            Claim::with_owners(Version { era, step }, owners).unwrap()
        })
    }

    proptest! {
        #[test]
        fn joining_claims_commutes_associates_and_may_be_repeated(
            a in any_claim(), b in any_claim(), c in any_claim(),
        ) {
            prop_assert_eq!(a.join(&b), b.join(&a));
            prop_assert_eq!(a.join(&b).join(&c), a.join(&b.join(&c)));
            prop_assert_eq!(a.join(&b).join(&b), a.join(&b));
        }
    }
}
