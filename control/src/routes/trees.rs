//! The trees along which floods are copied when there are too many members to seal for each.
//!
//! ```text
//!        s ──► p ──► us ──┬──► a        p is our next hop to s; we are the next hop of a and b to s.
//!                         └──► b        Ways lead there and back alike, so that is one tree for each source.
//! ```
//!
//! Nobody is asked: each computes the ways of its neighbours as they do themselves. Cost: one search for each
//! neighbour. The trees take their arrows from the links that carry data at both ends. A branch that is longer than
//! the hop limit, which takes a network where the cheapest ways are so long, is copied no further.

use std::collections::BTreeMap;

use super::search::Ways;
use super::{Network, Plane};
use crate::peer::PeerId;

/// Our place in the tree of one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Branch {
    /// `None` if the source is ourselves.
    pub(crate) parent: Option<PeerId>,
    pub(crate) children: Vec<PeerId>,
}

impl Network {
    /// Our place in the tree of every source that reaches us, ours among them. `ours` are our own ways for data.
    pub(crate) fn branches(&self, us: PeerId, ours: &Ways) -> BTreeMap<PeerId, Branch> {
        let mut branches = BTreeMap::new();
        for source in self.peers() {
            let parent = self.way(ours, source).map(|way| way.next);
            if parent.is_some() || source == us {
                let children = Vec::new();
                branches.insert(source, Branch { parent, children });
            }
        }
        let (Some(place), Some(node)) = (self.places.get(&us).copied(), self.node(us)) else {
            return branches;
        };
        for edge in node.edges.iter().filter(|edge| edge.data) {
            let Some(neighbour) = self.id_at(edge.to) else {
                continue;
            };
            let theirs = self.ways_from(neighbour, Plane::Data);
            for (source, branch) in &mut branches {
                let reach = self.places.get(source).and_then(|at| theirs.best(*at));
                if reach.is_some_and(|reach| reach.first == place) {
                    branch.children.push(neighbour);
                }
            }
        }
        branches
    }
}
