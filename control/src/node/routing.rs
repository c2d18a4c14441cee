//! Our links told to everybody, everybody's links turned into routes, and the routes given to the engine.
//!
//! ```text
//!  links, paths ─► Reporter ─► TOPOLOGY records ─► gossip
//!                                   │
//!  gossip ─► TOPOLOGY records ──► Network ── within ROUTES_AFTER ─► ways ─► choice ─► Fib ─► engine
//!                                                     paths ───────────────────┘
//! ```
//!
//! What changes at our own links is computed at once; what others say is gathered for a moment, and for longer
//! while they go on, and so is what we say. A FIB that says what the last one said is not published.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use weft_engine::bridge::{Branch as EngineBranch, Fib, GroupFib, NextHop};
use weft_engine::command::{Command, PeerSlot};
use weft_engine::config::FLOOD_COPIES_MAX;

use crate::config::{
    FIB_AFTER, FIB_PACE_A_PEER, GROUP_ROUTES_AFTER, ROUTES_AFTER, ROUTES_PACE_MAX,
    ROUTES_QUIET_AFTER, TOPOLOGY_PARTS_MAX,
};
use crate::node::Node;
use crate::node::peers::Peer;
use crate::node::routing::announcer::Announcer;
use crate::peer::PeerId;
use crate::record::{RecordKey, RecordKind};
use crate::routes::choice::Choice;
use crate::routes::trees::Trees;
use crate::routes::{Network, Plane, Way, Ways};
use crate::topology::{DataReport, LinkReport, Reporter, TopologyPart};

/// Everybody's links, and what follows from them.
#[derive(Debug, Default)]
pub(super) struct Routing {
    pub(super) network: Network,
    reporter: Reporter,
    control: Ways,
    data: Ways,
    /// The version of the network that the ways are of.
    computed: u64,
    due: Option<Instant>,
    pace: Pace,
    /// When some peer's choice may change its mind.
    choice_due: Option<Instant>,
    trees: Trees,
    trees_due: Option<Instant>,
    trees_pace: Pace,
    announcer: Announcer,
    /// Parts of our links that our own view of the network has, and that the gossip has.
    parts_known: u16,
    parts_published: u16,
    /// What the engine knows of the trees, and the version of the peers that it is of.
    group: Option<Arc<GroupFib>>,
    group_of: Option<u64>,
    fib: Fib,
    /// When it was made.
    fib_at: Option<Instant>,
    /// The FIB may not be what it should be.
    fib_is_old: bool,
    /// The same, and it may stay so for a moment.
    fib_may_wait: bool,
    fib_due: Option<Instant>,
    /// How often the way to some peer changed, and how often all was computed.
    pub(super) changes: u64,
    pub(super) computations: u64,
}

/// How long news are gathered: each time that they go on, twice as long.
#[derive(Debug, Default)]
struct Pace {
    doublings: u32,
    due: Option<Instant>,
}

impl Pace {
    /// When what follows from the news of now is to be computed; `least` after them if there were none lately.
    fn next(&mut self, least: Duration, now: Instant) -> Instant {
        let goes_on = |due: Instant| now.saturating_duration_since(due) < ROUTES_QUIET_AFTER;
        self.doublings = if self.due.is_some_and(goes_on) {
            (self.doublings + 1).min(ROUTES_PACE_MAX)
        } else {
            0
        };
        let due = now + least * (1 << self.doublings);
        self.due = Some(due);
        due
    }
}

impl Routing {
    /// Nothing known yet; the id is our own.
    pub(super) fn new(ours: PeerId) -> Self {
        Self {
            reporter: Reporter::new(ours),
            ..Self::default()
        }
    }

    /// The way of messages to a peer.
    pub(super) fn control_way(&self, to: PeerId) -> Option<Way> {
        self.network.way(&self.control, to)
    }

    /// The way of datagrams to a peer over the links that everybody knows.
    pub(super) fn data_way(&self, to: PeerId) -> Option<Way> {
        self.network.way(&self.data, to)
    }

    /// The peers on that way, the last one at the end.
    pub(super) fn data_hops(&self, to: PeerId) -> Vec<PeerId> {
        self.network.hops(&self.data, to)
    }

    /// Something that the FIB depends on has changed.
    pub(super) fn touch(&mut self) {
        self.fib_is_old = true;
    }

    /// The FIB names somebody who is not there any more.
    pub(super) fn touch_at_once(&mut self) {
        self.fib_at = None;
        self.touch();
    }

    /// The same, for what comes in swarms and hurries nobody: peers that are new, and where they may be.
    pub(super) fn touch_soon(&mut self) {
        self.fib_may_wait = true;
    }

