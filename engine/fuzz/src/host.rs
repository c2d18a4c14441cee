//! A host over memory with one peer, a session and a path: the one that is attacked, or its peer.
//!
//! ```text
//!  HERE  192.0.2.1   receiver index 7, seals for 9
//!  PEER  192.0.2.2   receiver index 9, seals for 7
//!  OTHER 192.0.2.3   another peer of HERE, for which HERE relays
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
use std::time::{Duration, Instant};

use weft_engine::bridge::{Branch, Fib, GroupFib, NextHop};
use weft_engine::command::{Command, Event, GroupKey, PeerSlot, SecretKey, SessionKeys};
use weft_engine::datapath::{Datapath, Order};
use weft_engine::io::Io;
use weft_engine::io::memory::{MemoryIo, MemoryTrain};
use weft_engine::io::offload::CoalesceConfig;
use weft_engine::packet::Pool;
use weft_engine::session::{CipherSuite, EpochShared, Implementation, SealLane};
use weft_engine::shared::{Endpoint, PeerShared, Shared};
use weft_engine::verdict::{DropReason, Station};
use weft_engine::wire::{HEADER_LEN, TAG_LEN};

/// Where the attacked host is.
pub const HERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 6783);
/// Where its peer is.
pub const PEER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 2)), 6783);
/// Where another peer is, which is heard of only when something is passed on to it.
pub const OTHER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 3)), 6783);
/// The names of the three in RELAY and GROUP headers: the attacked host, its peer, the other.
pub const LABELS: [[u8; 8]; 3] = [[9; 8], [1; 8], [2; 8]];
/// The number of the peer's group key.
pub const GROUP_EPOCH: u32 = 5;
/// What the peer writes into its datagrams to the attacked host.
pub const RECEIVER: u32 = 7;
/// What the attacked host writes into its datagrams to the peer.
pub const PEER_RECEIVER: u32 = 9;
/// Lanes that the peer has.
pub const PEER_LANES: u8 = 4;

const SLOT: PeerSlot = PeerSlot(3);
const OTHER_SLOT: PeerSlot = PeerSlot(4);
const GROUP_KEY: SecretKey = SecretKey([77; 32]);
const PACKETS: usize = 24;
const VNET_LEN: usize = 10;

thread_local! {
    /// Hosts of earlier inputs: their tables and buffers take longer to make than an input to run.
    static USED: RefCell<Vec<Host>> = const { RefCell::new(Vec::new()) };
}

/// One end.
pub struct Host {
    /// The virtual clock.
    pub now: Instant,
    /// Reports to control that were not about the session.
    pub events: Vec<Event>,
    shared: Arc<Shared>,
    workers: Vec<(Datapath, MemoryIo)>,
    here: bool,
    /// What the counters said when this input began.
    drops_before: Vec<u64>,
    stations_before: Vec<u64>,
}

impl Host {
    /// The attacked host.
    pub fn here(workers: u16, datagram_max: usize) -> Self {
        Self::new(workers, datagram_max, true)
    }

    /// Its honest peer.
    pub fn peer(workers: u16, datagram_max: usize) -> Self {
        Self::new(workers, datagram_max, false)
    }

    fn new(workers: u16, datagram_max: usize, here: bool) -> Self {
        let fits = |host: &Self| host.here == here && host.workers.len() == usize::from(workers);
        let used = USED.with_borrow_mut(|used| {
            let at = used.iter().position(fits)?;
            Some(used.swap_remove(at))
        });
        let mut host = used.unwrap_or_else(|| Self::made(workers, here));
        // All that was learned is too old by now.
        host.now += Duration::from_secs(3600);
        host.meet(datagram_max);
        host.drops_before = DropReason::ALL
            .iter()
            .map(|reason| host.dropped_ever(*reason))
            .collect();
        host.stations_before = Station::ALL
            .iter()
            .map(|station| host.passed_ever(*station))
            .collect();
        host
    }

    fn made(workers: u16, here: bool) -> Self {
        let now = Instant::now();
        let suites = BTreeMap::from([(CipherSuite::ChaCha20Poly1305, Implementation::RustCrypto)]);
        let shared = Shared::new(workers, suites, 1500, 5, now).expect("an eventfd");
        let shared = Arc::new(shared);
        let coalesce = CoalesceConfig {
            tcp4: true,
            tcp6: true,
            udp: true,
        };
        let make = |worker| {
            let pool = Pool::new(PACKETS);
            let datapath = Datapath::new(worker, Arc::clone(&shared), pool, coalesce);
            (datapath, MemoryIo::default())
        };
        Self {
            now,
            events: Vec::new(),
            workers: (0..workers).map(make).collect(),
            shared,
            here,
            drops_before: Vec::new(),
            stations_before: Vec::new(),
        }
    }

