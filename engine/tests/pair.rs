//! Two datapaths over memory: unicast, flood, staging, replay, forgery, rekey, small paths, lanes.
//!
//! ```text
//!   frames ─► a ═══ wire (a closure: lose, repeat, cut, forge) ═══ b ─► frames
//! ```

#![expect(clippy::unwrap_used, reason = "helpers of tests, outside `#[test]`")]

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

const SLOT: PeerSlot = PeerSlot(3);
const VNET_LEN: usize = 10;

struct Side {
    shared: Arc<Shared>,
    workers: Vec<(Datapath, MemoryIo)>,
    address: SocketAddr,
    events: Vec<Event>,
}

impl Side {
    fn new(address: &str, workers: u16, now: Instant) -> Self {
        let implementations =
            BTreeMap::from([(CipherSuite::ChaCha20Poly1305, Implementation::RustCrypto)]);
        let shared = Arc::new(Shared::new(workers, implementations, 1500, 5, now).unwrap());
        let config = CoalesceConfig {
            tcp4: true,
            tcp6: true,
            udp: true,
        };
        let make = |worker| {
            (
                Datapath::new(worker, Arc::clone(&shared), Pool::new(96), config),
                MemoryIo::default(),
            )
        };
        let workers = (0..workers).map(make).collect();
        Self {
            shared,
            workers,
            address: address.parse().unwrap(),
            events: Vec::new(),
        }
    }

    fn order(&mut self, order: &Order, now: Instant) {
        for (datapath, _) in &mut self.workers {
            datapath.apply(order.clone(), now);
        }
    }

    fn command(&mut self, command: Command, now: Instant) {
        self.order(&Order::Command(command), now);
    }

    /// Adds the peer, without a session.
    fn meet(&mut self, peer: SocketAddr, now: Instant) {
        self.order(&Order::AddPeer(SLOT, Arc::new(PeerShared::default())), now);
        let routes = BTreeMap::from([(SLOT, NextHop::Direct)]);
        self.command(
            Command::SetFib(Arc::new(Fib {
                generation: 1,
                routes,
                flood: vec![SLOT],
                ..Fib::default()
            })),
            now,
        );
        self.command(
            Command::SetCandidates {
                slot: SLOT,
                addresses: [peer].into(),
            },
            now,
        );
    }

    fn install(&mut self, epoch: u32, initiator: bool, now: Instant) {
        let key = |byte: u32| SecretKey([u8::try_from(byte & 0xff).unwrap(); 32]);
        let (mine, theirs) = if initiator {
            (2 * epoch, 2 * epoch + 1)
        } else {
            (2 * epoch + 1, 2 * epoch)
        };
        let keys = SessionKeys {
            slot: SLOT,
            local_index: mine,
            remote_index: theirs,
            suite: CipherSuite::ChaCha20Poly1305,
            send_key: key(mine),
            recv_key: key(theirs),
            peer_lanes: 16,
        };
        let shared = EpochShared {
            pending: AtomicU16::new(u16::try_from(self.workers.len()).unwrap()),
            confirmed: AtomicBool::new(false),
            forged: AtomicU64::new(0),
        };
        self.order(
            &Order::InstallSession(Arc::new(keys), Arc::new(shared)),
            now,
        );
    }

