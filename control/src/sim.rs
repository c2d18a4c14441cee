//! Many nodes on a virtual clock: real state machines and cryptography, made-up network and engine.
//!
//! ```text
//!  Node ── Output ──► Sim ─┬─ links: bytes in order, held while the way is cut (TCP retransmits)
//!   ▲                      ├─ dials: opened, refused, or timed out
//!   └────── Input ─────────┴─ engine stand-in: installs epochs, probes and carries messages; datagrams are lost
//!                             while the way is cut
//! ```
//!
//! Everything follows from the seed. One event queue, ordered by time and then by age.

mod engine;
pub(crate) mod host;
mod net;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weft_engine::command::SessionKeys;

use crate::api::Status;
use crate::config::{BootId, NodeConfig};
use crate::node::Node;
use crate::node::exchange::{DialId, Input, Output, RequestId};
use crate::node::notice::Notice;
use crate::peer::Identity;
use crate::random::Randomness;
use crate::secret::NetworkId;
use crate::sim::engine::{EngineStandIn, PROBE_PERIOD};
use crate::sim::host::HostSpec;
use crate::sim::net::Wire;

pub(crate) type HostId = usize;
/// Changes bytes on their way; false drops them.
pub(crate) type Tamper = Box<dyn FnMut(&mut Vec<u8>) -> bool>;

/// The first instant of a simulation.
#[expect(
    clippy::disallowed_methods,
    reason = "a simulation needs one first instant, and std has no other"
)]
pub(crate) fn first_instant() -> Instant {
    Instant::now()
}

enum SimEvent {
    Input {
        host: HostId,
        life: u64,
        input: Input,
    },
    Open {
        from: HostId,
        life: u64,
        dial: DialId,
        to: SocketAddr,
    },
    Arrive {
        wire: usize,
        forward: bool,
        data: Option<Bytes>,
    },
    Datagram {
        from: SocketAddr,
        to: SocketAddr,
        index: u32,
        keys: Arc<SessionKeys>,
        message: Option<Bytes>,
    },
    Probe {
        host: HostId,
        life: u64,
    },
}

pub(crate) struct Host {
    node: Option<Node>,
    life: u64,
    identity: Identity,
    config: NodeConfig,
    pub(crate) address: SocketAddr,
    engine: EngineStandIn,
    pub(crate) notices: Vec<Notice>,
    pub(crate) answers: Vec<Result<(), String>>,
}

