//! The one state machine: everything that happens goes in here, everything to be done comes out.
//!
//! ```text
//!               ┌──────────────────── node ────────────────────┐
//!  Input, now ─►│ dialer ─► links ─► peers ─► session of a peer │─► Output
//!               └────────────────────────────────────────────────┘
//!   targets, TCP bytes, engine events,            dials, TCP bytes, engine commands,
//!   requests, durable writes                      answers, writes, notices
//! ```
//!
//! Sans-IO and single-threaded; it never waits. It routes between its parts, which do not know each other.

pub mod exchange;
pub mod notice;

mod addresses;
mod admission;
mod attachments;
mod clones;
mod gossip;
mod group;
mod links;
mod losses;
mod mail;
mod mesh;
mod mtu;
mod names;
mod namesakes;
mod overview;
mod peers;
mod ping;
mod reach;
mod refused;
mod routed;
mod routing;
mod sessions;
mod status;
mod usage;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::time::Instant;

use weft_engine::command::{Command, Limits};

use crate::api::ApiError;
use crate::config::{NodeConfig, ORIGIN_CHECK_EVERY, PEER_FORGOTTEN_AFTER, TRAFFIC_EVERY};
use crate::endpoints::OwnEndpoints;
use crate::gossip::Gossip;
use crate::group::GroupKeys;
use crate::link::Link;
use crate::link::dialer::{Dialer, TargetError};
use crate::link::handshake::Hello;
use crate::link::message::ByeReason;
use crate::mesh::Mesh;
use crate::node::addresses::Addresses;
use crate::node::admission::Admission;
use crate::node::attachments::Attachments;
#[cfg(any(test, feature = "sim"))]
pub(crate) use crate::node::attachments::attachments_body;
use crate::node::clones::CloneHeard;
use crate::node::exchange::{Input, LinkId, Output, PersistToken, Record, RequestId};
use crate::node::losses::Refusals;
use crate::node::mail::AddressMail;
use crate::node::names::Namings;
use crate::node::notice::Notice;
use crate::node::peers::Peers;
use crate::node::ping::Pings;
use crate::node::routed::Router;
use crate::node::routing::Routing;
use crate::peer::{Identity, PeerId};
use crate::random::Randomness;
use crate::secret::Secrets;

/// One connection that is, or may become, a link.
struct LinkEntry {
    link: Link,
    remote: SocketAddr,
    /// Set once the link is up.
    peer: Option<PeerId>,
    /// A ping has gone unanswered, and the target is being dialled again.
    suspect: bool,
}

/// What was counted since start; by these names in `weft report`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Counters {
    pub(crate) links_accepted: u64,
    pub(crate) links_turned_away: u64,
    pub(crate) links_duplicate: u64,
    pub(crate) handshakes_failed: u64,
    pub(crate) messages_malformed: u64,
    pub(crate) messages_unknown: u64,
    pub(crate) session_messages_ignored: u64,
    pub(crate) labels_colliding: u64,
    pub(crate) links_trimmed: u64,
    pub(crate) names_senseless: u64,
}

/// A request that waits for a write.
struct Waiting {
    request: RequestId,
    result: Result<(), ApiError>,
}

/// A weft node without its sockets.
pub struct Node {
    config: NodeConfig,
    identity: Identity,
    hello: Vec<u8>,
    secrets: Secrets,
    random: Randomness,
    dialer: Dialer,
    links: BTreeMap<LinkId, LinkEntry>,
    peers: Peers,
    gossip: Gossip,
    routing: Routing,
    router: Router,
    own_endpoints: OwnEndpoints,
    group: GroupKeys,
    attachments: Attachments,
    pings: Pings,
    /// When somebody is to be told next where we are.
    punches_due: Option<Instant>,
    /// When frames are counted next.
    traffic_at: Option<Instant>,
    mesh: Mesh,
    /// When we look next whom nothing leads to.
    origins_at: Instant,
    /// When somebody may have been gone for so long that he is forgotten.
    lost_at: Option<Instant>,
    /// When a link that was closed for another one may count as gone.
    handovers_at: Option<Instant>,
    /// Keys that two processes use, and when we said so.
    clones: BTreeMap<PeerId, CloneHeard>,
    /// Newcomers whose namesake nothing led to. At most `config::NAMESAKES_SHOWN`.
    namesakes_wait: BTreeSet<PeerId>,
    /// The indices of all live epochs and session handshakes.
    indices: BTreeSet<u32>,
    admission: Admission,
    refusals: Refusals,
    /// Who gives addresses, unless that is off.
    addresses: Option<Addresses>,
    mail: AddressMail,
    counters: Counters,
    waiting: BTreeMap<PersistToken, Waiting>,
    tokens: u64,
    namings: Namings,
    outputs: VecDeque<Output>,
    /// Nothing is due before this.
    wake_at: Option<Instant>,
    started_at: Instant,
}

