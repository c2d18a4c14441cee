//! The cheapest ways from one peer to all others that the hop limit allows, and those for whoever has few hops left.
//!
//! ```text
//!  offers, cheapest first ─► fewer links than every way to that peer so far? ─► found ─► an offer to each neighbour
//! ```
//!
//! A way with more than `config::HOPS_MAX` links carries nothing, so it must not hide a dearer one with fewer. And
//! who passes on what has come far already must not send it round a longer way because that is cheaper. So up to
//! [`HOPS_MAX`] ways are kept for each peer: each is dearer than the one before and has fewer links. A relay takes
//! the cheapest that is no longer than what is left; the rest of each way is then as cheap at the next relay, which
//! has one link fewer left, and what goes on arrives. In most networks nearly all peers have one such way, or two.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{NOBODY, Network, Place, Plane};
use crate::config::HOPS_MAX;
use crate::peer::PeerId;

const HOPS: usize = HOPS_MAX as usize;

/// A way's place among those found.
type At = u32;
const NONE: At = At::MAX;

/// A way to one peer: none that is cheaper has as few links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Reach {
    pub(super) place: Place,
    pub(super) cost_us: u64,
    pub(super) hops: u8,
    /// The first peer on the way.
    pub(super) first: Place,
    pub(super) datagram_max: u16,
    /// The way that this one makes longer by a link.
    before: At,
    /// The next way to the same peer, dearer and with fewer links.
    shorter: At,
}

/// The ways from one peer to all others.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    found: Vec<Reach>,
    /// By place: the cheapest way.
    best: Vec<At>,
}

/// A way that may turn out to be worth keeping. The order decides ties by what everybody sees alike: fewer links,
/// then the smaller PeerId before the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Offer {
    cost_us: u64,
    hops: u8,
    /// The rank of the PeerId before the end.
    rank: u32,
    to: Place,
    before: At,
    first: Place,
    datagram_max: u16,
}

impl Ways {
    /// The cheapest way to a place.
    pub(super) fn best(&self, place: Place) -> Option<&Reach> {
        self.at(*self.best.get(place as usize)?)
    }

    /// The cheapest way to a place, then each that is dearer and has fewer links.
    pub(super) fn all(&self, place: Place) -> impl Iterator<Item = &Reach> {
        std::iter::successors(self.best(place), |reach| self.at(reach.shorter))
    }

    /// The places on a way, the last one first; without the root.
    pub(super) fn places<'a>(&'a self, last: &'a Reach) -> impl Iterator<Item = Place> + use<'a> {
        let way = std::iter::successors(Some(last), |reach| self.at(reach.before));
        way.filter(|reach| reach.hops > 0).map(|reach| reach.place)
    }

    fn at(&self, at: At) -> Option<&Reach> {
        self.found.get(at as usize)
    }
}

impl Network {
    /// The cheapest ways from `root`, of at most [`HOPS_MAX`] links.
    pub(crate) fn ways_from(&self, root: PeerId, plane: Plane) -> Ways {
        let count = self.nodes.len();
        let mut ways = Ways {
            found: Vec::with_capacity(count),
            best: vec![NONE; count],
        };
        let Some(root) = self.places.get(&root).copied() else {
            return ways;
        };
        let mut search = Search {
            offers: BinaryHeap::new(),
            offered: vec![[u64::MAX; HOPS + 1]; count],
            last: vec![NONE; count],
        };
        let ranks = self.ranks();
        // Nothing leads back.
        if let Some(offered) = search.offered.get_mut(root as usize) {
            *offered = [0; HOPS + 1];
        }
        search.offers.push(Reverse(Offer {
            cost_us: 0,
            hops: 0,
            rank: 0,
            to: root,
            before: NONE,
            first: NOBODY,
            datagram_max: u16::MAX,
        }));
        while let Some(Reverse(offer)) = search.offers.pop() {
            let Some(at) = search.keep(&offer, &mut ways) else {
                continue;
            };
            let Some(node) = self.nodes.get(offer.to as usize) else {
                continue;
            };
            let is_end = offer.to != root && plane == Plane::Data && node.no_relay;
            if is_end || offer.hops >= HOPS_MAX {
                continue;
            }
            let rank = ranks.get(offer.to as usize).copied().unwrap_or_default();
            for edge in node.edges.iter().filter(|edge| edge.is_up(plane)) {
                search.offer(Offer {
                    cost_us: offer.cost_us + u64::from(edge.cost_us),
                    hops: offer.hops + 1,
                    rank,
                    to: edge.to,
                    before: at,
                    first: if offer.to == root {
                        edge.to
                    } else {
                        offer.first
                    },
                    datagram_max: offer.datagram_max.min(edge.datagram_max),
                });
            }
        }
        ways
    }

    /// By place: how many have a smaller PeerId.
    fn ranks(&self) -> Vec<u32> {
        let mut ranks = vec![0; self.nodes.len()];
        for (rank, place) in (0..).zip(self.places.values()) {
            if let Some(slot) = ranks.get_mut(*place as usize) {
                *slot = rank;
            }
        }
        ranks
    }
}

struct Search {
    offers: BinaryHeap<Reverse<Offer>>,
    /// By place and number of links: the lowest cost offered with as many links or fewer.
    offered: Vec<[u64; HOPS + 1]>,
    /// By place: the way found last, which has the fewest links.
    last: Vec<At>,
}

impl Search {
    /// Considers a way, unless one that is no dearer has as few links.
    fn offer(&mut self, offer: Offer) {
        let hops = usize::from(offer.hops);
        let Some(offered) = self.offered.get_mut(offer.to as usize) else {
            return;
        };
        let [fewer, same] = [hops - 1, hops].map(|hops| offered[hops]);
        if fewer <= offer.cost_us || same < offer.cost_us {
            return;
        }
        for cost in &mut offered[hops..] {
            *cost = offer.cost_us.min(*cost);
        }
        self.offers.push(Reverse(offer));
    }

    /// Adds a way to those found, if it has fewer links than those to the same peer, which are cheaper.
    fn keep(&mut self, offer: &Offer, ways: &mut Ways) -> Option<At> {
        let last = self.last.get_mut(offer.to as usize)?;
        let at = At::try_from(ways.found.len()).ok()?;
        match ways.found.get_mut(*last as usize) {
            Some(known) if known.hops <= offer.hops => return None,
            Some(known) => known.shorter = at,
            None => *ways.best.get_mut(offer.to as usize)? = at,
        }
        *last = at;
        ways.found.push(Reach {
            place: offer.to,
            cost_us: offer.cost_us,
            hops: offer.hops,
            first: offer.first,
            datagram_max: offer.datagram_max,
            before: offer.before,
            shorter: NONE,
        });
        Some(at)
    }
}
