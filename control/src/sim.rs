//! Many nodes on a virtual clock: the shipped state machines, a made-up network and engine.
//!
//! ```text
//!  Node ── Output ──► Sim ─┬─ links: bytes in order; loss delays them, a cut holds them (TCP sends again)
//!   ▲                      ├─ dials: opened, refused, or timed out
//!   └────── Input ─────────┴─ engine stand-in: epochs, path machines, relays; datagrams are lost, doubled, late
//!                             │
//!                             └─ underlay: latencies, cuts one way or both, sides, NATs
//! ```
//!
//! Everything follows from the seed: one event queue, ordered by time and then by age, and a hash over all that
//! happened. No event costs more for there being many hosts.

mod ask;
#[cfg(test)]
mod checker;
pub mod crowd;
mod datagrams;
mod engine;
pub mod experiments;
mod frames;
pub(crate) mod host;
mod links;
pub(crate) mod nat;
mod queue;
mod reach;
#[cfg(test)]
mod scenario;
#[cfg(test)]
mod tests;
pub(crate) mod underlay;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use weft_engine::command::PeerSlot;

use crate::config::{BootId, NodeConfig};
use crate::node::Node;
use crate::node::exchange::{Input, Output};
use crate::peer::Identity;
use crate::random::Randomness;
use crate::secret::NetworkId;
use crate::sim::datagrams::Datagram;
use crate::sim::engine::EngineStandIn;
use crate::sim::frames::{FrameFate, FrameId};
use crate::sim::host::{Host, HostSpec, Sent, Stored};
use crate::sim::links::{Open, Wire};
use crate::sim::nat::NatKind;
use crate::sim::queue::{EventQueue, Trace};
use crate::sim::underlay::{NatId, Underlay};

pub(crate) type HostId = usize;
/// Changes bytes on their way; false drops them.
pub(crate) type Tamper = Box<dyn FnMut(&mut Vec<u8>) -> bool>;

/// How long a write takes until it is durable.
const PERSIST_TIME: Duration = Duration::from_millis(5);

/// The first instant of a simulation.
#[expect(
    clippy::disallowed_methods,
    reason = "a simulation needs one first instant, and std has no other"
)]
pub(crate) fn first_instant() -> Instant {
    Instant::now()
}

/// What is still to happen.
enum SimEvent {
    Input {
        host: HostId,
        life: u64,
        input: Box<Input>,
    },
    /// A node's deadline, unless it has changed since.
    Tick {
        host: HostId,
        life: u64,
    },
    PathTick {
        host: HostId,
        life: u64,
        slot: PeerSlot,
    },
    Open(Box<Open>),
    /// Something is due on a connection, at the end of that number.
    Arrive {
        wire: usize,
        to: usize,
    },
    Datagram(Box<Datagram>),
}

