//! The stations in order, batch by batch; one instance a worker. **Read this first.**
//!
//! ```text
//!  transmit(frame)   tap_rx → bridge → stage → seal ─► trains ─► the worker's udp_tx
//!  receive(train)    udp_rx → open ─► coalescer
//!                               └─ for another peer ─► relay ─► trains
//!  deliver(io)       deliver ─► TAP
//! ```
//!
//! Sans-IO: time and bytes come as arguments, trains leave by [`Datapath::pop_train`]. What workers
//! share is in [`Shared`]; the rest is this worker's own.

mod bench;
mod fair;
mod flood;
mod group;
mod join;
mod probes;
mod receive;
mod relay;
mod train;
mod transmit;
mod way;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

pub use train::{Sink, TrainBuilder, Wrap};

use crate::bridge::{Fib, NeighbourTable, NextHop, Storm};
use crate::command::{Command, Event, Flow, Limits, PeerSlot, SessionKeys};
use crate::config::{EPOCHS_MAX, GROUP_EPOCHS_MAX, LANES_MAX, PEERS_MAX};
use crate::io::Train;
use crate::io::offload::{CoalesceConfig, Coalescer};
use crate::packet::{Packet, Pool};
use crate::path::Paths;
use crate::session::{EpochShared, OpenEpoch, SealLane};
use crate::shared::{PeerShared, Shared};
use crate::verdict::{Counters, DropReason, Station};
use crate::wire::ethernet::MacAddr;

/// A command with what the engine adds to it for the workers.
#[derive(Debug, Clone)]
pub enum Order {
    /// [`Command::AddPeer`].
    AddPeer(PeerSlot, Arc<PeerShared>),
    /// [`Command::InstallSession`].
    InstallSession(Arc<SessionKeys>, Arc<EpochShared>),
    /// Any other.
    Command(Command),
    /// End the worker.
    Stop,
}

/// One peer, as this worker sees it.
#[derive(Debug)]
struct Peer {
    shared: Arc<PeerShared>,
    /// What frames may do.
    flow: Flow,
    active: Option<SealLane>,
    standby: Vec<SealLane>,
    builder: TrainBuilder,
    /// What the FIB says of it.
    way: Option<NextHop>,
    /// Largest datagram of the whole way, or 0.
    way_max: usize,
    /// On worker 0 alone.
    paths: Option<Box<Paths>>,
    worn_reported: bool,
    /// Whether the peer was shown, behind a relay, that we have the keys of the active epoch.
    confirmed: bool,
    /// Its group keys that floods are accepted under, the newest last.
    groups: Vec<OpenEpoch>,
    /// Bytes that had passed when the path machine was last told.
    traffic_seen: u64,
}

/// Where an opened frame lies until it is delivered.
#[derive(Debug, Clone, Copy)]
struct Place {
    store: Store,
    /// Which packet of the store.
    index: usize,
    /// Where in the packet.
    start: usize,
}

/// The two places where opened frames wait.
#[derive(Debug, Clone, Copy)]
enum Store {
    /// `held`: packets as they were received.
    Held,
    /// `joined`: frames that came in two pieces.
    Joined,
}

/// Receiver indices are random already.
#[derive(Debug, Default, Clone, Copy)]
struct IndexHasher(u64);

impl Hasher for IndexHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }
    fn write_u64(&mut self, label: u64) {
        // Labels are hashes.
        self.0 = label;
    }
    fn write_u32(&mut self, index: u32) {
        // The table takes its bucket from the low bits and its tag from the high ones.
        self.0 = u64::from(index) | (u64::from(index) << 32);
    }
}

type Labels = HashMap<u64, PeerSlot, BuildHasherDefault<IndexHasher>>;
type Epochs = HashMap<u32, OpenEpoch, BuildHasherDefault<IndexHasher>>;

/// One worker's stations and tables.
#[derive(Debug)]
pub struct Datapath {
    worker: u16,
    shared: Arc<Shared>,
    fib: Arc<Fib>,
    peers: Box<[Option<Box<Peer>>]>,
    epochs: Epochs,
    /// Our own name in RELAY and GROUP headers.
    label: u64,
    /// Everybody else's.
    labels: Labels,
    limits: Limits,
    neighbours: Arc<NeighbourTable>,
    /// Addresses from which nothing leaves, sorted; mostly none.
    disputed: Arc<[[u8; 4]]>,
    storm: Storm,
    answers: flood::Answers,
    group: group::OwnGroup,
    relays: relay::Relays,
    pool: Pool,
    trains: VecDeque<Train>,
    /// Peers whose builder holds something.
    dirty: Vec<PeerSlot>,
    coalescer: Coalescer<Place>,
    /// Packets that the coalescer points into.
    held: Vec<Packet>,
    held_bytes: usize,
    held_frames: usize,
    /// The source MAC learned last, and whence: a batch is mostly one flow.
    learned: Option<(MacAddr, crate::bridge::Port, u64)>,
    /// Frames that came in two pieces, since the last delivery.
    joined: Vec<Packet>,
    /// Bytes used of the last of those packets.
    joined_len: usize,
    /// Where two pieces are put together.
    scratch: Vec<u8>,
    bench: Option<bench::Bench>,
    /// When a path machine is due, on worker 0.
    probes_due: Option<Instant>,
}