impl Node {
    /// Makes a node that starts to dial its targets; those that are none are named in a notice and left out.
    #[must_use]
    pub fn new(
        config: NodeConfig,
        identity: Identity,
        mut random: Randomness,
        now: Instant,
    ) -> Self {
        let mut node = Self {
            gossip: gossip::begin(&config, &identity, random.fork(), now),
            mesh: Mesh::new(identity.peer_id()),
            routing: Routing::new(identity.peer_id()),
            origins_at: now + ORIGIN_CHECK_EVERY,
            lost_at: None,
            handovers_at: None,
            hello: Hello::encode_ours(&config, &identity),
            secrets: config.secrets.clone(),
            dialer: Dialer::new(config.port),
            identity,
            random,
            links: BTreeMap::new(),
            peers: Peers::new(),
            router: Router::default(),
            own_endpoints: OwnEndpoints::new(config.port),
            group: GroupKeys::default(),
            attachments: Attachments::default(),
            pings: Pings::new(),
            punches_due: None,
            traffic_at: None,
            clones: BTreeMap::new(),
            namesakes_wait: BTreeSet::new(),
            indices: BTreeSet::new(),
            admission: Admission::default(),
            refusals: Refusals::default(),
            addresses: None,
            mail: AddressMail::default(),
            counters: Counters::default(),
            waiting: BTreeMap::new(),
            tokens: 0,
            namings: Namings::default(),
            outputs: VecDeque::new(),
            wake_at: Some(now),
            started_at: now,
            config,
        };
        node.engine(Command::SetLabel(node.identity.peer_id().label()));
        node.engine(Command::SetLimits(Limits {
            relay: node.config.relay,
            ..Limits::default()
        }));
        for target in node.config.targets.clone() {
            if let Err(error) = node.dialer.add(&target, now) {
                node.notice(Notice::BadTarget {
                    target,
                    reason: error.to_string(),
                });
            }
        }
        node
    }

    /// Feeds one event in; drain [`Node::poll_output`] before the next.
    pub fn handle(&mut self, input: Input, now: Instant) {
        match input {
            Input::Tick => {}
            Input::LinkOpened {
                link,
                dial,
                remote,
                local: _,
            } => self.link_opened(link, dial, remote, now),
            Input::LinkData { link, data } => self.link_data(link, &data, now),
            Input::LinkClosed { link, cause } => self.link_closed(link, cause, now),
            Input::DialFailed { dial, failure } => {
                self.dialer
                    .dial_failed(dial, failure, &mut self.random, now);
                self.mesh_attempt_failed(now);
                self.wake(self.dialer.deadline());
            }
            Input::Engine(event) => self.engine_event(event, now),
            Input::Connect {
                request,
                peers,
                replace,
            } => self.connect(request, &peers, replace, now),
            Input::Forget { request, peers } => self.forget(request, &peers),
            Input::Reload(secrets) => self.reload(secrets, now),
            Input::Persisted { token, durable } => self.persisted(token, durable),
            Input::LocalAddresses(addresses) => self.local_addresses(&addresses, now),
            Input::Ping { request, peer } => self.ping(request, &peer, now),
            Input::Traffic(counts) => self.traffic_counted(&counts, now),
            Input::Names(bodies) => self.say_names(bodies, now),
            Input::Attached(list) => self.attached(list, now),
            Input::Ipam(input) => self.ipam_input(input, now),
            Input::Stop => self.say_goodbye(now),
        }
        self.do_what_is_due(now);
        self.do_gossip(now);
        self.do_punches(now);
        self.do_pings(now);
        self.do_group(now);
        self.renew_neighbours(now);
        self.ask_for_traffic(now);
        self.do_routes(now);
        self.do_addresses(now);
        self.do_names(now);
    }