    /// One turn of every worker's loop.
    fn turn(&mut self, now: Instant) {
        for (datapath, io) in &mut self.workers {
            datapath.take_handoffs(now);
            let mut received = Vec::new();
            while io.udp_recv(8, datapath.pool(), &mut received) || !received.is_empty() {
                received
                    .drain(..)
                    .for_each(|train| datapath.receive(train, now));
            }
            datapath.deliver(io);
            while let Some(frame) = io.tap_recv().map(<[u8]>::to_vec) {
                datapath.transmit(&frame, now);
            }
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

    fn dropped(&self, reason: DropReason) -> u64 {
        self.shared
            .workers
            .iter()
            .map(|worker| worker.counters.dropped(reason))
            .sum()
    }

    fn passed(&self, station: Station) -> u64 {
        self.shared
            .workers
            .iter()
            .map(|worker| worker.counters.passed(station))
            .sum()
    }

    /// Everything written to the TAPs, without virtio headers.
    fn delivered(&mut self) -> Vec<Vec<u8>> {
        let frames = self
            .workers
            .iter_mut()
            .flat_map(|(_, io)| io.frames_out.drain(..));
        frames.map(|frame| frame[VNET_LEN..].to_vec()).collect()
    }

    fn send(&mut self, frame: &[u8]) {
        self.send_on(0, frame);
    }

    fn send_on(&mut self, worker: usize, frame: &[u8]) {
        let bytes = [&[0; VNET_LEN], frame].concat();
        self.workers[worker].1.frames_in.push_back(bytes);
    }

    fn trains_out(&mut self) -> Vec<MemoryTrain> {
        self.workers
            .iter_mut()
            .flat_map(|(_, io)| io.trains_out.drain(..))
            .collect()
    }
}

struct Net {
    a: Side,
    b: Side,
    now: Instant,
}

impl Net {
    fn new(workers: u16) -> Self {
        #[expect(clippy::disallowed_methods, reason = "the simulation's first instant")]
        let now = Instant::now();
        let mut net = Self {
            a: Side::new("192.0.2.1:6783", workers, now),
            b: Side::new("192.0.2.2:6783", workers, now),
            now,
        };
        net.a.meet(net.b.address, now);
        net.b.meet(net.a.address, now);
        net
    }

    fn connected(workers: u16) -> Self {
        let mut net = Self::new(workers);
        net.rekey(1);
        net.settle();
        assert!(
            net.a
                .events
                .iter()
                .any(|event| matches!(event, Event::PathUp { .. }))
        );
        net
    }

    fn rekey(&mut self, epoch: u32) {
        self.a.install(epoch, true, self.now);
        self.b.install(epoch, false, self.now);
        self.b.command(
            Command::ActivateSession {
                slot: SLOT,
                local_index: 2 * epoch + 1,
            },
            self.now,
        );
    }

    /// Runs for three seconds of virtual time over a perfect wire: probes, replies, path MTU.
    fn settle(&mut self) {
        for _ in 0..300 {
            self.step(Duration::from_millis(10), |_, train| vec![train]);
        }
    }

    /// One turn of both; `wire` says what becomes of each train.
    fn step(
        &mut self,
        time: Duration,
        mut wire: impl FnMut(bool, MemoryTrain) -> Vec<MemoryTrain>,
    ) {
        self.now += time;
        self.a.turn(self.now);
        self.b.turn(self.now);
        for from_a in [true, false] {
            let (sender, receiver) = if from_a {
                (&mut self.a, &mut self.b)
            } else {
                (&mut self.b, &mut self.a)
            };
            let source = sender.address;
            for train in sender.trains_out() {
                for mut train in wire(from_a, train) {
                    train.address = source;
                    receiver.workers[0].1.trains_in.push_back(train);
                }
            }
        }
        self.b.turn(self.now);
        self.a.turn(self.now);
    }

    fn exchange(&mut self) {
        for _ in 0..4 {
            self.step(Duration::from_millis(1), |_, train| vec![train]);
        }
    }
}

fn frame(to: u8, from: u8, len: usize, fill: u8) -> Vec<u8> {
    let mut frame = vec![fill; len];
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, to, 2, 0, 0, 0, 0, from, 0x88, 0xb5]);
    frame
}

#[test]
fn frames_that_came_before_the_session_leave_once_it_stands() {
    let mut net = Net::new(1);
    net.a.send(&frame(2, 1, 60, 7));
    net.exchange();
    assert!(net.a.events.contains(&Event::SessionWanted { slot: SLOT }));
    assert_eq!(net.a.passed(Station::Stage), 1);
    net.rekey(1);
    net.exchange();
    assert_eq!(net.b.delivered(), [frame(2, 1, 60, 7)]);
}

