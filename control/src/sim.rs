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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use weft_engine::command::{Command, Event, PeerSlot, SessionKeys};
use weft_engine::path::PathStatus;
use weft_engine::session::CipherSuite;

use crate::api::Status;
use crate::config::{BootId, CipherCost, DIAL_TIMEOUT, NodeConfig, RekeyConfig};
use crate::link::dialer::{TargetAddress, TargetHost};
use crate::node::Node;
use crate::node::exchange::{CloseCause, DialFailure, DialId, Input, LinkId, Output, RequestId};
use crate::node::notice::Notice;
use crate::peer::Identity;
use crate::random::Randomness;
use crate::secret::{Credential, NetworkId, Secrets};

/// How long the stand-in takes to install an epoch.
const INSTALL_TIME: Duration = Duration::from_micros(200);
/// How often the stand-in probes a peer that does not answer.
const PROBE_PERIOD: Duration = Duration::from_millis(500);
/// Silence after which the stand-in says that a path is down.
const PATH_TIMEOUT: Duration = Duration::from_secs(3);

pub(crate) type HostId = usize;

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

struct Wire {
    ends: [(HostId, LinkId); 2],
    open: bool,
    last_arrival: [Instant; 2],
    held: Vec<(bool, Option<Bytes>)>,
}

#[derive(Default)]
struct EngineStandIn {
    peers: BTreeSet<PeerSlot>,
    epochs: BTreeMap<u32, Arc<SessionKeys>>,
    confirmed: BTreeSet<u32>,
    active: BTreeMap<PeerSlot, u32>,
    candidates: BTreeMap<PeerSlot, Arc<[SocketAddr]>>,
    heard: BTreeMap<PeerSlot, Instant>,
    up: BTreeSet<PeerSlot>,
    generation: u64,
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
    pub(crate) tamper: Option<Box<dyn FnMut(&mut Vec<u8>) -> bool>>,
    /// Datagrams that found no epoch to open them while the way was good.
    pub(crate) lost: u64,
    pub(crate) delivered: u64,
}

/// What a host of a simulation is.
pub(crate) struct HostSpec {
    pub(crate) nickname: &'static str,
    pub(crate) secrets: Secrets,
    pub(crate) targets: Vec<String>,
    pub(crate) network: &'static str,
    pub(crate) ciphers: Vec<CipherCost>,
    pub(crate) rekey: RekeyConfig,
}

impl HostSpec {
    pub(crate) fn new(nickname: &'static str) -> Self {
        Self {
            nickname,
            secrets: Secrets::open(),
            targets: Vec::new(),
            network: "weft",
            ciphers: vec![CipherCost {
                suite: CipherSuite::ChaCha20Poly1305,
                ns_per_kib: 700,
            }],
            rekey: RekeyConfig::default(),
        }
    }

    pub(crate) fn dialling(self, targets: &[&str]) -> Self {
        Self {
            targets: targets.iter().map(ToString::to_string).collect(),
            ..self
        }
    }

    pub(crate) fn with_secrets(self, secrets: Secrets) -> Self {
        Self { secrets, ..self }
    }
}