impl Datapath {
    /// The datapath of worker `worker`.
    pub fn new(worker: u16, shared: Arc<Shared>, pool: Pool, coalesce: CoalesceConfig) -> Self {
        let limits = Limits::default();
        let workers = shared.workers.len();
        let storm = Storm::new(limits.flood_per_mac, limits.flood_per_tap, workers);
        Self {
            worker,
            shared,
            fib: Arc::new(Fib::default()),
            peers: (0..PEERS_MAX).map(|_| None).collect(),
            epochs: HashMap::default(),
            label: 0,
            labels: HashMap::default(),
            limits,
            neighbours: Arc::default(),
            disputed: Arc::default(),
            storm,
            answers: flood::Answers::default(),
            group: group::OwnGroup::default(),
            relays: relay::Relays::default(),
            pool,
            trains: VecDeque::with_capacity(8),
            dirty: Vec::with_capacity(PEERS_MAX),
            coalescer: Coalescer::new(coalesce),
            held: Vec::with_capacity(crate::config::PACKETS_MAX),
            held_bytes: 0,
            held_frames: 0,
            learned: None,
            joined: Vec::new(),
            joined_len: 0,
            scratch: Vec::new(),
            bench: None,
            probes_due: None,
        }
    }

    /// The worker's buffers, for its I/O.
    pub fn pool(&mut self) -> &mut Pool {
        &mut self.pool
    }

    /// The next train to send; its packet goes back with [`Datapath::recycle`].
    pub fn pop_train(&mut self) -> Option<Train> {
        self.trains.pop_front()
    }

    /// Takes a packet back.
    pub fn recycle(&mut self, packet: Packet) {
        self.pool.put(packet);
    }

    /// This worker's counters.
    pub fn counters(&self) -> &Counters {
        counters(&self.shared, self.worker)
    }

