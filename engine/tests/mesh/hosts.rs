//! Hosts on one underlay: host `n` is 192.0.2.(n+1), slot `n` of everybody, label `n+1` eight times.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
use std::time::{Duration, Instant};

use weft_engine::bridge::{Fib, NextHop};
use weft_engine::command::{Command, Event, PeerSlot, SecretKey, SessionKeys};
use weft_engine::datapath::{Datapath, Order};
use weft_engine::io::Io;
use weft_engine::io::memory::{MemoryIo, MemoryTrain};
use weft_engine::io::offload::CoalesceConfig;
use weft_engine::packet::Pool;
use weft_engine::session::{CipherSuite, EpochShared, Implementation};
use weft_engine::shared::{PeerShared, Shared};
use weft_engine::verdict::{DropReason, Station};

pub(crate) const VNET_LEN: usize = 10;
pub(crate) const PACKETS: usize = 160;

pub(crate) struct Host {
    pub(crate) shared: Arc<Shared>,
    pub(crate) workers: Vec<(Datapath, MemoryIo)>,
    pub(crate) events: Vec<Event>,
    pub(crate) routes: BTreeMap<PeerSlot, NextHop>,
    pub(crate) fib: Fib,
}

pub(crate) struct Mesh {
    pub(crate) hosts: Vec<Host>,
    pub(crate) now: Instant,
    /// Whether datagrams from one host to another arrive.
    pub(crate) links: fn(usize, usize) -> bool,
    epoch: u32,
}

pub(crate) fn slot(host: usize) -> PeerSlot {
    PeerSlot(u16::try_from(host).unwrap())
}

pub(crate) fn label(host: usize) -> [u8; 8] {
    [u8::try_from(host + 1).unwrap(); 8]
}

pub(crate) fn address(host: usize) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, u8::try_from(host + 1).unwrap()], 6783))
}

fn host_at(address: SocketAddr) -> usize {
    match address.ip() {
        std::net::IpAddr::V4(ip) => usize::from(ip.octets()[3]) - 1,
        std::net::IpAddr::V6(_) => panic!("the underlay is IPv4"),
    }
}

/// The keys of `epoch` as `host` has them.
pub(crate) fn keys(epoch: u32, host: usize, other: usize) -> SessionKeys {
    let index = |from: usize, to: usize| epoch << 16 | u32::try_from(from << 8 | to).unwrap();
    let key = |from: usize, to: usize| {
        let mut key = [u8::try_from(epoch).unwrap(); 32];
        key[0] = u8::try_from(from).unwrap();
        key[1] = u8::try_from(to).unwrap();
        SecretKey(key)
    };
    SessionKeys {
        slot: slot(other),
        local_index: index(host, other),
        remote_index: index(other, host),
        suite: CipherSuite::ChaCha20Poly1305,
        send_key: key(host, other),
        recv_key: key(other, host),
        peer_lanes: 16,
    }
}

impl Host {
    fn new(workers: u16, now: Instant) -> Self {
        let suites = BTreeMap::from([(CipherSuite::ChaCha20Poly1305, Implementation::RustCrypto)]);
        let shared = Arc::new(Shared::new(workers, suites, 1500, 5, now).unwrap());
        let config = CoalesceConfig {
            tcp4: true,
            tcp6: true,
            udp: true,
        };
        let make = |worker| {
            let pool = Pool::new(PACKETS);
            let datapath = Datapath::new(worker, Arc::clone(&shared), pool, config);
            (datapath, MemoryIo::default())
        };
        Self {
            workers: (0..workers).map(make).collect(),
            shared,
            events: Vec::new(),
            routes: BTreeMap::new(),
            fib: Fib::default(),
        }
    }

    pub(crate) fn order(&mut self, order: &Order, now: Instant) {
        for (datapath, _) in &mut self.workers {
            datapath.apply(order.clone(), now);
        }
    }

    pub(crate) fn command(&mut self, command: Command, now: Instant) {
        self.order(&Order::Command(command), now);
    }