    /// Returns the next thing the driver has to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Returns when [`Input::Tick`] is next due.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.wake_at
    }

    fn wake(&mut self, at: Option<Instant>) {
        self.wake_at = [self.wake_at, at].into_iter().flatten().min();
    }

    fn notice(&mut self, notice: Notice) {
        self.outputs.push_back(Output::Notice(notice));
    }

    fn engine(&mut self, command: Command) {
        self.outputs.push_back(Output::Engine(command));
    }

    fn do_what_is_due(&mut self, now: Instant) {
        if self.wake_at.is_none_or(|at| now < at) {
            return;
        }
        self.wake_at = None;
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.with_link(id, now, |link, context, actions| {
                link.tick(context, actions)
            });
        }
        self.suspect_links(now);
        self.end_handovers(now);
        for id in self.peers.due(now) {
            self.with_session(id, now, |session, context| session.tick(context));
        }
        self.wake(self.peers.next_timer());
        self.gossip.tick(now);
        self.do_gossip(now);
        self.forget_lost_origins(now);
        self.forget_lost_peers(now);
        self.do_mesh(now);
        while let Some((dial, address)) = self.dialer.poll_dial(now) {
            self.outputs.push_back(Output::Dial { dial, address });
        }
        self.wake(self.dialer.deadline());
    }

    fn connect(&mut self, request: RequestId, peers: &[String], replace: bool, now: Instant) {
        let judged = peers.iter().map(|peer| (peer, self.dialer.judge(peer)));
        if let Err(mut refusal) = named_errors(judged.collect()) {
            refusal.error.push_str("\nnothing was changed");
            let result = Err(refusal);
            self.outputs.push_back(Output::Answer { request, result });
            return;
        }
        if replace {
            self.dialer.clear();
        }
        let added = peers
            .iter()
            .map(|peer| (peer, self.dialer.add(peer, now)))
            .collect::<Vec<_>>();
        for peer in self.peers.ids() {
            if let Some(link) = self.peers.find(peer).and_then(|peer| peer.link) {
                self.dialer.connected(link, peer, now);
            }
        }
        self.wake(self.dialer.deadline());
        self.persist_targets(request, named_errors(added));
    }

    fn forget(&mut self, request: RequestId, peers: &[String]) {
        let removed = peers
            .iter()
            .map(|peer| (peer, self.dialer.remove(peer)))
            .collect::<Vec<_>>();
        self.persist_targets(request, named_errors(removed));
    }

    fn persist_targets(&mut self, request: RequestId, result: Result<(), ApiError>) {
        self.tokens += 1;
        let token = PersistToken(self.tokens);
        self.waiting.insert(token, Waiting { request, result });
        let record = Record::Targets(self.dialer.texts());
        self.outputs.push_back(Output::Persist { token, record });
    }

    fn persisted(&mut self, token: PersistToken, durable: bool) {
        let Some(Waiting { request, result }) = self.waiting.remove(&token) else {
            return;
        };
        let result = if durable {
            result
        } else {
            self.notice(Notice::StoreFailed);
            Err(ApiError {
                error:
                    "write targets to the store: see `weft status`; they hold until the next start"
                        .to_owned(),
            })
        };
        self.outputs.push_back(Output::Answer { request, result });
    }

    fn reload(&mut self, secrets: Secrets, now: Instant) {
        self.secrets = secrets;
        self.group.distrust(now);
        let removed = |entry: &LinkEntry| {
            entry
                .link
                .secret()
                .is_some_and(|secret| !self.secrets.keys().contains(secret))
        };
        let ended = self
            .links
            .iter()
            .filter(|(_, entry)| removed(entry))
            .map(|(id, _)| *id)
            .collect::<Vec<_>>();
        for id in ended {
            self.with_link(id, now, |link, _, actions| {
                link.close(ByeReason::SecretRemoved, actions)
            });
        }
        let secrets = self.secrets.clone();
        for id in self.peers.ids() {
            self.with_session(id, now, |session, context| {
                session.secrets_changed(&secrets, context.now)
            });
        }
        self.dialer.hurry_all(now);
        self.wake(self.dialer.deadline());
    }

    fn say_goodbye(&mut self, now: Instant) {
        self.dialer.clear();
        for id in self.links.keys().copied().collect::<Vec<_>>() {
            self.with_link(id, now, |link, _, actions| {
                link.close(ByeReason::Stopping, actions)
            });
        }
    }

    /// From then on somebody may have been gone for long.
    fn look_for_lost_peers(&mut self, at: Instant) {
        self.lost_at = Some(self.lost_at.map_or(at, |known| known.min(at)));
        self.wake(self.lost_at);
    }

    /// Frees the slots of peers that have been gone for long.
    fn forget_lost_peers(&mut self, now: Instant) {
        if self.lost_at.is_none_or(|at| now < at) {
            return self.wake(self.lost_at);
        }
        self.lost_at = None;
        let mut lost = Vec::new();
        let mut next = None;
        for (id, peer) in self.peers.all() {
            let Some(since) = peer.gone_since else {
                continue;
            };
            if self.gossip.incarnation(id).is_some() {
                continue;
            }
            let forgotten_at = since + PEER_FORGOTTEN_AFTER;
            if now >= forgotten_at && !peer.session.is_live() {
                lost.push(id);
                continue;
            }
            // A session that outlives its peer ends with its epochs.
            let at = forgotten_at.max(now + TRAFFIC_EVERY);
            next = Some(next.map_or(at, |known: Instant| known.min(at)));
        }
        self.lost_at = next;
        self.wake(next);
        for id in &lost {
            self.with_session(*id, now, |session, context| session.end(context));
            if let Some(peer) = self.peers.remove(*id) {
                self.engine(Command::RemovePeer { slot: peer.slot });
            }
        }
        if !lost.is_empty() {
            self.routing.touch_at_once();
        }
    }
}

/// One line for each target that failed; `Ok` if none did.
fn named_errors(results: Vec<(&String, Result<(), TargetError>)>) -> Result<(), ApiError> {
    let lines: Vec<_> = results
        .into_iter()
        .filter_map(|(peer, result)| Some(format!("{peer}: {}", result.err()?)))
        .collect();
    if lines.is_empty() {
        Ok(())
    } else {
        Err(ApiError {
            error: lines.join("\n"),
        })
    }
}

#[cfg(test)]
pub(crate) mod tests;
