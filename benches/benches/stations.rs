//! One criterion bench per station, in bytes and elements a second, and the whole path over memory.
//!
//! `cargo bench -p weft-benches --bench stations [-- FILTER]`

use std::collections::BTreeMap;
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU64};
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use crossbeam::queue::ArrayQueue;
use weft_engine::bridge::{Fdb, Fib, NextHop, Port};
use weft_engine::command::{Command, PeerSlot, SecretKey, SessionKeys};
use weft_engine::datapath::{Datapath, Order};
use weft_engine::io::memory::MemoryIo;
use weft_engine::io::offload::CoalesceConfig;
use weft_engine::io::{Io, Received};
use weft_engine::packet::Pool;
use weft_engine::session::{
    CipherSuite, EpochShared, Implementation, LaneCipher, ReplayWindow, SealLane, fastest, measure,
};
use weft_engine::shared::{Endpoint, PeerShared, Shared};
use weft_engine::wire::ethernet::MacAddr;
use weft_engine::wire::relay::HOP_LIMIT_MAX;
use weft_engine::wire::{HEADER_LEN, TAG_LEN};

const SLOT: PeerSlot = PeerSlot(1);

fn bridge(c: &mut Criterion) {
    let fdb = Fdb::new(42);
    let macs: Vec<_> = (0..4096_u32)
        .map(|number| {
            let [a, b, c, d] = number.to_be_bytes();
            MacAddr([2, 0, a, b, c, d])
        })
        .collect();
    let now = Duration::from_secs(5);
    for mac in &macs {
        fdb.learn(*mac, Port::Peer(SLOT), now);
    }
    let mut group = c.benchmark_group("bridge");
    group.throughput(Throughput::Elements(macs.len() as u64));
    group.bench_function("learn_again", |b| {
        b.iter(|| {
            macs.iter()
                .filter(|mac| fdb.learn(**mac, Port::Peer(SLOT), now))
                .count()
        });
    });
    group.bench_function("lookup", |b| {
        b.iter(|| {
            macs.iter()
                .filter(|mac| fdb.lookup(**mac, now).is_some())
                .count()
        });
    });
    group.bench_function("lookup_unknown", |b| {
        b.iter(|| {
            macs.iter()
                .filter(|mac| {
                    fdb.lookup(MacAddr([6, 6, 6, mac.0[3], mac.0[4], mac.0[5]]), now)
                        .is_some()
                })
                .count()
        });
    });
    group.finish();
}

fn ciphers(c: &mut Criterion) {
    for suite in CipherSuite::ALL {
        for implementation in Implementation::of(suite) {
            let name = format!("{}/{}", suite.name(), implementation.name());
            let lane = LaneCipher::derive(suite, *implementation, &SecretKey([7; 32]), 0)
                .expect("built in");
            for len in [64_usize, 1400, 8900, 65_536] {
                let mut text = vec![0; len + TAG_LEN];
                let mut counter = 0;
                let mut group = c.benchmark_group("seal");
                group.throughput(Throughput::ElementsAndBytes {
                    elements: 1,
                    bytes: len as u64,
                });
                group.bench_function(BenchmarkId::new(&name, len), |b| {
                    b.iter(|| {
                        counter += 1;
                        black_box(lane.seal(counter, &[0; HEADER_LEN], &mut text[..len]))
                    });
                });
                group.finish();
                let tag = lane.seal(0, &[0; HEADER_LEN], &mut text[..len]);
                text[len..].copy_from_slice(&tag);
                let mut copy = text.clone();
                let mut group = c.benchmark_group("open");
                group.throughput(Throughput::ElementsAndBytes {
                    elements: 1,
                    bytes: len as u64,
                });
                group.bench_function(BenchmarkId::new(&name, len), |b| {
                    b.iter(|| {
                        copy.copy_from_slice(&text);
                        lane.open(0, &[0; HEADER_LEN], &mut copy)
                            .expect("authentic")
                    });
                });
                group.finish();
            }
        }
    }
}

