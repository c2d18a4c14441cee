//! Which way leads to each peer: the links that both ends report, and the shortest ways over them.
//!
//! ```text
//!  TOPOLOGY parts ─► Network ─┬─ Plane::Control: next hop of routed messages
//!   (topology.rs)             ├─ Plane::Data: next hop of relayed datagrams; trees (routes/trees.rs)
//!                             └─ direct or relayed (routes/choice.rs) ─► Fib
//! ```
//!
//! Weight = the larger of both ends' round trips, and `config::HOP_COST`. All weights are known to all, so each
//! next hop is nearer to the destination than we are, and there is no loop while views agree; while they do not,
//! the hop limit ends it. Who says `--no-relay` is only ever the end of a way. Ways that no change has touched
//! are not computed anew (`Network::renew`): in a mesh of a thousand peers nine changes of ten are of that sort.
//! Bounds: `config::HOPS_MAX`, `config::EDGE_CHANGES_MAX`, and for memory the records that there may be.

pub(crate) mod choice;
pub(crate) mod trees;

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::time::Duration;

use crate::config::{EDGE_CHANGES_MAX, HOP_COST, HOPS_MAX};
use crate::peer::PeerId;
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

/// One link in what a peer says: the other end, the part that it stands in, how it is.
type Said = (PeerId, u16, LinkReport);

/// What one peer says.
#[derive(Debug)]
struct Node {
    id: PeerId,
    no_relay: bool,
    /// Ordered by PeerId.
    said: Vec<Said>,
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
    /// Which ones did last, the newest at the end; one place twice is a peer that begins or ceases to relay.
    changed: VecDeque<(Place, Place)>,
}

/// How far a peer is, and which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reach {
    cost_us: u64,
    hops: u8,
    /// The first peer on the way, and the last before the destination.
    first: Place,
    before: Place,
    datagram_max: u16,
}

const UNREACHED: Reach = Reach {
    cost_us: u64::MAX,
    hops: u8::MAX,
    first: NOBODY,
    before: NOBODY,
    datagram_max: 0,
};

/// A way to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) next: PeerId,
    pub(crate) cost: Duration,
    pub(crate) hops: u8,
    /// Largest datagram that crosses all of its links; for data.
    pub(crate) datagram_max: u16,
}

/// The shortest ways from one peer to all others.
#[derive(Debug, Default)]
pub(crate) struct Ways {
    root: Option<Place>,
    reached: Vec<Reach>,
    /// The version of the network that they hold for.
    version: u64,
}

impl Network {
    /// Rises whenever a way may have changed.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Brings the ways from `root` up to date; false if they are what they were.
    pub(crate) fn renew(&self, ways: &mut Ways, root: PeerId, plane: Plane) -> bool {
        if self.still_hold(ways, root, plane) {
            ways.version = self.version;
            return false;
        }
        *ways = self.ways_from(root, plane);
        true
    }

    /// Whether the ways are what [`Network::ways_from`] would find. Each peer's way is the best of those by its
    /// neighbours, and that fixes all of them: so it is enough that this holds along each edge that changed.
    fn still_hold(&self, ways: &Ways, root: PeerId, plane: Plane) -> bool {
        let unseen = usize::try_from(self.version - ways.version).unwrap_or(usize::MAX);
        unseen <= self.changed.len()
            && ways.root == self.places.get(&root).copied()
            && self.changed.iter().rev().take(unseen).all(|(a, b)| {
                a != b
                    && self.holds_along(ways, plane, *a, *b)
                    && self.holds_along(ways, plane, *b, *a)
            })
    }

    fn holds_along(&self, ways: &Ways, plane: Plane, from: Place, to: Place) -> bool {
        let reach = |place: Place| ways.reached.get(place as usize).unwrap_or(&UNREACHED);
        let (here, there) = (reach(from), reach(to));
        let edge = self.nodes.get(from as usize).and_then(|node| {
            let at = node.edges.binary_search_by_key(&to, |edge| edge.to);
            node.edges.get(at.ok()?).filter(|edge| edge.is_up(plane))
        });
        let is_root = ways.root == Some(from);
        let passes = here.cost_us < u64::MAX && (is_root || self.passes_on(from, here, plane));
        let candidate = edge
            .filter(|_| passes)
            .map(|edge| here.by(edge, from, is_root));
        if there.before == from {
            return candidate.as_ref() == Some(there);
        }
        candidate.is_none_or(|candidate| !self.is_better(&candidate, there))
    }

    /// Whether ways may go on from a peer that is not their beginning.
    fn passes_on(&self, place: Place, here: &Reach, plane: Plane) -> bool {
        let is_end = plane == Plane::Data
            && self
                .nodes
                .get(place as usize)
                .is_some_and(|node| node.no_relay);
        !is_end && here.hops < HOPS_MAX
    }

    fn note_change(&mut self, a: Place, b: Place) {
        self.version += 1;
        self.changed.push_back((a, b));
        if self.changed.len() > EDGE_CHANGES_MAX {
            self.changed.pop_front();
        }
    }