pub(crate) struct Sim {
    pub(crate) now: Instant,
    random: Randomness,
    queue: BTreeMap<(Instant, u64), SimEvent>,
    sequence: u64,
    links: u64,
    pub(crate) hosts: Vec<Host>,
    wires: Vec<Wire>,
    cuts: BTreeSet<(HostId, HostId)>,
    pub(crate) latency: Duration,
    /// Spoils bytes on their way; says whether they go on.
    pub(crate) tamper: Option<Tamper>,
    /// Datagrams that found no epoch to open them while the way was good.
    pub(crate) lost: u64,
    pub(crate) delivered: u64,
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            now: first_instant(),
            random: Randomness::seeded(seed),
            queue: BTreeMap::new(),
            sequence: 0,
            links: 0,
            hosts: Vec::new(),
            wires: Vec::new(),
            cuts: BTreeSet::new(),
            latency: Duration::from_millis(2),
            tamper: None,
            lost: 0,
            delivered: 0,
        }
    }

    /// Adds a host with address 192.0.2.(1 + its number) and starts it.
    pub(crate) fn add(&mut self, spec: HostSpec) -> HostId {
        let host = self.hosts.len();
        let identity = Identity::generate(&mut self.random);
        self.add_with_identity(spec, identity, 1);
        host
    }

    pub(crate) fn add_with_identity(
        &mut self,
        spec: HostSpec,
        identity: Identity,
        incarnation: u64,
    ) -> HostId {
        let host = self.hosts.len();
        let ip = Ipv4Addr::new(192, 0, 2, u8::try_from(host + 1).unwrap());
        let config = NodeConfig {
            network_id: NetworkId::of(spec.network),
            network: spec.network.to_owned(),
            secrets: spec.secrets,
            name: None,
            nickname: spec.nickname.parse().unwrap(),
            port: 6783,
            workers: 2,
            ciphers: spec.ciphers,
            mtu: 1376,
            discovery: true,
            boot_id: BootId([0; 8]),
            incarnation: incarnation - 1,
            targets: spec.targets,
            rekey: spec.rekey,
        };
        self.hosts.push(Host {
            node: None,
            life: 0,
            identity,
            config,
            address: (ip, 6783).into(),
            engine: EngineStandIn::default(),
            notices: Vec::new(),
            answers: Vec::new(),
        });
        self.start(host);
        host
    }

    pub(crate) fn identity(&self, host: HostId) -> Identity {
        self.hosts[host].identity.clone()
    }

    /// Starts a host that is not running: a new process of the same identity.
    pub(crate) fn start(&mut self, host: HostId) {
        let boot_id = BootId(self.random.bytes());
        let random = self.random.fork();
        let entry = &mut self.hosts[host];
        entry.life += 1;
        entry.config.boot_id = boot_id;
        entry.config.incarnation += 1;
        entry.engine = EngineStandIn::default();
        entry.node = Some(Node::new(
            entry.config.clone(),
            entry.identity.clone(),
            random,
            self.now,
        ));
        let life = entry.life;
        self.at(self.now + PROBE_PERIOD, SimEvent::Probe { host, life });
        self.input(host, Input::Tick);
    }

    /// Ends a host at once; its kernel resets what was open.
    pub(crate) fn kill(&mut self, host: HostId) {
        self.hosts[host].node = None;
        self.hosts[host].life += 1;
        for wire in 0..self.wires.len() {
            for (end, forward) in [(0, true), (1, false)] {
                if self.wires[wire].open && self.wires[wire].ends[end].0 == host {
                    self.transmit(wire, forward, None);
                }
            }
        }
    }

    pub(crate) fn cut(&mut self, a: HostId, b: HostId) {
        self.cuts.insert((a.min(b), a.max(b)));
    }

    pub(crate) fn heal(&mut self, a: HostId, b: HostId) {
        self.cuts.remove(&(a.min(b), a.max(b)));
        for wire in 0..self.wires.len() {
            let ends = self.wires[wire].ends;
            if (ends[0].0.min(ends[1].0), ends[0].0.max(ends[1].0)) == (a.min(b), a.max(b)) {
                for (forward, data) in std::mem::take(&mut self.wires[wire].held) {
                    // TCP sends again when its timer says so, up to as long after as the cut was.
                    self.transmit_after(wire, forward, data, Duration::from_secs(10));
                }
            }
        }
    }

    fn is_cut(&self, a: HostId, b: HostId) -> bool {
        self.cuts.contains(&(a.min(b), a.max(b)))
    }

    /// Runs until the queue has nothing more within `duration`.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.run_while(end, |_| true);
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
        self.run_while(start + limit, |sim| !condition(sim));
        assert!(
            condition(self),
            "not within {limit:?}: {what}; {:#?}",
            self.status(0)
        );
        self.now - start
    }

    fn run_while(&mut self, end: Instant, go_on: impl Fn(&Self) -> bool) {
        while go_on(self) {
            let queued = self.queue.first_key_value().map(|((at, _), _)| *at);
            let ticks = self.hosts.iter().enumerate();
            let tick = ticks
                .filter_map(|(id, host)| Some((host.node.as_ref()?.deadline()?, id)))
                .min();
            match (queued, tick) {
                (Some(at), tick) if at <= end && tick.is_none_or(|(tick, _)| at <= tick) => {
                    let Some(((at, _), event)) = self.queue.pop_first() else {
                        return;
                    };
                    self.now = self.now.max(at);
                    self.happen(event);
                }
                (_, Some((at, host))) if at <= end => {
                    self.now = self.now.max(at);
                    self.input(host, Input::Tick);
                }
                _ => return,
            }
        }
    }

    fn at(&mut self, at: Instant, event: SimEvent) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    fn latency(&mut self) -> Duration {
        let latency = self.latency;
        self.random.around(latency, 50)
    }

    fn happen(&mut self, event: SimEvent) {
        match event {
            SimEvent::Input { host, life, input } => {
                if self.hosts[host].life == life {
                    self.input(host, input);
                }
            }
            SimEvent::Open {
                from,
                life,
                dial,
                to,
            } => self.open(from, life, dial, to),
            SimEvent::Arrive {
                wire,
                forward,
                data,
            } => self.arrive(wire, forward, data),
            SimEvent::Datagram {
                from,
                to,
                index,
                keys,
                message,
            } => self.datagram(from, to, index, &keys, message),
            SimEvent::Probe { host, life } => self.probe(host, life),
        }
    }

    /// Feeds one input to a host and carries out what comes of it.
    pub(crate) fn input(&mut self, host: HostId, input: Input) {
        let now = self.now;
        let mut outputs = VecDeque::new();
        if let Some(node) = &mut self.hosts[host].node {
            node.handle(input, now);
            while let Some(output) = node.poll_output() {
                outputs.push_back(output);
            }
        }
        for output in outputs {
            self.carry_out(host, output);
        }
    }

    fn carry_out(&mut self, host: HostId, output: Output) {
        match output {
            Output::Dial { dial, address } => self.dial(host, dial, &address),
            Output::Send { link, data } => self.send(host, link, Some(data)),
            Output::Close { link } => self.send(host, link, None),
            Output::Engine(command) => self.command(host, command),
            Output::Persist { token, .. } => {
                let life = self.hosts[host].life;
                let input = Input::Persisted {
                    token,
                    durable: true,
                };
                self.at(
                    self.now + Duration::from_millis(5),
                    SimEvent::Input { host, life, input },
                );
            }
            Output::Answer { result, .. } => self.hosts[host]
                .answers
                .push(result.map_err(|error| error.error)),
            Output::Notice(notice) => self.hosts[host].notices.push(notice),
        }
    }

    /// Every host sends one datagram to each peer that it has an active session with.
    pub(crate) fn traffic(&mut self) {
        for host in 0..self.hosts.len() {
            for slot in self.hosts[host].engine.peers.clone() {
                self.datagram_to(host, slot, None);
            }
        }
    }

    pub(crate) fn status(&self, host: HostId) -> Option<Status> {
        Some(
            self.hosts[host]
                .node
                .as_ref()?
                .status(crate::api::EngineStatus::default(), self.now),
        )
    }

    /// Whether `host` shows an established connection to the one of that nickname.
    pub(crate) fn established(&self, host: HostId, nickname: &str) -> bool {
        self.status(host).is_some_and(|status| {
            status
                .connections
                .iter()
                .any(|line| line.state == "established" && line.nickname == nickname)
        })
    }

    /// Links that are up between two hosts.
    pub(crate) fn links_to(&self, host: HostId, nickname: &str) -> usize {
        let status = self.status(host);
        let lines = status.iter().flat_map(|status| &status.connections);
        lines
            .filter(|line| line.nickname == nickname && !line.detail.contains("lost"))
            .count()
    }

    pub(crate) fn rekeys(&self, host: HostId) -> u64 {
        self.status(host).map_or(0, |status| {
            status
                .connections
                .iter()
                .map(|line| line.rekeys)
                .max()
                .unwrap_or(0)
        })
    }

    pub(crate) fn epochs(&self, host: HostId) -> usize {
        self.hosts[host].engine.epochs.len()
    }

    pub(crate) fn connect(&mut self, host: HostId, peers: &[&str], replace: bool) {
        let peers = peers.iter().map(ToString::to_string).collect();
        self.input(
            host,
            Input::Connect {
                request: RequestId(1),
                peers,
                replace,
            },
        );
    }

    pub(crate) fn counters(&self, host: HostId) -> BTreeMap<String, u64> {
        self.hosts[host]
            .node
            .as_ref()
            .map(Node::counters)
            .unwrap_or_default()
    }
}