    /// Whether the FIB for that many peers is to be made anew now: at once, if it was not a moment ago.
    fn fib_is_due(&mut self, peers: usize, now: Instant) -> bool {
        if std::mem::take(&mut self.fib_may_wait) {
            self.fib_due.get_or_insert(now + FIB_AFTER);
        }
        if std::mem::take(&mut self.fib_is_old) {
            let pace = FIB_PACE_A_PEER * u32::try_from(peers).unwrap_or(u32::MAX);
            let may = self.fib_at.map_or(now, |at| now.max(at + pace));
            self.fib_due = Some(self.fib_due.map_or(may, |due| due.min(may)));
        }
        let is_due = |at: Instant| at <= now;
        let due = self.fib_due.is_some_and(is_due) || self.choice_due.is_some_and(is_due);
        if due {
            (self.fib_due, self.fib_at) = (None, Some(now));
        }
        due
    }

    fn compute(&mut self, ours: PeerId, now: Instant) {
        self.due = None;
        if self.computed == self.network.version() {
            return;
        }
        self.computed = self.network.version();
        let control = self.network.renew(&mut self.control, ours, Plane::Control);
        let data = self.network.renew(&mut self.data, ours, Plane::Data);
        self.computations += u64::from(control || data);
        self.fib_is_old |= data;
        if self.trees_due.is_none() {
            self.trees_due = Some(self.trees_pace.next(GROUP_ROUTES_AFTER, now));
        }
    }
}

impl Node {
    /// A link or a path came, went or changed its figures.
    pub(super) fn links_changed(&mut self, now: Instant) {
        self.routing.touch();
        let ours = self.identity.peer_id();
        let actual: BTreeMap<_, _> = self
            .peers
            .all()
            .filter(|(_, peer)| peer.is_adjacent())
            .map(|(id, peer)| (id, self.report_of(peer)))
            .collect();
        let news = self.routing.reporter.observe(&actual, now);
        if news || self.routing.parts_known == 0 {
            self.know_own_links(ours);
            self.routing.compute(ours, now);
            let is_urgent = self.routing.reporter.is_worse();
            self.routing.announcer.hear(is_urgent, now);
            self.say_links(now);
        }
    }

    fn report_of(&self, peer: &Peer) -> LinkReport {
        let link = peer.link.and_then(|link| self.links.get(&link));
        let path = peer.path.filter(|_| peer.is_data_up());
        LinkReport {
            control: link.is_some_and(|entry| !entry.suspect),
            data: path.map(|path| DataReport {
                rtt: path.rtt_least,
                datagram_max: path.datagram_max,
                loss_percent: percent(path.loss),
            }),
        }
    }

    /// Our own view of the network has our links as they are.
    fn know_own_links(&mut self, ours: PeerId) {
        let Routing {
            reporter,
            network,
            parts_known,
            ..
        } = &mut self.routing;
        let mut count = 0;
        for (number, part) in (0..).zip(&reporter.parts(!self.config.relay)) {
            network.set_part(ours, number, part);
            count = number + 1;
        }
        for number in count..*parts_known {
            network.clear_part(ours, number);
        }
        *parts_known = count;
    }

    /// Tells everybody, if it is time.
    fn say_links(&mut self, now: Instant) {
        if !self.routing.announcer.is_due(now) {
            return self.wake(self.routing.announcer.deadline());
        }
        let mut count = 0;
        let parts = self.routing.reporter.parts(!self.config.relay);
        for (number, part) in (0..).zip(&parts) {
            self.gossip
                .publish(RecordKind::Topology, number, part.encode(), now);
            count = number + 1;
        }
        for number in count..self.routing.parts_published {
            self.gossip.withdraw(RecordKind::Topology, number, now);
        }
        self.routing.parts_published = count;
    }

    /// Somebody says something new of their links.
    pub(super) fn topology_record_changed(&mut self, key: RecordKey, now: Instant) {
        if key.origin == self.identity.peer_id() || usize::from(key.part) >= TOPOLOGY_PARTS_MAX {
            return;
        }
        let body = self.gossip.body(key.origin, RecordKind::Topology, key.part);
        match body.map(TopologyPart::parse) {
            Some(Ok(part)) => self.routing.network.set_part(key.origin, key.part, &part),
            None => self.routing.network.clear_part(key.origin, key.part),
            Some(Err(_)) => self.counters.messages_malformed += 1,
        }
        if self.routing.network.version() != self.routing.computed {
            if self.routing.due.is_none() {
                self.routing.due = Some(self.routing.pace.next(ROUTES_AFTER, now));
            }
            self.wake(self.routing.due);
        }
    }

