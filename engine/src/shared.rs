//! What all workers and control see of each other: tables of atomics, bounded queues, no lock.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::bridge::{Announced, Echoes, Fdb};
use crate::command::{Event, PeerSlot};
use crate::config::{
    BENCH_SAMPLES_MAX, DATAGRAM_LEN_MAX, EVENTS_MAX, HANDOFFS_MAX, SEND_FAILURES_MAX,
    STAGED_BYTES_MAX, STAGED_FRAMES_MAX, STRANGERS_MAX,
};
use crate::path::{Arrival, SendFailure};
use crate::session::{CipherSuite, Implementation};
use crate::verdict::{Counters, DropReason};
use crate::wire::ethernet::EthernetView;

/// Where data for a peer goes now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// The peer's underlay address.
    pub address: SocketAddr,
    /// Our address that datagrams leave from, if it matters.
    pub local: Option<IpAddr>,
    /// Largest UDP payload that crosses.
    pub datagram_max: usize,
}

/// A frame that waits for a session or a path.
#[derive(Debug)]
pub struct Staged {
    /// Virtio header and frame; several peers' copies share the bytes.
    pub bytes: Bytes,
    /// When it came: what waited too long is of no use to anybody.
    pub at: Instant,
}

/// One peer, as all workers see it.
#[derive(Debug)]
pub struct PeerShared {
    /// Its name in RELAY and GROUP headers.
    pub label: u64,
    /// The path in use, if any; written by the worker that probes.
    pub endpoint: ArcSwapOption<Endpoint>,
    /// Frames that wait.
    pub queue: ArrayQueue<Staged>,
    /// Milliseconds after start until when floods towards it rest.
    pub flood_rests_ms: AtomicU64,
    /// Milliseconds after start when a session was asked for.
    pub wanted_ms: AtomicU64,
    /// Frame bytes to the peer.
    pub tx_bytes: AtomicU64,
    /// Frame bytes from the peer.
    pub rx_bytes: AtomicU64,
    /// What a measurement by the peer brought, in datagrams.
    pub bench_datagrams: AtomicU64,
    /// Their frame bytes.
    pub bench_bytes: AtomicU64,
    /// What a measurement of ours sent to the peer, in datagrams.
    pub bench_sent: AtomicU64,
    /// What of it arrived, as the peer last said.
    pub bench_arrived: AtomicU64,
    /// Its frame bytes.
    pub bench_arrived_bytes: AtomicU64,
}

impl Default for PeerShared {
    fn default() -> Self {
        Self::new([0; 8])
    }
}

impl PeerShared {
    /// A peer of this label.
    pub fn new(label: [u8; 8]) -> Self {
        Self {
            label: u64::from_be_bytes(label),
            endpoint: ArcSwapOption::empty(),
            queue: ArrayQueue::new(STAGED_FRAMES_MAX),
            flood_rests_ms: AtomicU64::new(0),
            wanted_ms: AtomicU64::new(0),
            tx_bytes: AtomicU64::new(0),
            rx_bytes: AtomicU64::new(0),
            bench_datagrams: AtomicU64::new(0),
            bench_bytes: AtomicU64::new(0),
            bench_sent: AtomicU64::new(0),
            bench_arrived: AtomicU64::new(0),
            bench_arrived_bytes: AtomicU64::new(0),
        }
    }
}

/// Whence a datagram is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The underlay, from this address.
    Wire(Arrival),
    /// A RELAY datagram that this peer vouched for.
    Hop(PeerSlot),
}

/// A datagram on its way to the worker that owns its lane.
#[derive(Debug)]
pub struct Handoff {
    /// Its bytes, in a buffer that goes back to [`WorkerShared::handoffs_free`].
    pub bytes: Box<[u8]>,
    /// How many count.
    pub len: usize,
    /// The sender.
    pub from: Origin,
}

/// One worker, as the others see it.
#[derive(Debug)]
pub struct WorkerShared {
    /// Its counters.
    pub counters: Counters,
    /// Written to end its sleep.
    pub wake: Arc<EventFd>,
    /// Datagrams of its lanes that arrived elsewhere.
    pub handoffs: ArrayQueue<Handoff>,
    /// Empty buffers for them.
    pub handoffs_free: ArrayQueue<Box<[u8]>>,
}

/// Which implementation opens and seals each suite here.
pub type Implementations = BTreeMap<CipherSuite, Implementation>;