    /// Ends the input: everything must be back in its place. The host is kept for the next.
    pub fn finish(mut self) {
        self.check_pools();
        self.order(&Order::Command(Command::RemovePeer { slot: SLOT }));
        self.order(&Order::Command(Command::RemovePeer { slot: OTHER_SLOT }));
        self.trains_out();
        self.delivered();
        self.events.clear();
        self.check_pools();
        USED.with_borrow_mut(|used| used.push(self));
    }

    fn meet(&mut self, datagram_max: usize) {
        let here = self.here;
        let address = if here { PEER } else { HERE };
        let [ours, label, other] = LABELS;
        let (label, ours) = if here { (label, ours) } else { (ours, label) };
        self.order(&Order::Command(Command::SetLabel(ours)));
        self.add(SLOT, label, (address, datagram_max), keys(here));
        self.add(OTHER_SLOT, other, (OTHER, datagram_max), other_keys());
        let branch = Branch {
            parent: SLOT,
            children: vec![OTHER_SLOT],
        };
        let fib = Fib {
            generation: 1,
            routes: BTreeMap::from([(SLOT, NextHop::Direct), (OTHER_SLOT, NextHop::Direct)]),
            flood: vec![SLOT],
            group: Some(Arc::new(GroupFib {
                sources: BTreeMap::from([(SLOT, branch)]),
                ..GroupFib::default()
            })),
            ..Fib::default()
        };
        for command in [
            Command::SetFib(Arc::new(fib)),
            Command::SetGroupKey(Arc::new(group_key(Some(SLOT)))),
            Command::SetCandidates {
                slot: SLOT,
                addresses: [address].into(),
            },
        ] {
            self.order(&Order::Command(command));
        }
        self.turn();
        self.trains_out();
    }

    /// A peer with a session and a path.
    fn add(
        &mut self,
        slot: PeerSlot,
        label: [u8; 8],
        (address, datagram_max): (SocketAddr, usize),
        keys: SessionKeys,
    ) {
        let peer = Arc::new(PeerShared::new(label));
        peer.endpoint.store(Some(Arc::new(Endpoint {
            address,
            local: None,
            datagram_max,
        })));
        self.order(&Order::AddPeer(slot, peer));
        let local_index = keys.local_index;
        let epoch = EpochShared {
            pending: AtomicU16::new(u16::try_from(self.workers.len()).unwrap_or(1)),
            confirmed: AtomicBool::new(true),
            forged: AtomicU64::new(0),
        };
        self.order(&Order::InstallSession(Arc::new(keys), Arc::new(epoch)));
        let activate = Command::ActivateSession { slot, local_index };
        self.order(&Order::Command(activate));
    }

    fn order(&mut self, order: &Order) {
        for (datapath, _) in &mut self.workers {
            datapath.apply(order.clone(), self.now);
        }
    }

    /// Puts a train before a worker's socket; more than a buffer holds is cut off.
    pub fn arrive(&mut self, worker: u8, from: SocketAddr, bytes: &[u8], segment: u16) {
        let at = usize::from(worker) % self.workers.len();
        self.workers[at].1.trains_in.push_back(MemoryTrain {
            bytes: bytes.to_vec(),
            segment: usize::from(segment),
            address: from,
        });
    }

    /// Puts bytes before a TAP, virtio header first.
    pub fn send(&mut self, worker: u8, bytes: &[u8]) {
        let at = usize::from(worker) % self.workers.len();
        self.workers[at].1.frames_in.push_back(bytes.to_vec());
    }

    /// Two turns of every worker's loop, so that what is handed from one to another is done too.
    pub fn turn(&mut self) {
        for _ in 0..2 {
            self.workers
                .iter_mut()
                .for_each(|(datapath, io)| turn(datapath, io, self.now));
        }
        self.events
            .extend(std::iter::from_fn(|| self.shared.events.pop()));
    }

    /// Lets time pass.
    pub fn wait(&mut self, time: Duration) {
        self.now += time;
        self.turn();
    }

    /// Takes all that was sent.
    pub fn trains_out(&mut self) -> Vec<MemoryTrain> {
        let trains = self.workers.iter_mut();
        trains.flat_map(|(_, io)| io.trains_out.drain(..)).collect()
    }

    /// Takes all that was delivered, without virtio headers.
    pub fn delivered(&mut self) -> Vec<Vec<u8>> {
        let frames = self.workers.iter_mut();
        let frames = frames.flat_map(|(_, io)| io.frames_out.drain(..));
        frames.map(|frame| frame[VNET_LEN..].to_vec()).collect()
    }

