//! Which way leads to each peer: the links that both ends report, and the ways over them.
//!
//! ```text
//!  TOPOLOGY parts ─► Network ─► search ─┬─ Plane::Control: next hop of routed messages
//!   (topology.rs)  (routes/search.rs)   ├─ Plane::Data: next hop of relayed datagrams; trees (routes/trees.rs)
//!                                       └─ direct or relayed (routes/choice.rs) ─► Fib
//! ```
//!
//! Weight = the larger of both ends' round trips, and `config::HOP_COST`. All weights are known to all, so each
//! next hop is nearer to the destination than we are, and there is no loop while views agree; while they do not,
//! the hop limit ends it. Who says `--no-relay` is only ever the end of a way. Bounds: `config::HOPS_MAX`, and
//! for memory the records that there may be.

pub(crate) mod choice;
pub(crate) mod search;
pub(crate) mod trees;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::config::HOP_COST;
use crate::peer::PeerId;
use crate::routes::search::Ways;
use crate::topology::{LinkReport, TopologyPart};

/// A peer's place in the tables of this network; no other network, and no later one, has the same.
type Place = u32;
const NOBODY: Place = Place::MAX;

/// What travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plane {
    /// Messages, over links whose control is up.
    Control,
    /// Datagrams, over links whose data path is up.
    Data,
}

/// A link that both ends report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Edge {
    to: Place,
    control: bool,
    data: bool,
    datagram_max: u16,
    cost_us: u32,
}

/// What one peer says.
#[derive(Debug)]
struct Node {
    id: PeerId,
    no_relay: bool,
    /// Ordered by PeerId; each with the part that it stands in.
    said: Vec<(PeerId, u16, LinkReport)>,
    /// Ordered by place.
    edges: Vec<Edge>,
}

/// Everybody's links.
#[derive(Debug, Default)]
pub(crate) struct Network {
    places: BTreeMap<PeerId, Place>,
    nodes: Vec<Node>,
    free: Vec<Place>,
    /// Rises whenever an edge changes.
    version: u64,
}

/// A way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) next: PeerId,
    pub(crate) cost: Duration,
    pub(crate) hops: u8,
    /// Largest datagram that crosses all of its links; for data.
    pub(crate) datagram_max: u16,
}

impl Network {
    /// Rises whenever a way may have changed.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Replaces one part of what a peer says.
    pub(crate) fn set_part(&mut self, origin: PeerId, part: u16, said: &TopologyPart) {
        let place = self.place(origin);
        let Some(node) = self.nodes.get_mut(place as usize) else {
            return;
        };
        if node.no_relay != said.no_relay {
            node.no_relay = said.no_relay;
            self.version += 1;
        }
        let mut touched: Vec<PeerId> = said.links.iter().map(|(peer, _)| *peer).collect();
        let mut kept = std::mem::take(&mut node.said);
        kept.retain(|(peer, at, _)| {
            let stays = *at != part && said.find(*peer).is_none();
            if !stays {
                touched.push(*peer);
            }
            stays
        });
        kept.extend(
            said.links
                .iter()
                .filter(|(peer, _)| *peer != origin)
                .map(|(peer, report)| (*peer, part, *report)),
        );
        kept.sort_unstable_by_key(|(peer, ..)| *peer);
        node.said = kept;
        touched.sort_unstable();
        touched.dedup();
        for peer in touched {
            self.join(origin, peer);
        }
    }

    /// Forgets one part of what a peer said.
    pub(crate) fn clear_part(&mut self, origin: PeerId, part: u16) {
        let Some(place) = self.places.get(&origin).copied() else {
            return;
        };
        let no_relay = self
            .nodes
            .get(place as usize)
            .is_some_and(|node| node.no_relay);
        let links = Vec::new();
        self.set_part(origin, part, &TopologyPart { no_relay, links });
        if self
            .nodes
            .get(place as usize)
            .is_some_and(|node| node.said.is_empty())
        {
            self.places.remove(&origin);
            self.free.push(place);
        }
    }

    /// What a peer says of its link to another.
    pub(crate) fn said(&self, from: PeerId, to: PeerId) -> Option<LinkReport> {
        let node = self.node(from)?;
        let at = node.said.binary_search_by_key(&to, |(peer, ..)| *peer);
        Some(node.said.get(at.ok()?)?.2)
    }

    /// All links that a peer says it has.
    pub(crate) fn links_of(&self, peer: PeerId) -> impl Iterator<Item = (PeerId, LinkReport)> {
        let node = self.node(peer);
        let said = node.map(|node| node.said.as_slice()).unwrap_or_default();
        said.iter().map(|(peer, _, report)| (*peer, *report))
    }

    /// Everybody who says anything, ordered.
    pub(crate) fn peers(&self) -> impl Iterator<Item = PeerId> {
        self.places.keys().copied()
    }

    /// Whether the peer passes on nothing for others.
    pub(crate) fn is_no_relay(&self, peer: PeerId) -> bool {
        self.node(peer).is_some_and(|node| node.no_relay)
    }