/// Everything that workers and control share.
#[derive(Debug)]
pub struct Shared {
    /// MAC to port.
    pub fdb: Fdb,
    /// What was flooded a moment ago.
    pub echoes: Echoes,
    /// Which addresses were announced a moment ago.
    pub announced: Announced,
    /// Milliseconds after start when a loop was last reported.
    pub loop_noticed_ms: AtomicU64,
    /// The workers.
    pub workers: Box<[WorkerShared]>,
    /// Reports to control.
    pub events: ArrayQueue<Event>,
    /// Readable while reports wait.
    pub event_fd: EventFd,
    /// Peers heard from an address that is not theirs; worker 0 asks whether they moved.
    pub strangers: ArrayQueue<(PeerSlot, SocketAddr)>,
    /// What the kernel did not send for other workers than 0, which has the paths: where to, how long, why.
    pub send_failures: ArrayQueue<(SocketAddr, u16, SendFailure)>,
    /// Round trips of a measurement, in nanoseconds, until control takes them.
    pub bench_nanos: ArrayQueue<u64>,
    /// Bytes of all staged frames.
    pub staged_bytes: AtomicUsize,
    /// Chosen by the self-test.
    pub implementations: Implementations,
    /// Largest MTU of the host's underlay interfaces.
    pub underlay_mtu: u16,
    /// An IPv4 address that every host has for itself: no frame about it enters or leaves. 0 is none.
    pub host_only: AtomicU32,
    /// When the engine started.
    pub start: Instant,
}

impl Shared {
    /// Says whether a frame is about the address that stays on the host.
    #[inline]
    pub fn is_host_only(&self, view: &EthernetView<'_>) -> bool {
        let address = self.host_only.load(Ordering::Relaxed);
        address != 0 && view.speaks_of(address.to_be_bytes())
    }

    /// Tables for `workers` workers; `seed` is random.
    ///
    /// # Errors
    ///
    /// When the kernel gives no eventfd.
    pub fn new(
        workers: u16,
        implementations: Implementations,
        underlay_mtu: u16,
        seed: u64,
        start: Instant,
    ) -> nix::Result<Self> {
        let flags = EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_CLOEXEC;
        let mut places = Vec::new();
        for _ in 0..workers {
            let handoffs_free = ArrayQueue::new(HANDOFFS_MAX);
            // One worker never hands anything off.
            for _ in 0..if workers > 1 { HANDOFFS_MAX } else { 0 } {
                let _ = handoffs_free.push(vec![0; DATAGRAM_LEN_MAX].into_boxed_slice());
            }
            places.push(WorkerShared {
                counters: Counters::default(),
                wake: Arc::new(EventFd::from_value_and_flags(0, flags)?),
                handoffs: ArrayQueue::new(HANDOFFS_MAX),
                handoffs_free,
            });
        }
        Ok(Self {
            fdb: Fdb::new(seed),
            echoes: Echoes::new(seed.rotate_left(32)),
            announced: Announced::new(seed.rotate_left(16)),
            loop_noticed_ms: AtomicU64::new(0),
            workers: places.into_boxed_slice(),
            events: ArrayQueue::new(EVENTS_MAX),
            event_fd: EventFd::from_value_and_flags(0, flags)?,
            strangers: ArrayQueue::new(STRANGERS_MAX),
            send_failures: ArrayQueue::new(SEND_FAILURES_MAX),
            bench_nanos: ArrayQueue::new(BENCH_SAMPLES_MAX),
            staged_bytes: AtomicUsize::new(0),
            implementations,
            underlay_mtu,
            host_only: AtomicU32::new(0),
            start,
        })
    }

    /// Reports to control; counts the report if nobody takes reports any more.
    pub fn report(&self, event: Event, counters: &Counters) {
        if self.events.push(event).is_err() {
            counters.drop(DropReason::EventLost);
        }
        // The counter of an eventfd overflows after 2^64 - 2 unread reports.
        let _ = self.event_fd.write(1);
    }

    /// Ends a worker's sleep.
    pub fn wake(&self, worker: u16) {
        if let Some(worker) = self.workers.get(usize::from(worker)) {
            let _ = worker.wake.write(1);
        }
    }

    /// Puts a frame aside for a peer; false if too much waits already.
    pub fn stage(&self, peer: &PeerShared, staged: Staged) -> bool {
        let len = staged.bytes.len();
        if self.staged_bytes.fetch_add(len, Ordering::Relaxed) + len > STAGED_BYTES_MAX
            || peer.queue.push(staged).is_err()
        {
            self.staged_bytes.fetch_sub(len, Ordering::Relaxed);
            return false;
        }
        true
    }

    /// Takes the next frame that waits for a peer.
    pub fn unstage(&self, peer: &PeerShared) -> Option<Staged> {
        let staged = peer.queue.pop()?;
        self.staged_bytes
            .fetch_sub(staged.bytes.len(), Ordering::Relaxed);
        Some(staged)
    }
}