    /// Replaces one part of what a peer says.
    pub(crate) fn set_part(&mut self, origin: PeerId, part: u16, said: &TopologyPart) {
        let place = self.place(origin);
        let Some(node) = self.nodes.get_mut(place as usize) else {
            return;
        };
        let relays_anew = node.no_relay != said.no_relay;
        node.no_relay = said.no_relay;
        let before = std::mem::take(&mut node.said);
        let mut after = Vec::with_capacity(before.len().max(said.links.len()));
        after.extend(
            before
                .iter()
                .filter(|(peer, at, _)| *at != part && said.find(*peer).is_none()),
        );
        after.extend(
            said.links
                .iter()
                .filter(|(peer, _)| *peer != origin)
                .map(|(peer, report)| (*peer, part, *report)),
        );
        after.sort_unstable_by_key(|(peer, ..)| *peer);
        let touched = differing(&before, &after);
        node.said = after;
        if relays_anew {
            self.note_change(place, place);
        }
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

    /// The shortest ways from `root`; a way has at most [`HOPS_MAX`] links.
    pub(crate) fn ways_from(&self, root: PeerId, plane: Plane) -> Ways {
        let mut ways = Ways {
            root: self.places.get(&root).copied(),
            reached: vec![UNREACHED; self.nodes.len()],
            version: self.version,
        };
        let Some(root) = ways.root else {
            return ways;
        };
        let reached = &mut ways.reached;
        let mut heap = BinaryHeap::new();
        if let Some(start) = reached.get_mut(root as usize) {
            (start.cost_us, start.hops, start.datagram_max) = (0, 0, u16::MAX);
        }
        heap.push(Reverse((0, root)));
        while let Some(Reverse((cost_us, at))) = heap.pop() {
            let (Some(node), Some(here)) = (
                self.nodes.get(at as usize),
                reached.get(at as usize).copied(),
            ) else {
                continue;
            };
            let is_root = at == root;
            if cost_us > here.cost_us || !(is_root || self.passes_on(at, &here, plane)) {
                continue;
            }
            for edge in node.edges.iter().filter(|edge| edge.is_up(plane)) {
                let candidate = here.by(edge, at, is_root);
                let Some(there) = reached.get_mut(edge.to as usize) else {
                    continue;
                };
                if self.is_better(&candidate, there) {
                    if candidate.cost_us < there.cost_us {
                        heap.push(Reverse((candidate.cost_us, edge.to)));
                    }
                    *there = candidate;
                }
            }
        }
        ways
    }

    /// Ties are broken by what everybody sees alike: fewer links, then the smaller PeerId before the end.
    fn is_better(&self, candidate: &Reach, known: &Reach) -> bool {
        let by_figures = (candidate.cost_us, candidate.hops).cmp(&(known.cost_us, known.hops));
        by_figures
            .then_with(|| self.id_at(candidate.before).cmp(&self.id_at(known.before)))
            .is_lt()
    }

    /// The way to a peer among those found by [`Network::ways_from`] since the last change.
    pub(crate) fn way(&self, ways: &Ways, to: PeerId) -> Option<Way> {
        let reach = ways.reached.get(*self.places.get(&to)? as usize)?;
        Some(Way {
            next: self.id_at(reach.first)?,
            cost: Duration::from_micros(reach.cost_us),
            hops: reach.hops,
            datagram_max: reach.datagram_max,
        })
    }

    /// All peers on the way, the destination at the end.
    pub(crate) fn hops(&self, ways: &Ways, to: PeerId) -> Vec<PeerId> {
        let mut hops = Vec::new();
        let mut at = self.places.get(&to).copied().unwrap_or(NOBODY);
        while let Some(reach) = ways.reached.get(at as usize)
            && reach.before != NOBODY
            && hops.len() < HOPS_MAX.into()
        {
            hops.extend(self.id_at(at));
            at = reach.before;
        }
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
        let place = if let Some(place) = self.free.pop()
            && let Some(vacant) = self.nodes.get_mut(place as usize)
        {
            *vacant = node;
            // Ties that its predecessor won may go otherwise.
            self.note_change(place, place);
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
        let changes = self.set_edge(at_a, at_b, edge);
        if self.set_edge(at_b, at_a, edge) || changes {
            self.note_change(at_a, at_b);
        }
    }

    /// True if that changes anything.
    fn set_edge(&mut self, from: Place, to: Place, edge: Option<Edge>) -> bool {
        let Some(node) = self.nodes.get_mut(from as usize) else {
            return false;
        };
        let edge = edge.map(|edge| Edge { to, ..edge });
        match (node.edges.binary_search_by_key(&to, |edge| edge.to), edge) {
            (Ok(at), Some(edge)) if node.edges.get(at) == Some(&edge) => return false,
            (Ok(at), Some(edge)) => node.edges[at] = edge,
            (Ok(at), None) => {
                node.edges.remove(at);
            }
            (Err(at), Some(edge)) => node.edges.insert(at, edge),
            (Err(_), None) => return false,
        }
        true
    }
}

/// The peers of which two ordered lists do not say the same; in which part it stands does not count.
fn differing(before: &[Said], after: &[Said]) -> Vec<PeerId> {
    let mut peers = Vec::new();
    let (mut old, mut new) = (before.iter().peekable(), after.iter().peekable());
    loop {
        let order = match (old.peek(), new.peek()) {
            (None, None) => return peers,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((a, ..)), Some((b, ..))) => a.cmp(b),
        };
        let was = old.next_if(|_| order.is_le());
        let is = new.next_if(|_| order.is_ge());
        if was.map(|(.., report)| report) != is.map(|(.., report)| report) {
            peers.extend(was.or(is).map(|(peer, ..)| *peer));
        }
    }
}

impl Reach {
    /// How far the end of an edge is by way of a peer that is this far.
    fn by(&self, edge: &Edge, from: Place, is_root: bool) -> Self {
        Self {
            cost_us: self.cost_us + u64::from(edge.cost_us),
            hops: self.hops + 1,
            first: if is_root { edge.to } else { self.first },
            before: from,
            datagram_max: self.datagram_max.min(edge.datagram_max),
        }
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
