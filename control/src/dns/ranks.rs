//! Clients in the order of how many places each has: who has the most, and which of its own it gives up first.
//!
//! Shared by `seats` and `waits`. Each change costs a logarithm, since a flood changes it with each question. Bound:
//! whoever uses it has so many places.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;

/// The places of all clients; no two are equal, and the least of a client's is given up first.
#[derive(Debug)]
pub(super) struct Ranks<P> {
    /// As many are no more than none.
    few: usize,
    /// Never an empty set.
    clients: HashMap<IpAddr, BTreeSet<P>>,
    /// Of each client; the last has the most, or the oldest of as many.
    order: BTreeSet<(Rank<P>, IpAddr)>,
}

/// How many a client has, few being all alike, and its first place.
pub(super) type Rank<P> = (usize, Reverse<P>);

impl<P: Ord + Copy> Ranks<P> {
    pub(super) fn new(few: usize) -> Self {
        Self {
            few,
            clients: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    pub(super) fn insert(&mut self, client: IpAddr, place: P) {
        self.change(client, |places| places.insert(place));
    }

    pub(super) fn remove(&mut self, client: IpAddr, place: P) {
        self.change(client, |places| places.remove(&place));
    }

    pub(super) fn count(&self, client: IpAddr) -> usize {
        self.clients.get(&client).map_or(0, BTreeSet::len)
    }

    pub(super) fn of(&self, client: IpAddr) -> Option<Rank<P>> {
        let places = self.clients.get(&client)?;
        Some((places.len().max(self.few), Reverse(*places.first()?)))
    }

    /// Of whoever has the most.
    pub(super) fn last(&self) -> Option<Rank<P>> {
        self.order.last().map(|(rank, _)| *rank)
    }

    fn change(&mut self, client: IpAddr, change: impl FnOnce(&mut BTreeSet<P>) -> bool) {
        if let Some(before) = self.of(client) {
            self.order.remove(&(before, client));
        }
        change(self.clients.entry(client).or_default());
        match self.of(client) {
            Some(after) => {
                self.order.insert((after, client));
            }
            None => {
                self.clients.remove(&client);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Against a plain list of who has what.
        #[test]
        fn the_last_is_whoever_has_the_most_and_of_as_many_the_oldest(
            few in 0..4_usize,
            steps in proptest::collection::vec((0..6_u8, 0..40_u32), 0..200),
        ) {
            let mut ranks = Ranks::new(few);
            let mut places = std::collections::BTreeMap::<u32, IpAddr>::new();
            for (client, place) in steps {
                let client = IpAddr::from([10, 0, 0, client]);
                match places.remove(&place) {
                    Some(owner) => ranks.remove(owner, place),
                    None => {
                        places.insert(place, client);
                        ranks.insert(client, place);
                    }
                }
                let count = |client| places.values().filter(|owner| **owner == client).count();
                prop_assert_eq!(ranks.count(client), count(client));
                let rank = |(place, owner): (&u32, &IpAddr)| (count(*owner).max(few), Reverse(*place));
                prop_assert_eq!(ranks.last(), places.iter().map(rank).max());
                prop_assert!(ranks.clients.values().all(|places| !places.is_empty()));
            }
        }
    }
}
