//! The trees along which floods are copied when there are too many members to seal for each.
//!
//! ```text
//!        s ──► p ──► us ──┬──► a        p is our next hop to s; we are the next hop of a and b to s.
//!                         └──► b        Ways lead there and back alike, so that is one tree for each source.
//! ```
//!
//! Nobody is asked: each computes the ways of its neighbours as they do themselves. Cost: one search for each
//! neighbour whose ways a change has touched. The trees take their arrows from the links that carry data at both
//! ends. Bounds: the links of one peer, times the peers that there may be.

use std::collections::BTreeMap;

use super::{Network, Place, Plane, Ways};
use crate::peer::PeerId;

/// Our place in the tree of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Branch {
    /// `None` if the source is ourselves.
    pub(crate) parent: Option<PeerId>,
    pub(crate) children: Vec<PeerId>,
}

/// Our place in all trees, and what it follows from.
#[derive(Debug, Default)]
pub(crate) struct Trees {
    of_neighbours: BTreeMap<PeerId, Ways>,
    /// Of every source that reaches us, ours among them.
    branches: BTreeMap<PeerId, Branch>,
    /// Largest datagram that crosses every arrow of our own tree; 0 if it has none.
    datagram_max: u16,
}

impl Trees {
    pub(crate) fn branches(&self) -> &BTreeMap<PeerId, Branch> {
        &self.branches
    }

    pub(crate) fn datagram_max(&self) -> u16 {
        self.datagram_max
    }

    /// Brings all up to date; false if it is what it was. `ours` are our own ways for data.
    pub(crate) fn renew(&mut self, network: &Network, us: PeerId, ours: &Ways) -> bool {
        let neighbours = network.data_neighbours(us);
        self.of_neighbours
            .retain(|neighbour, _| neighbours.contains(neighbour));
        for neighbour in neighbours {
            let theirs = self.of_neighbours.entry(neighbour).or_default();
            network.renew(theirs, neighbour, Plane::Data);
        }
        let branches = network.branches(us, ours, &self.of_neighbours);
        let datagram_max = network.tree_datagram_max(ours);
        if (&branches, datagram_max) == (&self.branches, self.datagram_max) {
            return false;
        }
        (self.branches, self.datagram_max) = (branches, datagram_max);
        true
    }
}

impl Network {
    fn data_neighbours(&self, us: PeerId) -> Vec<PeerId> {
        let edges = self.node(us).map(|node| node.edges.as_slice());
        let edges = edges.unwrap_or_default().iter().filter(|edge| edge.data);
        edges.filter_map(|edge| self.id_at(edge.to)).collect()
    }

    /// Our place in the tree of every source that reaches us, from our own ways for data and our neighbours'.
    fn branches(
        &self,
        us: PeerId,
        ours: &Ways,
        of_neighbours: &BTreeMap<PeerId, Ways>,
    ) -> BTreeMap<PeerId, Branch> {
        let Some(place) = self.places.get(&us).copied() else {
            return BTreeMap::new();
        };
        // By place of the source; a lookup by PeerId for each of them and each neighbour would cost more than the search.
        let mut children: Vec<Vec<PeerId>> = vec![Vec::new(); self.nodes.len()];
        for (neighbour, theirs) in of_neighbours {
            for (reach, children) in theirs.reached.iter().zip(&mut children) {
                if reach.first == place {
                    children.push(*neighbour);
                }
            }
        }
        let branch = |(source, at): (&PeerId, &Place)| {
            let parent = self.way(ours, *source).map(|way| way.next);
            let children = children.get_mut(*at as usize).map(std::mem::take);
            let children = children.unwrap_or_default();
            (parent.is_some() || *source == us).then_some((*source, Branch { parent, children }))
        };
        self.places.iter().filter_map(branch).collect()
    }

    fn tree_datagram_max(&self, ours: &Ways) -> u16 {
        let reached = ours.reached.iter().filter(|reach| reach.hops > 0);
        let reached = reached.filter(|reach| reach.cost_us < u64::MAX);
        reached.map(|reach| reach.datagram_max).min().unwrap_or(0)
    }
}