/// Secrets without the cost of stretching: tokens made from numbers.
pub(crate) fn tokens(numbers: &[u8]) -> Secrets {
    let credentials: Vec<_> = numbers
        .iter()
        .map(|n| Credential::Token(zeroize::Zeroizing::new([*n; 32])))
        .collect();
    Secrets::stretch(&credentials, &NetworkId::of("weft")).unwrap()
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

    fn dial(&mut self, host: HostId, dial: DialId, address: &TargetAddress) {
        let life = self.hosts[host].life;
        let TargetHost::Ip(ip) = address.host else {
            let input = Input::DialFailed {
                dial,
                failure: DialFailure::Unresolved,
            };
            return self.at(self.now, SimEvent::Input { host, life, input });
        };
        let to = SocketAddr::new(ip, address.port);
        let latency = self.latency() * 2;
        self.at(
            self.now + latency,
            SimEvent::Open {
                from: host,
                life,
                dial,
                to,
            },
        );
    }

    fn host_at(&self, address: IpAddr) -> Option<HostId> {
        self.hosts
            .iter()
            .position(|host| host.address.ip() == address)
    }

    fn open(&mut self, from: HostId, life: u64, dial: DialId, to: SocketAddr) {
        let now = self.now;
        let Some(target) = self
            .host_at(to.ip())
            .filter(|target| !self.is_cut(from, *target))
        else {
            let input = Input::DialFailed {
                dial,
                failure: DialFailure::TimedOut,
            };
            return self.at(
                now + DIAL_TIMEOUT,
                SimEvent::Input {
                    host: from,
                    life,
                    input,
                },
            );
        };
        if self.hosts[target].node.is_none() || to.port() != self.hosts[target].address.port() {
            let input = Input::DialFailed {
                dial,
                failure: DialFailure::Refused,
            };
            return self.at(
                now,
                SimEvent::Input {
                    host: from,
                    life,
                    input,
                },
            );
        }
        if self.hosts[from].life != life {
            return;
        }
        self.links += 2;
        let (ours, theirs) = (LinkId(self.links), LinkId(self.links + 1));
        let local = SocketAddr::new(self.hosts[from].address.ip(), 40_000);
        let ends = [(from, ours), (target, theirs)];
        self.wires.push(Wire {
            ends,
            open: true,
            last_arrival: [now; 2],
            held: Vec::new(),
        });
        self.input(
            target,
            Input::LinkOpened {
                link: theirs,
                dial: None,
                remote: local,
                local: to,
            },
        );
        self.input(
            from,
            Input::LinkOpened {
                link: ours,
                dial: Some(dial),
                remote: to,
                local,
            },
        );
    }

    fn send(&mut self, host: HostId, link: LinkId, data: Option<Bytes>) {
        let Some(wire) = self
            .wires
            .iter()
            .position(|wire| wire.ends.contains(&(host, link)))
        else {
            return;
        };
        let forward = self.wires[wire].ends[0] == (host, link);
        self.transmit(wire, forward, data);
    }

    fn transmit(&mut self, wire: usize, forward: bool, data: Option<Bytes>) {
        let latency = self.latency();
        self.transmit_after(wire, forward, data, latency);
    }

    fn transmit_after(&mut self, wire: usize, forward: bool, data: Option<Bytes>, after: Duration) {
        let [(a, _), (b, _)] = self.wires[wire].ends;
        let mut data = data;
        if let (Some(tamper), Some(bytes)) = (&mut self.tamper, &data) {
            let mut bytes = bytes.to_vec();
            if !tamper(&mut bytes) {
                return;
            }
            data = Some(bytes.into());
        }
        if self.is_cut(a, b) {
            self.wires[wire].held.push((forward, data));
            return;
        }
        let last = &mut self.wires[wire].last_arrival[usize::from(forward)];
        *last = (self.now + after).max(*last);
        let at = *last;
        self.at(
            at,
            SimEvent::Arrive {
                wire,
                forward,
                data,
            },
        );
    }

    fn arrive(&mut self, wire: usize, forward: bool, data: Option<Bytes>) {
        let (host, link) = self.wires[wire].ends[usize::from(forward)];
        if !self.wires[wire].open {
            return;
        }
        match data {
            Some(data) => self.input(host, Input::LinkData { link, data }),
            None => {
                self.wires[wire].open = false;
                self.input(
                    host,
                    Input::LinkClosed {
                        link,
                        cause: CloseCause::Broken,
                    },
                );
            }
        }
    }

    fn command(&mut self, host: HostId, command: Command) {
        let (now, life) = (self.now, self.hosts[host].life);
        let engine = &mut self.hosts[host].engine;
        match command {
            Command::AddPeer { slot } => {
                assert!(engine.peers.insert(slot), "slot {slot:?} is in use")
            }
            Command::RemovePeer { slot } => {
                assert!(engine.peers.remove(&slot), "slot {slot:?} is free");
                engine.epochs.retain(|_, keys| keys.slot != slot);
                engine.active.remove(&slot);
                engine.candidates.remove(&slot);
                engine.up.remove(&slot);
            }
            Command::InstallSession(keys) => {
                assert!(
                    engine.peers.contains(&keys.slot),
                    "a session of a peer that was not added"
                );
                let (slot, local_index) = (keys.slot, keys.local_index);
                assert!(
                    engine.epochs.insert(local_index, keys).is_none(),
                    "index in use"
                );
                assert!(
                    engine
                        .epochs
                        .values()
                        .filter(|keys| keys.slot == slot)
                        .count()
                        <= 4,
                    "too many epochs"
                );
                let input = Input::Engine(Event::SessionInstalled { slot, local_index });
                self.at(now + INSTALL_TIME, SimEvent::Input { host, life, input });
            }
            Command::ActivateSession { slot, local_index } => {
                assert!(
                    engine.epochs.contains_key(&local_index),
                    "an epoch that was not installed"
                );
                engine.active.insert(slot, local_index);
                self.datagram_to(host, slot, None);
            }
            Command::RemoveSession { slot, local_index } => {
                assert!(
                    engine.epochs.remove(&local_index).is_some(),
                    "an epoch that is not there"
                );
                engine.confirmed.remove(&local_index);
                if engine.active.get(&slot) == Some(&local_index) {
                    engine.active.remove(&slot);
                }
            }
            Command::SetCandidates { slot, addresses } => {
                engine.candidates.insert(slot, addresses);
            }
            Command::SetFib(fib) => {
                assert!(fib.generation > engine.generation, "generations rise");
                assert_eq!(
                    fib.flood.iter().copied().collect::<BTreeSet<_>>(),
                    engine.peers
                );
                engine.generation = fib.generation;
            }
            Command::SendMessage { slot, message } => self.datagram_to(host, slot, Some(message)),
            Command::Bench { .. } => {}
        }
    }

    fn datagram_to(&mut self, host: HostId, slot: PeerSlot, message: Option<Bytes>) {
        let latency = self.latency();
        let engine = &self.hosts[host].engine;
        let Some(keys) = engine
            .active
            .get(&slot)
            .and_then(|index| engine.epochs.get(index))
            .cloned()
        else {
            return;
        };
        let Some(to) = engine
            .candidates
            .get(&slot)
            .and_then(|addresses| addresses.first())
            .copied()
        else {
            return;
        };
        let from = self.hosts[host].address;
        let index = keys.remote_index;
        self.at(
            self.now + latency,
            SimEvent::Datagram {
                from,
                to,
                index,
                keys,
                message,
            },
        );
    }

    fn datagram(
        &mut self,
        from: SocketAddr,
        to: SocketAddr,
        index: u32,
        keys: &SessionKeys,
        message: Option<Bytes>,
    ) {
        let (Some(sender), Some(host)) = (self.host_at(from.ip()), self.host_at(to.ip())) else {
            return;
        };
        if self.is_cut(sender, host) || self.hosts[host].node.is_none() {
            return;
        }
        let now = self.now;
        let engine = &mut self.hosts[host].engine;
        let ours = engine
            .epochs
            .get(&index)
            .filter(|ours| ours.recv_key == keys.send_key && ours.suite == keys.suite);
        let Some(ours) = ours else {
            self.lost += 1;
            return;
        };
        let slot = ours.slot;
        self.delivered += 1;
        let first = engine.confirmed.insert(index);
        engine.heard.insert(slot, now);
        let path_up = engine.active.contains_key(&slot) && engine.up.insert(slot);
        if first {
            self.input(
                host,
                Input::Engine(Event::SessionConfirmed {
                    slot,
                    local_index: index,
                }),
            );
        }
        if path_up {
            let path = PathStatus {
                address: from,
                rtt: 2 * self.latency,
                datagram_max: 1472,
                loss: 0.0,
            };
            self.input(host, Input::Engine(Event::PathUp { slot, path }));
        }
        if let Some(message) = message {
            self.input(host, Input::Engine(Event::Message { slot, message }));
        }
    }

    fn probe(&mut self, host: HostId, life: u64) {
        if self.hosts[host].life != life {
            return;
        }
        for slot in self.hosts[host].engine.peers.clone() {
            self.datagram_to(host, slot, None);
            let engine = &mut self.hosts[host].engine;
            let silent = engine
                .heard
                .get(&slot)
                .is_none_or(|at| self.now - *at >= PATH_TIMEOUT);
            if silent && engine.up.remove(&slot) {
                self.input(host, Input::Engine(Event::PathDown { slot }));
            }
        }
        self.at(self.now + PROBE_PERIOD, SimEvent::Probe { host, life });
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