    /// Computes what is due, and gives the engine a new FIB if it differs from the last.
    pub(super) fn do_routes(&mut self, now: Instant) {
        if self
            .routing
            .reporter
            .deadline()
            .is_some_and(|due| due <= now)
        {
            self.links_changed(now);
        }
        self.say_links(now);
        let ours = self.identity.peer_id();
        if self.routing.due.is_some_and(|due| due <= now) {
            self.routing.compute(ours, now);
            self.look_who_is_there(now);
            self.contacts_changed();
        }
        self.compute_trees(ours, now);
        if self.routing.fib_is_due(self.peers.count(), now) {
            self.namings.ways_changed();
            self.contacts_changed();
            self.publish_fib(now);
            self.look_who_is_there(now);
        }
        self.wake(self.routing.reporter.deadline());
        self.wake(self.routing.choice_due);
        self.wake(self.routing.fib_due);
        self.wake(self.routing.due);
        self.wake(self.routing.trees_due);
    }

    /// Our places in all trees, if there are so many members that floods follow them.
    fn compute_trees(&mut self, ours: PeerId, now: Instant) {
        if self.routing.trees_due.is_none_or(|due| now < due) {
            return;
        }
        self.routing.trees_due = None;
        if self.peers.count() <= FLOOD_COPIES_MAX {
            self.routing.trees = Trees::default();
            return;
        }
        let Routing {
            network,
            data,
            trees,
            ..
        } = &mut self.routing;
        if trees.renew(network, ours, data) {
            self.routing.group_of = None;
            self.routing.touch();
        }
    }

    fn publish_fib(&mut self, now: Instant) {
        let mut fib = Fib::default();
        let mut deadline = None;
        for id in self.peers.ids() {
            let relay = self.relay_way(id);
            let Some(peer) = self.peers.find_mut(id) else {
                continue;
            };
            let direct = peer
                .path
                .filter(|_| peer.is_data_up())
                .map(|path| path.rtt_least);
            let chosen = peer
                .reach
                .chooser
                .choose(direct, relay.map(|(way, _)| way.cost), now);
            deadline = [deadline, peer.reach.chooser.deadline()]
                .into_iter()
                .flatten()
                .min();
            let hop = match (chosen, relay) {
                (Some(Choice::Relay), Some((way, via))) => {
                    fib.route_max.insert(peer.slot, way.datagram_max);
                    Some(NextHop::Via(via))
                }
                (Some(_), _) => Some(NextHop::Direct),
                // Frames wait while a session is made and addresses are tried.
                (None, _) => peer.may_be_direct().then_some(NextHop::Direct),
            };
            let size = match (hop, relay) {
                (Some(NextHop::Via(_)), Some((way, _))) => Some(way.datagram_max),
                _ => peer.path.map(|path| path.datagram_max),
            };
            peer.note_size(size, now);
            if peer.reach.route != hop {
                self.routing.changes += u64::from(peer.reach.route.is_some());
                peer.reach.route = hop;
            }
            if let Some(hop) = hop {
                fib.routes.insert(peer.slot, hop);
            }
        }
        self.routing.choice_due = deadline;
        fib.group = self.group_for_fib();
        // Beside trees, too: as long as we have no group key, the engine seals for each.
        fib.flood = fib.routes.keys().copied().collect();
        fib.generation = self.routing.fib.generation;
        if fib != self.routing.fib || fib.generation == 0 {
            fib.generation += 1;
            self.routing.fib = fib.clone();
            self.engine(Command::SetFib(Arc::new(fib)));
        }
    }

    /// The way over relays, if its first one has a path of ours.
    fn relay_way(&self, to: PeerId) -> Option<(Way, PeerSlot)> {
        let way = self.routing.data_way(to).filter(|way| way.hops > 1)?;
        let relay = self.peers.find(way.next)?;
        relay.is_data_up().then_some((way, relay.slot))
    }

    /// The trees as the engine takes them, made anew only if they or the slots are others than they were.
    fn group_for_fib(&mut self) -> Option<Arc<GroupFib>> {
        let peers = Some(self.peers.version());
        if self.routing.group_of != peers {
            let is_large = self.peers.count() > FLOOD_COPIES_MAX;
            self.routing.group = is_large.then(|| Arc::new(self.group_fib()));
            self.routing.group_of = peers;
        }
        self.routing.group.clone()
    }

    fn group_fib(&self) -> GroupFib {
        let slot = |id: &PeerId| Some(self.peers.find(*id)?.slot);
        let mut group = GroupFib {
            datagram_max: self.routing.trees.datagram_max(),
            ..GroupFib::default()
        };
        for (source, branch) in self.routing.trees.branches() {
            let children = branch.children.iter().filter_map(slot).collect();
            if *source == self.identity.peer_id() {
                group.children = children;
                continue;
            }
            if let (Some(source), Some(parent)) =
                (slot(source), branch.parent.as_ref().and_then(slot))
            {
                group
                    .sources
                    .insert(source, EngineBranch { parent, children });
            }
        }
        group
    }
}

/// A share as a whole number of hundredths.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped to what fits"
)]
fn percent(share: f32) -> u8 {
    (share * 100.0).round().clamp(0.0, 100.0) as u8
}

mod announcer;
#[cfg(test)]
mod tests;