#[test]
fn a_queue_for_a_session_that_never_comes_is_bounded_and_counted() {
    let mut net = Net::new(1);
    for _ in 0..1000 {
        net.a.send(&frame(2, 1, 1400, 7));
    }
    net.exchange();
    assert_eq!(net.a.dropped(DropReason::QueueFull), 1000 - 128);
}

#[test]
fn a_learned_mac_is_not_flooded_and_a_local_one_stays_home() {
    let mut net = Net::connected(1);
    net.b.send(&frame(1, 2, 60, 0));
    net.exchange();
    assert_eq!(net.a.delivered().len(), 1);
    let floods = net.a.passed(Station::Bridge);
    net.a.send(&frame(2, 1, 60, 1));
    net.exchange();
    assert_eq!(net.b.delivered(), [frame(2, 1, 60, 1)]);
    assert_eq!(net.a.passed(Station::Bridge), floods, "unicast");
    net.a.send(&frame(1, 9, 60, 1));
    net.exchange();
    assert_eq!(net.a.dropped(DropReason::SamePort), 1);
    let mut stp = frame(0, 1, 60, 1);
    stp[..6].copy_from_slice(&[1, 0x80, 0xc2, 0, 0, 0]);
    net.a.send(&stp);
    net.exchange();
    assert_eq!(net.a.dropped(DropReason::LinkLocal), 1);
    assert!(net.b.delivered().is_empty());
}

#[test]
fn small_frames_that_wait_together_share_a_datagram() {
    let mut net = Net::connected(1);
    let sealed = net.a.passed(Station::Seal);
    let frames: Vec<_> = (0..20).map(|fill| frame(2, 1, 60, fill)).collect();
    frames.iter().for_each(|frame| net.a.send(frame));
    net.step(Duration::from_millis(1), |_, train| vec![train]);
    assert_eq!(net.b.delivered(), frames);
    assert!(
        net.a.passed(Station::Seal) - sealed <= 3,
        "20 frames of 60 bytes fit in one datagram of 1472"
    );
}

#[test]
fn a_repeated_train_and_every_kind_of_forgery_deliver_nothing() {
    let mut net = Net::connected(1);
    let mut wanted = Vec::new();
    for fill in 0..40 {
        wanted.push(frame(2, 1, 1300, fill));
        net.a.send(wanted.last().unwrap());
    }
    let mut captured = Vec::new();
    net.step(Duration::from_millis(1), |from_a, train| {
        if from_a {
            captured.push(train.clone());
        }
        // Twice at once, the second time backwards: duplicates inside one batch.
        let mut twice: Vec<_> = train.datagrams().collect();
        twice.extend(train.datagrams().collect::<Vec<_>>().into_iter().rev());
        twice
    });
    let mut delivered = net.b.delivered();
    delivered.sort();
    assert_eq!(delivered, wanted);
    assert!(net.b.dropped(DropReason::Replayed) >= 40);

    let opened = net.b.passed(Station::Open);
    let mut forged = Vec::new();
    for datagram in captured.iter().flat_map(MemoryTrain::datagrams) {
        let bits = datagram.bytes.len() * 8;
        for bit in (0..128).chain((128..bits).step_by(131)) {
            let mut bad = datagram.clone();
            bad.bytes[bit / 8] ^= 1 << (bit % 8);
            forged.push(bad);
        }
        for len in (0..datagram.bytes.len()).step_by(97) {
            let bytes = datagram.bytes[..len].to_vec();
            forged.push(MemoryTrain {
                segment: len.max(1),
                bytes,
                ..datagram
            });
        }
    }
    let elsewhere: SocketAddr = "203.0.113.9:1".parse().unwrap();
    for mut bad in forged {
        bad.address = elsewhere;
        net.b.workers[0].1.trains_in.push_back(bad);
        net.b.turn(net.now);
    }
    assert_eq!(net.b.passed(Station::Open), opened, "nothing authentic");
    assert!(net.b.delivered().is_empty());
    let sent = net.b.trains_out();
    assert!(
        sent.iter().all(|train| train.address != elsewhere),
        "nobody answers a forger"
    );
    for reason in [
        DropReason::BadHeader,
        DropReason::UnknownSession,
        DropReason::Forged,
        DropReason::Replayed,
    ] {
        assert!(net.b.dropped(reason) > 0, "{reason:?}");
    }
}

