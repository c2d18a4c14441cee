//! Measuring towards a peer: a load from memory through `seal`, `udp_tx`, and the peer's `udp_rx` and `open`.
//!
//! ```text
//!  class 0 LOAD     counted by the receiver, and gone
//!  class 1 PING     u64 id ─► class 2 PONG with the same id
//!  class 3 QUERY    ─► class 4 REPORT: u64 datagrams, u64 bytes of LOAD since the receiver knows us
//! ```

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crate::command::{BenchLoad, PeerSlot};
use crate::config::{TRAIN_DATAGRAMS_MAX, TRAIN_LEN_MAX};
use crate::datapath::{Datapath, peer_mut};
use crate::verdict::DropReason;
use crate::wire::{FRAME_OVERHEAD, Kind, LENGTH_LEN};

const LOAD: u8 = 0;
const PING: u8 = 1;
const PONG: u8 = 2;
const QUERY: u8 = 3;
const REPORT: u8 = 4;

/// How often the receiver is asked for its count.
const QUERY_INTERVAL: Duration = Duration::from_millis(100);
/// A ping without an echo for so long is lost.
const PING_TIMEOUT: Duration = Duration::from_secs(1);

/// A measurement that this worker carries out.
#[derive(Debug)]
pub(super) struct Bench {
    slot: PeerSlot,
    load: BenchLoad,
    ping: Option<(u64, Instant)>,
    query_due: Instant,
}

impl Datapath {
    pub(super) fn start_bench(&mut self, slot: PeerSlot, load: Option<BenchLoad>, now: Instant) {
        self.bench = load.map(|load| Bench {
            slot,
            load,
            ping: None,
            query_due: now,
        });
    }

    /// When [`Datapath::bench_turn`] has something to do; at once while it floods.
    pub(super) fn bench_due(&self) -> Option<Instant> {
        let bench = self.bench.as_ref()?;
        let ping_due = bench.ping.map(|(_, sent)| sent + PING_TIMEOUT);
        Some(ping_due.map_or(bench.query_due, |due| due.min(bench.query_due)))
    }

    /// Sends what the running measurement wants; true if it wants to go on at once.
    pub fn bench_turn(&mut self, now: Instant) -> bool {
        let Some(mut bench) = self.bench.take() else {
            return false;
        };
        let slot = bench.slot;
        if self.worker == 0 && bench.query_due <= now {
            bench.query_due = now + QUERY_INTERVAL;
            self.send_bench(slot, QUERY, &[], 0, 1);
        }
        let flooding = match bench.load {
            BenchLoad::Flood { frame_len } => {
                let len = FRAME_OVERHEAD + usize::from(frame_len);
                let count = (TRAIN_LEN_MAX / len).clamp(1, TRAIN_DATAGRAMS_MAX);
                self.send_bench(slot, LOAD, &[], len, count);
                true
            }
            BenchLoad::PingPong => {
                let waiting = bench
                    .ping
                    .is_some_and(|(_, sent)| now.saturating_duration_since(sent) < PING_TIMEOUT);
                if self.worker == 0 && !waiting {
                    let id = rand::random();
                    bench.ping = Some((id, now));
                    self.send_bench(slot, PING, &u64::to_be_bytes(id), 0, 1);
                }
                false
            }
            BenchLoad::Count => false,
        };
        self.bench = Some(bench);
        flooding
    }

    /// A measurement's datagram arrived, of `len` bytes.
    pub(super) fn bench_datagram(
        &mut self,
        slot: PeerSlot,
        class: u8,
        body: &[u8],
        len: usize,
        now: Instant,
    ) -> Result<(), DropReason> {
        let body = body.get(LENGTH_LEN..).ok_or(DropReason::BadPayload)?;
        let number = |at: usize| {
            body.get(at..)?
                .first_chunk::<8>()
                .map(|bytes| u64::from_be_bytes(*bytes))
        };
        let Some(peer) = peer_mut(&mut self.peers, slot) else {
            return Ok(());
        };
        let peer = &peer.shared;
        match class {
            LOAD => {
                peer.bench_datagrams.fetch_add(1, Ordering::Relaxed);
                peer.bench_bytes
                    .fetch_add((len - FRAME_OVERHEAD) as u64, Ordering::Relaxed);
            }
            PING => {
                let id = number(0).ok_or(DropReason::BadPayload)?;
                self.send_bench(slot, PONG, &id.to_be_bytes(), 0, 1);
            }
            PONG => {
                let id = number(0).ok_or(DropReason::BadPayload)?;
                if let Some(bench) = self.bench.as_mut().filter(|bench| bench.slot == slot)
                    && let Some((_, sent)) = bench.ping.take_if(|(expected, _)| *expected == id)
                {
                    let nanos = u64::try_from(now.saturating_duration_since(sent).as_nanos())
                        .unwrap_or(u64::MAX);
                    // Control reads too slowly: a sample less.
                    let _ = self.shared.bench_nanos.push(nanos);
                }
            }
            QUERY => {
                let datagrams = peer.bench_datagrams.load(Ordering::Relaxed);
                let bytes = peer.bench_bytes.load(Ordering::Relaxed);
                let mut report = [0; 16];
                report[..8].copy_from_slice(&datagrams.to_be_bytes());
                report[8..].copy_from_slice(&bytes.to_be_bytes());
                self.send_bench(slot, REPORT, &report, 0, 1);
            }
            REPORT => {
                let (datagrams, bytes) = number(0).zip(number(8)).ok_or(DropReason::BadPayload)?;
                peer.bench_arrived.store(datagrams, Ordering::Relaxed);
                peer.bench_arrived_bytes.store(bytes, Ordering::Relaxed);
            }
            _ => return Err(DropReason::BadPayload),
        }
        Ok(())
    }

    /// Puts `count` datagrams of at least `len` bytes in the peer's train.
    fn send_bench(&mut self, slot: PeerSlot, class: u8, body: &[u8], len: usize, count: usize) {
        let begun = self.with_sink(slot, |builder, sink, peer| {
            let begun = builder.is_empty();
            if class == LOAD {
                peer.bench_sent.fetch_add(count as u64, Ordering::Relaxed);
            }
            for _ in 0..count {
                builder.append_body(Kind::Bench, class, body, len, sink);
            }
            begun
        });
        if begun == Some(true) {
            self.dirty.push(slot);
        }
    }
}