    /// One turn of every worker's loop.
    pub(crate) fn turn(&mut self, now: Instant) {
        for (datapath, io) in &mut self.workers {
            datapath.take_handoffs(now);
            let mut received = Vec::new();
            loop {
                let count_max = datapath.receive_max().min(8);
                let more = io.udp_recv(count_max, datapath.pool(), &mut received);
                received
                    .drain(..)
                    .for_each(|train| datapath.receive(train, now));
                datapath.pass_on_early();
                if !more || datapath.should_deliver() {
                    break;
                }
            }
            datapath.deliver(io);
            while !datapath.is_own_turn_over()
                && let Some(frame) = io.tap_recv().map(<[u8]>::to_vec)
            {
                datapath.transmit(&frame, now);
            }
            datapath.deliver(io);
            datapath.flush();
            datapath.tick(now);
            while let Some(train) = datapath.pop_train() {
                io.udp_send(&train).unwrap();
                datapath.recycle(train.packet);
            }
        }
        while let Some(event) = self.shared.events.pop() {
            // As control does: the first datagram under new keys makes them the ones to send with.
            if let Event::SessionConfirmed { slot, local_index } = event {
                self.command(Command::ActivateSession { slot, local_index }, now);
            }
            self.events.push(event);
        }
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        let workers = self.shared.workers.iter();
        workers.map(|worker| worker.counters.dropped(reason)).sum()
    }

    pub(crate) fn dropped_in_all(&self) -> u64 {
        DropReason::ALL
            .iter()
            .map(|reason| self.dropped(*reason))
            .sum()
    }

    pub(crate) fn passed(&self, station: Station) -> u64 {
        let workers = self.shared.workers.iter();
        workers.map(|worker| worker.counters.passed(station)).sum()
    }

    pub(crate) fn send(&mut self, frame: &[u8]) {
        self.send_on(0, frame);
    }

    pub(crate) fn send_on(&mut self, worker: usize, frame: &[u8]) {
        let bytes = [&[0; VNET_LEN], frame].concat();
        self.workers[worker].1.frames_in.push_back(bytes);
    }

    /// Everything written to the TAPs, without virtio headers.
    pub(crate) fn delivered(&mut self) -> Vec<Vec<u8>> {
        let workers = self.workers.iter_mut();
        let frames = workers.flat_map(|(_, io)| io.frames_out.drain(..));
        frames.map(|frame| frame[VNET_LEN..].to_vec()).collect()
    }

    /// Puts a train before the socket that the lane byte of its first datagram names.
    pub(crate) fn arrive(&mut self, train: MemoryTrain) {
        let lane = train.bytes.get(1).copied().unwrap_or(0);
        let worker = usize::from(lane) % self.workers.len();
        self.workers[worker].1.trains_in.push_back(train);
    }

    pub(crate) fn check_pools(&mut self) {
        for (datapath, _) in &mut self.workers {
            assert_eq!(datapath.pool().free_count(), PACKETS);
        }
    }
}

impl Mesh {
    /// `count` hosts that know each other; `links` says between which the underlay carries.
    pub(crate) fn new(count: usize, workers: u16, links: fn(usize, usize) -> bool) -> Self {
        Self::of(&vec![workers; count], links)
    }

    /// Hosts with so many workers each.
    pub(crate) fn of(workers: &[u16], links: fn(usize, usize) -> bool) -> Self {
        let count = workers.len();
        #[expect(clippy::disallowed_methods, reason = "the simulation's first instant")]
        let now = Instant::now();
        let hosts = workers
            .iter()
            .map(|workers| Host::new(*workers, now))
            .collect();
        let mut mesh = Self {
            hosts,
            now,
            links,
            epoch: 0,
        };
        for host in 0..count {
            mesh.hosts[host].command(Command::SetLabel(label(host)), now);
            for other in (0..count).filter(|other| *other != host) {
                let peer = Arc::new(PeerShared::new(label(other)));
                mesh.hosts[host].order(&Order::AddPeer(slot(other), peer), now);
                mesh.hosts[host].command(
                    Command::SetCandidates {
                        slot: slot(other),
                        addresses: [address(other)].into(),
                    },
                    now,
                );
                mesh.hosts[host].fib.flood.push(slot(other));
                mesh.hosts[host].routes.insert(slot(other), NextHop::Direct);
            }
        }
        mesh
    }

    /// A line 0 - 1 - 2 …: everybody has a session with everybody, and routes that lead along the line.
    pub(crate) fn line(count: usize, workers: u16) -> Self {
        Self::line_of(&vec![workers; count])
    }