#[test]
fn rekeys_lose_nothing_while_old_datagrams_are_still_under_way() {
    let mut net = Net::connected(1);
    let mut sent = 0_u32;
    let mut late = Vec::new();
    let mut got = Vec::new();
    for epoch in 2..60 {
        net.rekey(epoch);
        for round in 0..6 {
            for _ in 0..3 {
                let mut one = frame(2, 1, 200, 0);
                one[20..24].copy_from_slice(&sent.to_be_bytes());
                net.a.send(&one);
                sent += 1;
            }
            // Every other round's trains come a round later, sealed under keys that are no longer in use by then.
            let mut due = std::mem::take(&mut late);
            net.step(Duration::from_millis(5), |from_a, train| {
                if from_a && round % 2 == 0 {
                    late.push(train);
                    return Vec::new();
                }
                vec![train]
            });
            for mut train in due.drain(..) {
                train.address = net.a.address;
                net.b.workers[0].1.trains_in.push_back(train);
            }
            net.exchange();
            got.extend(
                net.b
                    .delivered()
                    .iter()
                    .map(|one| u32::from_be_bytes(one[20..24].try_into().unwrap())),
            );
        }
    }
    for mut train in late.drain(..) {
        train.address = net.a.address;
        net.b.workers[0].1.trains_in.push_back(train);
    }
    net.exchange();
    got.extend(
        net.b
            .delivered()
            .iter()
            .map(|one| u32::from_be_bytes(one[20..24].try_into().unwrap())),
    );
    got.sort_unstable();
    assert_eq!(got, (0..sent).collect::<Vec<_>>());
}