fn replay(c: &mut Criterion) {
    let mut group = c.benchmark_group("replay");
    group.throughput(Throughput::Elements(1));
    let mut window = ReplayWindow::default();
    let mut counter = 0_u64;
    group.bench_function("in_order", |b| {
        b.iter(|| {
            counter += 1;
            window.mark(black_box(counter))
        });
    });
    let mut window = ReplayWindow::default();
    let mut step = 0_u64;
    group.bench_function("reordered", |b| {
        b.iter(|| {
            step += 1;
            window.mark(black_box(step ^ 0x3f))
        });
    });
    group.bench_function("replayed", |b| b.iter(|| window.check(black_box(step / 2))));
    group.finish();
}

/// Two threads push and pop while the measured one does the same.
fn queue(c: &mut Criterion) {
    let mut group = c.benchmark_group("stage");
    group.throughput(Throughput::Elements(1));
    for (name, rivals) in [("alone", 0), ("one_rival", 1)] {
        let queue = ArrayQueue::new(128);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..rivals {
                scope.spawn(|| {
                    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                        let _ = queue.push(bytes::Bytes::from_static(b"frame"));
                        black_box(queue.pop());
                    }
                });
            }
            group.bench_function(name, |b| {
                b.iter(|| {
                    let _ = queue.push(bytes::Bytes::from_static(b"frame"));
                    black_box(queue.pop())
                });
            });
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
        });
    }
    group.finish();
}

/// One end of the whole path: its datapath over memory.
struct End {
    datapath: Datapath,
    io: MemoryIo,
    address: SocketAddr,
}

impl End {
    fn new(first: bool, suite: CipherSuite, implementation: Implementation, now: Instant) -> Self {
        let shared = Arc::new(
            Shared::new(1, BTreeMap::from([(suite, implementation)]), 1500, 9, now)
                .expect("an eventfd"),
        );
        let config = CoalesceConfig {
            tcp4: true,
            tcp6: true,
            udp: true,
        };
        let mut datapath = Datapath::new(0, shared, Pool::new(160), config);
        let (address, peer) = if first {
            ("192.0.2.1:1", "192.0.2.2:1")
        } else {
            ("192.0.2.2:1", "192.0.2.1:1")
        };
        let (mine, theirs) = if first { (1, 2) } else { (2, 1) };
        let keys = SessionKeys {
            slot: SLOT,
            local_index: mine,
            remote_index: theirs,
            suite,
            send_key: SecretKey([u8::try_from(mine).unwrap_or(0); 32]),
            recv_key: SecretKey([u8::try_from(theirs).unwrap_or(0); 32]),
            peer_lanes: 1,
        };
        let epoch = EpochShared {
            pending: AtomicU16::new(1),
            confirmed: AtomicBool::new(true),
            forged: AtomicU64::new(0),
        };
        datapath.apply(Order::AddPeer(SLOT, Arc::new(PeerShared::default())), now);
        let fib = Fib {
            generation: 1,
            routes: BTreeMap::from([(SLOT, NextHop::Direct)]),
            flood: vec![SLOT],
            ..Fib::default()
        };
        datapath.apply(Order::Command(Command::SetFib(Arc::new(fib))), now);
        datapath.apply(Order::InstallSession(Arc::new(keys), Arc::new(epoch)), now);
        let peer: SocketAddr = peer.parse().expect("an address");
        datapath.apply(
            Order::Command(Command::SetCandidates {
                slot: SLOT,
                addresses: [peer].into(),
            }),
            now,
        );
        datapath.apply(
            Order::Command(Command::ActivateSession {
                slot: SLOT,
                local_index: mine,
            }),
            now,
        );
        Self {
            datapath,
            io: MemoryIo::default(),
            address: address.parse().expect("an address"),
        }
    }