    /// A line of hosts with so many workers each.
    pub(crate) fn line_of(workers: &[u16]) -> Self {
        let mut mesh = Self::strangers(workers);
        mesh.rekey();
        mesh.settle();
        mesh
    }

    /// A line whose hosts have routes and candidates, and no sessions.
    pub(crate) fn strangers(workers: &[u16]) -> Self {
        let count = workers.len();
        let mut mesh = Self::of(workers, |from, to| from.abs_diff(to) == 1);
        for host in 0..count {
            for other in 0..count {
                let next = if other > host + 1 {
                    host + 1
                } else if other + 1 < host {
                    host - 1
                } else {
                    continue;
                };
                let via = NextHop::Via(slot(next));
                mesh.hosts[host].routes.insert(slot(other), via);
            }
        }
        mesh.publish();
        mesh
    }

    /// Publishes every host's FIB.
    pub(crate) fn publish(&mut self) {
        for host in &mut self.hosts {
            host.fib.generation += 1;
            host.fib.routes = host.routes.clone();
            host.command(Command::SetFib(Arc::new(host.fib.clone())), self.now);
        }
    }

    /// A new session for every pair; the smaller number's host is the one that waits for a sign.
    pub(crate) fn rekey(&mut self) {
        self.epoch += 1;
        for host in 0..self.hosts.len() {
            for other in (0..self.hosts.len()).filter(|other| *other != host) {
                let keys = keys(self.epoch, host, other);
                let shared = EpochShared {
                    pending: AtomicU16::new(u16::try_from(self.hosts[host].workers.len()).unwrap()),
                    confirmed: AtomicBool::new(false),
                    forged: AtomicU64::new(0),
                };
                let order = Order::InstallSession(Arc::new(keys), Arc::new(shared));
                self.hosts[host].order(&order, self.now);
            }
        }
        for host in 0..self.hosts.len() {
            for other in 0..host {
                let local_index = keys(self.epoch, host, other).local_index;
                let slot = slot(other);
                let activate = Command::ActivateSession { slot, local_index };
                self.hosts[host].command(activate, self.now);
            }
        }
    }

    /// Three seconds of virtual time over a perfect wire: probes, replies, path MTU.
    pub(crate) fn settle(&mut self) {
        for _ in 0..300 {
            self.step(Duration::from_millis(10), |_, _, train| vec![train]);
        }
    }

    /// One turn of everybody; `wire` says what becomes of each train that the underlay carries.
    pub(crate) fn step(
        &mut self,
        time: Duration,
        mut wire: impl FnMut(usize, usize, MemoryTrain) -> Vec<MemoryTrain>,
    ) {
        self.now += time;
        for from in 0..self.hosts.len() {
            self.hosts[from].turn(self.now);
            let workers = self.hosts[from].workers.iter_mut();
            let trains: Vec<_> = workers
                .flat_map(|(_, io)| io.trains_out.drain(..))
                .collect();
            for train in trains {
                let to = host_at(train.address);
                if !(self.links)(from, to) {
                    continue;
                }
                for mut train in wire(from, to, train) {
                    train.address = address(from);
                    self.hosts[to].arrive(train);
                }
            }
        }
    }

    /// As long as something is on its way, over a perfect wire.
    pub(crate) fn exchange(&mut self) {
        for _ in 0..2 * self.hosts.len() + 4 {
            self.step(Duration::from_millis(1), |_, _, train| vec![train]);
        }
    }
}

/// A frame of an unregistered type between two made-up containers.
pub(crate) fn frame(to: u8, from: u8, len: usize, fill: u8) -> Vec<u8> {
    let mut frame = vec![fill; len];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    frame
}

/// A TCP super-frame with its virtio header: `payload` bytes for segments of 1000.
pub(crate) fn super_frame(payload: usize) -> Vec<u8> {
    let mut super_frame = vec![1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0];
    super_frame.extend(frame(2, 1, 14, 0));
    super_frame.truncate(VNET_LEN + 12);
    super_frame.extend([8, 0, 0x45, 0]);
    super_frame.extend(u16::try_from(40 + payload).unwrap().to_be_bytes());
    super_frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 2, 1, 1, 10, 2, 1, 2]);
    super_frame.extend([
        0x12, 0x34, 0x14, 0x51, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    super_frame.extend((0..payload).map(|at| u8::try_from(at % 251).unwrap()));
    super_frame
}