/// TCP in super-frames over a wire that carries every datagram singly and loses some.
#[test]
fn a_lost_datagram_costs_one_segment_and_not_the_super_frame() {
    let mut net = Net::connected(1);
    let payload = 30 * 1000;
    let mut super_frame = vec![1, 1, 54, 0, 0xe8, 3, 34, 0, 16, 0];
    super_frame.extend(frame(2, 1, 14, 0));
    super_frame.truncate(VNET_LEN + 12);
    super_frame.extend([8, 0]);
    let total = u16::try_from(40 + payload).unwrap();
    super_frame.extend([0x45, 0]);
    super_frame.extend(total.to_be_bytes());
    super_frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 2, 1, 1, 10, 2, 1, 2]);
    super_frame.extend([
        0x12, 0x34, 0x14, 0x51, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    super_frame.extend((0..payload).map(|at| u8::try_from(at % 251).unwrap()));
    net.a.workers[0].1.frames_in.push_back(super_frame);
    let mut count = 0;
    net.step(Duration::from_millis(1), |_, train| {
        let mut singles: Vec<_> = train.datagrams().collect();
        count += singles.len();
        if singles.len() > 20 {
            singles.remove(11);
            singles.swap(3, 4);
        }
        singles
    });
    assert!(count >= 30);
    let delivered = net.b.delivered();
    let bytes: usize = delivered.iter().map(|frame| frame.len() - 54).sum();
    assert_eq!(
        bytes,
        payload - 1000,
        "one segment of 1000 bytes is missing"
    );
    assert!(
        delivered.len() <= 4,
        "long runs in spite of a gap and a swap: {}",
        delivered.len()
    );
}

#[test]
fn a_frame_too_big_for_its_path_crosses_in_two_pieces() {
    let mut net = Net::new(1);
    net.rekey(1);
    let small = |_: bool, train: MemoryTrain| {
        train
            .datagrams()
            .filter(|one| one.bytes.len() <= 1252)
            .collect()
    };
    for _ in 0..300 {
        net.step(Duration::from_millis(10), small);
    }
    let big: Vec<_> = (0..10).map(|fill| frame(2, 1, 1390, fill)).collect();
    big.iter().for_each(|frame| net.a.send(frame));
    net.step(Duration::from_millis(1), small);
    assert_eq!(net.b.delivered(), big);
    assert_eq!(net.a.passed(Station::SealPieces), 10);
    // Of the second frame one half is lost: it is counted, and the third arrives.
    big.iter().take(3).for_each(|frame| net.a.send(frame));
    let mut nth = 0;
    net.step(Duration::from_millis(1), |from_a, train| {
        let singles = train.datagrams();
        if !from_a {
            return singles.collect();
        }
        singles
            .filter(|one| {
                nth += usize::from(one.bytes.len() > 600);
                nth != 4 || one.bytes.len() <= 600
            })
            .collect()
    });
    assert_eq!(net.b.delivered(), [big[0].clone(), big[2].clone()]);
    assert_eq!(net.b.dropped(DropReason::PieceLost), 1);
}

#[test]
fn a_datagram_of_another_workers_lane_reaches_its_owner() {
    let mut net = Net::connected(2);
    for fill in 0..50 {
        net.a
            .send_on(usize::from(fill % 2), &frame(2, 1, 300, fill));
    }
    // Every train arrives at worker 0, as receive offload may do.
    net.exchange();
    let mut fills: Vec<_> = net.b.delivered().iter().map(|frame| frame[20]).collect();
    fills.sort_unstable();
    assert_eq!(fills, (0..50).collect::<Vec<_>>());
    assert!(net.b.passed(Station::UdpRxHandoff) > 0);
    assert!(net.b.workers[1].0.counters().passed(Station::Open) > 0);
}

#[test]
fn a_dead_path_is_reported_and_frames_for_it_are_counted() {
    let mut net = Net::connected(1);
    net.a.events.clear();
    for _ in 0..35 {
        net.step(Duration::from_millis(100), |_, _| Vec::new());
    }
    assert!(net.a.events.contains(&Event::PathDown { slot: SLOT }));
    for _ in 0..200 {
        net.a.send(&frame(2, 1, 100, 1));
    }
    net.step(Duration::from_millis(10), |_, _| Vec::new());
    assert_eq!(net.a.dropped(DropReason::PathDown), 200 - 128);
    net.settle();
    assert!(
        net.a
            .events
            .iter()
            .any(|event| matches!(event, Event::PathUp { .. }))
    );
    net.b.delivered();
    net.a.send(&frame(2, 1, 100, 9));
    net.exchange();
    assert_eq!(net.b.delivered().last(), Some(&frame(2, 1, 100, 9)));
}

#[test]
fn a_message_of_controls_crosses_inside_the_session() {
    let mut net = Net::connected(1);
    let message = bytes::Bytes::from_static(b"rekey, please");
    net.a.command(
        Command::SendMessage {
            slot: SLOT,
            message: message.clone(),
        },
        net.now,
    );
    net.exchange();
    assert!(net.b.events.contains(&Event::Message {
        slot: SLOT,
        message
    }));
}

#[test]
fn every_packet_is_back_in_its_pool_after_a_busy_time() {
    let mut net = Net::connected(1);
    let before = net.a.workers[0].0.pool().free_count();
    for round in 0..50 {
        for fill in 0..100 {
            net.a.send(&frame(2, 1, 60 + usize::from(fill) * 13, fill));
            net.b.send(&frame(1, 2, 1390, fill));
        }
        net.step(Duration::from_millis(1), |_, train| {
            let keep = round % 7 != 3;
            train.datagrams().filter(|_| keep).collect()
        });
    }
    net.exchange();
    assert_eq!(net.a.workers[0].0.pool().free_count(), before);
    assert_eq!(net.b.workers[0].0.pool().free_count(), before);
    assert_eq!(
        net.b.dropped(DropReason::PoolEmpty) + net.a.dropped(DropReason::PoolEmpty),
        0
    );
}