    fn turn(&mut self, now: Instant) {
        let mut received = Vec::new();
        while self.io.udp_recv(8, self.datapath.pool(), &mut received) || !received.is_empty() {
            received
                .drain(..)
                .for_each(|train| self.datapath.receive(train, now));
        }
        self.datapath.deliver(&mut self.io);
        self.datapath.tick(now);
        self.send();
    }

    fn send(&mut self) {
        self.datapath.flush();
        while let Some(train) = self.datapath.pop_train() {
            let _ = self.io.udp_send(&train);
            self.datapath.recycle(train.packet);
        }
    }

    fn carry(&mut self, to: &mut Self) {
        for mut train in self.io.trains_out.drain(..) {
            train.address = self.address;
            to.io.trains_in.push_back(train);
        }
    }
}

/// A TCP super-frame of `payload` bytes, virtio header first.
fn super_frame(payload: usize, mss: u16) -> Vec<u8> {
    let mut frame = vec![1, 1, 54, 0];
    frame.extend(mss.to_le_bytes());
    frame.extend([34, 0, 16, 0]);
    frame.extend([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45, 0]);
    frame.extend(
        u16::try_from(40 + payload)
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
    );
    frame.extend([0, 1, 0x40, 0, 64, 6, 0, 0, 10, 2, 1, 1, 10, 2, 1, 2]);
    frame.extend([
        0x12, 0x34, 0x14, 0x51, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0,
    ]);
    frame.resize(10 + 54 + payload, 7);
    frame
}

fn whole_path(c: &mut Criterion) {
    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    let clock = Instant::now;
    let speeds = measure(clock);
    let mut group = c.benchmark_group("whole_path");
    for suite in CipherSuite::ALL {
        let Some(implementation) = fastest(&speeds, suite) else {
            continue;
        };
        let mut now = clock();
        let mut a = End::new(true, suite, implementation, now);
        let mut b = End::new(false, suite, implementation, now);
        for _ in 0..300 {
            now += Duration::from_millis(10);
            a.turn(now);
            a.carry(&mut b);
            b.turn(now);
            b.carry(&mut a);
        }
        // The receiver's container is known, so that its frames are not flooded.
        let mut hello = super_frame(10, 1322);
        hello[..10].fill(0);
        hello[10..22].rotate_left(6);
        b.datapath.transmit(&hello, now);
        b.send();
        b.carry(&mut a);
        a.turn(now);
        for (name, frame) in [
            ("tcp_59k", super_frame(45 * 1322, 1322)),
            ("small_64", super_frame(10, 1322)),
        ] {
            let frame = if name == "small_64" {
                [&[0; 10][..], &frame[10..]].concat()
            } else {
                frame
            };
            let elements = if name == "small_64" { 64 } else { 1 };
            let bytes = (frame.len() - 10) as u64 * elements;
            group.throughput(Throughput::ElementsAndBytes { elements, bytes });
            group.bench_function(BenchmarkId::new(suite.name(), name), |bench| {
                bench.iter(|| {
                    for _ in 0..elements {
                        a.datapath.transmit(&frame, now);
                    }
                    a.send();
                    a.carry(&mut b);
                    b.turn(now);
                    let count = b.io.frames_out.len();
                    assert!(count > 0, "nothing arrived");
                    b.io.frames_out.clear();
                    b.io.trains_out.clear();
                    count
                });
            });
        }
    }
    group.finish();
}

const DATAGRAM_LEN: usize = 1472;
const DATAGRAMS: usize = 44;

/// The keys of a session of the relay with the peer in this slot, as one of the two has them.
fn hop_keys(suite: CipherSuite, slot: u16, at_relay: bool) -> SessionKeys {
    let (here, there) = (u32::from(slot), 100 + u32::from(slot));
    let (local_index, remote_index) = if at_relay {
        (here, there)
    } else {
        (there, here)
    };
    let key = |index: u32| SecretKey([u8::try_from(index).unwrap_or(0); 32]);
    SessionKeys {
        slot: PeerSlot(slot),
        local_index,
        remote_index,
        suite,
        send_key: key(remote_index),
        recv_key: key(local_index),
        peer_lanes: 1,
    }
}