    /// Links that both ends report up, each counted once.
    pub(crate) fn link_count(&self, plane: Plane) -> usize {
        let edges = self.nodes.iter().flat_map(|node| &node.edges);
        edges.filter(|edge| edge.is_up(plane)).count() / 2
    }

    /// The cheapest way to a peer among those found by [`Network::ways_from`] since the last change.
    pub(crate) fn way(&self, ways: &Ways, to: PeerId) -> Option<Way> {
        self.ways(ways, to).next()
    }

    /// The cheapest way to a peer, then each that is dearer and has fewer links.
    pub(crate) fn ways<'a>(
        &'a self,
        ways: &'a Ways,
        to: PeerId,
    ) -> impl Iterator<Item = Way> + use<'a> {
        let place = self.places.get(&to).copied().unwrap_or(NOBODY);
        let reaches = ways.all(place);
        reaches.filter_map(|reach| {
            Some(Way {
                next: self.id_at(reach.first)?,
                cost: Duration::from_micros(reach.cost_us),
                hops: reach.hops,
                datagram_max: reach.datagram_max,
            })
        })
    }

    /// All peers on the cheapest way, the destination at the end.
    pub(crate) fn hops(&self, ways: &Ways, to: PeerId) -> Vec<PeerId> {
        let place = self.places.get(&to).copied().unwrap_or(NOBODY);
        let Some(last) = ways.best(place) else {
            return Vec::new();
        };
        let mut hops: Vec<_> = ways
            .places(last)
            .filter_map(|place| self.id_at(place))
            .collect();
        hops.reverse();
        hops
    }

    fn node(&self, peer: PeerId) -> Option<&Node> {
        self.nodes.get(*self.places.get(&peer)? as usize)
    }

    fn id_at(&self, place: Place) -> Option<PeerId> {
        self.nodes.get(place as usize).map(|node| node.id)
    }

    fn place(&mut self, id: PeerId) -> Place {
        if let Some(place) = self.places.get(&id) {
            return *place;
        }
        let node = Node {
            id,
            no_relay: false,
            said: Vec::new(),
            edges: Vec::new(),
        };
        self.version += 1;
        let place = if let Some(place) = self.free.pop()
            && let Some(vacant) = self.nodes.get_mut(place as usize)
        {
            *vacant = node;
            place
        } else {
            let place = Place::try_from(self.nodes.len()).unwrap_or(NOBODY);
            self.nodes.push(node);
            place
        };
        self.places.insert(id, place);
        place
    }

    /// Makes, changes or removes the edge between two peers, as both say.
    fn join(&mut self, a: PeerId, b: PeerId) {
        let (Some(at_a), Some(at_b)) = (self.places.get(&a).copied(), self.places.get(&b).copied())
        else {
            return;
        };
        let edge = self
            .said(a, b)
            .zip(self.said(b, a))
            .and_then(|(ours, theirs)| Edge::of(ours, theirs));
        self.set_edge(at_a, at_b, edge);
        self.set_edge(at_b, at_a, edge);
    }

    fn set_edge(&mut self, from: Place, to: Place, edge: Option<Edge>) {
        let Some(node) = self.nodes.get_mut(from as usize) else {
            return;
        };
        let edge = edge.map(|edge| Edge { to, ..edge });
        match (node.edges.binary_search_by_key(&to, |edge| edge.to), edge) {
            (Ok(at), Some(edge)) if node.edges.get(at) == Some(&edge) => return,
            (Ok(at), Some(edge)) => node.edges[at] = edge,
            (Ok(at), None) => {
                node.edges.remove(at);
            }
            (Err(at), Some(edge)) => node.edges.insert(at, edge),
            (Err(_), None) => return,
        }
        self.version += 1;
    }
}

impl TopologyPart {
    fn find(&self, peer: PeerId) -> Option<LinkReport> {
        let at = self.links.binary_search_by_key(&peer, |(peer, _)| *peer);
        Some(self.links.get(at.ok()?)?.1)
    }
}

impl Edge {
    /// What two ends agree on; `None` if that is nothing.
    fn of(ours: LinkReport, theirs: LinkReport) -> Option<Self> {
        let control = ours.control && theirs.control;
        let data = ours.data.zip(theirs.data);
        if !control && data.is_none() {
            return None;
        }
        // A link whose round trip is not known yet is taken for a slow one.
        let rtt = data.map_or(Duration::from_millis(100), |(ours, theirs)| {
            ours.rtt.max(theirs.rtt)
        });
        Some(Self {
            to: NOBODY,
            control,
            data: data.is_some(),
            datagram_max: data.map_or(0, |(ours, theirs)| {
                ours.datagram_max.min(theirs.datagram_max)
            }),
            cost_us: u32::try_from((rtt + HOP_COST).as_micros()).unwrap_or(u32::MAX),
        })
    }

    fn is_up(&self, plane: Plane) -> bool {
        match plane {
            Plane::Control => self.control,
            Plane::Data => self.data,
        }
    }
}

#[cfg(test)]
mod tests;