/// Hosts, the network between them, and the clock.
pub(crate) struct Sim {
    pub(crate) now: Instant,
    started_at: Instant,
    random: Randomness,
    queue: EventQueue,
    pub(crate) trace: Trace,
    links: u64,
    pub(crate) hosts: Vec<Host>,
    labels: BTreeMap<[u8; 8], HostId>,
    wires: Vec<Wire>,
    pub(crate) underlay: Underlay,
    /// Each way, between hosts for which `underlay` has no other.
    pub(crate) latency: Duration,
    /// Spoils bytes on their way; says whether they go on.
    pub(crate) tamper: Option<Tamper>,
    frames: BTreeMap<FrameId, FrameFate>,
    frame_count: u64,
    /// Datagrams that found no epoch to open them while the way was good.
    pub(crate) lost: u64,
    pub(crate) delivered: u64,
    /// Datagrams that a relay had no way for, and copies that came from elsewhere than the parent.
    pub(crate) unrelayed: u64,
    /// A host that is to die in the middle of what it does, and after how many more outputs.
    crash: Option<(HostId, usize)>,
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let now = first_instant();
        Self {
            now,
            started_at: now,
            random: Randomness::seeded(seed),
            queue: EventQueue::default(),
            trace: Trace::default(),
            links: 0,
            hosts: Vec::new(),
            labels: BTreeMap::new(),
            wires: Vec::new(),
            underlay: Underlay::default(),
            latency: Duration::from_millis(2),
            tamper: None,
            frames: BTreeMap::new(),
            frame_count: 0,
            lost: 0,
            delivered: 0,
            unrelayed: 0,
            crash: None,
        }
    }

    /// Adds a host with the address `underlay::address_of` its number and starts it.
    pub(crate) fn add(&mut self, spec: HostSpec) -> HostId {
        let identity = Identity::generate(&mut self.random);
        self.add_with_identity(spec, identity, 1)
    }

    pub(crate) fn add_with_identity(
        &mut self,
        spec: HostSpec,
        identity: Identity,
        incarnation: u64,
    ) -> HostId {
        let host = self.hosts.len();
        let ip = self.underlay.settle(host, spec.behind);
        let nickname = spec.nickname.parse().expect("the nickname is one");
        let config = NodeConfig {
            network_id: NetworkId::of(spec.network),
            network: spec.network.to_owned(),
            secrets: spec.secrets,
            name: None,
            nickname,
            port: 6783,
            workers: 2,
            ciphers: spec.ciphers,
            mtu: spec.mtu,
            discovery: spec.discovery,
            relay: spec.relay,
            boot_id: BootId([0; 8]),
            incarnation: incarnation - 1,
            targets: spec.targets,
            rekey: spec.rekey,
        };
        self.labels.insert(identity.peer_id().label(), host);
        self.hosts.push(Host {
            node: None,
            life: 0,
            identity,
            config,
            address: (ip, 6783).into(),
            engine: EngineStandIn::default(),
            next_hosts: Vec::new(),
            names: BTreeMap::new(),
            tick_at: None,
            wires: BTreeSet::new(),
            notices: Vec::new(),
            answers: Vec::new(),
            pongs: Vec::new(),
            sent: Sent::default(),
            stored: Stored::default(),
            unwritten: VecDeque::new(),
        });
        self.start(host);
        host
    }

    pub(crate) fn add_nat(&mut self, kind: NatKind) -> NatId {
        self.underlay.add_nat(kind)
    }

    /// Starts a host that is not running: a new process of the same identity.
    pub(crate) fn start(&mut self, host: HostId) {
        let boot_id = BootId(self.random.bytes());
        let random = self.random.fork();
        let entry = &mut self.hosts[host];
        assert!(entry.node.is_none(), "host {host} is running");
        entry.life += 1;
        entry.config.boot_id = boot_id;
        let stored = &entry.stored;
        entry.config.incarnation = entry.config.incarnation.max(stored.incarnation) + 1;
        if let Some(targets) = &stored.targets {
            entry.config.targets.clone_from(targets);
        }
        entry.engine = EngineStandIn::default();
        entry.next_hosts = Vec::new();
        entry.names = BTreeMap::new();
        entry.tick_at = None;
        let (config, identity) = (entry.config.clone(), entry.identity.clone());
        entry.node = Some(Node::new(config, identity, random, self.now));
        self.reset_after_power_loss(host);
        let addresses = vec![self.hosts[host].address.ip()];
        self.input(host, Input::LocalAddresses(addresses));
    }

    /// Ends a host's process at once; its kernel resets what was open.
    pub(crate) fn kill(&mut self, host: HostId) {
        self.end(host);
        self.reset_links(host);
    }

    /// Ends a host without a word to anybody.
    pub(crate) fn power_off(&mut self, host: HostId) {
        self.end(host);
        self.lose_power_on_links(host);
    }

    fn end(&mut self, host: HostId) {
        self.hosts[host].node = None;
        self.hosts[host].life += 1;
        self.crash.take_if(|(crashing, _)| *crashing == host);
        // What was being written may have come to the disk, or not; a later write not without the earlier.
        while let Some(record) = self.hosts[host].unwritten.pop_front()
            && self.random.u32().is_multiple_of(2)
        {
            self.hosts[host].stored.write(record);
        }
        self.hosts[host].unwritten.clear();
    }

    /// The host's process ends after that many more outputs, whatever it is doing then.
    pub(crate) fn crash_after(&mut self, host: HostId, outputs: usize) {
        self.crash = Some((host, outputs));
    }

    pub(crate) fn cut(&mut self, a: HostId, b: HostId) {
        self.cut_one_way(a, b);
        self.cut_one_way(b, a);
    }

    /// What `from` sends does not reach `to`; the other way is good.
    pub(crate) fn cut_one_way(&mut self, from: HostId, to: HostId) {
        self.underlay.cut(from, to);
    }

    pub(crate) fn heal(&mut self, a: HostId, b: HostId) {
        self.underlay.mend(a, b);
        self.underlay.mend(b, a);
        let shared = self.hosts[a].wires.intersection(&self.hosts[b].wires);
        for wire in shared.copied().collect::<Vec<_>>() {
            self.release(wire);
        }
    }

    /// Puts each host on the side that `side` says; nothing passes between sides.
    pub(crate) fn split(&mut self, side: impl Fn(HostId) -> u8) {
        let sides = (0..self.hosts.len()).map(side).collect();
        self.underlay.set_sides(sides);
    }

    /// Ends a split.
    pub(crate) fn join(&mut self) {
        self.underlay.set_sides(Vec::new());
        for wire in 0..self.wires.len() {
            if self.wires[wire].open {
                self.release(wire);
            }
        }
    }

    /// Runs until the queue has nothing more within `duration`.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.step(end) {}
        self.now = end;
    }

    /// Runs until the condition holds; panics after `limit`. Returns how long it took.
    pub(crate) fn run_until(
        &mut self,
        limit: Duration,
        what: &str,
        condition: impl Fn(&Self) -> bool,
    ) -> Duration {
        let start = self.now;
        while !condition(self) && self.step(start + limit) {}
        assert!(
            condition(self),
            "not within {limit:?}: {what}; {:#?}",
            self.status(0)
        );
        self.now - start
    }

    /// As `run_until`, for a condition that costs much: looks every `pace`, and gives `None` after `limit`.
    pub(crate) fn run_until_seen(
        &mut self,
        limit: Duration,
        pace: Duration,
        mut condition: impl FnMut(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while !condition(self) {
            if self.now - start >= limit {
                return None;
            }
            self.run_for(pace);
        }
        Some(self.now - start)
    }

    /// Lets the next event happen; false if there is none until `end`.
    fn step(&mut self, end: Instant) -> bool {
        let Some((at, event)) = self.queue.pop(end) else {
            return false;
        };
        self.now = self.now.max(at);
        self.happen(event);
        true
    }

    fn at(&mut self, at: Instant, event: SimEvent) {
        self.queue.push(at, event);
    }

    /// Gives this process of a host an input after a while.
    fn later(&mut self, host: HostId, after: Duration, input: Input) {
        let life = self.hosts[host].life;
        let input = Box::new(input);
        self.at(self.now + after, SimEvent::Input { host, life, input });
    }

    fn base_latency_between(&self, a: HostId, b: HostId) -> Duration {
        let own = self.underlay.latency_between(a, b);
        own.unwrap_or(self.latency)
    }

    fn latency_between(&mut self, a: HostId, b: HostId) -> Duration {
        let base = self.base_latency_between(a, b);
        let jitter = self.underlay.weather.jitter_percent;
        self.random.around(base, jitter)
    }

    fn happen(&mut self, event: SimEvent) {
        match event {
            SimEvent::Input { host, life, input } => {
                if self.hosts[host].life == life {
                    if matches!(*input, Input::Persisted { .. })
                        && let Some(record) = self.hosts[host].unwritten.pop_front()
                    {
                        self.hosts[host].stored.write(record);
                    }
                    self.input(host, *input);
                }
            }
            SimEvent::Tick { host, life } => {
                let now = self.now;
                let entry = &mut self.hosts[host];
                if entry.life == life && entry.tick_at.take_if(|at| *at == now).is_some() {
                    let due = entry.node.as_ref().and_then(Node::deadline);
                    if due.is_some_and(|due| due <= now) {
                        self.input(host, Input::Tick);
                    } else {
                        self.await_tick(host);
                    }
                }
            }
            SimEvent::PathTick { host, life, slot } => {
                if self.hosts[host].life == life {
                    self.path_tick(host, slot);
                }
            }
            SimEvent::Open(open) => self.open(&open),
            SimEvent::Arrive { wire, to } => self.arrive(wire, to),
            SimEvent::Datagram(datagram) => {
                self.note(
                    3,
                    datagram.summary()[0],
                    &datagram.summary()[1].to_le_bytes(),
                );
                self.datagram(*datagram);
            }
        }
    }

    fn note(&mut self, kind: u64, subject: u64, bytes: &[u8]) {
        let at = (self.now - self.started_at).as_nanos();
        let at = u64::try_from(at).unwrap_or(u64::MAX);
        self.trace.note(at, [kind, subject], bytes);
    }

    /// Feeds one input to a host and carries out what comes of it.
    pub(crate) fn input(&mut self, host: HostId, input: Input) {
        if let Input::LinkData { link, data } = &input {
            let (link, data) = (link.0, data.clone());
            self.note(1, link, &data);
        } else {
            self.note(2, host as u64, &[]);
        }
        let now = self.now;
        let life = self.hosts[host].life;
        let mut outputs = VecDeque::new();
        if let Some(node) = &mut self.hosts[host].node {
            node.handle(input, now);
            while let Some(output) = node.poll_output() {
                outputs.push_back(output);
            }
        }
        for output in outputs {
            if let Some((_, left)) = self.crash.as_mut().filter(|crash| crash.0 == host) {
                if *left == 0 {
                    return self.kill(host);
                }
                *left -= 1;
            }
            if self.hosts[host].life == life {
                self.carry_out(host, output);
            }
        }
        self.await_tick(host);
    }

    /// Sees to it that a tick comes no later than the node's deadline.
    fn await_tick(&mut self, host: HostId) {
        let now = self.now;
        let entry = &mut self.hosts[host];
        let due = entry.node.as_ref().and_then(Node::deadline);
        if let Some(due) = due
            && entry.tick_at.is_none_or(|at| due < at)
        {
            let (due, life) = (due.max(now), entry.life);
            entry.tick_at = Some(due);
            self.at(due, SimEvent::Tick { host, life });
        }
    }

    fn carry_out(&mut self, host: HostId, output: Output) {
        match output {
            Output::Dial { dial, address } => self.dial(host, dial, &address),
            Output::Send { link, data } => self.send(host, link, Some(data)),
            Output::Close { link } => self.send(host, link, None),
            Output::Engine(command) => self.command(host, command),
            Output::Persist { token, record } => {
                let durable = true;
                self.hosts[host].unwritten.push_back(record);
                self.later(host, PERSIST_TIME, Input::Persisted { token, durable });
            }
            Output::Pong { result, .. } => self.hosts[host].pongs.push(result),
            Output::CountTraffic => {
                let peers = self.hosts[host].engine.peers.iter();
                let counts = peers.map(|(slot, peer)| (*slot, peer.frames)).collect();
                self.later(host, Duration::ZERO, Input::Traffic(counts));
            }
            Output::Answer { result, .. } => self.hosts[host]
                .answers
                .push(result.map_err(|error| error.error)),
            Output::Names { origin, entries } => {
                self.hosts[host].names.insert(origin, entries);
            }
            Output::Notice(notice) => self.hosts[host].notices.push(notice),
            // Addresses have a simulator of their own (ipam/sim.rs).
            Output::Ipam(_) => {}
        }
    }
}