    /// Applies one order of control's.
    pub fn apply(&mut self, order: Order, now: Instant) {
        match order {
            Order::AddPeer(slot, shared) => self.add_peer(slot, shared),
            Order::InstallSession(keys, epoch) => self.install(keys, epoch),
            Order::Command(command) => self.command(command, now),
            Order::Stop => {}
        }
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::RemovePeer { slot } => self.remove_peer(slot),
            Command::ActivateSession { slot, local_index } => self.activate(slot, local_index, now),
            Command::RemoveSession { slot, local_index } => {
                self.remove_session(slot, local_index, now)
            }
            Command::SetCandidates { slot, addresses } => {
                self.set_candidates(slot, &addresses, now)
            }
            Command::SetLabel(label) => self.label = u64::from_be_bytes(label),
            Command::SetFib(fib) => self.set_fib(fib, now),
            Command::SetNeighbours(table) => self.set_neighbours(table, now),
            Command::SetDisputed(disputed) => self.disputed = disputed,
            Command::SetFlow { slot, flow } => self.set_flow(slot, flow, now),
            Command::SetLimits(limits) => self.set_limits(limits),
            Command::SendMessage { slot, message } => self.send_message(slot, &message, now),
            Command::Bench { slot, load } => self.start_bench(slot, load, now),
            Command::SetGroupKey(key) => self.set_group_key(&key),
            Command::RemoveGroupKey { slot, epoch } => self.remove_group_key(slot, epoch),
            Command::AddPeer { .. } | Command::InstallSession(_) => {}
        }
    }

    fn add_peer(&mut self, slot: PeerSlot, shared: Arc<PeerShared>) {
        let label = shared.label;
        if let Some(place) = self.peers.get_mut(usize::from(slot.0)) {
            self.labels.insert(label, slot);
            *place = Some(Box::new(Peer {
                shared,
                flow: Flow::default(),
                active: None,
                standby: Vec::with_capacity(EPOCHS_MAX),
                builder: TrainBuilder::default(),
                way: self.fib.routes.get(&slot).copied(),
                way_max: self
                    .fib
                    .route_max
                    .get(&slot)
                    .copied()
                    .map_or(0, usize::from),
                paths: None,
                worn_reported: false,
                confirmed: false,
                groups: Vec::with_capacity(GROUP_EPOCHS_MAX),
                traffic_seen: 0,
            }));
        }
    }

    fn remove_peer(&mut self, slot: PeerSlot) {
        self.epochs.retain(|_, epoch| epoch.slot() != slot);
        self.dirty.retain(|dirty| *dirty != slot);
        if let Some(peer) = self
            .peers
            .get_mut(usize::from(slot.0))
            .and_then(Option::take)
        {
            let Peer {
                mut builder,
                shared,
                ..
            } = *peer;
            builder.clear(&mut self.pool);
            if self.labels.get(&shared.label) == Some(&slot) {
                self.labels.remove(&shared.label);
            }
            self.forget_relayed(slot);
            while self.shared.unstage(&shared).is_some() {}
        }
        if self.worker == 0 {
            self.shared.fdb.flush(slot);
        }
    }

    fn install(&mut self, keys: Arc<SessionKeys>, shared: Arc<EpochShared>) {
        let (slot, local_index) = (keys.slot, keys.local_index);
        let implementation = self.shared.implementations.get(&keys.suite).copied();
        if let (Some(implementation), Some(peer)) =
            (implementation, peer_mut(&mut self.peers, slot))
        {
            let lane = u8::try_from(usize::from(self.worker) % LANES_MAX).unwrap_or(0);
            if let Some(lane) = SealLane::new(&keys, implementation, lane) {
                if peer.standby.len() == EPOCHS_MAX {
                    peer.standby.remove(0);
                }
                peer.standby.push(lane);
            }
            self.epochs.insert(
                local_index,
                OpenEpoch::new(keys, implementation, Arc::clone(&shared)),
            );
        }
        if shared.pending.fetch_sub(1, Ordering::AcqRel) == 1 {
            let event = Event::SessionInstalled { slot, local_index };
            self.shared
                .report(event, counters(&self.shared, self.worker));
        }
    }

    /// Seals under this epoch from now on.
    fn activate(&mut self, slot: PeerSlot, local_index: u32, now: Instant) {
        let Some(peer) = peer_mut(&mut self.peers, slot) else {
            return;
        };
        let Some(at) = peer
            .standby
            .iter()
            .position(|lane| lane.local_index() == local_index)
        else {
            return;
        };
        // What was sealed under the old key leaves first.
        self.flush_peer(slot);
        let Some(peer) = peer_mut(&mut self.peers, slot) else {
            return;
        };
        let first = peer.active.is_none();
        peer.active = Some(peer.standby.remove(at));
        peer.worn_reported = false;
        peer.confirmed = false;
        self.session_ready(slot, now);
        self.confirm(slot);
        if first {
            // Others may be reached through this peer.
            self.drain_all(now);
        } else {
            self.drain(slot, now);
        }
    }

    fn remove_session(&mut self, slot: PeerSlot, local_index: u32, now: Instant) {
        self.epochs.remove(&local_index);
        let Some(peer) = peer_mut(&mut self.peers, slot) else {
            return;
        };
        peer.standby
            .retain(|lane| lane.local_index() != local_index);
        if peer
            .active
            .take_if(|lane| lane.local_index() == local_index)
            .is_some()
        {
            peer.builder.clear(&mut self.pool);
            self.session_lost(slot, now);
        }
    }

    /// The end of a batch: every train that is being filled leaves, and what others have us pass on.
    pub fn flush(&mut self) {
        self.pass_on();
        while let Some(slot) = self.dirty.pop() {
            self.flush_peer(slot);
        }
    }

    fn flush_peer(&mut self, slot: PeerSlot) {
        let Some(peer) = peer_mut(&mut self.peers, slot) else {
            return;
        };
        if peer.builder.is_empty() {
            return;
        }
        let sent = self.with_sink(slot, |builder, sink, _| builder.flush(sink));
        if sent.is_none()
            && let Some(peer) = peer_mut(&mut self.peers, slot)
        {
            peer.builder.clear(&mut self.pool);
        }
        self.report_wear(slot);
    }

    /// Asks for new keys, once an epoch, when the ones in use are getting old.
    fn report_wear(&mut self, slot: PeerSlot) {
        let Some(peer) = peer_mut(&mut self.peers, slot) else {
            return;
        };
        let Some(lane) = &peer.active else { return };
        if lane.is_worn() && !peer.worn_reported {
            peer.worn_reported = true;
            let event = Event::RekeyDue {
                slot,
                local_index: lane.local_index(),
            };
            self.shared
                .report(event, counters(&self.shared, self.worker));
        }
    }

    fn since_start(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.shared.start)
    }

    /// Counts what the worker saw its I/O do.
    pub fn count(&self, station: Station, count: u64) {
        self.counters().pass(station, count);
    }

    /// Counts what the worker's I/O refused.
    pub fn count_drop(&self, reason: DropReason) {
        self.counters().drop(reason);
    }
}

fn counters(shared: &Shared, worker: u16) -> &Counters {
    &shared.workers[usize::from(worker)].counters
}

fn peer_mut(peers: &mut [Option<Box<Peer>>], slot: PeerSlot) -> Option<&mut Peer> {
    peers.get_mut(usize::from(slot.0))?.as_deref_mut()
}