    /// How often something was dropped for this reason.
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.dropped_ever(reason) - self.drops_before[reason as usize]
    }

    fn dropped_ever(&self, reason: DropReason) -> u64 {
        let workers = self.shared.workers.iter();
        workers.map(|worker| worker.counters.dropped(reason)).sum()
    }

    /// All that was dropped.
    pub fn dropped_in_all(&self) -> u64 {
        DropReason::ALL
            .iter()
            .map(|reason| self.dropped(*reason))
            .sum()
    }

    /// What was dropped, by reason, for a message.
    pub fn drops(&self) -> Vec<(&'static str, u64)> {
        let all = DropReason::ALL.iter();
        all.map(|reason| (reason.name(), self.dropped(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }

    /// How much passed a station.
    pub fn passed(&self, station: Station) -> u64 {
        self.passed_ever(station) - self.stations_before[station as usize]
    }

    fn passed_ever(&self, station: Station) -> u64 {
        let workers = self.shared.workers.iter();
        workers.map(|worker| worker.counters.passed(station)).sum()
    }

    /// Panics unless every packet is back in its pool and every hand-off buffer in its ring.
    fn check_pools(&mut self) {
        let workers = self.workers.len();
        for (at, (datapath, _)) in self.workers.iter_mut().enumerate() {
            assert_eq!(
                datapath.pool().free_count(),
                PACKETS,
                "packets of worker {at}"
            );
            let shared = &self.shared.workers[at];
            let whole = if workers > 1 {
                weft_engine::config::HANDOFFS_MAX
            } else {
                0
            };
            assert_eq!(
                shared.handoffs_free.len(),
                whole,
                "hand-off buffers of worker {at}"
            );
        }
    }
}

fn turn(datapath: &mut Datapath, io: &mut MemoryIo, now: Instant) {
    datapath.take_handoffs(now);
    datapath.deliver(io);
    let mut received = Vec::new();
    loop {
        io.udp_recv(1, datapath.pool(), &mut received);
        let Some(train) = received.pop() else { break };
        datapath.receive(train, now);
        if datapath.should_deliver() || datapath.pool().free_count() < 4 {
            datapath.deliver(io);
            datapath.flush();
            send(datapath, io);
        }
    }
    datapath.deliver(io);
    while let Some(frame) = io.tap_recv().map(<[u8]>::to_vec) {
        datapath.transmit(&frame, now);
        send(datapath, io);
    }
    datapath.deliver(io);
    datapath.flush();
    datapath.tick(now);
    datapath.flush();
    send(datapath, io);
}

fn send(datapath: &mut Datapath, io: &mut MemoryIo) {
    while let Some(train) = datapath.pop_train() {
        io.udp_send(&train).expect("memory takes everything");
        datapath.recycle(train.packet);
    }
}

fn keys(here: bool) -> SessionKeys {
    let (local_index, remote_index, send, recv) = if here {
        (RECEIVER, PEER_RECEIVER, 1, 2)
    } else {
        (PEER_RECEIVER, RECEIVER, 2, 1)
    };
    SessionKeys {
        slot: SLOT,
        local_index,
        remote_index,
        suite: CipherSuite::ChaCha20Poly1305,
        send_key: SecretKey([send; 32]),
        recv_key: SecretKey([recv; 32]),
        peer_lanes: PEER_LANES,
    }
}

fn other_keys() -> SessionKeys {
    SessionKeys {
        slot: OTHER_SLOT,
        local_index: 11,
        remote_index: 13,
        suite: CipherSuite::ChaCha20Poly1305,
        send_key: SecretKey([3; 32]),
        recv_key: SecretKey([4; 32]),
        peer_lanes: PEER_LANES,
    }
}

fn group_key(slot: Option<PeerSlot>) -> GroupKey {
    GroupKey {
        slot,
        epoch: GROUP_EPOCH,
        suite: CipherSuite::ChaCha20Poly1305,
        key: GROUP_KEY,
        lanes: PEER_LANES,
    }
}

/// Seals the peer's floods on one of its lanes.
pub fn group_lane_of_peer(lane: u8) -> SealLane {
    let keys = SessionKeys {
        remote_index: GROUP_EPOCH,
        send_key: GROUP_KEY,
        ..keys(false)
    };
    SealLane::new(&keys, Implementation::RustCrypto, lane).expect("the cipher is built in")
}

/// Seals what the peer says on one of its lanes, and on one more that it does not have.
pub fn lane_of_peer(lane: u8) -> SealLane {
    SealLane::new(&keys(false), Implementation::RustCrypto, lane).expect("the cipher is built in")
}

/// A datagram with this plaintext.
pub fn sealed(lane: &mut SealLane, text: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; HEADER_LEN + text.len() + TAG_LEN];
    datagram[HEADER_LEN..][..text.len()].copy_from_slice(text);
    assert!(lane.seal(&mut datagram), "a new key");
    datagram
}