/// A relay between the peers 1 and 2.
fn relay_host(suite: CipherSuite, implementation: Implementation, now: Instant) -> Datapath {
    let shared = Shared::new(1, BTreeMap::from([(suite, implementation)]), 1500, 9, now);
    let shared = Arc::new(shared.expect("an eventfd"));
    let coalesce = CoalesceConfig {
        tcp4: true,
        tcp6: true,
        udp: true,
    };
    let mut datapath = Datapath::new(0, shared, Pool::new(64), coalesce);
    let mut routes = BTreeMap::new();
    for slot in [1, 2] {
        let peer = PeerShared::new([u8::try_from(slot).unwrap_or(0); 8]);
        let address = SocketAddr::from(([192, 0, 2, 9], slot));
        peer.endpoint.store(Some(Arc::new(Endpoint {
            address,
            local: None,
            datagram_max: DATAGRAM_LEN,
        })));
        datapath.apply(Order::AddPeer(PeerSlot(slot), Arc::new(peer)), now);
        let keys = hop_keys(suite, slot, true);
        let epoch = EpochShared {
            pending: AtomicU16::new(1),
            confirmed: AtomicBool::new(true),
            forged: AtomicU64::new(0),
        };
        let (slot, local_index) = (keys.slot, keys.local_index);
        datapath.apply(Order::InstallSession(Arc::new(keys), Arc::new(epoch)), now);
        let activate = Command::ActivateSession { slot, local_index };
        datapath.apply(Order::Command(activate), now);
        routes.insert(slot, NextHop::Direct);
    }
    let fib = Fib {
        generation: 1,
        routes,
        ..Fib::default()
    };
    datapath.apply(Order::Command(Command::SetFib(Arc::new(fib))), now);
    datapath
}

/// A train through a relay: 44 tags checked, 44 fronts and tags written, the buffer handed on.
fn relay(c: &mut Criterion) {
    #[expect(clippy::disallowed_methods, reason = "a bench measures time")]
    let clock = Instant::now;
    let speeds = measure(clock);
    let mut group = c.benchmark_group("relay");
    for suite in CipherSuite::ALL {
        let Some(implementation) = fastest(&speeds, suite) else {
            continue;
        };
        let now = clock();
        let mut datapath = relay_host(suite, implementation, now);
        let mut source = SealLane::new(&hop_keys(suite, 1, false), implementation, 0)
            .expect("the suite is built in");
        let len = DATAGRAM_LEN * DATAGRAMS;
        let mut train = vec![7; len];
        group.throughput(Throughput::ElementsAndBytes {
            elements: DATAGRAMS as u64,
            bytes: len as u64,
        });
        group.bench_function(BenchmarkId::new(suite.name(), "train_65k"), |bench| {
            bench.iter_custom(|rounds| {
                let mut time = Duration::ZERO;
                for _ in 0..rounds {
                    for datagram in train.chunks_mut(DATAGRAM_LEN) {
                        let (to, from) = (u64::from_be_bytes([2; 8]), u64::from_be_bytes([1; 8]));
                        assert!(source.hop().seal(datagram, HOP_LIMIT_MAX, to, from));
                    }
                    let mut packet = datapath.pool().take().expect("a packet");
                    packet.bytes_mut()[..len].copy_from_slice(&train);
                    let received = Received {
                        packet,
                        start: 0,
                        len,
                        segment: DATAGRAM_LEN,
                        from: ([192, 0, 2, 9], 1).into(),
                        local: None,
                    };
                    let start = clock();
                    datapath.receive(received, now);
                    datapath.flush();
                    time += start.elapsed();
                    let out = datapath.pop_train().expect("the train goes on");
                    assert_eq!(out.len, len);
                    datapath.recycle(out.packet);
                }
                time
            });
        });
    }
    group.finish();
}

criterion_group!(stations, bridge, ciphers, replay, queue, relay, whole_path);
criterion_main!(stations);
